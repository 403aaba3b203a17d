/* test_depot.c - every stack once, ids that lead back, chunks, the bound, threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <string.h>

#include "hardening/depot.h"
#include "sys.h"

enum { THREADS = 4, STACKS = 3000 };

/* Stack i of a family: its length and its pcs follow from i. */
static size_t
stack_of(uint64_t i, uintptr_t *pcs)
{
	size_t n = 1 + i % DEPOT_FRAMES;
	for (size_t k = 0; k < n; k++)
		pcs[k] = (uintptr_t)(0x550000000000 + i * 977 + k * 13);
	return n;
}

static bool
leads_back(uint32_t id, const uintptr_t *pcs, size_t n)
{
	uint32_t have;
	const uintptr_t *p = depot_get(id, &have);
	return p != NULL && have == n && memcmp(p, pcs, n * sizeof(*pcs)) == 0;
}

static void
test_same_stack_same_id(void **state)
{
	uintptr_t pcs[DEPOT_FRAMES];
	static uint32_t ids[STACKS];
	struct depot_stats s;
	(void)state;
	depot_init(8 << 20);
	for (uint64_t i = 0; i < STACKS; i++) {
		size_t n = stack_of(i, pcs);
		ids[i] = depot_put(pcs, n);
		assert_int_not_equal(ids[i], 0);
	}
	for (uint64_t i = 0; i < STACKS; i++) {
		size_t n = stack_of(i, pcs);
		assert_int_equal(depot_put(pcs, n), ids[i]);
		assert_true(leads_back(ids[i], pcs, n));
		if (n > 1)
			assert_int_not_equal(depot_put(pcs, n - 1), ids[i]);
		pcs[0]++;
		assert_int_not_equal(depot_put(pcs, n), ids[i]);
	}
	depot_read_stats(&s);
	assert_true(s.stacks > STACKS && s.stacks <= 3 * STACKS);
	assert_int_equal(s.refused, 0);
}

static void
test_nothing_and_too_much(void **state)
{
	uintptr_t pcs[DEPOT_FRAMES + 10] = { 1, 2, 3 };
	uint32_t n;
	(void)state;
	depot_init(1 << 20);
	assert_int_equal(depot_put(pcs, 0), 0);
	uint32_t id = depot_put(pcs, ARRAY_LEN(pcs));
	assert_true(leads_back(id, pcs, DEPOT_FRAMES));
	assert_null(depot_get(0, &n));
	assert_null(depot_get(UINT32_MAX, &n));
	assert_int_equal(n, 0);
	depot_init(0);
	assert_int_equal(depot_put(pcs, 3), 0);
	assert_null(depot_get(1, &n));
}

/* The bound holds, what was put in before stays, and nothing crosses a chunk. */
static void
test_full(void **state)
{
	uintptr_t pcs[DEPOT_FRAMES];
	struct depot_stats s;
	uint64_t i = 0;
	(void)state;
	depot_init(3 * DEPOT_CHUNK_BYTES + 5);
	for (;; i++) {
		size_t n = stack_of(i, pcs);
		uint32_t id = depot_put(pcs, n);
		if (id == 0)
			break;
		assert_true(leads_back(id, pcs, n));
	}
	depot_read_stats(&s);
	assert_int_equal(s.stacks, i);
	assert_true(s.refused >= 1);
	assert_true(s.bytes <= 3 * DEPOT_CHUNK_BYTES + ((size_t)1 << 20));
	assert_true(i > 3 * DEPOT_CHUNK_BYTES / (8 + 8 * 40));
	for (uint64_t k = 0; k < i; k++) {
		size_t n = stack_of(k, pcs);
		assert_true(leads_back(depot_put(pcs, n), pcs, n));
	}
}

static void *
put_all(void *arg)
{
	uint32_t *ids = arg;
	uintptr_t pcs[DEPOT_FRAMES];
	for (uint64_t i = 0; i < STACKS; i++) {
		size_t n = stack_of(i, pcs);
		ids[i] = depot_put(pcs, n);
		if (!leads_back(ids[i], pcs, n))
			ids[i] = 0;
	}
	return NULL;
}

static void
test_threads(void **state)
{
	static uint32_t ids[THREADS][STACKS];
	pthread_t t[THREADS];
	(void)state;
	depot_init(16 << 20);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, put_all, ids[i]), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	for (int i = 0; i < THREADS; i++)
		for (size_t k = 0; k < STACKS; k++)
			assert_int_not_equal(ids[i][k], 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_stack_same_id),
		cmocka_unit_test(test_nothing_and_too_much),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_threads),
	};
	sys_init(SYS_GUARD_AUTO, 50);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
