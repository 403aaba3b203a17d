/* zerosize.h - objects of no bytes.
 *
 * Threat:    malloc(0), often of a size that was computed wrong, returns a
 *            pointer that is then written through. Elsewhere that is 16 bytes or
 *            so of silent luck.
 * Mechanism: addresses 16 bytes apart in address space that is only reserved. No
 *            page of it can ever be touched; each touch is reported as what it
 *            is. A bit per address says which are live: frees are exact.
 *            malloc_usable_size is 0; realloc to more moves to a real object.
 * Cost:      no memory and no guard: 4 MiB of address space and 64 KiB of bits
 *            (made resident as they are used) for 262,144 live ones. A call takes
 *            the slow path, some 10 ns, and draws its address at random.
 * Way round: more than 4,194,304 live ones, or alignments above 4 MiB: those get
 *            an object of 16 bytes.
 * Test:      tests/test_zerosize.c, tests/fault.
 *
 *   chunk   [guard | struct zero_chunk: base, live bits, ever bits | guard]
 *   base    4 MiB, Reserved                        granule = address of one object
 *
 * ZEROSIZE-1  a live bit stands only where an ever bit does
 *
 * Locks: none; a bit is claimed and given back by one atomic operation, so these
 * may be called by a signal handler that interrupted them. */
#ifndef SPANGUARD_ZEROSIZE_H
#define SPANGUARD_ZEROSIZE_H

#include "fault.h"

extern const struct fault_room zerosize_room;

/* seed 0: from the system. Forgets all objects (test builds call it again). */
void zerosize_init(bool on, uint64_t seed);

/* An address that is a multiple of align (a power of two), or NULL. */
void *zerosize_alloc(size_t align);

enum outside_verdict zerosize_look(const void *p);
enum outside_verdict zerosize_free(void *p);

/* Live objects, counted afresh. */
size_t zerosize_live_count(void);

/* ZEROSIZE-1: NULL, or the tag. */
const char *zerosize_check(void);

/* The child draws other addresses than its parent. */
void zerosize_after_fork_child(void);

#endif
