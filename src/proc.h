/* proc.h - the process around the allocator: start, threads that come and go,
 * fork, the background scavenger, the end. */
#ifndef SPANGUARD_PROC_H
#define SPANGUARD_PROC_H

#include "base.h"

struct mcache;

/* The cache of threads whose own is gone (they ran their last exit hook) or
 * cannot be had. Locked until proc_shared_unlock, which ignores any other
 * cache. NULL before the library is relocated, or without memory. */
struct mcache *proc_shared_lock(void);
/* ... and NULL also where somebody has it. */
struct mcache *proc_shared_trylock(void);
void proc_shared_unlock(struct mcache *c);

/* Held by whatever walks the whole heap: trim, verify, statistics, fork. */
void proc_world_lock(void);
bool proc_world_trylock(void);
void proc_world_unlock(void);

/* What the options say the heap is to be; test builds make heaps of their own. */
struct mheap_config;
void proc_heap_config(struct mheap_config *out);

/* Calls `bare`, a fork that runs no handlers, between the handlers of ours, so that
 * the child's heap is whole; returns what it returned, with its errno. Plainly
 * `bare` where this thread is inside of malloc, in a handler for a signal, or where
 * the heap stays locked for FORK_WAIT_NS: then child_without_handlers is all there is. */
int proc_fork(int (*bare)(void));

/* Constructor, before the program's own and export_bound.c's, and destructor; said
 * here, because gcc forgets the priority of what was declared without it. Test builds
 * call them again, after proc_forget_start, which makes the next mallocinit the first. */
__attribute__((constructor(101))) void proc_start(void);
__attribute__((destructor(101))) void proc_end(void);
void proc_forget_start(void);

/* Test builds: no thread has a cache any more, with mheap_reset and mcache_reset.
 * One thread runs. */
void proc_reset(void);

#endif
