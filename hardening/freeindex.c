/* freeindex.c - see freeindex.h. */
#include "freeindex.h"

#include "../src/mspan.h"
#include "../src/rand.h"

/* Appends bits of one word to order[], at most `room`; returns what is left. */
static uint64_t
take_bits(uint64_t bits, size_t word, uint16_t *order, uint32_t *n, uint32_t room)
{
	for (; bits != 0 && room > 0; room--) {
		order[(*n)++] = (uint16_t)(word * 64 + ctz64(bits));
		bits &= bits - 1;
	}
	return bits;
}

/* Up to `room` slots out of avail, from word w on. */
static uint32_t
take_slots(struct mspan *s, size_t w, uint16_t *order, uint32_t room)
{
	uint32_t n = 0;
	for (size_t seen = 0; seen < s->nwords && n < room; seen++) {
		if (s->avail[w] != 0)
			s->avail[w] = take_bits(s->avail[w], w, order, &n, room - n);
		w = w + 1 == s->nwords ? 0 : w + 1;
	}
	return n;
}

/* Neighbours stay neighbours however they are shuffled: among 64 slots in a row
 * each pair is adjacent with 2/64. So each slot that comes by is taken only with
 * 1/2, and what is missing after one round is taken in order. */
uint32_t
hook_draw_window(struct mspan *s, uint16_t *order, struct rand_stream *rng)
{
	size_t words = (s->nelems + 63) / 64;     /* nwords counts one that may be empty */
	size_t w = rand_u16(rng) * words >> 16;
	uint32_t n = 0;
	for (size_t seen = 0; s->avail_n > s->window && seen < words && n < s->window; seen++) {
		uint64_t half = s->avail[w] & rand_u64(rng);
		s->avail[w] &= ~half | take_bits(half, w, order, &n, s->window - n);
		w = w + 1 == words ? 0 : w + 1;
	}
	n += take_slots(s, w, order + n, s->window - n);
	rand_shuffle_u16(rng, order, n);
	return n;
}
