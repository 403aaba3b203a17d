/* limits.c - works the heap from main and from threads where the process is
 * kept short. argv[1]: number of threads. A thread that the system refuses is
 * no error of ours; memory it refuses must come back as NULL and ENOMEM. */
#include "check.h"
#include <pthread.h>

static void *
worker(void *arg)
{
	churn((unsigned)(uintptr_t)arg, 3000);
	return NULL;
}

int
main(int argc, char **argv)
{
	enum { MANY = 64 };
	pthread_t thread[MANY];
	int running = 0;
	check(argc == 2);
	churn(14, 3000);
	for (intptr_t i = 0; i < atoi(argv[1]) && i < MANY; i++)
		running += pthread_create(&thread[running], NULL, worker, (void *)i) == 0;
	for (int i = 0; i < running; i++)
		check(pthread_join(thread[i], NULL) == 0);
	/* Take all there is, up to 64 GiB, give it back, and go on. */
	enum { CHUNKS = 1024, CHUNK_BYTES = 64 << 20 };
	static void *chunk[CHUNKS];
	for (int i = 0; i < CHUNKS; i++) {
		errno = 0;
		chunk[i] = malloc(CHUNK_BYTES);
		if (chunk[i] == NULL) {
			check(errno == ENOMEM);
			break;
		}
	}
	for (int i = 0; i < CHUNKS; i++)
		free(chunk[i]);
	churn(15, 3000);
	say("within limits\n");
	return 0;
}
