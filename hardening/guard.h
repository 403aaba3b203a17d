/* guard.h - guard pages behind spans and around large objects.
 *
 * Threat:    a linear overflow that runs on past the end of its span, or out of
 *            a large object, into somebody else's objects.
 * Mechanism: a page of the heap behind the span (behind one in N, at random; and
 *            before a large object too where the mode says so) is sys_fault'ed: a
 *            touch is a SIGSEGV. With markers it costs no mapping; with mprotect
 *            it comes out of a budget, and what does not fit in is left unguarded
 *            and counted.
 * Cost:      one OS page of address space a guard; two system calls in a span's
 *            life (about 3 us with markers).
 * Way round: a write that jumps over the page; an overflow inside the span; the
 *            N-1 spans in N without a guard.
 * Test:      tests/test_guard.c, tests/guarantees. */
#ifndef SPANGUARD_GUARD_H
#define SPANGUARD_GUARD_H

#include "hooks.h"

enum guard_side { GUARD_SIDE_NONE, GUARD_SIDE_BEFORE, GUARD_SIDE_AFTER };

/* `spans`: one span of small slots in so many has a guard behind it, 0 none.
 * `large`: the same for large objects; `both` puts one before them too. */
void guard_init(struct mheap *h, unsigned spans, unsigned large, bool both, uint64_t seed);

/* One before guarded spans of small slots, too; after guard_init. */
void guard_spans_both(bool both);

void guard_off(void);

/* The child's guards are not where its siblings have theirs. */
void guard_after_fork_child(void);

/* Whose guard is this? Lock-free, for any address. */
enum guard_side guard_look(uintptr_t addr, const struct mspan **s);

#endif
