/* test_malloc.c - the malloc interface on the real system: where the heap lies,
 * that freed pages go back, mappings, randomness of placements, large objects
 * moved by their page tables, and real threads on one heap. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "fake_die.h"
#include "heap_support.h"
#include "marena.h"
#include "sys.h"
#include "tls.h"

#define MIB ((size_t)1 << 20)

static int
setup(void **state)
{
	(void)state;
	heap_stop();
	heap_start(&(struct heap_setup){ .randomize = true, .seed = 1 });
	heap_cache();
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	heap_stop();
	return 0;
}

static char *
get(size_t bytes)
{
	char *p = mallocgc(bytes, API_MALLOC);

	assert_non_null(p);
	return p;
}

static void
drop(void *p)
{
	freegc(p, API_FREE);
}

/* Pages of [p, p + bytes) that are in memory. */
static size_t
resident(void *p, size_t bytes)
{
	size_t os = sys_page_bytes(), n = bytes / os, sum = 0;
	unsigned char *vec = malloc(n);

	assert_int_equal(mincore(p, bytes, vec), 0);
	for (size_t i = 0; i < n; i++)
		sum += vec[i] & 1;
	free(vec);
	return sum;
}

static void
test_first_arena_is_at_a_random_place(void **state)
{
	uintptr_t at[8];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(at); i++) {
		heap_stop();
		heap_start(&(struct heap_setup){ .seed = 100 + i });
		at[i] = (uintptr_t)get(100000);
		assert_int_equal(at[i] & (ARENA_SIZE - 1), 0);
		for (size_t k = 0; k < i; k++)
			assert_int_not_equal(at[i], at[k]);
	}
}

static void
test_freed_pages_go_back(void **state)
{
	char *p = get(64 * MIB);

	(void)state;
	memset(p, 1, 64 * MIB);
	assert_int_equal(resident(p, 64 * MIB), 64 * MIB / sys_page_bytes());
	drop(p);
	assert_true(malloc_trim_all() >= 64 * MIB);
	assert_int_equal(resident(p, 64 * MIB), 0);
	char *q = mallocgc_zeroed(64 * MIB, API_CALLOC);
	assert_ptr_equal(q, p);
	/* known to be zero, so not even touched */
	assert_true(resident(q, 64 * MIB) < 16);
	assert_int_equal(q[33 * MIB], 0);
	drop(q);
	heap_assert_sound();
}

static void
test_large_is_moved_by_page_tables(void **state)
{
	size_t n = 16 * MIB;
	char *p = get(n), *wall = get(100000), *q;

	(void)state;
	for (size_t i = 0; i < n; i += 512)
		*(size_t *)(p + i) = i;
	q = reallocgc(p, 3 * n, API_REALLOC);
	assert_ptr_not_equal(p, q);
	for (size_t i = 0; i < n; i += 512)
		assert_int_equal(*(size_t *)(q + i), i);
	assert_true(heap_span(q)->moved);
	/* nothing was copied: the old place is empty, the new one no fuller */
	assert_int_equal(resident(p, n), 0);
	assert_true(resident(q, 3 * n) <= n / sys_page_bytes() + 1);
	memset(q + n, 1, 2 * n);
	drop(q);
	drop(wall);
	q = get(3 * n);
	memset(q, 2, 3 * n);
	drop(q);
	heap_assert_sound();
}

static size_t
mappings(void)
{
	char line[512];
	size_t n = 0;
	FILE *f = fopen("/proc/self/maps", "r");

	assert_non_null(f);
	while (fgets(line, sizeof(line), f) != NULL) {
		unsigned long from, to;
		assert_int_equal(sscanf(line, "%lx-%lx", &from, &to), 2);
		n += arena_of(from) != NULL || persistent_contains(&mheap_.meta, from);
	}
	fclose(f);
	return n;
}

static void
test_few_mappings(void **state)
{
	enum { N = 20000 };
	static void *p[N];
	uint64_t r = 1;

	(void)state;
	for (int round = 0; round < 3; round++) {
		for (size_t i = 0; i < N; i++)
			p[i] = get(heap_rand(&r) % 3000);
		void *big[20];
		for (size_t i = 0; i < ARRAY_LEN(big); i++) {
			big[i] = get(2 * MIB);
			big[i] = reallocgc(big[i], 5 * MIB, API_REALLOC);
		}
		for (size_t i = 0; i < N; i++)
			drop(p[i]);
		for (size_t i = 0; i < ARRAY_LEN(big); i++)
			drop(big[i]);
		malloc_trim_all();
	}
	if (sys_guard_in_use() == SYS_GUARD_MARKER)
		assert_true(mappings() < 64);
	heap_assert_sound();
}

/* hardened: consecutive allocations are seldom neighbours. */
static void
test_random_placement(void **state)
{
	enum { N = 20000 };
	size_t adjacent = 0;
	char *last = get(64);

	(void)state;
	for (int i = 0; i < N; i++) {
		char *p = get(64);
		adjacent += p == last + 64;
		last = p;
	}
	assert_true(adjacent < N / 50);
}

/* The address of the first object of a fresh heap: all slots of a span occur. */
static void
test_random_first_slot(void **state)
{
	enum { ROUNDS = 3000, SLOTS = 128 };
	uint32_t seen[SLOTS] = { 0 };

	(void)state;
	for (uint64_t i = 0; i < ROUNDS; i++) {
		heap_use(NULL);
		mcache_reset();
		mheap_.config.seed = 1000 + i;
		char *p = get(256);
		seen[heap_slot(p)]++;
	}
	for (size_t i = 0; i < SLOTS; i++)
		assert_in_range(seen[i], 3, 60);
}

/* ---- threads ---- */

enum { EACH = 5000 };

static void *
thread_frees(void *arg)
{
	void **p = arg;

	for (size_t i = 0; i < EACH; i++)
		drop(p[i]);
	return NULL;
}

static void *
thread_allocates(void *arg)
{
	char **p = arg;

	for (size_t i = 0; i < EACH; i++) {
		p[i] = get(8 + i % 300);
		memset(p[i], (int)(i & 0x7f), 8 + i % 300);
	}
	return NULL;
}

static void
join_new(void *(*fn)(void *), void *arg)
{
	pthread_t t;

	assert_int_equal(pthread_create(&t, NULL, fn, arg), 0);
	assert_int_equal(pthread_join(t, NULL), 0);
}

static void
test_allocated_here_freed_there(void **state)
{
	static char *p[EACH];

	(void)state;
	for (int round = 0; round < 4; round++) {
		if (round % 2)
			join_new(thread_allocates, p);
		else
			thread_allocates(p);
		for (size_t i = 0; i < EACH; i++)
			assert_int_equal(p[i][7], i & 0x7f);
		if (round / 2)
			join_new(thread_frees, p);
		else
			thread_frees(p);
		heap_assert_sound();
	}
	malloc_trim_all();
	assert_int_equal(a64_load_relaxed(&mheap_.spans_in_use), 0);
	heap_assert_sound();
}

static void
test_double_free_after_another_threads_free(void **state)
{
	static char *p[EACH];

	(void)state;
	thread_allocates(p);
	join_new(thread_frees, p);
	for (size_t i = 0; i < EACH; i += 97)
		assert_true(heap_free_dies(p[i], DIE_DOUBLE_FREE));
	join_new(thread_allocates, p);
	thread_frees(p);
	for (size_t i = 0; i < EACH; i += 97)
		assert_true(heap_free_dies(p[i], DIE_DOUBLE_FREE));
	heap_assert_sound();
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_first_arena_is_at_a_random_place),
		TEST(test_freed_pages_go_back),
		TEST(test_large_is_moved_by_page_tables),
		TEST(test_few_mappings),
		TEST(test_random_placement),
		TEST(test_random_first_slot),
		TEST(test_allocated_here_freed_there),
		TEST(test_double_free_after_another_threads_free),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
