/* lockrank.h - the one order in which locks are taken, outermost first.
 *
 * A thread that holds a lock may take only locks further down this list.
 * Builds with lock_checks (tests, sanitizers) assert it at run time. */
#ifndef SPANGUARD_LOCKRANK_H
#define SPANGUARD_LOCKRANK_H

enum lock_rank {
	LOCK_NONE = 0,
	LOCK_INIT,        /* proc.c: first call sets the allocator up */
	LOCK_WORLD,       /* proc.c: fork, trim, verify, statistics: the whole heap */
	LOCK_SHARED,      /* proc.c  : the cache of threads that have none any more */
	LOCK_ALLM,        /* mcache.c: list of all thread caches */
	LOCK_MCACHE,      /* mcache.c: one thread's span lists (slow path) */
	LOCK_MCENTRAL,    /* mcentral.c: sweep epoch of one span class */
	LOCK_SPANSET,     /* mspanset.c: growing a spine */
	LOCK_MHEAP,       /* mheap.c: page allocator, span table, large spans */
	LOCK_SIDE,        /* sidetable.c: blocks of records */
	LOCK_PERSISTENT,  /* persistentalloc.c: the current metadata chunk */
	LOCK_WAITING,     /* debug.c: the queue of freed slots */
	LOCK_GUARDSPACE,  /* guardspace.c: lists of places for guarded objects */
	LOCK_REPORT,      /* report.c: one whole report at a time */
	LOCK_RANKS
};

#endif
