/* quarantine.h - empty spans and freed large objects are held back from reuse.
 *
 * Threat:    a dangling pointer into a span that has meanwhile become part of
 *            something else; a double free of an object whose span is gone.
 * Mechanism: a parked span keeps its place in the arena map, with no slot live:
 *            a second free is seen exactly. It leaves when the quarantine is over
 *            its bound (bytes, and share of the heap), in random order. Where the
 *            mode faults, its pages are guards meanwhile and cost no memory. A
 *            span whose guard the system will not take off again (mprotect, and
 *            no mapping left) stays parked and is tried again later.
 *            Those that left wait a little longer, faulted still where the mode
 *            faults, and else if they have guards: the next span of the same shape
 *            takes one over, guards and all.
 * Cost:      the bound in memory where pages stay mapped; where they are faulted
 *            two system calls a span and fresh pages at the next use.
 * Way round: an object larger than the bound is not parked; an attacker who can
 *            free enough moves any span out.
 * Test:      tests/test_quarantine.c, tests/guarantees.
 *
 * QUAR-1  bytes is the sum over the parked spans; n of them; waiting_bytes that over
 *         those that wait to be taken over
 * QUAR-2  every parked span is in state PARKED, has no live slot and no owner;
 *         so has every one that waits to be taken over
 *
 * State under the heap lock. */
#ifndef SPANGUARD_QUARANTINE_H
#define SPANGUARD_QUARANTINE_H

#include "hooks.h"

struct quarantine_config {
	size_t bytes;              /* 0: nothing is parked */
	unsigned share_percent;    /* of the pages in spans; faulted pages have no share */
	bool fault;                /* parked pages are guards */
	bool take_over;            /* what left waits for a span of its shape */
	bool zeroed;               /* what leaves is zero (strict: all free memory is) */
	uint64_t seed;             /* 0: from the system */
};

enum {
	QUARANTINE_SPANS = 4096,
	QUARANTINE_FLOOR_BYTES = 1 << 20,
	QUARANTINE_LEAVING = 128,  /* spans that wait to be taken over */
	LEAVING_MAPPED = 32,       /* ... where their pages stay mapped, and only those of */
	LEAVING_MOST_BYTES = 128 << 10,
	LEAVING_ALL_BYTES = 1 << 20,
};

/* What a parked span is, whichever room keeps it (pinned.h). Its pages are guards
 * from now on, or at least no memory; */
void quarantine_close(struct mspan *s);
/* under the heap lock: no slot is live, its state is PARKED; */
void quarantine_enter_locked(struct mspan *s);
/* QUAR-2. */
bool quarantine_is_parked(const struct mspan *s);

void quarantine_init(const struct quarantine_config *config);

/* What leaves in the child is not what leaves in its siblings. */
void quarantine_after_fork_child(void);

#endif
