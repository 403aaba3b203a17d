/* leaklist.h - what a leak check found, in groups: objects lost in the same way
 * that were allocated by the same stack. Plain data, no locks. */
#ifndef SPANGUARD_LEAKLIST_H
#define SPANGUARD_LEAKLIST_H

#include "../src/base.h"

struct lost {
	uintptr_t base;
	size_t bytes;                  /* as asked for where that is known */
	const uintptr_t *pcs;          /* of the allocation; NULL: not kept */
	uint32_t frames;
	int tid;                       /* who allocated it, 0: not kept */
	bool indirect;
	bool old;                      /* the last check found it, too */
};

struct lost_group {
	size_t first, n;               /* in the sorted array */
	size_t bytes;
	bool indirect, suppressed;
};

/* In the order of groups: direct first, then by stack. */
void lost_sort(struct lost *l, size_t n);
/* Groups of a sorted array, at most `most` of them; the largest first, direct ones
 * before indirect ones. */
size_t lost_group(const struct lost *l, size_t n, struct lost_group *g, size_t most);
size_t lost_count_groups(const struct lost *l, size_t n);

#endif
