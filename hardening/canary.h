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

enum { CANARY_BYTES = 8 };

void canary_init(bool on, uint64_t seed);
bool canary_is_on(void);

/* What stands behind the slot at p while it is live. */
uint64_t canary_of(const struct mspan *s, const void *p);

void canary_write(const struct mspan *s, void *p);
bool canary_intact(const struct mspan *s, const void *p);
bool canary_absent(const struct mspan *s, const void *p);    /* all zero */
/* Reports the changed bytes if they are not intact; true: and the program goes on. */
bool canary_check(const struct mspan *s, const void *p, const char *api);

#endif
