/* test_zerosize.c - objects of no bytes: distinct, aligned, never touchable, and
 * freed exactly. The room's source is included, so that its bits can be planted. */
#include "hardening/zerosize.c"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "peek.h"

static void
start(uint64_t seed)
{
	sys_init(SYS_GUARD_AUTO, 50);
	zerosize_init(true, seed);
}

static void *
get(size_t align)
{
	void *p = zerosize_alloc(align);
	assert_non_null(p);
	assert_int_equal((uintptr_t)p % (align < 16 ? 16 : align), 0);
	assert_int_equal(zerosize_look(p), OUTSIDE_OK);
	return p;
}

static void
test_life(void **state)
{
	(void)state;
	start(1);
	char *p = get(16), *q = get(16);
	struct peek k = { { 0 } };
	assert_ptr_not_equal(p, q);
	assert_false(peek_ok(&k, (uintptr_t)p, 1));
	assert_int_equal(zerosize_look(p + 1), OUTSIDE_INTERIOR);
	assert_int_equal(zerosize_look(p + 8), OUTSIDE_INTERIOR);
	assert_int_equal(zerosize_look(&k), OUTSIDE_FOREIGN);
	assert_int_equal(zerosize_look(NULL), OUTSIDE_FOREIGN);
	assert_int_equal(zerosize_free(p + 1), OUTSIDE_INTERIOR);
	assert_int_equal(zerosize_live_count(), 2);
	assert_int_equal(zerosize_free(p), OUTSIDE_OK);
	assert_int_equal(zerosize_look(p), OUTSIDE_FREED);
	assert_int_equal(zerosize_free(p), OUTSIDE_FREED);
	assert_int_equal(zerosize_look(q), OUTSIDE_OK);
	assert_int_equal(zerosize_free(q), OUTSIDE_OK);
	assert_int_equal(zerosize_live_count(), 0);
}

static void
test_never_handed_out(void **state)
{
	(void)state;
	start(2);
	uintptr_t p = (uintptr_t)get(16), base = align_down(p, CHUNK_BYTES);
	size_t foreign = 0;
	for (uintptr_t at = base; at < base + CHUNK_BYTES; at += GRANULE_BYTES)
		foreign += zerosize_free((void *)at) == OUTSIDE_FOREIGN;
	assert_int_equal(foreign, GRANULES - 1);
	assert_int_equal(zerosize_free((void *)(base + CHUNK_BYTES)), OUTSIDE_FOREIGN);
	assert_int_equal(zerosize_free((void *)(base - 16)), OUTSIDE_FOREIGN);
	assert_int_equal(zerosize_look((void *)p), OUTSIDE_FREED);
}

static void
test_alignments(void **state)
{
	(void)state;
	start(3);
	for (size_t align = 1; align <= CHUNK_BYTES; align *= 2)
		for (int i = 0; i < 3; i++)
			get(align);
	assert_null(zerosize_alloc((size_t)CHUNK_BYTES * 2));
	assert_null(zerosize_alloc((size_t)1 << 47));
	assert_null(zerosize_check());
	zerosize_init(false, 3);
	assert_null(zerosize_alloc(16));
}

static int
by_address(const void *a, const void *b)
{
	uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;
	return x < y ? -1 : x > y;
}

/* More than one chunk holds, to the last. */
static void
test_all_distinct(void **state)
{
	enum { N = GRANULES + GRANULES / 2 };
	uintptr_t *p = malloc(N * sizeof(*p));
	(void)state;
	start(4);
	for (size_t i = 0; i < N; i++)
		p[i] = (uintptr_t)get(16);
	assert_int_equal(zerosize_live_count(), N);
	qsort(p, N, sizeof(*p), by_address);
	for (size_t i = 1; i < N; i++)
		assert_true(p[i] - p[i - 1] >= GRANULE_BYTES);
	assert_null(zerosize_check());
	for (size_t i = 0; i < N; i++)
		assert_int_equal(zerosize_free((void *)p[i]), OUTSIDE_OK);
	assert_int_equal(zerosize_live_count(), 0);
	free(p);
}

static void
test_all_chunks_full(void **state)
{
	size_t n = 0;
	(void)state;
	start(5);
	while (zerosize_alloc(CHUNK_BYTES) != NULL)
		n++;
	assert_int_equal(n, CHUNKS);
	get(16);
	for (size_t i = 0; i < CHUNKS; i++) {
		struct zero_chunk *c = aptr_load_acquire(&zero.chunks[i]);
		memset(c->live, 0xff, sizeof(c->live));
		memset(c->ever, 0xff, sizeof(c->ever));
	}
	assert_null(zerosize_alloc(16));
	assert_int_equal(zerosize_live_count(), (size_t)CHUNKS * GRANULES);
}

static void
test_seed(void **state)
{
	uintptr_t off[2][100];
	size_t same = 0;
	(void)state;
	for (int run = 0; run < 2; run++) {
		start(6);
		for (int i = 0; i < 100; i++)
			off[run][i] = (uintptr_t)get(16) % CHUNK_BYTES;
	}
	assert_memory_equal(off[0], off[1], sizeof(off[0]));
	start(0);
	for (int i = 0; i < 100; i++)
		same += (uintptr_t)get(16) % CHUNK_BYTES == off[0][i];
	assert_true(same < 3);
	uint64_t key = zero.key;
	zerosize_after_fork_child();
	assert_true(key != zero.key);
	start(6);
	zerosize_after_fork_child();
	assert_int_equal(zero.key, 6);
}

/* Every 64th of the chunk gets its share of 64,000 addresses (each is 1,000 on
 * the average, standard deviation 32). */
static void
test_uniform(void **state)
{
	size_t n[64] = { 0 };
	(void)state;
	start(7);
	for (int i = 0; i < 64000; i++) {
		void *p = get(16);
		n[(uintptr_t)p % CHUNK_BYTES / (CHUNK_BYTES / 64)]++;
		zerosize_free(p);
	}
	for (size_t i = 0; i < 64; i++)
		assert_in_range(n[i], 1000 - 160, 1000 + 160);
}

static void
test_room(void **state)
{
	struct fault_claim claim;
	struct room_object o;
	char *p;
	(void)state;
	start(8);
	p = get(CHUNK_BYTES);
	assert_true(zerosize_room.claim((uintptr_t)p + 100, &claim));
	assert_int_equal(claim.code, DIE_ZERO_SIZE);
	assert_false(zerosize_room.claim((uintptr_t)&claim, &claim));
	assert_false(zerosize_room.claim((uintptr_t)p - 1, &claim));
	assert_true(zerosize_room.object((uintptr_t)p + 100, &o));
	assert_int_equal(o.base, (uintptr_t)p);
	assert_int_equal(o.bytes, 0);
	assert_true(o.live);
	zerosize_free(p);
	assert_true(zerosize_room.object((uintptr_t)p, &o));
	assert_false(o.live);
	assert_false(zerosize_room.object((uintptr_t)&o, &o));
}

static void
test_planted(void **state)
{
	(void)state;
	start(9);
	get(16);
	struct zero_chunk *c = aptr_load_acquire(&zero.chunks[0]);
	assert_null(zerosize_check());
	a64_fetch_or(&c->live[77], 1);
	assert_string_equal(zerosize_check(), "ZEROSIZE-1");
	a64_fetch_or(&c->ever[77], 1);
	assert_null(zerosize_check());
}

enum { THREADS = 4, ROUNDS = 200, HELD = 50 };

static atomic_u64 freed_twice;
static void *victim;
static pthread_barrier_t barrier;

static void *
churn(void *arg)
{
	void *p[HELD];
	(void)arg;
	pthread_barrier_wait(&barrier);
	for (int r = 0; r < ROUNDS; r++) {
		for (int i = 0; i < HELD; i++)
			if ((p[i] = zerosize_alloc(16)) == NULL)
				abort();
		for (int i = 0; i < HELD; i++)
			if (zerosize_free(p[i]) != OUTSIDE_OK)
				abort();
	}
	pthread_barrier_wait(&barrier);
	if (zerosize_free(victim) != OUTSIDE_OK)
		a64_fetch_add(&freed_twice, 1);
	return NULL;
}

static void
test_threads(void **state)
{
	pthread_t t[THREADS];
	(void)state;
	start(0);
	victim = get(16);
	pthread_barrier_init(&barrier, NULL, THREADS);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, churn, NULL), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(a64_load_relaxed(&freed_twice), THREADS - 1);
	assert_int_equal(zerosize_live_count(), 0);
	assert_null(zerosize_check());
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_life),
		cmocka_unit_test(test_never_handed_out),
		cmocka_unit_test(test_alignments),
		cmocka_unit_test(test_all_distinct),
		cmocka_unit_test(test_all_chunks_full),
		cmocka_unit_test(test_seed),
		cmocka_unit_test(test_uniform),
		cmocka_unit_test(test_room),
		cmocka_unit_test(test_planted),
		cmocka_unit_test(test_threads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
