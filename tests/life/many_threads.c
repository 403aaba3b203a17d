/* many_threads.c - argv[1] threads created and joined, eight at a time; each
 * allocates, frees, and leaves one object for main to free. Resident memory
 * after a tenth of them and at the end must be the same, within SLACK_BYTES. */
#include "check.h"
#include <pthread.h>

enum { BATCH = 8, SLACK_BYTES = 4 << 20 };

static void *
worker(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	void *p[16];
	for (int i = 0; i < 16; i++) {
		size_t n = next_size(&seed) % 2000 + 1;
		p[i] = malloc(n);
		check(p[i] != NULL);
		memset(p[i], 1, n);
	}
	for (int i = 1; i < 16; i++)
		free(p[i]);
	return p[0];
}

int
main(int argc, char **argv)
{
	check(argc == 2);
	long total = atol(argv[1]);
	size_t early_bytes = 0;
	for (long done = 0; done < total; done += BATCH) {
		pthread_t thread[BATCH];
		for (long i = 0; i < BATCH; i++)
			check(pthread_create(&thread[i], NULL, worker, (void *)(done + i)) == 0);
		for (int i = 0; i < BATCH; i++) {
			void *left;
			check(pthread_join(thread[i], &left) == 0);
			free(left);
		}
		if (done <= total / 10)
			early_bytes = rss_bytes();
	}
	size_t late_bytes = rss_bytes();
	printf("RSS %zu KiB, then %zu KiB\n", early_bytes >> 10, late_bytes >> 10);
	return late_bytes > early_bytes + SLACK_BYTES;
}
