/* rand.h - a thread's stream of random numbers: ChaCha with 8 rounds and a
 * 256-bit key.
 *
 *   refill:  ChaCha8(key, counter 0..3)  ->  [ next key 32 B | 224 B to draw from ]
 *
 * The key that made a buffer is gone once the buffer is there, so who reads the
 * state learns nothing about earlier buffers (D. J. Bernstein, "Fast-key-erasure
 * random-number generators"). The four blocks are computed side by side in
 * 16-byte vectors; their words stay interleaved (word i of block b at 4 i + b),
 * as in the Go runtime, since the order is nobody's business here.
 *
 *   RAND-1  left <= 224; the next draw is at buf + 256 - left
 *
 * All zero is a valid stream with a key that everybody knows: seed before use.
 * Locks: none, a stream belongs to one thread. Cost: about 1 ns for 16 bits,
 * most of it the refill (some 80 ns with SSE2). */
#ifndef SPANGUARD_RAND_H
#define SPANGUARD_RAND_H

#include "base.h"

#include <string.h>

enum {
	RAND_KEY_WORDS = 8,
	RAND_BUF_WORDS = 64,
	RAND_BUF_BYTES = RAND_BUF_WORDS * 4,
	RAND_DRAW_BYTES = RAND_BUF_BYTES - RAND_KEY_WORDS * 4,
};

struct rand_stream {
	uint32_t buf[RAND_BUF_WORDS] ALIGNED(16);   /* begins with the next key */
	uint32_t left;                              /* bytes not drawn yet */
};

/* From the system's random source: at thread start, and in a forked child. */
void rand_seed_os(struct rand_stream *r);

/* The same numbers for the same pair, on every machine. */
void rand_seed_fixed(struct rand_stream *r, uint64_t seed, uint64_t stream);

/* Slow part of the draws: makes left = RAND_DRAW_BYTES. */
void rand_refill(struct rand_stream *r);

/* Four ChaCha blocks with counters tail[0] .. tail[0] + 3, interleaved; tail is
 * words 12-15 of the state. `rounds` is even. */
void rand_chacha(uint32_t out[RAND_BUF_WORDS], const uint32_t key[RAND_KEY_WORDS],
    const uint32_t tail[4], unsigned rounds);

/* Uniform in [0, n), exactly; 0 if n is 0. */
uint32_t rand_below(struct rand_stream *r, uint32_t n);

INLINE const void *
rand_take(struct rand_stream *r, uint32_t bytes)
{
	const char *p;

	if (unlikely(r->left < bytes))
		rand_refill(r);
	p = (const char *)r->buf + RAND_BUF_BYTES - r->left;
	r->left -= bytes;
	return p;
}

static inline uint32_t
rand_u16(struct rand_stream *r)
{
	uint16_t v;

	memcpy(&v, rand_take(r, sizeof(v)), sizeof(v));
	return v;
}

static inline uint32_t
rand_u32(struct rand_stream *r)
{
	uint32_t v;

	memcpy(&v, rand_take(r, sizeof(v)), sizeof(v));
	return v;
}

static inline uint64_t
rand_u64(struct rand_stream *r)
{
	uint64_t v;

	memcpy(&v, rand_take(r, sizeof(v)), sizeof(v));
	return v;
}

/* Uniform in [0, n) for 1 <= n <= 2^16, exactly, mostly from two bytes: of the
 * 2^16 draws, 2^16 mod n are refused, so each result has equally many (D. Lemire,
 * "Fast random integer generation in an interval"). */
static inline uint32_t
rand_below16(struct rand_stream *r, uint32_t n)
{
	uint32_t m = rand_u16(r) * n;

	if (unlikely((m & 0xffff) < n)) {
		uint32_t refuse = 0x10000 % n;

		while ((m & 0xffff) < refuse)
			m = rand_u16(r) * n;
	}
	return m >> 16;
}

/* Puts v[0..n) in an order drawn uniformly from all (Fisher and Yates). Meant
 * for a window of 64 slots; any n up to 2^16 works. */
static inline void
rand_shuffle_u16(struct rand_stream *r, uint16_t *v, uint32_t n)
{
	for (uint32_t i = n; i > 1; i--) {
		uint32_t j = rand_below16(r, i);
		uint16_t t = v[i - 1];

		v[i - 1] = v[j];
		v[j] = t;
	}
}

#endif
