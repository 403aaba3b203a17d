/* mark.h - which live objects can still be reached, by a conservative mark.
 *
 * Threat:    a freed span is used again while a stale pointer into it is left
 *            (quarantine=mark); an object that is live and lost (leak report).
 * Mechanism: with the world stopped, every aligned word of the roots (roots.h) and
 *            of reached scan objects that falls into a live slot, at whatever
 *            offset, marks it. noscan objects are marked and not looked into.
 * Cost:      the world stands still for about 0.3 to 0.8 s per GiB of small
 *            objects; memory of the pass: 1/400 of the heap and the mark stack,
 *            given back afterwards. Nothing while no pass runs.
 * Way round: a pointer that is hidden (xor, tag in the top bits, in a file or a
 *            shared mapping, at an odd address) is not seen. For watched ranges
 *            unreached objects count as well, so that only such pointers escape.
 * Test:      tests/test_mark.c, tests/test_checkmark.c, tests/mark.
 *
 *   white bits   one per slot, a copy of live & ~remote made for the pass: a set bit
 *                is an object not reached yet. Marking clears it: one access says
 *                that the slot is live and takes the object, and what is left at
 *                the end is what nobody points to.
 *   page table   12 bytes per heap page: its span's place in the white bits, so that
 *                no struct mspan is touched for a pointer
 *   worklist     a stack of objects, in front of it a ring of 16 that are being
 *                prefetched. When the stack is full the object's span is noted and
 *                its reached objects are scanned again: no recursion, no malloc,
 *                and no pointer is lost whatever the shape of the heap.
 *
 * MARK-1  a slot is white only if it was live when the world stopped
 * MARK-2  after the mark: white objects are in no reached object and in no root
 *         (the second pass, checkmark.h, is what holds this to account)
 *
 * Locks: world, all caches, heap, in that order, before the world is stopped: no
 * stopped thread is between two states of the arena map, the spans' lists or the
 * page allocator. Nothing the pass calls takes another lock. Fast paths stop
 * anywhere: a slot whose live bit is not set yet has not been returned to anybody,
 * one whose bit is cleared is no object any more. */
#ifndef SPANGUARD_MARK_H
#define SPANGUARD_MARK_H

#include "stoptheworld.h"

struct mspan;

/* A range of the heap, whole pages, no live object in it: is it pointed to? */
struct mark_watch {
	uintptr_t base, end;
	size_t references;             /* out: words that point into it */
	size_t from_unreached;         /* out: of these, in objects that nobody reaches */
};

/* Where a word that points into a watched range stands. */
enum mark_place { MARK_IN_STACK, MARK_IN_DATA, MARK_IN_USER_ROOT, MARK_IN_OBJECT };

struct mark_reference {
	uintptr_t at;                  /* address of the word */
	uintptr_t value;
	size_t watch;                  /* index */
	enum mark_place place;
	int tid;                       /* MARK_IN_STACK: whose, 0 not known */
	uintptr_t object;              /* MARK_IN_OBJECT: its first byte */
	bool unreached;                /* ... and nobody reaches that object */
};

struct mark_object {
	uintptr_t base;
	size_t bytes;
	const struct mspan *span;      /* NULL: a sampled object */
	bool indirect;                 /* classify: another object nobody reaches points to it */
};

/* Callbacks run with the world stopped and the heap's locks held: no malloc, no
 * lock, no stdio. */
struct mark_request {
	bool no_wait;                  /* no pass if somebody else has the world lock */
	/* Under the world lock, before and after the pass, all threads running. begin
	 * may set watch and n_watch; false: no pass. end: always after a begin. */
	bool (*begin)(struct mark_request *req);
	void (*end)(struct mark_request *req, bool ok);
	uint64_t deadline_ns;          /* for stopping the world; 0: STW_DEADLINE_NS */
	bool classify;                 /* tell which lost objects other lost ones point to */
	bool check;                    /* a second pass by other code must agree */
	struct mark_watch *watch;      /* the array is no root */
	size_t n_watch;
	void (*on_unmarked)(const struct mark_object *o, void *arg);
	void (*on_reference)(const struct mark_reference *r, void *arg);
	void *arg;
	size_t stack_objects;          /* 0: the usual; tests make it small */
};

struct mark_result {
	size_t marked_objects, marked_bytes;    /* classify: as the program sees them */
	size_t leaked_objects, leaked_bytes;    /* live and not marked */
	size_t threads;                /* stopped, without the caller */
	size_t root_bytes;             /* looked at */
	size_t rescans;                /* times the worklist ran over */
	size_t checked_objects;        /* found by the second pass */
	uint64_t stopped_ns;           /* how long the world stood still */
};

/* One pass. false: the world could not be stopped, or no memory (a warning is on
 * the log), or no_wait or begin did not want it; *out is zero, and watched ranges
 * must be taken for pointed to. With `check`, a difference that shows twice is
 * death: DIE_VERIFY, CHECKMARK-1. Not from the allocator's own slow path (it takes
 * the locks above). errno kept. */
bool mark_run(struct mark_request *req, struct mark_result *out);

/* Mark and checkmark: 0 they agree, -1 there was no pass; else death. */
int mark_check(void);

/* Test builds: every so many marks are forgotten; 0 none. */
#if defined(SPANGUARD_TEST_BUILD)
extern uint32_t mark_fault;
#else
enum { mark_fault = 0 };
#endif

#endif
