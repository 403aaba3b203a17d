/* posix_memalign: the alignment is a power of two and a multiple of a pointer's
 * size, else EINVAL; too large is ENOMEM; both leave *p alone. Success and EINVAL leave
 * errno alone too (for ENOMEM glibc sets it, and the standard says nothing). */
#include "api.h"

int
main(void)
{
	static const size_t wrong[] = {
		0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 12, 15, 17, 18, 20, 24, 33, 40, 48, 63, 65, 72, 96, 100,
		127, 129, 1000, 4095, 4097, 12288, SIZE_MAX, SIZE_MAX - 7, SIZE_MAX / 2,
	};
	int mark;
	void *p = &mark;

	errno = 4321;
	for (size_t i = 0; i < COUNT_OF(wrong); i++) {
		CHECK(posix_memalign(&p, wrong[i], 100) == EINVAL);
		CHECK(p == &mark);
		CHECK(posix_memalign(&p, wrong[i], 0) == EINVAL);
		CHECK(p == &mark);
	}
	CHECK(errno == 4321);
	for (unsigned i = 0; impossible(i) != 0; i++) {
		for (size_t align = sizeof(void *); align <= 65536; align *= 4) {
			CHECK(posix_memalign(&p, align, impossible(i)) == ENOMEM);
			CHECK(p == &mark);
		}
	}
	CHECK(posix_memalign(&p, (size_t)1 << 62, 100) == ENOMEM);
	CHECK(p == &mark);
	CHECK(posix_memalign(&p, (size_t)1 << 63, 100) == ENOMEM);
	CHECK(p == &mark);

	errno = 4321;
	for (size_t align = sizeof(void *); align <= 65536; align *= 2) {
		for (size_t n = 0; n <= 100000; n = n * 3 / 2 + 1) {
			p = NULL;
			CHECK(posix_memalign(&p, align, n) == 0);
			CHECK(p != NULL);
			CHECK(is_aligned(p, align) && is_aligned(p, MALLOC_ALIGNMENT));
			fill(p, n, 1);
			free(p);
		}
	}
	CHECK(errno == 4321);
	return 0;
}
