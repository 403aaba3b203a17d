/* test_quarantine_fake.c - spans held back from reuse: by how much, in what order
 * they leave, that a touch of a parked page faults where the mode says so, that
 * frees of what is parked stay exact, and every byte accounted for. */
#include <setjmp.h>
#include <signal.h>
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

static struct mcache *me, *other;

static void
start(const struct fake_sys_config *sys, const struct quarantine_config *q)
{
	heap_stop();
	fake_sys_reset(sys);
	heap_start(NULL);
	quarantine_init(q);
	mheap_.config.zeroed = q->zeroed;
	me = heap_new_cache();
	other = heap_new_cache();
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
span(size_t bytes)
{
	struct mspan *s = mheap_alloc_span(&mheap_, NULL, PAGES(bytes), SPAN_LARGE, 1);

	assert_non_null(s);
	return s;
}

static void
park(struct mspan *s)
{
	mheap_free_span(&mheap_, s);
}

static bool
is_parked(const struct mspan *s)
{
	return a32_load_acquire(&s->state) == SPAN_PARKED;
}

/* ---- touching ---- */

static sigjmp_buf touched;

static void
on_fault(int sig)
{
	siglongjmp(touched, sig);
}

/* Whether a read (a write of what stands there) of the byte ends in a signal. */
static bool
faults(uintptr_t at, bool write)
{
	struct sigaction act = { .sa_handler = on_fault }, segv, bus;
	volatile char *p = (volatile char *)at;
	volatile bool hit = true;

	sigaction(SIGSEGV, &act, &segv);
	sigaction(SIGBUS, &act, &bus);
	if (sigsetjmp(touched, 1) == 0) {
		if (write)
			*p = 1;
		else
			(void)*p;
		hit = false;
	}
	sigaction(SIGSEGV, &segv, NULL);
	sigaction(SIGBUS, &bus, NULL);
	return hit;
}

static bool
is_zero(const void *p, size_t bytes)
{
	const unsigned char *b = p;

	for (size_t i = 0; i < bytes; i++)
		if (b[i] != 0)
			return false;
	return true;
}

/* ---- accounting ---- */

static void
sum_faulted(struct mspan *s, void *arg)
{
	if (s->faulted)
		*(size_t *)arg += mspan_bytes(s);
}

/* Every byte the system gave is somewhere, and nothing else is. */
static void
assert_accounted(void)
{
	struct sys_stats sys;
	struct spanguard_stats stats;
	size_t faulted = 0, idle_pages = mheap_.pages.scavenged_pages;

	for (struct mcache *c = mcache_first(); c != NULL; c = c->next)
		idle_pages += popcount64(c->pages.scav);
	sys_read_stats(&sys);
	mstats_read(&mheap_, &stats);
	mstats_each_span(sum_faulted, &faulted);
	assert_int_equal(sys.bytes[SYS_READY] + faulted, persistent_bytes(&mheap_.meta) +
	    ((mheap_.pages.grown_pages - idle_pages) << PAGE_SHIFT));
	assert_int_equal(sys.bytes[SYS_PREPARED], idle_pages << PAGE_SHIFT);
	assert_int_equal(sys.bytes[SYS_RESERVED] - sys.guard_bytes,
	    mheap_.grow_end - mheap_.grow_base);
	assert_int_equal(stats.parked_bytes, hook_quarantine_bytes());
	heap_assert_sound();
}

/* ---- bounds ---- */

static void
test_off_parks_nothing(void **state)
{
	struct mspan *s;

	(void)state;
	start(NULL, &(struct quarantine_config){ .seed = 1 });
	s = span(64 * KIB);
	uintptr_t base = s->base;
	park(s);
	assert_null(span_of(base));
	assert_int_equal(hook_quarantine_bytes(), 0);
	assert_false(mheap_flush_quarantine(&mheap_));
	assert_accounted();
}

static void
test_bound_in_bytes(void **state)
{
	struct mspan *s[40];

	(void)state;
	start(NULL, &(struct quarantine_config){ .bytes = MIB, .fault = true, .seed = 1 });
	for (size_t i = 0; i < ARRAY_LEN(s); i++)
		s[i] = span(64 * KIB);
	for (size_t i = 0; i < ARRAY_LEN(s); i++) {
		park(s[i]);
		size_t want = (i + 1) * 64 * KIB;
		assert_int_equal(hook_quarantine_bytes(), want < MIB ? want : MIB);
		assert_int_equal(a64_load_relaxed(&mheap_.spans_in_use),
		    ARRAY_LEN(s) - 1 - i + hook_quarantine_bytes() / (64 * KIB));
	}
	assert_accounted();
	assert_true(mheap_flush_quarantine(&mheap_));
	assert_int_equal(hook_quarantine_bytes() + a64_load_relaxed(&mheap_.spans_in_use), 0);
	assert_accounted();
}

/* As large as the bound fits; one page more does not, and makes nothing leave. */
static void
test_too_large_is_not_parked(void **state)
{
	(void)state;
	for (int fault = 0; fault < 2; fault++) {
		start(NULL, &(struct quarantine_config){ .bytes = MIB, .share_percent = 100,
		    .fault = fault, .seed = 1 });
		struct mspan *small = span(64 * KIB), *whole = span(MIB), *more = span(MIB + PAGE_SIZE);
		uintptr_t base = more->base;
		park(small);
		park(more);
		assert_true(is_parked(small));
		assert_null(span_of(base));
		assert_false(fake_sys_guarded((void *)base));
		assert_int_equal(hook_quarantine_bytes(), 64 * KIB);
		assert_accounted();
		mheap_flush_quarantine(&mheap_);
		span(2 * MIB);
		park(whole);
		assert_true(is_parked(whole));
		assert_int_equal(hook_quarantine_bytes(), MIB);
		assert_accounted();
	}
}

/* Pages that stay mapped may be a share of the pages in spans, or the floor. */
static void
test_share_and_floor(void **state)
{
	struct mspan *s[60];

	(void)state;
	start(NULL, &(struct quarantine_config){ .bytes = 64 * MIB, .share_percent = 10, .seed = 1 });
	span(200 * MIB);
	for (size_t i = 0; i < ARRAY_LEN(s); i++)
		s[i] = span(MIB);
	for (size_t i = 0; i < ARRAY_LEN(s); i++) {
		size_t in_spans = a64_load_relaxed(&mheap_.span_pages_in_use) << PAGE_SHIFT;
		park(s[i]);
		size_t bound = in_spans / 100 * 10;
		assert_true(hook_quarantine_bytes() <= bound);
		assert_true(hook_quarantine_bytes() + MIB > bound ||
		    hook_quarantine_bytes() == (i + 1) * MIB);
	}
	assert_accounted();

	start(NULL, &(struct quarantine_config){ .bytes = 64 * MIB, .share_percent = 1, .seed = 1 });
	for (size_t i = 0; i < ARRAY_LEN(s); i++)
		s[i] = span(64 * KIB);
	for (size_t i = 0; i < ARRAY_LEN(s); i++)
		park(s[i]);
	assert_int_equal(hook_quarantine_bytes(), QUARANTINE_FLOOR_BYTES);

	start(NULL, &(struct quarantine_config){ .bytes = 256 * KIB, .share_percent = 50, .seed = 1 });
	span(200 * MIB);
	for (size_t i = 0; i < ARRAY_LEN(s); i++)
		s[i] = span(64 * KIB);
	for (size_t i = 0; i < ARRAY_LEN(s); i++)
		park(s[i]);
	assert_int_equal(hook_quarantine_bytes(), 256 * KIB);
	assert_accounted();
}

static void
test_bound_in_number(void **state)
{
	enum { MORE = 100 };
	static struct mspan *s[QUARANTINE_SPANS + MORE];
	size_t parked = 0;

	(void)state;
	start(NULL, &(struct quarantine_config){ .bytes = 1024 * MIB, .fault = true, .seed = 1 });
	for (size_t i = 0; i < ARRAY_LEN(s); i++)
		s[i] = span(PAGE_SIZE);
	for (size_t i = 0; i < ARRAY_LEN(s); i++)
		park(s[i]);
	for (size_t i = 0; i < ARRAY_LEN(s); i++)
		parked += is_parked(s[i]);
	assert_in_range(parked, QUARANTINE_SPANS - 1, QUARANTINE_SPANS);
	assert_int_equal(hook_quarantine_bytes(), parked << PAGE_SHIFT);
	assert_accounted();
}

/* ---- who leaves ---- */

enum { HELD = 64 };

/* Frees one span more than fit in; which of them left, by age: 0 is the oldest. */
static size_t
who_leaves(struct mspan **held)
{
	size_t gone = HELD + 1;

	held[HELD] = span(64 * KIB);
	park(held[HELD]);
	for (size_t i = 0; i <= HELD; i++)
		if (!is_parked(held[i])) {
			assert_int_equal(gone, HELD + 1);
			gone = i;
		}
	assert_in_range(gone, 0, HELD);
	memmove(&held[gone], &held[gone + 1], (HELD - gone) * sizeof(*held));
	return gone;
}

static void
hold(uint64_t seed, struct mspan **held)
{
	start(NULL, &(struct quarantine_config){ .bytes = HELD * 64 * KIB, .fault = true,
	    .seed = seed });
	for (size_t i = 0; i < HELD; i++)
		held[i] = span(64 * KIB);
	for (size_t i = 0; i < HELD; i++)
		park(held[i]);
}

/* Uniform over all that are there, the one just parked included: with 400 times
 * expected for each age, five standard deviations are 100. The seed is fixed. */
static void
test_order_is_random(void **state)
{
	struct mspan *held[HELD + 1];
	unsigned n[HELD + 1] = { 0 };

	(void)state;
	hold(5, held);
	for (size_t i = 0; i < 400 * (HELD + 1); i++)
		n[who_leaves(held)]++;
	for (size_t i = 0; i <= HELD; i++)
		assert_in_range(n[i], 300, 500);
	assert_accounted();
}

static void
test_order_follows_the_seed(void **state)
{
	struct mspan *held[HELD + 1];
	size_t first[100];
	size_t same = 0;

	(void)state;
	hold(5, held);
	for (size_t i = 0; i < ARRAY_LEN(first); i++)
		first[i] = who_leaves(held);
	hold(5, held);
	for (size_t i = 0; i < ARRAY_LEN(first); i++)
		assert_int_equal(who_leaves(held), first[i]);
	hold(6, held);
	for (size_t i = 0; i < ARRAY_LEN(first); i++)
		same += who_leaves(held) == first[i];
	assert_in_range(same, 0, 10);
}

/* ---- touching what is parked ---- */

static void
assert_all_fault(uintptr_t base, size_t bytes, bool want)
{
	for (size_t at = 0; at < bytes; at += 4096) {
		assert_int_equal(faults(base + at, false), want);
		assert_int_equal(faults(base + at + 4095, true), want);
	}
}

static void
test_parked_pages_fault(void **state)
{
	(void)state;
	for (int markers = 0; markers < 2; markers++) {
		start(&(struct fake_sys_config){ .real_faults = true, .no_markers = !markers },
		    &(struct quarantine_config){ .bytes = MIB, .fault = true, .seed = 1 });
		struct mspan *a = span(64 * KIB), *s = span(64 * KIB), *b = span(64 * KIB);
		uintptr_t base = s->base;
		memset((void *)base, 0xaa, 64 * KIB);
		assert_all_fault(base, 64 * KIB, false);
		park(s);
		assert_true(s->faulted);
		assert_all_fault(base, 64 * KIB, true);
		assert_all_fault(a->base, 64 * KIB, false);
		assert_all_fault(b->base, 64 * KIB, false);
		assert_accounted();
		assert_true(mheap_flush_quarantine(&mheap_));
		s = span(64 * KIB);
		assert_int_equal(s->base, base);
		assert_false(s->faulted);
		assert_true(is_zero((void *)base, 64 * KIB));
		assert_all_fault(base, 64 * KIB, false);
		assert_accounted();
	}
}

static void
test_parked_pages_stay_mapped(void **state)
{
	(void)state;
	start(&(struct fake_sys_config){ .real_faults = true },
	    &(struct quarantine_config){ .bytes = MIB, .share_percent = 5, .seed = 1 });
	struct mspan *s = span(64 * KIB);
	memset((void *)s->base, 0xaa, 64 * KIB);
	park(s);
	assert_true(is_parked(s));
	assert_false(s->faulted);
	for (size_t i = 0; i < 64 * KIB; i++)
		assert_int_equal(((unsigned char *)s->base)[i], 0xaa);
	assert_all_fault(s->base, 64 * KIB, false);
	assert_accounted();
}

/* Where the mode promises zeroes, what leaves is zero however it was parked:
 * mapped, refused by the system, faulted, or too large to be parked at all. */
static void
test_what_leaves_is_zero(void **state)
{
	(void)state;
	for (int how = 0; how < 4; how++) {
		start(NULL, &(struct quarantine_config){ .bytes = how == 3 ? 64 * KIB : MIB,
		    .share_percent = 5, .fault = how != 0, .zeroed = true, .seed = 1 });
		struct mspan *s = span(128 * KIB);
		uintptr_t base = s->base;
		memset((void *)base, 0xaa, 128 * KIB);
		fake_sys_fail(FAKE_SYS_FAULT, how == 1, true);
		park(s);
		fake_sys_fail(0, 0, false);
		assert_int_equal(mheap_flush_quarantine(&mheap_), how != 3);
		s = span(128 * KIB);
		assert_int_equal(s->base, base);
		assert_false(s->needzero);
		assert_true(is_zero((void *)base, 128 * KIB));
	}
}

/* What left waits, faulting, and is taken over by a span of its shape: with its
 * address, zero, and without a guard put or taken off. One of another shape comes
 * from the page heap. */
static void
test_what_left_is_taken_over(void **state)
{
	(void)state;
	start(&(struct fake_sys_config){ .real_faults = true }, &(struct quarantine_config){
	    .bytes = MIB, .fault = true, .take_over = true, .zeroed = true, .seed = 1 });
	struct mspan *left = span(128 * KIB);
	uintptr_t base = left->base;
	memset((void *)base, 0xaa, 128 * KIB);
	park(left);
	for (int i = 0; i < 9; i++)
		park(span(MIB));        /* one at a time fits: all others have left */
	size_t spans = a64_load_relaxed(&mheap_.spans_in_use);
	assert_true(is_parked(left));
	assert_all_fault(base, 128 * KIB, true);
	assert_null(hook_quarantine_check());
	struct mspan *s = span(128 * KIB);
	assert_ptr_equal(s, left);
	assert_int_equal(s->base, base);
	assert_int_equal(a32_load_acquire(&s->state), SPAN_IN_USE);
	assert_false(s->faulted);
	assert_true(is_zero((void *)base, 128 * KIB));
	assert_int_equal(a64_load_relaxed(&mheap_.spans_in_use), spans);
	assert_ptr_not_equal(span(128 * KIB), left);
	assert_int_equal(a64_load_relaxed(&mheap_.spans_in_use), spans + 1);
	assert_accounted();
	assert_true(mheap_flush_quarantine(&mheap_));
	assert_int_equal(a64_load_relaxed(&mheap_.spans_in_use), 2);
	assert_accounted();
}

/* Where pages stay mapped, only small spans with guards wait: with their guards and
 * with what is in them. */
static void
test_mapped_ones_wait_for_their_guards(void **state)
{
	struct sys_stats before, after;

	(void)state;
	start(NULL, &(struct quarantine_config){ .bytes = 64 * KIB, .take_over = true, .seed = 1 });
	struct mspan *bare[2] = { span(64 * KIB), span(64 * KIB) };
	park(bare[0]);
	park(bare[1]);
	assert_int_equal(is_parked(bare[0]) + is_parked(bare[1]), 1);
	assert_int_equal(hook_quarantine_bytes(), 64 * KIB);
	assert_true(mheap_flush_quarantine(&mheap_));

	guard_init(&mheap_, 1, 1, false, 1);
	struct mspan *s[2] = { span(64 * KIB), span(64 * KIB) }, *big = span(256 * KIB);
	assert_true(s[0]->guards != 0 && s[1]->guards != 0 && big->guards != 0);
	memset((void *)s[0]->base, 0xaa, 64 * KIB);
	memset((void *)s[1]->base, 0xaa, 64 * KIB);
	sys_read_stats(&before);
	park(s[0]);
	park(s[1]);
	assert_true(is_parked(s[0]) && is_parked(s[1]));
	assert_int_equal(hook_quarantine_bytes(), 128 * KIB);
	heap_assert_sound();
	struct mspan *again = span(64 * KIB);
	assert_true(again == s[0] || again == s[1]);
	assert_true(again->guards != 0 && again->needzero);
	assert_int_equal(*(unsigned char *)again->base, 0xaa);
	sys_read_stats(&after);
	assert_int_equal(after.guards_installed, before.guards_installed);
	assert_int_equal(after.guard_bytes, before.guard_bytes);
	park(big);
	assert_false(is_parked(big));
	heap_assert_sound();
	guard_off();
}

/* By number, and by bytes; the oldest go. */
static void
test_mapped_ones_that_wait_are_bounded(void **state)
{
	static const size_t bytes[] = { 16 * KIB, 128 * KIB };

	(void)state;
	for (size_t k = 0; k < ARRAY_LEN(bytes); k++) {
		struct mspan *s[2 * LEAVING_MAPPED];
		size_t most = LEAVING_ALL_BYTES / bytes[k], waiting = 0;

		start(NULL, &(struct quarantine_config){ .bytes = bytes[k], .take_over = true,
		    .seed = 1 });
		guard_init(&mheap_, 1, 1, false, 1);
		for (size_t i = 0; i < ARRAY_LEN(s); i++)
			s[i] = span(bytes[k]);
		for (size_t i = 0; i < ARRAY_LEN(s); i++)
			park(s[i]);
		for (size_t i = 0; i < ARRAY_LEN(s); i++)
			waiting += is_parked(s[i]);
		assert_int_equal(waiting, 1 + (most < LEAVING_MAPPED ? most : LEAVING_MAPPED));
		assert_int_equal(hook_quarantine_bytes(), waiting * bytes[k]);
		heap_assert_sound();
		guard_off();
	}
}

/* As many wait as there are places; then the oldest goes. */
static void
test_those_that_wait_are_bounded(void **state)
{
	enum { N = QUARANTINE_LEAVING + 32 };
	static struct mspan *s[N];

	(void)state;
	start(NULL, &(struct quarantine_config){ .bytes = 64 * KIB, .fault = true,
	    .take_over = true, .seed = 1 });
	for (size_t i = 0; i < N; i++)
		s[i] = span(64 * KIB);
	for (size_t i = 0; i < N; i++)
		park(s[i]);
	assert_int_equal(a64_load_relaxed(&mheap_.spans_in_use), QUARANTINE_LEAVING + 1);
	assert_int_equal(hook_quarantine_bytes(), 64 * KIB);
	assert_accounted();
}

/* ---- frees of what is parked ---- */

static void
assert_stale(char *p)
{
	assert_true(heap_span(p)->faulted);
	assert_true(heap_free_dies(p, DIE_DOUBLE_FREE));
	assert_true(heap_free_dies(p + 16, DIE_INTERIOR_FREE));
	assert_true(heap_realloc_dies(p, 10, DIE_STALE_POINTER));
	assert_true(heap_usable_dies(p, DIE_STALE_POINTER));
	assert_true(heap_free_sized_dies(p, 10, 0, DIE_DOUBLE_FREE));
	heap_use(other);
	assert_true(heap_free_dies(p, DIE_DOUBLE_FREE));
	heap_use(me);
}

/* Told from the bits alone: the pages of all of them fault. */
static void
test_double_free_of_parked(void **state)
{
	char *p[300], *large;

	(void)state;
	start(&(struct fake_sys_config){ .real_faults = true },
	    &(struct quarantine_config){ .bytes = 64 * MIB, .fault = true, .seed = 1 });
	for (size_t i = 0; i < ARRAY_LEN(p); i++)
		p[i] = mallocgc(256, API_MALLOC);
	large = mallocgc(100000, API_MALLOC);
	for (size_t i = 0; i < ARRAY_LEN(p); i++)
		freegc(p[i], API_FREE);
	freegc(large, API_FREE);
	mcache_trim_all(&mheap_, me);
	for (size_t i = 0; i < ARRAY_LEN(p); i++)
		assert_stale(p[i]);
	assert_stale(large);
	assert_true(heap_free_dies(large + PAGE_SIZE, DIE_INTERIOR_FREE));
	assert_accounted();
	mheap_flush_quarantine(&mheap_);
	assert_accounted();
}

/* ---- memory runs out ---- */

static void
test_flushed_when_memory_runs_out(void **state)
{
	(void)state;
	for (int fault = 0; fault < 2; fault++) {
		start(NULL, &(struct quarantine_config){ .bytes = 64 * MIB, .share_percent = 100,
		    .fault = fault, .seed = 1 });
		span(4 * MIB);          /* so that the share is enough */
		char *p = mallocgc(40 * MIB, API_MALLOC);
		freegc(p, API_FREE);
		assert_int_equal(hook_quarantine_bytes(), 40 * MIB);
		fake_sys_fail(FAKE_SYS_RESERVE | FAKE_SYS_MAP, 1, true);
		char *q = mallocgc(40 * MIB, API_MALLOC);
		assert_ptr_equal(q, p);
		memset(q, 1, 40 * MIB);
		assert_int_equal(hook_quarantine_bytes(), 0);
		assert_null(mallocgc(40 * MIB, API_MALLOC));
		fake_sys_fail(0, 0, false);
		assert_accounted();
	}
}

/* A kernel that has no mapping left may refuse to take a guard off: then the
 * span stays, faulting, and leaves when the kernel is kinder. */
static void
test_refused_unfault_keeps_it_parked(void **state)
{
	struct mspan *s[3];

	(void)state;
	for (int big = 0; big < 2; big++) {
		start(NULL, &(struct quarantine_config){ .bytes = big ? 64 * KIB : MIB,
		    .fault = true, .seed = 1 });
		for (size_t i = 0; i < ARRAY_LEN(s); i++)
			s[i] = span(128 * KIB);
		fake_sys_fail(FAKE_SYS_UNFAULT, 1, true);
		for (size_t i = 0; i < ARRAY_LEN(s); i++)
			park(s[i]);
		mheap_flush_quarantine(&mheap_);
		for (size_t i = 0; i < ARRAY_LEN(s); i++) {
			assert_true(is_parked(s[i]) && s[i]->faulted);
			assert_true(fake_sys_guarded((void *)s[i]->base));
		}
		assert_int_equal(hook_quarantine_bytes(), 3 * 128 * KIB);
		assert_accounted();
		fake_sys_fail(0, 0, false);
		assert_true(mheap_flush_quarantine(&mheap_));
		assert_int_equal(a64_load_relaxed(&mheap_.spans_in_use), 0);
		assert_false(fake_sys_guarded((void *)span(128 * KIB)->base));
		assert_accounted();
	}
}

/* ... and so for more of them than the quarantine has places. */
static void
test_refused_unfault_of_many(void **state)
{
	enum { MORE = 10 };
	static struct mspan *s[QUARANTINE_SPANS + MORE];

	(void)state;
	start(NULL, &(struct quarantine_config){ .bytes = 1024 * MIB, .fault = true, .seed = 1 });
	for (size_t i = 0; i < ARRAY_LEN(s); i++)
		s[i] = span(PAGE_SIZE);
	fake_sys_fail(FAKE_SYS_UNFAULT, 1, true);
	for (size_t i = 0; i < ARRAY_LEN(s); i++)
		park(s[i]);
	for (size_t i = 0; i < ARRAY_LEN(s); i++)
		assert_true(is_parked(s[i]) && fake_sys_guarded((void *)s[i]->base));
	fake_sys_fail(0, 0, false);
	assert_accounted();
	mheap_flush_quarantine(&mheap_);
	assert_accounted();
}

/* ---- planted ---- */

static void
test_verify_sees_it(void **state)
{
	(void)state;
	start(NULL, &(struct quarantine_config){ .bytes = MIB, .fault = true, .seed = 1 });
	struct mspan *s = span(64 * KIB);
	park(s);
	heap_assert_sound();
	a64_store_relaxed(&s->bits[0].live, 1);
	assert_true(heap_verify_finds("QUAR-2"));
	a64_store_relaxed(&s->bits[0].live, 0);
	aptr_store_release(&s->owner, me);
	assert_true(heap_verify_finds("QUAR-2"));
	aptr_store_release(&s->owner, &mcache_none);
	a32_store_release(&s->state, SPAN_IN_USE);
	assert_true(heap_verify_finds("QUAR-2"));
	a32_store_release(&s->state, SPAN_PARKED);
	heap_assert_sound();
	s->npages--;
	assert_true(heap_verify_finds("QUAR-1"));
	s->npages++;
	heap_assert_sound();
}

/* ---- traffic ---- */

static void
test_traffic_is_accounted(void **state)
{
	struct mspan *s[200] = { NULL };
	uint64_t r = 3;

	(void)state;
	for (int fault = 0; fault < 2; fault++) {
		start(NULL, &(struct quarantine_config){ .bytes = 4 * MIB, .share_percent = 20,
		    .fault = fault, .seed = 1 });
		memset(s, 0, sizeof(s));
		for (unsigned i = 0; i < 4000; i++) {
			size_t at = heap_rand(&r) % ARRAY_LEN(s);
			if (s[at] != NULL)
				park(s[at]);
			s[at] = s[at] != NULL ? NULL : span((1 + heap_rand(&r) % 60) << PAGE_SHIFT);
			if (heap_rand(&r) % 100 == 0)
				mheap_flush_quarantine(&mheap_);
			if (i % 100 == 0)
				assert_accounted();
		}
		assert_accounted();
	}
}

#define TEST(f) cmocka_unit_test_teardown(f, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_off_parks_nothing),
		TEST(test_bound_in_bytes),
		TEST(test_too_large_is_not_parked),
		TEST(test_share_and_floor),
		TEST(test_bound_in_number),
		TEST(test_order_is_random),
		TEST(test_order_follows_the_seed),
		TEST(test_parked_pages_fault),
		TEST(test_parked_pages_stay_mapped),
		TEST(test_what_leaves_is_zero),
		TEST(test_what_left_is_taken_over),
		TEST(test_mapped_ones_wait_for_their_guards),
		TEST(test_mapped_ones_that_wait_are_bounded),
		TEST(test_those_that_wait_are_bounded),
		TEST(test_double_free_of_parked),
		TEST(test_flushed_when_memory_runs_out),
		TEST(test_refused_unfault_keeps_it_parked),
		TEST(test_refused_unfault_of_many),
		TEST(test_verify_sees_it),
		TEST(test_traffic_is_accounted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
