/* valloc gives whole-page alignment; pvalloc rounds the size up to pages too. */
#include "api.h"

#include <malloc.h>

int
main(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	for (size_t n = 0; n <= 40 * page; n = n * 4 / 3 + 1) {
		size_t rounded = (n + page - 1) / page * page;
		void *p = valloc(n), *q = pvalloc(n);
		CHECK(p != NULL && is_aligned(p, page));
		CHECK(q != NULL && is_aligned(q, page));
		CHECK(malloc_usable_size(p) >= n);
		CHECK(malloc_usable_size(q) >= rounded);
		fill(p, n, 1);
		fill(q, rounded, 2);
		CHECK(is_filled(p, n, 1));
		free(p);
		CHECK(is_filled(q, rounded, 2));
		free(q);
	}
	for (size_t back = 0; back < page; back += 512) {
		errno = 0;
		CHECK(pvalloc(SIZE_MAX - back) == NULL && errno == ENOMEM);
		errno = 0;
		CHECK(valloc(SIZE_MAX - back) == NULL && errno == ENOMEM);
	}
	return 0;
}
