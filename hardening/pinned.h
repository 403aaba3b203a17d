/* pinned.h - quarantine=mark: a span is used again when nothing points into it.
 *
 * Threat:    a dangling pointer that is kept for long, while more is allocated and
 *            freed than any quarantine of a fixed size holds.
 * Mechanism: every empty span and every freed large object is parked, whatever its
 *            size. When enough has been parked since the last time (bytes, a share
 *            of the live heap, a number of spans), the next malloc that comes to the
 *            slow path runs a mark pass (mark.h), after it has given up every lock:
 *            spans that no root and no live object points into leave, the others
 *            stay for the next pass. mark_report tells where a pointer stands; one on a
 *            stack only when that is so twice in succession.
 * Cost:      a pass each time as much was parked as is live, 256 MiB at least: see
 *            mark.h for how long the world stands still. Parked memory beyond resident_bytes,
 *            and all that a pass found pinned, is faulted, or given back where no
 *            guard is to be had: it costs address space, a page of page tables for
 *            2 MiB, and its record.
 * Way round: what mark.h does not see (hidden pointers), and slots within a span
 *            that is not empty: those are reused as always. A program that keeps
 *            stale pointers into more than most_bytes has the oldest parked spans
 *            released unmarked, and so has one whose world cannot be stopped; when
 *            malloc finds no more memory all are. A warning says the first two.
 * Test:      tests/test_pinned.c, tests/test_pinned_fake.c, tests/mark.
 *
 *   park -> waiting --pass--> watched -> nothing points to it -> leaves
 *              ^                 |
 *              +----- pinned ----+
 *
 * PIN-1  bytes and n are the sums over both lists, resident_bytes over those of
 *        them that are neither faulted nor given back
 *
 * State under the heap lock; watched belongs to who runs a pass, under the world
 * lock. A pass that fails is tried again after RETRY_NS, then twice as long. */
#ifndef SPANGUARD_PINNED_H
#define SPANGUARD_PINNED_H

#include "hooks.h"

struct pinned_config {
	bool on;
	bool fault;               /* every parked page is a guard from the start */
	bool report;
	size_t resident_bytes;    /* most parked memory that keeps its pages */
	size_t most_bytes;        /* most that is parked at all */
	size_t pass_bytes;        /* parked between two passes, at least */
	unsigned pass_percent;    /* ... and this much of what is not parked */
	size_t pass_spans;        /* or so many spans */
};

void pinned_init(const struct pinned_config *config);
bool pinned_is_on(void);

/* Parks s (not under the heap lock, nobody's). Returns what has to leave for it. */
struct mspan *pinned_park(struct mheap *h, struct mspan *s);
/* One that could not leave after all: the next pass looks at it again. */
void pinned_keep_locked(struct mspan *s);
/* All that wait, because memory has run out. */
struct mspan *pinned_take_all(struct mheap *h);

/* Whether a pass is due; then, with no lock held: what leaves after one, or NULL. */
bool pinned_due(void);
struct mspan *pinned_pass(struct mheap *h);

/* A pass of another thread's does not go on here. */
void pinned_after_fork_child(void);

size_t pinned_bytes(void);
/* Under the heap lock: NULL or the tag. */
const char *pinned_check(void);

struct pinned_stats {
	uint64_t passes, failed;
	uint64_t released_bytes, released_spans;   /* after a pass */
	uint64_t unmarked_bytes;                   /* left because of most_bytes */
	size_t bytes, spans, resident_bytes;       /* parked now */
	size_t pinned_spans;                       /* of the last pass */
};

void pinned_read_stats(struct pinned_stats *out);

#endif
