/* mpagecache.h - a thread's own 64 pages: small spans without the heap lock.
 *
 *   page_alloc --page_alloc_to_cache (heap lock)--> page_cache
 *   page_cache --page_cache_alloc (owner, no lock)--> caller
 *   page_cache --page_cache_flush (heap lock)--> page_alloc
 *
 * A cache is the free part of one aligned block of 64 pages (512 KiB), as in
 * the Go runtime. The page allocator counts these pages as allocated; pages
 * handed out are given back with page_alloc_free, never to the cache.
 *
 *   PAGE-13  the cache is empty when it is filled; at a flush its pages are
 *            allocated in the page allocator; scav is a subset of pages
 *
 * Locks: the heap lock for to_cache and flush; alloc belongs to the owner.
 * Cost: alloc is at most six shifts; fill and flush update one chunk. */
#ifndef SPANGUARD_MPAGECACHE_H
#define SPANGUARD_MPAGECACHE_H

#include "base.h"

struct page_alloc;

enum { PAGE_CACHE_PAGES = 64 };

/* Zeroed memory is an empty cache. */
struct page_cache {
	uintptr_t base;    /* multiple of 64 pages; 0 before the first fill */
	uint64_t pages;    /* bit i: page i of the block may be handed out */
	uint64_t scav;     /* ... and is scavenged: sys_used is still to be called */
};

/* Fills the empty cache from the lowest block that has a free page. It stays
 * empty if there is none. */
void page_alloc_to_cache(struct page_alloc *p, struct page_cache *pc);

/* Lowest run of npages in the cache, committed with sys_used; *zeroed_pages of
 * them were scavenged and read as zero. 0: no such run (ask the heap), or the
 * kernel refused. */
uintptr_t page_cache_alloc(struct page_cache *pc, size_t npages, size_t *zeroed_pages);

/* Gives all pages back and leaves the cache empty. */
void page_cache_flush(struct page_cache *pc, struct page_alloc *p);

#endif
