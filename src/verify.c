/* verify.c - see verify.h. */
#include "verify.h"

#include <string.h>

#include "die.h"
#include "log.h"
#include "malloc.h"
#include "marena.h"
#include "mcache.h"
#include "mheap.h"
#include "mspan.h"
#include "mstats.h"
#include "options.h"
#include "print.h"
#include "proc.h"
#include "tls.h"
#include "../hardening/hooks.h"

enum { BLOCKS_LOG = 13, BLOCKS_WORDS = (1 << BLOCKS_LOG) / 64 };

struct pass {
	struct mheap *h;
	struct mcache *self;
	bool quiet;            /* no other thread runs */
	struct verify_failure *out;
	size_t failures;
	size_t spans;
	size_t span_pages;
	uint64_t *blocks;      /* of the page caches looked at: a filter, see block_seen */
};

static void
fail(struct pass *v, const char *tag, const void *where)
{
	if (v->failures < VERIFY_MAX_FAILURES)
		v->out[v->failures] = (struct verify_failure){ tag, (uintptr_t)where };
	v->failures++;
}

static void
check(struct pass *v, bool ok, const char *tag, const void *where)
{
	if (!ok)
		fail(v, tag, where);
}

/* Whether nobody can be changing the owner's fields of s right now. */
static bool
at_rest(const struct pass *v, const struct mspan *s)
{
	const struct mcache *c = aptr_load_acquire(&s->owner);
	return v->quiet || c == v->self || c == &mcache_none;
}

/* ---- spans ---- */

static size_t
expected_slots(const struct mspan *s)
{
	size_t n;
	if (mspan_is_large(s))
		return 1;
	if (mspan_is_tiny(s))
		n = mspan_bytes(s) / TINY_GRANULE_BYTES;
	else
		n = mspan_bytes(s) / size_classes[span_class_size_class(s->span_class)].elem_bytes;
	return n < SPAN_MAX_SLOTS ? n : SPAN_MAX_SLOTS;
}

/* The owner's bits stand behind those that frees look at. */
static bool
bits_in_place(const struct mspan *s)
{
	const uint64_t *avail = (const uint64_t *)&s->bits[s->room_words];
	return s->room_words >= s->nwords && s->avail == avail &&
	    s->cont == (mspan_is_tiny(s) ? avail + s->nwords : NULL);
}

static void
check_geometry(struct pass *v, const struct mspan *s)
{
	bool ok = s->npages != 0 && s->span_class < SPAN_CLASSES_ALL &&
	    s->nelems == expected_slots(s) && s->nwords == mspan_words(s->nelems) &&
	    bits_in_place(s);
	if (ok && !mspan_is_large(s) && !mspan_is_tiny(s)) {
		const struct size_class *c = &size_classes[span_class_size_class(s->span_class)];
		ok = s->elem_bytes == c->elem_bytes && s->divmul == c->divmul;
	}
	if (ok && mspan_is_tiny(s))
		ok = s->elem_bytes == TINY_GRANULE_BYTES &&
		    s->divmul == ((uint64_t)1 << 32) / TINY_GRANULE_BYTES;
	check(v, ok, "MSPAN-6", s);
	if (mspan_is_large(s))
		check(v, s->elem_bytes == mspan_bytes(s), "MSPAN-8", s);
	enum span_state st = a32_load_acquire(&s->state);
	check(v, st == SPAN_IN_USE || st == SPAN_PARKED, "MHEAP-1", s);
}

static void
check_bits(struct pass *v, const struct mspan *s)
{
	size_t avail_n = 0;
	for (size_t w = 0; w < s->nwords; w++) {
		uint64_t live = a64_load_acquire(&s->bits[w].live);
		uint64_t remote = a64_load_acquire(&s->bits[w].remote);
		size_t first = w * 64;
		uint64_t beyond = first + 64 <= s->nelems ? 0 :
		    first >= s->nelems ? ~(uint64_t)0 : ~(uint64_t)0 << (s->nelems - first);
		check(v, (live & s->avail[w]) == 0, "MSPAN-1", s);
		check(v, ((live | remote | s->avail[w]) & beyond) == 0, "MSPAN-3", s);
		if (!mspan_is_large(s))
			check(v, (remote & ~live) == 0, "MSPAN-2", s);
		avail_n += popcount64(s->avail[w]);
	}
	check(v, avail_n == s->avail_n, "MSPAN-4", s);
}

static void
check_slots(struct pass *v, const struct mspan *s)
{
	uintptr_t where = 0;
	const char *tag = hook_slot_check(s, &where);
	if (tag != NULL)
		fail(v, tag, (void *)where);
}

static void
check_entries(struct pass *v, struct mspan *s)
{
	for (size_t i = 0; i < s->npages; i++) {
		uintptr_t at = s->base + (i << PAGE_SHIFT);
		bool want = !mspan_is_large(s) || i == 0 || i == s->npages - 1;
		struct mspan *have = span_of(at);
		check(v, have == (want ? s : NULL), want && !mspan_is_large(s) ?
		    "ARENA-1" : "ARENA-2", s);
		if (i != 0) {
			size_t page = arena_page_idx(at);
			uint64_t bits = a64_load_acquire(&arena_of(at)->page_in_use[page / 64]);
			check(v, (bits >> (page % 64) & 1) == 0, "ARENA-3", s);
		}
	}
}

static void
check_pages_allocated(struct pass *v, const struct mspan *s)
{
	for (size_t i = 0; i < s->npages; i++)
		if (!page_alloc_is_used(&v->h->pages, s->base + (i << PAGE_SHIFT))) {
			fail(v, "MHEAP-2", s);
			return;
		}
}

static void
check_guard_page(struct pass *v, const struct mspan *s, uintptr_t at)
{
	check(v, arena_span_containing(at) == NULL && page_alloc_is_used(&v->h->pages, at),
	    "MSPAN-10", s);
}

static void
check_guards(struct pass *v, const struct mspan *s)
{
	unsigned g = s->guards;
	check(v, ((g & GUARD_BEFORE_PUT) == 0 || (g & GUARD_BEFORE) != 0) &&
	    ((g & GUARD_AFTER_PUT) == 0 || (g & GUARD_AFTER) != 0), "MSPAN-10", s);
	if ((g & GUARD_BEFORE) != 0)
		check_guard_page(v, s, s->base - PAGE_SIZE);
	if ((g & GUARD_AFTER) != 0)
		check_guard_page(v, s, s->base + mspan_bytes(s));
}

/* One of the caches there are, or nobody. */
static void
check_owner(struct pass *v, const struct mspan *s)
{
	const struct mcache *owner = aptr_load_acquire(&s->owner), *c = mcache_first();
	while (c != NULL && c != owner)
		c = c->next;
	check(v, c != NULL || owner == &mcache_none, "MCACHE-2", s);
}

/* The slots only where all else is right: a wrong length leads into a guard. */
static void
check_span(struct mspan *s, void *arg)
{
	struct pass *v = arg;
	size_t before = v->failures;
	v->spans++;
	v->span_pages += mheap_span_pages(v->h, s);
	check_geometry(v, s);
	check_owner(v, s);
	check_entries(v, s);
	check_pages_allocated(v, s);
	check_guards(v, s);
	if (at_rest(v, s) && s->nwords == mspan_words(s->nelems) && bits_in_place(s)) {
		check_bits(v, s);
		if (v->failures == before)
			check_slots(v, s);
	}
}

const char *
verify_span(const struct mspan *s)
{
	struct verify_failure f[VERIFY_MAX_FAILURES];
	struct pass v = { .out = f };
	check_geometry(&v, s);
	if (v.failures == 0)
		check_bits(&v, s);
	return v.failures != 0 ? f[0].tag : NULL;
}

/* Bits of page_in_use where no span begins. */
static void
check_stray_bits(struct pass *v, const struct heap_arena *a)
{
	if (lines_zero(a->page_in_use, sizeof(a->page_in_use)))
		return;
	for (size_t w = 0; w < ARENA_WORDS; w++)
		for (uint64_t bits = a64_load_acquire(&a->page_in_use[w]); bits != 0; bits &= bits - 1) {
			size_t i = w * 64 + ctz64(bits);
			const struct mspan *s = aptr_load_acquire(&a->spans[i]);
			uintptr_t at = a->base + (i << PAGE_SHIFT);
			check(v, s != NULL && s->base == at, "ARENA-3", (void *)at);
		}
}

/* Entries of spans[] that no span accounts for. */
static void
check_stray_entries(struct pass *v)
{
	struct heap_arena *a = aptr_load_acquire(&arena_map.all);
	for (; a != NULL; a = a->next) {
		check_stray_bits(v, a);
		for (size_t i = 0; i < ARENA_PAGES; i++) {
			if (i % 64 == 0 && lines_zero(&a->spans[i], 64 * sizeof(a->spans[i]))) {
				i += 63;
				continue;
			}
			struct mspan *s = aptr_load_acquire(&a->spans[i]);
			uintptr_t at = a->base + (i << PAGE_SHIFT);
			if (s != NULL)
				check(v, at - s->base < mspan_bytes(s), "ARENA-4", (void *)at);
		}
	}
}

/* ---- caches ---- */

static void
check_window(struct pass *v, const struct mcache *c, unsigned spc)
{
	const struct mcache_alloc *a = &c->alloc[spc];
	if (a->span == NULL) {
		check(v, a->n == 0, "MCACHE-3", a);
		return;
	}
	check(v, aptr_load_acquire(&a->span->owner) == c && a->span->list == LIST_CURRENT &&
	    a->base == a->span->base && a->elem_bytes == a->span->elem_bytes, "MCACHE-2", a->span);
	check(v, a->n <= WINDOW_SLOTS, "MCACHE-1", a);
	if (a->n > WINDOW_SLOTS)
		return;
	for (uint32_t i = 0; i < a->n; i++) {
		size_t w = a->order[i] / 64;
		uint64_t bit = (uint64_t)1 << (a->order[i] % 64);
		if (a->order[i] >= a->span->nelems) {
			fail(v, "MCACHE-1", a);
			return;
		}
		check(v, (a64_load_acquire(&a->span->bits[w].live) & bit) == 0 &&
		    (a->span->avail[w] & bit) == 0, "MSPAN-7", a->span);
		for (uint32_t j = 0; j < i; j++)
			check(v, a->order[j] != a->order[i], "MCACHE-1", a);
	}
}

static void
check_queue(struct pass *v, const struct mcache *c, unsigned spc, const struct span_queue *q,
    enum span_list mark)
{
	size_t n = 0;
	const struct mspan *prev = NULL;
	for (const struct mspan *s = q->head; s != NULL && n <= q->n; prev = s, s = s->next, n++) {
		check(v, aptr_load_acquire(&s->owner) == c && s->list == mark &&
		    s->span_class == spc && s->prev == prev, "MCACHE-2", s);
		if (mark == LIST_FULL)
			check(v, s->avail_n == 0, "MSPAN-5", s);
	}
	check(v, n == q->n && q->tail == prev, "MCACHE-4", q);
}

static void
check_idle(struct pass *v, const struct mcache *c)
{
	size_t n = 0, pages = 0;
	const struct mspan *prev = NULL;
	uint16_t by_class[SPAN_CLASSES_ALL] = { 0 };
	for (const struct mspan *s = c->idle.head; s != NULL && n <= c->idle.n;
	    prev = s, s = s->next, n++) {
		check(v, aptr_load_acquire(&s->owner) == c && s->list == LIST_IDLE &&
		    s->prev == prev, "MCACHE-2", s);
		check(v, mspan_is_empty(s), "MCACHE-5", s);
		pages += s->npages;
		if (s->span_class >= SPAN_CLASSES_ALL) {
			fail(v, "MSPAN-6", s);
			continue;
		}
		by_class[s->span_class]++;
	}
	check(v, n == c->idle.n && c->idle.tail == prev, "MCACHE-4", &c->idle);
	check(v, pages == c->idle_pages && pages <= c->owned_pages &&
	    memcmp(by_class, c->idle_n, sizeof(by_class)) == 0, "MCACHE-5", c);
}

/* Beside a span that has a guard there. */
static bool
is_guard(uintptr_t at)
{
	const struct mspan *before = arena_span_containing(at - PAGE_SIZE);
	const struct mspan *behind = arena_span_containing(at + PAGE_SIZE);
	return (before != NULL && (before->guards & GUARD_AFTER) != 0) ||
	    (behind != NULL && (behind->guards & GUARD_BEFORE) != 0);
}

/* Whether a cache before c in the list may hold pages of c's block: one bit for each
 * block, by a hash, so that of a thousand caches some 60 are compared with others, not each. */
static bool
block_seen(struct pass *v, const struct mcache *c)
{
	uint64_t block = c->pages.base / (PAGE_CACHE_PAGES * PAGE_SIZE);
	size_t i = (size_t)((block * 0x9e3779b97f4a7c15u) >> (64 - BLOCKS_LOG));
	uint64_t bit = (uint64_t)1 << (i % 64);
	bool seen = (v->blocks[i / 64] & bit) != 0;
	v->blocks[i / 64] |= bit;
	return seen;
}

/* No page is in two caches. */
static void
check_shared_pages(struct pass *v, const struct mcache *c)
{
	if (c->pages.pages == 0 || !block_seen(v, c))
		return;
	for (const struct mcache *o = mcache_first(); o != c; o = o->next)
		check(v, o->pages.base != c->pages.base || (o->pages.pages & c->pages.pages) == 0,
		    "MCACHE-6", c);
}

/* Pages of a page cache lie in one block, are allocated, and of no span, no guard and
 * no other cache. */
static void
check_page_cache(struct pass *v, const struct mcache *c)
{
	check(v, c->pages.base % (PAGE_CACHE_PAGES * PAGE_SIZE) == 0, "MCACHE-6", c);
	check_shared_pages(v, c);
	for (uint64_t bits = c->pages.pages; bits != 0; bits &= bits - 1) {
		uintptr_t at = c->pages.base + ((uintptr_t)ctz64(bits) << PAGE_SHIFT);
		const struct mspan *s = arena_of(at) != NULL ? arena_span_containing(at) : NULL;
		check(v, arena_of(at) != NULL && s == NULL && !is_guard(at) &&
		    page_alloc_is_used(&v->h->pages, at), "MCACHE-6", c);
	}
}

static void
check_cache(struct pass *v, struct mcache *c)
{
	check_page_cache(v, c);
	bool mine = v->quiet || c == v->self || !c->in_use;
	check_idle(v, c);
	for (unsigned spc = 0; spc < SPAN_CLASSES_ALL; spc++) {
		if (mine)
			check_window(v, c, spc);
		check_queue(v, c, spc, &c->full[spc], LIST_FULL);
		check_queue(v, c, spc, &c->ready[spc], LIST_READY);
	}
}

/* ---- central lists ---- */

struct central_arg {
	struct pass *v;
	struct mcentral *m;
	bool swept;
	bool partial;
};

static void
check_central_span(struct mspan *s, void *arg)
{
	struct central_arg *a = arg;
	uint32_t sg = a32_load_acquire(&a->m->sweepgen);
	check(a->v, aptr_load_acquire(&s->owner) == &mcache_none &&
	    s->span_class == a->m->span_class && a32_load_acquire(&s->state) == SPAN_IN_USE,
	    "MCENTRAL-1", s);
	if (a->swept)
		check(a->v, s->sweepgen == sg && (s->avail_n > 0) == a->partial,
		    "MCENTRAL-2", s);
	/* one set only: marks are cleared again below */
	check(a->v, s->list == LIST_NONE, "MCENTRAL-3", s);
	s->list = LIST_CURRENT;
}

static void
check_spare_span(struct mspan *s, void *arg)
{
	struct central_arg *a = arg;
	check(a->v, aptr_load_acquire(&s->owner) == &mcache_none && s->list == LIST_NONE &&
	    s->span_class == a->m->span_class && a32_load_acquire(&s->state) == SPAN_IN_USE,
	    "MCENTRAL-5", s);
	s->list = LIST_CURRENT;
}

static void
clear_central_mark(struct mspan *s, void *arg)
{
	(void)arg;
	s->list = LIST_NONE;
}

static bool
holds_nothing(struct mcentral *m)
{
	size_t n = 0;
	for (unsigned i = 0; i < 2; i++)
		n += span_set_len(&m->partial[i]) + span_set_len(&m->full[i]);
	return n == 0 && aptr_load_acquire(&m->spare) == NULL;
}

static void
check_central(struct pass *v, struct mcentral *m)
{
	uint32_t sg = a32_load_acquire(&m->sweepgen);
	check(v, sg % 2 == 0 && sg != 0, "MCENTRAL-4", m);
	if (holds_nothing(m))           /* as those of most classes: not eight walks of nothing */
		return;
	for (unsigned i = 0; i < 2; i++) {
		struct central_arg a = { v, m, i == sg / 2 % 2, true };
		span_set_for_each(&m->partial[i], check_central_span, &a);
		a.partial = false;
		span_set_for_each(&m->full[i], check_central_span, &a);
	}
	struct central_arg none = { v, m, false, false };
	struct mspan *spare = aptr_load_acquire(&m->spare);
	for (struct mspan *s = spare; s != NULL; s = s->next)
		check_spare_span(s, &none);
	for (struct mspan *s = spare; s != NULL; s = s->next)
		clear_central_mark(s, NULL);
	for (unsigned i = 0; i < 2; i++) {
		span_set_for_each(&m->partial[i], clear_central_mark, NULL);
		span_set_for_each(&m->full[i], clear_central_mark, NULL);
	}
}

/* ---- the heap ---- */

static void
check_heap(struct pass *v)
{
	const char *parked = hook_quarantine_check();
	if (parked != NULL)
		fail(v, parked, v->h);
	struct mheap *h = v->h;
	uintptr_t where = 0;
	const char *tag = page_alloc_verify(&h->pages, !h->config.verify_grown_only, &where);
	if (tag != NULL)
		fail(v, tag, (void *)where);
	tag = hook_outside_check(&where);
	if (tag != NULL)
		fail(v, tag, (void *)where);
	check(v, a64_load_acquire(&h->spans_in_use) == v->spans &&
	    a64_load_acquire(&h->span_pages_in_use) == v->span_pages, "MHEAP-3", h);
	size_t cached = 0;
	for (struct mcache *c = mcache_first(); c != NULL; c = c->next)
		if (c->heap == h)
			cached += popcount64(c->pages.pages);
	check(v, v->span_pages + cached + h->pages.free_pages + h->pages.scavenging_pages ==
	    h->pages.grown_pages, "MHEAP-2", h);
}

/* With every cache's lock and the heap's held, spans neither come nor go; only
 * the fast paths of other threads run on. */
size_t
verify_heap(struct mheap *h, struct mcache *self, bool quiet, struct verify_failure *out)
{
	uint64_t blocks[BLOCKS_WORDS] = { 0 };
	struct pass v = { .h = h, .self = self, .quiet = quiet, .out = out, .blocks = blocks };
	mcache_lock_all();
	mutex_lock(&h->lock);
	mstats_each_span(check_span, &v);
	check_stray_entries(&v);
	check_heap(&v);
	for (struct mcache *c = mcache_first(); c != NULL; c = c->next)
		if (c->heap == h)
			check_cache(&v, c);
	for (unsigned i = 0; i < SPAN_CLASSES_ALL; i++)
		check_central(&v, &h->central[i]);
	mutex_unlock(&h->lock);
	mcache_unlock_all();
	return v.failures;
}

/* ---- the process's heap ---- */

static size_t
verify_process(struct verify_failure *out)
{
	struct mcache *self = mcache_self();
	proc_world_lock();
	size_t n = verify_heap(&mheap_, self, false, out);
	proc_world_unlock();
	return n;
}

static void
log_failures(const struct verify_failure *f, size_t n)
{
	char buf[1024];
	struct print out;
	print_init(&out, buf, sizeof(buf));
	for (size_t i = 0; i < n && i < VERIFY_MAX_FAILURES; i++) {
		print_str(&out, "spanguard: verify: invariant ");
		print_str(&out, f[i].tag);
		print_str(&out, " is broken at ");
		print_hex(&out, f[i].where);
		print_str(&out, "\n");
	}
	log_write(&out);
}

int
verify_report(void)
{
	struct verify_failure f[VERIFY_MAX_FAILURES];
	if (tls_offset() == 0 || (mcache_self() != NULL && mcache_self()->busy != CACHE_IDLE))
		return 0;
	mallocinit();
	size_t n = verify_process(f);
	if (n != 0)
		log_failures(f, n);
	return (int)n;
}

static void
die_of(const struct verify_failure *f, size_t n)
{
	log_failures(f, n);
	if (hook_slot_explain(f[0].where, "verify") && n == 1)
		return;
	die(&(struct die_info){ .code = DIE_VERIFY, .api = "verify", .site = f[0].tag,
	    .addr = f[0].where });
}

void
verify_or_die(void)
{
	struct verify_failure f[VERIFY_MAX_FAILURES];
	size_t n = verify_process(f);
	if (n == 0)
		return;
	die_of(f, n);
}

static atomic_u64 slow_calls;
static atomic_u32 wanted;       /* a signal came in at a bad moment */

void
verify_now_and_then(void)
{
	uint64_t every = options.verify_every;
	bool due = every != 0 && a64_fetch_add(&slow_calls, 1) % every == every - 1;
	if (due || a32_exchange(&wanted, 0) != 0)
		verify_or_die();
}

void
verify_from_signal(void)
{
	struct verify_failure f[VERIFY_MAX_FAILURES];
	struct mcache *self = mcache_self();
	if ((self != NULL && self->busy != CACHE_IDLE) || !proc_world_trylock()) {
		a32_store_release(&wanted, 1);
		return;
	}
	size_t n = verify_heap(&mheap_, self, false, f);
	proc_world_unlock();
	if (n != 0)
		die_of(f, n);
}

void
verify_reset(void)
{
	a64_store_relaxed(&slow_calls, 0);
	a32_store_relaxed(&wanted, 0);
}
