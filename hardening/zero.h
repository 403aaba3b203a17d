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

#include <string.h>

#include "hooks.h"
#include "../src/mspan.h"

struct zero_state {
	bool on;
	bool wide;        /* the processor has AVX2 */
};
extern struct zero_state zero_state_;

void zero_init(bool on);

static inline bool
zero_is_on(void)
{
	return zero_state_.on;
}

INLINE void
zero_slot(const struct mspan *s, void *p)
{
	if (zero_state_.on)
		memset(p, 0, s->elem_bytes);
}

/* Before the first look at a slot whose pages were perhaps never touched: makes
 * them present for writing. A read would bring in the system's page of zeroes,
 * and the program's first write fault again. */
void zero_bring_in(const struct mspan *s, void *p);

/* Whether [p, p + bytes), aligned to 8, is zero. */
bool zero_all(const void *p, size_t bytes);

/* Up to this, starting the loops of zero_all costs more than they save. */
enum { ZERO_SMALL_BYTES = 256 };

typedef uint64_t zero_pair __attribute__((vector_size(16), aligned(8), may_alias));

INLINE bool
zero_small(const void *p, size_t bytes)
{
	const zero_pair *v = p, *end = v + bytes / sizeof(*v);
	zero_pair sum = { 0 };
	while (v < end)
		sum |= *v++;
	uint64_t rest = (bytes & 8) != 0 ? *(const uint64_t *)v : 0;
	return (sum[0] | sum[1] | rest) == 0;
}

INLINE bool
zero_holds(const struct mspan *s, const void *p)
{
	if (!zero_state_.on)
		return true;
	return s->elem_bytes <= ZERO_SMALL_BYTES ? zero_small(p, s->elem_bytes) :
	    zero_all(p, s->elem_bytes);
}

/* Reports the changed bytes if the free slot at p is not zero; true: and the
 * program goes on, and it is zero now. */
bool zero_check(const struct mspan *s, const void *p, const char *api);

/* All of the span is zero: it has no live slot, and nobody wrote into it. */
bool zero_span_holds(const struct mspan *s);

/* The same for what is behind the last slot: the first changed byte, or 0. */
uintptr_t zero_tail_changed(const struct mspan *s);
bool zero_tail_check(const struct mspan *s, const char *api);

#endif
