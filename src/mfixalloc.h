/* mfixalloc.h - objects of one size for metadata (the Go runtime's fixalloc).
 *
 *   persistent_alloc --chunk--> [at .. end) --alloc--> in use --free--> list
 *                                                        ^-----alloc------'
 *
 * Type-stable: memory that was once such an object is never anything else, so
 * who reads a freed one by an old pointer reads an object of the same type
 * (but for its first word, which links the list). Each alloc gives zeroes,
 * unless the type keeps what stands in it (fixalloc_init_keep).
 *
 *   FIX-1  inuse objects are handed out: nothing is freed when inuse is 0
 *   FIX-2  every link of the list is a multiple of align
 *
 * Locks: none; the caller holds one. The counters may be read without it. */
#ifndef SPANGUARD_MFIXALLOC_H
#define SPANGUARD_MFIXALLOC_H

#include "persistentalloc.h"

struct fixalloc_link {
	struct fixalloc_link *next;
};

struct fixalloc {
	struct persistent *from;
	size_t bytes;                 /* of one object, a multiple of align */
	size_t align;
	bool keep;                    /* alloc leaves what free left, but for the link */
	struct fixalloc_link *list;   /* freed objects */
	uintptr_t at, end;            /* what is left of the chunk */
	atomic_u64 inuse;             /* objects; one writer at a time */
	atomic_u64 total;             /* ... and with those on the list */
};

/* Any size from 1 byte, any power of two for align. */
void fixalloc_init(struct fixalloc *f, struct persistent *from, size_t bytes, size_t align);

/* As Go's fixalloc with zero = false: an object that comes back from the list is
 * as it was freed, but for its first word; a new one is zero. For types whose
 * stale readers must find some fields intact. */
void fixalloc_init_keep(struct fixalloc *f, struct persistent *from, size_t bytes,
    size_t align);

/* A zeroed object, or NULL when the system refuses. */
void *fixalloc_alloc(struct fixalloc *f);
void fixalloc_free(struct fixalloc *f, void *object);

size_t fixalloc_inuse(const struct fixalloc *f);          /* objects */
size_t fixalloc_inuse_bytes(const struct fixalloc *f);

#endif
