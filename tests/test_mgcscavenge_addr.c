/* test_mgcscavenge_addr.c - the scavenging policy on a simulated clock: exact
 * amounts at exact times, and what it must never do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../src/lock.h"
#include "../src/mgcscavenge.h"
#include "../src/mpagealloc.h"
#include "../src/persistentalloc.h"
#include "sys_addr_only.h"

#define BASE ((uintptr_t)90 << 34)
#define SEC ((uint64_t)1000000000)
#define DELAY (4 * SEC)              /* so a window is one second */
#define HEAP_PAGES (260 * CHUNK_PAGES)

static struct page_alloc heap;
static struct persistent meta;
static struct mutex heap_lock = MUTEX_INIT(LOCK_MHEAP);
static struct scavenger scav;
static uint8_t in_use[HEAP_PAGES];   /* what the test holds */
static uint64_t now;
static size_t released;              /* pages that sys_unused was called for */
static size_t refaults;              /* scavenged pages handed out again */
static uint64_t rng_state;

static size_t
below(size_t n)
{
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return (size_t)(rng_state >> 20) % n;
}

/* The lock is dropped, and nothing that the test holds is released. */
static void
on_unused(uintptr_t addr, size_t bytes)
{
	size_t first = (addr - BASE) / PAGE_SIZE, n = bytes / PAGE_SIZE;
	assert_true(mutex_trylock(&heap_lock));
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(in_use[first + i], 0);
		assert_false(page_alloc_is_free(&heap, addr + i * PAGE_SIZE));
	}
	mutex_unlock(&heap_lock);
	released += n;
	sys_addr_events = 0;
}

static void
start(size_t os_page_bytes, uint64_t delay_ns)
{
	sys_addr_reset();
	sys_addr_page_bytes = os_page_bytes;
	sys_addr_on_unused = on_unused;
	memset(&meta, 0, sizeof meta);
	memset(in_use, 0, sizeof in_use);
	mutex_reset(&heap_lock);
	persistent_init(&meta);
	page_alloc_init(&heap, &meta);
	assert_true(page_alloc_grow(&heap, BASE, HEAP_PAGES * PAGE_SIZE));
	scavenger_init(&scav, delay_ns);
	now = 1000 * SEC;
	released = 0;
	refaults = 0;
	rng_state = 77;
}

static uintptr_t
take(size_t npages)
{
	size_t zeroed;
	mutex_lock(&heap_lock);
	uintptr_t addr = page_alloc_alloc(&heap, npages, &zeroed);
	assert_true(addr != 0);
	scavenger_note(&scav, &heap);
	mutex_unlock(&heap_lock);
	memset(&in_use[(addr - BASE) / PAGE_SIZE], 1, npages);
	refaults += zeroed;
	sys_addr_events = 0;
	return addr;
}

static void
give(uintptr_t addr, size_t npages)
{
	memset(&in_use[(addr - BASE) / PAGE_SIZE], 0, npages);
	mutex_lock(&heap_lock);
	page_alloc_free(&heap, addr, npages);
	mutex_unlock(&heap_lock);
}

/* What a slow path does: asks, and releases what is due. */
static size_t
call(void)
{
	mutex_lock(&heap_lock);
	size_t due = scavenger_due_pages(&scav, &heap, now);
	size_t before = released;
	assert_true(due <= SCAVENGE_CALL_PAGES);
	assert_int_equal(due % heap.os_pages, 0);
	if (due != 0)
		assert_int_equal(scavenge_pages(&heap, &heap_lock, due), due);
	assert_int_equal(released - before, due);
	mutex_unlock(&heap_lock);
	return due;
}

static size_t
call_until(uint64_t end)
{
	size_t sum = 0;
	while (scavenger_next_ns(&scav) <= end) {
		now = scavenger_next_ns(&scav) > now ? scavenger_next_ns(&scav) : now;
		sum += call();
	}
	now = end;
	return sum;
}

static void
check(void)
{
	uintptr_t where;
	const char *tag = page_alloc_verify(&heap, true, &where);
	if (tag != NULL)
		fail_msg("%s at %#lx", tag, where);
}

/* Freed in the middle of window 0, idle through windows 1-4, gone by halves of
 * halves of the delay: 4 x 1000. */
static void
test_exact_amounts(void **state)
{
	(void)state;
	start(4096, DELAY);
	uint64_t t0 = now;
	uintptr_t a = take(4000);
	assert_int_equal(call(), 0);
	now = t0 + SEC / 2;
	give(a, 4000);
	for (now = t0 + SEC / 2; now < t0 + 5 * SEC; now += SEC / 16)
		assert_int_equal(call(), 0);
	for (unsigned i = 0; i < 4; i++) {
		now = t0 + (5 + i) * SEC - 1;
		assert_int_equal(call(), 0);
		now++;
		assert_int_equal(call(), 1000);
		assert_int_equal(call(), 0);
		assert_int_equal(page_alloc_idle_pages(&heap), 3000 - i * 1000);
	}
	assert_int_equal(heap.scavenged_pages, HEAP_PAGES);
	now += 100 * SEC;
	assert_int_equal(call(), 0);

	/* The next lot has shares of its own. */
	t0 = now;
	give(take(2000), 2000);
	now += SEC;
	assert_int_equal(call(), 0);
	assert_int_equal(call_until(t0 + 5 * SEC - 1), 0);
	assert_int_equal(call_until(t0 + 6 * SEC - 1), 500);
	assert_int_equal(call_until(t0 + 7 * SEC - 1), 500);
	assert_int_equal(call_until(t0 + 9 * SEC), 1000);
	check();
}

/* A gigabyte: each call bounded, all gone one delay after it became due. */
static void
test_idle_heap_empties(void **state)
{
	(void)state;
	start(4096, DELAY);
	uint64_t t0 = now;
	uintptr_t a = take(131072);
	call();
	give(a, 131072);
	assert_int_equal(call_until(t0 + 5 * SEC - 1), 0);
	/* It was in use when window 0 began, so that one does not count. */
	size_t quarter = 131072 / 4;
	assert_int_equal(call_until(t0 + 6 * SEC - 1), quarter);
	assert_int_equal(call_until(t0 + 7 * SEC - 1), quarter);
	assert_int_equal(call_until(t0 + 8 * SEC - 1), quarter);
	assert_int_equal(call_until(t0 + 9 * SEC - 1), quarter);
	assert_int_equal(page_alloc_idle_pages(&heap), 0);
	check();
}

static void
test_small_rest_leaves_at_once(void **state)
{
	(void)state;
	start(4096, DELAY);
	give(take(100), 100);
	call();
	now += 5 * SEC;
	assert_int_equal(call(), 100);
}

/* Nobody called for a long time: all is due, within the rest of the window. */
static void
test_long_silence(void **state)
{
	(void)state;
	start(4096, DELAY);
	uint64_t t0 = now;
	uintptr_t a = take(10000);
	call();
	give(a, 10000);
	now = t0 + SEC + SEC / 2;
	assert_int_equal(call(), 0);     /* sees that 10000 are idle */
	now = t0 + 1000 * SEC + SEC / 2;
	assert_int_equal(call(), 1024);
	assert_int_equal(call(), 0);     /* the next one has to wait its turn */
	assert_int_equal(call_until(t0 + 1001 * SEC - 1), 10000 - 1024);
}

/* A program that calls seldom still gets no more than its share per call, and
 * late calls catch up. */
static void
test_late_calls_catch_up(void **state)
{
	(void)state;
	start(4096, DELAY);
	uint64_t t0 = now;
	uintptr_t a = take(16384);
	call();
	give(a, 16384);
	now = t0 + 5 * SEC;
	assert_int_equal(call(), 0);     /* nobody saw when they became idle */
	now = t0 + 8 * SEC;
	assert_int_equal(call(), 0);
	now = t0 + 9 * SEC;
	assert_int_equal(call(), 1024);
	now = t0 + 10 * SEC - 1;         /* of a share of 4096, one call was made */
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(call(), 1024);
	assert_int_equal(call(), 0);
}

/* In use for long, with no call meanwhile, and freed just now: not due. */
static void
test_freed_just_now(void **state)
{
	(void)state;
	start(4096, DELAY);
	give(take(500), 500);            /* idle all the time */
	call();
	uintptr_t a = take(5500);
	now += 100 * SEC;
	give(a, 5500);
	assert_int_equal(call(), 0);
	assert_int_equal(call_until(now + 4 * SEC - 1), 0);
}

/* A load that frees and takes the same pages again sees no page fault. */
static void
test_ping_pong(void **state)
{
	(void)state;
	start(4096, DELAY);
	uintptr_t a = take(1500);
	call();
	give(a, 1500);
	refaults = 0;
	for (unsigned i = 0; i < 1000; i++) {
		a = take(1000);
		now += SEC / 5;
		call();
		give(a, 1000);
		now += SEC / 5;
		call();
	}
	assert_int_equal(released, 500);    /* what was above the low-water mark */
	assert_int_equal(refaults, 0);
	assert_int_equal(page_alloc_idle_pages(&heap), 1000);
	assert_int_equal(call_until(now + 10 * SEC), 1000);
	check();
}

/* Pages that somebody else released (malloc_trim) do not count as due. */
static void
test_released_by_others(void **state)
{
	(void)state;
	start(4096, DELAY);
	uintptr_t low = take(4000), high = take(1000);
	call();
	give(high, 1000);
	now += SEC + SEC / 2;
	assert_int_equal(call(), 0);
	now += 3 * SEC;
	assert_int_equal(call(), 0);
	give(low, 4000);                    /* 5000 idle, 1000 of them for long */
	mutex_lock(&heap_lock);
	assert_int_equal(scavenge_pages(&heap, &heap_lock, 700), 700);
	mutex_unlock(&heap_lock);
	assert_int_equal(call_until(now + SEC), 128);
	assert_int_equal(call_until(now + 2 * SEC), 172);   /* 300 in all */
	assert_int_equal(call_until(now + SEC), 0);
	assert_int_equal(call_until(now + 20 * SEC), 4000);
	check();
}

/* What dips after the share was set is not released. */
static void
test_dip_cuts_budget(void **state)
{
	(void)state;
	start(4096, DELAY);
	uintptr_t a = take(8000);
	call();
	give(a, 8000);
	assert_int_equal(call_until(now + 5 * SEC), 1024);   /* of a budget of 2000 */
	a = take(6476);
	give(a, 6476);                      /* 500 were idle all the time */
	assert_int_equal(call_until(now + SEC - 1), 500);
	assert_int_equal(page_alloc_idle_pages(&heap), 6476);
	a = take(6476);
	assert_int_equal(refaults, 8000);
	assert_int_equal(call_until(now + 50 * SEC), 0);
}

/* Every other page: as many system calls as pages, and it gets to the end. */
static void
test_fragmented(void **state)
{
	(void)state;
	start(4096, DELAY);
	uintptr_t a = take(6000);
	call();
	for (size_t i = 0; i < 6000; i += 2)
		give(a + i * PAGE_SIZE, 1);
	assert_int_equal(call_until(now + 9 * SEC), 3000);
	assert_int_equal(page_alloc_idle_pages(&heap), 0);
	check();
}

static void
test_os_pages_64k(void **state)
{
	(void)state;
	start(65536, DELAY);
	uintptr_t a = take(8 * 333);
	call();
	for (size_t i = 0; i < 333; i += 3)
		give(a + i * 65536, 8);
	assert_int_equal(call_until(now + 9 * SEC), 8 * 111);
	assert_int_equal(page_alloc_idle_pages(&heap), 0);
	mutex_lock(&heap_lock);
	assert_int_equal(scavenge_pages(&heap, &heap_lock, 8), 0);
	page_alloc_free(&heap, a + 65536, 8);
	memset(&in_use[(a + 65536 - BASE) / PAGE_SIZE], 0, 8);
	assert_int_equal(scavenge_pages(&heap, &heap_lock, 7), 0);
	assert_int_equal(scavenge_pages(&heap, &heap_lock, 9), 8);
	mutex_unlock(&heap_lock);
	check();
}

static void
test_never(void **state)
{
	(void)state;
	start(4096, SCAVENGE_NEVER);
	give(take(5000), 5000);
	for (unsigned i = 0; i < 100; i++) {
		now += 1000000 * SEC;
		assert_int_equal(call(), 0);
	}
	assert_true(scavenger_next_ns(&scav) == SCAVENGE_NEVER);
}

static void
test_no_delay(void **state)
{
	(void)state;
	start(4096, 0);
	give(take(5000), 5000);
	call();
	size_t sum = 0;
	for (unsigned i = 0; i < 20; i++) {
		now += 1000000;
		sum += call();
	}
	assert_int_equal(sum, 5000);
}

/* The clock may stand still, jump far, or reach the end of its range. */
static void
test_clock_extremes(void **state)
{
	(void)state;
	start(4096, DELAY);
	give(take(5000), 5000);
	now = 0;
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(call(), 0);
	now = UINT64_MAX / 2;
	size_t sum = 0;
	for (unsigned i = 0; i < 100; i++)
		sum += call();
	assert_true(sum <= 5000);
	now = UINT64_MAX - 1;
	for (unsigned i = 0; i < 100; i++)
		sum += call();
	assert_int_equal(sum, 5000);
}

/* Takes whatever it can while the lock is dropped: never what is in flight. */
static void
take_meanwhile(uintptr_t addr, size_t bytes)
{
	on_unused(addr, bytes);
	uintptr_t a = take(3);
	assert_true(a + 3 * PAGE_SIZE <= addr || a >= addr + bytes);
}

static void
test_heap_changes_meanwhile(void **state)
{
	(void)state;
	start(4096, DELAY);
	give(take(5 * CHUNK_PAGES), 5 * CHUNK_PAGES);
	sys_addr_on_unused = take_meanwhile;
	mutex_lock(&heap_lock);
	size_t done = scavenge_pages(&heap, &heap_lock, SIZE_MAX);
	mutex_unlock(&heap_lock);
	/* Five chunks, three pages taken per chunk before the last one is begun. */
	assert_int_equal(done, 5 * CHUNK_PAGES - 4 * 3);
	assert_int_equal(page_alloc_idle_pages(&heap), 0);
	check();
}

/* Random load: the hook sees that nothing held is released, and what is
 * released was idle for the delay by an account of the test's own. */
static void
test_random_load(void **state)
{
	enum { HELD = 300, STEPS = 60000, PER_WINDOW = 50 };
	static struct { uintptr_t addr; size_t npages; } held[HELD];
	static size_t low[STEPS / PER_WINDOW + 2];
	size_t w = 0;
	(void)state;

	start(4096, DELAY);
	memset(held, 0, sizeof held);
	memset(low, 0, sizeof low);
	call();
	low[0] = 0;
	for (unsigned i = 1; i < STEPS; i++) {
		size_t k = below(i / 15000 % 2 != 0 ? HELD / 4 : HELD);
		if (held[k].npages != 0) {
			give(held[k].addr, held[k].npages);
			held[k].npages = 0;
		} else {
			held[k].npages = 1 + below(200);
			held[k].addr = take(held[k].npages);
		}
		size_t idle = page_alloc_idle_pages(&heap);
		low[w] = idle < low[w] ? idle : low[w];
		now += SEC / PER_WINDOW;
		if (i % PER_WINDOW == 0)
			low[++w] = page_alloc_idle_pages(&heap);
		size_t n = call();
		/* Idle in all of the last four windows, less what went since. */
		for (size_t back = 0; n != 0 && back <= 4; back++) {
			assert_true(w >= 4);
			assert_true(n <= low[w - back]);
			low[w - back] -= n;
		}
	}
	assert_true(released > 5000);
	check();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exact_amounts),
		cmocka_unit_test(test_idle_heap_empties),
		cmocka_unit_test(test_small_rest_leaves_at_once),
		cmocka_unit_test(test_long_silence),
		cmocka_unit_test(test_late_calls_catch_up),
		cmocka_unit_test(test_freed_just_now),
		cmocka_unit_test(test_ping_pong),
		cmocka_unit_test(test_released_by_others),
		cmocka_unit_test(test_dip_cuts_budget),
		cmocka_unit_test(test_fragmented),
		cmocka_unit_test(test_os_pages_64k),
		cmocka_unit_test(test_never),
		cmocka_unit_test(test_no_delay),
		cmocka_unit_test(test_clock_extremes),
		cmocka_unit_test(test_heap_changes_meanwhile),
		cmocka_unit_test(test_random_load),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
