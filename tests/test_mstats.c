/* test_mstats.c - the statistics against what the test knows it did, and as
 * JSON and XML. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "heap_support.h"
#include "mstats.h"
#include "sys.h"
#include "tls.h"

static struct mcache *me, *other;

static int
setup(void **state)
{
	(void)state;
	heap_stop();
	heap_start(NULL);
	me = heap_new_cache();
	other = heap_new_cache();
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

static struct spanguard_stats
read_stats(void)
{
	struct spanguard_stats s;

	memset(&s, 0x5a, sizeof(s));
	mstats_read(&mheap_, &s);
	return s;
}

static void
test_empty_heap(void **state)
{
	struct spanguard_stats s = read_stats();

	(void)state;
	assert_int_equal(s.live_bytes + s.live_objects + s.freed_bytes + s.free_slot_bytes, 0);
	assert_int_equal(s.span_bytes + s.spans + s.large_bytes + s.large_objects, 0);
	assert_int_equal(s.page_cache_bytes + s.free_page_bytes + s.returned_bytes, 0);
	assert_int_equal(s.reserved_bytes, 0);
	assert_int_equal(s.metadata_bytes, persistent_bytes(&mheap_.meta));
	assert_int_equal(s.small_allocs + s.large_allocs, 0);
	assert_int_equal(s.threads, 2);
}

static void
test_small(void **state)
{
	void *p[200];

	(void)state;
	for (int i = 0; i < 200; i++)
		p[i] = mallocgc(256, API_MALLOC);       /* 128 slots in a span */
	struct spanguard_stats s = read_stats();
	assert_int_equal(s.live_objects, 200);
	assert_int_equal(s.live_bytes, 200 * 256);
	assert_int_equal(s.spans, 2);
	assert_int_equal(s.span_bytes, 2 * 128 * 256);
	assert_int_equal(s.free_slot_bytes, 56 * 256);
	assert_int_equal(s.freed_bytes, 0);
	assert_int_equal(s.small_allocs, 200);
	for (int i = 0; i < 10; i++)
		freegc(p[i], API_FREE);
	heap_use(other);
	for (int i = 10; i < 15; i++)
		freegc(p[i], API_FREE);
	heap_use(me);
	s = read_stats();
	assert_int_equal(s.live_objects, 185);
	assert_int_equal(s.live_bytes, 185 * 256);
	assert_int_equal(s.freed_bytes, 15 * 256);
	assert_int_equal(s.free_slot_bytes, 56 * 256);
	assert_int_equal(s.small_allocs, 200);
	heap_exit(me);
	s = read_stats();
	assert_int_equal(s.live_objects, 185);
	assert_int_equal(s.small_allocs, 200);
	assert_int_equal(s.threads, 1);
	assert_int_equal(s.live_bytes + s.freed_bytes + s.free_slot_bytes, s.span_bytes);
}

static void
test_large(void **state)
{
	void *p = mallocgc(100000, API_MALLOC);
	struct spanguard_stats s = read_stats();
	size_t have = usable_size(p, API_USABLE_SIZE);

	(void)state;
	assert_int_equal(s.large_objects, 1);
	assert_int_equal(s.large_bytes, have);
	assert_int_equal(s.live_bytes, have);
	assert_int_equal(s.live_objects, 1);
	assert_int_equal(s.freed_bytes + s.free_slot_bytes, 0);
	freegc(p, API_FREE);
	s = read_stats();
	assert_int_equal(s.large_objects + s.large_bytes + s.live_bytes + s.spans, 0);
	assert_int_equal(s.large_allocs, 1);
	p = mallocgc(50000, API_MALLOC);
	s = read_stats();
	assert_int_equal(s.large_allocs, 2);
}

/* Tiny objects: as many bytes as malloc_usable_size says they have. */
static void
test_tiny(void **state)
{
	void *p[40];
	size_t bytes = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(p); i++) {
		p[i] = mallocgc_noscan(1 + i % 15, API_NOSCAN);
		bytes += usable_size(p[i], API_USABLE_SIZE);
	}
	struct spanguard_stats s = read_stats();
	assert_int_equal(s.live_objects, ARRAY_LEN(p));
	assert_int_equal(s.live_bytes, bytes);
	for (size_t i = 0; i < ARRAY_LEN(p); i++)
		freegc(p[i], API_FREE);
	s = read_stats();
	assert_int_equal(s.live_objects + s.live_bytes, 0);
	assert_int_equal(s.freed_bytes + s.free_slot_bytes, s.span_bytes);
}

static void
test_pages_add_up(void **state)
{
	void *p[200];
	uint64_t r = 8;
	struct spanguard_stats s;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(p); i++)
		p[i] = mallocgc(heap_rand(&r) % 200000, API_MALLOC);
	for (size_t i = 0; i < ARRAY_LEN(p); i += 2)
		freegc(p[i], API_FREE);
	s = read_stats();
	assert_int_equal(s.span_bytes + s.page_cache_bytes + s.free_page_bytes,
	    mheap_.pages.grown_pages << PAGE_SHIFT);
	assert_true(s.returned_bytes <= s.free_page_bytes);
	assert_true(s.reserved_bytes >= s.span_bytes);
	uint64_t scavenged = mheap_scavenge_all(&mheap_);
	struct spanguard_stats t = read_stats();
	assert_int_equal(t.returned_bytes, s.returned_bytes + scavenged);
	assert_int_equal(t.scavenged_bytes, scavenged);
	assert_int_equal(t.returned_bytes, t.free_page_bytes);
	assert_true(t.system_calls > s.system_calls);
}

/* Every field by its name, once, with its value. */
static void
test_text(void **state)
{
	static const char *const names[] = {
		"live_bytes", "live_objects", "freed_bytes", "free_slot_bytes", "span_bytes",
		"spans", "parked_bytes", "large_bytes", "large_objects", "page_cache_bytes",
		"free_page_bytes",
		"returned_bytes", "reserved_bytes", "metadata_bytes", "guard_bytes",
		"guards_installed", "guards_skipped", "small_allocs", "large_allocs",
		"scavenged_bytes", "system_calls", "threads",
	};
	uint64_t values[ARRAY_LEN(names)];
	struct spanguard_stats s;
	char buf[2048], want[2048];
	struct print out;
	int len = 0;

	(void)state;
	assert_int_equal(sizeof(s), sizeof(values));
	for (size_t i = 0; i < ARRAY_LEN(values); i++)
		values[i] = UINT64_MAX - i * 1000;
	memcpy(&s, values, sizeof(s));
	print_init(&out, buf, sizeof(buf));
	mstats_print_json(&s, &out);
	assert_true(out.len < sizeof(buf));
	buf[out.len] = '\0';
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		len += snprintf(want + len, sizeof(want) - (size_t)len, "%c\"%s\":%lu",
		    i == 0 ? '{' : ',', names[i], (unsigned long)values[i]);
	snprintf(want + len, sizeof(want) - (size_t)len, "}");
	assert_string_equal(buf, want);

	print_init(&out, buf, sizeof(buf));
	mstats_print_xml(&s, &out);
	buf[out.len] = '\0';
	len = snprintf(want, sizeof(want), "<spanguard");
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		len += snprintf(want + len, sizeof(want) - (size_t)len, " %s=\"%lu\"",
		    names[i], (unsigned long)values[i]);
	snprintf(want + len, sizeof(want) - (size_t)len, "/>");
	assert_string_equal(buf, want);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_empty_heap),
		TEST(test_small),
		TEST(test_large),
		TEST(test_tiny),
		TEST(test_pages_add_up),
		TEST(test_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
