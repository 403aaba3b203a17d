/* naive_pages.c - see the header. Slow on purpose. */
#define _GNU_SOURCE
#include "naive_pages.h"

#include <stdlib.h>
#include <string.h>

static const size_t chunk_bytes = (size_t)NAIVE_CHUNK_PAGES * NAIVE_PAGE_BYTES;

/* Index of the first chunk whose end is above addr. */
static size_t
chunk_at(const struct naive_pages *n, uintptr_t addr)
{
	size_t lo = 0, hi = n->nchunks;
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		if (n->chunk[mid]->base + chunk_bytes <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static uint8_t *
page_at(const struct naive_pages *n, uintptr_t addr)
{
	size_t i = chunk_at(n, addr);
	if (i == n->nchunks || n->chunk[i]->base > addr)
		return NULL;
	return &n->chunk[i]->page[(addr - n->chunk[i]->base) / NAIVE_PAGE_BYTES];
}

/* page_at, and how many of the `max` pages from addr on lie behind it in its chunk;
 * 1 if there is none. */
static uint8_t *
pages_from(const struct naive_pages *n, uintptr_t addr, size_t max, size_t *len)
{
	size_t left = NAIVE_CHUNK_PAGES - addr % chunk_bytes / NAIVE_PAGE_BYTES;
	uint8_t *page = page_at(n, addr);
	*len = page == NULL ? 1 : left < max ? left : max;
	return page;
}

void
naive_pages_clear(struct naive_pages *n)
{
	for (size_t i = 0; i < n->nchunks; i++)
		free(n->chunk[i]);
	free(n->chunk);
	n->chunk = NULL;
	n->nchunks = 0;
}

bool
naive_pages_grow(struct naive_pages *n, uintptr_t base, size_t npages)
{
	size_t add = npages / NAIVE_CHUNK_PAGES;
	size_t at = chunk_at(n, base);

	if (at < n->nchunks && n->chunk[at]->base < base + add * chunk_bytes)
		return false;
	n->chunk = realloc(n->chunk, (n->nchunks + add) * sizeof *n->chunk);
	if (n->chunk == NULL)
		abort();
	memmove(&n->chunk[at + add], &n->chunk[at], (n->nchunks - at) * sizeof *n->chunk);
	for (size_t i = 0; i < add; i++) {
		struct naive_chunk *c = malloc(sizeof *c);
		if (c == NULL)
			abort();
		c->base = base + i * chunk_bytes;
		memset(c->page, NAIVE_SCAV, sizeof c->page);
		n->chunk[at + i] = c;
	}
	n->nchunks += add;
	return true;
}

bool
naive_pages_grown(const struct naive_pages *n, uintptr_t addr)
{
	return page_at(n, addr) != NULL;
}

enum naive_state
naive_pages_get(const struct naive_pages *n, uintptr_t addr)
{
	const uint8_t *page = page_at(n, addr);
	return page == NULL ? NAIVE_USED : (enum naive_state)*page;
}

void
naive_pages_set(struct naive_pages *n, uintptr_t addr, size_t npages, enum naive_state to)
{
	for (size_t i = 0, len; i < npages; i += len) {
		uint8_t *page = pages_from(n, addr + i * NAIVE_PAGE_BYTES, npages - i, &len);
		if (page == NULL)
			abort();
		memset(page, (int)to, len);
	}
}

bool
naive_pages_all_free(const struct naive_pages *n, uintptr_t addr, size_t npages)
{
	for (size_t i = 0, len; i < npages; i += len) {
		const uint8_t *page = pages_from(n, addr + i * NAIVE_PAGE_BYTES, npages - i, &len);
		if (page == NULL || memchr(page, NAIVE_USED, len) != NULL)
			return false;
	}
	return true;
}

bool
naive_pages_all_used(const struct naive_pages *n, uintptr_t addr, size_t npages)
{
	for (size_t i = 0; i < npages; i++) {
		const uint8_t *page = page_at(n, addr + i * NAIVE_PAGE_BYTES);
		if (page == NULL || *page != NAIVE_USED)
			return false;
	}
	return true;
}

/* How many pages from k on are not used. */
static size_t
free_from(const struct naive_chunk *c, size_t k)
{
	const uint8_t *used = memchr(&c->page[k], NAIVE_USED, NAIVE_CHUNK_PAGES - k);
	return (used != NULL ? (size_t)(used - c->page) : NAIVE_CHUNK_PAGES) - k;
}

uintptr_t
naive_pages_find(const struct naive_pages *n, size_t npages)
{
	uintptr_t next = 0, start = 0;
	size_t run = 0;

	for (size_t i = 0; i < n->nchunks; i++) {
		const struct naive_chunk *c = n->chunk[i];
		if (c->base != next)
			run = 0;
		next = c->base + chunk_bytes;
		for (size_t k = 0; k < NAIVE_CHUNK_PAGES; k++) {
			if (c->page[k] == NAIVE_USED) {
				run = 0;
				continue;
			}
			if (run == 0)
				start = c->base + k * NAIVE_PAGE_BYTES;
			size_t free = free_from(c, k);
			run += free;
			k += free - 1;
			if (run >= npages)
				return start;
		}
	}
	return 0;
}

uintptr_t
naive_pages_find_aligned(const struct naive_pages *n, size_t npages, size_t align_pages)
{
	uintptr_t align_bytes = (uintptr_t)align_pages * NAIVE_PAGE_BYTES;
	uintptr_t at = naive_pages_find(n, npages);
	if (at == 0)
		return 0;
	at = (at + align_bytes - 1) / align_bytes * align_bytes;
	if (naive_pages_all_free(n, at, npages))
		return at;
	at = naive_pages_find(n, npages + align_pages - 1);
	return (at + align_bytes - 1) / align_bytes * align_bytes;
}

size_t
naive_pages_count(const struct naive_pages *n, enum naive_state state)
{
	size_t count = 0;
	for (size_t i = 0; i < n->nchunks; i++) {
		for (size_t k = 0; k < NAIVE_CHUNK_PAGES; k++)
			count += n->chunk[i]->page[k] == state;
	}
	return count;
}

size_t
naive_pages_scav_runs(const struct naive_pages *n, uintptr_t addr, size_t npages,
    struct naive_run *runs, size_t max)
{
	size_t nruns = 0;
	bool in_run = false;

	for (size_t i = 0, len; i < npages; i += len) {
		uintptr_t a = addr + i * NAIVE_PAGE_BYTES;
		const uint8_t *page = pages_from(n, a, npages - i, &len);
		for (size_t k = 0; k < len; k++) {
			if (page == NULL || page[k] != NAIVE_SCAV) {
				in_run = false;
				continue;
			}
			if (!in_run && nruns == max)
				abort();
			if (!in_run)
				runs[nruns++] = (struct naive_run){ a + k * NAIVE_PAGE_BYTES, 0 };
			in_run = true;
			runs[nruns - 1].npages++;
		}
	}
	return nruns;
}

size_t
naive_pages_scavenge_next(const struct naive_pages *n, size_t max, uintptr_t *addr)
{
	for (size_t i = n->nchunks; i-- > 0; ) {
		const struct naive_chunk *c = n->chunk[i];
		const uint8_t *last = memrchr(c->page, NAIVE_FREE, NAIVE_CHUNK_PAGES);
		if (last == NULL)
			continue;
		size_t end = (size_t)(last - c->page) + 1, len = 0;
		while (len < max && len < end && c->page[end - 1 - len] == NAIVE_FREE)
			len++;
		*addr = c->base + (end - len) * NAIVE_PAGE_BYTES;
		return len;
	}
	return 0;
}

void
naive_pages_summary(const struct naive_pages *n, uintptr_t base, size_t npages, size_t sum[3])
{
	uintptr_t end = base + npages * NAIVE_PAGE_BYTES, next = base;
	size_t run = 0;
	bool from_start = true;

	sum[0] = sum[1] = sum[2] = 0;
	for (size_t i = chunk_at(n, base); i < n->nchunks && n->chunk[i]->base < end; i++) {
		const struct naive_chunk *c = n->chunk[i];
		if (c->base != next) {
			from_start = false;
			run = 0;
		}
		next = c->base + chunk_bytes;
		for (size_t k = 0; k < NAIVE_CHUNK_PAGES; k++) {
			if (c->page[k] == NAIVE_USED) {
				from_start = false;
				run = 0;
				continue;
			}
			size_t free = free_from(c, k);
			run += free;
			k += free - 1;
			if (run > sum[1])
				sum[1] = run;
			if (from_start)
				sum[0] = run;
		}
	}
	sum[2] = next == end ? run : 0;
}

bool
naive_cache_fill(struct naive_cache *c, struct naive_pages *n)
{
	uintptr_t block_bytes = (uintptr_t)NAIVE_CACHE_PAGES * NAIVE_PAGE_BYTES;
	uintptr_t at = naive_pages_find(n, 1);

	memset(c, 0, sizeof *c);
	if (at == 0)
		return false;
	c->base = at / block_bytes * block_bytes;
	for (size_t i = 0; i < NAIVE_CACHE_PAGES; i++) {
		uint8_t *page = page_at(n, c->base + i * NAIVE_PAGE_BYTES);
		c->page[i] = *page;
		*page = NAIVE_USED;
	}
	return true;
}

uintptr_t
naive_cache_find(const struct naive_cache *c, size_t npages)
{
	size_t run = 0;
	for (size_t i = 0; i < NAIVE_CACHE_PAGES; i++) {
		run = c->page[i] == NAIVE_USED ? 0 : run + 1;
		if (run == npages)
			return c->base + (i + 1 - npages) * NAIVE_PAGE_BYTES;
	}
	return 0;
}

void
naive_cache_flush(struct naive_cache *c, struct naive_pages *n)
{
	for (size_t i = 0; i < NAIVE_CACHE_PAGES; i++) {
		if (c->page[i] != NAIVE_USED)
			*page_at(n, c->base + i * NAIVE_PAGE_BYTES) = c->page[i];
	}
	memset(c, 0, sizeof *c);
}
