/* test_checkmark.c - the second pass agrees with a mark that is right and dies of
 * one that is not: a mark forgotten, one too many. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fake_die.h"
#include "heap_support.h"
#include "marena.h"

#include "hardening/checkmark.h"
#include "hardening/mark.h"

enum { OBJECTS = 3000 };

static void *volatile global;

static int
setup(void **state)
{
	(void)state;
	heap_stop();
	heap_start(NULL);
	heap_cache();
	mark_fault = 0;
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	mark_fault = 0;
	heap_stop();
	return 0;
}

/* A chain through every kind of object: each has one pointer to the next. */
static NOINLINE void
plant_chain(void)
{
	static const size_t sizes[] = { 16, 64, 4096, 40000, 300 };
	void **head = NULL;

	for (size_t i = 0; i < OBJECTS; i++) {
		void **p = mallocgc(sizes[i % ARRAY_LEN(sizes)], API_MALLOC);
		assert_non_null(p);
		memset(p, 0, 16);
		p[0] = head;
		p[1] = i % 7 == 0 ? mallocgc_noscan(i % 11 + 5, API_NOSCAN) : NULL;
		head = p;
	}
	global = head;
}

static void
test_agree(void **state)
{
	struct mark_result r;
	struct mark_request req = { .check = true };

	(void)state;
	plant_chain();
	assert_int_equal(mark_check(), 0);
	assert_true(mark_run(&req, &r));
	assert_true(r.marked_objects >= OBJECTS);
	assert_true(r.checked_objects >= OBJECTS);
	for (struct heap_arena *a = aptr_load_acquire(&arena_map.all); a != NULL; a = a->next)
		assert_null(a->checkmarks);
}

static void
check_it(void *arg)
{
	(void)arg;
	mark_check();
}

static void
assert_caught(void)
{
	assert_true(fake_die_caught(check_it, NULL));
	assert_int_equal(fake_die_info.code, DIE_VERIFY);
	assert_string_equal(fake_die_info.site, "CHECKMARK-1");
	assert_string_equal(fake_die_info.api, "mark");
}

static void
test_forgotten_mark_is_caught(void **state)
{
	static const uint32_t every[] = { 2, 3, 100 };

	(void)state;
	plant_chain();
	for (size_t i = 0; i < ARRAY_LEN(every); i++) {
		mark_fault = every[i];
		assert_caught();
		assert_true(arena_of(fake_die_info.addr) != NULL);
		mark_fault = 0;
		assert_int_equal(mark_check(), 0);
	}
	heap_assert_sound();
}

/* ---- the comparison alone ---- */

struct fixed {
	struct mspan *span;
	size_t odd;                    /* this slot is told wrong */
	bool wrong;
};

static bool
reached_like(void *arg, size_t i, size_t idx)
{
	struct fixed *f = arg;

	(void)i;
	return (idx % 2 == 0) != (f->wrong && idx == f->odd);
}

/* Every second slot of a span is in the roots: each single lie shows. */
static void
test_each_difference_shows(void **state)
{
	enum { N = 32 };
	static uintptr_t words[N];
	struct root_piece piece = { (uintptr_t)words, (uintptr_t)(words + N), ROOT_USER, 0 };
	struct roots roots = { .piece = &piece, .n = 1 };
	struct fixed f = { 0 };

	(void)state;
	for (int i = 0; i < N; i++)
		memset((void *)(words[i] = (uintptr_t)mallocgc(256, API_MALLOC)), 0, 256);
	f.span = heap_span((void *)words[0]);
	for (int i = 0; i < N; i++) {
		assert_ptr_equal(heap_span((void *)words[i]), f.span);
		if (heap_slot((void *)words[i]) % 2 != 0)
			words[i] = 0;
	}
	struct checkmark c = { .roots = &roots, .spans = &f.span, .n_spans = 1,
		.reached = reached_like, .arg = &f };
	assert_true(checkmark_run(&c));
	assert_int_equal(c.differences, 0);
	assert_int_equal(c.objects, N / 2);
	f.wrong = true;
	for (f.odd = 0; f.odd < N; f.odd++) {
		assert_true(checkmark_run(&c));
		assert_int_equal(c.differences, 1);
		assert_int_equal(c.first, f.span->base + f.odd * 256);
	}
}

/* A checkmark in a span that the mark does not know of. */
static void
test_unknown_span_shows(void **state)
{
	static uintptr_t words[2];
	struct root_piece piece = { (uintptr_t)words, (uintptr_t)(words + 2), ROOT_USER, 0 };
	struct roots roots = { .piece = &piece, .n = 1 };
	struct fixed f = { 0 };

	(void)state;
	memset((void *)(words[0] = (uintptr_t)mallocgc(64, API_MALLOC)), 0, 64);
	memset((void *)(words[1] = (uintptr_t)mallocgc(1024, API_MALLOC)), 0, 1024);
	f.span = heap_span((void *)words[0]);
	f.odd = heap_slot((void *)words[0]);
	f.wrong = f.odd % 2 != 0;
	struct checkmark c = { .roots = &roots, .spans = &f.span, .n_spans = 1,
		.reached = reached_like, .arg = &f };
	assert_true(checkmark_run(&c));
	assert_int_equal(c.differences, 1);
	assert_int_equal(c.objects, 2);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_agree, setup, teardown),
		cmocka_unit_test_setup_teardown(test_forgotten_mark_is_caught, setup, teardown),
		cmocka_unit_test_setup_teardown(test_each_difference_shows, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unknown_span_shows, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
