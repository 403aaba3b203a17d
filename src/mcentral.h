/* mcentral.h - the spans of one span class that no thread owns.
 *
 *   mcache_release --uncache--> partial / full  --cache_span--> a thread's cache
 *
 * Spans come here when their owner exits (or is lost in a fork); frees of
 * their slots are then all remote. The sets swap roles with the sweep
 * generation, as in Go: [sweepgen/2 % 2] is swept, the other one unswept.
 * Go's generation is the collector's cycle; ours advances, per class, when
 * enough has been freed behind the sets' back to make a sweep worth while.
 *
 *   span.sweepgen == sweepgen - 2   the span needs sweeping
 *   span.sweepgen == sweepgen       swept (or taken by a cache)
 *
 * MCENTRAL-1  a span in a set has no owner, is in use, and is of this class
 * MCENTRAL-2  a span in a swept set has span.sweepgen == sweepgen; partial
 *             ones have avail_n > 0, full ones avail_n == 0
 * MCENTRAL-3  a span is in at most one set
 * MCENTRAL-4  sweepgen is even and advances only when both unswept sets are empty
 *
 * MCENTRAL-5  spare holds unowned spans of this class, linked by next; they are in
 *             no set. It fills only while there is no memory for a set's next
 *             block: a span needs none to be kept there, and leaves it first
 *
 * Locks: the sets are lock-free; lock guards the advance, a span on its way into a
 * swept set against it, and spare. */
#ifndef SPANGUARD_MCENTRAL_H
#define SPANGUARD_MCENTRAL_H

#include "lock.h"
#include "mspanset.h"

struct mcache;
struct mheap;
struct mspan;

struct mcentral {
	struct mutex lock;
	uint32_t span_class;
	atomic_u32 sweepgen;
	atomic_u64 pending;         /* words' worth of frees to spans in the sets */
	atomic_ptr spare;           /* struct mspan *; written under lock */
	struct span_set partial[2];
	struct span_set full[2];
};

void mcentral_init(struct mcentral *m, unsigned span_class);

/* A span with free slots, owned by c from now on, or NULL: then the heap has
 * to grow. Go's order: partial swept, partial unswept, full unswept. */
struct mspan *mcentral_cache_span(struct mheap *h, struct mcentral *m, struct mcache *c);

/* Takes over a span that its owner gives up: window returned, drained. An
 * empty one goes back to the page heap. */
void mcentral_uncache_span(struct mheap *h, struct mcentral *m, struct mspan *s);

/* Some slots of an unowned span of this class were freed. */
void mcentral_note(struct mcentral *m);

/* Sweeps every span in the sets and gives empty ones back to the page heap;
 * returns the pages given back. For malloc_trim and the scavenger. */
size_t mcentral_sweep_all(struct mheap *h, struct mcentral *m);

#endif
