/* test_mcache_fake.c - one thread's cache, step by step: where the next slot
 * comes from, when a freed slot may come back, budgets, notes of other threads'
 * frees (late ones too), release, trim, fork. One test thread plays them all. */
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

/* 512 bytes: 32 slots, one window, one word; sweep and note at a quarter. */
enum { SPC = 24, SLOTS = 32, ELEM = 512, QUARTER = SLOTS / 4 };

static struct mcache *me, *other;

static int
setup(void **state)
{
	(void)state;
	heap_stop();
	fake_sys_reset(NULL);
	heap_start(NULL);
	me = heap_new_cache();
	other = heap_new_cache();
	heap_use(me);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	heap_stop();
	return 0;
}

static void *
take(void)
{
	void *p = mallocgc(ELEM, API_MALLOC);

	assert_non_null(p);
	return p;
}

static void
take_n(void **p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = take();
}

static void
drop(void *p)
{
	freegc(p, API_FREE);
}

/* By a thread that does not own it. */
static void
drop_remote(void *p)
{
	heap_use(other);
	freegc(p, API_FREE);
	heap_use(me);
}

static size_t
spans(void)
{
	return a64_load_relaxed(&mheap_.spans_in_use);
}

static size_t
notes(const struct mcache *c)
{
	size_t n = 0;

	for (struct mspan *s = aptr_load_relaxed(&c->notes); s != NULL;
	    s = aptr_load_relaxed(&s->note_next))
		n++;
	return n;
}

/* ---- windows and refill ---- */

static void
test_first_slot(void **state)
{
	struct mcache_alloc *a = &me->alloc[SPC];
	char *p = take();

	(void)state;
	assert_int_equal(a->n, FIRST_WINDOW_SLOTS - 1);
	assert_ptr_equal(a->span, span_of((uintptr_t)p));
	assert_int_equal(a->span->list, LIST_CURRENT);
	assert_ptr_equal(aptr_load_relaxed(&a->span->owner), me);
	assert_int_equal(me->handed_out, FIRST_WINDOW_SLOTS);
	assert_int_equal(me->slow_ops, 1);
	assert_int_equal((uintptr_t)p, a->span->base);
	assert_ptr_equal(take(), p + ELEM);
	assert_int_equal(me->slow_ops, 1);
	assert_false(me->busy);
	heap_assert_sound();
}

static void
test_fresh_means_zero(void **state)
{
	bool fresh;
	char *p = mcache_next_slot(me, SPC, &fresh);

	(void)state;
	assert_true(fresh);
	for (int i = 0; i < ELEM; i++)
		assert_int_equal(p[i], 0);
	void *all[SLOTS];
	take_n(all, SLOTS - 1);
	memset(p, 1, ELEM);
	drop(p);
	for (int i = 0; i < 20; i++)
		drop(all[i]);
	p = mcache_next_slot(me, SPC, &fresh);
	assert_false(fresh);
	heap_assert_sound();
}

/* A full current span goes on the full list; the class takes a new one. */
static void
test_exhausted_span_is_filed(void **state)
{
	void *p[SLOTS + 1];

	(void)state;
	take_n(p, SLOTS + 1);
	struct mspan *s = heap_span(p[0]);
	assert_int_equal(s->list, LIST_FULL);
	assert_ptr_equal(me->full[SPC].head, s);
	assert_int_equal(me->full[SPC].n, 1);
	assert_int_equal(s->budget, s->sweep_at);
	assert_ptr_not_equal(heap_span(p[SLOTS]), s);
	heap_assert_sound();
}

/* The slot quarantine: fewer than sweep_at freed slots are not seen again. */
static void
test_no_reuse_before_the_sweep(void **state)
{
	void *p[SLOTS], *q[3 * SLOTS];

	(void)state;
	take_n(p, SLOTS);
	assert_int_equal(heap_span(p[0])->sweep_at, QUARTER);
	for (int i = 0; i < QUARTER - 1; i++)
		drop(p[i]);
	take_n(q, ARRAY_LEN(q));
	for (size_t i = 0; i < ARRAY_LEN(q); i++)
		for (int k = 0; k < SLOTS; k++)
			assert_ptr_not_equal(q[i], p[k]);
	for (int i = 0; i < QUARTER - 1; i++)
		assert_true(heap_free_dies(p[i], DIE_DOUBLE_FREE));
	/* the sixteenth makes the sweep worth while, at the next refill */
	drop(p[QUARTER - 1]);
	assert_int_equal(heap_span(p[0])->list, LIST_READY);
	for (int i = 0; i < QUARTER; i++)
		assert_true(heap_free_dies(p[i], DIE_DOUBLE_FREE));
	take_n(q, QUARTER);
	for (int i = 0; i < QUARTER; i++)
		assert_ptr_equal(q[i], p[i]);
	heap_assert_sound();
}

/* 1: the current span, swept when enough of it is free. */
static void
test_refill_sweeps_the_current_span(void **state)
{
	void *p[SLOTS];

	(void)state;
	take_n(p, SLOTS);
	for (int i = 0; i < QUARTER; i++)
		drop(p[4 * i]);
	for (int i = 0; i < QUARTER; i++)
		assert_ptr_equal(take(), p[4 * i]);
	assert_int_equal(spans(), 1);
	heap_assert_sound();
}

/* 2: the rest of a span comes before another span, freed slots before fresh. */
static void
test_refill_takes_the_next_window(void **state)
{
	void *p[1024];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(p); i++)
		p[i] = mallocgc(16, API_MALLOC);
	for (size_t i = 0; i < ARRAY_LEN(p); i++)
		assert_int_equal((uintptr_t)p[i], (uintptr_t)p[0] + 16 * i);
	assert_int_equal(spans(), 1);
	/* windows of 16, 32, 64, 64, ... and the 16 that are left */
	assert_int_equal(me->slow_ops, 1024 / WINDOW_SLOTS + 2);
	assert_int_equal(me->alloc[1].drawn, FIRST_WINDOW_SLOTS);
	heap_assert_sound();
}

/* 3 before 5 and 7: a ready span, in the order in which they became ready. */
static void
test_refill_takes_ready_spans_in_order(void **state)
{
	void *p[4 * SLOTS];

	(void)state;
	take_n(p, ARRAY_LEN(p));
	for (int i = 0; i < QUARTER; i++)
		drop(p[2 * SLOTS + i]);
	for (int i = 0; i < QUARTER; i++)
		drop(p[i]);
	assert_int_equal(me->ready[SPC].n, 2);
	for (int i = 0; i < QUARTER; i++)
		assert_ptr_equal(take(), p[2 * SLOTS + i]);
	for (int i = 0; i < QUARTER; i++)
		assert_ptr_equal(take(), p[i]);
	assert_int_equal(spans(), 4);
	take();
	assert_int_equal(spans(), 5);
	heap_assert_sound();
}

/* 4: spans that others told us about. */
static void
test_refill_takes_notes(void **state)
{
	void *p[2 * SLOTS + 1];

	(void)state;
	take_n(p, 2 * SLOTS);
	for (int i = 0; i < QUARTER - 1; i++)
		drop_remote(p[i]);
	assert_int_equal(notes(me), 0);
	drop_remote(p[QUARTER - 1]);
	assert_int_equal(notes(me), 1);
	assert_int_equal(notes(other), 0);
	heap_assert_sound();
	for (int i = 0; i < QUARTER; i++)
		assert_ptr_equal(take(), p[i]);
	assert_int_equal(notes(me), 0);
	assert_int_equal(a32_load_relaxed(&heap_span(p[0])->note_queued), 0);
	assert_int_equal(spans(), 2);
	heap_assert_sound();
}

/* 5: remote frees that came one short of a note are found by looking. */
static void
test_refill_looks_at_full_spans(void **state)
{
	void *p[3 * SLOTS];

	(void)state;
	take_n(p, ARRAY_LEN(p));
	struct mspan *s = heap_span(p[0]);
	for (int i = 0; i < QUARTER - 1; i++)
		drop_remote(p[i]);
	assert_int_equal(notes(me), 0);
	drop(p[QUARTER]);               /* the owner's own: a quarter in all */
	assert_int_equal(s->list, LIST_FULL);
	for (int i = 0; i < QUARTER - 1; i++)
		assert_ptr_equal(take(), p[i]);
	assert_ptr_equal(take(), p[QUARTER]);
	assert_int_equal(spans(), 3);
	heap_assert_sound();
}

/* 5: eight in turn, so every full span is looked at sooner or later. */
static void
test_full_list_is_looked_at_in_turn(void **state)
{
	enum { SPANS = 40 };
	static void *p[SPANS * SLOTS];

	(void)state;
	take_n(p, ARRAY_LEN(p));
	for (int i = 0; i < QUARTER - 1; i++)
		drop_remote(p[SPANS / 2 * SLOTS + i]);
	drop(p[SPANS / 2 * SLOTS + QUARTER - 1]);
	struct mspan *s = heap_span(p[SPANS / 2 * SLOTS]);
	size_t takes = 0;
	while (s->list == LIST_FULL && takes < 8 * SLOTS) {
		take();
		takes++;
	}
	assert_in_range(takes, 2 * SLOTS, 4 * SLOTS);
	heap_assert_sound();
}

/* 6 before 7: what a dead thread left. */
static void
test_refill_adopts_before_it_grows(void **state)
{
	void *p[10];

	(void)state;
	heap_use(other);
	take_n(p, 10);
	heap_exit(other);
	heap_use(me);
	assert_ptr_equal(take(), (char *)p[9] + ELEM);
	assert_int_equal(spans(), 1);
	heap_assert_sound();
}

static void
test_no_memory(void **state)
{
	void *p[SLOTS];

	(void)state;
	take_n(p, SLOTS);
	fake_sys_fail(FAKE_SYS_CAN_FAIL, 1, true);
	while (mallocgc(ELEM, API_MALLOC) != NULL)
		continue;
	heap_assert_sound();
	assert_null(me->alloc[SPC].span);
	assert_false(me->busy);
	for (int i = 0; i < QUARTER; i++)
		drop(p[i]);
	assert_ptr_equal(mallocgc(ELEM, API_MALLOC), p[0]);
	fake_sys_fail(0, 0, false);
	for (int i = 0; i < 100; i++)
		take();
	heap_assert_sound();
}

/* ---- budgets ---- */

static void
test_budget_of_a_full_span(void **state)
{
	void *p[2 * SLOTS];

	(void)state;
	take_n(p, ARRAY_LEN(p));
	struct mspan *s = heap_span(p[0]);
	for (int i = 0; i < QUARTER - 1; i++) {
		assert_int_equal(s->budget, QUARTER - i);
		drop(p[i]);
		assert_int_equal(s->list, LIST_FULL);
	}
	drop(p[QUARTER - 1]);
	assert_int_equal(s->list, LIST_READY);
	assert_int_equal(s->budget, SLOTS - QUARTER);        /* until it is empty */
	heap_assert_sound();
}

/* Empty spans are kept up to the floor, the oldest go first. */
static void
test_empty_spans_are_idle_oldest_out_first(void **state)
{
	enum { SPANS = 24 };
	static void *p[SPANS * SLOTS];
	size_t pages = size_classes[SPC].span_pages, keep = IDLE_FLOOR_PAGES / pages;

	(void)state;
	take_n(p, ARRAY_LEN(p));
	assert_int_equal(spans(), SPANS);
	struct mspan *first = heap_span(p[0]);
	for (size_t i = 0; i < keep * SLOTS; i++)
		drop(p[i]);
	assert_int_equal(spans(), SPANS);
	assert_int_equal(me->idle.n, keep);
	assert_int_equal(first->list, LIST_IDLE);
	assert_int_equal(me->owned_pages, SPANS * pages);
	heap_assert_sound();
	for (size_t i = keep * SLOTS; i < (keep + 3) * SLOTS; i++)
		drop(p[i]);
	assert_int_equal(spans(), SPANS - 3);
	assert_int_equal(me->idle.n, keep);
	assert_int_equal(a32_load_relaxed(&first->state), SPAN_DEAD);
	assert_int_equal(me->owned_pages, (SPANS - 3) * pages);
	heap_assert_sound();
	/* the current one's frees are nobody's budget */
	for (size_t i = (SPANS - 1) * SLOTS; i < SPANS * SLOTS; i++)
		drop(p[i]);
	assert_int_equal(me->alloc[SPC].span->list, LIST_CURRENT);
	assert_int_equal(me->idle.n, keep);
	heap_assert_sound();
}

/* A refill of the class takes the last that became idle, and no other class does. */
static void
test_idle_spans_are_taken_by_their_class(void **state)
{
	void *p[3 * SLOTS];

	(void)state;
	take_n(p, ARRAY_LEN(p));
	for (size_t i = 0; i < 2 * SLOTS; i++)
		drop(p[i]);
	assert_int_equal(me->idle_n[SPC], 2);
	assert_non_null(mallocgc(2 * ELEM, API_MALLOC));
	assert_int_equal(me->idle_n[SPC], 2);
	assert_ptr_equal(heap_span(take()), heap_span(p[SLOTS]));
	assert_int_equal(me->idle_n[SPC], 1);
	assert_int_equal(spans(), 4);
	heap_assert_sound();
}

/* An empty current span of a class that nobody asks for any more becomes idle
 * when the refills of others are counted; one in which something lives stays. */
static void
test_review_of_current_spans(void **state)
{
	void *small = mallocgc(16, API_MALLOC), *kept = mallocgc(48, API_MALLOC);
	struct mspan *s = heap_span(small);

	(void)state;
	drop(small);
	for (int i = 0; i < 2 * REVIEW_REFILLS * WINDOW_SLOTS; i++)
		take();
	assert_int_equal(s->list, LIST_IDLE);
	assert_int_equal(heap_span(kept)->list, LIST_CURRENT);
	heap_assert_sound();
	assert_ptr_equal(heap_span(mallocgc(16, API_MALLOC)), s);
	heap_assert_sound();
}

/* A window grows with the refills of its class, and begins anew when these stop. */
static void
test_windows_grow(void **state)
{
	struct mcache_alloc *a = &me->alloc[1];

	(void)state;
	for (unsigned want = FIRST_WINDOW_SLOTS; want < 4 * WINDOW_SLOTS; want *= 2) {
		mallocgc(16, API_MALLOC);
		assert_int_equal(a->drawn, want < WINDOW_SLOTS ? want : WINDOW_SLOTS);
		while (a->n != 0)
			mallocgc(16, API_MALLOC);
	}
	for (int i = 0; i < 2 * REVIEW_REFILLS * WINDOW_SLOTS; i++)
		take();
	assert_int_equal(me->alloc[SPC].drawn, SLOTS);  /* all that the span has */
	mallocgc(16, API_MALLOC);
	assert_int_equal(a->drawn, FIRST_WINDOW_SLOTS);
	heap_assert_sound();
}

/* Remote frees count, though they do not touch the budget. */
static void
test_budget_and_remote_frees(void **state)
{
	void *p[2 * SLOTS];

	(void)state;
	take_n(p, ARRAY_LEN(p));
	struct mspan *s = heap_span(p[0]);
	for (int i = 0; i < 10; i++)
		drop_remote(p[i]);
	for (int i = 10; i < 10 + QUARTER; i++)
		drop(p[i]);                             /* the whole budget */
	assert_int_equal(s->list, LIST_READY);
	assert_int_equal(s->budget, SLOTS - QUARTER - 10);
	assert_int_equal(popcount64(a64_load_relaxed(&s->bits[0].remote)), 0);
	heap_assert_sound();
}

static void
test_budget_in_a_signal_handler(void **state)
{
	void *p[2 * SLOTS];
	struct mspan *s;

	(void)state;
	take_n(p, ARRAY_LEN(p));
	s = heap_span(p[0]);
	for (int i = 0; i < QUARTER - 1; i++)
		drop(p[i]);
	me->busy = CACHE_SLOW;
	drop(p[QUARTER - 1]);
	assert_int_equal(s->list, LIST_FULL);
	assert_int_equal(s->budget, 1);         /* asked again at the next free */
	me->busy = CACHE_IDLE;
	drop(p[QUARTER]);
	assert_int_equal(s->list, LIST_READY);
	heap_assert_sound();
}

/* ---- frees by others ---- */

static void
test_remote_free_is_exact(void **state)
{
	void *p[SLOTS];
	struct mspan *s;

	(void)state;
	take_n(p, SLOTS);
	s = heap_span(p[0]);
	assert_true(mcache_free_remote(&mheap_, s, 7));
	assert_false(mcache_free_remote(&mheap_, s, 7));
	mspan_drain(s);
	assert_false(mcache_free_remote(&mheap_, s, 7));
	drop(p[8]);
	assert_false(mcache_free_remote(&mheap_, s, 8));
	heap_assert_sound();
}

/* Once at the threshold, once when the word is all free; not once per free. */
static void
test_owner_is_told_per_batch(void **state)
{
	void *p[2 * SLOTS];
	struct mspan *s;

	(void)state;
	take_n(p, ARRAY_LEN(p));
	s = heap_span(p[0]);
	for (int i = 0; i < SLOTS; i++) {
		drop_remote(p[i]);
		assert_int_equal(a32_load_relaxed(&s->note_queued), i >= QUARTER - 1);
		assert_int_equal(notes(me), i >= QUARTER - 1);
	}
	/* the note is taken: the next full word tells again */
	take_n(p, SLOTS);
	assert_int_equal(notes(me), 0);
	heap_assert_sound();
}

/* A small last word, and one word emptied below the threshold. */
static void
test_owner_is_told_when_a_word_is_empty(void **state)
{
	void *p[136 * 2];                        /* 240 bytes: 64 + 64 + 8 slots */
	struct mspan *s;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(p); i++)
		p[i] = mallocgc(240, API_MALLOC);
	s = heap_span(p[0]);
	assert_int_equal(s->nelems, 136);
	for (int i = 128; i < 135; i++)
		drop_remote(p[i]);
	assert_int_equal(notes(me), 0);
	drop_remote(p[135]);
	assert_int_equal(notes(me), 1);
	heap_assert_sound();
}

/* Two spans, two notes; all are taken at once. */
static void
test_notes_of_many_spans(void **state)
{
	enum { SPANS = 20 };
	static void *p[SPANS * SLOTS];

	(void)state;
	take_n(p, ARRAY_LEN(p));
	for (size_t k = 0; k + 1 < SPANS; k++)
		for (size_t i = 0; i < QUARTER; i++)
			drop_remote(p[k * SLOTS + i]);
	assert_int_equal(notes(me), SPANS - 1);
	take();
	assert_int_equal(notes(me), 0);
	assert_int_equal(me->ready[SPC].n, SPANS - 2);
	heap_assert_sound();
	for (size_t i = 1; i < QUARTER * (SPANS - 1); i++)
		take();
	assert_int_equal(spans(), SPANS);
}

/* The pusher had read the owner just before it was released: the note lies in
 * a cache that nobody has, and is passed on when somebody gets it. */
static void
test_late_note_to_a_released_cache(void **state)
{
	void *p[2 * SLOTS];
	struct mspan *s;

	(void)state;
	take_n(p, ARRAY_LEN(p));
	s = heap_span(p[0]);
	heap_exit(me);
	heap_use(other);
	heap_assert_sound();
	for (int i = 0; i < QUARTER - 1; i++)
		freegc(p[i], API_FREE);
	assert_int_equal(a64_load_relaxed(&mheap_.central[SPC].pending), 0);
	a32_store_relaxed(&s->note_queued, 1);
	aptr_store_relaxed(&s->note_next, NULL);
	aptr_store_relaxed(&me->notes, s);
	heap_assert_sound();
	struct mcache *again = heap_new_cache();
	assert_ptr_equal(again, me);             /* from the pool */
	heap_use(again);
	/* the refill takes the note and tells the class */
	take();
	assert_int_equal(a32_load_relaxed(&s->note_queued), 0);
	assert_int_equal(notes(again), 0);
	assert_int_equal(a32_load_relaxed(&mheap_.central[SPC].sweepgen), 4);
	heap_assert_sound();
}

/* ... or the span has another owner by then, who is told. */
static void
test_late_note_follows_the_span(void **state)
{
	void *p[SLOTS];
	struct mspan *s;

	(void)state;
	take_n(p, 10);
	s = heap_span(p[0]);
	heap_exit(me);
	heap_use(other);
	take();
	assert_ptr_equal(aptr_load_relaxed(&s->owner), other);
	a32_store_relaxed(&s->note_queued, 1);
	aptr_store_relaxed(&s->note_next, NULL);
	aptr_store_relaxed(&me->notes, s);
	struct mcache *again = heap_new_cache();
	heap_use(again);
	take();
	assert_int_equal(notes(again), 0);
	assert_int_equal(notes(other), 1);
	assert_ptr_equal(aptr_load_relaxed(&other->notes), s);
	heap_assert_sound();
}

/* A note of a span that is dead meanwhile goes nowhere. */
static void
test_late_note_of_a_dead_span(void **state)
{
	void *p[2 * SLOTS];
	struct mspan *s;

	(void)state;
	take_n(p, ARRAY_LEN(p));
	s = heap_span(p[0]);
	for (int i = 0; i < SLOTS; i++)
		drop_remote(p[i]);
	assert_int_equal(notes(me), 1);
	heap_use(other);
	mcache_trim_all(&mheap_, other);
	assert_int_equal(a32_load_relaxed(&s->state), SPAN_DEAD);
	assert_int_equal(notes(me), 1);
	heap_use(me);
	take();
	assert_int_equal(notes(me), 0);
	assert_int_equal(a32_load_relaxed(&s->note_queued), 0);
	heap_assert_sound();
}

/* ---- a cache's life ---- */

static void
test_release_leaves_nothing(void **state)
{
	static const size_t sizes[] = { 1, 16, 48, 100, 256, 1000, 5000, 32768 };
	void *p[ARRAY_LEN(sizes)];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		p[i] = i % 2 ? mallocgc(sizes[i], API_MALLOC) : mallocgc_noscan(sizes[i], API_NOSCAN);
	heap_exit(me);
	assert_false(me->in_use);
	assert_int_equal(me->tid, 0);
	assert_int_equal(me->pages.pages, 0);
	assert_int_equal(me->tiny, 0);
	for (unsigned spc = 0; spc < SPAN_CLASSES_ALL; spc++) {
		assert_null(me->alloc[spc].span);
		assert_int_equal(me->alloc[spc].n, 0);
		assert_int_equal(me->full[spc].n + me->ready[spc].n, 0);
	}
	heap_assert_sound();
	heap_use(other);
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		freegc(p[i], API_FREE);
	malloc_trim_all();
	assert_int_equal(spans(), 0);
	heap_assert_sound();
	/* the objects handed out; the windows' rests do not count */
	assert_int_equal(me->handed_out, ARRAY_LEN(sizes));
}

static void
test_caches_come_from_the_pool(void **state)
{
	size_t n = 0;

	(void)state;
	for (int i = 0; i < 100; i++) {
		heap_use(heap_new_cache());
		take();
		heap_exit(mcache_self());
	}
	for (struct mcache *c = mcache_first(); c != NULL; c = c->next)
		n++;
	assert_int_equal(n, 3);
	heap_assert_sound();
}

/* seed=N: the same placements again, thread by thread. */
static void
test_seed_repeats(void **state)
{
	struct heap_setup heap = { .randomize = true, .seed = 77 };
	static uintptr_t first[3][200];

	(void)state;
	for (int round = 0; round < 3; round++) {
		heap_stop();
		fake_sys_reset(NULL);
		heap.seed = round < 2 ? 77 : 78;
		heap_start(&heap);
		for (int t = 0; t < 2; t++) {
			heap_use(heap_new_cache());
			for (int i = 0; i < 100; i++)
				first[round][t * 100 + i] = (uintptr_t)mallocgc((size_t)i * 7, API_MALLOC);
		}
		heap_assert_sound();
	}
	assert_memory_equal(first[0], first[1], sizeof(first[0]));
	assert_memory_not_equal(first[0], first[2], sizeof(first[0]));
	/* the two threads draw from streams of their own */
	assert_memory_not_equal(&first[0][0], &first[0][100], 100 * sizeof(uintptr_t));
}

/* ---- trim ---- */

static void
test_trim_own(void **state)
{
	void *p[3 * SLOTS];

	(void)state;
	take_n(p, ARRAY_LEN(p));
	for (size_t i = 0; i < ARRAY_LEN(p); i++)
		drop(p[i]);
	assert_true(spans() > 0);
	size_t pages = mcache_trim_all(&mheap_, me);
	assert_true(pages >= size_classes[SPC].span_pages);
	assert_int_equal(spans(), 0);
	assert_int_equal(mheap_.pages.free_pages, mheap_.pages.grown_pages);
	heap_assert_sound();
	take();
	heap_assert_sound();
}

/* Other threads' current spans stay theirs; their empty ones go. */
static void
test_trim_of_others(void **state)
{
	void *p[3 * SLOTS];
	struct mspan *current;

	(void)state;
	take_n(p, ARRAY_LEN(p));
	current = me->alloc[SPC].span;
	heap_use(other);
	for (size_t i = 0; i < ARRAY_LEN(p); i++)
		freegc(p[i], API_FREE);
	mcache_trim_all(&mheap_, other);
	assert_int_equal(spans(), 1);
	assert_ptr_equal(me->alloc[SPC].span, current);
	heap_assert_sound();
	heap_use(me);
	assert_non_null(take());
	heap_assert_sound();
}

/* The block another thread's tiny allocator fills may lie in an empty span. */
static void
test_trim_leaves_tiny_spans_of_others(void **state)
{
	void *p = mallocgc_noscan(4, API_NOSCAN);
	uintptr_t block = me->tiny;

	(void)state;
	drop(p);
	heap_use(other);
	mcache_trim_all(&mheap_, other);
	assert_int_equal(spans(), 1);
	heap_use(me);
	p = mallocgc_noscan(4, API_NOSCAN);
	assert_int_equal(align_down((uintptr_t)p, TINY_BLOCK_BYTES), block);
	drop(p);
	mcache_trim_all(&mheap_, me);
	assert_int_equal(spans(), 0);
	assert_int_equal(me->tiny, 0);
	p = mallocgc_noscan(4, API_NOSCAN);
	assert_non_null(p);
	heap_assert_sound();
}

/* ---- fork ---- */

static void
test_child_gives_up_the_other_threads_caches(void **state)
{
	void *p[100], *mine;

	(void)state;
	heap_use(other);
	take_n(p, ARRAY_LEN(p));
	heap_use(me);
	mine = take();
	mcache_lock_all();
	mutex_lock(&mheap_.lock);
	/* what the child does, in the one process there is */
	mutex_reset(&mheap_.lock);
	mcache_after_fork_child(me, NULL, true);
	assert_false(other->in_use);
	assert_true(me->in_use);
	assert_int_equal(me->tid, sys_gettid());
	heap_assert_sound();
	for (size_t i = 0; i < ARRAY_LEN(p); i++)
		drop(p[i]);
	drop(mine);
	malloc_trim_all();
	assert_int_equal(spans(), 0);
	heap_assert_sound();
}

/* The other thread stood between taking a slot and setting its live bit, or
 * between the two in the other order: neither is handed out again unswept. */
static void
test_child_of_a_thread_in_the_middle_of_malloc(void **state)
{
	struct mcache_alloc *a = &other->alloc[SPC];
	struct mspan *s;

	(void)state;
	heap_use(other);
	take();
	s = a->span;
	uint16_t popped = a->order[--a->n];                     /* no live bit yet */
	uint16_t marked = a->order[a->n - 1];                   /* still in the window */
	a64_fetch_or(&s->bits[0].live, (uint64_t)1 << marked);
	heap_use(me);
	mcache_lock_all();
	mcache_after_fork_child(me, NULL, true);
	heap_assert_sound();
	for (int i = 0; i < SLOTS - 3; i++) {
		size_t idx = heap_slot(take());
		assert_true(idx != popped && idx != marked);
	}
	assert_ptr_equal(me->alloc[SPC].span, s);
	heap_assert_sound();
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_first_slot),
		TEST(test_fresh_means_zero),
		TEST(test_exhausted_span_is_filed),
		TEST(test_no_reuse_before_the_sweep),
		TEST(test_refill_sweeps_the_current_span),
		TEST(test_refill_takes_the_next_window),
		TEST(test_refill_takes_ready_spans_in_order),
		TEST(test_refill_takes_notes),
		TEST(test_refill_looks_at_full_spans),
		TEST(test_full_list_is_looked_at_in_turn),
		TEST(test_refill_adopts_before_it_grows),
		TEST(test_no_memory),
		TEST(test_budget_of_a_full_span),
		TEST(test_empty_spans_are_idle_oldest_out_first),
		TEST(test_idle_spans_are_taken_by_their_class),
		TEST(test_review_of_current_spans),
		TEST(test_windows_grow),
		TEST(test_budget_and_remote_frees),
		TEST(test_budget_in_a_signal_handler),
		TEST(test_remote_free_is_exact),
		TEST(test_owner_is_told_per_batch),
		TEST(test_owner_is_told_when_a_word_is_empty),
		TEST(test_notes_of_many_spans),
		TEST(test_late_note_to_a_released_cache),
		TEST(test_late_note_follows_the_span),
		TEST(test_late_note_of_a_dead_span),
		TEST(test_release_leaves_nothing),
		TEST(test_caches_come_from_the_pool),
		TEST(test_seed_repeats),
		TEST(test_trim_own),
		TEST(test_trim_of_others),
		TEST(test_trim_leaves_tiny_spans_of_others),
		TEST(test_child_gives_up_the_other_threads_caches),
		TEST(test_child_of_a_thread_in_the_middle_of_malloc),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
