/* test_mpallocbits.c - every bitmap operation against a loop over 512 bools. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../src/mpallocbits.h"

enum { N = 512 };

static uint64_t rng_state;

static uint64_t
rng(void)
{
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return rng_state;
}

static unsigned
below(unsigned n)
{
	return (unsigned)(rng() >> 33) % n;
}

/* Patterns of very different density and grain, and the borders of each. */
static void
random_bits(struct page_bits *b, bool model[N])
{
	unsigned grain = 1u << below(9), share = below(9);
	for (unsigned i = 0; i < N; ) {
		bool v = below(8) < share;
		unsigned len = 1 + below(grain);
		for (; len > 0 && i < N; len--, i++)
			model[i] = v;
	}
	for (unsigned k = below(3); k > 0; k--) {
		unsigned i = below(N);
		model[i] = !model[i];
	}
	for (unsigned i = 0; i < N; i++) {
		uint64_t bit = (uint64_t)1 << i % 64;
		b->w[i / 64] = model[i] ? b->w[i / 64] | bit : b->w[i / 64] & ~bit;
	}
}

static void
assert_equal(const struct page_bits *b, const bool model[N])
{
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(page_bits_get(b, i), model[i]);
}

static void
test_ranges(void **state)
{
	struct page_bits b;
	bool model[N];
	(void)state;

	rng_state = 1;
	for (unsigned round = 0; round < 20000; round++) {
		if (round % 16 == 0)
			random_bits(&b, model);
		unsigned first = below(N), count = 1 + below(N - first), set = 0;
		for (unsigned i = first; i < first + count; i++)
			set += model[i];
		assert_int_equal(page_bits_count(&b, first, count), set);
		bool to = below(2) != 0;
		if (to)
			page_bits_set(&b, first, count);
		else
			page_bits_clear(&b, first, count);
		for (unsigned i = first; i < first + count; i++)
			model[i] = to;
		assert_equal(&b, model);
	}
}

static unsigned
slow_find(const bool model[N], unsigned count, unsigned from, unsigned *first)
{
	unsigned run = 0;
	*first = PAGE_BITS_NONE;
	for (unsigned i = from; i < N; i++) {
		run = model[i] ? 0 : run + 1;
		if (run != 0 && *first == PAGE_BITS_NONE)
			*first = i;
		if (run == count)
			return i + 1 - count;
	}
	return PAGE_BITS_NONE;
}

static void
test_find(void **state)
{
	struct page_bits b;
	bool model[N];
	unsigned found = 0, missed = 0;
	(void)state;

	rng_state = 2;
	for (unsigned round = 0; round < 100000; round++) {
		if (round % 8 == 0)
			random_bits(&b, model);
		unsigned from = below(4) == 0 ? 0 : below(N + 1);
		unsigned count = 1 + below(1u << (1 + below(9)));
		unsigned first, slow_first;
		unsigned at = page_bits_find(&b, count, from, &first);
		assert_int_equal(at, slow_find(model, count, from, &slow_first));
		assert_int_equal(first, slow_first);
		found += at != PAGE_BITS_NONE;
		missed += at == PAGE_BITS_NONE;
	}
	assert_true(found > 10000 && missed > 10000);
}

static void
test_find_every_length(void **state)
{
	(void)state;
	for (unsigned start = 0; start < N; start++) {
		for (unsigned len = 1; len <= N - start; len += 1 + len / 8) {
			struct page_bits b;
			unsigned first;
			for (unsigned i = 0; i < PAGE_BITS_WORDS; i++)
				b.w[i] = ~(uint64_t)0;
			page_bits_clear(&b, start, len);
			assert_int_equal(page_bits_find(&b, len, 0, &first), start);
			assert_int_equal(first, start);
			assert_int_equal(page_bits_find(&b, len + 1, 0, &first), PAGE_BITS_NONE);
			assert_int_equal(page_sum_max(page_bits_summarize(&b)), len);
		}
	}
}

static void
slow_summary(const bool *model, unsigned n, size_t sum[3])
{
	unsigned run = 0;
	bool from_start = true;
	sum[0] = sum[1] = 0;
	for (unsigned i = 0; i < n; i++) {
		from_start &= !model[i];
		run = model[i] ? 0 : run + 1;
		sum[0] += from_start;
		sum[1] = run > sum[1] ? run : sum[1];
	}
	sum[2] = run;
}

static void
assert_sum(page_sum s, const size_t sum[3])
{
	assert_int_equal(page_sum_start(s), sum[0]);
	assert_int_equal(page_sum_max(s), sum[1]);
	assert_int_equal(page_sum_end(s), sum[2]);
}

static void
test_summarize(void **state)
{
	struct page_bits b;
	bool model[N];
	size_t sum[3];
	(void)state;

	rng_state = 3;
	for (unsigned round = 0; round < 50000; round++) {
		random_bits(&b, model);
		slow_summary(model, N, sum);
		assert_sum(page_bits_summarize(&b), sum);
	}
}

static void
test_merge(void **state)
{
	static bool model[PAGE_SUM_FANOUT * N];
	page_sum child[PAGE_SUM_FANOUT];
	struct page_bits b;
	size_t sum[3];
	(void)state;

	rng_state = 4;
	for (unsigned round = 0; round < 20000; round++) {
		for (unsigned i = 0; i < PAGE_SUM_FANOUT; i++) {
			bool *part = &model[i * N];
			unsigned kind = below(4);
			random_bits(&b, part);
			for (unsigned k = 0; k < N && kind < 2; k++)
				part[k] = kind == 0;
			slow_summary(part, N, sum);
			child[i] = page_sum_pack(sum[0], sum[1], sum[2]);
		}
		slow_summary(model, PAGE_SUM_FANOUT * N, sum);
		assert_sum(page_sum_merge(child, 9), sum);
	}
}

/* At the root's children: 8 x 2^18 pages is 2^21, which needs the extra bit. */
static void
test_pack_limits(void **state)
{
	page_sum child[PAGE_SUM_FANOUT];
	size_t full = (size_t)1 << 18;
	(void)state;

	assert_int_equal(page_sum_pack(0, 0, 0), 0);
	for (unsigned i = 0; i < PAGE_SUM_FANOUT; i++)
		child[i] = page_sum_pack(full, full, full);
	page_sum s = page_sum_merge(child, 18);
	assert_sum(s, (size_t[3]){ PAGE_SUM_MAX, PAGE_SUM_MAX, PAGE_SUM_MAX });
	assert_true(s == (uint64_t)1 << 63);

	child[7] = page_sum_pack(full - 1, full - 1, 0);
	assert_sum(page_sum_merge(child, 18),
	    (size_t[3]){ PAGE_SUM_MAX - 1, PAGE_SUM_MAX - 1, 0 });
	child[0] = page_sum_pack(0, full - 1, full - 1);
	assert_sum(page_sum_merge(child, 18),
	    (size_t[3]){ 0, PAGE_SUM_MAX - 2, 0 });
	child[7] = page_sum_pack(full, full, full);
	assert_sum(page_sum_merge(child, 18),
	    (size_t[3]){ 0, PAGE_SUM_MAX - 1, PAGE_SUM_MAX - 1 });
}

static void
test_runs(void **state)
{
	struct page_bits b, c;
	bool model[N], other[N];
	(void)state;

	rng_state = 5;
	for (unsigned round = 0; round < 30000; round++) {
		random_bits(&b, model);
		random_bits(&c, other);
		unsigned from = below(N), limit = from + 1 + below(N - from), start;
		unsigned n = page_bits_next_run(&b, from, limit, &start);
		unsigned want = from, len = 0;
		while (want < limit && !model[want])
			want++;
		while (want + len < limit && model[want + len])
			len++;
		assert_int_equal(n, len);
		if (n != 0)
			assert_int_equal(start, want);

		unsigned end = N;
		while (end > 0 && (model[end - 1] || other[end - 1]))
			end--;
		for (len = 0; len < end && !model[end - 1 - len] && !other[end - 1 - len]; )
			len++;
		assert_int_equal(page_bits_last_clear_run(&b, &c, &start), len);
		if (len != 0)
			assert_int_equal(start, end - len);
	}
}

static void
test_words(void **state)
{
	(void)state;
	rng_state = 6;
	assert_int_equal(word_low_ones(~(uint64_t)0), 64);
	assert_int_equal(word_high_ones(~(uint64_t)0), 64);
	assert_int_equal(word_low_ones(0), 0);
	assert_int_equal(word_high_ones(0), 0);
	for (unsigned round = 0; round < 20000; round++) {
		uint64_t z = rng() | rng() | (below(2) ? rng() : 0);
		unsigned count = 1 + below(below(2) ? 64 : 8);
		uint64_t runs = 0;
		for (unsigned i = 0; i + count <= 64; i++) {
			if ((z & word_mask(i, count)) == word_mask(i, count))
				runs |= (uint64_t)1 << i;
		}
		assert_true(word_runs(z, count) == runs);
		unsigned low = 0, high = 0;
		while (low < 64 && (z >> low & 1) != 0)
			low++;
		while (high < 64 && (z >> (63 - high) & 1) != 0)
			high++;
		assert_int_equal(word_low_ones(z), low);
		assert_int_equal(word_high_ones(z), high);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_find),
		cmocka_unit_test(test_find_every_length),
		cmocka_unit_test(test_summarize),
		cmocka_unit_test(test_merge),
		cmocka_unit_test(test_pack_limits),
		cmocka_unit_test(test_runs),
		cmocka_unit_test(test_words),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
