/* mcache.h - one thread's cache: for each span class a window of slots it may
 * hand out without asking anybody, and the spans it owns.
 *
 *   alloc[class].order[n-1] .. order[0]   the window, drawn from span->avail
 *   current -> exhausted -> full list -> (enough freed) ready list -> current
 *                                        (empty) idle list -> current, or the heap
 *
 * MCACHE-1  n <= WINDOW_SLOTS; n slots of span, distinct, not live, not avail
 * MCACHE-2  a span on a list has owner == this cache and the right list mark
 * MCACHE-3  an entry without a span has n == 0
 * MCACHE-4  the lists' lengths are their counts
 * MCACHE-5  spans on the idle list are empty; idle_pages is the sum of theirs,
 *           idle_n their number by class
 * MCACHE-6  pages of the page cache are of one aligned block of 64, allocated in the
 *           page heap, in no span, guard or other cache
 *
 * Idle spans are kept for the next refill of their class, up to a share of the
 * pages the cache owned of late (idle_share), oldest out first. Every
 * REVIEW_REFILLS refills, what it owned of late is forgotten a little, and
 * current spans that are empty and were not used since become idle.
 *
 * A class's first window has FIRST_WINDOW_SLOTS, each next one twice as many: a thread
 * that lives for a short burst draws, and gives back, no more than it needs.
 *
 * The owner's fast path takes no lock. Its slow path holds lock, so that
 * malloc_trim, verify and fork in other threads can walk the lists; they never
 * touch the current spans.
 *
 * Signals: busy says that the owner is inside malloc or free. A handler that
 * comes in on the fast path is served by the shared cache and by remote frees;
 * on the slow path, with locks held, by boot.c, and a large span it frees waits
 * in deferred until the slow path ends.
 *
 * mcaches are never unmapped: one that was released may still be pushed to. */
#ifndef SPANGUARD_MCACHE_H
#define SPANGUARD_MCACHE_H

#include "callstack.h"
#include "lock.h"
#include "mpagecache.h"
#include "mheap.h"
#include "mspan.h"
#include "rand.h"

struct mcache_alloc {
	uint32_t n;                     /* slots left in order[] */
	uint32_t elem_bytes;
	uintptr_t base;
	struct mspan *span;             /* the current span, or NULL */
	bool fresh;                     /* the window's slots were never used: zero */
	uint8_t asked;                  /* slots of the last window, had there been as many */
	uint8_t drawn;                  /* ... and as many as it had */
	uint16_t review;                /* when the class was last refilled */
	uint16_t order[WINDOW_SLOTS] ALIGNED(CACHE_LINE);
};

struct span_queue {
	struct mspan *head;
	struct mspan *tail;
	size_t n;
};

enum {
	REVIEW_REFILLS = 64,
	FIRST_WINDOW_SLOTS = 16,
	PEAK_DECAY = 8,                 /* peak_pages loses so much at every review */
	IDLE_FLOOR_PAGES = 16,          /* idle spans of so much are always kept */
};

enum cache_busy { CACHE_IDLE, CACHE_FAST, CACHE_SLOW };

struct mcache {
	uint8_t busy;                   /* enum cache_busy; owner and its handlers */
	atomic_ptr deferred;            /* large spans freed by handlers, by next */
	struct mcache_alloc alloc[SPAN_CLASSES_ALL];

	atomic_ptr notes ALIGNED(CACHE_LINE);   /* spans with remote frees to look at */

	struct mutex lock ALIGNED(CACHE_LINE);
	bool in_use;                    /* some thread has it */
	bool dies_with_thread;          /* the exit hook is set for it */
	uint8_t exit_round;
	int tid;
	struct mheap *heap;
	struct rand_stream *rng;        /* &stream, or NULL: slots in address order */
	bool seeded;                    /* stream is from the system, and no other process's */
	struct rand_stream stream;
	struct page_cache pages;
	struct mspan *spare[SPAN_POOLS];
	uintptr_t tiny;                 /* the block the tiny allocator fills, or 0 */
	uint32_t tiny_offset;
	uint64_t slow_ops;
	uint64_t handed_out;            /* slots ever put into windows */
	struct span_queue full[SPAN_CLASSES_ALL];
	struct span_queue ready[SPAN_CLASSES_ALL];
	struct span_queue idle;         /* empty spans of all classes, oldest first */
	uint16_t idle_n[SPAN_CLASSES_ALL];
	size_t idle_pages;
	size_t owned_pages;             /* of all spans this cache owns */
	size_t peak_pages;              /* what that was of late */
	uint16_t review;
	const void *call_frame;         /* armed modes: of the call in progress, to walk from */
	struct callstack_thread stack;
	struct mcache *next;            /* all caches ever made; never unlinked */
	struct mcache *next_free;
};

/* The owner of spans that no thread owns. Nobody allocates from it. */
extern struct mcache mcache_none;

/* What the fast paths find in an armed mode: see tls.h. Busy by mheap_init, not by its
 * definition, or its 40 KB would be in the library's file and in most processes' memory. */
extern struct mcache mcache_armed;

/* The next slot of span class `spc` from a refilled window, or NULL if there
 * is no memory. Owner only; *fresh: the slot's bytes are zero. */
void *mcache_next_slot(struct mcache *c, unsigned spc, bool *fresh);

/* Around everything a thread does under locks, its own or others': a handler that
 * comes in must not wait for them. c is the thread's own cache; NULL, where it has
 * none: its signals are held back. enter says what busy was, which leave_to makes it
 * again, with CACHE_SLOW the pair changes nothing; leave makes it idle. Both free
 * what handlers left in deferred. */
uint8_t mcache_enter(struct mcache *c);
void mcache_leave(struct mcache *c);
void mcache_leave_to(struct mcache *c, uint8_t was);

/* mheap_free_span of a span in use, between enter and leave: who has all caches locked
 * (verify, fork) finds it whole or gone. c NULL: the thread has none. */
void mcache_free_span(struct mheap *h, struct mcache *c, struct mspan *s);

/* A lock that the program's calls take first of all, from outside; a handler that
 * comes in finds the cache busy, and does without. */
struct outer_mutex {
	struct mutex lock;
	struct mcache *holder;          /* the holder's cache or NULL, and its busy before */
	uint8_t was;
};

#define OUTER_MUTEX_INIT(r) { .lock = MUTEX_INIT(r) }

void outer_lock(struct outer_mutex *m);
bool outer_trylock(struct outer_mutex *m);
void outer_unlock(struct outer_mutex *m);

/* This is a handler that interrupted its thread's slow path: any lock may be the
 * thread's own. */
bool mcache_slow_interrupted(void);

/* From a handler on the slow path: s, claimed by its remote bit, goes later. */
void mcache_defer_free(struct mcache *c, struct mspan *s);

/* Frees the live slot at addr, by which the budget of c's own span is spent. */
void mcache_budget_spent(struct mcache *c, struct mspan *s, uintptr_t addr);

/* Frees the live slot idx of a span of c's own, as free_fast does. */
void mcache_free_local(struct mcache *c, struct mspan *s, size_t idx);

/* Marks slot idx freed by somebody who is not the owner. false: it was free. */
bool mcache_free_remote(struct mheap *h, struct mspan *s, size_t idx);

/* A cache for the calling thread, from the pool or new; NULL: no memory. */
struct mcache *mcache_acquire(struct mheap *h, int tid);

/* Everything the cache holds goes to the central lists; the cache to the pool. */
void mcache_release(struct mcache *c);

/* Gives back whole empty spans and the page cache of every cache, and the empty
 * current spans of `self` (may be NULL). Returns the pages of spans given back. */
size_t mcache_trim_all(struct mheap *h, struct mcache *self);

/* Walks all caches, oldest last; the list only grows. */
struct mcache *mcache_first(void);

/* fork: locks every cache (prepare), unlocks (parent), or unlocks and gives up
 * the caches of threads that do not exist in the child: all but its own and
 * the shared one. */
void mcache_lock_all(void);
void mcache_unlock_all(void);
void mcache_after_fork_child(struct mcache *self, struct mcache *shared, bool idle);

/* Test builds: forgets all caches. */
void mcache_reset(void);

#endif
