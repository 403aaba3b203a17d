/* mspan.h - a run of pages cut into equal slots, and the bits that say what
 * each slot is. Everything here lies outside the heap.
 *
 *   FREE --malloc--> LIVE --free by owner--> FREED --sweep--> FREE
 *                     +----free by another thread--> FREED (remote bit)
 *
 *   live    set by malloc, cleared by free; written by the owner only
 *   avail   may still be handed out; emptied window by window into the cache
 *   remote  freed by a thread that is not the owner; atomic. Beside live, because
 *           whoever frees looks at both
 *   freed   not a bitmap: a slot that is neither live, avail, nor in the
 *           owner's window has been freed and waits for the sweep
 *
 * MSPAN-1  live & avail == 0
 * MSPAN-2  remote is a subset of live: a remote free leaves the live bit, the
 *          owner clears both when it drains
 * MSPAN-3  no bit at or behind nelems in any of the three
 * MSPAN-4  avail_n == popcount(avail)
 * MSPAN-5  a span on its owner's full list has avail_n == 0
 * MSPAN-6  base, npages, elem_bytes, nelems and divmul fit its span class
 * MSPAN-7  a window holds distinct slots, neither live nor avail (mcache.h)
 * MSPAN-8  a large span has one slot, as long as the span
 * MSPAN-9  states change along DEAD -> IN_USE -> PARKED -> DEAD, IN_USE -> DEAD
 *
 * Ownership: owner, set from refill until the thread exits or gives the span
 * up. Only the owner touches live, avail, budget and the fields of the second line;
 * live is read by anybody who frees (relaxed), base to notify_at are written
 * before the span is entered into the arena map and constant until it leaves.
 *
 * A struct mspan is never given to another use: a thread that frees a stale
 * pointer at the worst moment reads an old span, never foreign memory. Its
 * link in a notification queue (note_next, note_queued) survives reuse for the same reason,
 * and so does the room for bits: a slot number of an earlier life finds nothing live. */
#ifndef SPANGUARD_MSPAN_H
#define SPANGUARD_MSPAN_H

#include "atomic.h"
#include "base.h"
#include "rand.h"
#include "sizeclasses.h"

struct mcache;

enum {
	/* span class = size class, plus NOSCAN for spans promised pointer-free */
	SPAN_NOSCAN = SIZE_CLASSES,
	SPAN_CLASSES = 2 * SIZE_CLASSES,
	SPAN_LARGE = 0,
	SPAN_LARGE_NOSCAN = SPAN_NOSCAN,
	SPAN_TINY = SPAN_CLASSES,    /* granules of the tiny allocator, noscan */
	SPAN_CLASSES_ALL,

	WINDOW_SLOTS = 64,
	WINDOW_MIN_SLOTS = 8,
	SPAN_MAX_SLOTS = 16384,      /* a tiny span of one 64 KiB OS page: none has more */
	TINY_GRANULE_BYTES = 4,
	TINY_BLOCK_BYTES = 16,
	TINY_BLOCK_GRANULES = TINY_BLOCK_BYTES / TINY_GRANULE_BYTES,
	TINY_SPAN_PAGES = 1,
};

/* No size maps to it: sized frees of this span's slots are looked at in full,
 * because the class is not that of the size alone (canaries, redzones). */
enum { NO_SIZED_CLASS = 0xff };

enum span_state { SPAN_DEAD, SPAN_IN_USE, SPAN_PARKED };

/* Of a parked span: its pages were given back; a stack pointed to it in the last
 * mark pass; what points to it has been reported. */
enum span_parked { PARKED_RETURNED = 1, PARKED_SEEN = 2, PARKED_TOLD = 4 };

/* On which list of its owner the span is. */
enum span_list { LIST_NONE, LIST_CURRENT, LIST_FULL, LIST_READY, LIST_IDLE };

/* What a free looks at, of 64 slots. */
struct slot_word {
	atomic_u64 live;
	atomic_u64 remote;
};
_Static_assert(sizeof(struct slot_word) == 64 / 4, "mspan_word_of");

struct mspan {
	/* first line: constant while in use, read by every free */
	uintptr_t base;
	atomic_ptr owner;          /* struct mcache *, or &mcache_none */
	size_t elem_bytes;
	uint32_t divmul;
	uint32_t nelems;
	size_t npages;
	uint8_t span_class;
	uint8_t sized_class;       /* what sized delete may compare with; NO_SIZED_CLASS */
	uint16_t nwords;
	uint16_t notify_at;        /* remote frees in one word before the owner is told */
	uint16_t sweep_at;         /* freed slots that make a sweep worth while */

	/* second line: the owner's, when it looks at the span */
	uint64_t *avail ALIGNED(CACHE_LINE);
	uint64_t *cont;            /* tiny: granules that continue an object; else NULL */
	void *side;                /* records of a room, or NULL: sidetable.h */
	struct mspan *next;
	struct mspan *prev;
	uint32_t avail_n;
	uint32_t sweepgen;         /* mcentral.h */
	uint16_t room_words;       /* of each kind, of which nwords are in use */
	uint8_t pool;              /* which mspan pool the struct came from */
	uint8_t list;              /* enum span_list */
	bool needzero;             /* some slot may hold old bytes */
	bool moved;                /* pages came by sys_move: see mheap.c */
	uint8_t guards;            /* enum span_guard: pages of its own around it */
	bool faulted;              /* parked, and its pages are guards */
	uint8_t window;            /* most slots in one window */
	uint8_t parked;            /* enum span_parked */
	atomic_u32 state;          /* enum span_state */

	/* third line and on: written by frees. Of a span of less than 192 slots a free,
	 * whosever it is, touches the first line and this one. */
	atomic_ptr note_next ALIGNED(CACHE_LINE);  /* in the queue of an owner's notes */
	atomic_u32 note_queued;
	int32_t budget;            /* owner's frees until it looks at the span */
	struct slot_word bits[];   /* room_words, none but nwords set; then avail and cont */
};

/* Guard pages belong to the span they guard, but are no part of it: they lie
 * before base and behind base + npages, one OS page each side. *_PUT: sys_fault
 * took it; without, the budget for mprotect guards was spent and the page is
 * merely unused.
 * MSPAN-10  a *_PUT bit stands only beside its bit; guard pages are in no span */
enum span_guard {
	GUARD_BEFORE = 1, GUARD_AFTER = 2, GUARD_BEFORE_PUT = 4, GUARD_AFTER_PUT = 8,
};

/* No owner: every free of the span's slots is a remote one. */
extern struct mcache mcache_none;

static inline bool
span_class_noscan(unsigned span_class)
{
	return span_class >= SPAN_NOSCAN;
}

static inline unsigned
span_class_size_class(unsigned span_class)
{
	return span_class >= SPAN_TINY ? 0 : span_class % SIZE_CLASSES;
}

static inline bool
mspan_is_large(const struct mspan *s)
{
	return s->span_class == SPAN_LARGE || s->span_class == SPAN_LARGE_NOSCAN;
}

static inline bool
mspan_is_tiny(const struct mspan *s)
{
	return s->span_class == SPAN_TINY;
}

static inline size_t
mspan_bytes(const struct mspan *s)
{
	return s->npages << PAGE_SHIFT;
}

/* Address to slot: true, and *idx, only for the exact first byte of a slot.
 * Division by multiplication (Granlund and Montgomery); sizeclasses.h's
 * divmul is proved exact for every first byte by tests/test_sizeclasses.c; for
 * an inner byte *idx may be one too high, see size_class_slot for those. The
 * bits behind nelems are never live, so a slot number that is too high is
 * caught by whoever looks at its live bit. This is the only way from a
 * program's pointer to a slot. */
INLINE bool
mspan_slot(const struct mspan *s, uintptr_t addr, size_t *idx)
{
	size_t off = addr - s->base;
	size_t i = (size_t)(((uint64_t)off * s->divmul) >> 32);
	*idx = i;
	return i * s->elem_bytes == off;
}

/* &s->bits[idx / 64], by a shift less. */
INLINE struct slot_word *
mspan_word_of(struct mspan *s, size_t idx)
{
	size_t off = idx >> 2 & ~(sizeof(struct slot_word) - 1);
	return (struct slot_word *)((char *)s->bits + off);
}

INLINE bool
mspan_slot_live(const struct mspan *s, size_t idx)
{
	uint64_t word = a64_load_relaxed(&s->bits[idx / 64].live) &
	    ~a64_load_relaxed(&s->bits[idx / 64].remote);
	return (word >> (idx % 64) & 1) != 0;
}

/* How many words of bits `nelems` slots need: one bit more than slots, so that
 * mspan_slot's "one too far" has a word to look at. */
static inline size_t
mspan_words(size_t nelems)
{
	return nelems / 64 + 1;
}

/* Bytes of a struct mspan with room for `nwords` words of each kind; at least
 * sizeof(struct mspan). */
size_t mspan_struct_bytes(size_t nwords);

/* What the mode says about spans. */
struct span_policy {
	unsigned sweep_share_percent;   /* freed slots that make a sweep worth while */
	size_t window_bytes;            /* a window of large slots is kept this short */
	bool tail;                      /* slots end in bytes that are not the program's */
};

/* Sets the fields of a span over [base, base + npages pages): all slots free,
 * no owner. s has mspan_struct_bytes(nwords) bytes, or, where room_words says more, as many
 * as these take; its note survives. */
void mspan_init(struct mspan *s, uintptr_t base, size_t npages, unsigned span_class,
    bool zeroed, const struct span_policy *policy);

/* Moves up to s->window slots from avail into order[], the last of which is
 * handed out first: ascending addresses, or, when `rng` is given, a random half
 * of the slots from a random word on, in uniformly random order. Returns how many. */
uint32_t mspan_next_window(struct mspan *s, uint16_t *order, struct rand_stream *rng);
/* The same with no more than `most` slots; where they are drawn, and so few are left that
 * to choose among them would take long, still up to s->window. */
uint32_t mspan_draw_window(struct mspan *s, uint16_t *order, struct rand_stream *rng,
    uint32_t most);

/* Puts slots of a window back (thread exit, fork). Live ones are left alone. */
void mspan_return_window(struct mspan *s, const uint16_t *order, uint32_t n);

/* Takes the remote frees into live; returns how many there were. Owner only. */
size_t mspan_drain(struct mspan *s);

/* Drains, then makes every freed slot available. Owner only, no window out. */
void mspan_sweep(struct mspan *s);

size_t mspan_live_count(const struct mspan *s);    /* live & ~remote */
/* Slots a sweep would make available (tiny: blocks). No window may be out. */
size_t mspan_freed_count(const struct mspan *s);
/* The same, for one who knows mspan_live_count. */
size_t mspan_freed_beside(const struct mspan *s, size_t live_count);
/* No live slot once the remote frees are counted. Once true, it stays true for
 * a span that is not anybody's current one. */
bool mspan_is_empty(const struct mspan *s);

/* The empty span leaves the tiers: each slot that is not available reads as freed by
 * another thread, so that a second free, however long it was under way, finds the
 * remote bit set. */
void mspan_retire(struct mspan *s);

/* Sets the state; dies on an arrow that is not drawn. */
void mspan_set_state(struct mspan *s, enum span_state to);

#endif
