/* malloc_usable_size: 0 of NULL, at least what was asked, and every byte of it
 * may be used without touching another object. */
#include "api.h"

#include <malloc.h>

enum { N = 4000 };

int
main(void)
{
	static void *p[N];
	unsigned random = 7;

	CHECK(malloc_usable_size(NULL) == 0);
	for (size_t i = 0; i < N; i++) {
		size_t n = i < 2000 ? i : next_random(&random) % 60000;
		p[i] = i % 5 == 0 ? memalign(64, n) : malloc(n);
		CHECK(p[i] != NULL);
		CHECK(malloc_usable_size(p[i]) >= n);
		fill(p[i], malloc_usable_size(p[i]), (unsigned)i);
	}
	for (size_t i = 0; i < N; i++)
		CHECK(is_filled(p[i], malloc_usable_size(p[i]), (unsigned)i));
	for (size_t i = 0; i < N; i++)
		free(p[i]);
	for (size_t n = 1 << 17; n <= (size_t)100 << 20; n = n * 2 + 1) {
		void *q = malloc(n);
		CHECK(q != NULL);
		size_t usable = malloc_usable_size(q);
		CHECK(usable >= n && usable <= n + n / 4 + 65536);
		((char *)q)[usable - 1] = 1;
		free(q);
	}
	return 0;
}
