/* page_runs.h - a byte for each page of a window, as runs of equal bytes.
 *
 *   at[]    | 0: None | 512: Reserved | 640: Ready | 642: None |     n = 4
 *
 *   RUNS-1  at[0].page = 0, pages rise, neighbours differ
 *
 * What costs is the number of runs, not that of pages: a window of 64 GiB is put
 * back by forgetting them. Look-ups remember the last run found. No lock. */
#ifndef SPANGUARD_TESTS_PAGE_RUNS_H
#define SPANGUARD_TESTS_PAGE_RUNS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct page_run {
	uint32_t page;         /* the first */
	uint8_t state;
};

struct page_runs {
	struct page_run *at;   /* room for as many as there are pages, and one */
	size_t n;
	size_t pages;
	size_t last;           /* hint */
};

static inline void
page_runs_clear(struct page_runs *r, size_t pages)
{
	r->at[0] = (struct page_run){ 0, 0 };
	r->n = 1;
	r->pages = pages;
	r->last = 0;
}

/* The page behind run i. */
static inline size_t
page_runs_end(const struct page_runs *r, size_t i)
{
	return i + 1 < r->n ? r->at[i + 1].page : r->pages;
}

/* The run that `page` is in. */
static inline size_t
page_runs_find(struct page_runs *r, size_t page)
{
	size_t lo = 0, hi = r->n;

	if (r->last < r->n && r->at[r->last].page <= page) {
		if (page < page_runs_end(r, r->last))
			return r->last;
		lo = r->last;
	}
	while (hi - lo > 1) {
		size_t mid = lo + (hi - lo) / 2;

		if (r->at[mid].page <= page)
			lo = mid;
		else
			hi = mid;
	}
	return r->last = lo;
}

static inline uint8_t
page_runs_get(struct page_runs *r, size_t page)
{
	return page < r->pages ? r->at[page_runs_find(r, page)].state : 0;
}

/* Runs [a, b) become the k of `with`. */
static inline void
page_runs_splice(struct page_runs *r, size_t a, size_t b, const struct page_run *with, size_t k)
{
	memmove(&r->at[a + k], &r->at[b], (r->n - b) * sizeof(*r->at));
	memcpy(&r->at[a], with, k * sizeof(*with));
	r->n = r->n - (b - a) + k;
}

static inline void
page_runs_set(struct page_runs *r, size_t page, size_t n, uint8_t to)
{
	struct page_run with[2];
	size_t k = 0, end = page + n;
	size_t a = page_runs_find(r, page), last = page_runs_find(r, end - 1), b = last + 1;
	uint8_t tail = r->at[last].state;

	if (a == last && tail == to)
		return;
	a += r->at[a].page < page;
	if (a == 0 || r->at[a - 1].state != to)
		with[k++] = (struct page_run){ (uint32_t)page, to };
	if (page_runs_end(r, last) > end && tail != to)
		with[k++] = (struct page_run){ (uint32_t)end, tail };
	else if (b < r->n && page_runs_end(r, last) == end && r->at[b].state == to)
		b++;
	page_runs_splice(r, a, b, with, k);
	r->last = a < r->n ? a : 0;
}

#endif
