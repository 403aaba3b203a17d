/* test_slot_fake.c - the rooms that work on slots, as strict mode arms them: the
 * canary behind an object, zeroes in all that is free, and the patrol that looks
 * at both. What they find must be the bytes that were planted, no more, no less. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_die.h"
#include "fake_sys.h"
#include "heap_support.h"
#include "marena.h"
#include "msize.h"
#include "tls.h"
#include "../hardening/canary.h"
#include "../hardening/guard.h"
#include "../hardening/hooks.h"
#include "../hardening/patrol.h"
#include "../hardening/quarantine.h"
#include "../hardening/zero.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

static struct mcache *me, *other;

/* As mode=strict does it: every call takes the slow branch. */
static void
use(struct mcache *c)
{
	heap_use(c);
	thread_state.front = c != NULL ? &mcache_armed : NULL;
}

static void
start_with(bool canary, bool zero, uint64_t seed)
{
	heap_stop();
	fake_sys_reset(NULL);
	heap_start(&(struct heap_setup){ .randomize = true, .seed = seed });
	mheap_.config.armed = true;
	mheap_.config.zeroed = zero;
	mheap_.config.tail_bytes = canary ? CANARY_BYTES : 0;
	mheap_.config.span.tail = canary;
	canary_init(canary, seed);
	zero_init(zero);
	quarantine_init(&(struct quarantine_config){ .zeroed = zero, .seed = seed });
	me = heap_new_cache();
	other = heap_new_cache();
	use(me);
}

static int
setup(void **state)
{
	(void)state;
	start_with(true, true, 1);
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

static size_t
usable(const void *p)
{
	return usable_size(p, API_USABLE_SIZE);
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

static uint64_t
canary_at(const void *p)
{
	uint64_t v;

	memcpy(&v, (const char *)p + heap_span(p)->elem_bytes - CANARY_BYTES, sizeof(v));
	return v;
}

/* Small sizes that fill their class to the last byte, and others. */
static const size_t sizes[] = { 0, 1, 8, 9, 24, 25, 100, 120, 121, 1000, 1016, 1017, 4096, 8184,
	8185, 20000, 32760 };

/* ---- canaries ---- */

static void
test_canary_stands_behind(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		char *p = get(sizes[i]);
		struct mspan *s = heap_span(p);
		assert_true(usable(p) >= sizes[i]);
		assert_int_equal(usable(p), s->elem_bytes - CANARY_BYTES);
		assert_int_equal(canary_at(p), canary_of(s, p));
		assert_int_equal(p[usable(p)], 0);
		assert_true(canary_at(p) != 0);
		assert_true(canary_intact(s, p));
		assert_false(canary_absent(s, p));
		memset(p, 0xff, usable(p));     /* all of it is the program's */
		assert_true(canary_intact(s, p));
		heap_assert_sound();
		freegc(p, API_FREE);
		assert_true(canary_absent(s, p));
	}
	char *last = get(SMALL_MAX_BYTES);      /* small, whatever the canary takes */
	assert_false(mspan_is_large(heap_span(last)));
	assert_int_equal(usable(last), SLOT_MAX_BYTES - 8);
	freegc(last, API_FREE);
	char *large = get(SMALL_MAX_BYTES + 1);
	assert_true(mspan_is_large(heap_span(large)));
	assert_int_equal(usable(large), mspan_bytes(heap_span(large)));
	freegc(large, API_FREE);
}

static int
compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Another one for each slot, span and secret. */
static void
test_canaries_differ(void **state)
{
	enum { N = 3000 };
	static uint64_t c[N];
	uint64_t first[2];

	(void)state;
	for (size_t i = 0; i < N; i++)
		c[i] = canary_at(get(100));
	qsort(c, N, sizeof(*c), compare);
	for (size_t i = 1; i < N; i++)
		assert_true(c[i] != c[i - 1]);
	for (size_t i = 0; i < 2; i++) {
		start_with(true, true, 1);
		canary_init(true, 100 + i);
		first[i] = canary_at(get(100));
	}
	assert_true(first[0] != first[1]);
	for (size_t i = 0; i < 2; i++) {        /* without a seed, the system's */
		canary_init(true, 0);
		first[i] = canary_state_.secret[0] ^ canary_state_.secret[1];
	}
	assert_true(first[0] != first[1]);
	char *p = get(100);             /* the same slot of another span */
	struct mspan s = *heap_span(p);
	s.base += PAGE_SIZE;
	assert_true(canary_of(&s, p) != canary_of(heap_span(p), p));
}

static void
assert_canary_diff(const char *p, const uint8_t *want, const uint8_t *found, size_t changed)
{
	const struct die_diff *d = fake_die_info.diff;

	assert_non_null(d);
	assert_int_equal(d->base, (uintptr_t)p + heap_span(p)->elem_bytes - CANARY_BYTES);
	assert_int_equal(d->n, CANARY_BYTES);
	assert_int_equal(d->changed, changed);
	assert_memory_equal(d->found, found, CANARY_BYTES);
	assert_memory_equal(d->expected, want, CANARY_BYTES);
}

static void
test_overflow_is_found_at_free(void **state)
{
	static const size_t over[] = { 2, 3, 8, 32 };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		for (size_t j = 0; j < ARRAY_LEN(over); j++) {
			uint8_t want[CANARY_BYTES], found[CANARY_BYTES];
			char *p = get(sizes[i]);
			size_t bytes = usable(p), changed = 0;
			char saved[32];

			memcpy(saved, p + bytes, sizeof(saved));
			memcpy(want, saved, sizeof(want));
			memset(p + bytes, 'A', over[j]);
			memcpy(found, p + bytes, sizeof(found));
			for (size_t k = 0; k < CANARY_BYTES; k++)
				changed += want[k] != found[k];
			assert_true(heap_free_dies(p, DIE_CANARY));
			assert_string_equal(fake_die_info.site, "canary");
			assert_canary_diff(p, want, found, changed);
			use(other);
			assert_true(heap_free_dies(p, DIE_CANARY));
			assert_true(heap_realloc_dies(p, 40000, DIE_CANARY) ||
			    strcmp(fake_die_info.api, "realloc") == 0);
			use(me);
			memcpy(p + bytes, saved, sizeof(saved));
			freegc(p, API_FREE);
		}
	heap_assert_sound();
}

/* Each byte and bit of it counts, but for the first, where a zero changes nothing. */
static void
test_each_bit_of_a_canary(void **state)
{
	char *p = get(50);
	char *c = p + usable(p);

	(void)state;
	for (unsigned bit = 0; bit < CANARY_BYTES * 8; bit++) {
		c[bit / 8] = (char)(c[bit / 8] ^ 1 << bit % 8);
		assert_true(heap_free_dies(p, DIE_CANARY));
		assert_int_equal(fake_die_info.diff->changed, 1);
		assert_true(heap_verify_finds("CANARY-1"));
		c[bit / 8] = (char)(c[bit / 8] ^ 1 << bit % 8);
	}
	c[0] = '\0';            /* a string that is one byte too long */
	heap_assert_sound();
	freegc(p, API_FREE);
}

static void
explain(void *p)
{
	hook_slot_explain((uintptr_t)p, "verify");
}

static void
test_verify_explains(void **state)
{
	char *p = get(100), *q = get(100);
	int local;

	(void)state;
	freegc(q, API_FREE);
	assert_false(fake_die_caught(explain, p));
	assert_false(fake_die_caught(explain, q));
	assert_false(fake_die_caught(explain, p + 1));
	assert_false(fake_die_caught(explain, &local));
	assert_false(fake_die_caught(explain, get(100000)));
	p[usable(p) + 3] ^= 4;
	assert_true(heap_verify_finds("CANARY-1"));
	assert_true(fake_die_caught(explain, p));
	assert_int_equal(fake_die_info.code, DIE_CANARY);
	assert_string_equal(fake_die_info.api, "verify");
	p[usable(p) + 3] ^= 4;
	q[7] = 1;
	assert_true(heap_verify_finds("ZERO-1"));
	assert_true(fake_die_caught(explain, q));
	assert_int_equal(fake_die_info.code, DIE_WRITE_AFTER_FREE);
	assert_int_equal(fake_die_info.addr, (uintptr_t)q);
	q[7] = 0;
	heap_assert_sound();
}

static void
retire(void *p)
{
	freegc(p, API_FREE);
	mcache_release(me);
}

/* Behind the last slot of a span: from its first byte to its last. */
static void
test_tail_of_a_span(void **state)
{
	static const bool with_canary[] = { true, false };

	(void)state;
	for (size_t k = 0; k < ARRAY_LEN(with_canary); k++) {
		start_with(with_canary[k], true, 5);
		char *p = get(100);
		const struct mspan *s = heap_span(p);
		char *tail = (char *)s->base + s->nelems * s->elem_bytes;
		char *end = (char *)s->base + mspan_bytes(s);
		assert_true(tail < end);
		heap_assert_sound();
		for (char *at = tail; at < end; at += at < end - 9 ? 8 : 1) {
			*at = 'x';
			assert_true(heap_verify_finds("ZERO-2"));
			assert_true(fake_die_caught(explain, at));
			assert_int_equal(fake_die_info.code, DIE_CANARY);
			assert_string_equal(fake_die_info.site, "tail");
			assert_int_equal(fake_die_info.addr, (uintptr_t)at);
			assert_int_equal(fake_die_info.diff->changed, 1);
			*at = 0;
			heap_assert_sound();
			assert_false(fake_die_caught(explain, at));
		}
		end[-1] = 1;
		assert_true(fake_die_caught(retire, p));
		assert_string_equal(fake_die_info.api, "retirement");
		assert_int_equal(fake_die_info.addr, (uintptr_t)end - 1);
		end[-1] = 0;
		heap_unlock_all();
	}
	start_with(true, false, 5);
	char *p = get(100);
	memset((char *)heap_span(p)->base + mspan_bytes(heap_span(p)) - 16, 1, 16);
	heap_assert_sound();
}

/* ---- what the program sees of it ---- */

static void
test_sized_frees_are_exact(void **state)
{
	(void)state;
	for (size_t bytes = 0; bytes < 2100; bytes++) {
		char *p = get(bytes);
		size_t have = usable(p);
		assert_true(heap_free_sized_dies(p, have + 1, 0, DIE_SIZE_MISMATCH));
		assert_int_equal(fake_die_info.expected, have);
		if (size_class_of(bytes + CANARY_BYTES) > 1)
			assert_true(heap_free_sized_dies(p, 1, 0, DIE_SIZE_MISMATCH));
		free_sized_check(p, bytes, 0, API_FREE_SIZED);
	}
	for (size_t align = 16; align <= 64 * KIB; align *= 2)
		for (size_t bytes = 0; bytes < 40000; bytes += 1 + bytes / 3) {
			char *p = mallocgc_aligned(align, bytes, API_ALIGNED_ALLOC);
			assert_int_equal((uintptr_t)p & (align - 1), 0);
			assert_true(usable(p) >= bytes);
			memset(p, 0xee, usable(p));
			free_sized_check(p, bytes, align, API_FREE_ALIGNED_SIZED);
		}
	heap_assert_sound();
}

static void
test_calloc_and_realloc(void **state)
{
	uint64_t r = 5;

	(void)state;
	for (int i = 0; i < 2000; i++) {
		size_t bytes = heap_rand(&r) % (i % 8 == 0 ? 100000 : 2000);
		size_t more = 1 + heap_rand(&r) % (i % 8 == 1 ? 100000 : 2000);
		char *p = mallocgc_zeroed(bytes, API_CALLOC);
		assert_true(is_zero(p, usable(p)));
		memset(p, 'c', usable(p));
		p = reallocgc(p, more, API_REALLOC);
		size_t keep = bytes < more ? bytes : more;
		for (size_t j = 0; j < keep; j++)
			assert_int_equal(p[j], 'c');
		assert_true(usable(p) >= more);
		memset(p, 'r', usable(p));
		free_sized_check(p, more, 0, API_FREE_SIZED);
	}
	heap_assert_sound();
}

/* No block is shared, and noscan is kept. */
static void
test_tiny_and_noscan(void **state)
{
	(void)state;
	for (size_t bytes = 0; bytes < 200; bytes++) {
		char *p = mallocgc_noscan(bytes, API_NOSCAN);
		struct mspan *s = heap_span(p);
		assert_false(mspan_is_tiny(s));
		assert_true(span_class_noscan(s->span_class));
		assert_true(canary_intact(s, p));
		assert_true(usable(p) >= bytes);
		memset(p, 0xcc, usable(p));
		p = reallocgc(p, bytes + 300, API_NOSCAN_REALLOC);
		assert_true(span_class_noscan(heap_span(p)->span_class));
		freegc(p, API_FREE);
		assert_true(heap_free_dies(p, DIE_DOUBLE_FREE));
	}
	assert_true(span_class_noscan(heap_span(mallocgc_noscan(32765, API_NOSCAN))->span_class));
	heap_assert_sound();
}

/* ---- zeroes ---- */

static void
test_freed_is_zero(void **state)
{
	(void)state;
	for (int by_other = 0; by_other < 2; by_other++)
		for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
			char *p = get(sizes[i]);
			memset(p, 0xdd, usable(p));
			use(by_other ? other : me);
			freegc(p, API_FREE);
			assert_true(is_zero(p, heap_span(p)->elem_bytes));
			assert_true(heap_free_dies(p, DIE_DOUBLE_FREE));
			use(me);
			assert_true(heap_free_dies(p, DIE_DOUBLE_FREE));
			assert_true(is_zero(p, heap_span(p)->elem_bytes));
		}
	heap_assert_sound();
}

static size_t request_bytes;

static void
allocate_until_death(void *arg)
{
	for (size_t i = 0; i < 20 * (size_t)heap_span(arg)->nelems; i++)
		freegc(get(request_bytes), API_FREE);
}

static void
assert_zero_diff(const unsigned char *p, size_t first, size_t changed)
{
	const struct die_diff *d = fake_die_info.diff;
	static const uint8_t zero[DIE_DIFF_BYTES];

	assert_int_equal(fake_die_info.code, DIE_WRITE_AFTER_FREE);
	assert_string_equal(fake_die_info.site, "zero");
	assert_int_equal(fake_die_info.addr, (uintptr_t)p);
	assert_non_null(d);
	assert_int_equal(d->base, (uintptr_t)p + first);
	assert_int_equal(d->changed, changed);
	size_t left = heap_span(p)->elem_bytes - first;
	assert_int_equal(d->n, left < DIE_DIFF_BYTES ? left : DIE_DIFF_BYTES);
	assert_memory_equal(d->found, p + first, d->n);
	assert_memory_equal(d->expected, zero, d->n);
}

/* One byte, two far apart, the last one, all of the slot. */
static void
test_write_after_free_is_found_at_reuse(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		for (int how = 0; how < 4; how++) {
			start_with(true, true, 1);
			request_bytes = sizes[i];
			unsigned char *p = (unsigned char *)get(sizes[i]);
			size_t bytes = heap_span(p)->elem_bytes;
			size_t first = how == 2 ? bytes - 1 : how == 3 ? 0 : 5;
			size_t changed = how == 1 ? 2 : how == 3 ? bytes : 1;
			freegc(p, API_FREE);
			memset(p + first, 0x41, how == 3 ? bytes : 1);
			if (how == 1)
				p[bytes - 2] = 0x42;
			assert_true(fake_die_caught(allocate_until_death, p));
			heap_unlock_all();
			assert_string_equal(fake_die_info.api, "malloc");
			assert_zero_diff(p, first, changed);
		}
}

static void
trim(void *arg)
{
	(void)arg;
	mcache_trim_all(&mheap_, me);
}

static void
test_write_after_free_is_found_at_retirement(void **state)
{
	unsigned char *p = (unsigned char *)get(500);

	(void)state;
	freegc(p, API_FREE);
	p[100] = 0x80;
	assert_true(fake_die_caught(trim, NULL));
	heap_unlock_all();
	assert_string_equal(fake_die_info.api, "retirement");
	assert_zero_diff(p, 100, 1);

	start_with(true, true, 1);
	p = (unsigned char *)get(500);
	freegc(p, API_FREE);
	trim(NULL);
	assert_int_equal(a64_load_relaxed(&mheap_.spans_in_use), 0);
}

/* ---- the patrol ---- */

static void
allocate_many(void *arg)
{
	for (size_t i = 0; i < 2000; i++)
		get(*(size_t *)arg);
}

static bool
patrol_dies(size_t bytes, const char *api)
{
	bool died = fake_die_caught(allocate_many, &bytes);

	heap_unlock_all();
	return died && strcmp(fake_die_info.api, api) == 0;
}

static void
test_patrol_finds_a_planted_bit(void **state)
{
	static const char *const tags[] = { "MSPAN-1", "MSPAN-3", "MSPAN-4", "MSPAN-6" };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(tags); i++) {
		start_with(false, false, 1);
		char *p = get(256);
		struct mspan *s = heap_span(p);
		size_t w = s->nelems / 64;
		patrol_init(1);
		if (i == 0)
			s->avail[heap_slot(p) / 64] |= (uint64_t)1 << heap_slot(p) % 64;
		else if (i == 1)
			a64_fetch_or(&s->bits[w].live, (uint64_t)1 << s->nelems % 64);
		else if (i == 2)
			s->avail_n++;
		else
			s->elem_bytes += 16;
		assert_true(patrol_dies(256, "patrol"));
		assert_int_equal(fake_die_info.code, DIE_VERIFY);
		assert_string_equal(fake_die_info.site, tags[i]);
		assert_int_equal(fake_die_info.addr, (uintptr_t)s);
	}
}

static void
test_patrol_sees_slots(void **state)
{
	(void)state;
	start_with(true, true, 1);
	patrol_init(1);
	unsigned char *p = (unsigned char *)get(200);
	p[usable(p) + 1] ^= 0x10;
	assert_true(patrol_dies(200, "patrol"));
	assert_int_equal(fake_die_info.code, DIE_CANARY);
	assert_int_equal(fake_die_info.addr, (uintptr_t)p);
	assert_int_equal(fake_die_info.diff->changed, 1);

	start_with(true, true, 1);
	patrol_init(1);
	p = (unsigned char *)get(200);
	freegc(p, API_FREE);
	p[9] = 7;
	assert_true(patrol_dies(200, "patrol"));
	assert_zero_diff(p, 9, 1);
}

static void
test_no_patrol_no_death(void **state)
{
	(void)state;
	start_with(true, true, 1);
	char *p = get(200);
	p[usable(p) + 1] ^= 0x10;
	assert_false(patrol_dies(200, "patrol"));
	p[usable(p) + 1] ^= 0x10;
	patrol_init(1);
	assert_false(patrol_dies(300, "patrol"));
	heap_assert_sound();
}

/* ---- the whole of it ---- */

/* Which bytes of a page are the program's: 0 none, 1 some slots. */
static bool
may_hold_bytes(const struct mspan *s, uintptr_t at)
{
	if (s == NULL)
		return false;
	if (mspan_is_large(s))
		return mspan_slot_live(s, 0);
	size_t idx = (at - s->base) / s->elem_bytes;
	return idx < s->nelems && mspan_slot_live(s, idx);
}

/* Every word of every page ever grown: zero, or in a live object. */
static void
assert_free_memory_is_zero(void)
{
	size_t words = 0, wrong = 0;
	uintptr_t base = fake_sys_base();

	for (size_t page = 0; page < mheap_.pages.grown_pages; page++) {
		uintptr_t at = base + (page << PAGE_SHIFT);
		const struct mspan *s = arena_span_containing(at);
		for (size_t i = 0; i < PAGE_SIZE; i += sizeof(uint64_t))
			if (*(uint64_t *)(at + i) != 0 && !may_hold_bytes(s, at + i))
				wrong++;
		words += PAGE_SIZE / sizeof(uint64_t);
	}
	assert_int_equal(wrong, 0);
	assert_true(words > 100000);
}

static void
traffic(uint64_t *r, char **p, size_t n, int steps)
{
	for (int i = 0; i < steps; i++) {
		size_t at = heap_rand(r) % n;
		size_t bytes = heap_rand(r) % (i % 16 == 0 ? 200 * KIB : i % 16 < 8 ? 200 : 4000);
		use(heap_rand(r) % 2 != 0 ? me : other);
		if (p[at] != NULL && heap_rand(r) % 4 == 0) {
			p[at] = reallocgc(p[at], 1 + bytes, API_REALLOC);
		} else {
			freegc(p[at], API_FREE);
			p[at] = heap_rand(r) % 8 == 0 ?
			    mallocgc_aligned((size_t)16 << heap_rand(r) % 12, bytes, API_MEMALIGN) :
			    heap_rand(r) % 8 == 0 ? mallocgc_noscan(bytes, API_NOSCAN) : get(bytes);
		}
		memset(p[at], 0xa5, usable(p[at]));
	}
	use(me);
}

static void
test_free_memory_is_zero(void **state)
{
	char *p[400];
	uint64_t r = 21;

	(void)state;
	for (int how = 0; how < 4; how++) {
		start_with(true, true, 1);
		quarantine_init(&(struct quarantine_config){ .bytes = how == 3 ? 0 : 2 * MIB,
		    .share_percent = 5, .fault = how % 2 != 0, .zeroed = true, .seed = 1 });
		if (how < 2)
			guard_init(&mheap_, 1, 1, true, 1);
		patrol_init(16);
		memset(p, 0, sizeof(p));
		for (int round = 0; round < 4; round++) {
			traffic(&r, p, ARRAY_LEN(p), 2000);
			/* what is parked and still mapped may hold old bytes: nobody gets it so */
			mheap_flush_quarantine(&mheap_);
			assert_free_memory_is_zero();
			heap_assert_sound();
		}
		for (size_t i = 0; i < ARRAY_LEN(p); i++)
			freegc(p[i], API_FREE);
		mcache_trim_all(&mheap_, me);
		mheap_flush_quarantine(&mheap_);
		assert_free_memory_is_zero();
		heap_assert_sound();
	}
}

static void
test_large_comes_back_zero(void **state)
{
	(void)state;
	for (int fault = 0; fault < 2; fault++) {
		start_with(true, true, 1);
		quarantine_init(&(struct quarantine_config){ .bytes = 8 * MIB, .share_percent = 100,
		    .fault = fault, .zeroed = true, .seed = 1 });
		int odd = 0;
		for (size_t bytes = 200000; bytes < 8 * MIB; bytes = bytes * 3 / 2) {
			char *p = get(bytes);
			memset(p, 0x77, usable(p));
			freegc(p, API_FREE);
			mheap_flush_quarantine(&mheap_);
			char *q = odd++ % 2 != 0 ? get(bytes) : mallocgc_zeroed(bytes, API_CALLOC);
			assert_ptr_equal(q, p);
			assert_true(is_zero(q, usable(q)));
			freegc(q, API_FREE);
			mheap_flush_quarantine(&mheap_);
		}
	}
}

/* Frees by a thread that does not own the span come back as zeroes to it. */
static void
test_remote_frees(void **state)
{
	enum { N = 2000 };
	static char *p[N];

	(void)state;
	for (int round = 0; round < 4; round++) {
		for (size_t i = 0; i < N; i++) {
			p[i] = get(i % 300);
			assert_true(is_zero(p[i], usable(p[i])));
			memset(p[i], 0x5c, usable(p[i]));
		}
		use(other);
		for (size_t i = 0; i < N; i++)
			freegc(p[i], API_FREE);
		for (size_t i = 0; i < N; i += 97)
			assert_true(heap_free_dies(p[i], DIE_DOUBLE_FREE));
		heap_assert_sound();
		use(me);
	}
	heap_exit(other);
	other = heap_new_cache();
	use(me);
	heap_assert_sound();
}

/* Each room alone: what it promises holds, and nothing is promised for the other. */
static void
test_one_room_alone(void **state)
{
	(void)state;
	for (int canary = 0; canary < 2; canary++) {
		start_with(canary, !canary, 1);
		for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
			char *p = get(sizes[i]);
			struct mspan *s = heap_span(p);
			assert_int_equal(usable(p), s->elem_bytes - (canary ? CANARY_BYTES : 0));
			memset(p, 0x33, usable(p));
			assert_true(canary_intact(s, p));
			freegc(p, API_FREE);
			assert_int_equal(is_zero(p, s->elem_bytes), !canary);
			char *q = mallocgc_zeroed(sizes[i], API_CALLOC);
			assert_true(is_zero(q, sizes[i]));
			free_sized_check(q, sizes[i], 0, API_FREE_SIZED);
			heap_assert_sound();
		}
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_canary_stands_behind),
		TEST(test_canaries_differ),
		TEST(test_overflow_is_found_at_free),
		TEST(test_each_bit_of_a_canary),
		TEST(test_verify_explains),
		TEST(test_tail_of_a_span),
		TEST(test_sized_frees_are_exact),
		TEST(test_calloc_and_realloc),
		TEST(test_tiny_and_noscan),
		TEST(test_freed_is_zero),
		TEST(test_write_after_free_is_found_at_reuse),
		TEST(test_write_after_free_is_found_at_retirement),
		TEST(test_patrol_finds_a_planted_bit),
		TEST(test_patrol_sees_slots),
		TEST(test_no_patrol_no_death),
		TEST(test_free_memory_is_zero),
		TEST(test_large_comes_back_zero),
		TEST(test_remote_frees),
		TEST(test_one_room_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
