/* No object is larger than PTRDIFF_MAX: NULL and ENOMEM, from every function and
 * for every such size, and nothing that lives is touched. */
#include "api.h"

#include <malloc.h>

static void
check_refused(size_t n, void *(*call)(size_t n))
{
	errno = 0;
	CHECK(call(n) == NULL);
	CHECK(errno == ENOMEM);
}

static void *
call_malloc(size_t n)
{
	return malloc(n);
}

static void *
call_calloc(size_t n)
{
	return calloc(n, 1);
}

static void *
call_calloc_swapped(size_t n)
{
	return calloc(1, n);
}

static void *
call_realloc_null(size_t n)
{
	return realloc(NULL, n);
}

static void *
call_memalign(size_t n)
{
	return memalign(64, n);
}

static void *
call_memalign_page(size_t n)
{
	return memalign(65536, n);
}

static void *
call_aligned_alloc(size_t n)
{
	return aligned_alloc(16, n);
}

static void *
call_valloc(size_t n)
{
	return valloc(n);
}

static void *
call_pvalloc(size_t n)
{
	return pvalloc(n);
}

static void *
call_realloc(void *p, size_t n)
{
	return realloc(p, n);
}

int
main(void)
{
	void *(*const calls[])(size_t) = {
		call_malloc, call_calloc, call_calloc_swapped, call_realloc_null, call_memalign,
		call_memalign_page, call_aligned_alloc, call_valloc, call_pvalloc,
	};
	static const size_t sizes[] = { 1, 100, 5000, 40000, 3 << 20 };

	for (size_t c = 0; c < COUNT_OF(calls); c++)
		for (unsigned i = 0; impossible(i) != 0; i++)
			check_refused(impossible(i), calls[c]);
	for (size_t back = 0; back <= 4200; back++)
		check_refused(SIZE_MAX - back, call_malloc);

	for (size_t s = 0; s < COUNT_OF(sizes); s++) {
		void *p = malloc(sizes[s]);
		CHECK(p != NULL);
		fill(p, sizes[s], 7);
		for (unsigned i = 0; impossible(i) != 0; i++) {
			errno = 0;
			CHECK(call_realloc(p, impossible(i)) == NULL);
			CHECK(errno == ENOMEM);
			CHECK(is_filled(p, sizes[s], 7));
		}
		free(p);
	}
	return 0;
}
