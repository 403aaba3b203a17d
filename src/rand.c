/* rand.c - ChaCha8 (D. J. Bernstein, "ChaCha, a variant of Salsa20"; layout of
 * the state as in RFC 8439) with four blocks in the lanes of 16-byte vectors,
 * which SSE2 and NEON, and so every machine we run on, have. See rand.h. */
#include "rand.h"
#include "sys.h"

typedef uint32_t lanes __attribute__((vector_size(16)));

INLINE lanes
rotate(lanes v, unsigned bits)
{
	return (v << bits) | (v >> (32 - bits));
}

INLINE void
quarter_round(lanes *a, lanes *b, lanes *c, lanes *d)
{
	*a += *b;
	*d = rotate(*d ^ *a, 16);
	*c += *d;
	*b = rotate(*b ^ *c, 12);
	*a += *b;
	*d = rotate(*d ^ *a, 8);
	*c += *d;
	*b = rotate(*b ^ *c, 7);
}

/* Written out: with constant indices the state lives in registers. */
INLINE void
double_round(lanes x[16])
{
	quarter_round(&x[0], &x[4], &x[8], &x[12]);
	quarter_round(&x[1], &x[5], &x[9], &x[13]);
	quarter_round(&x[2], &x[6], &x[10], &x[14]);
	quarter_round(&x[3], &x[7], &x[11], &x[15]);
	quarter_round(&x[0], &x[5], &x[10], &x[15]);
	quarter_round(&x[1], &x[6], &x[11], &x[12]);
	quarter_round(&x[2], &x[7], &x[8], &x[13]);
	quarter_round(&x[3], &x[4], &x[9], &x[14]);
}

void
rand_chacha(uint32_t out[RAND_BUF_WORDS], const uint32_t key[RAND_KEY_WORDS],
    const uint32_t tail[4], unsigned rounds)
{
	static const uint32_t sigma[4] = { 0x61707865, 0x3320646e, 0x79622d32, 0x6b206574 };
	const lanes zero = { 0, 0, 0, 0 }, block = { 0, 1, 2, 3 };
	lanes start[16], x[16];

	for (unsigned i = 0; i < 4; i++) {
		start[i] = zero + sigma[i];
		start[4 + i] = zero + key[i];
		start[8 + i] = zero + key[4 + i];
		start[12 + i] = zero + tail[i];
	}
	start[12] += block;
	memcpy(x, start, sizeof(x));
	for (unsigned i = 0; i < rounds; i += 2)
		double_round(x);
	for (unsigned i = 0; i < 16; i++)
		x[i] += start[i];
	memcpy(out, x, sizeof(x));
}

NOINLINE void
rand_refill(struct rand_stream *r)
{
	static const uint32_t tail[4] = { 0, 0, 0, 0 };

	rand_chacha(r->buf, r->buf, tail, 8);
	r->left = RAND_DRAW_BYTES;
}

void
rand_seed_os(struct rand_stream *r)
{
	sys_random(r->buf, RAND_KEY_WORDS * sizeof(r->buf[0]));
	r->left = 0;
}

void
rand_seed_fixed(struct rand_stream *r, uint64_t seed, uint64_t stream)
{
	memset(r->buf, 0, sizeof(r->buf));
	r->buf[0] = (uint32_t)seed;
	r->buf[1] = (uint32_t)(seed >> 32);
	r->buf[2] = (uint32_t)stream;
	r->buf[3] = (uint32_t)(stream >> 32);
	r->left = 0;
}

/* D. Lemire, "Fast random integer generation in an interval". */
uint32_t
rand_below(struct rand_stream *r, uint32_t n)
{
	uint64_t m = (uint64_t)rand_u32(r) * n;

	if ((uint32_t)m < n) {
		uint32_t refuse = -n % n;

		while ((uint32_t)m < refuse)
			m = (uint64_t)rand_u32(r) * n;
	}
	return (uint32_t)(m >> 32);
}

void
rand_settle(struct rand_stream *r, uint64_t left, uint64_t n, uint8_t at[RAND_BATCH])
{
	uint64_t product = 1;

	for (uint32_t i = 0; i < RAND_BATCH; i++)
		product *= n + i;
	while (left < ((uint64_t)1 << RAND_WORD_BITS) % product)
		left = rand_digits(r, n, at);
}
