/* fheap.h - a fresh heap for each input, and the logical threads that use it.
 *
 *   sg_heap_start(config)   forget the last heap, empty the fake system, set up
 *   sg_heap_forget()        after each input, so that none is in the next one's trace
 *   sg_heap_use(t)          go on as logical thread t: a cache of its own
 *   sg_heap_exit(t)         thread t ends; the next use of t is a new thread
 *   sg_heap_forked()        after a fork: the other threads stayed in the parent
 *   sg_heap_idle()          every thread ends and everything idle goes back
 *
 * All the tiers are the real ones, over tests/fake_sys.c. A death goes back to
 * sg_heap_try, whatever locks were held. */
#ifndef SPANGUARD_FUZZ_FHEAP_H
#define SPANGUARD_FUZZ_FHEAP_H

#include "harness.h"

#include "die.h"
#include "fake_sys.h"
#include "mheap.h"
#include "options.h"

enum { SG_MODES = 5 };      /* options.def's */

struct sg_heap_config {
	struct options options;
	struct fake_sys_config sys;
	bool verify_all;         /* else without the summaries of what was never grown */
};

/* The preset of a mode (enum: OPT_MODE_*), with a seed and no sampled objects. */
const struct options *sg_mode_options(unsigned mode);

/* enum OPT_MODE_*: the header's, where it asks for a mode and no mixture. */
unsigned sg_mode_of(const struct sgf_header *h);

/* What a header asks for. */
void sg_heap_config(const struct sgf_header *h, struct sg_heap_config *out);

void sg_heap_start(const struct sg_heap_config *config);
/* ... by the start of a process: `start` makes what mallocinit makes. */
void sg_heap_boot(const struct fake_sys_config *sys, void (*start)(void));
void sg_heap_forget(void);
struct mcache *sg_heap_use(unsigned t);      /* NULL: no memory for a cache */
void sg_heap_nobody(void);                   /* a thread past its end */
void sg_heap_exit(unsigned t);
void sg_heap_idle(void);
void sg_heap_forked(void);                   /* threads whose caches are gone are, too */

/* The cache of thread t, or NULL if it has none now. */
struct mcache *sg_heap_cache(unsigned t);

/* No lock is held and no cache in a call any more, wherever that was left. */
void sg_heap_forget_calls(void);

/* NULL: fn returned. Else what it died of; all its locks are free again. */
const struct die_info *sg_heap_try(void (*fn)(void *), void *arg);

/* Told of every error that the program survives, as with halt_on_error=0; NULL: each
 * is a death. */
extern void (*sg_goes_on)(const struct die_info *info);

/* Runs verify; fails naming the first tag, or dies of it where a death is wanted. */
void sg_heap_verify(void);
extern bool sg_verify_dies;

/* Warnings that the allocator had for the user, until now. */
extern unsigned sg_warnings;

#endif
