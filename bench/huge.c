/* huge.c - blocks of 5 to 25 MiB, allocated, touched and freed in a loop.
 *
 *   huge [rounds [slots]]
 *
 * What image and matrix code does: a buffer per frame, a handful of them alive,
 * the oldest given back first. A frame is written completely: an allocator that
 * returns the memory at each free pays for the page faults of each round, but
 * they stand beside the work that a real program does (one byte per page would
 * make an allocator that keeps the memory look ten times as fast). */
#include "bench.h"

enum { MIB = 1 << 20 };

int
main(int argc, char **argv)
{
	size_t rounds = bench_arg(argc, argv, 1, 600);
	size_t nslots = bench_arg(argc, argv, 2, 6);
	struct rng r = {4711};
	void **p = calloc(nslots, sizeof(*p));
	size_t *bytes = calloc(nslots, sizeof(*bytes));

	if (p == NULL || bytes == NULL)
		bench_fail("huge: no memory for the tables");
	for (size_t i = 0; i < rounds; i++) {
		size_t at = i % nslots;

		if (p[at] != NULL)
			block_free(p[at], bytes[at]);
		bytes[at] = rng_range(&r, (size_t)5 * MIB, (size_t)25 * MIB);
		p[at] = block_new(bytes[at]);
		memset(p[at], block_tag(bytes[at]), bytes[at]);
	}
	for (size_t at = 0; at < nslots; at++) {
		if (p[at] != NULL)
			block_free(p[at], bytes[at]);
	}
	free(bytes);
	free(p);
	return 0;
}
