/* sample.h - one object in N lies between guards, with its stacks kept.
 *
 * Threat:    overflows, underflows and uses after free that production meets and
 *            no test did. One process sees few of them, many processes see all.
 * Mechanism: a pool of 64 slots outside of the arenas. Each is up to 16 KiB
 *            between guards; only the pages under the object can be touched. The
 *            object lies at the first byte of a page or ends with one (down to the
 *            alignment), at random; what is left of its pages is filled with a
 *            secret byte, checked at free. A freed slot is faulted as a whole and
 *            waits; which freed slot is reused is drawn at random. Stacks and
 *            threads of malloc and free are kept until then. The pool is found by
 *            its address range on the paths for pointers that are in no span.
 *            (After the idea of Electric Fence, GWP-ASan and KFENCE.)
 * Cost:      a counter per refill. A sampled object costs two system calls and
 *            two stack traces, 20 to 60 us; after each the pool pauses for 256
 *            times as long, so that it never takes more than 0.4 % of the time.
 *            At most 1.3 MiB of address space, 40 KiB of records.
 * Way round: it is luck which objects are in the pool; objects above 16 KiB are
 *            not; an access far enough off misses the guards.
 * Test:      tests/test_sample.c, tests/fault.
 *
 *   pool  | guard | slot 0 | guard | slot 1 | guard | .. | slot 63 | guard |
 *
 *   UNUSED --alloc--> BUSY -> LIVE --free--> FREEING -> FREED --alloc--> BUSY
 *                             LIVE, FREED --recovered--> REPORTED, for good
 *
 * SAMPLE-1  base + bytes <= end of the slot's data, base is a multiple of align,
 *           for every LIVE slot (verify; what else is in its pages, free checks)
 *
 * Locks: `lock` around what one allocation does, only ever tried, so that a signal
 * handler may come in anywhere. States change by compare-and-swap; who took a slot
 * to BUSY or FREEING owns its fields until the next state. */
#ifndef SPANGUARD_SAMPLE_H
#define SPANGUARD_SAMPLE_H

#include "fault.h"
#include "../src/atomic.h"
#include "../src/tls.h"

enum {
	SAMPLE_SLOTS = 64,
	SAMPLE_DATA_BYTES = 16 << 10,
};

enum sample_state {
	SAMPLE_UNUSED, SAMPLE_BUSY, SAMPLE_LIVE, SAMPLE_FREEING, SAMPLE_FREED, SAMPLE_REPORTED,
};

/* 32 frames: two stacks of each of the slots. */
enum { SAMPLE_FRAMES = 32 };

struct sample_stack {
	int tid;
	uint32_t frames;
	uintptr_t pcs[SAMPLE_FRAMES];
};

struct sample_slot {
	atomic_u32 state;           /* enum sample_state */
	atomic_u32 told;            /* its one report, of a program that goes on */
	bool open;                  /* the pages below are not faulted */
	bool noscan;
	uint8_t fill;
	uintptr_t base;
	size_t bytes;
	size_t align;
	uintptr_t pages;            /* under the object */
	size_t pages_bytes;
	struct sample_stack allocated;
	struct sample_stack freed;
};

struct sample_config {
	uint32_t one_in;        /* 0: no object is sampled */
	bool go_on;             /* after a report */
	uint32_t pause_factor;  /* times the cost of one; 0: no pause */
	uint32_t stack_depth;   /* frames kept of each stack; 0: no stacks */
	size_t window_bytes;    /* as mspan.h's span_policy: what a refill stands for */
	uint64_t seed;          /* 0: from the system */
};

/* A rate that nobody asks for in production is not paced. */
enum { SAMPLE_PAUSE_FACTOR = 256, SAMPLE_UNPACED = 1000 };

extern const struct fault_room sample_room;

/* Makes the pool, with one thread running. Without memory nothing is sampled. */
void sample_start(const struct sample_config *config);

/* Allocations of this thread until the next one is sampled. */
struct sample_countdown {
	int32_t left;
	bool drawn;
};
extern _Thread_local struct sample_countdown sample_countdown_ TLS_MODEL;

void *sample_due(size_t bytes, size_t align, bool noscan, int32_t weight);
int32_t sample_window_of(size_t bytes, bool noscan);

/* An object, zeroed, or NULL: mostly NULL. refill: the call stands for a whole
 * window of its size class. */
INLINE void *
sample_maybe_alloc(size_t bytes, size_t align, bool noscan, bool refill)
{
	int32_t weight = refill ? sample_window_of(bytes, noscan) : 1;
	sample_countdown_.left -= weight;
	if (likely(sample_countdown_.left > 0))
		return NULL;
	return sample_due(bytes, align, noscan, weight);
}

/* What p is; *bytes and *noscan of OUTSIDE_OK. api names the call in a report
 * that is written here: of a program that goes on. */
enum outside_verdict sample_look(const void *p, const char *api, size_t *bytes, bool *noscan);
enum outside_verdict sample_free(void *p, const char *api);

/* Every live object, and where all of them are (0, 0: nowhere), for a mark pass. */
void sample_each_live(void (*fn)(uintptr_t base, size_t bytes, bool noscan, void *arg),
    void *arg);
void sample_pool(uintptr_t *start, uintptr_t *end);

/* SAMPLE-1: NULL, or the tag and where. Other threads may run. */
const char *sample_check(uintptr_t *where);

/* The SAMPLE_SLOTS records, for tools that look from outside (root.h). */
const struct sample_slot *sample_records(void);

void sample_after_fork_child(void);

struct sample_stats {
	uint64_t sampled;       /* objects ever */
	uint64_t declined;      /* would have been, but: pause, too large, no slot */
	size_t live;
	size_t freed;
	uint64_t cost_ns;       /* what they took, all together */
};

void sample_read_stats(struct sample_stats *out);

#endif
