/* patrol.h - now and then a refill looks over one span.
 *
 * Threat:    corruption of our metadata by a wild write; in strict also what
 *            canary.h and zero.h see, but sooner.
 * Mechanism: one refill in N checks the invariants of a span of the thread.
 * Cost:      a counter per refill; a few hundred nanoseconds per N refills.
 * Way round: corruption that is used before a patrol comes by.
 * Test:      tests/test_slot.c. */
#ifndef SPANGUARD_PATROL_H
#define SPANGUARD_PATROL_H

#include "hooks.h"

/* every: 0 is never. */
void patrol_init(unsigned every);

#endif
