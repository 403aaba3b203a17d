/* malloc_fast.h - the paths that every program runs all day, and malloc_usable_size.
 *
 * malloc of a small object: class table, window, live bit. free on the owner's
 * thread: arena map, span, division, live bit, budget. No lock, no atomic
 * read-modify-write, no call, and no test for any mode (busy is for a signal
 * handler that calls malloc in the middle of malloc): a mode that wants to
 * see every call leaves the windows empty and the spans foreign. The
 * instruction counts are recorded in bench/fastpath.txt. */
#ifndef SPANGUARD_MALLOC_FAST_H
#define SPANGUARD_MALLOC_FAST_H

#include "malloc.h"
#include "marena.h"
#include "mcache.h"
#include "tls.h"

INLINE void *
malloc_fast_class(size_t bytes, unsigned noscan, enum malloc_api api)
{
	struct mcache *c = mcache_front();
	unsigned spc = SPAN_LARGE + noscan;
	if (likely(bytes <= SMALL_MAX_BYTES)) {
		spc = size_to_class[(bytes + 15) >> 4] + noscan;
		if (likely(c != NULL) && likely(c->busy == CACHE_IDLE)) {
			struct mcache_alloc *a = &c->alloc[spc];
			KEEP_ADDRESS(a);
			c->busy = CACHE_FAST;
			compiler_fence();
			size_t n = a->n;
			if (likely(n != 0)) {
				n--;
				KEEP_ADDRESS(n);
				uint32_t idx = a->order[n];
				atomic_u64 *word = &mspan_word_of(a->span, idx)->live;
				a->n = (uint32_t)n;
				a64_store_relaxed(word,
				    a64_load_relaxed(word) | (uint64_t)1 << (idx % 64));
				uintptr_t p = a->base + (size_t)idx * a->elem_bytes;
				compiler_fence();
				c->busy = CACHE_IDLE;
				return (void *)p;
			}
			c->busy = CACHE_IDLE;
		}
	}
	void *p = malloc_slow(bytes, spc, api);
	NO_TAIL_CALL();
	return p;
}

INLINE void *
malloc_fast(size_t bytes, enum malloc_api api)
{
	return malloc_fast_class(bytes, 0, api);
}

INLINE void
free_fast(void *p, enum malloc_api api)
{
	uintptr_t addr = (uintptr_t)p;
	struct mspan *s = span_of(addr);
	struct mcache *c = mcache_front_raw();
	size_t idx;
	if (likely(s != NULL) && likely(aptr_load_relaxed(&s->owner) == c) &&
	    likely(c->busy == CACHE_IDLE) && likely(mspan_slot(s, addr, &idx))) {
		struct slot_word *word = mspan_word_of(s, idx);
		c->busy = CACHE_FAST;
		compiler_fence();
		uint64_t live = a64_load_relaxed(&word->live);
		if (likely(((live & ~a64_load_relaxed(&word->remote)) >> (idx % 64) & 1) != 0)) {
			/* first: once nothing lives in s, another thread's trim may take it */
			if (unlikely(--s->budget == 0)) {
				mcache_budget_spent(c, s, addr);
				return;
			}
			KEEP_ADDRESS(idx);
			a64_store_release(&word->live, live & ~((uint64_t)1 << (idx % 64)));
			compiler_fence();
			c->busy = CACHE_IDLE;
			return;
		}
		c->busy = CACHE_IDLE;
	}
	free_slow(p, api);
	NO_TAIL_CALL();
}

/* Whose size is that of its slot, and who is alive; the others are looked at in full. */
INLINE size_t
usable_size_fast(const void *p, enum malloc_api api)
{
	struct mspan *s = span_of((uintptr_t)p);
	size_t idx;
	if (likely(s != NULL) && likely(s->sized_class < SPAN_TINY) &&
	    likely(mspan_slot(s, (uintptr_t)p, &idx)) && likely(mspan_slot_live(s, idx)))
		return s->elem_bytes;
	size_t n = usable_size(p, api);
	NO_TAIL_CALL();
	return n;
}

#endif
