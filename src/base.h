/* base.h - the words every tier uses: units, rounding, compiler hints.
 *
 * Units are in the names: _bytes, _pages, _slots, _idx, _ns. A "page" without
 * another word is a span page of PAGE_SIZE bytes; the OS page size is a
 * run-time value and belongs to sys.h. */
#ifndef SPANGUARD_BASE_H
#define SPANGUARD_BASE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	PAGE_SHIFT = 13,          /* a span page is 8 KiB */
	ARENA_SHIFT = 26,         /* an arena is 64 MiB */
	CHUNK_SHIFT = 22,         /* a page-allocator chunk is 4 MiB */
	ADDR_BITS = 48,           /* user addresses are below 2^48 */
	CACHE_LINE = 64,
	MALLOC_ALIGN = 16,        /* what the C ABI asks of malloc */
};

#undef PAGE_SIZE               /* musl's limits.h has one of 4096 */
#define PAGE_SIZE ((size_t)1 << PAGE_SHIFT)
#define ARENA_SIZE ((size_t)1 << ARENA_SHIFT)
#define CHUNK_SIZE ((size_t)1 << CHUNK_SHIFT)
#define ARENA_PAGES ((size_t)1 << (ARENA_SHIFT - PAGE_SHIFT))
#define CHUNK_PAGES ((size_t)1 << (CHUNK_SHIFT - PAGE_SHIFT))
#define ADDR_LIMIT ((uintptr_t)1 << ADDR_BITS)

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define NOINLINE __attribute__((noinline))
#define INLINE __attribute__((always_inline)) static inline
#define ALIGNED(n) __attribute__((aligned(n)))
/* Runs when the process starts or ends: stands with its like, apart from what only a
 * report needs, so that fewer pages of text are in memory. */
#define AT_ENDS __attribute__((cold))
/* After a call: it stays a call, so that the caller's frame is in stack traces. */
#define NO_TAIL_CALL() __asm__ volatile("")
/* The compiler is to compute this address, or index, once and keep it. */
#define KEEP_ADDRESS(p) __asm__("" : "+r"(p))
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

static inline uintptr_t
align_up(uintptr_t v, size_t align)
{
	return (v + align - 1) & ~(uintptr_t)(align - 1);
}

static inline uintptr_t
align_down(uintptr_t v, size_t align)
{
	return v & ~(uintptr_t)(align - 1);
}

static inline bool
is_pow2(size_t v)
{
	return v != 0 && (v & (v - 1)) == 0;
}

static inline size_t
bytes_to_pages(size_t bytes)
{
	return (bytes >> PAGE_SHIFT) + ((bytes & (PAGE_SIZE - 1)) != 0);
}

/* bytes is a multiple of CACHE_LINE; two lines in a turn: for what was mostly never
 * used. */
typedef uint64_t cache_line_words __attribute__((vector_size(CACHE_LINE), aligned(8), may_alias));

static inline bool
lines_zero(const void *p, size_t bytes)
{
	const cache_line_words *line = p;
	size_t n = bytes / CACHE_LINE;
	cache_line_words even = { 0 }, odd = { 0 };
	uint64_t any = 0;
	for (size_t i = 0; i + 1 < n; i += 2) {
		even |= line[i];
		odd |= line[i + 1];
	}
	if (n % 2 != 0)
		odd |= line[n - 1];
	even |= odd;
	for (size_t i = 0; i < CACHE_LINE / sizeof(any); i++)
		any |= even[i];
	return any == 0;
}

static inline unsigned
ctz64(uint64_t v)
{
	return (unsigned)__builtin_ctzll(v);
}

/* By halves (Hacker's Delight, 5-1): the baseline x86-64 has no instruction for
 * it and the compiler would call a function. */
static inline unsigned
popcount64(uint64_t v)
{
	v -= v >> 1 & 0x5555555555555555u;
	v = (v & 0x3333333333333333u) + (v >> 2 & 0x3333333333333333u);
	v = (v + (v >> 4)) & 0x0f0f0f0f0f0f0f0fu;
	return (unsigned)(v * 0x0101010101010101u >> 56);
}

#endif
