/* aligned_alloc and memalign as glibc 2.36 has them: any size, no need for a
 * multiple of the alignment; memalign rounds an alignment up to a power of two;
 * one that cannot be rounded is EINVAL. */
#include "api.h"

#include <malloc.h>

static size_t
round_up_pow2(size_t n)
{
	size_t p = 1;

	while (p < n)
		p *= 2;
	return p;
}

int
main(void)
{
	static const size_t odd[] = { 0, 1, 3, 5, 7, 9, 17, 24, 31, 33, 48, 65, 100, 3000, 5000, 12288 };

	for (size_t align = 1; align <= 4096; align *= 2) {
		for (size_t n = 0; n < 3 * align + 5; n += align / 4 + 1) {
			void *p = aligned_alloc(align, n);
			CHECK(p != NULL && is_aligned(p, align));
			free(p);
		}
	}
	for (size_t i = 0; i < COUNT_OF(odd); i++) {
		for (size_t n = 1; n <= 50000; n *= 7) {
			void *p = memalign(opaque(odd[i]), n);
			CHECK(p != NULL);
			CHECK(is_aligned(p, round_up_pow2(odd[i])));
			CHECK(is_aligned(p, MALLOC_ALIGNMENT));
			fill(p, n, 3);
			free(p);
			/* later glibc refuses instead: both are within the standard */
			errno = 0;
			p = aligned_alloc(opaque(odd[i]), n);
			CHECK(p != NULL ? is_aligned(p, round_up_pow2(odd[i])) : errno == EINVAL);
			free(p);
		}
	}
	for (size_t align = SIZE_MAX / 2 + 2; align >= SIZE_MAX / 2; align += SIZE_MAX / 8) {
		errno = 0;
		CHECK(memalign(opaque(align), 10) == NULL);
		CHECK(errno == EINVAL);
	}
	errno = 0;
	CHECK(memalign(opaque((size_t)1 << 63), 10) == NULL);
	CHECK(errno == ENOMEM || errno == EINVAL);
	return 0;
}
