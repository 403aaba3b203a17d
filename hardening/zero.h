/* zero.h - freed memory is zero, and stays zero until it is handed out again.
 *
 * Threat:    stale data read through a new object; a write through a dangling
 *            pointer.
 * Mechanism: free clears the whole slot. All free memory of the heap is zero
 *            then, so the next malloc of the slot, the retirement of its span, a
 *            verify or a patrol finds whatever was written in between, and names
 *            the bytes.
 * Cost:      clearing at free and reading at malloc, of the whole slot.
 * Way round: a write that puts zeroes; a write after the slot was handed out
 *            again.
 * Test:      tests/test_slot.c, tests/guarantees.
 *
 * ZERO-1  every slot that is not live is zero from its first byte to its last
 * ZERO-2  so are the bytes behind the last slot of a span: who overran that slot is
 *         seen at verify, patrol and retirement, canary or not */
#ifndef SPANGUARD_ZERO_H
#define SPANGUARD_ZERO_H

#include "hooks.h"

void zero_init(bool on);
bool zero_is_on(void);

void zero_slot(const struct mspan *s, void *p);
/* Before the first look at a slot whose pages were perhaps never touched: makes
 * them present for writing. A read would bring in the system's page of zeroes,
 * and the program's first write fault again. */
void zero_bring_in(const struct mspan *s, void *p);
bool zero_holds(const struct mspan *s, const void *p);
/* Reports the changed bytes if the free slot at p is not zero; true: and the
 * program goes on, and it is zero now. */
bool zero_check(const struct mspan *s, const void *p, const char *api);

/* All of the span is zero: it has no live slot, and nobody wrote into it. */
bool zero_span_holds(const struct mspan *s);

/* The same for what is behind the last slot: the first changed byte, or 0. */
uintptr_t zero_tail_changed(const struct mspan *s);
bool zero_tail_check(const struct mspan *s, const char *api);

#endif
