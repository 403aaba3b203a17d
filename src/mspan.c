/* mspan.c - see mspan.h. */
#include "mspan.h"

#include <string.h>

#include "die.h"
#include "../hardening/hooks.h"

size_t
mspan_struct_bytes(size_t nwords)
{
	return align_up(offsetof(struct mspan, bits) +
	    nwords * (sizeof(struct slot_word) + 2 * sizeof(uint64_t)), CACHE_LINE);
}

static uint64_t
tail_mask(const struct mspan *s, size_t word)
{
	size_t first = word * 64;
	if (first >= s->nelems)
		return 0;
	return s->nelems - first >= 64 ? ~(uint64_t)0 : ((uint64_t)1 << (s->nelems - first)) - 1;
}

/* Bit 0 of every nibble: the first granule of each tiny block. */
static const uint64_t block_starts = 0x1111111111111111u;

/* The start bits of those nibbles of v that are zero. */
static uint64_t
empty_blocks(uint64_t v)
{
	v |= v >> 1;
	v |= v >> 2;
	return ~v & block_starts;
}

static void
set_geometry(struct mspan *s)
{
	size_t bytes = mspan_bytes(s);
	if (mspan_is_large(s)) {
		s->elem_bytes = bytes;
		s->divmul = 0;
		s->nelems = 1;
		return;
	}
	if (mspan_is_tiny(s)) {
		s->elem_bytes = TINY_GRANULE_BYTES;
		s->divmul = (uint32_t)((uint64_t)1 << 32 >> 2);
	} else {
		const struct size_class *c = &size_classes[span_class_size_class(s->span_class)];
		s->elem_bytes = c->elem_bytes;
		s->divmul = c->divmul;
	}
	size_t n = bytes / s->elem_bytes;
	s->nelems = (uint32_t)(n < SPAN_MAX_SLOTS ? n : SPAN_MAX_SLOTS);
}

static void
set_all_available(struct mspan *s)
{
	s->avail_n = 0;
	for (size_t w = 0; w < s->nwords; w++) {
		s->avail[w] = tail_mask(s, w);
		if (mspan_is_tiny(s))
			s->avail[w] &= block_starts;
		s->avail_n += popcount64(s->avail[w]);
	}
}

static uint16_t
share_of(uint32_t nelems, unsigned percent)
{
	uint32_t n = nelems * percent / 100;
	return (uint16_t)(n == 0 ? 1 : n);
}

/* Small slots fill a window; of large ones it holds fewer, so that a program
 * that needs one at a time touches a few, not the whole span. */
static uint8_t
window_slots(size_t elem_bytes, size_t window_bytes)
{
	size_t n = window_bytes / elem_bytes;
	if (n < WINDOW_MIN_SLOTS)
		n = WINDOW_MIN_SLOTS;
	return (uint8_t)(n < WINDOW_SLOTS ? n : WINDOW_SLOTS);
}

void
mspan_init(struct mspan *s, uintptr_t base, size_t npages, unsigned span_class,
    bool zeroed, const struct span_policy *policy)
{
	s->base = base;
	s->npages = npages;
	byte_store_relaxed(&s->span_class, (uint8_t)span_class);
	s->sized_class = policy->tail ? NO_SIZED_CLASS : (uint8_t)span_class;
	set_geometry(s);
	size_t nwords = mspan_words(s->nelems);
	s->nwords = (uint16_t)nwords;
	if (s->room_words < nwords)
		s->room_words = (uint16_t)nwords;
	s->avail = (uint64_t *)&s->bits[s->room_words];
	s->cont = mspan_is_tiny(s) ? s->avail + nwords : NULL;
	memset(s->bits, 0, s->room_words * sizeof(s->bits[0]) + 2 * nwords * sizeof(s->avail[0]));
	set_all_available(s);
	aptr_store_relaxed(&s->owner, &mcache_none);
	uint32_t units = mspan_is_tiny(s) ? s->nelems / TINY_BLOCK_GRANULES : s->nelems;
	s->sweep_at = hook_sweep_at(units, policy->sweep_share_percent);
	uint16_t per_word = s->nelems >= 64 ? 16 : share_of(s->nelems, 25);
	s->notify_at = per_word;
	s->window = window_slots(s->elem_bytes, policy->window_bytes);
	s->budget = INT32_MAX;
	s->next = s->prev = NULL;
	s->list = LIST_NONE;
	s->needzero = !zeroed;
	s->moved = false;
	s->guards = 0;
	s->faulted = false;
	s->parked = 0;
	s->sweepgen = 0;
	mspan_set_state(s, SPAN_IN_USE);
}

/* The lowest available slots, the lowest of them last: it is handed out first. */
static uint32_t
take_in_order(struct mspan *s, uint16_t *order, uint32_t most)
{
	uint32_t n = s->avail_n < most ? s->avail_n : most, left = n;
	for (size_t w = 0; w < s->nwords && left > 0; w++) {
		uint64_t bits = s->avail[w];
		for (; bits != 0 && left > 0; bits &= bits - 1)
			order[--left] = (uint16_t)(w * 64 + ctz64(bits));
		s->avail[w] = bits;
	}
	if (unlikely(left != 0))
		die_corruption("MSPAN-4", s);
	return n;
}

uint32_t
mspan_draw_window(struct mspan *s, uint16_t *order, struct rand_stream *rng, uint32_t most)
{
	if (s->avail_n == 0)
		return 0;
	if (most > s->window)
		most = s->window;
	uint32_t n = rng != NULL ? hook_draw_window(s, order, rng, most) :
	    take_in_order(s, order, most);
	s->avail_n -= n;
	return n;
}

uint32_t
mspan_next_window(struct mspan *s, uint16_t *order, struct rand_stream *rng)
{
	return mspan_draw_window(s, order, rng, s->window);
}

void
mspan_return_window(struct mspan *s, const uint16_t *order, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		size_t w = order[i] / 64;
		uint64_t bit = (uint64_t)1 << (order[i] % 64);
		if ((a64_load_relaxed(&s->bits[w].live) & bit) != 0 || (s->avail[w] & bit) != 0)
			continue;
		s->avail[w] |= bit;
		s->avail_n++;
	}
}

/* Two threads freed the slot at the very same moment, so that neither saw the
 * other: it shows as a remote bit without its live bit. */
static _Noreturn void
late_double_free(const struct mspan *s, size_t w, uint64_t bits)
{
	size_t slot = w * 64 + ctz64(bits);
	die(&(struct die_info){ .code = DIE_DOUBLE_FREE, .api = "free", .site = "MSPAN-2",
	    .addr = s->base + slot * s->elem_bytes });
}

size_t
mspan_drain(struct mspan *s)
{
	size_t n = 0;
	for (size_t w = 0; w < s->nwords; w++) {
		if (a64_load_relaxed(&s->bits[w].remote) == 0)
			continue;
		uint64_t freed = a64_exchange(&s->bits[w].remote, 0);
		uint64_t live = a64_load_relaxed(&s->bits[w].live);
		if (unlikely((freed & ~live) != 0))
			late_double_free(s, w, freed & ~live);
		a64_store_relaxed(&s->bits[w].live, live & ~freed);
		n += popcount64(freed);
	}
	return n;
}

void
mspan_sweep(struct mspan *s)
{
	mspan_drain(s);
	s->needzero = true;        /* first: a report tells never used slots by it */
	uint32_t n = 0;
	for (size_t w = 0; w < s->nwords; w++) {
		uint64_t live = a64_load_relaxed(&s->bits[w].live);
		uint64_t late = a64_load_acquire(&s->bits[w].remote) & ~live;
		if (unlikely(late != 0))
			late_double_free(s, w, late);
		if (mspan_is_tiny(s)) {
			s->avail[w] = empty_blocks(live) & tail_mask(s, w);
			s->cont[w] &= ~(s->avail[w] * 0xf);
		} else {
			s->avail[w] = ~live & tail_mask(s, w);
		}
		n += popcount64(s->avail[w]);
	}
	s->avail_n = n;
}

size_t
mspan_live_count(const struct mspan *s)
{
	size_t n = 0;
	for (size_t w = 0; w < s->nwords; w++)
		n += popcount64(a64_load_relaxed(&s->bits[w].live) &
		    ~a64_load_relaxed(&s->bits[w].remote));
	return n;
}

size_t
mspan_freed_beside(const struct mspan *s, size_t live_count)
{
	if (likely(!mspan_is_tiny(s)))
		return s->nelems - live_count - s->avail_n;
	size_t n = 0;
	for (size_t w = 0; w < s->nwords; w++) {
		uint64_t live = a64_load_relaxed(&s->bits[w].live) & ~a64_load_relaxed(&s->bits[w].remote);
		n += popcount64(empty_blocks(live) & tail_mask(s, w));
	}
	return n - s->avail_n;
}

size_t
mspan_freed_count(const struct mspan *s)
{
	return mspan_freed_beside(s, mspan_live_count(s));
}

bool
mspan_is_empty(const struct mspan *s)
{
	for (size_t w = 0; w < s->nwords; w++) {
		/* live first: a remote bit is set only while its live bit is */
		uint64_t live = a64_load_acquire(&s->bits[w].live);
		if ((live & ~a64_load_acquire(&s->bits[w].remote)) != 0)
			return false;
	}
	return true;
}

/* remote first: a free that has seen live is met by it from then on */
void
mspan_retire(struct mspan *s)
{
	for (size_t w = 0; w < s->nwords; w++) {
		uint64_t used = tail_mask(s, w) & ~s->avail[w];
		a64_store_release(&s->bits[w].remote, used);
		a64_store_relaxed(&s->bits[w].live, used);
	}
}

void
mspan_set_state(struct mspan *s, enum span_state to)
{
	static const uint8_t from[] = {
		[SPAN_DEAD] = 1 << SPAN_IN_USE | 1 << SPAN_PARKED,
		[SPAN_IN_USE] = 1 << SPAN_DEAD,
		[SPAN_PARKED] = 1 << SPAN_IN_USE,
	};
	uint32_t now = a32_load_relaxed(&s->state);
	if (unlikely(now > SPAN_PARKED || (from[to] & (1u << now)) == 0))
		die_corruption("MSPAN-9", s);
	a32_store_release(&s->state, to);
}
