/* mpallocbits.h - the 512 + 512 bits of one chunk (4 MiB of pages), and the
 * 64-bit summary that stands for any power-of-two block of pages.
 *
 *   alloc bit   1 = handed out, 0 = free
 *   scav bit    1 = free and given back to the kernel (reads as zero)
 *
 * A summary says, in pages, how many are free at the start of the block, in
 * the longest run anywhere in it, and at its end:
 *
 *    bit 63        62..42   41..21   20..0
 *    all 2^21      end      max      start      0 = nothing free
 *
 * 21 bits hold every value up to 2^21 - 1; the largest block (16 GiB, 2^21
 * pages) wholly free is bit 63 alone. The encoding and the merge rule are
 * those of the Go runtime's pallocSum.
 *
 * Cost: every function here works on words; none loops over pages. */
#ifndef SPANGUARD_MPALLOCBITS_H
#define SPANGUARD_MPALLOCBITS_H

#include "base.h"

enum {
	PAGE_BITS_WORDS = 8,
	PAGE_SUM_BITS = 21,       /* log2 of the largest count a summary holds */
	PAGE_SUM_FANOUT = 8,      /* children merged into one parent */
	PAGE_BITS_NONE = ~0u,     /* page_bits_find: no such run */
};

#define PAGE_SUM_MAX ((size_t)1 << PAGE_SUM_BITS)

struct page_bits {
	uint64_t w[PAGE_BITS_WORDS];
};

struct page_chunk {
	struct page_bits alloc;
	struct page_bits scav;
} ALIGNED(CACHE_LINE);

typedef uint64_t page_sum;

/* Ranges are [first, first + count) with count >= 1, inside the chunk. */
void page_bits_set(struct page_bits *b, unsigned first, unsigned count);
void page_bits_clear(struct page_bits *b, unsigned first, unsigned count);
unsigned page_bits_count(const struct page_bits *b, unsigned first, unsigned count);

static inline bool
page_bits_get(const struct page_bits *b, unsigned i)
{
	return (b->w[i / 64] >> (i % 64) & 1) != 0;
}

/* First run of `count` clear bits at or after `from`, or PAGE_BITS_NONE.
 * *first_clear is the first clear bit that was met on the way (PAGE_BITS_NONE:
 * none); it is at or before the result. */
unsigned page_bits_find(const struct page_bits *b, unsigned count, unsigned from,
    unsigned *first_clear);

/* Next maximal run of set bits inside [from, limit): its length, 0 if none. */
unsigned page_bits_next_run(const struct page_bits *b, unsigned from, unsigned limit,
    unsigned *start);

/* The highest maximal run of bits clear in both a and b: its length, 0 if none. */
unsigned page_bits_last_clear_run(const struct page_bits *a, const struct page_bits *b,
    unsigned *start);

/* Summary of the runs of clear bits. */
page_sum page_bits_summarize(const struct page_bits *b);

/* Bits i of z such that z has `count` set bits from i on; 1 <= count <= 64. */
static inline uint64_t
word_runs(uint64_t z, unsigned count)
{
	for (unsigned have = 1; have < count; ) {
		unsigned step = have < count - have ? have : count - have;
		z &= z >> step;
		have += step;
	}
	return z;
}

/* `count` set bits from `first` on; 1 <= count <= 64 - first. */
static inline uint64_t
word_mask(unsigned first, unsigned count)
{
	return (~(uint64_t)0 >> (64 - count)) << first;
}

/* Length of the run of set bits that starts at bit 0 of z. */
static inline unsigned
word_low_ones(uint64_t z)
{
	return z == ~(uint64_t)0 ? 64 : ctz64(~z);
}

/* Length of the run of set bits that ends at bit 63 of z. */
static inline unsigned
word_high_ones(uint64_t z)
{
	return z == ~(uint64_t)0 ? 64 : (unsigned)__builtin_clzll(~z);
}

static inline page_sum
page_sum_pack(size_t start, size_t max, size_t end)
{
	if (max == PAGE_SUM_MAX)
		return (page_sum)1 << 63;
	return (page_sum)start | (page_sum)max << PAGE_SUM_BITS |
	    (page_sum)end << 2 * PAGE_SUM_BITS;
}

static inline size_t
page_sum_start(page_sum s)
{
	return s >> 63 != 0 ? PAGE_SUM_MAX : (size_t)(s & (PAGE_SUM_MAX - 1));
}

static inline size_t
page_sum_max(page_sum s)
{
	return s >> 63 != 0 ? PAGE_SUM_MAX :
	    (size_t)(s >> PAGE_SUM_BITS & (PAGE_SUM_MAX - 1));
}

static inline size_t
page_sum_end(page_sum s)
{
	return s >> 63 != 0 ? PAGE_SUM_MAX :
	    (size_t)(s >> 2 * PAGE_SUM_BITS & (PAGE_SUM_MAX - 1));
}

/* Summary of PAGE_SUM_FANOUT neighbours of 2^log_pages pages each. */
page_sum page_sum_merge(const page_sum *child, unsigned log_pages);

#endif
