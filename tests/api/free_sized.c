/* C23: free_sized for what malloc, calloc and realloc gave, free_aligned_sized for
 * what aligned_alloc gave, with the size (and alignment) that was asked. */
#include "api.h"

int
main(void)
{
	void (*free_sized_function)(void *, size_t);
	void (*free_aligned_sized_function)(void *, size_t, size_t);
	void *sized = dlsym(RTLD_DEFAULT, "free_sized");
	void *aligned_sized = dlsym(RTLD_DEFAULT, "free_aligned_sized");

	CHECK(sized != NULL && aligned_sized != NULL);
	memcpy(&free_sized_function, &sized, sizeof(sized));
	memcpy(&free_aligned_sized_function, &aligned_sized, sizeof(aligned_sized));
	errno = 99;
	free_sized_function(NULL, 0);
	free_sized_function(NULL, 100);
	free_aligned_sized_function(NULL, 16, 0);
	free_aligned_sized_function(NULL, 4096, 100);
	for (size_t n = 0; n <= (size_t)8 << 20; n = n < 40000 ? n + 1 : n * 5 / 4) {
		free_sized_function(malloc(n), n);
		free_sized_function(calloc(1, n), n);
		if (n > 0)
			free_sized_function(realloc(malloc(n / 2), n), n);
		CHECK(errno == 99);
	}
	for (size_t align = 1; align <= (size_t)1 << 21; align *= 2)
		for (size_t n = 0; n <= 300000; n = n * 3 / 2 + 1)
			free_aligned_sized_function(aligned_alloc(align, n), align, n);
	CHECK(errno == 99);

	/* an object that realloc made smaller or larger has its new size */
	for (size_t from = 1; from <= (size_t)1 << 20; from *= 3) {
		for (size_t to = 1; to <= (size_t)1 << 20; to *= 3) {
			void *p = realloc(malloc(from), to);
			CHECK(p != NULL);
			free_sized_function(p, to);
		}
	}
	return 0;
}
