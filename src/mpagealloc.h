/* mpagealloc.h - which pages of the address space are free: bitmaps below a
 * tree of summaries, address-ordered first fit, as in the Go runtime.
 *
 *   level   0            1         2          3         4
 *   entry   16 GiB       2 GiB     256 MiB    32 MiB    4 MiB = one chunk
 *   where   root[2^14]   8         64         512       4096 per page_region
 *
 * A page_region (bitmaps and summaries of 16 GiB) comes from persistent memory
 * when the heap first grows into it, so nothing is reserved for addresses that
 * are not used; its pages become resident as they are touched.
 *
 * A page is in one of three states, besides "never grown":
 *
 *   alloc=0 scav=1  --alloc (sys_used)-->  alloc=1 scav=0  --free-->  alloc=0 scav=0
 *        ^                                     |     ^                    |
 *        +------------ scavenge_end -----------+     +--alloc, scavenge_begin
 *
 * Invariants (page_alloc_verify checks 1-9; 10-13 are checked at each call):
 *   PAGE-1   leaf summary == summary of the chunk's alloc bits; 0 if not grown
 *   PAGE-2   parent summary == merge of its 8 children; no region: 0
 *   PAGE-3   no page is allocated and scavenged
 *   PAGE-4   free_pages == clear alloc bits of grown chunks
 *   PAGE-5   scavenged_pages == set scav bits
 *   PAGE-6   grown_pages == 512 * grown chunks; a chunk is grown once
 *   PAGE-7   search_addr lies in a grown chunk or is PAGE_SEARCH_NONE, and no
 *            page below it is free
 *   PAGE-8   not grown: all bits clear; region_map bit set <=> regions[] set
 *   PAGE-9   a chunk with free, unscavenged pages is in scav_maybe, and its
 *            region is not above scav_region
 *   PAGE-10  pages given back were handed out
 *   PAGE-11  addresses and counts are multiples of the OS page
 *   PAGE-12  a run that a summary promised is in the bitmap
 *   PAGE-13  a page cache holds only pages handed out to it, and is empty when
 *            it is filled
 *
 * Locks: the caller holds the heap lock for every call.
 * Cost: alloc and free of n pages O(n / 512 + 40); no step grows with the heap. */
#ifndef SPANGUARD_MPAGEALLOC_H
#define SPANGUARD_MPAGEALLOC_H

#include "base.h"
#include "mpallocbits.h"

struct persistent;

enum {
	PAGE_LEVELS = 5,
	PAGE_ROOT_BITS = 14,
	PAGE_LEVEL_BITS = 3,
	PAGE_REGION_SHIFT = ADDR_BITS - PAGE_ROOT_BITS,
	PAGE_REGIONS = 1 << PAGE_ROOT_BITS,
	PAGE_REGION_CHUNKS = 1 << (PAGE_REGION_SHIFT - CHUNK_SHIFT),
	PAGE_REGION_SUMS = 8 + 64 + 512 + 4096,
};

#define PAGE_SEARCH_NONE UINTPTR_MAX

struct page_region {
	struct page_chunk chunks[PAGE_REGION_CHUNKS];
	page_sum sums[PAGE_REGION_SUMS];                /* levels 1 to 4, in order */
	uint64_t grown[PAGE_REGION_CHUNKS / 64];
	uint64_t scav_maybe[PAGE_REGION_CHUNKS / 64];   /* may hold pages to scavenge */
};

struct page_alloc {
	uintptr_t search_addr;
	size_t free_pages;             /* page caches' pages count as allocated */
	size_t scavenged_pages;        /* free and scavenged */
	size_t grown_pages;
	size_t scavenging_pages;       /* between scavenge_begin and _end: on their way */
	uint64_t released_pages;       /* ever taken by scavenge_begin; only rises */
	size_t os_pages;               /* span pages in an OS page, at least 1 */
	size_t scav_region;            /* no chunk of a higher region is in scav_maybe */
	struct persistent *meta;
	uint64_t region_map[PAGE_REGIONS / 64];
	page_sum root[PAGE_REGIONS];
	struct page_region *regions[PAGE_REGIONS];
};

/* `p` is zeroed memory, or was in use before and is to forget everything (then
 * the metadata memory it had is the caller's again). After sys_init. */
void page_alloc_init(struct page_alloc *p, struct persistent *meta);

/* Adds [base, base + bytes), chunk-aligned both and never grown before, as free
 * and scavenged pages (state Prepared). false: no metadata memory, no change. */
bool page_alloc_grow(struct page_alloc *p, uintptr_t base, size_t bytes);

/* All that hand out pages: lowest fitting address; sys_used() was called on each
 * scavenged run; *zeroed_pages of them were scavenged and read as zero.
 * 0 / false: no such run, or the kernel refused sys_used. */
uintptr_t page_alloc_alloc(struct page_alloc *p, size_t npages, size_t *zeroed_pages);

/* Multiple of align_pages (a power of two). Takes the first run of npages if the
 * aligned place in it is free, else the first run of npages + align_pages - 1,
 * trimmed; what is trimmed off stays free. */
uintptr_t page_alloc_alloc_aligned(struct page_alloc *p, size_t npages,
    size_t align_pages, size_t *zeroed_pages);

/* Exactly there, if all of it is grown and free. */
bool page_alloc_alloc_at(struct page_alloc *p, uintptr_t addr, size_t npages,
    size_t *zeroed_pages);

/* Dies with PAGE-10 if any of the pages is free or was never grown. */
void page_alloc_free(struct page_alloc *p, uintptr_t addr, size_t npages);

/* For mpagecache.c. take64: all free pages of the aligned block of 64 that holds
 * the first free page; returns their bits (0: heap exhausted), of which *scav
 * are scavenged (sys_used is left to the taker). give64: the reverse. */
uint64_t page_alloc_take64(struct page_alloc *p, uintptr_t *base, uint64_t *scav);
void page_alloc_give64(struct page_alloc *p, uintptr_t base, uint64_t pages,
    uint64_t scav);

/* Takes the highest run of free, unscavenged pages (its upper max_pages, whole
 * OS pages) out as allocated, so that the lock can be dropped while it is given
 * to the kernel; scavenge_end puts it back as free and scavenged. Returns its
 * length; 0: nothing is left, or max_pages is less than an OS page. */
size_t page_alloc_scavenge_begin(struct page_alloc *p, size_t max_pages, uintptr_t *addr);
void page_alloc_scavenge_end(struct page_alloc *p, uintptr_t addr, size_t npages);

/* The page that holds addr is grown and free, or handed out: of one that is not
 * grown, neither. Any address may be asked. */
bool page_alloc_is_free(const struct page_alloc *p, uintptr_t addr);
bool page_alloc_is_used(const struct page_alloc *p, uintptr_t addr);

/* Free pages that still cost memory: what a scavenger could give back. */
static inline size_t
page_alloc_idle_pages(const struct page_alloc *p)
{
	return p->free_pages - p->scavenged_pages;
}

/* Recounts everything by slow code of its own; all: that what was never grown is zero,
 * too, which of a small heap is most of it (0.8 MB to read). NULL, or the tag of the
 * first invariant found broken, with the address concerned in *where. */
const char *page_alloc_verify(struct page_alloc *p, bool all, uintptr_t *where);

#endif
