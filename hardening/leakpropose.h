/* leakpropose.h - the line of a suppression file that would silence one group of
 * leaks, and as little else as one line can say.
 *
 *   #0 malloc        ours
 *   #1 xmalloc       named like an allocator
 *   #2 new_item      called by read_a here, by read_b in another group: a helper
 *   #3 read_a        this one
 *
 * The innermost function with a name, of the module that the memory is for, that is no
 * helper; if all are, the innermost with a name; else the module.
 *
 * Locks: as leaknames.h. Cost: the stacks of OTHERS_MAX other groups per function. */
#ifndef SPANGUARD_LEAKPROPOSE_H
#define SPANGUARD_LEAKPROPOSE_H

#include "leaklist.h"

struct print;

/* "leak:pattern" for the group `which`, whose objects have a stack. */
void leak_propose(struct print *p, const struct lost *lost, const struct lost_group *groups,
    size_t n_groups, size_t which);

#endif
