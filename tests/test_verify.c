/* test_verify.c - every tag of verify is proved by a corruption planted in a
 * heap with something of everything in it, and undone; a sound heap is silent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_die.h"
#include "heap_support.h"
#include "marena.h"
#include "mspanset.h"
#include "tls.h"

enum { SPC = 16, SLOTS = 128, ELEM = 256 };

static struct mcache *me;
static struct mspan *current, *full, *ready, *orphan_partial, *orphan_full, *large, *tiny;

static void *
take(size_t bytes)
{
	void *p = mallocgc(bytes, API_MALLOC);

	assert_non_null(p);
	return p;
}

/* One span in each place where a span can be, and idle pages. */
static int
setup(void **state)
{
	void *p[4 * SLOTS], *q[SLOTS + 5];

	(void)state;
	heap_stop();
	heap_start(NULL);
	me = heap_new_cache();
	heap_use(me);
	for (size_t i = 0; i < ARRAY_LEN(p); i++)
		p[i] = take(ELEM);
	for (int i = 0; i < 4 * SLOTS - SLOTS; i++)
		take(ELEM);
	full = me->full[SPC].head;
	for (int i = 0; i < 40; i++)
		freegc(p[2 * SLOTS + i], API_FREE);
	ready = me->ready[SPC].head;
	current = me->alloc[SPC].span;
	tiny = heap_span(mallocgc_noscan(5, API_NOSCAN));
	void *hole = take(3 << 20);
	large = heap_span(take(200000));
	freegc(hole, API_FREE);
	take(16);
	take(48);
	heap_use(heap_new_cache());
	for (size_t i = 0; i < ARRAY_LEN(q); i++)
		q[i] = take(ELEM);
	heap_exit(mcache_self());
	orphan_full = heap_span(q[0]);
	orphan_partial = heap_span(q[SLOTS]);
	heap_use(me);
	assert_true(full != NULL && ready != NULL && current != NULL);
	assert_true(me->pages.pages != 0);
	heap_assert_sound();
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	heap_stop();
	return 0;
}

/* ---- planting ---- */

static void
plant(const char *tag, void *field, const void *value, size_t n)
{
	unsigned char saved[16];

	assert_true(n <= sizeof(saved));
	memcpy(saved, field, n);
	assert_true(memcmp(saved, value, n) != 0);
	memcpy(field, value, n);
	bool found = heap_verify_finds(tag);
	memcpy(field, saved, n);
	if (!found)
		fail_msg("planted %s was not found", tag);
	heap_assert_sound();
}

static void
plant_u64(const char *tag, void *field, uint64_t v)
{
	plant(tag, field, &v, sizeof(v));
}

static void
plant_u32(const char *tag, void *field, uint32_t v)
{
	plant(tag, field, &v, sizeof(v));
}

static void
plant_u16(const char *tag, void *field, uint16_t v)
{
	plant(tag, field, &v, sizeof(v));
}

static void
plant_u8(const char *tag, void *field, uint8_t v)
{
	plant(tag, field, &v, sizeof(v));
}

static void
plant_ptr(const char *tag, void *field, void *v)
{
	plant(tag, field, &v, sizeof(v));
}

static atomic_ptr *
entry(const struct mspan *s, size_t page)
{
	uintptr_t at = s->base + page * PAGE_SIZE;

	return &arena_of(at)->spans[arena_page_idx(at)];
}

/* ---- arenas ---- */

static void
test_arena(void **state)
{
	uintptr_t free_page = large->base + mspan_bytes(large);
	struct heap_arena *a = arena_of(full->base);
	size_t second = arena_page_idx(full->base) + 1;

	(void)state;
	plant_ptr("ARENA-1", entry(full, 1), NULL);
	plant_ptr("ARENA-1", entry(full, 1), large);
	plant_ptr("ARENA-2", entry(large, large->npages - 1), NULL);
	plant_ptr("ARENA-2", entry(large, 3), large);
	plant_u64("ARENA-3", &a->page_in_use[second / 64],
	    a64_load_relaxed(&a->page_in_use[second / 64]) | (uint64_t)1 << (second % 64));
	/* a bit where no span is, and pages of a cache that are another's */
	plant_u64("ARENA-3", &a->page_in_use[ARENA_WORDS - 1], 1);
	plant_u64("MCACHE-6", &me->pages.base, align_down(large->base, PAGE_CACHE_PAGES * PAGE_SIZE));
	plant_u32("MCACHE-2", &me->alloc[current->span_class].elem_bytes, 1);
	/* no bit at the first page: a span that no list knows of */
	size_t first = arena_page_idx(large->base);
	plant_u64("MHEAP-3", &a->page_in_use[first / 64],
	    a64_load_relaxed(&a->page_in_use[first / 64]) & ~((uint64_t)1 << (first % 64)));
	while (!page_alloc_is_free(&mheap_.pages, free_page))
		free_page += PAGE_SIZE;
	plant_ptr("ARENA-4", &arena_of(free_page)->spans[arena_page_idx(free_page)], full);
}

/* ---- spans ---- */

static void
test_span_bits(void **state)
{
	struct mspan *tail = heap_span(take(48));       /* 341 slots: the last word has room */
	size_t last = tail->nwords - 1;
	uint64_t beyond = (uint64_t)1 << 63;

	(void)state;
	assert_true(tail->nelems % 64 != 0);
	uint64_t avail = orphan_partial->avail[0];
	assert_true(avail != 0);
	plant_u64("MSPAN-1", &orphan_partial->bits[0].live,
	    a64_load_relaxed(&orphan_partial->bits[0].live) | (avail & -avail));
	plant_u64("MSPAN-1", &orphan_partial->avail[0], avail | 1);
	plant_u64("MSPAN-2", &ready->bits[0].remote, ~a64_load_relaxed(&ready->bits[0].live));
	plant_u64("MSPAN-2", &tiny->bits[0].remote, (uint64_t)1 << 40);
	plant_u64("MSPAN-3", &tail->bits[last].live, a64_load_relaxed(&tail->bits[last].live) | beyond);
	plant_u64("MSPAN-3", &tail->avail[last], tail->avail[last] | beyond);
	plant_u64("MSPAN-3", &tail->bits[last].remote, beyond);
	plant_u64("MSPAN-3", &large->bits[0].live, 3);
	plant_u64("MSPAN-3", &full->bits[2].live, 1);
}

static void
test_span_counts(void **state)
{
	(void)state;
	plant_u32("MSPAN-4", &orphan_partial->avail_n, orphan_partial->avail_n + 1);
	plant_u32("MSPAN-4", &current->avail_n, 1);
	plant_u64("MSPAN-4", &tiny->avail[20], tiny->avail[20] & (tiny->avail[20] - 1));
	plant_u32("MSPAN-5", &full->avail_n, 2);
}

static void
test_span_geometry(void **state)
{
	(void)state;
	static uint64_t elsewhere[64];

	plant_ptr("MSPAN-6", &full->avail, elsewhere);
	plant_ptr("MCACHE-2", &large->owner, elsewhere);
	plant_u64("MSPAN-6", &tiny->elem_bytes, 8);
	plant_u32("MSPAN-6", &tiny->divmul, 1);
	plant_u32("MSPAN-6", &full->nelems, full->nelems - 1);
	plant_u32("MSPAN-6", &full->divmul, full->divmul + 1);
	plant_u64("MSPAN-6", &full->elem_bytes, full->elem_bytes / 2);
	plant_u64("MSPAN-6", &full->npages, full->npages + 1);
	plant_u64("MSPAN-6", &full->npages, 0);
	plant_u8("MSPAN-6", &full->span_class, SPC + 1);
	plant_u8("MSPAN-6", &full->span_class, 255);
	plant_u16("MSPAN-6", &full->nwords, 1);
	plant_u16("MSPAN-6", &full->room_words, (uint16_t)(full->room_words + 1));
	plant_u16("MSPAN-6", &full->room_words, (uint16_t)(full->nwords - 1));
	plant_u64("MSPAN-8", &large->elem_bytes, large->elem_bytes + PAGE_SIZE);
	plant_u64("MSPAN-8", &large->npages, large->npages - 1);
	plant_u32("MSPAN-6", &large->nelems, 2);
	plant_u32("MHEAP-1", &full->state, SPAN_DEAD);
	plant_u32("MHEAP-1", &large->state, 7);
}

/* ---- caches ---- */

static void
test_window(void **state)
{
	struct mcache_alloc *a = &me->alloc[2];

	(void)state;
	take(32);
	take(32);
	assert_true(a->n >= 2 && a->n < WINDOW_SLOTS);
	uint16_t slot = a->order[0];
	struct mspan *s = a->span;
	plant_u64("MSPAN-7", &s->bits[slot / 64].live,
	    a64_load_relaxed(&s->bits[slot / 64].live) | (uint64_t)1 << (slot % 64));
	plant_u64("MSPAN-7", &s->avail[slot / 64], s->avail[slot / 64] | (uint64_t)1 << (slot % 64));
	plant_u16("MCACHE-1", &a->order[0], a->order[1]);
	plant_u16("MCACHE-1", &a->order[0], (uint16_t)s->nelems);
	plant_u16("MCACHE-1", &a->order[0], 0xffff);
	plant_u32("MCACHE-1", &a->n, WINDOW_SLOTS + 1);
	plant_u32("MCACHE-1", &a->n, UINT32_MAX);
	plant_u64("MCACHE-2", &a->base, a->base + 16);
	plant_ptr("MCACHE-2", &a->span, full);
	plant_ptr("MCACHE-2", &s->owner, &mcache_none);
	assert_null(me->alloc[40].span);
	plant_u32("MCACHE-3", &me->alloc[40].n, 1);
}

static void
test_page_caches(void **state)
{
	struct mcache *other = heap_new_cache();

	(void)state;
	heap_use(other);
	take(48);
	heap_use(me);
	uint64_t both = me->pages.pages & other->pages.pages;
	assert_true(both != 0 && me->pages.base != other->pages.base);
	plant_u64("MCACHE-6", &me->pages.base, me->pages.base + 8);
	plant_u64("MCACHE-6", &me->pages.base, me->pages.base + CHUNK_SIZE);    /* not grown */
	plant_u64("MCACHE-6", &me->pages.base, other->pages.base);
	plant_u64("MCACHE-6", &other->pages.base, me->pages.base);
	uintptr_t first = me->pages.base + ((uintptr_t)ctz64(me->pages.pages) << PAGE_SHIFT);
	struct mspan *before = arena_span_containing(first - PAGE_SIZE);
	assert_non_null(before);
	plant_u8("MCACHE-6", &before->guards, GUARD_AFTER);
	heap_use(other);
	heap_exit(other);
	heap_use(me);
}

static void
test_lists(void **state)
{
	(void)state;
	plant_u8("MCACHE-2", &full->list, LIST_READY);
	plant_u8("MCACHE-2", &ready->list, LIST_NONE);
	plant_u8("MCACHE-2", &current->list, LIST_FULL);
	plant_ptr("MCACHE-2", &full->owner, &mcache_none);
	plant_ptr("MCACHE-2", &full->prev, ready);
	plant_u64("MCACHE-4", &me->full[SPC].n, me->full[SPC].n + 1);
	plant_u64("MCACHE-4", &me->full[SPC].n, me->full[SPC].n - 1);
	plant_ptr("MCACHE-4", &me->ready[SPC].tail, NULL);
	plant_ptr("MCACHE-4", &me->ready[SPC].head, NULL);
	plant_ptr("MCACHE-4", &full->next, NULL);
}

/* ---- central lists ---- */

static void
test_central(void **state)
{
	struct mcentral *m = &mheap_.central[SPC];

	(void)state;
	plant_ptr("MCENTRAL-1", &orphan_full->owner, me);
	plant_u32("MCENTRAL-1", &orphan_full->state, SPAN_PARKED);
	plant_u8("MCENTRAL-1", &orphan_partial->span_class, SPC + SPAN_NOSCAN);
	plant_u32("MCENTRAL-2", &orphan_full->sweepgen, orphan_full->sweepgen - 2);
	plant_u32("MCENTRAL-2", &orphan_partial->avail_n, 0);
	plant_u32("MCENTRAL-2", &orphan_full->avail_n, 1);
	plant_u8("MCENTRAL-3", &orphan_full->list, LIST_FULL);
	plant_u32("MCENTRAL-4", &m->sweepgen, a32_load_relaxed(&m->sweepgen) + 1);
	plant_u32("MCENTRAL-4", &m->sweepgen, 0);

	/* the same span in two sets */
	size_t swept = a32_load_relaxed(&m->sweepgen) / 2 % 2;
	assert_true(span_set_push(&m->full[1 - swept], &mheap_.meta, orphan_full));
	assert_true(heap_verify_finds("MCENTRAL-3"));
	assert_ptr_equal(span_set_pop(&m->full[1 - swept]), orphan_full);
	heap_assert_sound();
}

/* ---- the heap ---- */

static void
test_heap_counts(void **state)
{
	struct page_alloc *p = &mheap_.pages;

	(void)state;
	plant_u64("MHEAP-2", &me->pages.pages, me->pages.pages & (me->pages.pages - 1));
	plant_u64("MHEAP-3", &mheap_.spans_in_use, a64_load_relaxed(&mheap_.spans_in_use) + 1);
	plant_u64("MHEAP-3", &mheap_.span_pages_in_use,
	    a64_load_relaxed(&mheap_.span_pages_in_use) - 1);
	plant_u64("PAGE-4", &p->free_pages, p->free_pages + 1);
	plant_u64("MHEAP-2", &p->free_pages, p->free_pages + 1);
	plant_u64("PAGE-5", &p->scavenged_pages, p->scavenged_pages + 1);
	plant_u64("PAGE-6", &p->grown_pages, p->grown_pages + CHUNK_PAGES);
	plant_u64("PAGE-7", &p->search_addr, ADDR_LIMIT - PAGE_SIZE);
	plant_u64("PAGE-7", &p->search_addr, PAGE_SEARCH_NONE);
	plant_u64("PAGE-7", &p->search_addr, 4096);
}

/* A page of a live span that the page allocator takes for free. */
static void
test_page_in_two_places(void **state)
{
	struct page_alloc *p = &mheap_.pages;

	(void)state;
	page_alloc_free(p, full->base, 1);
	assert_true(heap_verify_finds("MHEAP-2"));
	size_t zeroed;
	assert_true(page_alloc_alloc_at(p, full->base, 1, &zeroed));
	heap_assert_sound();
}

static void
test_page_bits(void **state)
{
	struct page_alloc *p = &mheap_.pages;
	size_t region = full->base >> PAGE_REGION_SHIFT;
	struct page_region *r = p->regions[region];
	size_t chunk = full->base >> CHUNK_SHIFT & (PAGE_REGION_CHUNKS - 1);
	struct page_bits *scav = &r->chunks[chunk].scav;
	unsigned page = (unsigned)(full->base >> PAGE_SHIFT & (CHUNK_PAGES - 1));
	uint64_t bit = (uint64_t)1 << (page % 64);
	size_t leaves = 8 + 64 + 512;

	(void)state;
	plant_u64("PAGE-1", &r->sums[leaves + chunk], r->sums[leaves + chunk] ^ 1);
	plant_u64("PAGE-2", &r->sums[8 + 64 + chunk / 8], r->sums[8 + 64 + chunk / 8] ^ 1);
	plant_u64("PAGE-2", &p->root[region], p->root[region] ^ 2);
	size_t empty = region == 0 ? 1 : 0;
	assert_null(p->regions[empty]);
	plant_u64("PAGE-2", &p->root[empty], 5);
	plant_u64("PAGE-3", &scav->w[page / 64], scav->w[page / 64] | bit);
	plant_u64("PAGE-8", &p->region_map[empty / 64],
	    p->region_map[empty / 64] | (uint64_t)1 << (empty % 64));
	size_t absent = chunk == PAGE_REGION_CHUNKS - 1 ? 0 : PAGE_REGION_CHUNKS - 1;
	plant_u64("PAGE-8", &r->chunks[absent].alloc.w[0], 1);
	plant_u64("PAGE-1", &r->sums[leaves + absent], 1);
	plant_u64("PAGE-9", &r->scav_maybe[chunk / 64],
	    r->scav_maybe[chunk / 64] & ~((uint64_t)1 << (chunk % 64)));
	if (region > 0)
		plant_u64("PAGE-9", &p->scav_region, region - 1);
}

/* ---- what verify does with what it finds ---- */

static void
die_of_it(void *arg)
{
	(void)arg;
	verify_or_die();
}

static void
now_and_then(void *arg)
{
	(void)arg;
	verify_now_and_then();
}

static void
test_or_die_names_the_first(void **state)
{
	(void)state;
	verify_or_die();
	assert_int_equal(verify_report(), 0);
	a64_fetch_add(&mheap_.spans_in_use, 1);
	assert_true(fake_die_caught(die_of_it, NULL));
	a64_fetch_sub(&mheap_.spans_in_use, 1);
	assert_int_equal(fake_die_info.code, DIE_VERIFY);
	assert_string_equal(fake_die_info.site, "MHEAP-3");
	assert_int_equal(fake_die_info.addr, (uintptr_t)&mheap_);
	full->budget++;                         /* nothing that anybody promises */
	assert_int_equal(verify_report(), 0);
	heap_assert_sound();
}

static void
test_more_failures_than_room(void **state)
{
	struct verify_failure f[VERIFY_MAX_FAILURES];
	struct mspan *s = heap_span(take(100000));

	(void)state;
	for (size_t i = 1; i + 1 < s->npages; i++)
		aptr_store_relaxed(entry(s, i), s);
	void *p = take(300000);
	s = heap_span(p);
	for (size_t i = 1; i + 1 < s->npages; i++)
		aptr_store_relaxed(entry(s, i), s);
	size_t n = verify_heap(&mheap_, me, true, f);
	assert_true(n > VERIFY_MAX_FAILURES);
	for (size_t i = 0; i < VERIFY_MAX_FAILURES; i++)
		assert_string_equal(f[i].tag, "ARENA-2");
}

/* Inside its slow path a thread has a heap in pieces: not now. */
static void
test_not_from_the_slow_path(void **state)
{
	(void)state;
	a64_fetch_add(&mheap_.spans_in_use, 1);
	me->busy = CACHE_SLOW;
	assert_int_equal(verify_report(), 0);
	verify_from_signal();
	me->busy = CACHE_IDLE;
	assert_true(verify_report() > 0);
	/* what the signal asked for is made up for */
	assert_true(fake_die_caught(now_and_then, NULL));
	assert_string_equal(fake_die_info.site, "MHEAP-3");
	a64_fetch_sub(&mheap_.spans_in_use, 1);
	verify_now_and_then();
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_arena),
		TEST(test_span_bits),
		TEST(test_span_counts),
		TEST(test_span_geometry),
		TEST(test_window),
		TEST(test_page_caches),
		TEST(test_lists),
		TEST(test_central),
		TEST(test_heap_counts),
		TEST(test_page_in_two_places),
		TEST(test_page_bits),
		TEST(test_or_die_names_the_first),
		TEST(test_more_failures_than_room),
		TEST(test_not_from_the_slow_path),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
