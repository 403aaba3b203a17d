/* test_pinned_fake.c - quarantine=mark where the system refuses: no guard, no
 * memory, no stop of the world. The mark is the test's own, and says what it is
 * told to say. */
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

#include "hardening/hooks.h"
#include "hardening/mark.h"
#include "hardening/pinned.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
enum { SECOND = 1000000000 };

/* ---- a mark of our own ---- */

static struct {
	bool refuse;                   /* the world cannot be stopped */
	void (*meanwhile)(void);
	uintptr_t pinned[8];           /* addresses that are pointed to */
	size_t n;
	struct mark_reference from;    /* by this */
	unsigned runs;
	size_t watched;
} script;

static void
refer(struct mark_request *req)
{
	for (size_t i = 0; i < req->n_watch; i++)
		for (size_t k = 0; k < script.n; k++) {
			struct mark_reference r = script.from;
			if (script.pinned[k] - req->watch[i].base >=
			    req->watch[i].end - req->watch[i].base)
				continue;
			req->watch[i].references++;
			r.at = r.at != 0 ? r.at : 0x1000;
			r.value = script.pinned[k];
			r.watch = i;
			if (req->on_reference != NULL)
				req->on_reference(&r, req->arg);
		}
}

bool
mark_run(struct mark_request *req, struct mark_result *out)
{
	memset(out, 0, sizeof(*out));
	assert_true(req->no_wait);
	bool ok = req->begin(req);
	if (ok) {
		script.runs++;
		script.watched = req->n_watch;
		if (script.meanwhile != NULL)
			script.meanwhile();
		ok = !script.refuse;
		if (ok)
			refer(req);
	}
	req->end(req, ok);
	return ok;
}

int
mark_check(void)
{
	return -1;
}

/* In place of mark.c's, which would bring its mark_run. */
int hook_mark_check(void) { return -1; }
int hook_root_add(const void *p, size_t bytes) { (void)p; (void)bytes; return 0; }
int hook_root_remove(const void *p, size_t bytes) { (void)p; (void)bytes; return 0; }
void hook_thread_exempt(int tid) { (void)tid; }
void hook_mark_after_fork_child(void) { }

/* ---- set-up ---- */

static void
start(const struct fake_sys_config *sys, bool fault, bool report)
{
	heap_stop();
	fake_sys_reset(sys);
	heap_start(NULL);
	pinned_init(&(struct pinned_config){ .on = true, .fault = fault, .report = report,
	    .resident_bytes = MIB, .most_bytes = 64 * MIB, .pass_bytes = 1, .pass_spans = 1 });
	heap_use(heap_new_cache());
	memset(&script, 0, sizeof(script));
	fake_notes = 0;
}

static int
teardown(void **state)
{
	(void)state;
	heap_stop();
	return 0;
}

static struct mspan *
park(size_t bytes)
{
	struct mspan *s = mheap_alloc_span(&mheap_, NULL, bytes >> PAGE_SHIFT, SPAN_LARGE, 1);

	assert_non_null(s);
	memset((void *)s->base, 1, bytes);
	mheap_free_span(&mheap_, s);
	return s;
}

static bool
is_parked(const struct mspan *s)
{
	return a32_load_acquire(&s->state) == SPAN_PARKED;
}

static void
pin(const struct mspan *s)
{
	script.pinned[script.n++] = s->base + 5;
}

static void
pass(void)
{
	mheap_release_unmarked(&mheap_);
	heap_assert_sound();
}

static struct pinned_stats
stats(void)
{
	struct pinned_stats st;

	pinned_read_stats(&st);
	return st;
}

/* ---- tests ---- */

static void
test_pages_of_pinned_spans(void **state)
{
	static const bool markers[] = { true, false };

	(void)state;
	for (size_t k = 0; k < ARRAY_LEN(markers); k++) {
		start(&(struct fake_sys_config){ .no_markers = !markers[k] }, false, false);
		struct mspan *a = park(256 * KIB), *b = park(128 * KIB);
		void *base = (void *)a->base;
		assert_int_equal(fake_sys_state(base), SYS_READY);
		assert_int_equal(stats().resident_bytes, 384 * KIB);
		pin(a);
		pass();
		assert_true(is_parked(a) && !is_parked(b));
		assert_true(fake_sys_guarded(base));
		assert_int_equal(stats().resident_bytes, 0);
		assert_int_equal(stats().released_bytes, 128 * KIB);
		script.n = 0;
		park(8 * KIB);
		pass();
		assert_false(is_parked(a));
		assert_int_equal(fake_sys_state(base), SYS_READY);
		assert_int_equal(pinned_bytes(), 0);
	}
}

/* No guard to be had: the memory goes back nevertheless. */
static void
test_no_guard(void **state)
{
	(void)state;
	start(NULL, true, false);
	fake_sys_fail(FAKE_SYS_FAULT, 1, true);
	struct mspan *s = park(256 * KIB);
	void *base = (void *)s->base;
	assert_int_equal(fake_sys_state(base), SYS_PREPARED);
	assert_int_equal(stats().resident_bytes, 0);
	heap_assert_sound();
	pass();
	assert_false(is_parked(s));
	assert_int_equal(fake_sys_state(base), SYS_READY);
	fake_sys_fail(0, 0, false);
	s = park(256 * KIB);
	assert_true(fake_sys_guarded((void *)s->base));
	assert_true(mheap_flush_quarantine(&mheap_));
	heap_assert_sound();
}

/* The guard cannot be taken off: it stays, and the next pass tries again. */
static void
test_guard_stays_on(void **state)
{
	(void)state;
	start(NULL, true, false);
	struct mspan *s = park(256 * KIB);
	fake_sys_fail(FAKE_SYS_UNFAULT, 1, true);
	pass();
	assert_true(is_parked(s));
	fake_sys_fail(0, 0, false);
	park(8 * KIB);
	pass();
	assert_false(is_parked(s));
	assert_int_equal(pinned_bytes(), 0);
}

/* Tried again after 30 s, then after twice as long; nothing leaves meanwhile. */
static void
test_world_that_does_not_stop(void **state)
{
	(void)state;
	start(NULL, false, false);
	script.refuse = true;
	struct mspan *s = park(256 * KIB);
	pass();
	assert_int_equal(script.runs, 1);
	for (unsigned k = 0; k < 4; k++) {
		park(8 * KIB);
		fake_sys_advance((((uint64_t)30 << k) - 1) * SECOND);
		pass();
		assert_int_equal(script.runs, k + 1);
		fake_sys_advance(SECOND);
		pass();
		assert_int_equal(script.runs, k + 2);
		assert_true(is_parked(s));
	}
	assert_int_equal(stats().failed, 5);
	script.refuse = false;
	fake_sys_advance((uint64_t)3600 * SECOND);
	park(8 * KIB);
	pass();
	assert_false(is_parked(s));
	assert_int_equal(stats().passes, 1);
	park(8 * KIB);               /* good again: no pause */
	pass();
	assert_int_equal(stats().passes, 2);
}

static void
test_no_memory_for_a_pass(void **state)
{
	(void)state;
	start(NULL, false, false);
	struct mspan *s = park(256 * KIB);
	fake_sys_fail(FAKE_SYS_ALLOC, 1, true);
	pass();
	assert_int_equal(script.runs, 0);
	assert_true(is_parked(s));
	fake_sys_fail(0, 0, false);
	fake_sys_advance((uint64_t)31 * SECOND);
	pass();
	assert_false(is_parked(s));
}

static struct mspan *parked_meanwhile;

static void
park_and_flush(void)
{
	parked_meanwhile = park(64 * KIB);
	mheap_flush_quarantine(&mheap_);
	assert_false(is_parked(parked_meanwhile));
	parked_meanwhile = park(64 * KIB);
}

/* While a pass runs, others park, and one runs out of memory. */
static void
test_others_meanwhile(void **state)
{
	(void)state;
	start(NULL, false, false);
	struct mspan *a = park(256 * KIB), *b = park(128 * KIB);
	pin(a);
	script.meanwhile = park_and_flush;
	pass();
	assert_int_equal(script.watched, 2);
	assert_true(is_parked(a) && !is_parked(b));
	assert_true(is_parked(parked_meanwhile));
	assert_true(hook_mark_due());
}

static void
fork_meanwhile(void)
{
	pinned_after_fork_child();
}

/* The child of a thread that forks while another one is in a pass. */
static void
test_child_of_a_pass(void **state)
{
	(void)state;
	start(NULL, false, false);
	struct mspan *a = park(256 * KIB);
	script.meanwhile = fork_meanwhile;
	script.refuse = true;
	pass();
	assert_true(is_parked(a));
	assert_int_equal(stats().spans, 1);
	script.refuse = false;
	script.meanwhile = NULL;
	fake_sys_advance((uint64_t)31 * SECOND);
	park(8 * KIB);
	pass();
	assert_false(is_parked(a));
}

static void
test_most_bytes_without_a_pass(void **state)
{
	struct mspan *s[10];

	(void)state;
	start(NULL, false, false);
	script.refuse = true;
	for (size_t i = 0; i < ARRAY_LEN(s); i++)
		s[i] = mheap_alloc_span(&mheap_, NULL, (10 * MIB) >> PAGE_SHIFT, SPAN_LARGE, 1);
	for (size_t i = 0; i < ARRAY_LEN(s); i++) {
		mheap_free_span(&mheap_, s[i]);
		pass();
		assert_true(pinned_bytes() <= 64 * MIB);
	}
	assert_int_equal(stats().unmarked_bytes, 40 * MIB);
	assert_int_equal(stats().resident_bytes, 0);
}

/* ---- what is reported ---- */

static void
test_report(void **state)
{
	static const struct { struct mark_reference from; const char *says; } at[] = {
		{ { .place = MARK_IN_DATA, .at = 0x5550 }, "the pointer: address 0x5550\n" },
		{ { .place = MARK_IN_USER_ROOT, .at = 0x5550 },
		    "the pointer: 0x5550 is in a range that was given to spanguard_root_add\n" },
		{ { .place = MARK_IN_OBJECT, .at = 0x5550, .unreached = true },
		    "nobody points to the object it is in" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(at); i++) {
		start(NULL, false, true);
		struct mspan *s = park(256 * KIB);
		pin(s);
		script.from = at[i].from;
		pass();
		assert_int_equal(fake_notes, 1);
		assert_non_null(strstr(fake_note, "WARNING: stale-pointer to "));
		assert_non_null(strstr(fake_note, at[i].says));
		assert_non_null(strstr(fake_note,
		    "SUMMARY: spanguard: stale-pointer, 1 word points into what was freed\n"));
		park(8 * KIB);
		pass();
		assert_int_equal(fake_notes, 1);     /* each span once */
	}
}

static void
test_report_of_a_stack_waits(void **state)
{
	(void)state;
	start(NULL, false, true);
	struct mspan *s = park(256 * KIB);
	pin(s);
	script.from = (struct mark_reference){ .place = MARK_IN_STACK, .at = 0x7000, .tid = 1 };
	pass();
	assert_int_equal(fake_notes, 0);
	park(8 * KIB);
	pass();
	assert_int_equal(fake_notes, 1);
	assert_non_null(strstr(fake_note, "thread-local storage of thread 1"));
	start(NULL, false, false);
	s = park(256 * KIB);
	pin(s);
	pass();
	assert_int_equal(fake_notes, 0);
}

#define TEST(f) cmocka_unit_test_teardown(f, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_pages_of_pinned_spans),
		TEST(test_no_guard),
		TEST(test_guard_stays_on),
		TEST(test_world_that_does_not_stop),
		TEST(test_no_memory_for_a_pass),
		TEST(test_others_meanwhile),
		TEST(test_child_of_a_pass),
		TEST(test_most_bytes_without_a_pass),
		TEST(test_report),
		TEST(test_report_of_a_stack_waits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
