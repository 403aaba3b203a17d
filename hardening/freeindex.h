/* freeindex.h - which slot malloc returns is drawn, where Go's freeindex counts up.
 *
 * Threat:    an attacker who knows the next slot puts an object beside, or into the
 *            place of, the one that is to be attacked.
 * Mechanism: a window of up to 64 slots (16 at first) is drawn from all that the span has,
 *            by the thread's own stream (rand.h), and handed out in shuffled order.
 *            A forked child draws anew and gives the parent's windows back
 *            (mcache_after_fork_child). seed=N repeats every placement.
 * Cost:      per window two random numbers a word and one a slot; none per malloc.
 * Way round: an overflow that runs far enough meets every neighbour; a span of few
 *            slots has few places to choose from: doc/security.md, per class.
 * Test:      tests/test_mspan.c, tests/test_rand.c, tests/guarantees/test_randomness.py. */
#ifndef SPANGUARD_FREEINDEX_H
#define SPANGUARD_FREEINDEX_H

#include "hooks.h"

#endif
