/* live.c - malloc and free beside many live objects.
 *
 *   live objects pairs [loop-only]
 *
 * Fills a table with `objects` blocks of 16 bytes, then, with the instrumentation
 * of callgrind on, replaces random ones: free, malloc. With a third argument the
 * calls are left out, so that what remains is the loop and can be taken off. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <valgrind/callgrind.h>

static uint64_t state = 88172645463325252u;

static uint64_t
draw(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static void *
block(void)
{
	void *volatile p = malloc(16);

	if (p == NULL) {
		fprintf(stderr, "live: no memory\n");
		exit(1);
	}
	return p;
}

int
main(int argc, char **argv)
{
	size_t objects = argc > 1 ? strtoull(argv[1], NULL, 10) : 10000;
	size_t pairs = argc > 2 ? strtoull(argv[2], NULL, 10) : 100000;
	void **table = malloc(objects * sizeof(*table));

	if (table == NULL)
		return 1;
	for (size_t i = 0; i < objects; i++)
		table[i] = block();
	/* sweeps, budgets and lists as they are in the long run */
	for (size_t i = 0; i < objects && i < 4000000; i++) {
		size_t at = draw() % objects;
		free(table[at]);
		table[at] = block();
	}
	CALLGRIND_START_INSTRUMENTATION;
	for (size_t i = 0; i < pairs; i++) {
		size_t at = draw() % objects;
		if (argc > 3) {
			__asm__ volatile("" : "+r"(table[at]));
			continue;
		}
		free(table[at]);
		table[at] = block();
	}
	CALLGRIND_STOP_INSTRUMENTATION;
	return 0;
}
