/* test_rand.c - src/rand.c: the ChaCha core against RFC 8439 and against a plain
 * scalar ChaCha written here, then the stream and the draws made from it. */
#define _GNU_SOURCE
#include "fake_die.h"
#include "rand.h"

#include <stdarg.h>
#include <cmocka.h>

#include <string.h>

/* ---- the plain twin ---- */

static uint32_t
rotl(uint32_t v, unsigned bits)
{
	return v << bits | v >> (32 - bits);
}

static void
plain_quarter(uint32_t *x, unsigned a, unsigned b, unsigned c, unsigned d)
{
	x[a] += x[b]; x[d] = rotl(x[d] ^ x[a], 16);
	x[c] += x[d]; x[b] = rotl(x[b] ^ x[c], 12);
	x[a] += x[b]; x[d] = rotl(x[d] ^ x[a], 8);
	x[c] += x[d]; x[b] = rotl(x[b] ^ x[c], 7);
}

static void
plain_block(uint32_t out[16], const uint32_t key[8], const uint32_t tail[4], unsigned rounds)
{
	uint32_t start[16] = { 0x61707865, 0x3320646e, 0x79622d32, 0x6b206574 };

	memcpy(start + 4, key, 32);
	memcpy(start + 12, tail, 16);
	memcpy(out, start, 64);
	for (unsigned i = 0; i < rounds; i += 2) {
		plain_quarter(out, 0, 4, 8, 12);
		plain_quarter(out, 1, 5, 9, 13);
		plain_quarter(out, 2, 6, 10, 14);
		plain_quarter(out, 3, 7, 11, 15);
		plain_quarter(out, 0, 5, 10, 15);
		plain_quarter(out, 1, 6, 11, 12);
		plain_quarter(out, 2, 7, 8, 13);
		plain_quarter(out, 3, 4, 9, 14);
	}
	for (unsigned i = 0; i < 16; i++)
		out[i] += start[i];
}

/* RFC 8439, section 2.3.2: key 00 01 .. 1f, counter 1, 20 rounds. */
static const uint32_t rfc_key[8] = {
	0x03020100, 0x07060504, 0x0b0a0908, 0x0f0e0d0c,
	0x13121110, 0x17161514, 0x1b1a1918, 0x1f1e1d1c,
};
static const uint32_t rfc_block[16] = {
	0xe4e7f110, 0x15593bd1, 0x1fdd0f50, 0xc47120a3,
	0xc7f4d1c7, 0x0368c033, 0x9aaa2204, 0x4e6cd4c3,
	0x466482d2, 0x09aa9f07, 0x05d7c214, 0xa2028bd9,
	0xd19c12b5, 0xb94e16de, 0xe883d0cb, 0x4e3c50a2,
};

/* Lane 0 has the counter given, lane 3 the one three above. */
static void
test_rfc_8439(void **state)
{
	uint32_t out[RAND_BUF_WORDS], plain[16];
	uint32_t tail[4] = { 1, 0x09000000, 0x4a000000, 0 };

	(void)state;
	plain_block(plain, rfc_key, tail, 20);
	assert_memory_equal(plain, rfc_block, sizeof(plain));
	for (uint32_t lane = 0; lane < 4; lane++) {
		tail[0] = 1 - lane;
		rand_chacha(out, rfc_key, tail, 20);
		for (unsigned i = 0; i < 16; i++)
			assert_int_equal(out[4 * i + lane], rfc_block[i]);
	}
}

/* The known answer for 8 rounds: all-zero 256-bit key and nonce, first bytes
 * 3e00ef2f895f40d67f5bb8e81f09a5a1 2c840ec3ce9a7f3b181be188ef711a1e ... */
static void
test_chacha8(void **state)
{
	static const uint32_t zero[8] = { 0 };
	static const uint32_t known[8] = {
		0x2fef003e, 0xd6405f89, 0xe8b85b7f, 0xa1a5091f,
		0xc30e842c, 0x3b7f9ace, 0x88e11b18, 0x1e1a71ef,
	};
	uint32_t out[RAND_BUF_WORDS], plain[16], key[8], tail[4];
	uint32_t seed = 1;

	(void)state;
	rand_chacha(out, zero, zero, 8);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(out[4 * i], known[i]);
	for (unsigned round = 0; round < 200; round++) {
		for (unsigned i = 0; i < 12; i++) {
			seed = seed * 1664525 + 1013904223;
			*(i < 8 ? &key[i] : &tail[i - 8]) = seed;
		}
		if (round == 0)
			tail[0] = 0xfffffffe;    /* the counter wraps, each lane by itself */
		rand_chacha(out, key, tail, 8);
		for (uint32_t lane = 0; lane < 4; lane++) {
			plain_block(plain, key, tail, 8);
			for (unsigned i = 0; i < 16; i++)
				assert_int_equal(out[4 * i + lane], plain[i]);
			tail[0]++;
		}
	}
}

/* ---- the stream ---- */

/* What the stream must give, from the plain core: the interleaved words of each
 * buffer, the first eight of which are the next key. */
static void
test_stream_is_fast_key_erasure(void **state)
{
	uint32_t key[8] = { 5, 0, 7, 1, 0, 0, 0, 0 }, block[4][16];
	struct rand_stream r;

	(void)state;
	rand_seed_fixed(&r, 5, ((uint64_t)1 << 32) + 7);
	for (unsigned refill = 0; refill < 5; refill++) {
		for (uint32_t b = 0; b < 4; b++)
			plain_block(block[b], key, (uint32_t[4]){ b, 0, 0, 0 }, 8);
		for (unsigned i = 8; i < RAND_BUF_WORDS; i++)
			assert_int_equal(rand_u32(&r), block[i % 4][i / 4]);
		for (unsigned i = 0; i < 8; i++)
			key[i] = block[i % 4][i / 4];
		/* All of the old key is gone from the state. */
		assert_memory_equal(r.buf, key, sizeof(key));
	}
}

static void
test_draw_widths(void **state)
{
	struct rand_stream a, b;
	uint64_t wide;
	uint32_t word;

	(void)state;
	rand_seed_fixed(&a, 1, 2);
	rand_seed_fixed(&b, 1, 2);
	for (unsigned i = 0; i < 1000; i++) {
		wide = rand_u64(&a);
		word = rand_u32(&b);
		assert_int_equal((uint32_t)wide, word);
		word = rand_u16(&b);
		assert_int_equal((uint16_t)(wide >> 32), word);
		assert_int_equal((uint16_t)(wide >> 48), rand_u16(&b));
	}
	/* A draw that does not fit into what is left takes a fresh buffer. */
	rand_seed_fixed(&a, 1, 2);
	for (unsigned i = 0; i < RAND_DRAW_BYTES / 2 - 1; i++)
		rand_u16(&a);
	assert_int_equal(a.left, 2);
	rand_u64(&a);
	assert_int_equal(a.left, RAND_DRAW_BYTES - 8);
	assert_true(sizeof(struct rand_stream) <= 384);
}

/* Streams that differ in one bit of the seed or of the number have nothing in
 * common: about half of all bits differ. */
static void
test_seeds_are_independent(void **state)
{
	enum { WORDS = 512 };

	(void)state;
	for (unsigned bit = 0; bit < 128; bit++) {
		uint64_t seed = bit < 64 ? (uint64_t)1 << bit : 0;
		uint64_t stream = bit < 64 ? 0 : (uint64_t)1 << (bit - 64);
		struct rand_stream a, b, c;
		unsigned differ = 0;

		rand_seed_fixed(&a, 0, 0);
		rand_seed_fixed(&b, seed, stream);
		rand_seed_fixed(&c, seed, stream);
		for (unsigned i = 0; i < WORDS; i++) {
			uint64_t v = rand_u64(&b);

			differ += popcount64(rand_u64(&a) ^ v);
			assert_int_equal(v, rand_u64(&c));
		}
		/* 16384 expected, standard deviation 90.5: eight of them. */
		assert_in_range(differ, 16384 - 724, 16384 + 724);
	}
}

static void
test_seed_os(void **state)
{
	struct rand_stream a, b;
	unsigned equal = 0;

	(void)state;
	memset(&a, 0, sizeof(a));
	memset(&b, 0, sizeof(b));
	rand_seed_os(&a);
	rand_seed_os(&b);
	assert_int_equal(a.left, 0);
	for (unsigned i = 0; i < 100; i++)
		equal += rand_u64(&a) == rand_u64(&b);
	assert_int_equal(equal, 0);
}

/* ---- uniform draws ---- */

/* Chi-square of `draws` draws over n cells, less its expectation n - 1, in
 * standard deviations sqrt(2 (n - 1)), squared so that no root is needed. */
static void
assert_uniform(const uint32_t *cell, uint32_t n, uint32_t draws)
{
	double expected = (double)draws / n, chi = 0, off;

	for (uint32_t i = 0; i < n; i++)
		chi += (cell[i] - expected) * (cell[i] - expected) / expected;
	off = chi - (n - 1);
	if (off * off > 49.0 * 2 * (n - 1))
		fail_msg("chi-square of %u cells is %.1f", n, chi);
}

static void
test_uniform(void **state)
{
	static const uint32_t sizes[] = { 2, 3, 5, 7, 63, 64, 100, 256, 1000 };
	static uint32_t cell[1000];
	struct rand_stream r;

	(void)state;
	rand_seed_fixed(&r, 42, 0);
	for (size_t k = 0; k < ARRAY_LEN(sizes); k++) {
		uint32_t n = sizes[k], draws = n * 200 + 10000;

		memset(cell, 0, sizeof(cell));
		for (uint32_t i = 0; i < draws; i++) {
			uint32_t a = rand_below(&r, n);

			assert_true(a < n);
			cell[a]++;
		}
		assert_uniform(cell, n, draws);
	}
	assert_int_equal(rand_below(&r, 0), 0);
	assert_int_equal(rand_below(&r, 1), 0);
}

static void
test_bytes_are_uniform(void **state)
{
	static uint32_t cell[256];
	struct rand_stream r;

	(void)state;
	rand_seed_fixed(&r, 43, 0);
	for (unsigned i = 0; i < 50000; i++) {
		uint32_t v = rand_u16(&r);

		cell[v & 0xff]++;
		cell[v >> 8]++;
	}
	assert_uniform(cell, 256, 100000);
}

/* A stream whose next words are these, in the bits that rand_digits takes. */
static void
rig(struct rand_stream *r, uint64_t first, uint64_t second)
{
	uint64_t fixed[RAND_BUF_BYTES / 8];
	size_t at = ARRAY_LEN(fixed) - RAND_DRAW_BYTES / 8;

	memset(fixed, 0, sizeof(fixed));
	fixed[at] = first << (64 - RAND_WORD_BITS);
	fixed[at + 1] = second << (64 - RAND_WORD_BITS);
	memcpy(r->buf, fixed, sizeof(fixed));
	r->left = RAND_DRAW_BYTES;
}

static uint64_t
product_of(uint64_t n)
{
	uint64_t p = 1;

	for (uint64_t i = 0; i < RAND_BATCH; i++)
		p *= n + i;
	return p;
}

/* The digits as one number, the first of them highest. */
static uint64_t
row_of(const uint8_t at[RAND_BATCH], uint64_t n)
{
	uint64_t row = 0;

	for (uint64_t i = 0; i < RAND_BATCH; i++) {
		assert_true(at[i] < n + i);
		row = row * (n + i) + at[i];
	}
	return row;
}

/* The word of which `left` remains, with digits of no interest: word * p = left modulo
 * 2^58, for a left that p's power of two divides. */
static uint64_t
word_that_leaves(uint64_t left, uint64_t p)
{
	unsigned twos = (unsigned)__builtin_ctzll(p);
	uint64_t odd = p >> twos, inverse = odd;

	for (int i = 0; i < 6; i++)
		inverse *= 2 - odd * inverse;
	assert_int_equal(left & (((uint64_t)1 << twos) - 1), 0);
	return (left >> twos) * inverse & (((uint64_t)1 << (RAND_WORD_BITS - twos)) - 1);
}

/* Row number and what is left are quotient and remainder of word * product by 2^58;
 * a remainder below 2^58 mod product is refused, and no other. So of the words that
 * are taken each row has floor(2^58 / product). */
static void
test_batch_is_exact(void **state)
{
	static const uint64_t one = (uint64_t)1 << RAND_WORD_BITS;
	struct rand_stream r, noise;
	uint8_t at[RAND_BATCH];

	(void)state;
	rand_seed_fixed(&noise, 45, 0);
	for (uint64_t n = 1; n <= RAND_PLACES - RAND_BATCH + 1; n++) {
		uint64_t p = product_of(n), refused = one % p, step = p & -p;

		for (int k = 0; k < 200; k++) {
			uint64_t word = rand_u64(&noise) % one;
			unsigned __int128 all = (unsigned __int128)word * p;

			rig(&r, word, 0);
			assert_true(rand_digits(&r, n, at) == (uint64_t)(all % one));
			assert_true(row_of(at, n) == (uint64_t)(all / one));
		}
		uint64_t other = rand_u64(&noise) % one | one / 2;
		uint64_t last_refused = (refused - 1) / step * step;
		rig(&r, word_that_leaves(last_refused, p), other);
		rand_batch(&r, n, at);
		assert_int_equal(r.left, RAND_DRAW_BYTES - 16);
		assert_true(row_of(at, n) == (uint64_t)((unsigned __int128)other * p / one));
		uint64_t first_taken = (refused + step - 1) / step * step;
		rig(&r, word_that_leaves(first_taken, p), other);
		rand_batch(&r, n, at);
		assert_int_equal(r.left, RAND_DRAW_BYTES - 8);
	}
}

static void
shuffle(struct rand_stream *r, uint16_t *v, uint32_t n)
{
	uint8_t at[RAND_PLACES];

	rand_places(r, at, n);
	for (uint32_t i = 0; i < n; i++) {
		v[i] = v[at[i]];
		v[at[i]] = (uint16_t)i;
	}
}

/* All 24 orders of four, and each place of 64 for each value. */
static void
test_shuffle(void **state)
{
	static uint32_t order_cell[256], cell[64 * 64];
	uint32_t order[24], kinds = 0;
	struct rand_stream r;

	(void)state;
	rand_seed_fixed(&r, 44, 0);
	for (unsigned i = 0; i < 24000; i++) {
		uint16_t v[4] = { 0 };

		shuffle(&r, v, 4);
		order_cell[v[0] | v[1] << 2 | v[2] << 4 | v[3] << 6]++;
	}
	for (unsigned i = 0; i < 256; i++) {
		if (order_cell[i] != 0) {
			assert_true(kinds < 24);
			order[kinds++] = order_cell[i];
		}
	}
	assert_int_equal(kinds, 24);
	assert_uniform(order, 24, 24000);

	for (unsigned i = 0; i < 10000; i++) {
		uint16_t v[64] = { 0 };
		uint64_t seen = 0;

		shuffle(&r, v, 64);
		for (unsigned k = 0; k < 64; k++) {
			seen |= (uint64_t)1 << v[k];
			cell[k * 64 + v[k]]++;
		}
		assert_true(seen == ~(uint64_t)0);
	}
	assert_uniform(cell, 64 * 64, 640000);
	rand_places(&r, NULL, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rfc_8439),
		cmocka_unit_test(test_chacha8),
		cmocka_unit_test(test_stream_is_fast_key_erasure),
		cmocka_unit_test(test_draw_widths),
		cmocka_unit_test(test_seeds_are_independent),
		cmocka_unit_test(test_seed_os),
		cmocka_unit_test(test_uniform),
		cmocka_unit_test(test_bytes_are_uniform),
		cmocka_unit_test(test_batch_is_exact),
		cmocka_unit_test(test_shuffle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
