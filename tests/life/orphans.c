/* orphans.c - objects whose owner is gone: freed by main, by other threads, and
 * by a thread while the owner is on its way out; over and over, so that memory
 * nobody adopts would show as growth. */
#include "check.h"
#include <pthread.h>

enum { OBJECTS = 3000, ROUNDS = 60, SLACK_BYTES = 8 << 20 };

static struct { unsigned char *p; size_t n; } left[2][OBJECTS];

static void *
leave(void *arg)
{
	unsigned set = (unsigned)(uintptr_t)arg, seed = set + 21;
	for (unsigned i = 0; i < OBJECTS; i++) {
		left[set][i].n = next_size(&seed) % 3000 + 1;
		left[set][i].p = malloc(left[set][i].n);
		check(left[set][i].p != NULL);
		key_fill(left[set][i].p, left[set][i].n, i);
	}
	return NULL;
}

static void *
collect(void *arg)
{
	unsigned set = (unsigned)(uintptr_t)arg;
	for (unsigned i = 0; i < OBJECTS; i++) {
		check(key_holds(left[set][i].p, left[set][i].n, i));
		free(left[set][i].p);
	}
	return NULL;
}

int
main(void)
{
	size_t early_bytes = 0;
	for (int round = 0; round < ROUNDS; round++) {
		pthread_t a, b;
		check(pthread_create(&a, NULL, leave, (void *)0) == 0);
		check(pthread_create(&b, NULL, leave, (void *)1) == 0);
		check(pthread_join(a, NULL) == 0 && pthread_join(b, NULL) == 0);
		if (round % 3 == 0) {
			collect((void *)0);
			collect((void *)1);
		} else {
			check(pthread_create(&a, NULL, collect, (void *)0) == 0);
			if (round % 3 == 1)
				check(pthread_create(&b, NULL, collect, (void *)1) == 0);
			else
				collect((void *)1);
			check(pthread_join(a, NULL) == 0);
			check(round % 3 != 1 || pthread_join(b, NULL) == 0);
		}
		if (round == ROUNDS / 4)
			early_bytes = rss_bytes();
	}
	size_t late_bytes = rss_bytes();
	printf("RSS %zu KiB, then %zu KiB\n", early_bytes >> 10, late_bytes >> 10);
	return late_bytes > early_bytes + SLACK_BYTES;
}
