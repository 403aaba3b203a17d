/* Every address is a multiple of 16, also for requests below 16 bytes, and stays
 * one in realloc. */
#include "api.h"

int
main(void)
{
	static void *p[4096];

	for (size_t n = 0; n < 70000; n += n < 2048 ? 1 : 61) {
		void *a = malloc(n), *b = calloc(1, n);
		CHECK(a != NULL && is_aligned(a, MALLOC_ALIGNMENT));
		CHECK(b != NULL && is_aligned(b, MALLOC_ALIGNMENT));
		a = realloc(a, n + 1);
		CHECK(a != NULL && is_aligned(a, MALLOC_ALIGNMENT));
		free(a);
		free(b);
	}
	/* all alive at once: not only the first slots of a span */
	for (size_t i = 0; i < COUNT_OF(p); i++) {
		p[i] = malloc(i % 300);
		CHECK(p[i] != NULL && is_aligned(p[i], MALLOC_ALIGNMENT));
	}
	for (size_t i = 0; i < COUNT_OF(p); i++)
		free(p[i]);
	for (size_t n = 1 << 17; n <= (size_t)1 << 26; n = n * 3 / 2) {
		void *a = malloc(n);
		CHECK(a != NULL && is_aligned(a, MALLOC_ALIGNMENT));
		free(a);
	}
	return 0;
}
