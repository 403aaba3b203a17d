/* Alignments from 1 byte to 1 GiB through every function that takes one: aligned,
 * usable to the last byte, apart from each other, and realloc keeps the bytes. */
#include "api.h"

#include <malloc.h>

static void
touch(char *p, size_t n, int seed)
{
	for (size_t i = 0; i < n; i += n / 32 + 1)
		p[i] = (char)(seed + (int)(i % 100));
	if (n > 0)
		p[n - 1] = (char)seed;
}

static void
check_touched(const char *p, size_t n, int seed)
{
	for (size_t i = 0; i + 1 < n; i += n / 32 + 1)
		CHECK(p[i] == (char)(seed + (int)(i % 100)));
	if (n > 0)
		CHECK(p[n - 1] == (char)seed);
}

static void
check_one(size_t align, size_t n)
{
	char *p[3] = { memalign(align, n), aligned_alloc(align, n), NULL };

	CHECK(posix_memalign((void **)&p[2], align < 8 ? 8 : align, n) == 0);
	for (int i = 0; i < 3; i++) {
		CHECK(p[i] != NULL);
		CHECK(is_aligned(p[i], align));
		CHECK(malloc_usable_size(p[i]) >= n);
		touch(p[i], n, i);
	}
	for (int i = 0; i < 3; i++)
		check_touched(p[i], n, i);
	p[0] = realloc(p[0], n + 5000);
	CHECK(p[0] != NULL);
	check_touched(p[0], n, 0);
	for (int i = 0; i < 3; i++)
		free(p[i]);
}

/* Many at once, so that they come from shared spans. */
static void
check_many(size_t align, size_t n)
{
	enum { MANY = 300 };
	static char *p[MANY];

	for (int i = 0; i < MANY; i++) {
		p[i] = aligned_alloc(align, n);
		CHECK(p[i] != NULL && is_aligned(p[i], align));
		memset(p[i], i, n);
	}
	for (int i = 0; i < MANY; i++) {
		CHECK(p[i][0] == (char)i && p[i][n - 1] == (char)i);
		CHECK(memcmp(p[i], p[i] + 1, n - 1) == 0);
		free(p[i]);
	}
}

int
main(void)
{
	static const size_t sizes[] = { 0, 1, 8, 17, 100, 1000, 4096, 5000, 33000, 200000 };

	for (size_t align = 1; align <= (size_t)1 << 30; align *= 2)
		for (size_t i = 0; i < COUNT_OF(sizes); i++)
			check_one(align, sizes[i]);
	for (size_t align = 1; align <= (size_t)1 << 30; align *= 32)
		check_one(align, (size_t)70 << 20);
	for (size_t align = 16; align <= 8192; align *= 2)
		for (size_t n = 1; n <= 9000; n = n * 3 + 1)
			check_many(align, n);
	return 0;
}
