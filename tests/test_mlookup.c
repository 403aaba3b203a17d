/* test_mlookup.c - what an address is: every kind, every state of a slot, and
 * any address at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_die.h"
#include "heap_support.h"
#include "marena.h"
#include "mlookup.h"
#include "tls.h"

#define MIB ((size_t)1 << 20)

static struct mcache *me, *other;

static int
setup(void **state)
{
	(void)state;
	heap_stop();
	heap_start(NULL);
	me = heap_new_cache();
	other = heap_new_cache();
	me->tid = 11;
	other->tid = 22;
	heap_use(me);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	heap_stop();
	return 0;
}

static struct addr_info
look(const void *p)
{
	struct addr_info info;

	memset(&info, 0x5a, sizeof(info));
	heap_describe((uintptr_t)p, &info);
	return info;
}

static char *
take(size_t bytes)
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

static void
test_foreign(void **state)
{
	uintptr_t odd[] = { 0, 1, 4096, (uintptr_t)&me, (uintptr_t)&odd, (uintptr_t)me, ADDR_LIMIT,
		ADDR_LIMIT - 1, UINTPTR_MAX, (uintptr_t)1 << 63 };
	uint64_t r = 3;

	(void)state;
	take(1);
	for (size_t i = 0; i < ARRAY_LEN(odd); i++) {
		struct addr_info info = look((void *)odd[i]);
		assert_int_equal(info.kind, ADDR_FOREIGN);
		assert_int_equal(info.span_base, 0);
		assert_int_equal(info.owner_tid, 0);
	}
	/* anywhere, heap included: no crash, and a span only if there is one */
	for (int i = 0; i < 200000; i++) {
		uintptr_t a = heap_rand(&r);
		if (i % 2)
			a = mheap_.grow_base - 4 * MIB + a % (8 * MIB);
		struct addr_info info = look((void *)a);
		assert_int_equal(info.span_base != 0, arena_span_containing(a) != NULL);
	}
}

static void
test_small(void **state)
{
	char *p = take(100), *q = take(100);            /* 112 bytes */
	const struct mspan *s = heap_span(p);

	(void)state;
	for (size_t off = 0; off < 112; off++) {
		struct addr_info info = look(p + off);
		assert_int_equal(info.kind, ADDR_SMALL);
		assert_int_equal(info.span_base, s->base);
		assert_int_equal(info.span_bytes, mspan_bytes(s));
		assert_int_equal(info.size_class, s->span_class);
		assert_false(info.noscan);
		assert_false(info.parked);
		assert_int_equal(info.elem_bytes, 112);
		assert_int_equal(info.nelems, s->nelems);
		assert_ptr_equal((void *)info.slot_base, p);
		assert_int_equal(info.slot_idx, (size_t)(p - (char *)s->base) / 112);
		assert_int_equal(info.state, SLOT_LIVE);
		assert_int_equal(info.owner_tid, 11);
		assert_false(info.freed_by_other);
	}
	assert_int_equal(look(p + 112).slot_base, (uintptr_t)q);
	assert_int_equal(look((char *)s->base + s->nelems * 112).state, SLOT_TAIL);
	assert_int_equal(look((char *)s->base + mspan_bytes(s) - 1).state, SLOT_TAIL);
	assert_true(look(mallocgc_noscan(100, API_NOSCAN)).noscan);
}

static void
test_states_of_a_slot(void **state)
{
	char *p[64];

	(void)state;
	for (int i = 0; i < 10; i++)
		p[i] = take(256);
	/* in the window, and still in the span: never handed out */
	assert_int_equal(look(p[9] + 256).state, SLOT_FREE);
	char *many = take(16);
	assert_int_equal(look(many + 16 * 500).state, SLOT_FREE);
	for (int i = 10; i < 64; i++)
		p[i] = take(256);
	drop(p[3]);
	assert_int_equal(look(p[3]).state, SLOT_FREED);
	assert_int_equal(look(p[3] + 100).slot_base, (uintptr_t)p[3]);
	assert_false(look(p[3]).freed_by_other);
	heap_use(other);
	drop(p[4]);
	assert_int_equal(look(p[4]).state, SLOT_FREED);
	assert_true(look(p[4]).freed_by_other);
	assert_int_equal(look(p[4]).owner_tid, 11);
	heap_use(me);
	for (int i = 10; i < 30; i++)
		drop(p[i]);
	take(256);
	/* swept: free for malloc, for whoever still has the pointer it is freed */
	assert_int_equal(look(p[20]).state, SLOT_FREED);
	assert_int_equal(look(p[40]).state, SLOT_LIVE);
	heap_exit(me);
	assert_int_equal(look(p[40]).owner_tid, 0);
	heap_use(other);
	take(256);
	assert_int_equal(look(p[40]).owner_tid, 22);
}

static void
test_tiny(void **state)
{
	char *a = mallocgc_noscan(4, API_NOSCAN), *b = mallocgc_noscan(11, API_NOSCAN);

	(void)state;
	assert_ptr_equal(b, a + 4);
	for (size_t off = 0; off < 16; off++) {
		struct addr_info info = look(a + off);
		assert_int_equal(info.kind, ADDR_TINY);
		assert_int_equal(info.elem_bytes, TINY_GRANULE_BYTES);
		assert_true(info.noscan);
		assert_int_equal(info.slot_base, (uintptr_t)(off < 4 ? a : b));
		assert_int_equal(info.state, SLOT_LIVE);
	}
	drop(b);
	assert_int_equal(look(b + 9).state, SLOT_FREED);
	assert_int_equal(look(b + 9).slot_base, (uintptr_t)b);
	assert_int_equal(look(a).state, SLOT_LIVE);
	assert_int_equal(look(a + 16 * 100).state, SLOT_FREE);
	assert_int_equal(look(a + 16 * 100 + 8).state, SLOT_FREE);
}

static void
test_large(void **state)
{
	char *p = take(70 * MIB);

	(void)state;
	for (size_t off = 0; off < 70 * MIB; off += 3 * MIB + 77) {
		struct addr_info info = look(p + off);
		assert_int_equal(info.kind, ADDR_LARGE);
		assert_int_equal(info.size_class, 0);
		assert_int_equal(info.slot_base, (uintptr_t)p);
		assert_int_equal(info.slot_idx, 0);
		assert_int_equal(info.elem_bytes, 70 * MIB);
		assert_int_equal(info.state, SLOT_LIVE);
		assert_int_equal(info.owner_tid, 0);
	}
	mspan_set_state(heap_span(p), SPAN_PARKED);
	assert_true(look(p + 5).parked);
	a32_store_relaxed(&heap_span(p)->state, SPAN_IN_USE);
}

static void
test_unused_and_released(void **state)
{
	char *keep = take(300000), *p = take(2 * MIB), *end = p + 2 * MIB, *small;

	(void)state;
	(void)keep;
	assert_int_equal(look(end).kind, ADDR_HEAP_UNUSED);
	assert_int_equal(look((void *)(align_up((uintptr_t)end, ARENA_SIZE) - 1)).kind,
	    ADDR_HEAP_UNUSED);
	drop(p);
	assert_int_equal(look(p).kind, ADDR_HEAP_RELEASED);
	assert_int_equal(look(p).slot_base, (uintptr_t)p);
	assert_int_equal(look(p).size_class, 0);
	assert_int_equal(look(p + 100).slot_base, (uintptr_t)p);
	assert_int_equal(look(p + MIB).kind, ADDR_HEAP_RELEASED);
	assert_int_equal(look(p + MIB).elem_bytes, 0);
	assert_int_equal(look(end).kind, ADDR_HEAP_UNUSED);

	small = take(192);
	assert_int_equal(heap_span(small)->elem_bytes, 192);
	drop(small);
	mcache_trim_all(&mheap_, me);
	assert_null(span_of((uintptr_t)small));
	struct addr_info info = look(small + 192);
	assert_int_equal(info.kind, ADDR_HEAP_RELEASED);
	assert_int_equal(info.elem_bytes, 192);
	assert_false(info.noscan);
	assert_int_equal(info.slot_base, (uintptr_t)small + 192);
	/* 192 = 3 * 64: no slot begins between two multiples of 64 */
	assert_int_equal(look(small + 192 + 63).slot_base, (uintptr_t)small + 192);
}

static void
describe(void *p)
{
	look(p);
}

/* A slot of no bytes cannot be divided by. */
static void
test_overwritten_span(void **state)
{
	char *p = take(100);
	struct mspan *s = span_of((uintptr_t)p);
	size_t bytes = s->elem_bytes;

	(void)state;
	s->elem_bytes = 0;
	assert_true(fake_die_caught(describe, p));
	assert_string_equal(fake_die_info.site, "MSPAN-6");
	s->elem_bytes = bytes;
	assert_int_equal(look(p).slot_base, (uintptr_t)p);
	drop(p);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_foreign),
		TEST(test_small),
		TEST(test_states_of_a_slot),
		TEST(test_tiny),
		TEST(test_large),
		TEST(test_unused_and_released),
		TEST(test_overwritten_span),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
