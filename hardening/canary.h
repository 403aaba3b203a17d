/* canary.h - eight secret bytes behind every small object.
 *
 * Threat:    a linear overflow out of a slot, into the next object.
 * Mechanism: the last eight bytes of a slot belong to nobody; malloc writes them,
 *            from a secret, the span and the slot; free, verify and patrol read
 *            them. The first is zero: a string that is one byte too long changes
 *            nothing a reader of strings would run across, and one that lacks its
 *            end stops there. malloc_usable_size does not count them.
 * Cost:      eight bytes a slot, a store at malloc, a load and compare at free.
 * Way round: an overflow that knows the secret, or stays below the slot's end
 *            (the bytes between what was asked for and the canary), or jumps.
 * Test:      tests/test_slot.c, tests/guarantees.
 *
 * CANARY-1  behind every live small slot of a span at rest stands its canary
 *           (verify and patrol ask only where freed memory is cleared, zero.h:
 *           elsewhere a slot that malloc is about to finish looks the same) */
#ifndef SPANGUARD_CANARY_H
#define SPANGUARD_CANARY_H

#include "hooks.h"
#include "../src/mspan.h"

enum { CANARY_BYTES = 8 };

struct canary_state {
	bool on;
	uint64_t secret[2];
};
extern struct canary_state canary_state_;

void canary_init(bool on, uint64_t seed);

static inline bool
canary_is_on(void)
{
	return canary_state_.on;
}

/* The finaliser of splitmix64 (Steele, Lea, Flood). */
static inline uint64_t
canary_mix(uint64_t z)
{
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* What stands behind the slot at p while it is live. A key of the span's own, out
 * of reach behind the second secret, then the slot: who reads one canary learns
 * the key of its span at most. The lowest byte, the first in memory, is cleared. */
INLINE uint64_t
canary_of(const struct mspan *s, const void *p)
{
	uint64_t span_key = canary_mix((uint64_t)s->base ^ canary_state_.secret[0]) ^ canary_state_.secret[1];
	return canary_mix((uint64_t)(uintptr_t)p ^ span_key) & ~(uint64_t)0xff;
}

INLINE void
canary_write(const struct mspan *s, void *p)
{
	uint64_t c = canary_of(s, p);
	if (canary_state_.on)
		__builtin_memcpy((char *)p + s->elem_bytes - CANARY_BYTES, &c, sizeof(c));
}

INLINE bool
canary_intact(const struct mspan *s, const void *p)
{
	uint64_t c;
	if (!canary_state_.on)
		return true;
	__builtin_memcpy(&c, (const char *)p + s->elem_bytes - CANARY_BYTES, sizeof(c));
	return c == canary_of(s, p);
}

bool canary_absent(const struct mspan *s, const void *p);    /* all zero */
/* Reports the changed bytes; true: and the program goes on. */
bool canary_report(const struct mspan *s, const void *p, const char *api);

/* The same if they are not intact. */
INLINE bool
canary_check(const struct mspan *s, const void *p, const char *api)
{
	return unlikely(!canary_intact(s, p)) && canary_report(s, p, api);
}

#endif
