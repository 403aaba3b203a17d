/* calloc and reallocarray: a product that does not fit size_t is ENOMEM, and a
 * product that does is served in full. */
#include "api.h"

static void
check_calloc(size_t n, size_t size)
{
	errno = 0;
	CHECK(calloc(n, size) == NULL);
	CHECK(errno == ENOMEM);
}

static void
check_reallocarray(void *p, size_t n, size_t size)
{
	errno = 0;
	CHECK(reallocarray(p, n, size) == NULL);
	CHECK(errno == ENOMEM);
}

int
main(void)
{
	const size_t half = (size_t)1 << 32;
	const size_t pairs[][2] = {
		{ half, half }, { half + 1, half }, { half - 1, half + 2 }, { SIZE_MAX, 2 },
		{ 2, SIZE_MAX }, { SIZE_MAX, SIZE_MAX }, { SIZE_MAX / 2 + 1, 2 },
		{ SIZE_MAX / 3 + 1, 3 }, { SIZE_MAX / 16 + 1, 16 }, { SIZE_MAX / 16 + 2, 16 },
		{ SIZE_MAX / 24 + 1, 24 }, { (size_t)PTRDIFF_MAX / 8 + 1, 8 },
	};
	void *p = malloc(100);

	CHECK(p != NULL);
	fill(p, 100, 3);
	for (size_t i = 0; i < COUNT_OF(pairs); i++) {
		check_calloc(pairs[i][0], pairs[i][1]);
		check_calloc(pairs[i][1], pairs[i][0]);
		check_reallocarray(NULL, pairs[i][0], pairs[i][1]);
		check_reallocarray(p, pairs[i][0], pairs[i][1]);
		check_reallocarray(p, pairs[i][1], pairs[i][0]);
		CHECK(is_filled(p, 100, 3));
	}

	p = reallocarray(p, 50, 40);
	CHECK(p != NULL);
	CHECK(is_filled(p, 100, 3));
	fill(p, 50 * 40, 4);
	p = reallocarray(p, 7, 3);
	CHECK(p != NULL);
	CHECK(is_filled(p, 7 * 3, 4));
	free(p);

	p = reallocarray(NULL, 30, 30);
	CHECK(p != NULL);
	fill(p, 900, 5);
	/* as realloc(p, 0): frees */
	CHECK(reallocarray(p, 0, 8) == NULL);
	p = malloc(8);
	CHECK(p != NULL);
	CHECK(reallocarray(p, 8, 0) == NULL);
	p = reallocarray(NULL, 0, 0);
	CHECK(p != NULL);
	free(p);
	return 0;
}
