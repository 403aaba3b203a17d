/* verify.h - recounts every tier from its bits up and compares with what the
 * tier itself believes. Slow code of its own: it shares no loop with the tiers.
 *
 * The tags are those of the headers: ARENA-, MSPAN-, MCACHE-, MCENTRAL-,
 * MHEAP-, PAGE-. Each has a planted corruption in tests/test_verify.c. */
#ifndef SPANGUARD_VERIFY_H
#define SPANGUARD_VERIFY_H

#include "base.h"

struct mheap;
struct mcache;
struct mspan;

struct verify_failure {
	const char *tag;
	uintptr_t where;       /* the span, page or cache in question */
};

enum { VERIFY_MAX_FAILURES = 16 };

/* Checks h; the first VERIFY_MAX_FAILURES failures go to out, the number of all
 * is returned. Caller holds the world lock or is alone. `self` is the calling
 * thread's cache: it, spans without an owner and everything under a lock are
 * checked in full; bits that other threads' fast paths may be changing are left
 * out, unless `quiet` says that no other thread runs. */
size_t verify_heap(struct mheap *h, struct mcache *self, bool quiet,
    struct verify_failure *out);

/* One span at rest (the caller's own): NULL, or the tag that does not hold. */
const char *verify_span(const struct mspan *s);

/* The process's heap: failures to the log, their number back. */
int verify_report(void);
/* ... and a broken invariant ends the process with its report. */
void verify_or_die(void);

/* Every verify_every-th call from the slow path does verify_or_die. */
void verify_now_and_then(void);

/* From a signal handler: at once if nobody is inside the allocator's whole-heap
 * work and the interrupted thread is not on its slow path, else soon after. */
void verify_from_signal(void);

/* Where the heap is made anew: no call was counted, and no signal is waited for. */
void verify_reset(void);

#endif
