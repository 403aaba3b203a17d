/* contend.c - a fixed amount of work shared out among 1 to 64 threads.
 *
 *   contend threads operations kind
 *
 * kind 0: every thread replaces blocks of its own; kind 1: all threads exchange
 * blocks through one table, so nearly every free is of another thread's block. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { THREADS_MAX = 64, OWN = 2000, SHARED = 20000 };

static _Atomic(void *) shared[SHARED];
static size_t operations;
static int kind;

static uint64_t
draw(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

static void *
run(void *arg)
{
	uint64_t s = 88172645463325252u + (uintptr_t)arg * 7919;
	void *own[OWN] = { NULL };

	for (size_t i = 0; i < operations; i++) {
		uint64_t r = draw(&s);
		void *volatile p = malloc(16 + r % 240);
		if (kind == 1) {
			free(atomic_exchange(&shared[(r >> 20) % SHARED], p));
		} else {
			free(own[(r >> 20) % OWN]);
			own[(r >> 20) % OWN] = p;
		}
	}
	for (size_t i = 0; i < OWN; i++)
		free(own[i]);
	return NULL;
}

int
main(int argc, char **argv)
{
	size_t threads = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
	pthread_t ids[THREADS_MAX];

	if (threads < 1 || threads > THREADS_MAX)
		return 2;
	operations = (argc > 2 ? strtoull(argv[2], NULL, 10) : 1000000) / threads;
	kind = argc > 3 && argv[3][0] == '1';
	for (size_t i = 0; i < threads; i++)
		if (pthread_create(&ids[i], NULL, run, (void *)i) != 0)
			return 1;
	for (size_t i = 0; i < threads; i++)
		pthread_join(ids[i], NULL);
	return 0;
}
