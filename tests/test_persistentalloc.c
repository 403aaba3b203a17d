/* test_persistentalloc.c - src/persistentalloc.c on the real system: alignment,
 * zeroes, no overlap, guards that fault, and life without guards. */
#define _GNU_SOURCE
#include "fake_die.h"
#include "persistentalloc.h"
#include "sys.h"

#include <stdarg.h>
#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

enum { CHUNK = 256 << 10, OWN = 64 << 10 };

static sigjmp_buf segv_jmp;

static void
on_segv(int sig)
{
	siglongjmp(segv_jmp, sig);
}

static bool
touch_faults(uintptr_t p)
{
	struct sigaction act = { .sa_handler = on_segv }, old;
	volatile bool faulted = true;

	sigaction(SIGSEGV, &act, &old);
	if (sigsetjmp(segv_jmp, 1) == 0) {
		*(volatile char *)p = 'x';
		faulted = false;
	}
	sigaction(SIGSEGV, &old, NULL);
	return faulted;
}

static bool
all_zero(const char *p, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++) {
		if (p[i] != 0)
			return false;
	}
	return true;
}

static struct sys_stats
stats(void)
{
	struct sys_stats s;

	sys_read_stats(&s);
	return s;
}

static int
setup(void **state)
{
	(void)state;
	sys_init(SYS_GUARD_AUTO, 50);
	return 0;
}

/* Many sizes and alignments: each zero, aligned, and still its own at the end. */
static void
test_small(void **state)
{
	static struct { unsigned char *p; size_t bytes; } got[2000];
	static struct persistent p;    /* zero-initialised is ready */
	size_t sum = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(got); i++) {
		size_t bytes = 1 + i * 37 % 700, align = (size_t)1 << i % 13;

		got[i].bytes = bytes;
		got[i].p = persistent_alloc(&p, bytes, align);
		assert_non_null(got[i].p);
		assert_int_equal((uintptr_t)got[i].p & (align - 1), 0);
		assert_int_equal((uintptr_t)got[i].p & 7, 0);
		assert_true(all_zero((char *)got[i].p, bytes));
		memset(got[i].p, (int)(i % 255 + 1), bytes);
		assert_true(persistent_contains(&p, (uintptr_t)got[i].p));
		assert_true(persistent_contains(&p, (uintptr_t)got[i].p + bytes - 1));
		sum += bytes;
	}
	for (size_t i = 0; i < ARRAY_LEN(got); i++) {
		for (size_t k = 0; k < got[i].bytes; k++)
			assert_int_equal(got[i].p[k], i % 255 + 1);
	}
	assert_true(persistent_bytes(&p) >= sum);
	assert_int_equal(persistent_bytes(&p) % (CHUNK - 2 * sys_page_bytes()), 0);
	assert_false(persistent_contains(&p, (uintptr_t)&p));
	assert_false(persistent_contains(&p, 0));
	assert_false(persistent_contains(&p, UINTPTR_MAX));
}

/* The first byte outside of a chunk faults on both sides. */
static void
test_chunk_guards(void **state)
{
	size_t page = sys_page_bytes(), guards = stats().guard_bytes;
	struct persistent p;
	uintptr_t v, base, end;

	(void)state;
	persistent_init(&p);
	assert_int_equal(persistent_bytes(&p), 0);
	v = (uintptr_t)persistent_alloc(&p, 1, 1);
	assert_int_not_equal(v, 0);
	assert_int_equal(stats().guard_bytes, guards + 2 * page);
	base = align_down(v, page);
	end = base + CHUNK - 2 * page;
	assert_true(touch_faults(base - 1) && touch_faults(base - page));
	assert_true(touch_faults(end) && touch_faults(end + page - 1));
	assert_false(touch_faults(end - 1));
	assert_true(persistent_contains(&p, base - page) && persistent_contains(&p, end + page - 1));
	assert_false(persistent_contains(&p, base - page - 1));
	assert_false(persistent_contains(&p, end + page));
}

static void
test_own_region(void **state)
{
	size_t page = sys_page_bytes(), bytes = (size_t)8 << 20;
	static unsigned char resident[(8 << 20) / 4096];
	struct sys_stats before;
	struct persistent p;
	char *v;

	(void)state;
	persistent_init(&p);
	assert_non_null(persistent_alloc(&p, 1, 1));
	before = stats();
	v = persistent_alloc(&p, bytes, 64);
	assert_non_null(v);
	assert_int_equal(mincore(v, bytes, resident), 0);
	assert_true(all_zero((char *)resident, bytes / page));
	assert_int_equal(stats().bytes[SYS_READY] - before.bytes[SYS_READY], bytes);
	assert_int_equal(stats().guard_bytes - before.guard_bytes, 2 * page);
	assert_true(touch_faults((uintptr_t)v - 1) && touch_faults((uintptr_t)v + bytes));
	assert_false(touch_faults((uintptr_t)v) || touch_faults((uintptr_t)v + bytes - 1));
	assert_int_equal(persistent_bytes(&p), bytes + CHUNK - 2 * page);
	assert_true(persistent_contains(&p, (uintptr_t)v + bytes / 2));

	/* Odd sizes end with their page, great alignments leave nothing over. */
	before = stats();
	v = persistent_alloc(&p, OWN + 1, (size_t)4 << 20);
	assert_int_equal((uintptr_t)v & (((size_t)4 << 20) - 1), 0);
	assert_int_equal(stats().bytes[SYS_READY] - before.bytes[SYS_READY],
	    align_up(OWN + 1, page));
	assert_true(touch_faults((uintptr_t)v - 1));
	assert_true(touch_faults((uintptr_t)v + align_up(OWN + 1, page)));
	v = persistent_alloc(&p, 8, (size_t)1 << 20);
	assert_int_equal((uintptr_t)v & (((size_t)1 << 20) - 1), 0);
	assert_true(all_zero(v, page));
}

/* On both sides of the limit between bumped and own. */
static void
test_limit(void **state)
{
	struct persistent p;
	char *last = NULL;

	(void)state;
	persistent_init(&p);
	for (size_t bytes = OWN - 64; bytes <= OWN + 16; bytes += 8) {
		char *v = persistent_alloc(&p, bytes, 16);

		assert_non_null(v);
		assert_true(all_zero(v, bytes));
		memset(v, 0xff, bytes);
		assert_ptr_not_equal(v, last);
		last = v;
	}
}

static void
test_no_guards(void **state)
{
	struct persistent p;
	uint64_t skipped, guards;
	char *v, *w;

	(void)state;
	sys_init(SYS_GUARD_MPROTECT, 0);
	skipped = stats().guards_skipped;
	guards = stats().guard_bytes;
	persistent_init(&p);
	v = persistent_alloc(&p, 100, 8);
	w = persistent_alloc(&p, OWN, 8);
	assert_non_null(v);
	assert_non_null(w);
	memset(v, 'x', 100);
	memset(w, 'x', OWN);
	assert_int_equal(stats().guards_skipped, skipped + 4);
	assert_int_equal(stats().guard_bytes, guards);
}

/* Refusals: NULL, and the state is what it was. */
static void
test_refused(void **state)
{
	struct rlimit old, none;
	struct persistent p;
	uint64_t ready;
	char *v, *w;
	void *small, *big;

	(void)state;
	persistent_init(&p);
	getrlimit(RLIMIT_AS, &old);
	none = (struct rlimit){ 4096, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_AS, &none), 0);
	small = persistent_alloc(&p, 8, 8);
	big = persistent_alloc(&p, OWN, 8);
	setrlimit(RLIMIT_AS, &old);
	assert_null(small);
	assert_null(big);
	assert_int_equal(persistent_bytes(&p), 0);

	v = persistent_alloc(&p, 8, 8);
	assert_non_null(v);
	ready = stats().bytes[SYS_READY];
	assert_null(persistent_alloc(&p, SIZE_MAX, 8));
	assert_null(persistent_alloc(&p, SIZE_MAX - 4096, 8));
	assert_null(persistent_alloc(&p, SIZE_MAX / 2 + 1, (size_t)1 << 63));
	assert_null(persistent_alloc(&p, (size_t)1 << 60, 64));
	assert_int_equal(stats().bytes[SYS_READY], ready);
	w = persistent_alloc(&p, 8, 8);
	assert_ptr_equal(w, v + 8);
	assert_true(all_zero(w, 8));
}

struct worker {
	struct persistent *p;
	unsigned char id;
	unsigned char *got[300];
};

static size_t
worker_bytes(size_t i)
{
	return 200 + i % 7 * 100;
}

static void *
work(void *arg)
{
	struct worker *w = arg;

	for (size_t i = 0; i < ARRAY_LEN(w->got); i++) {
		w->got[i] = persistent_alloc(w->p, worker_bytes(i), 16);
		memset(w->got[i], w->id, worker_bytes(i));
		if (!persistent_contains(w->p, (uintptr_t)w->got[i]))
			return NULL;
	}
	return arg;
}

static void
test_threads(void **state)
{
	static struct worker w[4];
	struct persistent p = PERSISTENT_INIT;
	pthread_t t[4];
	void *ok;

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		w[i].p = &p;
		w[i].id = (unsigned char)(i + 1);
		assert_int_equal(pthread_create(&t[i], NULL, work, &w[i]), 0);
	}
	for (size_t i = 0; i < 4; i++) {
		pthread_join(t[i], &ok);
		assert_ptr_equal(ok, &w[i]);
	}
	for (size_t i = 0; i < 4; i++) {
		for (size_t k = 0; k < ARRAY_LEN(w[i].got); k++) {
			for (size_t b = 0; b < worker_bytes(k); b++)
				assert_int_equal(w[i].got[k][b], i + 1);
		}
	}
}

#define TEST(f) cmocka_unit_test_setup(f, setup)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_no_guards),   /* first: no guard is there to adjoin */
		TEST(test_small),
		TEST(test_chunk_guards),
		TEST(test_own_region),
		TEST(test_limit),
		TEST(test_refused),
		TEST(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
