/* test_mcentral_fake.c - the spans that no thread owns: into which set they go,
 * who gets them in which order, when the sweep generation advances, what frees
 * of their slots do, and what a sweep of all gives back. */
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
#include "tls.h"

/* 512 bytes: 32 slots in a span, one word; a note at a quarter of them. */
enum { SPC = 24, SLOTS = 32, ELEM = 512, QUARTER = SLOTS / 4 };

static int
setup(void **state)
{
	(void)state;
	heap_stop();
	fake_sys_reset(NULL);
	heap_start(NULL);
	assert_int_equal(size_classes[SPC].elem_bytes, ELEM);
	assert_int_equal(size_classes[SPC].nelems, SLOTS);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	heap_stop();
	return 0;
}

static struct mcentral *
central(void)
{
	return &mheap_.central[SPC];
}

static size_t
partial_len(bool swept)
{
	size_t i = a32_load_relaxed(&central()->sweepgen) / 2 % 2;

	return span_set_len(&central()->partial[swept ? i : 1 - i]);
}

static size_t
full_len(bool swept)
{
	size_t i = a32_load_relaxed(&central()->sweepgen) / 2 % 2;

	return span_set_len(&central()->full[swept ? i : 1 - i]);
}

static void *
take(void)
{
	void *p = mallocgc(ELEM, API_MALLOC);

	assert_non_null(p);
	return p;
}

/* A thread takes n slots and ends; slots ascend, so span k holds p[64k..]. */
static void
orphans(void **p, size_t n)
{
	heap_use(heap_new_cache());
	for (size_t i = 0; i < n; i++)
		p[i] = take();
	heap_exit(mcache_self());
	heap_assert_sound();
}

static void
drop(void *p)
{
	freegc(p, API_FREE);
}

static size_t
spans(void)
{
	return a64_load_relaxed(&mheap_.spans_in_use);
}

/* ---- into the sets ---- */

static void
test_exit_files_spans_by_free_slots(void **state)
{
	void *p[3 * SLOTS + 10];

	(void)state;
	orphans(p, ARRAY_LEN(p));
	assert_int_equal(full_len(true), 3);
	assert_int_equal(partial_len(true), 1);
	assert_int_equal(full_len(false) + partial_len(false), 0);
	for (size_t i = 0; i < ARRAY_LEN(p); i++) {
		struct mspan *s = heap_span(p[i]);
		assert_ptr_equal(aptr_load_relaxed(&s->owner), &mcache_none);
		assert_int_equal(s->sweepgen, a32_load_relaxed(&central()->sweepgen));
		assert_true(mspan_slot_live(s, heap_slot(p[i])));
	}
	assert_int_equal(heap_span(p[3 * SLOTS])->avail_n, SLOTS - 10);
}

static void
test_exit_gives_empty_spans_back(void **state)
{
	void *p[SLOTS + 1];

	(void)state;
	heap_use(heap_new_cache());
	for (size_t i = 0; i < ARRAY_LEN(p); i++)
		p[i] = take();
	for (size_t i = 0; i < SLOTS; i++)
		drop(p[i]);
	drop(p[SLOTS]);
	heap_exit(mcache_self());
	assert_int_equal(spans(), 0);
	assert_int_equal(mheap_.pages.free_pages, mheap_.pages.grown_pages);
	heap_assert_sound();
}

/* ---- out of the sets ---- */

static void
test_partial_span_is_adopted(void **state)
{
	void *p[10], *q;
	size_t grown;

	(void)state;
	orphans(p, 10);
	grown = mheap_.pages.grown_pages;
	heap_use(heap_new_cache());
	for (int i = 10; i < SLOTS; i++) {
		q = take();
		assert_ptr_equal(span_of((uintptr_t)q), span_of((uintptr_t)p[0]));
	}
	assert_ptr_equal(aptr_load_relaxed(&heap_span(p[0])->owner), mcache_self());
	assert_int_equal(spans(), 1);
	assert_int_equal(mheap_.pages.grown_pages, grown);
	/* the new owner frees what the dead thread allocated */
	drop(p[3]);
	assert_true(heap_free_dies(p[3], DIE_DOUBLE_FREE));
	heap_assert_sound();
}

static void
test_full_spans_are_not_asked_without_a_note(void **state)
{
	void *p[2 * SLOTS];

	(void)state;
	orphans(p, ARRAY_LEN(p));
	assert_int_equal(full_len(true), 2);
	heap_use(heap_new_cache());
	take();
	assert_int_equal(spans(), 3);
	assert_int_equal(full_len(true), 2);
	assert_int_equal(a32_load_relaxed(&central()->sweepgen), 2);
}

/* Frees of an unowned span's slots are remote bits; at notify_at the class is
 * told; the next refill advances the generation, sweeps and adopts. */
static void
test_unowned_frees_lead_to_adoption(void **state)
{
	void *p[SLOTS];
	struct mspan *s;

	(void)state;
	orphans(p, SLOTS);
	s = heap_span(p[0]);
	assert_int_equal(s->notify_at, QUARTER);
	for (int i = 0; i < QUARTER - 1; i++)
		drop(p[i]);
	assert_int_equal(a64_load_relaxed(&central()->pending), 0);
	assert_int_equal(mspan_live_count(s), SLOTS - (QUARTER - 1));
	drop(p[QUARTER - 1]);
	assert_int_equal(a64_load_relaxed(&central()->pending), 1);
	assert_int_equal(popcount64(a64_load_relaxed(&s->bits[0].remote)), QUARTER);
	heap_assert_sound();
	heap_use(heap_new_cache());
	/* exactly those that were freed */
	for (int i = 0; i < QUARTER; i++)
		assert_ptr_equal(take(), p[i]);
	assert_int_equal(a32_load_relaxed(&central()->sweepgen), 4);
	assert_int_equal(a64_load_relaxed(&central()->pending), 0);
	assert_ptr_equal(aptr_load_relaxed(&s->owner), mcache_self());
	heap_assert_sound();
	take();
	assert_int_equal(spans(), 2);
}

/* sweep_at: a span with too few free slots is looked at, and put back. */
static void
test_sweep_waits_for_its_share(void **state)
{
	void *p[SLOTS];
	struct mspan *s;

	(void)state;
	orphans(p, SLOTS);
	s = heap_span(p[0]);
	s->sweep_at = 17;
	for (int i = 0; i < QUARTER; i++)
		drop(p[i]);
	heap_use(heap_new_cache());
	take();
	assert_int_equal(spans(), 2);
	assert_int_equal(s->avail_n, 0);
	assert_int_equal(full_len(true), 1);
	assert_int_equal(full_len(false), 0);
	heap_assert_sound();
	/* each of them is still a double free */
	for (int i = 0; i < QUARTER; i++)
		assert_true(heap_free_dies(p[i], DIE_DOUBLE_FREE));
}

/* Go's order: partial swept, partial unswept, full unswept, then grow. */
static void
test_order(void **state)
{
	void *full[SLOTS], *partial[10];
	struct mspan *s;

	(void)state;
	orphans(full, SLOTS);
	orphans(partial, 10);
	for (int i = 0; i < QUARTER; i++)
		drop(full[i]);
	a64_store_relaxed(&central()->pending, 0);
	a32_store_relaxed(&central()->sweepgen, 4);     /* as an advance does */
	assert_int_equal(partial_len(false), 1);
	assert_int_equal(full_len(false), 1);
	/* a partial swept one: a new span with one slot in use */
	s = mheap_alloc_span(&mheap_, NULL, size_classes[SPC].span_pages, SPC, 1);
	a64_store_relaxed(&s->bits[0].live, 1);
	s->avail[0] &= ~(uint64_t)1;
	s->avail_n--;
	mcentral_uncache_span(&mheap_, central(), s);
	assert_int_equal(partial_len(true), 1);
	heap_assert_sound();
	struct mcache *me = heap_new_cache();
	assert_ptr_equal(mcentral_cache_span(&mheap_, central(), me), s);
	assert_ptr_equal(mcentral_cache_span(&mheap_, central(), me), heap_span(partial[0]));
	assert_ptr_equal(mcentral_cache_span(&mheap_, central(), me), heap_span(full[0]));
	assert_null(mcentral_cache_span(&mheap_, central(), me));
	assert_ptr_equal(aptr_load_relaxed(&s->owner), me);
	assert_int_equal(s->sweepgen, 4);
	assert_int_equal(heap_span(full[0])->avail_n, QUARTER);
}

/* MCENTRAL-4: as long as anything is unswept the generation stays. */
static void
test_generation_waits_for_the_unswept(void **state)
{
	enum { SPANS = 150 };
	static void *p[SPANS * SLOTS];

	(void)state;
	orphans(p, ARRAY_LEN(p));
	assert_int_equal(full_len(true), SPANS);
	for (size_t k = 0; k < SPANS; k++) {
		heap_span(p[k * SLOTS])->sweep_at = SLOTS;      /* nothing is worth it */
		for (int i = 0; i < QUARTER; i++)
			drop(p[k * SLOTS + (size_t)i]);
	}
	assert_int_equal(a64_load_relaxed(&central()->pending), SPANS);
	heap_use(heap_new_cache());
	struct mcache *me = heap_cache();
	assert_null(mcentral_cache_span(&mheap_, central(), me));
	assert_int_equal(a32_load_relaxed(&central()->sweepgen), 4);
	assert_int_equal(full_len(true), 100);         /* the budget of one refill */
	assert_int_equal(full_len(false), 50);
	heap_assert_sound();
	mcentral_note(central());
	assert_null(mcentral_cache_span(&mheap_, central(), me));
	assert_int_equal(a32_load_relaxed(&central()->sweepgen), 4);
	assert_int_equal(full_len(false), 0);
	heap_assert_sound();
	assert_null(mcentral_cache_span(&mheap_, central(), me));
	assert_int_equal(a32_load_relaxed(&central()->sweepgen), 6);
	heap_assert_sound();
}

/* What a thread has freed itself is there for the next thread, with no further
 * free to tell of it. */
static void
test_exit_leaves_freed_slots_for_others(void **state)
{
	void *p[8 * SLOTS];
	size_t before;

	(void)state;
	heap_use(heap_new_cache());
	for (size_t i = 0; i < ARRAY_LEN(p); i++)
		p[i] = take();
	for (size_t i = 0; i < ARRAY_LEN(p); i++)
		if (i % SLOTS >= 4)
			drop(p[i]);
	heap_exit(mcache_self());
	heap_assert_sound();
	before = spans();
	assert_int_equal(before, 8);
	heap_use(heap_new_cache());
	for (size_t i = 0; i < 8 * (SLOTS - 4); i++)
		take();
	assert_int_equal(spans(), before);
	heap_assert_sound();
}

/* ---- sweep of all ---- */

static void
test_sweep_all(void **state)
{
	void *p[4 * SLOTS];

	(void)state;
	orphans(p, ARRAY_LEN(p));
	for (size_t i = 0; i < SLOTS; i++)             /* span 0: all */
		drop(p[i]);
	for (size_t i = SLOTS; i < SLOTS + 20; i++)    /* span 1: enough to sweep */
		drop(p[i]);
	drop(p[2 * SLOTS]);                            /* span 2: one */
	size_t pages = mcentral_sweep_all(&mheap_, central());
	assert_int_equal(pages, size_classes[SPC].span_pages);
	assert_int_equal(spans(), 3);
	assert_null(span_of((uintptr_t)p[0]));
	assert_int_equal(partial_len(true), 1);
	assert_int_equal(full_len(true), 2);
	assert_int_equal(partial_len(false) + full_len(false), 0);
	heap_assert_sound();
	for (size_t i = SLOTS + 20; i < ARRAY_LEN(p); i++)
		if (i != 2 * SLOTS)
			drop(p[i]);
	assert_int_equal(mcentral_sweep_all(&mheap_, central()), 3 * size_classes[SPC].span_pages);
	assert_int_equal(spans(), 0);
	assert_int_equal(mcentral_sweep_all(&mheap_, central()), 0);
	heap_assert_sound();
	assert_int_equal(mheap_.pages.free_pages, mheap_.pages.grown_pages);
}

/* Threads come and go and leave one object each: the heap does not grow. */
static void
test_thread_churn_does_not_grow(void **state)
{
	enum { THREADS = 400 };
	void *keep[THREADS];

	(void)state;
	for (size_t t = 0; t < THREADS; t++) {
		void *p[3 * SLOTS];
		heap_use(heap_new_cache());
		for (size_t i = 0; i < ARRAY_LEN(p); i++)
			p[i] = take();
		keep[t] = p[t % ARRAY_LEN(p)];
		for (size_t i = 0; i < ARRAY_LEN(p); i++)
			if (p[i] != keep[t])
				drop(p[i]);
		heap_exit(mcache_self());
	}
	/* 400 objects stay: 7 spans would hold them, a quarter may wait for a sweep */
	assert_true(spans() <= 3 * (THREADS / SLOTS + 1) + 6);
	heap_assert_sound();
	for (size_t t = 0; t < THREADS; t++)
		drop(keep[t]);
	malloc_trim_all();
	assert_int_equal(spans(), 0);
	heap_assert_sound();
}

static void
test_classes_and_noscan_are_apart(void **state)
{
	void *a, *b;

	(void)state;
	heap_use(heap_new_cache());
	a = take();
	b = mallocgc_noscan(ELEM, API_NOSCAN);
	assert_ptr_not_equal(span_of((uintptr_t)a), span_of((uintptr_t)b));
	heap_exit(mcache_self());
	assert_int_equal(partial_len(true), 1);
	assert_int_equal(span_set_len(&mheap_.central[SPC + SPAN_NOSCAN].partial[1]), 1);
	heap_use(heap_new_cache());
	assert_ptr_equal(span_of((uintptr_t)mallocgc_noscan(ELEM, API_NOSCAN)),
	    span_of((uintptr_t)b));
	heap_assert_sound();
}

/* ---- no memory for a set's block ---- */

/* From here on there is none for metadata: not a byte. */
static void
exhaust_metadata(void)
{
	fake_sys_fail(FAKE_SYS_ALLOC, 1, true);
	for (size_t bytes = 32 << 10; bytes >= 8; bytes /= 2)
		while (persistent_alloc(&mheap_.meta, bytes, 8) != NULL)
			;
}

static size_t
spare_len(void)
{
	size_t n = 0;

	for (struct mspan *s = aptr_load_relaxed(&central()->spare); s != NULL; s = s->next)
		n++;
	return n;
}

/* A thread with n slots ends while there is no memory; another one is there. */
static struct mcache *
orphans_without_memory(void **p, size_t n)
{
	struct mcache *next = heap_new_cache();

	heap_use(heap_new_cache());
	for (size_t i = 0; i < n; i++)
		p[i] = take();
	exhaust_metadata();
	heap_exit(mcache_self());
	heap_assert_sound();
	return next;
}

static void
test_exit_without_memory_keeps_every_span(void **state)
{
	void *p[2 * SLOTS + 10];

	(void)state;
	struct mcache *next = orphans_without_memory(p, ARRAY_LEN(p));
	assert_int_equal(spare_len(), 3);
	assert_int_equal(full_len(true) + partial_len(true), 0);
	/* frees are as exact as ever */
	drop(p[3]);
	assert_true(heap_free_dies(p[3], DIE_DOUBLE_FREE));
	heap_use(next);
	for (int i = 10; i < SLOTS; i++)
		assert_ptr_equal(span_of((uintptr_t)take()), span_of((uintptr_t)p[2 * SLOTS]));
	assert_int_equal(spans(), 3);
	assert_int_equal(spare_len(), 2);
	heap_assert_sound();
}

static void
test_spare_spans_go_to_the_sets_when_memory_is_back(void **state)
{
	void *p[3 * SLOTS];

	(void)state;
	heap_use(orphans_without_memory(p, ARRAY_LEN(p)));
	assert_int_equal(spare_len(), 3);
	for (size_t i = 0; i < SLOTS; i++)
		drop(p[i]);
	fake_sys_fail(0, 0, false);
	assert_int_equal(mcentral_sweep_all(&mheap_, central()), size_classes[SPC].span_pages);
	assert_int_equal(spare_len(), 0);
	assert_int_equal(full_len(true), 2);
	assert_int_equal(spans(), 2);
	heap_assert_sound();
	for (size_t i = SLOTS; i < ARRAY_LEN(p); i++)
		drop(p[i]);
	malloc_trim_all();
	assert_int_equal(spans(), 0);
	heap_assert_sound();
}

/* Threads come and go all the while: nothing is lost and nothing dies. */
static void
test_churn_without_memory(void **state)
{
	enum { THREADS = 20 };
	struct mcache *c[THREADS];
	void *p[THREADS][SLOTS];

	(void)state;
	for (size_t t = 0; t < THREADS; t++)
		c[t] = heap_new_cache();
	for (size_t t = 0; t < THREADS; t++) {
		heap_use(c[t]);
		for (size_t i = 0; i < SLOTS; i++)
			p[t][i] = take();
	}
	exhaust_metadata();
	for (size_t t = 0; t < THREADS; t++) {
		heap_use(c[t]);
		for (size_t i = t % 2; t != 0 && i < SLOTS; i += 2)
			drop(p[t - 1][i]);
		heap_exit(c[t]);
		heap_assert_sound();
	}
	assert_int_equal(spare_len() + full_len(true) + partial_len(true), THREADS);
	for (size_t t = 0; t < THREADS; t++)
		for (size_t i = 0; i < SLOTS; i++)
			if (t == THREADS - 1 || i % 2 != (t + 1) % 2)
				drop(p[t][i]);
	malloc_trim_all();
	assert_int_equal(spans(), 0);
	heap_assert_sound();
}

static void
test_verify_sees_a_wrong_spare(void **state)
{
	void *p[SLOTS];

	(void)state;
	heap_use(orphans_without_memory(p, SLOTS));
	heap_span(p[0])->list = LIST_FULL;
	assert_true(heap_verify_finds("MCENTRAL-5"));
	heap_span(p[0])->list = LIST_NONE;
	aptr_store_relaxed(&heap_span(p[0])->owner, mcache_self());
	assert_true(heap_verify_finds("MCENTRAL-5"));
	aptr_store_relaxed(&heap_span(p[0])->owner, &mcache_none);
	heap_assert_sound();
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_exit_files_spans_by_free_slots),
		TEST(test_exit_gives_empty_spans_back),
		TEST(test_partial_span_is_adopted),
		TEST(test_full_spans_are_not_asked_without_a_note),
		TEST(test_unowned_frees_lead_to_adoption),
		TEST(test_sweep_waits_for_its_share),
		TEST(test_order),
		TEST(test_generation_waits_for_the_unswept),
		TEST(test_exit_leaves_freed_slots_for_others),
		TEST(test_sweep_all),
		TEST(test_thread_churn_does_not_grow),
		TEST(test_classes_and_noscan_are_apart),
		TEST(test_exit_without_memory_keeps_every_span),
		TEST(test_spare_spans_go_to_the_sets_when_memory_is_back),
		TEST(test_churn_without_memory),
		TEST(test_verify_sees_a_wrong_spare),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
