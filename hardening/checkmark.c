/* checkmark.c - see checkmark.h. Slow and plain on purpose. */
#include "checkmark.h"

#include <string.h>

#include "guardspace.h"
#include "hooks.h"
#include "sample.h"
#include "stoptheworld.h"
#include "../src/atomic.h"
#include "../src/marena.h"
#include "../src/mspan.h"

typedef uintptr_t __attribute__((may_alias)) word_t;

enum { WORD_BYTES = 8 };
#define ARENA_CHECK_BYTES (ARENA_SIZE / WORD_BYTES / 8)

struct walk {
	uintptr_t *todo;             /* first bytes of objects still to be looked into */
	size_t n, cap;
	size_t objects;
	struct sampled {
		uintptr_t base, end;
		bool noscan, checked;
	} sampled[SAMPLE_SLOTS];
	size_t n_sampled;
	uint64_t *bits;              /* of all arenas, one behind the other */
	size_t bits_bytes;
};

/* ---- the bits ---- */

static bool
take_bits(struct walk *w)
{
	size_t n = 0;
	struct heap_arena *a = aptr_load_acquire(&arena_map.all);
	for (; a != NULL; a = a->next)
		n++;
	w->bits_bytes = n * ARENA_CHECK_BYTES;
	w->bits = stw_scratch_alloc(w->bits_bytes);
	if (w->bits == NULL)
		return false;
	n = 0;
	for (a = aptr_load_acquire(&arena_map.all); a != NULL; a = a->next)
		a->checkmarks = w->bits + n++ * (ARENA_CHECK_BYTES / sizeof(uint64_t));
	return true;
}

static void
drop_bits(struct walk *w)
{
	struct heap_arena *a = aptr_load_acquire(&arena_map.all);
	for (; a != NULL; a = a->next)
		a->checkmarks = NULL;
	stw_scratch_free(w->bits, w->bits_bytes);
}

static uint64_t *
check_word(uintptr_t addr, uint64_t *bit)
{
	size_t word = (addr & (ARENA_SIZE - 1)) / WORD_BYTES;
	*bit = (uint64_t)1 << (word % 64);
	return &arena_of(addr)->checkmarks[word / 64];
}

static bool
is_checked(uintptr_t addr)
{
	uint64_t bit;
	return (*check_word(addr, &bit) & bit) != 0;
}

/* true: it was not set before. */
static bool
set_check(uintptr_t addr)
{
	uint64_t bit;
	uint64_t *w = check_word(addr, &bit);
	bool fresh = (*w & bit) == 0;
	*w |= bit;
	return fresh;
}

/* ---- the walk ---- */

static bool
slot_is_live(const struct mspan *s, size_t idx)
{
	uint64_t live = a64_load_acquire(&s->bits[idx / 64].live);
	uint64_t remote = a64_load_acquire(&s->bits[idx / 64].remote);
	return (live & ~remote) >> (idx % 64) & 1;
}

static size_t
slot_of(const struct mspan *s, uintptr_t addr)
{
	size_t idx = mspan_is_large(s) ? 0 : (addr - s->base) / s->elem_bytes;
	while (mspan_is_tiny(s) && idx % TINY_BLOCK_GRANULES != 0 && idx < s->nelems &&
	    (s->cont[idx / 64] >> (idx % 64) & 1) != 0)
		idx--;
	return idx;
}

static uintptr_t
slot_address(const struct mspan *s, size_t idx)
{
	return mspan_is_large(s) ? s->base : s->base + idx * s->elem_bytes;
}

static void
note_sampled(uintptr_t base, size_t bytes, bool noscan, void *arg)
{
	struct walk *w = arg;
	w->sampled[w->n_sampled++] = (struct sampled){ base, base + bytes, noscan, false };
}

static void
consider_sampled(struct walk *w, uintptr_t value)
{
	for (size_t i = 0; i < w->n_sampled; i++) {
		struct sampled *o = &w->sampled[i];
		if (value < o->base || value >= o->end || o->checked)
			continue;
		o->checked = true;
		w->objects++;
		if (!o->noscan && w->n < w->cap)
			w->todo[w->n++] = o->base;
	}
}

/* Whether value points into the object of a guarded slot that the program holds. */
static struct guard_record *
guarded_object(uintptr_t value)
{
	struct guard_around g;
	if (!guardspace_find(value, &g))
		return NULL;
	struct guard_record *r = g.in != NULL ? g.in : g.before;
	if (r == NULL || value < r->base)
		return NULL;
	uint32_t state = a32_load_acquire(&r->state);
	bool inside = value == r->base || value < r->base + r->bytes;
	return inside && (state == GUARD_LIVE || state == GUARD_REPORTED) ? r : NULL;
}

static void
consider_guarded(struct walk *w, uintptr_t value)
{
	struct guard_record *r = guarded_object(value);
	if (r == NULL || (r->flags & GUARD_CHECKED) != 0)
		return;
	r->flags |= GUARD_CHECKED;
	w->objects++;
	if ((r->flags & GUARD_NOSCAN) == 0 && w->n < w->cap)
		w->todo[w->n++] = r->base;
}

static void
consider(struct walk *w, uintptr_t value)
{
	const struct mspan *s = arena_of(value) != NULL ? arena_span_containing(value) : NULL;
	if (s == NULL) {
		consider_sampled(w, value);
		consider_guarded(w, value);
	}
	if (s == NULL || a32_load_acquire(&s->state) != SPAN_IN_USE)
		return;
	size_t idx = slot_of(s, value);
	if (idx >= s->nelems || !slot_is_live(s, idx))
		return;
	uintptr_t base = slot_address(s, idx);
	bool behind = value != base && !mspan_is_tiny(s) &&
	    value >= base + hook_slot_bytes(s, idx, s->elem_bytes);
	if (behind || !set_check(base))
		return;
	w->objects++;
	if (!span_class_noscan(s->span_class) && w->n < w->cap)
		w->todo[w->n++] = slot_address(s, idx);
}

__attribute__((no_sanitize("address", "thread"))) static void
look_into(uintptr_t from, uintptr_t to, void *arg)
{
	for (const word_t *p = (const word_t *)from; p < (const word_t *)to; p++)
		consider(arg, *p);
}

/* A loop of its own: see mark.c. */
__attribute__((no_sanitize("address", "thread"))) static NOINLINE void
look_into_root(struct walk *w, const struct root_piece *r)
{
	for (const word_t *p = (const word_t *)r->start; p < (const word_t *)r->end; p++)
		consider(w, *p);
}

static void
look_into_sampled(struct walk *w, uintptr_t at)
{
	for (size_t i = 0; i < w->n_sampled; i++)
		if (w->sampled[i].base == at)
			look_into(at, align_down(w->sampled[i].end, WORD_BYTES), w);
}

/* The first byte of a guarded object may be odd. */
static void
look_into_guarded(struct walk *w, uintptr_t at)
{
	const struct guard_record *r = guarded_object(at);
	for (size_t i = 0; r != NULL && i + WORD_BYTES <= r->bytes; i += WORD_BYTES) {
		uintptr_t value;
		memcpy(&value, (const void *)(at + i), WORD_BYTES);
		consider(w, value);
	}
}

static NOINLINE void
walk_on(struct walk *w)
{
	while (w->n != 0) {
		uintptr_t at = w->todo[--w->n];
		const struct mspan *s = arena_of(at) != NULL ? arena_span_containing(at) : NULL;
		if (s == NULL) {
			look_into_sampled(w, at);
			look_into_guarded(w, at);
		} else if (mspan_is_large(s))
			roots_each_resident(at, at + s->elem_bytes, look_into, w);
		else
			look_into(at, at + s->elem_bytes, w);
	}
}

static NOINLINE void
walk_roots(struct walk *w, const struct roots *roots)
{
	for (size_t i = 0; i < roots->n; i++) {
		look_into_root(w, &roots->piece[i]);
		if (w->n != 0)
			walk_on(w);
	}
}

/* ---- the comparison ---- */

static void
differ(struct checkmark *c, uintptr_t where)
{
	if (c->differences++ == 0)
		c->first = where;
}

static void
compare_tiny(struct checkmark *c, size_t i)
{
	const struct mspan *s = c->spans[i];
	for (size_t idx = 0; idx < s->nelems; idx += 2) {
		bool reached = (slot_is_live(s, idx) && c->reached(c->arg, i, idx)) ||
		    (idx + 1 < s->nelems && slot_is_live(s, idx + 1) &&
		    c->reached(c->arg, i, idx + 1));
		if (reached != is_checked(slot_address(s, idx)))
			differ(c, slot_address(s, idx));
	}
}

static size_t
compare_span(struct checkmark *c, size_t i)
{
	const struct mspan *s = c->spans[i];
	size_t seen = 0;
	for (size_t idx = 0; idx < s->nelems; idx++) {
		bool live = slot_is_live(s, idx);
		bool checked = is_checked(slot_address(s, idx));
		seen += checked;
		if (checked != (live && c->reached(c->arg, i, idx)))
			differ(c, slot_address(s, idx));
	}
	return seen;
}

static size_t
count_bits(const struct walk *w)
{
	size_t n = 0;
	for (size_t i = 0; i < w->bits_bytes / sizeof(uint64_t); i++)
		n += w->bits[i] != 0 ? popcount64(w->bits[i]) : 0;
	return n;
}

struct guarded_arg {
	struct checkmark *c;
	size_t live;
};

static void
uncheck_guarded(struct guard_record *r, void *arg)
{
	struct guarded_arg *a = arg;
	r->flags &= (uint8_t)~GUARD_CHECKED;
	a->live += guarded_object(r->base) == r;
}

static void
compare_guarded(struct guard_record *r, void *arg)
{
	struct guarded_arg *a = arg;
	bool reached = guarded_object(r->base) == r && a->c->outside_reached(a->c->arg, r->base);
	if (reached != ((r->flags & GUARD_CHECKED) != 0))
		differ(a->c, r->base);
}

static void
compare(struct checkmark *c, const struct walk *w)
{
	size_t seen = 0;
	for (size_t i = 0; i < c->n_spans; i++) {
		if (!mspan_is_tiny(c->spans[i])) {
			seen += compare_span(c, i);
			continue;
		}
		compare_tiny(c, i);
		for (size_t idx = 0; idx < c->spans[i]->nelems; idx += 2)
			seen += is_checked(slot_address(c->spans[i], idx));
	}
	if (seen != count_bits(w))
		differ(c, 0);
	for (size_t i = 0; i < w->n_sampled; i++)
		if (w->sampled[i].checked != c->outside_reached(c->arg, w->sampled[i].base))
			differ(c, w->sampled[i].base);
	guardspace_each(compare_guarded, &(struct guarded_arg){ .c = c });
	c->objects = w->objects;
}

bool
checkmark_run(struct checkmark *c)
{
	struct walk w = { .cap = 1 + SAMPLE_SLOTS };
	struct guarded_arg guarded = { .c = c };
	sample_each_live(note_sampled, &w);
	guardspace_each(uncheck_guarded, &guarded);
	w.cap += guarded.live;
	for (size_t i = 0; i < c->n_spans; i++)
		if (!span_class_noscan(c->spans[i]->span_class))
			w.cap += mspan_live_count(c->spans[i]);
	c->differences = c->objects = 0;
	c->first = 0;
	w.todo = stw_scratch_alloc(w.cap * sizeof(*w.todo));
	bool ok = w.todo != NULL && take_bits(&w);
	if (ok) {
		walk_roots(&w, c->roots);
		compare(c, &w);
	}
	drop_bits(&w);
	stw_scratch_free(w.todo, w.cap * sizeof(*w.todo));
	return ok;
}
