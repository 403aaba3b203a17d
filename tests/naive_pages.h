/* naive_pages.h - what the page allocator must do, one byte per page and no
 * cleverness: every question is answered by walking all grown pages in address
 * order. Unit tests and fuzz harnesses compare mpagealloc.c with it.
 *
 * Memory comes from libc's malloc; the model of a cache is part of it. Chunk
 * size, page size and the shape of the summary levels are stated here again,
 * not taken from the code under test. */
#ifndef SPANGUARD_TESTS_NAIVE_PAGES_H
#define SPANGUARD_TESTS_NAIVE_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	NAIVE_PAGE_BYTES = 8192,
	NAIVE_CHUNK_PAGES = 512,
	NAIVE_CACHE_PAGES = 64,
};

enum naive_state { NAIVE_USED, NAIVE_FREE, NAIVE_SCAV };

struct naive_chunk {
	uintptr_t base;
	uint8_t page[NAIVE_CHUNK_PAGES];   /* enum naive_state */
};

struct naive_pages {
	struct naive_chunk **chunk;        /* sorted by base */
	size_t nchunks;
};

struct naive_run {
	uintptr_t addr;
	size_t npages;
};

/* Pages moved out of the model into a thread's cache; they are NAIVE_USED there. */
struct naive_cache {
	uintptr_t base;
	uint8_t page[NAIVE_CACHE_PAGES];
};

/* Zeroed memory is an empty model; clear makes it that again. */
void naive_pages_clear(struct naive_pages *n);

/* Adds scavenged pages; false (and no change) if any of it is grown already. */
bool naive_pages_grow(struct naive_pages *n, uintptr_t base, size_t npages);

/* NAIVE_USED for what was never grown. */
enum naive_state naive_pages_get(const struct naive_pages *n, uintptr_t addr);
bool naive_pages_grown(const struct naive_pages *n, uintptr_t addr);
void naive_pages_set(struct naive_pages *n, uintptr_t addr, size_t npages,
    enum naive_state to);

/* All of it grown, and free (scavenged or not) / in use. */
bool naive_pages_all_free(const struct naive_pages *n, uintptr_t addr, size_t npages);
bool naive_pages_all_used(const struct naive_pages *n, uintptr_t addr, size_t npages);

/* Lowest run of npages free pages, 0: none. */
uintptr_t naive_pages_find(const struct naive_pages *n, size_t npages);
/* The documented rule of page_alloc_alloc_aligned. */
uintptr_t naive_pages_find_aligned(const struct naive_pages *n, size_t npages,
    size_t align_pages);

/* Number of pages in a state, over everything grown. */
size_t naive_pages_count(const struct naive_pages *n, enum naive_state state);

/* Maximal runs of scavenged pages in the range, at most `max` of them. */
size_t naive_pages_scav_runs(const struct naive_pages *n, uintptr_t addr, size_t npages,
    struct naive_run *runs, size_t max);

/* The run that scavenging takes next: the highest run of NAIVE_FREE pages, cut
 * at chunk borders, its upper max pages. 0: none. */
size_t naive_pages_scavenge_next(const struct naive_pages *n, size_t max, uintptr_t *addr);

/* start, max, end of the aligned block of npages at base; not grown = in use. */
void naive_pages_summary(const struct naive_pages *n, uintptr_t base, size_t npages,
    size_t sum[3]);

/* Fills the cache from the lowest block with a free page; false: there is none. */
bool naive_cache_fill(struct naive_cache *c, struct naive_pages *n);
/* Lowest run of npages in the cache (not taken), or 0. */
uintptr_t naive_cache_find(const struct naive_cache *c, size_t npages);
void naive_cache_flush(struct naive_cache *c, struct naive_pages *n);

#endif
