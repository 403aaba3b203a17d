/* test_boot.c - the memory for moments without a heap: alignment, exact frees,
 * sizes, reuse, threads, its end; and objects of it that reach the heap's
 * functions. The tests share the one region, and each gives back what it took. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "boot.h"
#include "fake_die.h"
#include "heap_support.h"
#include "tls.h"

static enum boot_verdict
verdict(const void *p)
{
	size_t bytes;

	return boot_look(p, &bytes);
}

static size_t
size_of(const void *p)
{
	size_t bytes = 12345;

	assert_int_equal(boot_look(p, &bytes), BOOT_OK);
	return bytes;
}

static void
release(void *p)
{
	assert_int_equal(boot_free(p), BOOT_OK);
}

/* Objects of any size and alignment are zero, apart, and as large as said. */
static void
test_objects_are_apart(void **state)
{
	enum { N = 200 };
	static struct { char *p; size_t n; } live[N];
	uint64_t r = 6;

	(void)state;
	for (int i = 0; i < 20000; i++) {
		size_t k = heap_rand(&r) % N, n = heap_rand(&r) % (heap_rand(&r) % 8 ? 300 : 9000);
		size_t align = (size_t)1 << heap_rand(&r) % 13;
		if (live[k].p != NULL) {
			for (size_t b = 0; b < live[k].n; b++)
				assert_int_equal(live[k].p[b], k & 0x7f);
			assert_true(size_of(live[k].p) >= live[k].n);
			release(live[k].p);
			live[k].p = NULL;
		} else if ((live[k].p = boot_alloc(n, align)) != NULL) {
			assert_int_equal((uintptr_t)live[k].p % align, 0);
			assert_int_equal((uintptr_t)live[k].p % MALLOC_ALIGN, 0);
			size_t have = size_of(live[k].p);
			assert_in_range(have, n, n + 1024);
			for (size_t b = 0; b < have; b++)
				assert_int_equal(live[k].p[b], 0);      /* BOOT-2 */
			live[k].n = have;
			memset(live[k].p, (int)(k & 0x7f), have);
		}
	}
	for (size_t k = 0; k < N; k++)
		if (live[k].p != NULL)
			release(live[k].p);
}

static void
test_frees_are_exact(void **state)
{
	char *p = boot_alloc(100, MALLOC_ALIGN), *q = boot_alloc(50, MALLOC_ALIGN);
	char *large = boot_alloc(5000, MALLOC_ALIGN);

	(void)state;
	assert_int_equal(verdict(p), BOOT_OK);
	assert_int_equal(verdict(p + 1), BOOT_INTERIOR);
	assert_int_equal(verdict(p + 16), BOOT_INTERIOR);
	assert_int_equal(boot_free(p + 16), BOOT_INTERIOR);
	assert_int_equal(boot_free(p), BOOT_OK);
	assert_int_equal(boot_free(p), BOOT_FREED);
	assert_int_equal(verdict(p), BOOT_FREED);
	assert_int_equal(verdict(q), BOOT_OK);
	for (size_t off = 16; off < 5000; off += 16)
		assert_int_equal(boot_free(large + off), BOOT_INTERIOR);
	assert_int_equal(boot_free(large), BOOT_OK);
	assert_int_equal(boot_free(large), BOOT_FREED);
	assert_int_equal(verdict(&p), BOOT_FOREIGN);
	assert_int_equal(verdict(NULL), BOOT_FOREIGN);
	assert_int_equal(verdict((void *)UINTPTR_MAX), BOOT_FOREIGN);
	assert_int_equal(boot_free(&p), BOOT_FOREIGN);
	release(q);
}

/* What a program got before there was a heap it may hand to any function. */
static void
test_boot_objects_in_the_heap(void **state)
{
	char *p = boot_alloc(100, MALLOC_ALIGN), *q;

	(void)state;
	heap_cache();
	memcpy(p, "before main", 12);
	assert_int_equal(usable_size(p, API_USABLE_SIZE), size_of(p));
	q = reallocgc(p, 1000, API_REALLOC);
	assert_string_equal(q, "before main");
	assert_int_equal(verdict(q), BOOT_FOREIGN);
	assert_true(heap_free_dies(p, DIE_DOUBLE_FREE));
	assert_string_equal(fake_die_info.site, "boot");
	assert_true(heap_realloc_dies(p, 10, DIE_STALE_POINTER));
	assert_true(heap_usable_dies(p, DIE_STALE_POINTER));
	freegc(q, API_FREE);
	p = boot_alloc(100, MALLOC_ALIGN);
	assert_true(heap_free_dies(p + 8, DIE_INTERIOR_FREE));
	assert_true(heap_free_dies(p + 32, DIE_INTERIOR_FREE));
	freegc(p, API_FREE);
	assert_true(heap_free_dies(p, DIE_DOUBLE_FREE));
	p = boot_alloc(100, MALLOC_ALIGN);
	free_sized_check(p, 100, 0, API_FREE_SIZED);
	assert_true(heap_free_sized_dies(p, 100, 0, DIE_DOUBLE_FREE));
	heap_assert_sound();
}

/* A signal handler that comes in while its thread is inside the allocator. */
static void
test_busy_cache_is_served_from_boot(void **state)
{
	struct mcache *c = heap_cache();
	size_t bytes;

	(void)state;
	freegc(mallocgc(64, API_MALLOC), API_FREE);
	c->busy = CACHE_SLOW;
	char *p = mallocgc(5000, API_MALLOC), *q = mallocgc(50000, API_MALLOC);
	char *z = mallocgc_zeroed(6000, API_CALLOC);
	char *a = mallocgc_aligned(4096, 100, API_MEMALIGN);
	c->busy = CACHE_IDLE;
	assert_int_equal(boot_look(p, &bytes), BOOT_OK);
	assert_int_equal(boot_look(q, &bytes), BOOT_OK);
	assert_int_equal(boot_look(z, &bytes), BOOT_OK);
	assert_int_equal((uintptr_t)a % 4096, 0);
	freegc(p, API_FREE);
	freegc(q, API_FREE);
	freegc(z, API_FREE);
	freegc(a, API_FREE);
	heap_assert_sound();
}

enum { THREADS = 4, EACH = 300 };
static char *from_thread[THREADS][EACH];

static void *
allocate(void *arg)
{
	char **out = arg;

	for (size_t i = 0; i < EACH; i++) {
		out[i] = boot_alloc(i % 100, i % 5 == 0 ? 64 : 16);
		if (out[i] != NULL)
			memset(out[i], (int)(i & 0x7f), i % 100);
	}
	return NULL;
}

static void
test_threads(void **state)
{
	pthread_t t[THREADS];

	(void)state;
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, allocate, from_thread[i]), 0);
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	for (size_t i = 0; i < THREADS; i++)
		for (size_t k = 0; k < EACH; k++) {
			char *p = from_thread[i][k];
			assert_non_null(p);
			for (size_t b = 0; b < k % 100; b++)
				assert_int_equal(p[b], k & 0x7f);
			assert_int_equal(boot_free(p), BOOT_OK);
			assert_int_equal(boot_free(p), BOOT_FREED);
		}
}

static void
test_end(void **state)
{
	char *p, *last = NULL;

	(void)state;
	assert_null(boot_alloc(SIZE_MAX, 16));
	assert_null(boot_alloc(2 << 20, 16));
	assert_null(boot_alloc(16, (size_t)1 << 40));
	assert_null(boot_alloc(16, (size_t)1 << 63));
	while ((p = boot_alloc(5000, 16)) != NULL)
		last = p;
	assert_non_null(last);
	memset(last, 1, 5000);
	while ((p = boot_alloc(1, 16)) != NULL)
		last = p;
	assert_int_equal(size_of(last), 16);
	assert_null(boot_alloc(0, 16));
	assert_int_equal(boot_free(last), BOOT_OK);
	assert_ptr_equal(boot_alloc(0, 16), last);
	assert_null(boot_alloc(0, 16));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_objects_are_apart),
		cmocka_unit_test(test_frees_are_exact),
		cmocka_unit_test(test_boot_objects_in_the_heap),
		cmocka_unit_test(test_busy_cache_is_served_from_boot),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
