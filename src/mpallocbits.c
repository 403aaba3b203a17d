/* mpallocbits.c - word-wise operations on one chunk's bitmaps; see the header
 * for the meaning of the bits and of a summary.
 *
 * Two ideas carry the file. A range is cut at word borders and becomes a mask
 * per word. And ANDing a word with itself shifted by one shortens every run of
 * ones by one from the top, so log2(n) shifts answer "where do runs of at least
 * n start?" for all runs of the word at the same time (word_runs). */
#include "mpallocbits.h"

/* Steps through [*first, end) one word at a time: the word's index and the mask
 * of its bits inside the range. */
static bool
next_piece(unsigned *first, unsigned end, unsigned *word, uint64_t *mask)
{
	if (*first >= end)
		return false;
	unsigned bit = *first % 64;
	unsigned n = 64 - bit < end - *first ? 64 - bit : end - *first;
	*word = *first / 64;
	*mask = word_mask(bit, n);
	*first += n;
	return true;
}

void
page_bits_set(struct page_bits *b, unsigned first, unsigned count)
{
	unsigned end = first + count, word;
	uint64_t mask;
	while (next_piece(&first, end, &word, &mask))
		b->w[word] |= mask;
}

void
page_bits_clear(struct page_bits *b, unsigned first, unsigned count)
{
	unsigned end = first + count, word;
	uint64_t mask;
	while (next_piece(&first, end, &word, &mask))
		b->w[word] &= ~mask;
}

unsigned
page_bits_count(const struct page_bits *b, unsigned first, unsigned count)
{
	unsigned end = first + count, word, n = 0;
	uint64_t mask;
	while (next_piece(&first, end, &word, &mask))
		n += popcount64(b->w[word] & mask);
	return n;
}

unsigned
page_bits_find(const struct page_bits *b, unsigned count, unsigned from,
    unsigned *first_clear)
{
	unsigned run = 0;   /* clear bits that end just below word i */
	uint64_t keep = from < CHUNK_PAGES ? ~(uint64_t)0 << from % 64 : 0;

	*first_clear = PAGE_BITS_NONE;
	for (unsigned i = from / 64; i < PAGE_BITS_WORDS; i++, keep = ~(uint64_t)0) {
		uint64_t z = ~b->w[i] & keep;
		if (z == 0) {
			run = 0;
			continue;
		}
		if (*first_clear == PAGE_BITS_NONE)
			*first_clear = i * 64 + ctz64(z);
		unsigned low = word_low_ones(z);
		if (run + low >= count)
			return i * 64 - run;
		if (low == 64) {
			run += 64;
			continue;
		}
		if (count <= 64) {
			uint64_t at = word_runs(z, count);
			if (at != 0)
				return i * 64 + ctz64(at);
		}
		run = word_high_ones(z);
	}
	return PAGE_BITS_NONE;
}

/* First set bit of (b XOR flip) in [from, limit), or limit. */
static unsigned
next_bit(const struct page_bits *b, uint64_t flip, unsigned from, unsigned limit)
{
	unsigned word;
	uint64_t mask;
	while (next_piece(&from, limit, &word, &mask)) {
		uint64_t x = (b->w[word] ^ flip) & mask;
		if (x != 0)
			return word * 64 + ctz64(x);
	}
	return limit;
}

unsigned
page_bits_next_run(const struct page_bits *b, unsigned from, unsigned limit,
    unsigned *start)
{
	*start = next_bit(b, 0, from, limit);
	return next_bit(b, ~(uint64_t)0, *start, limit) - *start;
}

unsigned
page_bits_last_clear_run(const struct page_bits *a, const struct page_bits *b,
    unsigned *start)
{
	int i = PAGE_BITS_WORDS - 1;
	while (i >= 0 && (a->w[i] | b->w[i]) == ~(uint64_t)0)
		i--;
	if (i < 0)
		return 0;

	uint64_t z = ~(a->w[i] | b->w[i]);
	unsigned top = (unsigned)__builtin_clzll(z);   /* bits above the run */
	unsigned len = word_high_ones(z << top);
	unsigned end = (unsigned)i * 64 + 64 - top;
	while (len == end - (unsigned)i * 64 && i > 0) {
		i--;
		len += word_high_ones(~(a->w[i] | b->w[i]));
	}
	*start = end - len;
	return len;
}

/* The longest run of ones in z, if it is longer than `most`; else `most`. */
static unsigned
longer_run(uint64_t z, unsigned most)
{
	if (popcount64(z) <= most)
		return most;
	for (uint64_t at = word_runs(z, most + 1); at != 0; at &= at >> 1)
		most++;
	return most;
}

page_sum
page_bits_summarize(const struct page_bits *b)
{
	unsigned start = PAGE_BITS_NONE, most = 0, run = 0;

	/* Runs that touch a word border ... */
	for (unsigned i = 0; i < PAGE_BITS_WORDS; i++) {
		uint64_t x = b->w[i];
		if (x == 0) {
			run += 64;
			continue;
		}
		run += ctz64(x);
		if (start == PAGE_BITS_NONE)
			start = run;
		most = run > most ? run : most;
		run = (unsigned)__builtin_clzll(x);
	}
	if (start == PAGE_BITS_NONE)
		return page_sum_pack(CHUNK_PAGES, CHUNK_PAGES, CHUNK_PAGES);
	most = run > most ? run : most;

	/* ... and those inside a word, which are at most 62 long. */
	for (unsigned i = 0; i < PAGE_BITS_WORDS && most < 62; i++)
		most = longer_run(~b->w[i], most);
	return page_sum_pack(start, most, run);
}

page_sum
page_sum_merge(const page_sum *child, unsigned log_pages)
{
	size_t full = (size_t)1 << log_pages;
	size_t start = page_sum_start(child[0]);
	size_t most = page_sum_max(child[0]);
	size_t end = page_sum_end(child[0]);

	for (size_t i = 1; i < PAGE_SUM_FANOUT; i++) {
		page_sum c = child[i];
		if (c == 0) {
			end = 0;
			continue;
		}
		size_t c_start = page_sum_start(c), c_max = page_sum_max(c);
		if (start == i << log_pages)
			start += c_start;
		most = end + c_start > most ? end + c_start : most;
		most = c_max > most ? c_max : most;
		end = page_sum_end(c) == full ? end + full : page_sum_end(c);
	}
	return page_sum_pack(start, most, end);
}
