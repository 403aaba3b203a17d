/* realloc keeps the contents, from every size of a grid to every other: between
 * classes, class and large, large and huge, with neighbours in the way or not. */
#include "api.h"

static size_t sizes[80];
static size_t nsizes;

static void
add_size(size_t n)
{
	CHECK(nsizes < COUNT_OF(sizes));
	sizes[nsizes++] = n;
}

static void
check_pair(size_t from, size_t to)
{
	size_t kept = from < to ? from : to;
	void *p = malloc(from), *neighbour = malloc(from);

	CHECK(p != NULL && neighbour != NULL);
	fill(p, from, 11);
	fill(neighbour, from, 12);
	p = realloc(p, to);
	CHECK(p != NULL);
	CHECK(is_aligned(p, MALLOC_ALIGNMENT));
	CHECK(is_filled(p, kept, 11));
	memset(p, 0xee, to);
	CHECK(is_filled(neighbour, from, 12));
	free(neighbour);
	free(p);
}

int
main(void)
{
	static const size_t edges[] = {
		8, 16, 24, 32, 48, 64, 100, 128, 144, 256, 500, 512, 1000, 1024, 2048, 4096, 8192,
		16384, 32768, 65536, 131072, 262144,
	};

	for (size_t i = 0; i < COUNT_OF(edges); i++) {
		add_size(edges[i] - 1);
		add_size(edges[i]);
		add_size(edges[i] + 1);
	}
	for (size_t i = 0; i < nsizes; i++)
		for (size_t j = 0; j < nsizes; j++)
			check_pair(sizes[i], sizes[j]);
	check_pair((size_t)1 << 20, (size_t)9 << 20);
	check_pair((size_t)9 << 20, (size_t)1 << 20);
	check_pair((size_t)9 << 20, 100);
	check_pair(100, (size_t)9 << 20);
	return 0;
}
