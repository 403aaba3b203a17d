/* mspanset.h - a set of spans that any thread may push to and pop from, as
 * Go's spanSet: no lock but for a new block every 512 pushes.
 *
 *           spine (ring)      blocks of 512 pointers
 *   head --> [ 6 ] --------> [ - - - s s s s ... s ]   popped = 3
 *            [ 7 ] --------> [ s s s s s s s ... s ]
 *   tail --> [ 8 ] --------> [ s s - - - - - ... - ]
 *   end  --> [   ]
 *
 * First in, first out. Positions count up and wrap at 2^32. Where Go's spine
 * grows with every push until the set is reset, this one is a ring, since a
 * set here lives as long as the process.
 *
 *   push   see that tail has a block (or install one), take position tail by a
 *          compare-and-swap of {head, tail}, then store the pointer
 *   pop    load head's block, take position head in the same way, wait for the
 *          pointer if its pusher is still between the two steps
 *
 * Both read the block from the spine before they take the position: success
 * proves that neither end has moved since (short of a thread that sleeps through
 * exactly 2^32 pushes and pops), so the block is that of the position and not
 * a later one in the same place of the ring. When 512 have been popped from a
 * block nobody uses it any more: it goes to a pool that all sets share. Blocks
 * and spines are never unmapped.
 *
 * SPANSET-1  head <= tail <= end (modulo 2^32), end a multiple of 512
 * SPANSET-2  with the world quiet: positions head to tail hold spans, all
 *            other entries of installed blocks are NULL
 * SPANSET-3  with the world quiet: popped is head % 512 in head's block and 0
 *            in the later ones
 * SPANSET-4  with the world quiet: a block in the pool is empty, popped 0
 *
 * Locks: one for all sets (LOCK_SPANSET), taken to install a block.
 * Zero-initialised memory is an empty set.
 * Cost: one compare-and-swap, two stores, and for pop one atomic add. */
#ifndef SPANGUARD_MSPANSET_H
#define SPANGUARD_MSPANSET_H

#include "atomic.h"

struct mspan;
struct persistent;

enum {
	SPAN_SET_BLOCK_SLOTS = 512,
	SPAN_SET_MIN_BLOCKS = 8,                /* capacity of the first spine */
	SPAN_SET_MAX_BLOCKS = 1 << 22,          /* 2^31 spans: then push says false */
};

struct span_set {
	atomic_u64 index;      /* head << 32 | tail; by compare-and-swap */
	atomic_ptr spine;      /* struct span_set_spine *; written under the lock */
	atomic_u32 end;        /* positions below it have a block; written under the lock */
};

/* false: no memory for a block; the set is as it was. s is not NULL. */
bool span_set_push(struct span_set *set, struct persistent *meta, struct mspan *s);

/* NULL: empty. */
struct mspan *span_set_pop(struct span_set *set);

/* How many there are; a moment's truth where others push and pop. */
size_t span_set_len(const struct span_set *set);

/* Gives the blocks of an empty set back to the pool; dies if it is not empty.
 * Nobody else may use the set meanwhile. */
void span_set_reset(struct span_set *set);

/* Calls fn for every span, oldest first. Nobody may push or pop meanwhile. */
void span_set_for_each(const struct span_set *set, void (*fn)(struct mspan *s, void *arg),
    void *arg);

/* Recounts: the tag of the first of SPANSET-1 to SPANSET-3 that does not hold,
 * or NULL. Nobody may push or pop meanwhile. */
const char *span_set_check(const struct span_set *set);

/* The same for SPANSET-4 and the pool that all sets share. */
const char *span_set_check_pool(void);

/* In a forked child whose parent had other threads: takes out the positions
 * those threads had taken and not yet filled, on which a pop would wait for
 * ever. A span in the hands of such a thread is lost to the child. */
void span_set_after_fork(struct span_set *set);

/* In a forked child: frees the lock of all sets. */
void span_set_lock_after_fork(void);

/* Forgets the pool: where the metadata the blocks came from is reset. */
void span_set_pool_reset(void);

#endif
