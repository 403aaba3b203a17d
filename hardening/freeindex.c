/* freeindex.c - see freeindex.h. */
#include "freeindex.h"

#include "../src/die.h"
#include "../src/mspan.h"
#include "../src/rand.h"

enum { MOST_TRIES = 64 };       /* for each slot, of which half at least hit */

/* A window that is filled in random order: the slot that comes i-th goes to place
 * at[i], and what was there to place i. */
struct draw {
	uint16_t *order;
	uint32_t n, most;
	uint8_t at[RAND_PLACES];
};

/* Puts in slots of one word, until the window is full; returns those left over. */
static uint64_t
take_bits(struct draw *d, uint64_t bits, size_t word)
{
	uint16_t *order = d->order, first = (uint16_t)(word * 64);
	uint32_t n = d->n, most = d->most;
	for (; bits != 0 && n < most; n++) {
		uint16_t *place = &order[d->at[n]];
		order[n] = *place;
		*place = (uint16_t)(first + ctz64(bits));
		bits &= bits - 1;
	}
	d->n = n;
	return bits;
}

/* Each slot as likely as any other, and in any order: drawn from all of the span until
 * one is hit that is available, as at least half of them are. */
static uint32_t
draw_few(struct mspan *s, uint16_t *order, struct rand_stream *rng, uint32_t n)
{
	uint32_t tries = n * MOST_TRIES, i = 0;
	while (i < n && tries-- > 0) {
		uint32_t slot = (uint32_t)((uint64_t)rand_u32(rng) * s->nelems >> 32);
		uint64_t bit = (uint64_t)1 << (slot % 64);
		if ((s->avail[slot / 64] & bit) == 0)
			continue;
		s->avail[slot / 64] &= ~bit;
		order[i++] = (uint16_t)slot;
	}
	if (unlikely(i < n))
		die_corruption("MSPAN-4", s);
	return n;
}

/* Neighbours stay neighbours however they are shuffled: among 64 slots in a row
 * each pair is adjacent with 2/64. So each slot that comes by is taken only with
 * 1/2, and what is missing after one round is taken in order. Fewer are drawn one by
 * one; where that could take long, it is a whole window after all. */
uint32_t
hook_draw_window(struct mspan *s, uint16_t *order, struct rand_stream *rng, uint32_t most)
{
	if (most < s->window && s->avail_n >= 2 * most && 2 * s->avail_n >= s->nelems)
		return draw_few(s, order, rng, most);
	most = s->window;
	size_t words = (s->nelems + 63) / 64;     /* nwords counts one that may be empty */
	size_t w = rand_u16(rng) * words >> 16;
	struct draw d;
	d.order = order;
	d.n = 0;
	d.most = s->avail_n < most ? s->avail_n : most;
	rand_places(rng, d.at, d.most);
	if (s->avail_n > most)
		for (size_t seen = 0; seen < words && d.n < d.most; seen++) {
			uint64_t half = s->avail[w] & rand_u64(rng);
			s->avail[w] &= ~half | take_bits(&d, half, w);
			w = w + 1 == words ? 0 : w + 1;
		}
	for (size_t seen = 0; seen < s->nwords && d.n < d.most; seen++) {
		if (s->avail[w] != 0)
			s->avail[w] = take_bits(&d, s->avail[w], w);
		w = w + 1 == s->nwords ? 0 : w + 1;
	}
	return d.n;
}
