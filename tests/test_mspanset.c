/* test_mspanset.c - the span set against a plain queue, at the edges of its
 * ring and its positions, without memory, after a fork, and under threads.
 *
 * Metadata comes from the persistent_alloc below, which counts and can refuse. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>

#include "die.h"
#include "fake_die.h"
#include "mspanset.h"
#include "persistentalloc.h"

enum { BLOCK = SPAN_SET_BLOCK_SLOTS };

static atomic_u32 meta_calls;
static uint32_t meta_refuse_from;      /* the call that is the first to fail; 0: none */
static void *meta_all[4096];

void *
persistent_alloc(struct persistent *meta, size_t bytes, size_t align)
{
	uint32_t call = a32_fetch_add(&meta_calls, 1) + 1;
	void *p = NULL;

	(void)meta;
	if (meta_refuse_from != 0 && call >= meta_refuse_from)
		return NULL;
	assert_true(call < ARRAY_LEN(meta_all));
	align = align < sizeof(void *) ? sizeof(void *) : align;
	assert_int_equal(posix_memalign(&p, align, bytes), 0);
	meta_all[call] = p;
	return memset(p, 0, bytes);
}

static int
setup(void **state)
{
	(void)state;
	span_set_pool_reset();
	a32_store_relaxed(&meta_calls, 0);
	meta_refuse_from = 0;
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	span_set_pool_reset();
	for (size_t i = 0; i < ARRAY_LEN(meta_all); i++) {
		free(meta_all[i]);
		meta_all[i] = NULL;
	}
	return 0;
}

/* Spans are numbers to us. */
static struct mspan *
span(uintptr_t n)
{
	return (struct mspan *)(n << 4);
}

static uintptr_t
number(const struct mspan *s)
{
	return (uintptr_t)s >> 4;
}

static void
push(struct span_set *set, uintptr_t n)
{
	assert_true(span_set_push(set, NULL, span(n)));
}

static void
expect_pop(struct span_set *set, uintptr_t n)
{
	assert_int_equal(number(span_set_pop(set)), n);
}

static void
expect_sound(const struct span_set *set)
{
	const char *tag = span_set_check(set);

	if (tag == NULL)
		tag = span_set_check_pool();
	if (tag != NULL)
		fail_msg("%s does not hold", tag);
}

/* ---- one thread ---- */

static void
test_empty(void **state)
{
	struct span_set set = { 0 };

	(void)state;
	assert_null(span_set_pop(&set));
	assert_int_equal(span_set_len(&set), 0);
	span_set_reset(&set);
	span_set_after_fork(&set);
	assert_null(span_set_pop(&set));
	expect_sound(&set);
	assert_int_equal(a32_load_relaxed(&meta_calls), 0);
}

static void
test_order(void **state)
{
	struct span_set set = { 0 };
	const uintptr_t n = 20 * BLOCK + 7;

	(void)state;
	for (uintptr_t i = 1; i <= n; i++) {
		push(&set, i);
		assert_int_equal(span_set_len(&set), i);
	}
	expect_sound(&set);
	for (uintptr_t i = 1; i <= n; i++)
		expect_pop(&set, i);
	assert_null(span_set_pop(&set));
	assert_int_equal(span_set_len(&set), 0);
	expect_sound(&set);
}

/* A queue that never gets long uses two blocks and one spine, however often it
 * goes round. */
static void
test_ring_is_bounded(void **state)
{
	struct span_set set = { 0 };
	uintptr_t in = 0, out = 0;

	(void)state;
	for (int round = 0; round < 200; round++) {
		for (int i = 0; i < BLOCK / 2; i++)
			push(&set, ++in);
		for (int i = 0; i < BLOCK / 2; i++)
			expect_pop(&set, ++out);
		assert_null(span_set_pop(&set));
	}
	expect_sound(&set);
	assert_true(a32_load_relaxed(&meta_calls) <= 3);
}

/* Random pushes and pops, in swells that make the spine grow several times with
 * its blocks anywhere in the ring, from positions that wrap at 2^32. */
static void
run_model(uint32_t first_pos, unsigned seed)
{
	struct span_set set = { 0 };
	uintptr_t in = 0, out = 0;

	a64_store_relaxed(&set.index, (uint64_t)first_pos << 32 | first_pos);
	a32_store_relaxed(&set.end, first_pos);
	for (uint32_t op = 0; op < 200000; op++) {
		seed = seed * 1664525u + 1013904223u;
		bool swell = op / 40000 % 2 == 0;
		if ((seed >> 16) % 8 < (swell ? 5u : 3u)) {
			push(&set, ++in);
		} else if (in == out) {
			assert_null(span_set_pop(&set));
		} else {
			expect_pop(&set, ++out);
		}
		assert_int_equal(span_set_len(&set), in - out);
		if (op % 4000 == 0)
			expect_sound(&set);
	}
	while (out < in)
		expect_pop(&set, ++out);
	assert_null(span_set_pop(&set));
	expect_sound(&set);
	span_set_reset(&set);
	assert_null(span_set_check_pool());
}

static void
test_model(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= 4; seed++)
		run_model(0, seed);
}

static void
test_positions_wrap(void **state)
{
	(void)state;
	for (uint32_t blocks = 1; blocks <= 40; blocks += 13)
		run_model((uint32_t)0 - blocks * BLOCK, blocks);
}

static void
test_full_set(void **state)
{
	struct span_set set = { 0 };
	const uint32_t most = (uint32_t)SPAN_SET_MAX_BLOCKS * BLOCK;
	struct {
		uint32_t cap_blocks;
	} spine = { SPAN_SET_MAX_BLOCKS };

	(void)state;
	aptr_store_relaxed(&set.spine, &spine);
	a64_store_relaxed(&set.index, most);
	a32_store_relaxed(&set.end, most);
	assert_false(span_set_push(&set, NULL, span(1)));
	assert_int_equal(span_set_len(&set), most);
	assert_int_equal(a32_load_relaxed(&meta_calls), 0);
}

struct seen {
	uintptr_t n;
	uintptr_t next;
};

static void
see(struct mspan *s, void *arg)
{
	struct seen *seen = arg;

	assert_int_equal(number(s), seen->next++);
	seen->n++;
}

static void
test_for_each(void **state)
{
	struct span_set set = { 0 };

	(void)state;
	for (uintptr_t len = 0; len < 3 * BLOCK; len += 97) {
		struct seen seen = { 0, 1000 };
		for (uintptr_t i = 0; i < len; i++)
			push(&set, 1000 + i);
		span_set_for_each(&set, see, &seen);
		assert_int_equal(seen.n, len);
		for (uintptr_t i = 0; i < len; i++)
			expect_pop(&set, 1000 + i);
	}
}

/* ---- memory ---- */

/* Every call for metadata fails once: the push says so, nothing is lost. */
static void
test_no_memory(void **state)
{
	const uintptr_t n = 20 * BLOCK;
	uint32_t refused = 0;

	(void)state;
	for (uint32_t call = 1; call <= 23; call++) {
		struct span_set set = { 0 };
		uintptr_t in = 0;

		teardown(NULL);
		setup(NULL);
		meta_refuse_from = call;
		while (in < n && span_set_push(&set, NULL, span(in + 1)))
			in++;
		refused += in < n;
		assert_int_equal(span_set_len(&set), in);
		assert_false(in < n && span_set_push(&set, NULL, span(in + 1)));
		expect_sound(&set);
		meta_refuse_from = 0;
		while (in < n)
			push(&set, ++in);
		for (uintptr_t i = 1; i <= n; i++)
			expect_pop(&set, i);
		expect_sound(&set);
	}
	/* 20 blocks and spines of 8, 16 and 32 */
	assert_int_equal(refused, 23);
}

static void
test_pool_is_used(void **state)
{
	struct span_set a = { 0 }, b = { 0 };

	(void)state;
	for (uintptr_t i = 1; i <= 6 * BLOCK; i++)
		push(&a, i);
	for (uintptr_t i = 1; i <= 6 * BLOCK; i++)
		expect_pop(&a, i);
	uint32_t before = a32_load_relaxed(&meta_calls);
	for (uintptr_t i = 1; i <= 6 * BLOCK; i++)
		push(&b, i);
	assert_int_equal(a32_load_relaxed(&meta_calls), before + 1);    /* the spine */
	for (uintptr_t i = 1; i <= 6 * BLOCK; i++)
		expect_pop(&b, i);
}

static void
test_reset(void **state)
{
	struct span_set set = { 0 };

	(void)state;
	for (uintptr_t i = 1; i <= 3 * BLOCK + 5; i++)
		push(&set, i);
	for (uintptr_t i = 1; i <= 3 * BLOCK + 5; i++)
		expect_pop(&set, i);
	uint32_t before = a32_load_relaxed(&meta_calls);
	for (int i = 0; i < 100; i++) {
		span_set_reset(&set);
		expect_sound(&set);
		assert_int_equal(span_set_len(&set), 0);
		push(&set, 7);
		expect_pop(&set, 7);
	}
	assert_int_equal(a32_load_relaxed(&meta_calls), before);
}

static void
test_reset_of_a_filled_set_dies(void **state)
{
	struct span_set set = { 0 };

	(void)state;
	push(&set, 1);
	fake_die_armed = true;
	if (setjmp(fake_die_jmp) == 0) {
		span_set_reset(&set);
		fake_die_armed = false;
		fail_msg("span_set_reset lost a span in silence");
	}
	fake_die_armed = false;
	assert_int_equal(fake_die_info.code, DIE_CORRUPTION);
	assert_string_equal(fake_die_info.site, "SPANSET-reset");
	expect_pop(&set, 1);
}

/* ---- planted corruption ---- */

static void
move_index(struct span_set *set, uint32_t head_by, uint32_t tail_by)
{
	uint64_t index = a64_load_relaxed(&set->index);
	uint32_t head = (uint32_t)(index >> 32) + head_by;
	uint32_t tail = (uint32_t)index + tail_by;

	a64_store_relaxed(&set->index, (uint64_t)head << 32 | tail);
}

static void
expect_tag(const struct span_set *set, const char *tag)
{
	assert_non_null(span_set_check(set));
	assert_string_equal(span_set_check(set), tag);
}

static void
test_check_finds(void **state)
{
	struct span_set set = { 0 };

	(void)state;
	for (uintptr_t i = 1; i <= 10; i++)
		push(&set, i);
	expect_sound(&set);

	move_index(&set, 11, 0);                        /* head above tail */
	expect_tag(&set, "SPANSET-1");
	move_index(&set, (uint32_t)-11, BLOCK);         /* tail above end */
	expect_tag(&set, "SPANSET-1");
	move_index(&set, 0, (uint32_t)-BLOCK);
	a32_store_relaxed(&set.end, BLOCK + 1);
	expect_tag(&set, "SPANSET-1");
	a32_store_relaxed(&set.end, BLOCK * (SPAN_SET_MIN_BLOCKS + 1));
	expect_tag(&set, "SPANSET-1");
	a32_store_relaxed(&set.end, BLOCK);
	expect_sound(&set);

	move_index(&set, 0, (uint32_t)-1);              /* an entry behind the tail */
	expect_tag(&set, "SPANSET-2");
	move_index(&set, 0, 2);                         /* a position with none */
	expect_tag(&set, "SPANSET-2");
	move_index(&set, 1, (uint32_t)-1);              /* an entry before the head */
	expect_tag(&set, "SPANSET-2");
	move_index(&set, (uint32_t)-1, 0);
	expect_sound(&set);
}

static void
test_check_finds_a_wrong_count(void **state)
{
	struct span_set set = { 0 };

	(void)state;
	assert_true(span_set_push(&set, NULL, NULL));   /* taken, and never filled */
	push(&set, 1);
	expect_tag(&set, "SPANSET-2");
	move_index(&set, 1, 0);
	expect_tag(&set, "SPANSET-3");
}

static void
test_check_finds_a_dirty_pool(void **state)
{
	struct span_set set = { 0 };

	(void)state;
	push(&set, 1);
	move_index(&set, 1, 0);
	assert_null(span_set_check_pool());
	span_set_reset(&set);
	assert_non_null(span_set_check_pool());
	assert_string_equal(span_set_check_pool(), "SPANSET-4");
}

/* ---- fork ---- */

/* What a child inherits when other threads were between the two steps of push
 * (a position without a span) and of pop (a position below head that is still
 * filled, and not counted). */
static void
test_after_fork(void **state)
{
	struct span_set set = { 0 };
	uintptr_t in = 0, out = 0;

	(void)state;
	for (uintptr_t i = 0; i < 3 * BLOCK; i++)
		assert_true(span_set_push(&set, NULL, i % 7 == 3 ? NULL : span(++in)));
	expect_tag(&set, "SPANSET-2");
	move_index(&set, 3, 0);
	out = 3;
	span_set_after_fork(&set);
	expect_sound(&set);
	assert_int_equal(span_set_len(&set), in - out);
	for (uintptr_t i = 0; i < 2 * BLOCK; i++)
		push(&set, ++in);
	while (out < in)
		expect_pop(&set, ++out);
	assert_null(span_set_pop(&set));
	expect_sound(&set);
}

static void
test_after_fork_nothing_left(void **state)
{
	struct span_set set = { 0 };

	(void)state;
	for (int i = 0; i < BLOCK + 3; i++)
		assert_true(span_set_push(&set, NULL, NULL));
	span_set_after_fork(&set);
	expect_sound(&set);
	assert_null(span_set_pop(&set));
	push(&set, 1);
	expect_pop(&set, 1);
	expect_sound(&set);
}

/* ---- threads ---- */

enum { THREADS = 6, SETS = 2, PER_THREAD = 60000 };

struct crew {
	struct span_set sets[SETS];
	atomic_u32 popped[THREADS * PER_THREAD];
};

struct worker {
	struct crew *crew;
	uint32_t id;
	pthread_t thread;
};

static void
pop_one(struct crew *crew, uint32_t which)
{
	struct mspan *s = span_set_pop(&crew->sets[which]);

	if (s != NULL)
		a32_fetch_add(&crew->popped[number(s) - 1], 1);
}

/* Long stretches of mostly pushing and mostly popping, so that the sets grow to
 * several blocks and run dry; two sets, so that blocks change hands. */
static void *
work(void *arg)
{
	struct worker *w = arg;
	uint32_t seed = w->id + 1, pushed = 0;

	while (pushed < PER_THREAD) {
		seed = seed * 1664525u + 1013904223u;
		uint32_t which = (seed >> 20) % SETS;
		bool swell = pushed / 5000 % 2 == 0;
		if ((seed >> 16) % 8 < (swell ? 5u : 3u))
			push(&w->crew->sets[which], w->id * PER_THREAD + ++pushed);
		else
			pop_one(w->crew, which);
	}
	return NULL;
}

static void
test_threads(void **state)
{
	struct crew *crew = calloc(1, sizeof(*crew));
	struct worker workers[THREADS];

	(void)state;
	assert_non_null(crew);
	for (uint32_t i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){ .crew = crew, .id = i };
		assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
	}
	for (uint32_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(workers[i].thread, NULL), 0);

	for (uint32_t which = 0; which < SETS; which++) {
		expect_sound(&crew->sets[which]);
		while (span_set_len(&crew->sets[which]) > 0)
			pop_one(crew, which);
		expect_sound(&crew->sets[which]);
	}
	for (uint32_t i = 0; i < THREADS * PER_THREAD; i++)
		if (a32_load_relaxed(&crew->popped[i]) != 1)
			fail_msg("span %u was popped %u times", i, a32_load_relaxed(&crew->popped[i]));
	free(crew);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_empty, setup, teardown),
		cmocka_unit_test_setup_teardown(test_order, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ring_is_bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(test_model, setup, teardown),
		cmocka_unit_test_setup_teardown(test_positions_wrap, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full_set, setup, teardown),
		cmocka_unit_test_setup_teardown(test_for_each, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_memory, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pool_is_used, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reset, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reset_of_a_filled_set_dies, setup, teardown),
		cmocka_unit_test_setup_teardown(test_check_finds, setup, teardown),
		cmocka_unit_test_setup_teardown(test_check_finds_a_wrong_count, setup, teardown),
		cmocka_unit_test_setup_teardown(test_check_finds_a_dirty_pool, setup, teardown),
		cmocka_unit_test_setup_teardown(test_after_fork, setup, teardown),
		cmocka_unit_test_setup_teardown(test_after_fork_nothing_left, setup, teardown),
		cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
