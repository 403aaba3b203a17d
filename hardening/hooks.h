/* hooks.h - what the tiers know of the hardening rooms: these calls, and nothing
 * else of hardening/. Each is made from one place, named beside it. */
#ifndef SPANGUARD_HOOKS_H
#define SPANGUARD_HOOKS_H

#include "../src/base.h"

struct mheap;
struct mspan;

/* Once, from proc.c, after the tiers are up and before the first span. */
void hooks_init(struct mheap *h);

/* From the constructor (proc.c): what needs a living libc, signal handlers. */
void hooks_start(void);

/* In a forked child (proc.c), its one thread running. */
void hooks_after_fork_child(struct mheap *h);

#endif
