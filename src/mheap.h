/* mheap.h - the page heap: spans out of pages, pages out of arenas.
 *
 * MHEAP-1  every span in the arena map is IN_USE or PARKED
 * MHEAP-2  pages of spans, of page caches and free pages together are all
 *          pages ever grown, and no page is in two of these
 * MHEAP-3  spans_in_use and span_pages_in_use equal a recount
 *
 * lock guards pages, scav, the growth region, the span pools and the counters
 * not marked atomic. A thread with a page cache makes small spans without it. */
#ifndef SPANGUARD_MHEAP_H
#define SPANGUARD_MHEAP_H

#include "lock.h"
#include "mcentral.h"
#include "mfixalloc.h"
#include "mgcscavenge.h"
#include "mpagealloc.h"
#include "mpagecache.h"
#include "mspan.h"
#include "persistentalloc.h"
#include "rand.h"

enum {
	SPAN_POOLS = 7,
	HUGE_FROM_BYTES = 16 << 20,
};

/* What mheap needs to know of the options; plain data, set once. */
struct mheap_config {
	struct span_policy span;
	bool randomize;
	bool armed;                 /* every malloc and free is to be seen */
	bool whole;                 /* spans are freed whole: no tail is cut off */
	bool zeroed;                /* all free memory of the heap is zero */
	bool tended;                /* something may be due after a slow call: malloc.c */
	bool exact;                 /* a room knows what was asked for; realloc moves */
	uint32_t tail_bytes;        /* of each small slot, not the program's */
	unsigned idle_share_percent;   /* of a cache's pages that may be in idle spans */
	uint64_t scavenge_delay_ns;
	bool scavenge_on_slow_path;
	bool verify_grown_only;     /* not all of page_alloc_verify: tests of small heaps */
	bool huge_pages;            /* behind what grows from HUGE_FROM_BYTES on */
	uint64_t seed;              /* 0: from the system */
};

struct mheap {
	struct mutex lock;
	struct mheap_config config;
	struct persistent meta;
	struct page_alloc pages;
	struct scavenger scav;
	struct rand_stream rng;         /* arena placement; under lock */

	uintptr_t grow_base;            /* reserved, not yet mapped: [grow_base, grow_end) */
	uintptr_t grow_end;
	uint64_t reserved_bytes;        /* address space taken for the heap */

	struct fixalloc span_pool[SPAN_POOLS];    /* struct mspan, by words of bits */
	size_t os_page_pages;           /* span pages in an OS page, at least 1 */

	atomic_u64 spans_in_use;
	atomic_u64 span_pages_in_use;
	atomic_u64 large_allocs;        /* counts since start */
	atomic_u64 large_frees;
	atomic_u64 scavenged_pages;

	struct mcentral central[SPAN_CLASSES_ALL];
};

/* The heap behind malloc. Test builds may have others, one at a time per
 * arena map. */
extern struct mheap mheap_;

void mheap_init(struct mheap *h, const struct mheap_config *config);

/* Test builds: zeroed memory again, ready for mheap_init. Spans, arenas and
 * metadata are forgotten, not given back: their memory is the test's system's. */
void mheap_reset(struct mheap *h);

/* A span of npages pages (rounded up to the OS page), in use, nobody's, entered
 * in the arena map. c may be NULL; a cache gives small ones without the lock.
 * align_pages is a power of two, 1 for none. NULL: out of memory. */
struct mspan *mheap_alloc_span(struct mheap *h, struct mcache *c, size_t npages,
    unsigned span_class, size_t align_pages);

/* The empty span leaves the tiers: into the quarantine, or the arena map forgets
 * it and its pages become free. */
void mheap_free_span(struct mheap *h, struct mspan *s);

/* A large span gives up its tail, or takes the free pages behind it. */
void mheap_shrink_span(struct mheap *h, struct mspan *s, size_t npages);
bool mheap_grow_span(struct mheap *h, struct mspan *s, size_t npages);

/* Paced return of idle pages; cheap when nothing is due. Returns when to come
 * again for more, on sys_now_ns' clock. */
uint64_t mheap_scavenge_tick(struct mheap *h);
/* Everything idle in the page heap at once; returns bytes given back. */
size_t mheap_scavenge_all(struct mheap *h);

/* Empties the quarantine; true if that freed anything. */
bool mheap_flush_quarantine(struct mheap *h);

/* quarantine=mark: runs a pass if one is due, and frees what nothing points to.
 * The caller holds no lock of ours. */
void mheap_release_unmarked(struct mheap *h);

/* Pages of the span with its guards. */
size_t mheap_span_pages(const struct mheap *h, const struct mspan *s);

size_t mheap_round_pages(const struct mheap *h, size_t npages);

#endif
