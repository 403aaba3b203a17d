/* test_mheap_fake.c - spans out of pages and pages out of arenas, on a system
 * of the test's making: where the heap grows, what it does when it may not,
 * every refusal of a fixed workload in turn, and every byte accounted for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_die.h"
#include "fake_sys.h"
#include "heap_support.h"
#include "marena.h"

#define MIB ((size_t)1 << 20)
#define PAGES(bytes) ((bytes) >> PAGE_SHIFT)

static void
start(const struct fake_sys_config *sys, const struct heap_setup *heap)
{
	heap_stop();
	fake_sys_reset(sys);
	heap_start(heap);
}

static int
setup(void **state)
{
	(void)state;
	start(NULL, NULL);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	heap_stop();
	return 0;
}

static struct mspan *
large(size_t npages)
{
	return mheap_alloc_span(&mheap_, NULL, npages, SPAN_LARGE, 1);
}

static size_t
cached_pages(bool scavenged)
{
	size_t n = 0;

	for (struct mcache *c = mcache_first(); c != NULL; c = c->next)
		n += popcount64(scavenged ? c->pages.scav : c->pages.pages);
	return n;
}

/* Every byte the system gave is somewhere, and nothing else is. */
static void
assert_accounted(void)
{
	const struct page_alloc *p = &mheap_.pages;
	size_t idle = p->scavenged_pages + cached_pages(true);
	size_t region = mheap_.grow_end - mheap_.grow_base;
	struct sys_stats sys;

	sys_read_stats(&sys);
	/* a refused guard stays a page that nobody uses */
	assert_int_equal(sys.bytes[SYS_READY],
	    persistent_bytes(&mheap_.meta) + ((p->grown_pages - idle) << PAGE_SHIFT) +
	    sys.guards_skipped * sys_page_bytes());
	assert_int_equal(sys.bytes[SYS_PREPARED], idle << PAGE_SHIFT);
	assert_int_equal(sys.bytes[SYS_RESERVED] - sys.guard_bytes, region);
	assert_int_equal(mheap_.reserved_bytes, (p->grown_pages << PAGE_SHIFT) + region);
	heap_assert_sound();
}

/* ---- growth ---- */

static void
test_first_arena_is_aligned(void **state)
{
	struct mspan *s = large(1);

	(void)state;
	assert_non_null(s);
	assert_int_equal(s->base & (ARENA_SIZE - 1), 0);
	assert_int_equal(mheap_.reserved_bytes, ARENA_SIZE);
	assert_int_equal(mheap_.pages.grown_pages, CHUNK_PAGES);
	assert_ptr_equal(span_of(s->base), s);
	assert_false(s->needzero);
	assert_accounted();
}

/* Arenas adjoin, so one run of addresses is used from the bottom up. */
static void
test_growth_is_contiguous(void **state)
{
	uintptr_t next = 0;

	(void)state;
	for (int i = 0; i < 300; i++) {
		struct mspan *s = large(PAGES(MIB));
		assert_non_null(s);
		if (next != 0)
			assert_int_equal(s->base, next);
		next = s->base + MIB;
	}
	assert_int_equal(mheap_.reserved_bytes, 5 * ARENA_SIZE);
	assert_accounted();
}

/* Only where asked for, and not for the first 16 MiB. */
static void
test_huge_pages(void **state)
{
	(void)state;
	for (int asked = 0; asked < 2; asked++) {
		start(NULL, NULL);
		mheap_.config.huge_pages = asked != 0;
		for (size_t i = 1; i <= 40; i++) {
			assert_non_null(large(PAGES(CHUNK_SIZE)));
			assert_int_equal(fake_sys_calls(FAKE_SYS_HUGE),
			    asked != 0 && i > 4 ? i - 4 : 0);
		}
		assert_accounted();
	}
}

static void
test_span_larger_than_an_arena(void **state)
{
	struct mspan *a = large(3), *s = large(PAGES(200 * MIB)), *b = large(3);

	(void)state;
	assert_true(a != NULL && s != NULL && b != NULL);
	assert_int_equal(mspan_bytes(s), 200 * MIB);
	assert_int_equal(s->base, a->base + 3 * PAGE_SIZE);
	for (size_t off = 0; off < 200 * MIB; off += 7 * MIB + 100)
		assert_ptr_equal(arena_span_containing(s->base + off), s);
	/* first fit: b goes behind */
	assert_int_equal(b->base, s->base + 200 * MIB);
	assert_accounted();
	mheap_free_span(&mheap_, s);
	assert_accounted();
	assert_null(arena_span_containing(a->base + 3 * PAGE_SIZE));
	s = large(2);
	assert_int_equal(s->base, a->base + 3 * PAGE_SIZE);
}

static void
test_small_spans_cross_an_arena_border(void **state)
{
	struct mspan *crossing = NULL;

	(void)state;
	for (size_t left = ARENA_PAGES + 100; left > 30; left -= 3) {
		struct mspan *s = mheap_alloc_span(&mheap_, NULL, 3, 5, 1);
		assert_non_null(s);
		if (s->base / ARENA_SIZE != (s->base + 3 * PAGE_SIZE - 1) / ARENA_SIZE)
			crossing = s;
	}
	assert_non_null(crossing);
	for (size_t i = 0; i < 3; i++)
		assert_ptr_equal(span_of(crossing->base + i * PAGE_SIZE), crossing);
	assert_accounted();
	mheap_free_span(&mheap_, crossing);
	assert_accounted();
}

/* Somebody else's mapping lies behind the arena: the heap goes on elsewhere,
 * and what was left of the region is not lost. */
static void
test_growth_over_a_gap(void **state)
{
	struct mspan *a = large(PAGES(30 * MIB)), *b;
	uintptr_t end = mheap_.grow_end;

	(void)state;
	assert_true((uintptr_t)sys_reserve(end, ARENA_SIZE, ARENA_SIZE, true) == end);
	b = large(PAGES(50 * MIB));
	assert_non_null(b);
	assert_true(b->base >= end + ARENA_SIZE);
	/* all of the first arena is grown now */
	for (size_t i = PAGES(30 * MIB); i < ARENA_PAGES; i++)
		assert_true(page_alloc_is_free(&mheap_.pages, a->base + i * PAGE_SIZE));
	struct mspan *c = large(PAGES(20 * MIB));
	assert_int_equal(c->base, a->base + 30 * MIB);
	heap_assert_sound();
	assert_int_equal(mheap_.reserved_bytes,
	    (mheap_.pages.grown_pages << PAGE_SHIFT) + mheap_.grow_end - mheap_.grow_base);
}

static void
test_growth_with_gaps_everywhere(void **state)
{
	struct fake_sys_config sys = { .place = FAKE_SYS_GAPS, .seed = 3 };
	struct mspan *all[40];

	(void)state;
	start(&sys, NULL);
	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		/* whatever lies behind the region is taken */
		if (mheap_.grow_end != 0)
			sys_reserve(mheap_.grow_end, sys_page_bytes(), sys_page_bytes(), true);
		all[i] = large(PAGES((1 + i % 7 * 13) * MIB));
		assert_non_null(all[i]);
	}
	heap_assert_sound();
	for (size_t i = 0; i < ARRAY_LEN(all); i++)
		mheap_free_span(&mheap_, all[i]);
	heap_assert_sound();
	assert_int_equal(mheap_.pages.free_pages, mheap_.pages.grown_pages);
}

/* RLIMIT_AS, 39 bits: no room for an arena, so chunks do. */
static void
test_address_space_is_short(void **state)
{
	struct mspan *s;
	size_t n = 0, hole = 5 * CHUNK_SIZE;
	uintptr_t base = fake_sys_base();

	(void)state;
	assert_true((uintptr_t)sys_reserve(base + hole, fake_sys_window_bytes() - hole - 3 * MIB,
	    CHUNK_SIZE, true) == base + hole);
	while ((s = large(PAGES(MIB))) != NULL) {
		assert_true(s->base - base < hole);
		n++;
	}
	assert_int_equal(n, hole / MIB);
	assert_null(mheap_alloc_span(&mheap_, NULL, 1, 3, 1));
	heap_assert_sound();
	mheap_free_span(&mheap_, span_of(base + 3 * MIB));
	assert_non_null(large(PAGES(MIB)));
	assert_null(large(PAGES(MIB)));
	heap_assert_sound();
}

static void
test_absurd_sizes(void **state)
{
	static const size_t sizes[] = {
		PAGES(ADDR_LIMIT) - 1, PAGES(ADDR_LIMIT), PAGES(ADDR_LIMIT) + 1,
		PAGES(SIZE_MAX), PAGES(SIZE_MAX) - 5,
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		assert_null(large(sizes[i]));
		assert_null(mheap_alloc_span(&mheap_, NULL, 1, SPAN_LARGE,
		    (size_t)1 << (40 + 2 * i)));
	}
	assert_null(mheap_alloc_span(&mheap_, NULL, 1, SPAN_LARGE, (size_t)1 << 50));
	struct mspan *s = large(4);
	assert_non_null(s);
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		assert_false(mheap_grow_span(&mheap_, s, sizes[i]));
	assert_int_equal(s->npages, 4);
	assert_accounted();
}

static void
test_alignment(void **state)
{
	(void)state;
	for (unsigned shift = 0; shift < 16; shift++) {
		size_t align = (size_t)1 << shift;
		for (size_t npages = 1; npages <= 33; npages += 8) {
			struct mspan *s = mheap_alloc_span(&mheap_, NULL, npages, SPAN_LARGE, align);
			assert_non_null(s);
			assert_int_equal(s->base & ((align << PAGE_SHIFT) - 1), 0);
			assert_int_equal(s->npages, npages);
		}
	}
	/* 1 GiB, further than a first arena can serve */
	struct mspan *s = mheap_alloc_span(&mheap_, NULL, 10, SPAN_LARGE, PAGES((size_t)1 << 30));
	assert_non_null(s);
	assert_int_equal(s->base & (((size_t)1 << 30) - 1), 0);
	assert_accounted();
}

/* ---- spans ---- */

static void
test_counts(void **state)
{
	struct mspan *a = large(10), *b = mheap_alloc_span(&mheap_, NULL, 2, 1, 1);

	(void)state;
	assert_int_equal(a64_load_relaxed(&mheap_.spans_in_use), 2);
	assert_int_equal(a64_load_relaxed(&mheap_.span_pages_in_use), 12);
	mheap_shrink_span(&mheap_, a, 4);
	assert_int_equal(a64_load_relaxed(&mheap_.span_pages_in_use), 6);
	mheap_free_span(&mheap_, b);
	mheap_free_span(&mheap_, a);
	assert_int_equal(a64_load_relaxed(&mheap_.spans_in_use), 0);
	assert_int_equal(a64_load_relaxed(&mheap_.span_pages_in_use), 0);
	assert_accounted();
}

/* A struct mspan is a struct mspan for ever, and of the same number of bits. */
static void
test_structs_come_from_pools(void **state)
{
	struct mspan *big = mheap_alloc_span(&mheap_, NULL, 2, 1, 1), *s;
	struct mspan *small = large(1);

	(void)state;
	mheap_free_span(&mheap_, big);
	mheap_free_span(&mheap_, small);
	assert_int_equal(a32_load_relaxed(&big->state), SPAN_DEAD);
	assert_ptr_equal(aptr_load_relaxed(&big->owner), &mcache_none);
	assert_ptr_equal(large(3), small);
	s = mheap_alloc_span(&mheap_, NULL, 2, 3, 1);      /* 341 slots: another pool */
	assert_ptr_not_equal(s, big);
	assert_ptr_equal(mheap_alloc_span(&mheap_, NULL, 2, 1, 1), big);
	assert_accounted();
}

static void
test_shrink_and_grow_in_place(void **state)
{
	struct mspan *s = large(20), *behind;

	(void)state;
	mheap_shrink_span(&mheap_, s, 20);
	mheap_shrink_span(&mheap_, s, 30);          /* not a shrink: nothing */
	assert_int_equal(s->npages, 20);
	mheap_shrink_span(&mheap_, s, 5);
	assert_int_equal(s->npages, 5);
	assert_int_equal(s->elem_bytes, 5 * PAGE_SIZE);
	assert_ptr_equal(span_of(s->base + 4 * PAGE_SIZE), s);
	assert_null(span_of(s->base + 19 * PAGE_SIZE));
	assert_accounted();
	assert_true(mheap_grow_span(&mheap_, s, 12));
	assert_int_equal(s->npages, 12);
	assert_null(span_of(s->base + 4 * PAGE_SIZE));
	assert_accounted();
	behind = large(1);
	assert_int_equal(behind->base, s->base + 12 * PAGE_SIZE);
	assert_false(mheap_grow_span(&mheap_, s, 13));
	assert_int_equal(s->npages, 12);
	mheap_shrink_span(&mheap_, s, 1);
	assert_ptr_equal(span_of(s->base), s);
	assert_true(mheap_grow_span(&mheap_, s, 12));
	mheap_free_span(&mheap_, behind);
	/* not beyond what is grown */
	assert_false(mheap_grow_span(&mheap_, s, CHUNK_PAGES + 1));
	assert_accounted();
}

/* What a span says about old bytes is true. */
static void
test_needzero(void **state)
{
	struct mspan *s = large(8);
	char *p;

	(void)state;
	assert_false(s->needzero);
	p = (char *)s->base;
	memset(p, 0x5a, 8 * PAGE_SIZE);
	mheap_free_span(&mheap_, s);
	s = large(8);
	assert_ptr_equal((char *)s->base, p);
	assert_true(s->needzero);
	mheap_free_span(&mheap_, s);
	assert_true(mheap_scavenge_all(&mheap_) >= 8 * PAGE_SIZE);
	s = large(8);
	assert_ptr_equal((char *)s->base, p);
	assert_false(s->needzero);
	for (size_t i = 0; i < 8 * PAGE_SIZE; i++)
		assert_int_equal(p[i], 0);
	/* half of it old */
	mheap_free_span(&mheap_, s);
	s = large(12);
	assert_true(s->needzero);
	assert_accounted();
}

static void
test_moved_span_is_renewed(void **state)
{
	struct mspan *s = large(8);
	uint64_t calls = fake_sys_calls(FAKE_SYS_RENEW);

	(void)state;
	s->moved = true;
	mheap_free_span(&mheap_, s);
	assert_int_equal(fake_sys_calls(FAKE_SYS_RENEW), calls + 1);
	s = large(8);
	assert_false(s->moved);
	s->moved = true;
	fake_sys_fail(FAKE_SYS_RENEW, 1, false);
	mheap_free_span(&mheap_, s);                /* no harm, only a mapping more */
	s = large(8);
	assert_false(s->moved);
	assert_accounted();
}

/* ---- page caches ---- */

static void
test_page_cache_serves_small_spans(void **state)
{
	struct mcache *c = heap_new_cache();
	struct mspan *all[32];

	(void)state;
	for (size_t i = 0; i < 32; i++) {
		all[i] = mheap_alloc_span(&mheap_, c, 2, 1, 1);
		assert_non_null(all[i]);
		if (i > 0)
			assert_int_equal(all[i]->base, all[i - 1]->base + 2 * PAGE_SIZE);
		heap_assert_sound();
	}
	assert_int_equal(cached_pages(false), 0);       /* just used up */
	assert_non_null(mheap_alloc_span(&mheap_, c, 1, 3, 1));
	assert_int_equal(cached_pages(false), 63);
	assert_accounted();
	/* what does not fit goes past it */
	struct mspan *s = mheap_alloc_span(&mheap_, c, 16, 5, 1);
	assert_true(s->base >= c->pages.base + 64 * PAGE_SIZE);
	assert_int_equal(cached_pages(false), 63);
	/* the cache's pages are nobody else's */
	s = large(1);
	assert_true(s->base - c->pages.base >= 64 * PAGE_SIZE);
	assert_accounted();
	heap_exit(c);
	assert_int_equal(cached_pages(false), 0);
	assert_accounted();
}

static void
test_page_caches_of_two_threads_are_apart(void **state)
{
	struct mcache *c[2] = { heap_new_cache(), heap_new_cache() };

	(void)state;
	/* the very first span grows the heap and does not come from a cache */
	for (size_t i = 0; i < 4; i++)
		assert_non_null(mheap_alloc_span(&mheap_, c[i % 2], 1, 3, 1));
	assert_true(c[0]->pages.pages != 0 && c[1]->pages.pages != 0);
	assert_int_not_equal(c[0]->pages.base, c[1]->pages.base);
	assert_accounted();
}

/* ---- OS pages of 16 and 64 KiB ---- */

static void
test_os_page_sizes(void **state)
{
	static const size_t os[] = { 4096, 16384, 65536 };

	(void)state;
	for (size_t k = 0; k < ARRAY_LEN(os); k++) {
		struct fake_sys_config sys = { .page_bytes = os[k] };
		size_t unit = os[k] > PAGE_SIZE ? os[k] >> PAGE_SHIFT : 1;
		struct mspan *all[80];
		struct mcache *c;

		start(&sys, NULL);
		c = heap_new_cache();
		assert_int_equal(mheap_round_pages(&mheap_, 1), unit);
		for (size_t i = 0; i < ARRAY_LEN(all); i++) {
			unsigned spc = (unsigned)(i % 40 + 1);
			all[i] = mheap_alloc_span(&mheap_, i % 3 ? c : NULL,
			    size_classes[spc].span_pages, spc, 1);
			assert_non_null(all[i]);
			assert_int_equal(all[i]->npages % unit, 0);
			assert_int_equal(all[i]->base % os[k], 0);
			memset((void *)all[i]->base, 1, mspan_bytes(all[i]));
		}
		struct mspan *l = large(3);
		assert_int_equal(l->npages, mheap_round_pages(&mheap_, 3));
		mheap_shrink_span(&mheap_, l, 1);
		assert_int_equal(l->npages, unit);
		assert_accounted();
		for (size_t i = 0; i < ARRAY_LEN(all); i++)
			mheap_free_span(&mheap_, all[i]);
		mheap_scavenge_all(&mheap_);
		assert_accounted();
		assert_int_equal(mheap_.pages.free_pages - mheap_.pages.scavenged_pages, 0);
	}
}

/* ---- giving back ---- */

static void
test_scavenge_all(void **state)
{
	struct mspan *a = large(100), *b = large(50), *c = large(1);
	void *at = (void *)a->base;

	(void)state;
	mheap_free_span(&mheap_, a);
	mheap_free_span(&mheap_, b);
	assert_int_equal(mheap_scavenge_all(&mheap_), 150 * PAGE_SIZE);
	assert_int_equal(mheap_scavenge_all(&mheap_), 0);
	assert_int_equal(a64_load_relaxed(&mheap_.scavenged_pages), 150);
	assert_int_equal(fake_sys_state((void *)c->base), SYS_READY);
	assert_int_equal(fake_sys_state(at), SYS_PREPARED);
	assert_accounted();
}

static void
test_scavenge_waits_for_the_delay(void **state)
{
	enum { DELAY_NS = 1000000000 };
	struct heap_setup heap = { .scavenge = true, .scavenge_delay_ns = DELAY_NS };
	struct mspan *s;

	(void)state;
	start(NULL, &heap);
	s = large(PAGES(32 * MIB));
	mheap_scavenge_tick(&mheap_);
	fake_sys_advance(DELAY_NS / 2);
	mheap_free_span(&mheap_, s);
	for (int i = 0; i < 4; i++) {
		fake_sys_advance(DELAY_NS / 8);
		mheap_scavenge_tick(&mheap_);
	}
	assert_int_equal(a64_load_relaxed(&mheap_.scavenged_pages), 0);
	for (int i = 0; i < 80; i++) {
		fake_sys_advance(DELAY_NS / 16);
		mheap_scavenge_tick(&mheap_);
	}
	assert_int_equal(a64_load_relaxed(&mheap_.scavenged_pages), PAGES(32 * MIB));
	assert_accounted();
}

/* ---- every refusal in turn ---- */

struct work {
	struct mspan *held[64];
	size_t n;
	struct mcache *c;
};

static bool
hold(struct work *w, struct mspan *s)
{
	if (s == NULL)
		return false;
	/* what we were given can be written */
	for (size_t off = 0; off < mspan_bytes(s); off += off < MIB ? 512 : MIB)
		*(char *)(s->base + off) = 0x5a;
	*(char *)(s->base + mspan_bytes(s) - 1) = 0x5a;
	w->held[w->n++] = s;
	return true;
}

static void
drop(struct work *w, size_t i)
{
	struct mspan *s = w->held[i];

	w->held[i] = w->held[--w->n];
	mheap_free_span(&mheap_, s);
}

/* Growth, page cache, every pool, alignment, resizing, giving back. */
static bool
workload(struct work *w)
{
	static const unsigned classes[] = { 1, 2, 3, 4, 9, 16, 24 };

	w->c = mcache_acquire(&mheap_, 1);
	if (w->c == NULL)
		return false;
	for (size_t i = 0; i < ARRAY_LEN(classes); i++) {
		unsigned spc = classes[i];
		if (!hold(w, mheap_alloc_span(&mheap_, w->c, size_classes[spc].span_pages, spc, 1)))
			return false;
	}
	if (!hold(w, mheap_alloc_span(&mheap_, w->c, TINY_SPAN_PAGES, SPAN_TINY, 1)) ||
	    !hold(w, large(300)) || !hold(w, large(40)))
		return false;
	drop(w, w->n - 2);
	mheap_scavenge_all(&mheap_);
	if (!hold(w, large(310)) || !hold(w, large(9)) ||
	    !hold(w, mheap_alloc_span(&mheap_, NULL, 20, SPAN_LARGE, 1024)))
		return false;
	struct mspan *last = w->held[w->n - 1];
	mheap_shrink_span(&mheap_, last, 3);
	if (!mheap_grow_span(&mheap_, last, 20))
		return false;
	last->moved = true;
	return hold(w, large(PAGES(80 * MIB)));
}

static void
undo(struct work *w)
{
	while (w->n > 0)
		drop(w, w->n - 1);
	if (w->c != NULL)
		heap_exit(w->c);
	*w = (struct work){ .n = 0 };
}

static void
sweep_failures(const struct fake_sys_config *sys, bool onwards)
{
	struct work w = { .n = 0 };
	uint64_t calls, refused = 0;

	start(sys, NULL);
	calls = fake_sys_calls(FAKE_SYS_CAN_FAIL);
	assert_true(workload(&w));
	calls = fake_sys_calls(FAKE_SYS_CAN_FAIL) - calls;
	undo(&w);
	assert_accounted();
	assert_true(calls > 20);
	for (uint64_t n = 1; n <= calls; n++) {
		start(sys, NULL);
		fake_sys_fail(FAKE_SYS_CAN_FAIL, n, onwards);
		refused += !workload(&w);
		heap_assert_sound();
		fake_sys_fail(0, 0, false);
		undo(&w);
		assert_accounted();
		assert_int_equal(mheap_.pages.free_pages, mheap_.pages.grown_pages);
		if (!workload(&w))
			fail_msg("after refusal of call %lu the workload fails", (unsigned long)n);
		undo(&w);
		assert_accounted();
	}
	assert_true(refused > 5);
}

static void
test_each_call_refused_once(void **state)
{
	(void)state;
	sweep_failures(NULL, false);
}

static void
test_all_calls_refused_from_one_on(void **state)
{
	(void)state;
	sweep_failures(NULL, true);
}

static void
test_each_call_refused_64k_pages(void **state)
{
	struct fake_sys_config sys = { .page_bytes = 65536, .no_markers = true };

	(void)state;
	sweep_failures(&sys, false);
}

/* Pages are there, but no struct to describe them: nothing may be lost. */
static void
test_no_metadata_left(void **state)
{
	struct mcache *c = heap_new_cache();

	(void)state;
	assert_non_null(large(1));
	assert_non_null(mheap_alloc_span(&mheap_, c, 1, 3, 1));
	assert_true(c->pages.pages != 0);
	fake_sys_fail(FAKE_SYS_ALLOC, 1, true);
	while (persistent_alloc(&mheap_.meta, 64, 64) != NULL)
		continue;
	size_t in_use = a64_load_relaxed(&mheap_.span_pages_in_use);
	assert_null(mheap_alloc_span(&mheap_, c, 2, 1, 1));         /* from the page cache */
	assert_null(mheap_alloc_span(&mheap_, NULL, 2, 1, 1));
	assert_int_equal(a64_load_relaxed(&mheap_.span_pages_in_use), in_use);
	assert_accounted();
	/* what is left of the pools serves what it can, then no more */
	size_t n = 0;
	while (mheap_alloc_span(&mheap_, c, 1, 3, 1) != NULL)
		n++;
	assert_in_range(n, 1, 300);
	assert_true(mheap_.pages.free_pages > 0);
	assert_accounted();
	fake_sys_fail(0, 0, false);
	assert_non_null(mheap_alloc_span(&mheap_, c, 2, 1, 1));
	assert_non_null(mheap_alloc_span(&mheap_, c, 1, 3, 1));
	assert_accounted();
}

/* A system that allows few mappings: refusals in the middle of anything. */
static void
test_mapping_limit(void **state)
{
	struct work w = { .n = 0 };
	bool worked = false;

	(void)state;
	for (uint64_t limit = 1; limit <= 64; limit++) {
		struct fake_sys_config sys = { .max_map_count = limit, .no_markers = true };
		start(&sys, NULL);
		worked = workload(&w);
		heap_assert_sound();
		assert_true(fake_sys_mappings() <= limit);
		undo(&w);
		assert_accounted();
	}
	assert_true(worked);
}

static void
test_random_spans(void **state)
{
	enum { SLOTS = 60, STEPS = 4000 };
	static struct mspan *held[SLOTS];
	uint64_t r = 77;

	(void)state;
	memset(held, 0, sizeof(held));
	for (int i = 0; i < STEPS; i++) {
		struct mspan **h = &held[heap_rand(&r) % SLOTS];
		size_t npages = 1 + heap_rand(&r) % (heap_rand(&r) % 8 == 0 ? 3000 : 20);
		if (*h == NULL)
			*h = mheap_alloc_span(&mheap_, NULL, npages, SPAN_LARGE,
			    (size_t)1 << heap_rand(&r) % 5);
		else if (heap_rand(&r) % 3 != 0) {
			mheap_free_span(&mheap_, *h);
			*h = NULL;
		} else if (npages < (*h)->npages) {
			mheap_shrink_span(&mheap_, *h, npages);
		} else if (npages > (*h)->npages) {
			mheap_grow_span(&mheap_, *h, npages);
		}
		if (i % 97 == 0)
			mheap_scavenge_all(&mheap_);
		if (i % 400 == 0)
			assert_accounted();
	}
	assert_accounted();
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_first_arena_is_aligned),
		TEST(test_growth_is_contiguous),
		TEST(test_huge_pages),
		TEST(test_span_larger_than_an_arena),
		TEST(test_small_spans_cross_an_arena_border),
		TEST(test_growth_over_a_gap),
		TEST(test_growth_with_gaps_everywhere),
		TEST(test_address_space_is_short),
		TEST(test_absurd_sizes),
		TEST(test_alignment),
		TEST(test_counts),
		TEST(test_structs_come_from_pools),
		TEST(test_shrink_and_grow_in_place),
		TEST(test_needzero),
		TEST(test_moved_span_is_renewed),
		TEST(test_page_cache_serves_small_spans),
		TEST(test_page_caches_of_two_threads_are_apart),
		TEST(test_os_page_sizes),
		TEST(test_scavenge_all),
		TEST(test_scavenge_waits_for_the_delay),
		TEST(test_each_call_refused_once),
		TEST(test_all_calls_refused_from_one_on),
		TEST(test_each_call_refused_64k_pages),
		TEST(test_no_metadata_left),
		TEST(test_mapping_limit),
		TEST(test_random_spans),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
