/* persistentalloc.h - metadata memory that is never given back.
 *
 *   chunk of 256 KiB:   [guard | header, objects, objects ... -> at .. end | guard]
 *   64 KiB and more:    [guard | one region, untouched, so resident on use | guard]
 *
 * Every region stands on a list, so that persistent_contains can tell without
 * a lock whether an address is metadata: regions are added at the head and
 * never change or go away.
 *
 *   PERSIST-1  at <= end, and [at, end) lies in the chunk at hand, all zero
 *   PERSIST-2  bytes = sum of the regions on the list, guards not counted
 *
 * Zeroed memory is an empty `struct persistent` (its lock then has no rank).
 * Lock: its own, LOCK_PERSISTENT. Cost: a bump of a pointer under the lock. */
#ifndef SPANGUARD_PERSISTENTALLOC_H
#define SPANGUARD_PERSISTENTALLOC_H

#include "lock.h"

struct persistent_region {
	struct persistent_region *next;
	uintptr_t base;             /* first byte of the leading guard */
	uintptr_t end;              /* first byte behind the trailing guard */
};

struct persistent {
	struct mutex lock;
	uintptr_t at, end;          /* what is left of the chunk; under lock */
	atomic_ptr regions;         /* newest first; set under lock, read by anyone */
	atomic_u64 bytes;           /* set under lock, read by anyone */
};

#define PERSISTENT_INIT { .lock = MUTEX_INIT(LOCK_PERSISTENT) }

void persistent_init(struct persistent *p);

/* Zeroed memory at a multiple of `align` (a power of two), the caller's for
 * ever; NULL when the system refuses. Guards are put where they can be had. */
void *persistent_alloc(struct persistent *p, size_t bytes, size_t align);

/* Bytes taken from the system: what is handed out, and what is left of chunks. */
size_t persistent_bytes(const struct persistent *p);

/* Is addr in a region of p or in one of its guards? Async-signal-safe. */
bool persistent_contains(const struct persistent *p, uintptr_t addr);

#endif
