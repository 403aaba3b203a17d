/* test_sizeclasses.c - proves sizeclasses.h and msize.h by going through every
 * size, every alignment, every class and every byte of every span. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "msize.h"

enum {
	LINEAR_MAX = 256,
	STEPS_PER_DOUBLING = 8,
	FINE_MAX = 128,
	FINE_SLOTS = 256,
	COARSE_MAX = 1024,
	COARSE_SLOTS = 32,
	LARGE_SLOTS = 8,
	MIN_SPAN_BYTES = 16384,
	TAIL_SHARE = 64,
	OS_PAGE_MAX = 65536,
};

static size_t
span_bytes(unsigned c)
{
	return (size_t)size_classes[c].span_pages << PAGE_SHIFT;
}

/* The sizes, made once more in a way of its own. */
static void
test_sizes(void **state)
{
	unsigned c = 0;

	(void)state;
	assert_int_equal(size_classes[0].elem_bytes, 0);
	for (size_t size = 16; size <= SMALL_MAX_BYTES; size += 16) {
		size_t step = 16;
		while (size > LINEAR_MAX && size > 2 * STEPS_PER_DOUBLING * step)
			step *= 2;
		if (size % step == 0)
			assert_int_equal(size_classes[++c].elem_bytes, size);
	}
	assert_int_equal(c, SIZE_CLASSES - 2);
	assert_int_equal(size_classes[c].elem_bytes, SMALL_MAX_BYTES);
	assert_int_equal(size_classes[c + 1].elem_bytes, SLOT_MAX_BYTES);
	assert_int_equal(c, 72);
}

/* MSIZE-1 */
static void
test_class_of(void **state)
{
	unsigned before = 1;

	(void)state;
	assert_int_equal(size_class_of(0), 0);
	for (size_t n = 1; n <= SMALL_MAX_BYTES; n++) {
		unsigned c = size_class_of(n);
		assert_in_range(c, 1, SIZE_CLASSES - 1);
		assert_true(size_classes[c].elem_bytes >= n);
		assert_true(c == 1 || size_classes[c - 1].elem_bytes < n);
		assert_true(c == before || c == before + 1);
		before = c;
	}
	assert_int_equal(before, SIZE_CLASSES - 2);
	assert_int_equal(size_class_of(SMALL_MAX_BYTES + 1), 0);
	assert_int_equal(size_class_tailed(SMALL_MAX_BYTES + 1, 0), 0);
	for (size_t n = 1; n <= SMALL_MAX_BYTES; n++) {
		assert_int_equal(size_class_tailed(n, 0), size_class_of(n));
		unsigned c = size_class_tailed(n, 8);
		assert_true(size_classes[c].elem_bytes >= n + 8);
		assert_true(size_classes[c - 1].elem_bytes < n + 8);
	}
	assert_int_equal(size_class_of(PTRDIFF_MAX), 0);
	for (size_t back = 0; back < 64; back++)
		assert_int_equal(size_class_of(SIZE_MAX - back), 0);
}

static void
test_round(void **state)
{
	size_t before = 0;
	const size_t max = align_down(PTRDIFF_MAX, PAGE_SIZE);

	(void)state;
	for (size_t n = 0; n <= 4 * SMALL_MAX_BYTES; n++) {
		size_t got = size_class_round(n);
		assert_true(got >= n && got > 0);
		assert_true(got >= before);
		assert_int_equal(size_class_round(got), got);
		if (n <= SMALL_MAX_BYTES)
			assert_int_equal(got, size_classes[size_class_of(n + (n == 0))].elem_bytes);
		else
			assert_true(got % PAGE_SIZE == 0 && got - n < PAGE_SIZE);
		before = got;
	}
	assert_int_equal(size_class_round(max - 1), max);
	assert_int_equal(size_class_round(max), max);
	assert_int_equal(size_class_round(max + 1), 0);
	assert_int_equal(size_class_round(PTRDIFF_MAX), 0);
	assert_int_equal(size_class_round((size_t)PTRDIFF_MAX + 1), 0);
	assert_int_equal(size_class_round(SIZE_MAX), 0);
}

/* What is promised of the waste inside a slot: below one step of 16 bytes up to
 * 128, at most an eighth of the slot above. */
static void
test_slack(void **state)
{
	(void)state;
	for (size_t n = 1; n <= SMALL_MAX_BYTES; n++) {
		size_t slot = size_class_round(n);
		assert_true(n > FINE_MAX ? (slot - n) * 8 <= slot : slot - n < 16);
	}
}

/* MSIZE-2 */
static void
test_aligned(void **state)
{
	(void)state;
	for (size_t align = 1; align <= PAGE_SIZE; align *= 2) {
		for (size_t n = 0; n <= SMALL_MAX_BYTES; n++) {
			unsigned want = 1;
			while (size_classes[want].elem_bytes < n ||
			    size_classes[want].elem_bytes % align != 0)
				want++;
			unsigned got = size_class_aligned(n, align);
			if (got != want)
				fail_msg("size %zu align %zu: class %u, want %u", n, align, got, want);
		}
		assert_int_equal(size_class_aligned(SMALL_MAX_BYTES + 1, align), 0);
		assert_int_equal(size_class_aligned(SIZE_MAX, align), 0);
		assert_int_equal(size_class_aligned(SIZE_MAX - align, align), 0);
	}
	for (size_t align = 2 * PAGE_SIZE; align != 0; align *= 2)
		for (size_t n = 0; n <= SMALL_MAX_BYTES; n += 1024)
			assert_int_equal(size_class_aligned(n, align), 0);
}

/* Slots of a class found by alignment, from a base that is only page-aligned. */
static void
test_aligned_slots(void **state)
{
	const uintptr_t base = 5 * PAGE_SIZE;

	(void)state;
	for (size_t align = 1; align <= PAGE_SIZE; align *= 2) {
		for (unsigned c = 1; c < SIZE_CLASSES; c++) {
			const struct size_class *k =
			    &size_classes[size_class_aligned(size_classes[c].elem_bytes, align)];
			for (uintptr_t i = 0; i < k->nelems; i++)
				assert_int_equal((base + i * k->elem_bytes) % align, 0);
		}
	}
}

static void
test_spans(void **state)
{
	size_t max_pages = 0, max_slots = 0, max_rounded = 0;

	(void)state;
	for (unsigned c = 1; c < SIZE_CLASSES; c++) {
		const struct size_class *k = &size_classes[c];
		size_t bytes = span_bytes(c);
		size_t tail = bytes - (size_t)k->nelems * k->elem_bytes;
		size_t rounded = align_up(bytes, OS_PAGE_MAX) / k->elem_bytes;

		assert_int_equal(k->elem_bytes % SIZE_STEP_BYTES, 0);
		assert_int_equal(k->nelems, bytes / k->elem_bytes);
		assert_true(bytes >= MIN_SPAN_BYTES);
		assert_true(k->nelems >= (k->elem_bytes <= FINE_MAX ? FINE_SLOTS :
		    k->elem_bytes <= COARSE_MAX ? COARSE_SLOTS : LARGE_SLOTS));
		assert_true(tail * TAIL_SHARE <= bytes);
		max_pages = k->span_pages > max_pages ? k->span_pages : max_pages;
		max_slots = k->nelems > max_slots ? k->nelems : max_slots;
		max_rounded = rounded > max_rounded ? rounded : max_rounded;
	}
	assert_int_equal(max_pages, MAX_SPAN_PAGES);
	assert_int_equal(max_slots, MAX_SPAN_SLOTS);
	assert_int_equal(max_rounded, MAX_ROUNDED_SLOTS);
	assert_int_equal(size_classes[1].nelems, 1024);
	assert_int_equal(span_bytes(1), 16384);
}

/* One offset, by the division that cannot be wrong. The checks are plain ifs:
 * it runs some twenty million times. */
static void
check_offset(unsigned c, size_t off)
{
	const struct size_class *k = &size_classes[c];
	size_t slot = off / k->elem_bytes;
	size_t fast = (size_t)((uint64_t)off * k->divmul >> 32);
	bool first = off % k->elem_bytes == 0;

	if ((fast * k->elem_bytes == off) != first)
		fail_msg("class %u offset %zu: wrong answer to \"first byte?\"", c, off);
	if (first ? fast != slot : fast != slot && fast != slot + 1)
		fail_msg("class %u offset %zu: slot %zu, multiplication gives %zu", c, off, slot, fast);
	if (size_class_slot(k, off) != slot)
		fail_msg("class %u offset %zu: slot %zu, size_class_slot gives %zu", c, off, slot,
		    size_class_slot(k, off));
}

/* MSIZE-3, for the span as it is and rounded up to OS pages of 64 KiB. */
static void
test_division(void **state)
{
	(void)state;
	for (unsigned c = 1; c < SIZE_CLASSES; c++) {
		uint64_t e = (uint64_t)size_classes[c].divmul * size_classes[c].elem_bytes;
		assert_in_range(e - ((uint64_t)1 << 32), 0, size_classes[c].elem_bytes - 1);
		for (size_t off = 0; off < align_up(span_bytes(c), OS_PAGE_MAX); off++)
			check_offset(c, off);
	}
}

/* The rounding in size_class_slot is needed: without it some last byte goes to
 * the next slot. Should this fail after a change of the classes, leave it out. */
static void
test_rounding_is_needed(void **state)
{
	unsigned wrong = 0;

	(void)state;
	for (unsigned c = 1; c < SIZE_CLASSES; c++) {
		const struct size_class *k = &size_classes[c];
		for (size_t i = 1; i <= k->nelems; i++) {
			uint64_t last = i * k->elem_bytes - 1;
			wrong += (last * k->divmul >> 32) != i - 1;
		}
	}
	assert_true(wrong > 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_class_of),
		cmocka_unit_test(test_round),
		cmocka_unit_test(test_slack),
		cmocka_unit_test(test_aligned),
		cmocka_unit_test(test_aligned_slots),
		cmocka_unit_test(test_spans),
		cmocka_unit_test(test_division),
		cmocka_unit_test(test_rounding_is_needed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
