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

/* ---- places for a shuffle ---- */

enum {
	RAND_PLACES = 64,               /* at most so many at once */
	RAND_BATCH = 8,                 /* ... of which one word gives so many */
	RAND_WORD_BITS = 58,            /* of a word, so that times 64 it has 64 */
};

/* One digit of *word, a fraction of 2^58, in base n <= 64; *word becomes what is left. */
static inline uint8_t
rand_digit(uint64_t *word, uint64_t n)
{
	uint64_t m = *word * n;

	*word = m & (((uint64_t)1 << RAND_WORD_BITS) - 1);
	return (uint8_t)(m >> RAND_WORD_BITS);
}

/* Returns what is left of the word. */
static inline uint64_t
rand_digits(struct rand_stream *r, uint64_t n, uint8_t at[RAND_BATCH])
{
	uint64_t word = rand_u64(r) >> (64 - RAND_WORD_BITS);

	at[0] = rand_digit(&word, n);
	at[1] = rand_digit(&word, n + 1);
	at[2] = rand_digit(&word, n + 2);
	at[3] = rand_digit(&word, n + 3);
	at[4] = rand_digit(&word, n + 4);
	at[5] = rand_digit(&word, n + 5);
	at[6] = rand_digit(&word, n + 6);
	at[7] = rand_digit(&word, n + 7);
	return word;
}

/* Of a word so much is left: if it is one of the 2^58 mod (n (n + 1) .. (n + 7)) that
 * are refused, so that each row of digits has equally many, draws others. */
void rand_settle(struct rand_stream *r, uint64_t left, uint64_t n, uint8_t at[RAND_BATCH]);

/* at[i] uniform in [0, n + i), exactly, each independent of the others (N.
 * Brackett-Rozinsky and D. Lemire, "Batched Ranged Random Integer Generation").
 * The product of the eight bases is below 2^48, so nearly all words are taken. */
static inline void
rand_batch(struct rand_stream *r, uint64_t n, uint8_t at[RAND_BATCH])
{
	uint64_t left = rand_digits(r, n, at);

	if (unlikely(left < (uint64_t)1 << 48))
		rand_settle(r, left, n, at);
}

/* at[i] uniform in [0, i] for i < n, n <= RAND_PLACES: who puts value i at place at[i],
 * and what was there at place i, has all orders with the same probability (Fisher and
 * Yates, from the inside out). Entries up to the next multiple of RAND_BATCH are
 * written as well. */
static inline void
rand_places(struct rand_stream *r, uint8_t at[RAND_PLACES], uint32_t n)
{
	for (uint32_t i = 0; i < n; i += RAND_BATCH)
		rand_batch(r, i + 1, at + i);
}

#endif
