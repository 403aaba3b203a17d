/* test_guard_fake.c - guard pages: which spans get them, that they are there and
 * go again, whose guard an address lies in, and what happens when the system has
 * no more of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fake_die.h"
#include "fake_sys.h"
#include "heap_support.h"
#include "marena.h"
#include "mstats.h"
#include "../hardening/guard.h"
#include "../hardening/hooks.h"
#include "../hardening/quarantine.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define PAGES(bytes) ((bytes) >> PAGE_SHIFT)

static struct mcache *me;
static size_t guard_bytes;

static void
start(const struct fake_sys_config *sys, unsigned spans, unsigned large, bool both)
{
	heap_stop();
	fake_sys_reset(sys);
	heap_start(NULL);
	guard_init(&mheap_, spans, large, both, 11);
	guard_bytes = sys_page_bytes() > PAGE_SIZE ? sys_page_bytes() : PAGE_SIZE;
	me = heap_new_cache();
	heap_use(me);
}

static int
teardown(void **state)
{
	(void)state;
	heap_stop();
	return 0;
}

static struct mspan *
span(size_t bytes, unsigned span_class, size_t align)
{
	struct mspan *s = mheap_alloc_span(&mheap_, NULL, PAGES(bytes), span_class,
	    align > PAGE_SIZE ? PAGES(align) : 1);

	assert_non_null(s);
	return s;
}

/* Every page of [at, at + bytes) is a guard, or none is. */
static void
assert_guarded(uintptr_t at, size_t bytes, bool want)
{
	for (size_t i = 0; i < bytes; i += sys_page_bytes())
		assert_int_equal(fake_sys_guarded((void *)(at + i)), want);
}

static void
assert_free(uintptr_t at, size_t bytes)
{
	assert_guarded(at, bytes, false);
	for (size_t i = 0; i < bytes; i += PAGE_SIZE) {
		assert_true(page_alloc_is_free(&mheap_.pages, at + i));
		assert_null(arena_span_containing(at + i));
	}
}

static void
assert_guards(const struct mspan *s, unsigned want)
{
	uintptr_t end = s->base + mspan_bytes(s);

	assert_int_equal(s->guards & (GUARD_BEFORE | GUARD_AFTER), want);
	assert_int_equal((s->guards & GUARD_BEFORE_PUT) != 0, (want & GUARD_BEFORE) != 0);
	assert_int_equal((s->guards & GUARD_AFTER_PUT) != 0, (want & GUARD_AFTER) != 0);
	assert_guarded(s->base, mspan_bytes(s), false);
	if ((want & GUARD_BEFORE) != 0)
		assert_guarded(s->base - guard_bytes, guard_bytes, true);
	if ((want & GUARD_AFTER) != 0)
		assert_guarded(end, guard_bytes, true);
}

/* ---- which spans ---- */

static void
each_small(struct mspan *s, void *arg)
{
	if (mspan_is_large(s))
		return;
	assert_guards(s, GUARD_AFTER);
	++*(size_t *)arg;
}

static void
test_behind_every_span(void **state)
{
	static const size_t pages[] = { 4096, 16384, 65536 };
	size_t n = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(pages); i++) {
		start(&(struct fake_sys_config){ .page_bytes = pages[i] }, 1, 0, false);
		for (size_t bytes = 1; bytes < 32768; bytes += 1 + bytes / 8)
			for (int j = 0; j < 20; j++)
				mallocgc(bytes, API_MALLOC);
		mallocgc_noscan(3, API_NOSCAN);
		void *large = mallocgc(100000, API_MALLOC);
		assert_guards(heap_span(large), 0);
		n = 0;
		mstats_each_span(each_small, &n);
		assert_true(n > 50);
		heap_assert_sound();
	}
}

static size_t
guarded_of(unsigned span_class, size_t n)
{
	size_t guarded = 0;

	for (size_t i = 0; i < n; i++)
		guarded += span(64 * KIB, span_class, 1)->guards != 0;
	return guarded;
}

/* One in eight of 4,000 is 500; five standard deviations are 105. */
static void
test_one_in_eight(void **state)
{
	(void)state;
	start(NULL, 8, 0, false);
	assert_in_range(guarded_of(1, 4000), 395, 605);
	assert_int_equal(guarded_of(SPAN_LARGE, 100), 0);
	start(NULL, 0, 8, false);
	assert_in_range(guarded_of(SPAN_LARGE, 4000), 395, 605);
	assert_int_equal(guarded_of(1, 100), 0);
	start(NULL, 0, 1, false);
	assert_int_equal(guarded_of(SPAN_LARGE, 100), 100);
	assert_int_equal(guarded_of(SPAN_LARGE_NOSCAN, 100), 100);
	assert_int_equal(guarded_of(1, 100), 0);
	heap_assert_sound();
	guard_off();
	assert_int_equal(guarded_of(SPAN_LARGE, 100), 0);
}

static void
test_which_follows_the_seed(void **state)
{
	uint64_t pattern[3] = { 0 };
	static const uint64_t seeds[] = { 11, 11, 12 };

	(void)state;
	start(NULL, 8, 0, false);
	for (size_t i = 0; i < ARRAY_LEN(seeds); i++) {
		guard_init(&mheap_, 2, 0, false, seeds[i]);
		for (unsigned j = 0; j < 64; j++)
			pattern[i] |= (uint64_t)(span(PAGE_SIZE, 1, 1)->guards != 0) << j;
	}
	assert_true(pattern[0] != pattern[2]);
	assert_true(pattern[0] != 0 && pattern[0] != UINT64_MAX);
}

static void
test_both_sides_of_large(void **state)
{
	static const size_t pages[] = { 4096, 16384, 65536 };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(pages); i++) {
		start(&(struct fake_sys_config){ .page_bytes = pages[i] }, 1, 1, true);
		for (size_t bytes = 40000; bytes < 3 * MIB; bytes += bytes / 3) {
			assert_guards(heap_span(mallocgc(bytes, API_MALLOC)),
			    GUARD_BEFORE | GUARD_AFTER);
			assert_guards(heap_span(mallocgc_noscan(bytes, API_NOSCAN)),
			    GUARD_BEFORE | GUARD_AFTER);
		}
		heap_assert_sound();
	}
}

/* A page before it would put an aligned object out of line. */
static void
test_aligned_keep_their_place(void **state)
{
	static const size_t pages[] = { 4096, 65536 };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(pages); i++) {
		start(&(struct fake_sys_config){ .page_bytes = pages[i] }, 1, 1, true);
		mallocgc(50000, API_MALLOC);
		for (size_t align = 32; align <= 4 * MIB; align *= 2) {
			void *p = mallocgc_aligned(align, 100000, API_MEMALIGN);
			assert_int_equal((uintptr_t)p & (align - 1), 0);
			assert_guards(heap_span(p), align > PAGE_SIZE ? GUARD_AFTER :
			    GUARD_BEFORE | GUARD_AFTER);
		}
		heap_assert_sound();
	}
}

/* ---- put and taken off ---- */

static void
test_taken_off(void **state)
{
	(void)state;
	for (int markers = 0; markers < 2; markers++) {
		start(&(struct fake_sys_config){ .no_markers = !markers }, 1, 1, true);
		struct mspan *s = span(64 * KIB, SPAN_LARGE, 1);
		uintptr_t at = s->base - guard_bytes;
		size_t total = 64 * KIB + 2 * guard_bytes;
		struct sys_stats before, after;
		sys_read_stats(&before);
		assert_guards(s, GUARD_BEFORE | GUARD_AFTER);
		mheap_free_span(&mheap_, s);
		assert_free(at, total);
		sys_read_stats(&after);
		assert_int_equal(before.guard_bytes - after.guard_bytes, 2 * guard_bytes);
		assert_int_equal(after.bytes[SYS_READY] - before.bytes[SYS_READY],
		    2 * guard_bytes);
		memset((void *)at, 1, total);
		heap_assert_sound();
	}
}

/* The guards of a parked span stay. */
static void
test_parked_keep_them(void **state)
{
	const struct mspan *found = NULL;

	(void)state;
	start(NULL, 1, 1, true);
	quarantine_init(&(struct quarantine_config){ .bytes = MIB, .fault = true, .seed = 1 });
	struct mspan *s = span(64 * KIB, SPAN_LARGE, 1);
	uintptr_t at = s->base - guard_bytes;
	mheap_free_span(&mheap_, s);
	assert_int_equal(a32_load_acquire(&s->state), SPAN_PARKED);
	assert_guarded(at, 64 * KIB + 2 * guard_bytes, true);
	assert_int_equal(guard_look(at + 5, &found), GUARD_SIDE_BEFORE);
	assert_ptr_equal(found, s);
	heap_assert_sound();
	mheap_flush_quarantine(&mheap_);
	assert_free(at, 64 * KIB + 2 * guard_bytes);
	heap_assert_sound();
}

/* ---- no more guards ---- */

static void
assert_no_guard(const struct mspan *s)
{
	assert_int_equal(s->guards & (GUARD_BEFORE_PUT | GUARD_AFTER_PUT), 0);
	assert_guarded(s->base - guard_bytes, mspan_bytes(s) + 2 * guard_bytes, false);
}

static void
test_refused_guard_is_counted(void **state)
{
	const struct mspan *found = NULL;
	struct sys_stats a, b;

	(void)state;
	start(NULL, 1, 1, true);
	mallocgc(50000, API_MALLOC);
	sys_read_stats(&a);
	fake_sys_fail(FAKE_SYS_FAULT, 1, true);
	char *p = mallocgc(100000, API_MALLOC);
	struct mspan *s = heap_span(p);
	sys_read_stats(&b);
	assert_int_equal(b.guards_skipped - a.guards_skipped, 2);
	assert_no_guard(s);
	assert_int_equal(guard_look((uintptr_t)p - 1, &found), GUARD_SIDE_NONE);
	assert_int_equal(guard_look(s->base + mspan_bytes(s), &found), GUARD_SIDE_NONE);
	heap_assert_sound();
	freegc(p, API_FREE);
	fake_sys_fail(0, 0, false);
	assert_guards(heap_span(mallocgc(100000, API_MALLOC)), GUARD_BEFORE | GUARD_AFTER);
	heap_assert_sound();
}

/* Taking a guard off can be refused too: its page must not become a free one. */
static void
test_refused_removal_keeps_the_span(void **state)
{
	(void)state;
	for (uint64_t nth = 1; nth <= 2; nth++) {
		start(NULL, 1, 1, true);
		struct mspan *s = span(64 * KIB, SPAN_LARGE, 1);
		uintptr_t base = s->base;
		fake_sys_fail(FAKE_SYS_UNFAULT, nth, false);
		mheap_free_span(&mheap_, s);
		assert_int_equal(a32_load_acquire(&s->state), SPAN_PARKED);
		assert_guarded(base - guard_bytes, guard_bytes, nth == 1);
		assert_guarded(base + 64 * KIB, guard_bytes, nth == 2);
		heap_assert_sound();
		assert_true(span(64 * KIB, SPAN_LARGE, 1)->base > base);
		assert_true(mheap_flush_quarantine(&mheap_));
		assert_free(base - guard_bytes, 64 * KIB + 2 * guard_bytes);
		heap_assert_sound();
	}
}

/* Guards cost mappings and there are 200 of those: the program goes on. */
static void
test_budget_spent(void **state)
{
	enum { N = 1000, MAPPINGS = 200 };
	static char *p[N];
	struct sys_stats sys;
	size_t put = 0;

	(void)state;
	start(&(struct fake_sys_config){ .no_markers = true, .max_map_count = MAPPINGS }, 1, 1,
	    true);
	for (int round = 0; round < 3; round++) {
		put = 0;
		for (size_t i = 0; i < N; i++) {
			size_t bytes = i % 2 != 0 ? 1000 : 40000;
			p[i] = mallocgc(bytes, API_MALLOC);
			assert_non_null(p[i]);
			memset(p[i], (int)i, bytes);
			put += (heap_span(p[i])->guards & GUARD_AFTER_PUT) != 0;
		}
		sys_read_stats(&sys);
		assert_in_range(put, 10, N - 10);
		assert_true(sys.guards_skipped > 0);
		assert_in_range(fake_sys_mappings(), 10, MAPPINGS);
		heap_assert_sound();
		for (size_t i = 0; i < N; i++) {
			assert_int_equal(p[i][999], (char)i);
			freegc(p[i], API_FREE);
		}
		mcache_trim_all(&mheap_, me);
		heap_assert_sound();
		assert_int_equal(a64_load_relaxed(&mheap_.spans_in_use), 0);
	}
}

/* ---- whose guard is it ---- */

enum { LOOKED = 64 };

static enum guard_side
naive_look(struct mspan *const *s, size_t n, uintptr_t addr, const struct mspan **out)
{
	for (size_t i = 0; i < n; i++) {
		uintptr_t end = s[i]->base + mspan_bytes(s[i]);

		*out = s[i];
		if ((s[i]->guards & GUARD_AFTER_PUT) != 0 && addr >= end && addr < end + guard_bytes)
			return GUARD_SIDE_AFTER;
		if ((s[i]->guards & GUARD_BEFORE_PUT) != 0 && addr < s[i]->base &&
		    addr >= s[i]->base - guard_bytes)
			return GUARD_SIDE_BEFORE;
	}
	return GUARD_SIDE_NONE;
}

static void
assert_look(struct mspan *const *s, size_t n, uintptr_t addr)
{
	const struct mspan *want = NULL, *have = NULL;
	enum guard_side side = naive_look(s, n, addr, &want);

	assert_int_equal(guard_look(addr, &have), side);
	if (side != GUARD_SIDE_NONE)
		assert_ptr_equal(have, want);
}

static void
assert_looks_around(struct mspan *const *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uintptr_t base = s[i]->base, end = base + mspan_bytes(s[i]);
		uintptr_t at[] = { base, base - 1, base - guard_bytes, base - guard_bytes - 1,
			base + 1, base + PAGE_SIZE, end - 1, end, end + 1, end + guard_bytes - 1,
			end + guard_bytes, end + guard_bytes + 1, base - guard_bytes / 2 };
		for (size_t j = 0; j < ARRAY_LEN(at); j++)
			assert_look(s, n, at[j]);
	}
}

/* Guarded spans and others of all kinds side by side. */
static void
test_look_anywhere(void **state)
{
	static const size_t pages[] = { 4096, 16384, 65536 };
	struct mspan *s[LOOKED];
	uint64_t r = 4;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(pages); i++) {
		start(&(struct fake_sys_config){ .page_bytes = pages[i] }, 2, 2, true);
		for (size_t j = 0; j < LOOKED; j++)
			s[j] = span((1 + heap_rand(&r) % 5) * PAGE_SIZE,
			    j % 3 == 0 ? 1 : SPAN_LARGE, j % 7 == 0 ? 16 * PAGE_SIZE : 1);
		assert_looks_around(s, LOOKED);
		for (size_t j = 0; j < 20000; j++)
			assert_look(s, LOOKED, s[0]->base - MIB + heap_rand(&r) % (4 * MIB));
		uintptr_t odd[] = { 0, 1, PAGE_SIZE, (uintptr_t)&r, (uintptr_t)&mheap_,
			(uintptr_t)test_look_anywhere, ADDR_LIMIT - 1, ADDR_LIMIT, UINTPTR_MAX,
			UINTPTR_MAX - PAGE_SIZE, fake_sys_base() - 1 };
		for (size_t j = 0; j < ARRAY_LEN(odd); j++)
			assert_look(s, LOOKED, odd[j]);
	}
}

/* A span that ends where its arena does has its guard in the next one. */
static void
test_across_arenas(void **state)
{
	struct mspan *s[3];

	(void)state;
	start(NULL, 1, 1, true);
	s[0] = span(ARENA_SIZE - guard_bytes, SPAN_LARGE, 1);
	s[1] = span(2 * ARENA_SIZE, SPAN_LARGE, 1);
	s[2] = span(100 * KIB & ~(PAGE_SIZE - 1), SPAN_LARGE, 1);
	assert_int_equal((s[0]->base + mspan_bytes(s[0])) % ARENA_SIZE, 0);
	for (size_t i = 0; i < ARRAY_LEN(s); i++)
		assert_guards(s[i], GUARD_BEFORE | GUARD_AFTER);
	assert_looks_around(s, ARRAY_LEN(s));
	heap_assert_sound();
	for (size_t i = 0; i < ARRAY_LEN(s); i++)
		mheap_free_span(&mheap_, s[i]);
	heap_assert_sound();
	assert_guarded(fake_sys_base(), 3 * ARENA_SIZE, false);
}

/* ---- realloc ---- */

static void
test_realloc_of_guarded(void **state)
{
	size_t have = 40000;

	(void)state;
	start(NULL, 1, 1, true);
	char *p = mallocgc(have, API_MALLOC);
	uint64_t r = 9;
	memset(p, 'x', have);
	for (int i = 0; i < 200; i++) {
		size_t want = 33000 + heap_rand(&r) % (i % 10 == 0 ? 4 * MIB : 200 * KIB);
		p = reallocgc(p, want, API_REALLOC);
		assert_non_null(p);
		assert_guards(heap_span(p), GUARD_BEFORE | GUARD_AFTER);
		size_t keep = have < want ? have : want;
		assert_int_equal(p[0], 'x');
		assert_int_equal(p[keep / 2], 'x');
		assert_int_equal(p[keep - 1], 'x');
		memset(p, 'x', usable_size(p, API_USABLE_SIZE));
		have = want;
		if (i % 20 == 0)
			heap_assert_sound();
	}
	assert_int_equal(a64_load_relaxed(&mheap_.spans_in_use), 1);
	freegc(p, API_FREE);
	heap_assert_sound();
}

/* ---- planted, and at length ---- */

static void
test_verify_sees_it(void **state)
{
	(void)state;
	start(NULL, 1, 1, true);
	struct mspan *s = span(64 * KIB, SPAN_LARGE, 1);
	uint8_t right = s->guards;
	a64_store_relaxed(&s->bits[0].live, 1);
	s->avail[0] = s->avail_n = 0;
	heap_assert_sound();
	s->guards = GUARD_AFTER | GUARD_AFTER_PUT;      /* a page nobody accounts for */
	assert_true(heap_verify_finds("MHEAP-2"));
	s->guards = right & (uint8_t)~GUARD_AFTER;
	assert_true(heap_verify_finds("MSPAN-10"));
	s->guards = right & (uint8_t)~GUARD_BEFORE;
	assert_true(heap_verify_finds("MSPAN-10"));
	s->guards = right;
	heap_assert_sound();
	/* its guard is given to the free pages */
	page_alloc_free(&mheap_.pages, s->base - guard_bytes, PAGES(guard_bytes));
	assert_true(heap_verify_finds("MSPAN-10"));
}

static void
test_traffic(void **state)
{
	char *p[300] = { NULL };
	uint64_t r = 17;

	(void)state;
	for (int markers = 0; markers < 2; markers++) {
		start(&(struct fake_sys_config){ .no_markers = !markers }, 2, 2, true);
		quarantine_init(&(struct quarantine_config){ .bytes = 2 * MIB, .fault = true,
		    .seed = 1 });
		memset(p, 0, sizeof(p));
		for (int i = 0; i < 6000; i++) {
			size_t at = heap_rand(&r) % ARRAY_LEN(p);
			size_t bytes = heap_rand(&r) % (i % 3 == 0 ? 100 * KIB : 3000);
			freegc(p[at], API_FREE);
			p[at] = mallocgc(bytes, API_MALLOC);
			assert_non_null(p[at]);
			memset(p[at], 1, bytes);
			if (i % 500 == 0)
				heap_assert_sound();
		}
		for (size_t i = 0; i < ARRAY_LEN(p); i++)
			freegc(p[i], API_FREE);
		mcache_trim_all(&mheap_, me);
		mheap_flush_quarantine(&mheap_);
		heap_assert_sound();
		assert_int_equal(a64_load_relaxed(&mheap_.spans_in_use), 0);
		assert_guarded(fake_sys_base(), mheap_.pages.grown_pages << PAGE_SHIFT, false);
	}
}

#define TEST(f) cmocka_unit_test_teardown(f, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_behind_every_span),
		TEST(test_one_in_eight),
		TEST(test_which_follows_the_seed),
		TEST(test_both_sides_of_large),
		TEST(test_aligned_keep_their_place),
		TEST(test_taken_off),
		TEST(test_parked_keep_them),
		TEST(test_refused_guard_is_counted),
		TEST(test_refused_removal_keeps_the_span),
		TEST(test_budget_spent),
		TEST(test_look_anywhere),
		TEST(test_across_arenas),
		TEST(test_realloc_of_guarded),
		TEST(test_verify_sees_it),
		TEST(test_traffic),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
