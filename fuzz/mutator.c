/* mutator.c - see mutator.h. Knows sgf1 and nothing of any harness: codes are
 * drawn from those the input has, or anew. */
#include "mutator.h"

#include <stdlib.h>
#include <string.h>

#include "sgf.h"

enum { HEAD = SGF_HEADER_BYTES, OP = SGF_OP_BYTES };

static uint64_t
draw(uint64_t *s)
{
	uint64_t z = *s += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static size_t
below(uint64_t *s, size_t n)
{
	return n > 1 ? (size_t)(draw(s) % n) : 0;
}

/* Numbers at which allocators do something else. */
static uint32_t
interesting(uint64_t *s)
{
	static const uint32_t base[] = { 0, 1, 8, 15, 16, 17, 64, 128, 255, 256, 1024, 2048,
		4096, 8192, 16384, 32768, 65536, 1 << 20, 1 << 22, 0x80000000u, 0xffffffffu };
	uint32_t v = base[below(s, sizeof(base) / sizeof(base[0]))];

	return v + (uint32_t)below(s, 5) - 2;
}

/* Any number of bits is as likely as any other, or at an edge. */
static uint32_t
number(uint64_t *s)
{
	return draw(s) & 1 ? interesting(s) : (uint32_t)(draw(s) >> 32 >> below(s, 33));
}

/* Of the input's n bytes: of the same object as one of its ops, half of the time. */
static void
random_op(uint8_t *op, const uint8_t *data, size_t n, uint64_t *s)
{
	uint64_t a = draw(s), b = draw(s);
	size_t nops = (n - HEAD) / OP;
	uint32_t v = number(s);

	memcpy(op, &a, OP);
	op[0] &= 63;                    /* mostly one thread, a few others */
	if ((b & 3) == 0)
		op[0] |= (uint8_t)(b >> 8 & 3) << 6;
	op[1] &= b & 4 ? 15 : 63;       /* few handles, so that they meet again */
	if ((b & 32) != 0 && nops != 0)
		op[1] = data[HEAD + below(s, nops) * OP + 1];
	if ((b & 0x380) == 0)           /* sizes above a megabyte */
		op[2] |= 0xf8;
	if ((b & 64) != 0)              /* an offset, close to nothing */
		op[3] = (uint8_t)((b >> 16 & 31) - 16);
	memcpy(op + 4, &v, 4);
}

size_t
sg_insert(uint8_t *data, size_t n, size_t max, size_t at, const void *what, size_t bytes)
{
	if (n + bytes > max)
		return n;
	memmove(data + at + bytes, data + at, n - at);
	memcpy(data + at, what, bytes);
	return n + bytes;
}

static size_t
insert_random(uint8_t *data, size_t n, size_t max, size_t at, uint64_t *s)
{
	uint8_t op[4 * OP];
	size_t k = below(s, 4) + 1;

	for (size_t i = 0; i < k; i++)
		random_op(op + i * OP, data, n, s);
	return sg_insert(data, n, max, at, op, k * OP);
}

static void
change_field(uint8_t *op, uint64_t *s)
{
	uint32_t imm;

	memcpy(&imm, op + 4, 4);
	switch (below(s, 8)) {
	case 0:
		op[0] = (uint8_t)((op[0] & 0xc0) | (draw(s) & 63));
		break;
	case 1:
		op[0] ^= (uint8_t)(1 + below(s, 3)) << 6;
		break;
	case 2:
		op[1] = (uint8_t)(draw(s) & (draw(s) & 1 ? 15 : 255));
		break;
	case 3:                         /* 248 and above are sizes above a megabyte */
		op[2] = (uint8_t)(draw(s) | (below(s, 16) == 0 ? 0xf8 : 0));
		break;
	case 4:
		op[3] = draw(s) & 1 ? (uint8_t)draw(s) : (uint8_t)(below(s, 5) - 2);
		break;
	case 5:
		imm = number(s);
		break;
	case 6:
		imm += (uint32_t)below(s, 33) - 16;
		break;
	default:
		imm ^= (uint32_t)1 << below(s, 32);
	}
	memcpy(op + 4, &imm, 4);
}

static size_t
repeat_block(uint8_t *data, size_t n, size_t max, size_t at, size_t to, uint64_t *s)
{
	uint8_t block[16 * OP];
	size_t k = (below(s, 4) == 0 ? below(s, 16) : below(s, 3)) + 1;

	if (k * OP > n - at)
		k = (n - at) / OP;
	memcpy(block, data + at, k * OP);
	if (draw(s) & 1)                /* the same, for other handles */
		for (size_t i = 0, shift = below(s, 256); i < k; i++)
			block[i * OP + 1] = (uint8_t)(block[i * OP + 1] + shift);
	if (draw(s) & 1)                /* once more, but for something */
		change_field(block + below(s, k) * OP, s);
	return sg_insert(data, n, max, to, block, k * OP);
}

static size_t
cut_block(uint8_t *data, size_t n, size_t at, uint64_t *s)
{
	size_t k = (below(s, 4) == 0 ? below(s, 32) : below(s, 3)) + 1;

	if (k * OP > n - at)
		k = (n - at) / OP;
	memmove(data + at, data + at + k * OP, n - at - k * OP);
	return n - k * OP;
}

static size_t
mutate_ops(uint8_t *data, size_t n, size_t max, uint64_t *s)
{
	size_t nops = (n - HEAD) / OP;
	size_t at = HEAD + below(s, nops) * OP, other = HEAD + below(s, nops) * OP;
	uint8_t op[OP];

	if (nops == 0)
		return insert_random(data, n, max, HEAD, s);
	switch (below(s, 12)) {
	case 0:
	case 1:
		return insert_random(data, n, max, HEAD + below(s, nops + 1) * OP, s);
	case 2:
	case 3:
		return cut_block(data, n, at, s);
	case 4:
	case 5:
		return repeat_block(data, n, max, at, other, s);
	case 6:                         /* swap */
		memcpy(op, data + at, OP);
		memcpy(data + at, data + other, OP);
		memcpy(data + other, op, OP);
		return n;
	case 7:                         /* point at the object of another op */
		data[at + 1] = data[other + 1];
		return n;
	default:
		change_field(data + at, s);
		return n;
	}
}

/* The mode oftener than the rest, for it decides most. Small numbers are modes, and
 * the first calls that fail. */
static void
change_header(uint8_t *data, uint64_t *s)
{
	size_t at = below(s, 4) == 0 ? 0 : below(s, HEAD);

	switch (below(s, 4)) {
	case 0:
		data[at] ^= (uint8_t)(1u << below(s, 8));
		break;
	case 1:
		data[at] = (uint8_t)below(s, 16);
		break;
	default:
		data[at] = (uint8_t)draw(s);
	}
}

size_t
sg_mutate(uint8_t *data, size_t bytes, size_t max, uint64_t *random)
{
	if (max > SGF_MAX_BYTES)
		max = SGF_MAX_BYTES;
	if (max < HEAD)
		return bytes < max ? bytes : max;
	if (bytes > max)
		bytes = max;
	if (bytes < HEAD) {
		memset(data + bytes, 0, HEAD - bytes);
		bytes = HEAD;
	}
	bytes -= (bytes - HEAD) % OP;
	for (size_t k = (size_t)1 << below(random, 4); k > 0; k--) {
		if (below(random, 12) == 0)
			change_header(data, random);
		else
			bytes = mutate_ops(data, bytes, max, random);
	}
	return bytes;
}

size_t
sg_cross(const uint8_t *a, size_t na, const uint8_t *b, size_t nb, uint8_t *out, size_t max,
    uint64_t *random)
{
	size_t from_a, from_b, n;

	if (max > SGF_MAX_BYTES)
		max = SGF_MAX_BYTES;
	if (na < HEAD || nb < HEAD || max < HEAD) {
		n = na < max ? na : max;
		memcpy(out, a, n);
		return n;
	}
	from_a = HEAD + below(random, (na - HEAD) / OP + 1) * OP;
	from_b = HEAD + below(random, (nb - HEAD) / OP + 1) * OP;
	if (from_a > max)
		from_a = max - (max - HEAD) % OP;
	n = nb - from_b < max - from_a ? nb - from_b : max - from_a;
	memcpy(out, a, from_a);
	memcpy(out + from_a, b + from_b, n);
	return from_a + n;
}
