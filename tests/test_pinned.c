/* test_pinned.c - quarantine=mark with real marks: a parked span stays as long as a
 * pointer into it stands in one of the places where a pointer can stand, and leaves
 * with the next pass when that is gone. */
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_die.h"
#include "heap_support.h"
#include "hidden.h"
#include "marena.h"
#include "peek.h"
#include "proc.h"
#include "sys.h"
#include "tls.h"

#include "hardening/hooks.h"
#include "hardening/pinned.h"
#include "hardening/sample.h"

enum { KIB = 1 << 10, MIB = 1 << 20, BYTES = 256 * KIB };

static void *volatile global;
static char nothing;
static void *volatile in_data = &nothing;
static _Thread_local void *volatile in_tls;

static void
start(const struct pinned_config *config)
{
	heap_stop();
	heap_start(NULL);
	heap_cache();
	/* no object of interest where half a pointer points: see test_mark.c */
	assert_non_null(mallocgc_noscan(16 * MIB, API_NOSCAN));
	pinned_init(config);
	global = NULL;
	in_data = &nothing;
	in_tls = NULL;
}

static int
setup(void **state)
{
	(void)state;
	start(&(struct pinned_config){ .on = true, .resident_bytes = MIB,
	    .most_bytes = (size_t)1 << 40, .pass_bytes = 1, .pass_spans = 1 });
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	heap_stop();
	return 0;
}

/* ---- helpers ---- */

static NOINLINE bool
is_readable(uintptr_t h, size_t bytes)
{
	struct peek k = { { 0 } };
	return peek_ok(&k, ~h, bytes);
}

static NOINLINE bool
free_dies(uintptr_t h)
{
	bool died = heap_free_dies((void *)~h, DIE_DOUBLE_FREE);
	memset(&fake_die_info, 0, sizeof(fake_die_info));
	memset(&fake_die_jmp, 0, sizeof(fake_die_jmp));
	return died;
}

static NOINLINE uintptr_t
park_hidden(size_t bytes)
{
	uintptr_t h = hidden_new(bytes, false);
	hidden_free(h);
	return h;
}

static NOINLINE bool
is_parked(uintptr_t h)
{
	const struct mspan *s = arena_span_containing(~h);
	return s != NULL && a32_load_acquire(&s->state) == SPAN_PARKED;
}

static NOINLINE void
run_pass(void)
{
	struct pinned_stats before, after;
	pinned_read_stats(&before);
	park_hidden(40000);          /* so that one is due */
	assert_true(hook_mark_due());
	mheap_release_unmarked(&mheap_);
	assert_false(hook_mark_due());
	pinned_read_stats(&after);
	assert_int_equal(after.passes, before.passes + 1);
	heap_assert_sound();
}

/* Whether h is parked after one more pass. run_pass's frame lies where scrub's was. */
static NOINLINE bool
stays(uintptr_t h)
{
	scrub();
	run_pass();
	bool parked = is_parked(h);
	NO_TAIL_CALL();
	return parked;
}

static void
assert_leaves_at(uintptr_t h, int line)
{
	if (stays(h) && !FRAMES_KEEP_COPIES)
		fail_msg("line %d: it stays", line);
}

#define assert_stays(h) assert_true(stays(h))
#define assert_leaves(h) assert_leaves_at(h, __LINE__)

/* ---- one place each ---- */

static void
test_leaves_when_nothing_points_to_it(void **state)
{
	uintptr_t large = park_hidden(BYTES), huge = park_hidden(40 * MIB);

	(void)state;
	assert_true(is_parked(large));
	assert_true(is_parked(huge));
	assert_leaves(large);
	assert_false(is_parked(huge) && !FRAMES_KEEP_COPIES);
}

static void
test_bss(void **state)
{
	uintptr_t h = park_hidden(BYTES);

	(void)state;
	hidden_store(&global, h, 0);
	assert_stays(h);
	assert_stays(h);
	hidden_store(&global, h, BYTES - 1);
	assert_stays(h);
	hidden_store(&global, h, BYTES);     /* one past the end is the next one's */
	assert_leaves(h);
}

static void
test_data(void **state)
{
	uintptr_t h = park_hidden(BYTES);

	(void)state;
	hidden_store(&in_data, h, 77);
	assert_stays(h);
	hidden_store(&in_data, 0, 0);
	assert_leaves(h);
}

static void
test_tls(void **state)
{
	uintptr_t h = park_hidden(BYTES);

	(void)state;
	hidden_store(&in_tls, h, 8);
	assert_stays(h);
	hidden_store(&in_tls, 0, 0);
	assert_leaves(h);
}

static void
test_stack(void **state)
{
	uintptr_t h = park_hidden(BYTES);
	void *volatile here[1];

	(void)state;
	hidden_store(&here[0], h, 16);
	assert_stays(h);
	hidden_store(&here[0], 0, 0);
	assert_leaves(h);
}

static NOINLINE bool
stays_while_in_register(uintptr_t h)
{
	uintptr_t p = ~h;
	__asm__ volatile("" : "+r"(p));
	bool parked = stays(h);
	__asm__ volatile("" : "+r"(p));
	return parked && p == ~h;
}

static void
test_register(void **state)
{
	uintptr_t h = park_hidden(BYTES);

	(void)state;
	assert_true(stays_while_in_register(h));
	assert_leaves(h);
}

static void
test_object(void **state)
{
	uintptr_t h = park_hidden(BYTES), via = hidden_new(64, false);
	uintptr_t dumb = hidden_new(64, true), large = hidden_new(MIB, false);

	(void)state;
	hidden_store(&global, via, 0);
	hidden_link(via, 7, h, 1);
	assert_stays(h);
	hidden_link(via, 7, 0, 0);
	hidden_store(&global, large, 0);
	hidden_link(large, MIB / 16, h, 1);
	assert_stays(h);
	hidden_link(large, MIB / 16, 0, 0);
	hidden_store(&global, dumb, 0);
	hidden_link(dumb, 0, h, 0);          /* it promised to hold none */
	assert_leaves(h);
}

/* What points to the object that nobody reaches may be hidden. */
static void
test_unreached_object(void **state)
{
	uintptr_t h = park_hidden(BYTES), via = hidden_new(64, false);

	(void)state;
	hidden_link(via, 0, h, 0);
	assert_stays(h);
	hidden_link(via, 0, 0, 0);
	assert_leaves(h);
}

/* Parked spans do not keep each other. */
static void
test_pointers_in_parked_spans_do_not_count(void **state)
{
	uintptr_t a = hidden_new(BYTES, false), b = hidden_new(BYTES, false);

	(void)state;
	hidden_link(a, 0, b, 0);
	hidden_link(b, 0, a, 0);
	hidden_free(a);
	hidden_free(b);
	hidden_store(&global, a, 0);
	assert_stays(a);
	assert_false(is_parked(b) && !FRAMES_KEEP_COPIES);
	hidden_store(&global, 0, 0);
	assert_leaves(a);
}

static void
test_user_root(void **state)
{
	uintptr_t h = park_hidden(BYTES);
	void *volatile *shared = mmap(NULL, 65536, PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	(void)state;
	assert_true(shared != MAP_FAILED);
	assert_int_equal(hook_root_add((void *)shared, 65536), 0);
	hidden_store(&shared[100], h, 0);
	assert_stays(h);
	assert_int_equal(hook_root_remove((void *)shared, 65536), 0);
	assert_leaves(h);
	munmap((void *)shared, 65536);
}

static void
test_sampled_object(void **state)
{
	uintptr_t h = park_hidden(BYTES);

	(void)state;
	sample_start(&(struct sample_config){ .one_in = 1, .window_bytes = 128 * KIB, .seed = 3 });
	for (int noscan = 0; noscan < 2; noscan++) {
		void **p = sample_maybe_alloc(64, 16, noscan != 0, true);
		assert_non_null(p);
		uintptr_t via = ~(uintptr_t)p;
		hidden_link(via, 3, h, 0);
		hidden_store(&global, via, 0);
		p = NULL;
		if (noscan == 0) {
			assert_stays(h);
			hidden_link(via, 3, 0, 0);
		} else {
			assert_leaves(h);
		}
	}
	sample_start(&(struct sample_config){ 0 });
}

struct other {
	pthread_t thread;
	int in[2], out[2];
	uintptr_t h;
};

static void *
other_main(void *arg)
{
	struct other *o = arg;
	void *volatile here[1];
	char c;

	hidden_store(&here[0], o->h, 100);
	assert_int_equal(write(o->out[1], "r", 1), 1);
	assert_int_equal(read(o->in[0], &c, 1), 1);
	return here[0] != NULL ? arg : NULL;
}

static void
test_stack_of_another_thread(void **state)
{
	struct other o = { .h = park_hidden(BYTES) };
	char c;

	(void)state;
	assert_int_equal(pipe(o.in) | pipe(o.out), 0);
	assert_int_equal(pthread_create(&o.thread, NULL, other_main, &o), 0);
	assert_int_equal(read(o.out[0], &c, 1), 1);
	assert_stays(o.h);
	assert_int_equal(write(o.in[1], "x", 1), 1);
	pthread_join(o.thread, NULL);
	/* libc keeps the stack for the next thread */
	for (int i = 0; i < 2; i++)
		close(o.in[i]), close(o.out[i]);
}

/* ---- small spans ---- */

static NOINLINE void
fill_and_free(uintptr_t *h, size_t n)
{
	for (size_t i = 0; i < n; i++)
		h[i] = hidden_new(1024, false);
	for (size_t i = 0; i < n; i++)
		hidden_free(h[i]);
	mcache_trim_all(&mheap_, mcache_self());
}

static void
test_span_of_small_slots(void **state)
{
	uintptr_t h[32 * 3];

	(void)state;
	fill_and_free(h, ARRAY_LEN(h));
	for (size_t i = 0; i < ARRAY_LEN(h); i++)
		assert_true(is_parked(h[i]));
	assert_true(free_dies(h[40]));
	scrub();
	hidden_store(&global, h[40], 1000);
	assert_stays(h[40]);
	assert_false(is_parked(h[10]) && !FRAMES_KEEP_COPIES);
	hidden_store(&global, 0, 0);
	assert_leaves(h[40]);
}

/* ---- bounds and lives ---- */

/* What is pinned, or too much, costs no memory: it faults, and is zero later. */
static void
test_pinned_costs_no_memory(void **state)
{
	struct pinned_stats st;
	uintptr_t h = park_hidden(BYTES);

	(void)state;
	pinned_read_stats(&st);
	assert_int_equal(st.resident_bytes, BYTES);
	assert_true(is_readable(h, BYTES));
	hidden_store(&global, h, 0);
	assert_stays(h);
	pinned_read_stats(&st);
	assert_false(is_readable(h, 1));
	assert_true(st.resident_bytes < BYTES && st.pinned_spans >= 1);
	uintptr_t huge = park_hidden(2 * MIB);      /* more than resident_bytes */
	assert_true(is_parked(huge));
	assert_false(is_readable(huge, 1));
	hidden_store(&global, 0, 0);
	assert_leaves(h);
	assert_true(is_readable(h, BYTES) || FRAMES_KEEP_COPIES);
}

static void
test_fault_at_once(void **state)
{
	(void)state;
	start(&(struct pinned_config){ .on = true, .fault = true, .resident_bytes = 64 * MIB,
	    .most_bytes = (size_t)1 << 40, .pass_bytes = 1, .pass_spans = 1 });
	uintptr_t h = park_hidden(BYTES);
	assert_false(is_readable(h, 1));
	assert_leaves(h);
	heap_assert_sound();
}

static void
test_memory_runs_out(void **state)
{
	uintptr_t h = park_hidden(BYTES);

	(void)state;
	hidden_store(&global, h, 0);
	assert_stays(h);
	assert_true(mheap_flush_quarantine(&mheap_));
	assert_false(is_parked(h));
	assert_int_equal(pinned_bytes(), 0);
	heap_assert_sound();
}

static void
test_most_bytes(void **state)
{
	struct pinned_stats st;
	uintptr_t h[8];

	(void)state;
	start(&(struct pinned_config){ .on = true, .resident_bytes = MIB, .most_bytes = 5 * BYTES,
	    .pass_bytes = 64 * MIB, .pass_spans = 1000 });
	for (size_t i = 0; i < ARRAY_LEN(h); i++)
		h[i] = ~(uintptr_t)mallocgc(BYTES, API_MALLOC);
	for (size_t i = 0; i < ARRAY_LEN(h); i++)
		hidden_free(h[i]);
	for (size_t i = 0; i < ARRAY_LEN(h); i++)
		assert_int_equal(is_parked(h[i]), i >= 3);
	pinned_read_stats(&st);
	assert_int_equal(st.unmarked_bytes, 3 * BYTES);
	heap_assert_sound();
}

static void
test_when_a_pass_is_due(void **state)
{
	(void)state;
	start(&(struct pinned_config){ .on = true, .resident_bytes = MIB, .pass_percent = 25,
	    .most_bytes = (size_t)1 << 40, .pass_bytes = MIB, .pass_spans = 1000 });
	/* the heap is 16 MiB: a quarter of that counts more than 1 MiB */
	for (size_t i = 0; i < 15; i++) {
		park_hidden(BYTES);
		assert_false(hook_mark_due());
	}
	park_hidden(BYTES);
	assert_true(hook_mark_due());
	start(&(struct pinned_config){ .on = true, .resident_bytes = MIB,
	    .most_bytes = 4 * BYTES, .pass_bytes = 64 * MIB, .pass_spans = 1000 });
	park_hidden(BYTES);
	assert_false(hook_mark_due());
	park_hidden(BYTES);            /* half of what may be parked at all */
	assert_true(hook_mark_due());
	start(&(struct pinned_config){ .on = true, .resident_bytes = MIB,
	    .most_bytes = (size_t)1 << 40, .pass_bytes = 64 * MIB, .pass_spans = 3 });
	park_hidden(BYTES);
	park_hidden(BYTES);
	assert_false(hook_mark_due());
	park_hidden(BYTES);
	assert_true(hook_mark_due());
}

/* In the middle of malloc, without a cache, or while somebody has the world. */
static void
test_no_pass_at_a_bad_moment(void **state)
{
	struct pinned_stats st;
	struct mcache *c = mcache_self();
	uintptr_t h = park_hidden(BYTES);

	(void)state;
	assert_true(hook_mark_due());
	proc_world_lock();
	mheap_release_unmarked(&mheap_);
	proc_world_unlock();
	c->busy = CACHE_FAST;
	mheap_release_unmarked(&mheap_);
	c->busy = CACHE_IDLE;
	heap_use(NULL);
	mheap_release_unmarked(&mheap_);
	heap_use(c);
	pinned_read_stats(&st);
	assert_int_equal(st.passes + st.failed, 0);
	assert_true(is_parked(h));
	assert_true(hook_mark_due());
	assert_leaves(h);
}

static void
test_forked_child(void **state)
{
	uintptr_t h = park_hidden(BYTES);
	int status;

	(void)state;
	hidden_store(&global, h, 0);
	assert_stays(h);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		bool stayed = stays(h);
		hidden_store(&global, 0, 0);
		bool left = !stays(h) || FRAMES_KEEP_COPIES;
		_exit(stayed && left ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_true(is_parked(h));
}

static void
test_check_sees_a_wrong_count(void **state)
{
	uintptr_t h = park_hidden(BYTES);
	struct mspan *s = span_of(~h);

	(void)state;
	heap_assert_sound();
	s->faulted = true;
	assert_true(heap_verify_finds("PIN-1"));
	s->faulted = false;
	aptr_store_relaxed(&s->owner, mcache_self());
	assert_true(heap_verify_finds("QUAR-2"));
	aptr_store_relaxed(&s->owner, &mcache_none);
	heap_assert_sound();
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_leaves_when_nothing_points_to_it),
		TEST(test_bss),
		TEST(test_data),
		TEST(test_tls),
		TEST(test_stack),
		TEST(test_register),
		TEST(test_object),
		TEST(test_unreached_object),
		TEST(test_pointers_in_parked_spans_do_not_count),
		TEST(test_user_root),
		TEST(test_sampled_object),
		TEST(test_stack_of_another_thread),
		TEST(test_span_of_small_slots),
		TEST(test_pinned_costs_no_memory),
		TEST(test_fault_at_once),
		TEST(test_memory_runs_out),
		TEST(test_most_bytes),
		TEST(test_when_a_pass_is_due),
		TEST(test_no_pass_at_a_bad_moment),
		TEST(test_forked_child),
		TEST(test_check_sees_a_wrong_count),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
