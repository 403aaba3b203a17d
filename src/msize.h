/* msize.h - from a request to its size class, and from a class to what malloc gives.
 *
 * MSIZE-1  size_class_of(n) is the smallest class that holds n bytes; of 0 it is 0
 * MSIZE-2  the slots of size_class_aligned(n, a) are aligned to a, and no
 *          smaller class holds n bytes in slots so aligned
 * MSIZE-3  size_class_slot is off / elem_bytes for every offset of the span
 *
 * All three are proved by going through every value (tests/test_sizeclasses.c).
 * Class 0 means: too large for a slot, take a span; or no bytes at all, see
 * hardening/zerosize.h. */
#ifndef SPANGUARD_MSIZE_H
#define SPANGUARD_MSIZE_H

#include "base.h"
#include "sizeclasses.h"

static inline unsigned
size_class_of(size_t bytes)
{
	if (unlikely(bytes > SMALL_MAX_BYTES))
		return 0;
	return size_to_class[(bytes + SIZE_STEP_BYTES - 1) / SIZE_STEP_BYTES];
}

/* The class for `bytes` of the program's and `tail` of ours behind them. What is
 * small does not depend on the tail. */
static inline unsigned
size_class_tailed(size_t bytes, size_t tail)
{
	_Static_assert(SLOT_MAX_BYTES >= SMALL_MAX_BYTES + 256, "room for every tail");
	if (unlikely(bytes > SMALL_MAX_BYTES))
		return 0;
	return size_to_class[(bytes + tail + SIZE_STEP_BYTES - 1) / SIZE_STEP_BYTES];
}

/* The class for `bytes` at an address that is a multiple of `align`, a power of
 * two. Spans begin at span pages, so an alignment above that is class 0 too.
 * No search: every multiple of align rounds up to a class that is a multiple
 * of align (mksizeclasses.c says why). */
static inline unsigned
size_class_aligned(size_t bytes, size_t align)
{
	if (unlikely(bytes > SMALL_MAX_BYTES || align > PAGE_SIZE))
		return 0;
	return size_class_of(align_up(bytes + (bytes == 0), align));
}

/* The usable bytes a span gives for a request of `bytes`; 0 where the rounding
 * to whole span pages passes the largest object there can be (PTRDIFF_MAX). */
static inline size_t
size_class_round(size_t bytes)
{
	unsigned c = size_class_of(bytes + (bytes == 0));

	if (likely(c != 0))
		return size_classes[c].elem_bytes;
	if (unlikely(bytes > (size_t)PTRDIFF_MAX - (PAGE_SIZE - 1)))
		return 0;
	return align_up(bytes, PAGE_SIZE);
}

/* The slot that holds byte `off` of a span, inner bytes included. A look-up that
 * goes on to compare slot * elem_bytes with off may leave out the rounding: the
 * slot of a first byte is exact without it, and of any other byte it is at
 * most one too high. */
static inline size_t
size_class_slot(const struct size_class *c, size_t off)
{
	return (size_t)((off & ~(uint64_t)(SIZE_STEP_BYTES - 1)) * c->divmul >> 32);
}

#endif
