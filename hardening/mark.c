/* mark.c - see mark.h.
 *
 *   mark_run -> locks -> stw_stop -> run_pass
 *     tables      number the spans, copy live & ~remote, fill the page table
 *     roots       every piece of roots.c, word by word
 *     drain       stack -> ring -> scan_object, until both are empty
 *     unreached   only where ranges are watched: what is still white is looked into
 *     count       white bits left over are the objects nobody points to
 *     checkmark   on demand
 *   -> stw_start -> unlock -> judge: a difference dies now, with the world running
 *
 * Tables, stack and bits are scratch memory of the pass, which is no root. */
#define _GNU_SOURCE
#include "mark.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "checkmark.h"
#include "hooks.h"
#include "markoutside.h"
#include "roots.h"
#include "sidetable.h"
#include "../src/die.h"
#include "../src/malloc.h"
#include "../src/marena.h"
#include "../src/mcache.h"
#include "../src/mheap.h"
#include "../src/mspan.h"
#include "../src/proc.h"
#include "../src/report.h"
#include "../src/sys.h"
#include "../src/tls.h"

enum {
	RING = 16,                     /* objects on their way into the CPU's cache */
	STACK_OBJECTS = 1 << 20,
	CLASSES = 256,                 /* of span_class, a byte */
	CLASS_OUTSIDE = CLASSES - 1,   /* in the worklist: an object that is in no span */
	CLASS_SHIFT = ADDR_BITS,       /* an entry of the worklist: address, class on top */
	LINE = CACHE_LINE,
	PASS_STACK_BYTES = 256 << 10,
};

typedef uintptr_t __attribute__((may_alias)) word_t;

enum page_kind {
	PAGE_NONE, PAGE_SMALL, PAGE_SMALL_NOSCAN, PAGE_LARGE, PAGE_LARGE_NOSCAN, PAGE_TINY,
	PAGE_EXACT, PAGE_EXACT_NOSCAN, /* small, with records: an object ends where they say */
	PAGE_WATCHED,
};

struct mark_page {
	uint32_t bits;                 /* the span's first word of white bits */
	uint32_t span;                 /* its number; PAGE_WATCHED: the watch's */
	uint16_t page;                 /* of small spans: pages from the span's base */
	uint8_t span_class;
	uint8_t kind;
};

/* All spans of a class are alike. */
struct class_shape {
	uint32_t elem_bytes, divmul, nelems;
};

struct pass {
	uintptr_t lo;                  /* the heap lies in [lo, lo + span_bytes) */
	uintptr_t span_bytes;
	bool reference_only;           /* marks nothing: looks for watched ranges, */
	bool classifying;              /* or for lost objects */
	bool overflowed;
	bool exact;                    /* there are records */
	struct mark_page **arena;      /* by arena from lo; NULL: none of ours */
	uint64_t *white;
	uint64_t *indirect;            /* a bit a slot; only where the request classifies */
	uintptr_t *stack;
	size_t n, cap;
	uintptr_t ring[RING];
	size_t ring_first, ring_n;
	struct class_shape shape[CLASSES];

	struct mspan **span;
	uint32_t *first_bits;          /* of each span */
	uint8_t *rescan;               /* this span has reached objects not looked into */
	size_t n_spans;
	size_t n_words;
	size_t n_arenas;
	struct mark_page *pages;
	uint64_t marks;                /* for mark_fault */

	struct outside outside;        /* objects that are in no span */

	struct mark_request *req;
	struct mark_reference here;    /* what is being looked into */
	struct mark_result *out;
	struct roots roots;
	struct checkmark check;
};

#if defined(SPANGUARD_TEST_BUILD)
uint32_t mark_fault;
#endif

/* ---- tables ---- */

static enum page_kind
kind_of(const struct pass *p, const struct mspan *s)
{
	bool noscan = span_class_noscan(s->span_class);
	if (mspan_is_tiny(s))
		return PAGE_TINY;
	if (mspan_is_large(s))
		return noscan ? PAGE_LARGE_NOSCAN : PAGE_LARGE;
	if (p->exact)
		return noscan ? PAGE_EXACT_NOSCAN : PAGE_EXACT;
	return noscan ? PAGE_SMALL_NOSCAN : PAGE_SMALL;
}

static void
measure_arenas(struct pass *p)
{
	uintptr_t lo = ADDR_LIMIT, hi = 0;
	struct heap_arena *a = aptr_load_acquire(&arena_map.all);
	for (; a != NULL; a = a->next, p->n_arenas++) {
		lo = a->base < lo ? a->base : lo;
		hi = a->base + ARENA_SIZE > hi ? a->base + ARENA_SIZE : hi;
	}
	/* one comparison is to tell most words apart: objects outside are within, too */
	outside_fill(&p->outside);
	if (p->outside.bytes != 0) {
		lo = p->outside.lo < lo ? p->outside.lo : lo;
		hi = p->outside.lo + p->outside.bytes > hi ? p->outside.lo + p->outside.bytes : hi;
	}
	p->lo = align_down(lo, ARENA_SIZE);
	p->span_bytes = hi > lo ? align_up(hi, ARENA_SIZE) - p->lo : 0;
}

/* Calls fn for each span in use. */
static void
each_span(struct pass *p, void (*fn)(struct pass *p, struct mspan *s))
{
	struct heap_arena *a = aptr_load_acquire(&arena_map.all);
	for (; a != NULL; a = a->next)
		for (size_t w = 0; w < ARENA_WORDS; w++) {
			uint64_t bits = a64_load_acquire(&a->page_in_use[w]);
			for (; bits != 0; bits &= bits - 1) {
				size_t page = w * 64 + ctz64(bits);
				struct mspan *s = aptr_load_acquire(&a->spans[page]);
				if (s != NULL && a32_load_acquire(&s->state) == SPAN_IN_USE)
					fn(p, s);
			}
		}
}

static void
count_span(struct pass *p, struct mspan *s)
{
	p->n_spans++;
	p->n_words += s->nwords;
}

static struct mark_page *
page_of(const struct pass *p, uintptr_t addr)
{
	struct mark_page *pages = p->arena[(addr - p->lo) >> ARENA_SHIFT];
	return &pages[arena_page_idx(addr)];
}

static uint64_t
live_word(const struct mspan *s, size_t w)
{
	return a64_load_acquire(&s->bits[w].live) & ~a64_load_acquire(&s->bits[w].remote);
}

static void
enter_span(struct pass *p, struct mspan *s)
{
	uint32_t i = (uint32_t)p->n_spans++;
	uint32_t bits = (uint32_t)p->n_words;
	p->span[i] = s;
	p->first_bits[i] = bits;
	p->n_words += s->nwords;
	for (size_t w = 0; w < s->nwords; w++)
		p->white[bits + w] = live_word(s, w);
	if (!mspan_is_large(s))
		p->shape[s->span_class] = (struct class_shape){ (uint32_t)s->elem_bytes, s->divmul,
			s->nelems };
	struct mark_page rec = { .bits = bits, .span = i, .span_class = s->span_class,
		.kind = (uint8_t)kind_of(p, s) };
	for (size_t k = 0; k < s->npages; k++) {
		rec.page = (uint16_t)k;
		*page_of(p, s->base + (k << PAGE_SHIFT)) = rec;
	}
}

static void
enter_watch(struct pass *p, size_t i)
{
	struct mark_watch *w = &p->req->watch[i];
	struct mark_page rec = { .span = (uint32_t)i, .kind = PAGE_WATCHED };
	w->references = w->from_unreached = 0;
	for (uintptr_t at = w->base; at < w->end; at += PAGE_SIZE)
		if (at - p->lo < p->span_bytes && p->arena[(at - p->lo) >> ARENA_SHIFT] != NULL)
			*page_of(p, at) = rec;
}

static void
enter_arenas(struct pass *p)
{
	size_t n = 0;
	struct heap_arena *a = aptr_load_acquire(&arena_map.all);
	for (; a != NULL; a = a->next)
		p->arena[(a->base - p->lo) >> ARENA_SHIFT] = p->pages + n++ * ARENA_PAGES;
}

static void *
scratch_array(size_t n, size_t bytes)
{
	return stw_scratch_alloc(n * bytes);
}

static bool
make_tables(struct pass *p)
{
	measure_arenas(p);
	each_span(p, count_span);
	p->cap = p->req->stack_objects != 0 ? p->req->stack_objects : STACK_OBJECTS;
	p->arena = scratch_array(p->span_bytes >> ARENA_SHIFT, sizeof(*p->arena));
	p->pages = scratch_array(p->n_arenas * ARENA_PAGES, sizeof(*p->pages));
	p->white = scratch_array(p->n_words, sizeof(*p->white));
	p->span = scratch_array(p->n_spans, sizeof(*p->span));
	p->first_bits = scratch_array(p->n_spans, sizeof(*p->first_bits));
	p->rescan = scratch_array(p->n_spans, 1);
	p->stack = scratch_array(p->cap, sizeof(*p->stack));
	p->indirect = p->req->classify ? scratch_array(p->n_words, sizeof(*p->indirect)) : NULL;
	return p->arena != NULL && p->pages != NULL && p->white != NULL && p->span != NULL &&
	    p->first_bits != NULL && p->rescan != NULL && p->stack != NULL &&
	    (p->indirect != NULL || !p->req->classify);
}

static void
fill_tables(struct pass *p)
{
	outside_fill(&p->outside);
	p->exact = sidetable_is_on();
	enter_arenas(p);
	p->n_spans = p->n_words = 0;
	each_span(p, enter_span);
	for (size_t i = 0; i < p->req->n_watch; i++)
		enter_watch(p, i);
}

static void
drop_tables(struct pass *p)
{
	stw_scratch_free(p->arena, (p->span_bytes >> ARENA_SHIFT) * sizeof(*p->arena));
	stw_scratch_free(p->pages, p->n_arenas * ARENA_PAGES * sizeof(*p->pages));
	stw_scratch_free(p->white, p->n_words * sizeof(*p->white));
	stw_scratch_free(p->span, p->n_spans * sizeof(*p->span));
	stw_scratch_free(p->indirect, p->n_words * sizeof(*p->indirect));
	stw_scratch_free(p->first_bits, p->n_spans * sizeof(*p->first_bits));
	stw_scratch_free(p->rescan, p->n_spans);
	stw_scratch_free(p->stack, p->cap * sizeof(*p->stack));
}

static uintptr_t
slot_address(const struct mspan *s, size_t idx)
{
	return s->base + idx * (mspan_is_large(s) ? 0 : s->elem_bytes);
}

/* ---- a word ---- */

static NOINLINE void
note_reference(struct pass *p, const struct mark_page *pg, uintptr_t value, uintptr_t at)
{
	struct mark_watch *w = &p->req->watch[pg->span];
	/* whole pages were entered; the range may begin or end inside one */
	if (value - w->base >= w->end - w->base)
		return;
	w->references++;
	w->from_unreached += p->here.unreached;
	if (p->req->on_reference == NULL)
		return;
	p->here.at = at;
	p->here.value = value;
	p->here.watch = pg->span;
	p->req->on_reference(&p->here, p->req->arg);
}

static NOINLINE void
push_full(struct pass *p, uint32_t span)
{
	p->rescan[span] = 1;
	p->overflowed = true;
}

INLINE void
push(struct pass *p, uintptr_t base, unsigned span_class, uint32_t span)
{
	if (unlikely(p->n == p->cap))
		push_full(p, span);
	else
		p->stack[p->n++] = base | (uintptr_t)span_class << CLASS_SHIFT;
}

/* true: the slot was white and is not any more. */
INLINE bool
take_white(struct pass *p, uint32_t bits, size_t idx)
{
	uint64_t *w = &p->white[bits + idx / 64];
	uint64_t bit = (uint64_t)1 << (idx % 64);
	if ((*w & bit) == 0)
		return false;
	if (mark_fault != 0 && ++p->marks % mark_fault == 0)
		return false;          /* planted: reached and not marked */
	*w &= ~bit;
	return true;
}

/* A word that points to where such objects are. */
static NOINLINE void
visit_outside(struct pass *p, uintptr_t value)
{
	struct outside_object x;
	if (value - p->outside.lo >= p->outside.bytes ||
	    !outside_at(&p->outside, value, &x) || (*x.flags & GUARD_WHITE) == 0)
		return;
	if (p->reference_only) {
		if (p->classifying && x.base != p->here.object)
			*x.flags |= GUARD_INDIRECT;
		return;
	}
	if (mark_fault != 0 && ++p->marks % mark_fault == 0)
		return;
	*x.flags &= (uint8_t)~GUARD_WHITE;
	if ((*x.flags & GUARD_NOSCAN) != 0)
		return;
	if (p->n < p->cap) {
		p->stack[p->n++] = x.base | (uintptr_t)CLASS_OUTSIDE << CLASS_SHIFT;
	} else {
		*x.flags |= GUARD_RESCAN;
		p->overflowed = true;
	}
}

/* Whether the byte at that offset of the slot is behind the object. One of no bytes
 * is where it begins. */
static NOINLINE bool
is_behind(const struct pass *p, const struct mark_page *pg, size_t idx, size_t off)
{
	const struct mspan *s = p->span[pg->span];
	return off != 0 && off >= hook_slot_bytes(s, idx, s->elem_bytes);
}

/* The granule at which the tiny object begins that value lies in; nelems: none. */
static size_t
tiny_idx(const struct mspan *s, uintptr_t value)
{
	size_t idx = (value - s->base) / TINY_GRANULE_BYTES;
	if (idx >= s->nelems)
		return s->nelems;
	while (idx % TINY_BLOCK_GRANULES != 0 && (s->cont[idx / 64] >> (idx % 64) & 1) != 0)
		idx--;
	return idx;
}

/* A word of a lost object. What points to itself is no less lost for that. */
static void
note_indirect(struct pass *p, const struct mark_page *pg, uintptr_t value)
{
	const struct mspan *s = p->span[pg->span];
	size_t idx = pg->kind == PAGE_TINY ? tiny_idx(s, value) :
	    mspan_is_large(s) ? 0 : (value - s->base) / s->elem_bytes;
	uint64_t bit = (uint64_t)1 << (idx % 64);
	if (idx >= s->nelems || (p->white[pg->bits + idx / 64] & bit) == 0)
		return;
	uintptr_t base = slot_address(s, idx);
	if (base != p->here.object && !(p->exact && is_behind(p, pg, idx, value - base)))
		p->indirect[pg->bits + idx / 64] |= bit;
}

static void
visit_exact(struct pass *p, const struct mark_page *pg, uintptr_t value)
{
	const struct mspan *s = p->span[pg->span];
	size_t idx = (value - s->base) / s->elem_bytes;
	uintptr_t base = slot_address(s, idx);
	if (idx >= s->nelems || is_behind(p, pg, idx, value - base))
		return;
	if (take_white(p, pg->bits, idx) && pg->kind == PAGE_EXACT)
		push(p, base, pg->span_class, pg->span);
}

static NOINLINE void
visit_rare(struct pass *p, const struct mark_page *pg, uintptr_t value, uintptr_t at)
{
	if (pg->kind == PAGE_WATCHED) {
		note_reference(p, pg, value, at);
		return;
	}
	if (p->reference_only) {
		if (p->classifying)
			note_indirect(p, pg, value);
		return;
	}
	if (pg->kind == PAGE_TINY) {
		const struct mspan *s = p->span[pg->span];
		size_t idx = tiny_idx(s, value);
		if (idx < s->nelems)
			take_white(p, pg->bits, idx);
		return;
	}
	if (pg->kind == PAGE_EXACT || pg->kind == PAGE_EXACT_NOSCAN) {
		visit_exact(p, pg, value);
		return;
	}
	uintptr_t base = p->span[pg->span]->base;
	if (p->exact && is_behind(p, pg, 0, value - base))
		return;
	if (take_white(p, pg->bits, 0) && pg->kind == PAGE_LARGE)
		push(p, base, pg->span_class, pg->span);
}

INLINE void
visit(struct pass *p, uintptr_t value, uintptr_t at)
{
	uintptr_t off = value - p->lo;
	if (likely(off >= p->span_bytes))
		return;
	const struct mark_page *pages = p->arena[off >> ARENA_SHIFT];
	if (unlikely(pages == NULL)) {
		visit_outside(p, value);
		return;
	}
	const struct mark_page *pg = &pages[arena_page_idx(value)];
	if (unlikely(pg->kind == PAGE_NONE)) {
		visit_outside(p, value);
		return;
	}
	if (unlikely(pg->kind > PAGE_SMALL_NOSCAN || p->reference_only)) {
		visit_rare(p, pg, value, at);
		return;
	}
	const struct class_shape *c = &p->shape[pg->span_class];
	/* without the rounding the last byte of a slot may be the next one's (MSIZE-3) */
	value &= ~(uintptr_t)(SIZE_STEP_BYTES - 1);
	size_t in_span = ((size_t)pg->page << PAGE_SHIFT) + (value & (PAGE_SIZE - 1));
	size_t idx = (size_t)(((uint64_t)in_span * c->divmul) >> 32);
	if (idx < c->nelems && take_white(p, pg->bits, idx) && pg->kind == PAGE_SMALL)
		push(p, value - (in_span - idx * c->elem_bytes), pg->span_class, pg->span);
}

static void
visit_word(uintptr_t value, uintptr_t at, void *arg)
{
	visit(arg, value, at);
}

/* Stacks have a sanitizer's redzones in them that may be read here, and words
 * that stopped threads were in the middle of writing. */
__attribute__((no_sanitize("address", "thread"))) static void
look_into(uintptr_t from, uintptr_t to, void *arg)
{
	struct pass *p = arg;
	for (const word_t *w = (const word_t *)from; w < (const word_t *)to; w++)
		visit(p, *w, (uintptr_t)w);
}

/* The same. A loop of its own, so that a fuzzing engine's counters tell the words of the
 * process, which are never twice the same, from those of objects (fuzz/nocov.txt). */
__attribute__((no_sanitize("address", "thread"))) static NOINLINE void
look_into_root(struct pass *p, const struct root_piece *r)
{
	for (const word_t *w = (const word_t *)r->start; w < (const word_t *)r->end; w++)
		visit(p, *w, (uintptr_t)w);
}

/* ---- objects ---- */

static void
scan_object(struct pass *p, uintptr_t base, unsigned span_class)
{
	p->here.object = base;
	if (unlikely(span_class == CLASS_OUTSIDE)) {
		struct outside_object x;
		if (outside_at(&p->outside, base, &x))
			outside_each_word(&x, visit_word, p);
		return;
	}
	if (span_class != SPAN_LARGE) {
		look_into(base, base + p->shape[span_class].elem_bytes, p);
		return;
	}
	const struct mspan *s = p->span[page_of(p, base)->span];
	roots_each_resident(base, base + s->elem_bytes, look_into, p);
}

INLINE void
fetch_next(struct pass *p)
{
	uintptr_t e = p->stack[--p->n];
	const char *at = (const char *)(e & (ADDR_LIMIT - 1));
	__builtin_prefetch(at);
	__builtin_prefetch(at + LINE - 1);
	p->ring[(p->ring_first + p->ring_n++) % RING] = e;
}

static void
drain(struct pass *p)
{
	p->here.place = MARK_IN_OBJECT;
	p->here.tid = 0;
	for (;;) {
		while (p->n != 0 && p->ring_n < RING)
			fetch_next(p);
		if (p->ring_n == 0)
			return;
		uintptr_t e = p->ring[p->ring_first];
		p->ring_first = (p->ring_first + 1) % RING;
		p->ring_n--;
		scan_object(p, e & (ADDR_LIMIT - 1), (unsigned)(e >> CLASS_SHIFT));
	}
}

/* Every object of span i that is live and reached (or, not reached), once more. */
static void
scan_span(struct pass *p, size_t i, bool reached)
{
	const struct mspan *s = p->span[i];
	for (size_t w = 0; w < s->nwords; w++) {
		uint64_t white = p->white[p->first_bits[i] + w];
		uint64_t bits = reached ? live_word(s, w) & ~white : white;
		for (; bits != 0; bits &= bits - 1)
			scan_object(p, slot_address(s, w * 64 + ctz64(bits)), s->span_class);
	}
}

static void
scan_again(const struct outside_object *x, void *arg)
{
	if ((*x->flags & GUARD_RESCAN) == 0)
		return;
	*x->flags &= (uint8_t)~GUARD_RESCAN;
	scan_object(arg, x->base, CLASS_OUTSIDE);
	drain(arg);
}

static void
scan_if_white(const struct outside_object *x, void *arg)
{
	if ((*x->flags & (GUARD_WHITE | GUARD_NOSCAN)) == GUARD_WHITE)
		scan_object(arg, x->base, CLASS_OUTSIDE);
}

static NOINLINE void
drain_all(struct pass *p)
{
	drain(p);
	while (p->overflowed) {
		p->overflowed = false;
		p->out->rescans++;
		outside_each(&p->outside, scan_again, p);
		for (size_t i = 0; i < p->n_spans; i++) {
			if (!p->rescan[i])
				continue;
			p->rescan[i] = 0;
			scan_span(p, i, true);
			drain(p);
		}
	}
}

/* ---- the pass ---- */

static NOINLINE void
mark_roots(struct pass *p)
{
	static const enum mark_place place[ROOT_KINDS] = { [ROOT_STACK] = MARK_IN_STACK,
		[ROOT_DATA] = MARK_IN_DATA, [ROOT_USER] = MARK_IN_USER_ROOT };
	for (size_t i = 0; i < p->roots.n; i++) {
		const struct root_piece *r = &p->roots.piece[i];
		p->here = (struct mark_reference){ .place = place[r->kind], .tid = r->tid };
		look_into_root(p, r);
		if (p->n != 0 || p->overflowed)
			drain_all(p);
	}
}

/* A pointer in an object that seems lost counts for a watched range: the pointer
 * to that object may be one that no scan can see. And it makes what it points to
 * an indirect loss. */
static void
look_into_unreached(struct pass *p)
{
	if (p->req->n_watch == 0 && !p->req->classify)
		return;
	p->reference_only = true;
	p->classifying = p->req->classify;
	p->here = (struct mark_reference){ .place = MARK_IN_OBJECT, .unreached = true };
	for (size_t i = 0; i < p->n_spans; i++)
		if (!span_class_noscan(p->span[i]->span_class))
			scan_span(p, i, false);
	outside_each(&p->outside, scan_if_white, p);
	p->reference_only = p->classifying = false;
}

static size_t
object_bytes(const struct mspan *s, size_t idx)
{
	size_t n = 1;
	if (!mspan_is_tiny(s))
		return s->elem_bytes;
	while ((idx + n) % TINY_BLOCK_GRANULES != 0 &&
	    (s->cont[(idx + n) / 64] >> ((idx + n) % 64) & 1) != 0)
		n++;
	return n * TINY_GRANULE_BYTES;
}

static void
count_white_word(struct pass *p, size_t i, size_t w)
{
	const struct mspan *s = p->span[i];
	size_t at = p->first_bits[i] + w;
	for (uint64_t bits = p->white[at]; bits != 0; bits &= bits - 1) {
		size_t idx = w * 64 + ctz64(bits);
		struct mark_object o = { slot_address(s, idx), object_bytes(s, idx), s,
			p->indirect != NULL && (p->indirect[at] >> (idx % 64) & 1) != 0 };
		p->out->leaked_objects++;
		p->out->leaked_bytes += o.bytes;
		if (p->req->on_unmarked != NULL)
			p->req->on_unmarked(&o, p->req->arg);
	}
}

/* As the program sees it: not what it has freed and a room holds back, and as many
 * bytes as it asked for, where that is known. */
static void
count_marked_slot(struct pass *p, const struct mspan *s, size_t idx)
{
	if (hook_slot_freed(s, idx))
		return;
	p->out->marked_objects++;
	p->out->marked_bytes += hook_slot_bytes(s, idx, object_bytes(s, idx));
}

static void
count_span_marks(struct pass *p, size_t i)
{
	const struct mspan *s = p->span[i];
	bool each = p->req->classify || mspan_is_tiny(s);
	for (size_t w = 0; w < s->nwords; w++) {
		uint64_t white = p->white[p->first_bits[i] + w];
		uint64_t marked = live_word(s, w) & ~white;
		if (!each) {
			p->out->marked_objects += popcount64(marked);
			p->out->marked_bytes += popcount64(marked) * s->elem_bytes;
		}
		for (; each && marked != 0; marked &= marked - 1)
			count_marked_slot(p, s, w * 64 + ctz64(marked));
		count_white_word(p, i, w);
	}
}

static void
count_outside(const struct outside_object *x, void *arg)
{
	struct pass *p = arg;
	struct mark_object o = { x->base, x->bytes, NULL, (*x->flags & GUARD_INDIRECT) != 0 };
	if ((*x->flags & GUARD_WHITE) == 0) {
		p->out->marked_objects++;
		p->out->marked_bytes += o.bytes;
		return;
	}
	p->out->leaked_objects++;
	p->out->leaked_bytes += o.bytes;
	if (p->req->on_unmarked != NULL)
		p->req->on_unmarked(&o, p->req->arg);
}

static bool
outside_was_reached(void *arg, uintptr_t base)
{
	struct pass *p = arg;
	struct outside_object x;
	return outside_at(&p->outside, base, &x) && (*x.flags & GUARD_WHITE) == 0;
}

static bool
was_reached(void *arg, size_t i, size_t idx)
{
	const struct pass *p = arg;
	return (p->white[p->first_bits[i] + idx / 64] >> (idx % 64) & 1) == 0;
}

static bool
mark_once(struct pass *p)
{
	fill_tables(p);
	mark_roots(p);
	look_into_unreached(p);
	if (!p->req->check)
		return true;
	p->check = (struct checkmark){ .roots = &p->roots, .spans = p->span,
		.n_spans = p->n_spans, .reached = was_reached,
		.outside_reached = outside_was_reached, .arg = p };
	return checkmark_run(&p->check);
}

/* The kernel may finish a read into some buffer between the two passes: only
 * what differs twice is a difference. */
static bool
run_pass(struct pass *p, uintptr_t self_sp)
{
	if (p->req->n_watch != 0)
		roots_exclude_pass(p->req->watch, p->req->n_watch * sizeof(*p->req->watch));
	bool ok = make_tables(p) && roots_collect(&p->roots, self_sp) && mark_once(p);
	if (ok && p->req->check && p->check.differences != 0)
		ok = mark_once(p);
	for (size_t i = 0; ok && i < p->n_spans; i++)
		count_span_marks(p, i);
	if (ok)
		outside_each(&p->outside, count_outside, p);
	p->out->root_bytes = p->roots.bytes;
	p->out->checked_objects = p->check.objects;
	p->out->threads = stw_count();
	roots_exclude_pass(NULL, 0);
	roots_release(&p->roots);
	drop_tables(p);
	return ok;
}

struct on_own_stack {
	struct pass *p;
	uintptr_t self_sp;
	bool ok;
};

static void
run_on_own_stack(struct on_own_stack *o)
{
	o->ok = run_pass(o->p, o->self_sp);
}

/* fn(o) on another stack. */
#if defined(__x86_64__)

#define READ_SP(v) __asm__ volatile("movq %%rsp, %0" : "=r"(v))

INLINE void
call_on_stack(uintptr_t top, struct on_own_stack *o)
{
	void (*fn)(struct on_own_stack *) = run_on_own_stack;
	__asm__ volatile(
	    "movq %%rsp, %%rbx\n\tmovq %1, %%rsp\n\tcall *%2\n\tmovq %%rbx, %%rsp"
	    : "+D"(o) : "r"(top), "r"(fn)
	    : "rax", "rbx", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "memory", "cc",
	      "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
	      "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}

#else

#define READ_SP(v) __asm__ volatile("mov %0, sp" : "=r"(v))

INLINE void
call_on_stack(uintptr_t top, struct on_own_stack *o)
{
	register struct on_own_stack *x0 __asm__("x0") = o;
	register uintptr_t x9 __asm__("x9") = top;
	register void (*x10)(struct on_own_stack *) __asm__("x10") = run_on_own_stack;
	__asm__ volatile(
	    "mov x19, sp\n\tmov sp, %1\n\tblr %2\n\tmov sp, x19"
	    : "+r"(x0), "+r"(x9), "+r"(x10) :
	    : "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x11", "x12", "x13", "x14",
	      "x15", "x16", "x17", "x18", "x19", "x30", "memory", "cc",
	      "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12",
	      "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23",
	      "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31");
}

#endif

/* The caller's registers are put into this frame, which is a root. The pass runs
 * on a stack that is none: what it holds in its hands changes between the two
 * traversals, and would be found. */
static NOINLINE bool
run_pass_here(struct pass *p)
{
	struct on_own_stack o = { .p = p };
	char *stack = stw_scratch_alloc(PASS_STACK_BYTES);
	if (stack == NULL)
		return false;
	__builtin_unwind_init();
	READ_SP(o.self_sp);
	call_on_stack((uintptr_t)stack + PASS_STACK_BYTES - LINE, &o);
	stw_scratch_free(stack, PASS_STACK_BYTES);
	return o.ok;
}

/* ---- around the pass ---- */

static uint64_t
now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* What is left of a pass when its memory is gone. */
struct verdict {
	bool tried, ok;
	struct stw_failure why;
	size_t differences;
	uintptr_t first;
};

static void
stop_and_run(struct pass *p, struct verdict *v)
{
	mcache_lock_all();
	mutex_lock(&mheap_.lock);
	uint64_t from = now_ns();
	if (stw_stop(p->req->deadline_ns, &v->why) == STW_OK) {
		v->ok = run_pass_here(p);
		stw_start();
		p->out->stopped_ns = now_ns() - from;
	}
	mutex_unlock(&mheap_.lock);
	mcache_unlock_all();
	v->differences = p->check.differences;
	v->first = p->check.first;
}

static void
run_locked(struct mark_request *req, struct mark_result *out, struct verdict *v)
{
	struct pass *p = stw_scratch_alloc(sizeof(*p));
	if (p == NULL)
		return;
	p->req = req;
	p->out = out;
	stop_and_run(p, v);
	stw_scratch_free(p, sizeof(*p));
}

static bool
may_run(void)
{
	const struct mcache *c = mcache_self();
	return tls_offset() != 0 && (c == NULL || c->busy == CACHE_IDLE);
}

static void
judge(const struct verdict *v, struct mark_result *out)
{
	if (!v->ok) {
		memset(out, 0, sizeof(*out));
		if (!v->tried)
			return;
		if (v->why.what != STW_OK)
			stw_warn(&v->why);
		else
			report_warn("a mark pass was given up: no memory, "
			    "or no /proc/self/maps", NULL);
	} else if (v->differences != 0) {
		die(&(struct die_info){ .code = DIE_VERIFY, .api = "mark", .site = "CHECKMARK-1",
		    .addr = v->first });
	}
}

static void
run_in_world(struct mark_request *req, struct mark_result *out, struct verdict *v)
{
	v->tried = req->begin == NULL || req->begin(req);
	if (v->tried)
		run_locked(req, out, v);
	if (req->end != NULL)
		req->end(req, v->ok);
}

bool
mark_run(struct mark_request *req, struct mark_result *out)
{
	int saved = errno;
	struct verdict v = { .ok = false };
	memset(out, 0, sizeof(*out));
	if (!may_run())
		return false;
	mallocinit();
	sys_hold_signals();     /* a handler might wait for a stopped thread */
	if (!req->no_wait || proc_world_trylock()) {
		if (!req->no_wait)
			proc_world_lock();
		run_in_world(req, out, &v);
		proc_world_unlock();
	}
	sys_release_signals();
	judge(&v, out);
	errno = saved;
	return v.ok;
}

int
mark_check(void)
{
	struct mark_result r;
	return mark_run(&(struct mark_request){ .check = true }, &r) ? 0 : -1;
}

/* ---- what the tiers call ---- */

int
hook_mark_check(void)
{
	return mark_check();
}

int
hook_root_add(const void *p, size_t bytes)
{
	proc_world_lock();
	int err = roots_add(p, bytes);
	proc_world_unlock();
	return err;
}

int
hook_root_remove(const void *p, size_t bytes)
{
	proc_world_lock();
	int err = roots_remove(p, bytes);
	proc_world_unlock();
	return err;
}

void
hook_thread_exempt(int tid)
{
	stw_exempt(tid);
}

void
hook_mark_after_fork_child(void)
{
	stw_after_fork_child();
}
