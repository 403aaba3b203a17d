/* pairs.c - tight malloc/free pairs, one size after another.
 *
 *   pairs [pairs-per-size]
 *
 * For each size, half of the pairs free at once what was just allocated, and
 * half go through a ring of 64 live blocks, oldest freed first: the first form
 * sees one slot again and again where the allocator allows that, the second
 * never does. The sizes are the edges of common size classes and odd numbers
 * between them. */
#include "bench.h"

enum { RING = 64 };

static const size_t sizes[] = {
	1, 8, 16, 24, 31, 32, 40, 48, 64, 72, 80, 96, 112, 128, 144, 160, 192, 200, 224,
	256, 320, 384, 448, 512, 640, 768, 1000, 1024, 1280, 1536, 2048, 3072, 4096, 6144,
	8192, 12288, 16384, 24000, 32768,
};

static void
pairs_at_once(size_t bytes, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		volatile unsigned char *p = block_raw(bytes);

		*p = (unsigned char)i;
		free((void *)p);
	}
}

static void
pairs_ring(size_t bytes, size_t count)
{
	unsigned char *ring[RING] = {NULL};

	for (size_t i = 0; i < count; i++) {
		size_t at = i % RING;
		unsigned char *p = block_raw(bytes);

		p[0] = (unsigned char)at;
		if (ring[at] != NULL && ring[at][0] != (unsigned char)at)
			bench_fail("pairs: a block of %zu bytes was overwritten", bytes);
		free(ring[at]);
		ring[at] = p;
	}
	for (size_t at = 0; at < RING; at++)
		free(ring[at]);
}

int
main(int argc, char **argv)
{
	size_t count = bench_arg(argc, argv, 1, 1000000);

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		pairs_at_once(sizes[i], count / 2);
		pairs_ring(sizes[i], count / 2);
	}
	return 0;
}
