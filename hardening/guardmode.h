/* guardmode.h - every object against a guard page of its own.
 *
 * Threat:    overflows, underflows and uses after free, at the access itself.
 * Mechanism: hook_outside_alloc serves every request from guardspace.h. The object
 *            ends where a page that faults begins (guard_side=left: it begins
 *            where one ends), but for the bytes that alignment leaves; what is
 *            left of its pages is filled with a secret byte and checked at free, by
 *            verify and at exit.
 *            Freed pages fault until the quarantine lets them go. Stacks, threads
 *            and the functions called are kept with the object's exact size.
 * Cost:      4 KiB of memory for each object, or its pages; some 4 us for malloc
 *            and free together, of which the kernel takes 3.
 * Way round: an access that misses the guard and the object's own pages; one that
 *            is made by the kernel (a system call fails with EFAULT); objects
 *            that found no guard, which are counted: those lie in spans.
 * Test:      tests/guard, tests/test_guardmode.c.
 *
 *   | G |  slack, filled  | object | < align | G |      guard_side=right
 *   | G | object |         slack, filled     | G |      guard_side=left
 *
 * GUARDMODE-1  pages of a record are read by a check only between looked_at = record
 *   and looked_at = NULL, and only if the record was live after the first; free makes
 *   them fault only after it saw, no longer live, that looked_at is another.
 *
 * Locks: those of guardspace.h; free waits for a check of the same object. */
#ifndef SPANGUARD_GUARDMODE_H
#define SPANGUARD_GUARDMODE_H

#include "fault.h"

struct guardmode_config {
	bool on;
	bool left;
	bool go_on;             /* after a report */
	bool mismatch;          /* compare the functions that allocate and free */
	size_t align;           /* of malloc: 16, or less */
	size_t quarantine_bytes;
	uint64_t seed;          /* 0: from the system */
};

extern const struct fault_room guardmode_room;

/* With one thread running. */
void guardmode_init(const struct guardmode_config *config);

/* A guarded object, zeroed, or NULL: off, or no guard to be had. */
void *guardmode_alloc(size_t bytes, size_t align, bool noscan, enum malloc_api api);

enum outside_verdict guardmode_look(const void *p, size_t *bytes, bool *noscan);
enum outside_verdict guardmode_free(void *p, enum malloc_api api);

/* GUARDSPACE-1 and the slack of every live object: NULL, or the tag and where. */
const char *guardmode_check(uintptr_t *where);

/* The full report of an object whose slack guardmode_check found changed, which ends
 * the program unless halt_on_error=0. false: it is no such object. */
bool guardmode_explain(uintptr_t where, const char *api);

/* In a forked child: no other thread is looking. */
void guardmode_fork_child(void);

/* Says how many objects went unguarded, if any did. */
void guardmode_at_exit(void);

#endif
