/* calloc gives zeros whatever its memory was before: dirty slots, dirty spans,
 * dirty large objects, the tail of a shrunk one. */
#include "api.h"

#include <malloc.h>

enum { LIVE = 400 };

static void
dirty_and_free(size_t n, int live)
{
	static void *p[LIVE];

	for (int i = 0; i < live; i++) {
		p[i] = malloc(n);
		CHECK(p[i] != NULL);
		memset(p[i], 0xa5, malloc_usable_size(p[i]));
	}
	for (int i = 0; i < live; i++)
		free(p[i]);
}

static void
check_size(size_t n, int live)
{
	static void *p[LIVE];

	for (int round = 0; round < 3; round++) {
		dirty_and_free(n, live);
		for (int i = 0; i < live; i++) {
			p[i] = i % 2 ? calloc(n, 1) : calloc(1, n);
			CHECK(p[i] != NULL);
			CHECK(is_zero(p[i], n));
			memset(p[i], 0x5a, n);
		}
		for (int i = 0; i < live; i++)
			free(p[i]);
	}
}

int
main(void)
{
	unsigned random = 1;

	for (size_t n = 1; n <= 600; n += 7)
		check_size(n, LIVE);
	for (size_t n = 600; n <= 40000; n += n / 4)
		check_size(n, 40);
	for (size_t n = 40000; n <= (size_t)40 << 20; n *= 2)
		check_size(n, 3);

	/* sizes mixed, so that spans change class and large objects split */
	for (int i = 0; i < 2000; i++) {
		size_t n = (size_t)1 << next_random(&random) % 21;
		n += next_random(&random) % n;
		void *p = calloc(1, n);
		CHECK(p != NULL);
		CHECK(is_zero(p, n));
		memset(p, 0xff, n);
		void *q = realloc(p, n / 3 + 1);
		CHECK(q != NULL);
		void *r = calloc(1, n / 2 + 1);
		CHECK(r != NULL);
		CHECK(is_zero(r, n / 2 + 1));
		memset(r, 0xff, n / 2 + 1);
		free(q);
		free(r);
	}
	return 0;
}
