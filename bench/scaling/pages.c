/* pages.c - the page allocator in heaps of many sizes, on addresses without memory.
 *
 *   pages GiB pairs
 *
 * Grows a page allocator to so many GiB, fills it with runs of 1 to 16 pages, frees
 * one run in eight at random places, and then, with the instrumentation of
 * callgrind on, allocates and frees runs of random length. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <valgrind/callgrind.h>

#include "../../src/mpagealloc.h"
#include "../../src/persistentalloc.h"
#include "sys_addr_only.h"

enum { RUN_MAX = 16 };

struct run {
	uintptr_t at;
	size_t pages;
};

static struct page_alloc heap;
static struct persistent meta;
static uint64_t state = 88172645463325252u;

static uint64_t
draw(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static size_t
length(void)
{
	return 1 + draw() % RUN_MAX;
}

static void
pairs(struct run *runs, size_t n, size_t count)
{
	size_t zeroed;

	for (size_t i = 0; i < count; i++) {
		struct run *r = &runs[draw() % n];
		page_alloc_free(&heap, r->at, r->pages);
		r->pages = length();
		r->at = page_alloc_alloc(&heap, r->pages, &zeroed);
		if (r->at == 0)
			exit(1);
	}
}

int
main(int argc, char **argv)
{
	size_t bytes = (argc > 1 ? strtoull(argv[1], NULL, 10) : 1) << 30;
	size_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : 20000;
	size_t most = (bytes >> PAGE_SHIFT) / (RUN_MAX / 2) + 1, n = 0, zeroed;
	struct run *runs = calloc(most, sizeof(*runs));

	sys_addr_reset();
	persistent_init(&meta);
	page_alloc_init(&heap, &meta);
	if (runs == NULL || !page_alloc_grow(&heap, (uintptr_t)1 << 44, bytes))
		return 1;
	for (; n < most; n++) {
		runs[n].pages = length();
		runs[n].at = page_alloc_alloc(&heap, runs[n].pages, &zeroed);
		if (runs[n].at == 0)
			break;
		sys_addr_events = 0;
	}
	for (size_t i = 0; i < n / 8; i++) {
		size_t at = draw() % n;
		page_alloc_free(&heap, runs[at].at, runs[at].pages);
		runs[at] = runs[--n];
	}
	pairs(runs, n, count);
	sys_addr_events = 0;
	CALLGRIND_START_INSTRUMENTATION;
	pairs(runs, n, count);
	CALLGRIND_STOP_INSTRUMENTATION;
	return 0;
}
