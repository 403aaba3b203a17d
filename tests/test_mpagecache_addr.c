/* test_mpagecache_addr.c - the page cache by hand: which block it takes, what
 * it hands out, refusals, flushes, errors. Random sequences with caches against
 * the naive model are in test_mpagealloc_addr.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../src/mpagealloc.h"
#include "../src/mpagecache.h"
#include "../src/persistentalloc.h"
#include "fake_die.h"
#include "sys_addr_only.h"

#define BASE ((uintptr_t)77 << 34)
#define ALL (~(uint64_t)0)

static struct page_alloc heap;
static struct persistent meta;
static struct page_cache cache;
static size_t zeroed;

static uintptr_t
page(size_t i)
{
	return BASE + i * PAGE_SIZE;
}

static void
check(void)
{
	uintptr_t where;
	const char *tag = page_alloc_verify(&heap, true, &where);
	if (tag != NULL)
		fail_msg("%s at %#lx", tag, where);
}

static int
setup(void **state)
{
	(void)state;
	sys_addr_reset();
	memset(&cache, 0, sizeof cache);
	memset(&meta, 0, sizeof meta);
	persistent_init(&meta);
	page_alloc_init(&heap, &meta);
	assert_true(page_alloc_grow(&heap, BASE, CHUNK_SIZE));
	return 0;
}

static void
test_fresh_block(void **state)
{
	(void)state;
	page_alloc_to_cache(&heap, &cache);
	assert_int_equal(cache.base, BASE);
	assert_true(cache.pages == ALL && cache.scav == ALL);
	assert_int_equal(heap.free_pages, CHUNK_PAGES - 64);
	assert_int_equal(heap.scavenged_pages, CHUNK_PAGES - 64);
	assert_int_equal(sys_addr_events, 0);     /* committed when handed out */
	check();

	assert_int_equal(page_cache_alloc(&cache, 3, &zeroed), page(0));
	assert_int_equal(zeroed, 3);
	assert_int_equal(sys_addr_events, 1);
	assert_int_equal(sys_addr_log[0].bytes, 3 * PAGE_SIZE);
	assert_int_equal(page_cache_alloc(&cache, 62, &zeroed), 0);
	assert_int_equal(page_cache_alloc(&cache, 65, &zeroed), 0);
	assert_int_equal(page_cache_alloc(&cache, SIZE_MAX / PAGE_SIZE, &zeroed), 0);
	assert_int_equal(page_cache_alloc(&cache, 61, &zeroed), page(3));
	assert_true(cache.pages == 0 && cache.scav == 0);
	assert_int_equal(page_cache_alloc(&cache, 1, &zeroed), 0);
	assert_int_equal(zeroed, 0);
	check();
}

static void
test_whole_block_at_once(void **state)
{
	(void)state;
	page_alloc_to_cache(&heap, &cache);
	assert_int_equal(page_cache_alloc(&cache, 64, &zeroed), page(0));
	assert_int_equal(zeroed, 64);
	page_alloc_free(&heap, page(0), 64);
	check();
	page_alloc_to_cache(&heap, &cache);
	assert_true(cache.pages == ALL && cache.scav == 0);
	assert_int_equal(page_cache_alloc(&cache, 64, &zeroed), page(0));
	assert_int_equal(zeroed, 0);
	assert_int_equal(sys_addr_events, 1);
	page_cache_flush(&cache, &heap);
	check();
}

/* Holes: the block of the first free page, and only what is free in it. */
static void
test_holes(void **state)
{
	(void)state;
	assert_int_equal(page_alloc_alloc(&heap, 200, &zeroed), page(0));
	page_alloc_free(&heap, page(70), 2);
	page_alloc_free(&heap, page(100), 5);
	page_alloc_free(&heap, page(130), 50);
	page_alloc_to_cache(&heap, &cache);
	assert_int_equal(cache.base, page(64));
	assert_true(cache.pages == ((uint64_t)3 << 6 | (uint64_t)31 << 36));
	assert_true(cache.scav == 0);
	assert_int_equal(page_cache_alloc(&cache, 3, &zeroed), page(100));
	assert_int_equal(page_cache_alloc(&cache, 1, &zeroed), page(70));
	check();
	page_cache_flush(&cache, &heap);
	check();
	assert_int_equal(heap.search_addr, page(71));
	assert_true(page_alloc_is_free(&heap, page(71)));
	assert_true(page_alloc_is_free(&heap, page(103)));
	assert_false(page_alloc_is_free(&heap, page(70)));
	assert_int_equal(page_alloc_alloc(&heap, 2, &zeroed), page(103));
}

static void
test_mixed_scavenged(void **state)
{
	(void)state;
	assert_int_equal(page_alloc_alloc(&heap, 40, &zeroed), page(0));
	page_alloc_free(&heap, page(10), 20);      /* 10-29 idle, 40-63 scavenged */
	page_alloc_free(&heap, page(30), 10);
	page_alloc_to_cache(&heap, &cache);
	assert_int_equal(popcount64(cache.scav), 24);
	sys_addr_events = 0;
	assert_int_equal(page_cache_alloc(&cache, 40, &zeroed), page(10));
	assert_int_equal(zeroed, 10);
	assert_int_equal(sys_addr_events, 1);
	assert_int_equal(sys_addr_log[0].addr, page(40));
	assert_int_equal(sys_addr_log[0].bytes, 10 * PAGE_SIZE);
	page_cache_flush(&cache, &heap);
	assert_int_equal(heap.scavenged_pages, CHUNK_PAGES - 50);
	assert_int_equal(heap.free_pages, CHUNK_PAGES - 50);
	check();
}

static void
test_idle_pages_can_be_scavenged_after_flush(void **state)
{
	uintptr_t addr;
	(void)state;
	assert_int_equal(page_alloc_alloc(&heap, CHUNK_PAGES, &zeroed), page(0));
	page_alloc_free(&heap, page(0), CHUNK_PAGES);
	while (page_alloc_to_cache(&heap, &cache), cache.pages != 0)
		cache.pages = 0;                   /* all leave through the cache */
	assert_int_equal(page_alloc_scavenge_begin(&heap, 9999, &addr), 0);
	cache = (struct page_cache){ .base = page(128), .pages = 0xff00 };
	page_cache_flush(&cache, &heap);
	check();
	assert_int_equal(page_alloc_scavenge_begin(&heap, 9999, &addr), 8);
	assert_int_equal(addr, page(136));
}

/* The kernel says no: nothing is lost, and what was committed is known. */
static void
test_refused(void **state)
{
	(void)state;
	assert_int_equal(page_alloc_alloc(&heap, 20, &zeroed), page(0));
	page_alloc_free(&heap, page(8), 4);
	page_alloc_to_cache(&heap, &cache);
	cache.scav |= (uint64_t)1 << 8 | (uint64_t)1 << 10;   /* three runs in 8..30 */
	uint64_t pages = cache.pages;
	cache.pages |= (uint64_t)0xff << 12;
	sys_addr_refuse_used = 2;
	assert_int_equal(page_cache_alloc(&cache, 20, &zeroed), 0);
	assert_true(cache.pages == (pages | (uint64_t)0xff << 12));
	assert_int_equal(cache.scav >> 8 & 7, 4);             /* first run is Ready */
	assert_int_equal(page_cache_alloc(&cache, 20, &zeroed), page(8));
	assert_int_equal(zeroed, 1 + 8);
}

static void
test_empty_heap(void **state)
{
	(void)state;
	assert_int_equal(page_alloc_alloc(&heap, CHUNK_PAGES, &zeroed), page(0));
	page_alloc_to_cache(&heap, &cache);
	assert_true(cache.pages == 0);
	assert_int_equal(page_cache_alloc(&cache, 1, &zeroed), 0);
	page_cache_flush(&cache, &heap);
	check();
	assert_int_equal(heap.search_addr, PAGE_SEARCH_NONE);
}

static void
fill(void *arg)
{
	(void)arg;
	page_alloc_to_cache(&heap, &cache);
}

static void
flush(void *arg)
{
	(void)arg;
	page_cache_flush(&cache, &heap);
}

static void
alloc_none(void *arg)
{
	page_cache_alloc(&cache, *(size_t *)arg, &zeroed);
}

static void
expect(void (*fn)(void *), void *arg, const char *tag)
{
	assert_true(fake_die_caught(fn, arg));
	assert_string_equal(fake_die_info.site, tag);
}

static void
test_errors(void **state)
{
	size_t npages = 0;
	(void)state;
	page_alloc_to_cache(&heap, &cache);
	expect(fill, NULL, "PAGE-13");              /* would lose 64 pages */
	expect(alloc_none, &npages, "PAGE-11");

	struct page_cache good = cache;
	page_cache_flush(&cache, &heap);
	cache = good;
	expect(flush, NULL, "PAGE-13");             /* the pages are free */
	page_alloc_to_cache(&heap, &(struct page_cache){ 0 });
	good.pages = 1;
	cache = good;
	expect(flush, NULL, "PAGE-13");             /* scav is no subset */
	cache.scav = 0;
	cache.base = BASE + PAGE_SIZE;
	expect(flush, NULL, "PAGE-13");
	cache.base = BASE + CHUNK_SIZE;
	expect(flush, NULL, "PAGE-13");
	cache.base = ADDR_LIMIT;
	expect(flush, NULL, "PAGE-13");
	check();

	sys_addr_page_bytes = 65536;
	npages = 4;
	expect(alloc_none, &npages, "PAGE-11");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_fresh_block, setup),
		cmocka_unit_test_setup(test_whole_block_at_once, setup),
		cmocka_unit_test_setup(test_holes, setup),
		cmocka_unit_test_setup(test_mixed_scavenged, setup),
		cmocka_unit_test_setup(test_idle_pages_can_be_scavenged_after_flush, setup),
		cmocka_unit_test_setup(test_refused, setup),
		cmocka_unit_test_setup(test_empty_heap, setup),
		cmocka_unit_test_setup(test_errors, setup),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
