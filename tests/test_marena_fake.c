/* test_marena_fake.c - the map from an address to its span: every page of small
 * spans, first and last of large ones, spans that cross arenas, any address
 * asked, what a released page remembers, no memory for an arena. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_sys.h"
#include "heap_support.h"
#include "marena.h"

/* Arenas far from anything the test process has; nothing is touched there. */
#define AREA ((uintptr_t)0x5a0000000000)

static struct persistent meta;
static const struct span_policy policy = { 25, (size_t)1 << 30, false };

static int
setup(void **state)
{
	(void)state;
	heap_stop();
	fake_sys_reset(NULL);
	persistent_init(&meta);
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
span_at(uintptr_t base, size_t npages, unsigned spc)
{
	struct mspan *s = persistent_alloc(&meta, mspan_struct_bytes(65), CACHE_LINE);

	assert_non_null(s);
	mspan_init(s, base, npages, spc, true, &policy);
	arena_set_span(s);
	return s;
}

static bool
in_use_bit(uintptr_t addr)
{
	size_t i = arena_page_idx(addr);

	return (a64_load_relaxed(&arena_of(addr)->page_in_use[i / 64]) >> (i % 64) & 1) != 0;
}

static uintptr_t
zeroed_base(uintptr_t addr)
{
	return a64_load_relaxed(&arena_of(addr)->zeroed_base);
}

static size_t
arenas(void)
{
	size_t n = 0;

	for (struct heap_arena *a = aptr_load_relaxed(&arena_map.all); a != NULL; a = a->next)
		n++;
	return n;
}

static void
test_any_address_may_be_asked(void **state)
{
	static const uintptr_t odd[] = {
		0, 1, 4096, ADDR_LIMIT - 1, ADDR_LIMIT, ADDR_LIMIT + 1, (uintptr_t)1 << 63,
		UINTPTR_MAX, UINTPTR_MAX - 4096, (uintptr_t)0xffff800000000000u, AREA - 1,
	};
	uint64_t r = 1;

	(void)state;
	assert_true(arena_add(&meta, AREA, ARENA_SIZE));
	for (size_t i = 0; i < ARRAY_LEN(odd); i++) {
		assert_null(arena_of(odd[i]));
		assert_null(span_of(odd[i]));
		assert_null(arena_span_containing(odd[i]));
	}
	for (int i = 0; i < 100000; i++) {
		uintptr_t a = heap_rand(&r);
		if (a - AREA >= ARENA_SIZE)
			assert_null(span_of(a));
	}
	assert_null(span_of((uintptr_t)&r));
	assert_non_null(arena_of(AREA));
	assert_non_null(arena_of(AREA + ARENA_SIZE - 1));
	assert_null(arena_of(AREA + ARENA_SIZE));
	assert_null(span_of(AREA));
}

static void
test_add(void **state)
{
	(void)state;
	assert_true(arena_add(&meta, AREA, 3 * ARENA_SIZE));
	assert_int_equal(arenas(), 3);
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(arena_of(AREA + i * ARENA_SIZE)->base, AREA + i * ARENA_SIZE);
	struct heap_arena *first = arena_of(AREA);
	assert_true(arena_add(&meta, AREA + ARENA_SIZE, 3 * ARENA_SIZE));   /* two are known */
	assert_int_equal(arenas(), 4);
	assert_ptr_equal(arena_of(AREA), first);
	/* parts of arenas, as where address space is short */
	assert_true(arena_add(&meta, AREA + 10 * ARENA_SIZE + 3 * CHUNK_SIZE, ARENA_SIZE));
	assert_int_equal(arenas(), 6);
	assert_non_null(arena_of(AREA + 10 * ARENA_SIZE));
	assert_non_null(arena_of(AREA + 11 * ARENA_SIZE));
}

static void
test_add_without_metadata(void **state)
{
	(void)state;
	fake_sys_fail(FAKE_SYS_ALLOC, 1, true);
	assert_false(arena_add(&meta, AREA, 64 * ARENA_SIZE));
	assert_int_equal(arenas(), 0);
	assert_null(arena_of(AREA));
	fake_sys_fail(0, 0, false);
	assert_true(arena_add(&meta, AREA, 64 * ARENA_SIZE));
	assert_int_equal(arenas(), 64);
}

/* ARENA-1, ARENA-3, ARENA-4 */
static void
test_small_span_on_every_page(void **state)
{
	struct mspan *s;

	(void)state;
	assert_true(arena_add(&meta, AREA, ARENA_SIZE));
	s = span_at(AREA + 5 * PAGE_SIZE, 3, 5);
	assert_null(span_of(AREA + 5 * PAGE_SIZE - 1));
	for (size_t i = 0; i < 3 * PAGE_SIZE; i += 512)
		assert_ptr_equal(span_of(AREA + 5 * PAGE_SIZE + i), s);
	assert_null(span_of(AREA + 8 * PAGE_SIZE));
	for (size_t i = 0; i < ARENA_PAGES; i++)
		assert_int_equal(in_use_bit(AREA + i * PAGE_SIZE), i == 5);
	arena_clear_span(s);
	for (size_t i = 0; i < ARENA_PAGES; i++) {
		assert_null(span_of(AREA + i * PAGE_SIZE));
		assert_false(in_use_bit(AREA + i * PAGE_SIZE));
	}
}

/* ARENA-2 */
static void
test_large_span_on_first_and_last_page(void **state)
{
	struct mspan *s, *one;

	(void)state;
	assert_true(arena_add(&meta, AREA, ARENA_SIZE));
	s = span_at(AREA + 10 * PAGE_SIZE, 20, SPAN_LARGE);
	one = span_at(AREA + 30 * PAGE_SIZE, 1, SPAN_LARGE_NOSCAN);
	for (size_t i = 0; i < 20; i++) {
		uintptr_t at = s->base + i * PAGE_SIZE;
		assert_ptr_equal(span_of(at), i == 0 || i == 19 ? s : NULL);
		assert_ptr_equal(arena_span_containing(at + 100), s);
	}
	assert_null(arena_span_containing(s->base - 1));
	assert_ptr_equal(arena_span_containing(s->base + 20 * PAGE_SIZE - 1), s);
	assert_ptr_equal(arena_span_containing(s->base + 20 * PAGE_SIZE), one);
	assert_ptr_equal(span_of(one->base), one);
	assert_null(arena_span_containing(s->base + 21 * PAGE_SIZE));
	arena_clear_span(s);
	for (size_t i = 0; i < 20; i++) {
		assert_null(span_of(AREA + (10 + i) * PAGE_SIZE));
		assert_null(arena_span_containing(AREA + (10 + i) * PAGE_SIZE));
	}
	arena_clear_span(one);
	assert_null(span_of(AREA + 30 * PAGE_SIZE));
}

static void
test_spans_cross_arenas(void **state)
{
	struct mspan *small, *large;

	(void)state;
	assert_true(arena_add(&meta, AREA, 8 * ARENA_SIZE));
	small = span_at(AREA + ARENA_SIZE - 2 * PAGE_SIZE, 4, 7);
	large = span_at(AREA + 2 * ARENA_SIZE - 3 * PAGE_SIZE, 4 * ARENA_PAGES, SPAN_LARGE);
	for (size_t i = 0; i < 4; i++)
		assert_ptr_equal(span_of(small->base + i * PAGE_SIZE), small);
	for (size_t i = 0; i < 4 * ARENA_PAGES; i += 97)
		assert_ptr_equal(arena_span_containing(large->base + i * PAGE_SIZE), large);
	uintptr_t end = large->base + mspan_bytes(large);
	assert_ptr_equal(arena_span_containing(end - 1), large);
	assert_ptr_equal(span_of(end - 1), large);
	assert_null(arena_span_containing(end));
	assert_null(span_of(AREA + 3 * ARENA_SIZE));
	arena_clear_span(large);
	arena_clear_span(small);
	for (size_t i = 0; i < 8 * ARENA_PAGES; i++)
		assert_null(span_of(AREA + i * PAGE_SIZE));
	/* ARENA-5, on both sides of the border */
	assert_int_equal(arena_of(AREA)->page_last[ARENA_PAGES - 1], 7 + 1);
	assert_int_equal(arena_of(AREA + ARENA_SIZE)->page_last[1], 7 + 1);
	assert_int_equal(arena_of(AREA + ARENA_SIZE)->page_last[2], 0);
}

/* No arena lies where the search for a span's start would go on. */
static void
test_search_ends_at_the_first_arena(void **state)
{
	(void)state;
	assert_true(arena_add(&meta, 0, ARENA_SIZE));
	assert_true(arena_add(&meta, AREA, ARENA_SIZE));
	assert_null(arena_span_containing(ARENA_SIZE - 1));
	assert_null(arena_span_containing(AREA + ARENA_SIZE - 1));
}

/* ARENA-5: of a large span only the first page knows; the others forget. */
static void
test_page_last(void **state)
{
	const struct heap_arena *a;
	struct mspan *s;

	(void)state;
	assert_true(arena_add(&meta, AREA, ARENA_SIZE));
	a = arena_of(AREA);
	for (size_t i = 0; i < 16; i++)
		assert_int_equal(a->page_last[i], 0);
	s = span_at(AREA, 8, 9);
	assert_int_equal(a->page_last[0], 0);
	arena_clear_span(s);
	for (size_t i = 0; i < 16; i++)
		assert_int_equal(a->page_last[i], i < 8 ? 9 + 1 : 0);
	s = span_at(AREA + 2 * PAGE_SIZE, 4, SPAN_LARGE_NOSCAN);
	arena_clear_span(s);
	assert_int_equal(a->page_last[1], 9 + 1);
	assert_int_equal(a->page_last[2], SPAN_LARGE_NOSCAN + 1);
	assert_int_equal(a->page_last[3], 0);
	assert_int_equal(a->page_last[5], 0);
	assert_int_equal(a->page_last[6], 9 + 1);
	s = span_at(AREA, 1, SPAN_TINY);
	arena_clear_span(s);
	assert_int_equal(a->page_last[0], SPAN_TINY + 1);
}

static void
test_zeroed_base_only_rises(void **state)
{
	(void)state;
	assert_true(arena_add(&meta, AREA, 2 * ARENA_SIZE));
	assert_int_equal(zeroed_base(AREA), AREA);
	span_at(AREA + 4 * PAGE_SIZE, 4, 9);
	assert_int_equal(zeroed_base(AREA), AREA + 8 * PAGE_SIZE);
	span_at(AREA, 2, 1);
	assert_int_equal(zeroed_base(AREA), AREA + 8 * PAGE_SIZE);
	span_at(AREA + ARENA_SIZE - PAGE_SIZE, 2, 1);
	assert_int_equal(zeroed_base(AREA), AREA + ARENA_SIZE);
	assert_int_equal(zeroed_base(AREA + ARENA_SIZE), AREA + ARENA_SIZE + PAGE_SIZE);
}

static void
resize(struct mspan *s, size_t npages)
{
	size_t old = s->npages;

	s->npages = npages;
	arena_resize_span(s, old);
	for (size_t i = 0; i < 40; i++) {
		uintptr_t at = s->base + i * PAGE_SIZE;
		assert_ptr_equal(span_of(at), i == 0 || i == npages - 1 ? s : NULL);
		assert_ptr_equal(arena_span_containing(at), i < npages ? s : NULL);
	}
}

static void
test_resize_moves_the_last_entry(void **state)
{
	static const size_t sizes[] = { 20, 30, 2, 1, 5, 4, 1, 40 };
	struct mspan *s;

	(void)state;
	assert_true(arena_add(&meta, AREA, 2 * ARENA_SIZE));
	s = span_at(AREA + ARENA_SIZE - 10 * PAGE_SIZE, 10, SPAN_LARGE);
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		resize(s, sizes[i]);
	assert_int_equal(zeroed_base(AREA + ARENA_SIZE), AREA + ARENA_SIZE + 30 * PAGE_SIZE);
}

/* ARENA-5 for what a span gives up: not what lived there before it. */
static void
test_resize_forgets_earlier_tenants(void **state)
{
	struct mspan *s;

	(void)state;
	assert_true(arena_add(&meta, AREA, ARENA_SIZE));
	s = span_at(AREA, 8, 9);
	arena_clear_span(s);
	s = span_at(AREA, 8, SPAN_LARGE);
	s->npages = 3;
	arena_resize_span(s, 8);
	for (size_t i = 3; i < 8; i++)
		assert_int_equal(arena_of(AREA)->page_last[i], 0);
}

static void
test_reset_empties_the_map(void **state)
{
	(void)state;
	assert_true(arena_add(&meta, AREA, 2 * ARENA_SIZE));
	span_at(AREA, 4, 3);
	arena_reset();
	assert_null(arena_of(AREA));
	assert_null(span_of(AREA));
	assert_null(arena_of(AREA + ARENA_SIZE));
	assert_int_equal(arenas(), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_any_address_may_be_asked, setup, teardown),
		cmocka_unit_test_setup_teardown(test_add, setup, teardown),
		cmocka_unit_test_setup_teardown(test_add_without_metadata, setup, teardown),
		cmocka_unit_test_setup_teardown(test_small_span_on_every_page, setup, teardown),
		cmocka_unit_test_setup_teardown(test_large_span_on_first_and_last_page, setup, teardown),
		cmocka_unit_test_setup_teardown(test_spans_cross_arenas, setup, teardown),
		cmocka_unit_test_setup_teardown(test_search_ends_at_the_first_arena, setup, teardown),
		cmocka_unit_test_setup_teardown(test_page_last, setup, teardown),
		cmocka_unit_test_setup_teardown(test_zeroed_base_only_rises, setup, teardown),
		cmocka_unit_test_setup_teardown(test_resize_moves_the_last_entry, setup, teardown),
		cmocka_unit_test_setup_teardown(test_resize_forgets_earlier_tenants, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reset_empties_the_map, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
