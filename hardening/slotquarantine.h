/* slotquarantine.h - a freed slot is not handed out before its span is swept, and the
 * sweep waits for a fair share of frees.
 *
 * Threat:    a stale pointer meets the new owner of its slot; a double free frees it.
 * Mechanism: a freed slot is neither live nor available: nothing draws it, and a
 *            second free is seen exactly. mspan_sweep makes all of them available at
 *            once, when sweep_share percent of the span have gathered.
 * Cost:      the freed slots' memory meanwhile; no instruction.
 * Way round: who frees enough neighbours brings the sweep on; how many allocations
 *            lie between free and reuse is in doc/security.md, per class.
 * Test:      tests/test_mcache_fake.c, tests/guarantees/test_randomness.py. */
#ifndef SPANGUARD_SLOTQUARANTINE_H
#define SPANGUARD_SLOTQUARANTINE_H

#include "hooks.h"

#endif
