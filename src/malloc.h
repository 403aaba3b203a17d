/* malloc.h - what the exported functions are made of. The page that explains
 * the whole stands in malloc.c; the inline halves are in malloc_fast.h. */
#ifndef SPANGUARD_MALLOC_H
#define SPANGUARD_MALLOC_H

#include "base.h"

struct mcache;

/* The call the program made; reports name it. */
enum malloc_api {
	API_MALLOC, API_CALLOC, API_REALLOC, API_REALLOCARRAY,
	API_POSIX_MEMALIGN, API_ALIGNED_ALLOC, API_MEMALIGN, API_VALLOC, API_PVALLOC,
	API_FREE, API_CFREE, API_FREE_SIZED, API_FREE_ALIGNED_SIZED, API_USABLE_SIZE,
	API_NEW, API_NEW_ARRAY, API_NEW_ALIGNED, API_NEW_ARRAY_ALIGNED,
	API_DELETE, API_DELETE_ARRAY, API_DELETE_SIZED, API_DELETE_ARRAY_SIZED,
	API_DELETE_ALIGNED, API_DELETE_ARRAY_ALIGNED,
	API_DELETE_SIZED_ALIGNED, API_DELETE_ARRAY_SIZED_ALIGNED,
	API_NOSCAN, API_NOSCAN_REALLOC, API_SPANGUARD_USABLE_SIZE,
	API_COUNT
};

const char *malloc_api_name(enum malloc_api api);

/* Anything above is refused with ENOMEM: a difference of two pointers into an
 * object must fit ptrdiff_t. */
#define MALLOC_MAX_BYTES ((size_t)PTRDIFF_MAX - ARENA_SIZE)

/* The C functions, with the API's name for reports. All set errno to ENOMEM
 * when they return NULL for want of memory, and leave it alone otherwise. */
void *mallocgc(size_t bytes, enum malloc_api api);
void *mallocgc_noscan(size_t bytes, enum malloc_api api);
void *mallocgc_zeroed(size_t bytes, enum malloc_api api);
/* align: a power of two. */
void *mallocgc_aligned(size_t align, size_t bytes, enum malloc_api api);
void *reallocgc(void *p, size_t bytes, enum malloc_api api);
void freegc(void *p, enum malloc_api api);
/* Frees p after checking that `bytes` (and `align`, 0: not said) are such as
 * this object was, or could have been, allocated with. */
void free_sized_check(void *p, size_t bytes, size_t align, enum malloc_api api);
/* Frees p after checking that it is a multiple of align. */
void free_aligned_check(void *p, size_t align, enum malloc_api api);
size_t usable_size(const void *p, enum malloc_api api);

/* The slow halves of malloc_fast and free_fast. */
void *malloc_slow(size_t bytes, unsigned span_class, enum malloc_api api);
void free_slow(void *p, enum malloc_api api);

/* Sets the allocator up; first call wins, later ones return at once. */
void mallocinit(void);

/* The calling thread's cache, making one if need be; NULL where there is none
 * to be had: the thread is exiting, or there is no memory. */
struct mcache *mcache_attach(void);

/* Gives back everything idle; returns bytes. */
size_t malloc_trim_all(void);

#endif
