/* malloc.h - what the exported functions are made of. The page that explains
 * the whole stands in malloc.c; the inline halves are in malloc_fast.h. */
#ifndef SPANGUARD_MALLOC_H
#define SPANGUARD_MALLOC_H

#include "api.h"
#include "base.h"

struct mcache;
struct mspan;

/* Anything above is refused with ENOMEM: a difference of two pointers into an
 * object must fit ptrdiff_t. */
/* A request that cannot be met whatever the memory: reported if that is wanted.
 * given: the size, with of: so many times; of 0 with site "alignment". */
void malloc_bad_request(enum malloc_api api, const char *site, size_t given, size_t of);

#define MALLOC_MAX_BYTES ((size_t)PTRDIFF_MAX - ARENA_SIZE)

/* The C functions, with the API's name for reports. All set errno to ENOMEM
 * when they return NULL for want of memory, and leave it alone otherwise. */
void *mallocgc(size_t bytes, enum malloc_api api);
void *mallocgc_noscan(size_t bytes, enum malloc_api api);
void *mallocgc_zeroed(size_t bytes, enum malloc_api api);
void *mallocgc_noscan_zeroed(size_t bytes, enum malloc_api api);
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

/* The tiers' part of freeing a small slot that is live to them: what a room that
 * kept it (FREE_LATER) ends with. */
void free_slot(struct mspan *s, size_t idx);

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
