/* test_mpagealloc_addr.c - the page allocator against naive_pages.c: random
 * operations at places all over the address space, the exact address of every
 * allocation, every system call; every bit, summary and counter now and then.
 * Then the borders by hand, and a planted corruption for each PAGE tag. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "../src/mpagealloc.h"
#include "../src/mpagecache.h"
#include "../src/persistentalloc.h"
#include "fake_die.h"
#include "naive_pages.h"
#include "sys_addr_only.h"

enum { LIVE_MAX = 4096, RUNS_MAX = 4096 };

#define GIB16 ((uintptr_t)1 << 34)

struct live {
	uintptr_t addr;
	size_t npages;
};

static struct page_alloc heap;
static struct persistent meta;
static struct naive_pages naive;

static struct page_cache cache;
static struct naive_cache naive_cache;
static struct live live[LIVE_MAX];
static size_t nlive;
static struct live flight;         /* begun and not ended scavenging */
static size_t unit;                /* OS page in span pages */
static uint64_t rng_state;
static unsigned long nops, nallocs, nrefused, nscavenged, nlarge;

static uint64_t
rng(void)
{
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return rng_state;
}

static size_t
below(size_t n)
{
	return (size_t)(rng() >> 20) % n;
}

static void
world_start(size_t os_page_bytes, uint64_t seed)
{
	sys_addr_reset();
	sys_addr_page_bytes = os_page_bytes;
	unit = os_page_bytes > PAGE_SIZE ? os_page_bytes / PAGE_SIZE : 1;
	rng_state = seed * 0x9e3779b97f4a7c15 + 1;
	nlive = 0;
	flight = (struct live){ 0, 0 };
	memset(&cache, 0, sizeof cache);
	memset(&naive_cache, 0, sizeof naive_cache);
	memset(&meta, 0, sizeof meta);
	naive_pages_clear(&naive);
	persistent_init(&meta);
	page_alloc_init(&heap, &meta);   /* also after use: it forgets */
	sys_addr_events = 0;
}

/* -- comparing ----------------------------------------------------------- */

static void
check_counters(void)
{
	size_t scav = naive_pages_count(&naive, NAIVE_SCAV);
	size_t idle = naive_pages_count(&naive, NAIVE_FREE);
	assert_int_equal(heap.scavenged_pages, scav);
	assert_int_equal(heap.free_pages, scav + idle);
	assert_int_equal(page_alloc_idle_pages(&heap), idle);
	assert_int_equal(heap.grown_pages, naive.nchunks * NAIVE_CHUNK_PAGES);
}

static void
check_bits(void)
{
	for (size_t i = 0; i < naive.nchunks; i++) {
		const struct naive_chunk *n = naive.chunk[i];
		const struct page_region *r = heap.regions[n->base >> 34];
		assert_non_null(r);
		const struct page_chunk *c = &r->chunks[(n->base >> 22) % 4096];
		for (unsigned k = 0; k < NAIVE_CHUNK_PAGES; k++) {
			if (page_bits_get(&c->alloc, k) != (n->page[k] == NAIVE_USED) ||
			    page_bits_get(&c->scav, k) != (n->page[k] == NAIVE_SCAV))
				fail_msg("bits of %#lx", n->base + k * PAGE_SIZE);
		}
	}
}

static void
check_sum(page_sum s, uintptr_t base, unsigned log_pages)
{
	size_t sum[3];
	naive_pages_summary(&naive, base, (size_t)1 << log_pages, sum);
	if (page_sum_start(s) != sum[0] || page_sum_max(s) != sum[1] ||
	    page_sum_end(s) != sum[2] || (s == 0) != (sum[1] == 0))
		fail_msg("summary of 2^%u pages at %#lx", log_pages, base);
}

static void
check_summaries(void)
{
	for (size_t r = 0; r < PAGE_REGIONS; r++) {
		if (heap.regions[r] == NULL) {
			assert_true(heap.root[r] == 0);
			continue;
		}
		uintptr_t base = r * GIB16;
		const page_sum *s = heap.regions[r]->sums;
		check_sum(heap.root[r], base, 21);
		for (unsigned level = 1, n = 8; level < 5; level++, n *= 8) {
			unsigned log_pages = 21 - 3 * level;
			for (uintptr_t i = 0; i < n; i++)
				check_sum(*s++, base + (i << (log_pages + 13)), log_pages);
		}
	}
}

static void
check_search(void)
{
	uintptr_t first = naive_pages_find(&naive, 1);
	if (heap.search_addr == PAGE_SEARCH_NONE) {
		assert_int_equal(first, 0);
		return;
	}
	assert_true(first == 0 || heap.search_addr <= first);
	assert_true(naive_pages_grown(&naive, heap.search_addr));
}

static void
check_all(void)
{
	uintptr_t where = 0;
	const char *tag = page_alloc_verify(&heap, true, &where);
	if (tag != NULL)
		fail_msg("%s at %#lx after %lu operations", tag, where, nops);
	check_counters();
	check_bits();
	check_summaries();
	check_search();
}

/* -- operations, each on both -------------------------------------------- */

/* One range is handed out in the model; the calls recorded since must be one
 * sys_used per scavenged run, up to the one that was refused (0: none was).
 * Returns whether the allocation stands. */
static bool
model_take(uintptr_t addr, size_t npages, unsigned refused, size_t zeroed_pages)
{
	static struct naive_run run[RUNS_MAX];
	size_t nruns = naive_pages_scav_runs(&naive, addr, npages, run, RUNS_MAX);
	bool ok = refused == 0 || nruns < refused;
	size_t done = ok ? nruns : refused - 1, zeroed = 0;

	assert_int_equal(sys_addr_events, done);
	for (size_t i = 0; i < done; i++) {
		assert_int_equal(sys_addr_log[i].op, SYS_ADDR_USED);
		assert_int_equal(sys_addr_log[i].addr, run[i].addr);
		assert_int_equal(sys_addr_log[i].bytes, run[i].npages * PAGE_SIZE);
		naive_pages_set(&naive, run[i].addr, run[i].npages, NAIVE_FREE);
		zeroed += run[i].npages;
	}
	if (ok) {
		assert_int_equal(zeroed_pages, zeroed);
		naive_pages_set(&naive, addr, npages, NAIVE_USED);
	}
	return ok;
}

static unsigned
maybe_refuse(void)
{
	sys_addr_refuse_used = below(32) == 0 ? 1 + (unsigned)below(3) : 0;
	sys_addr_events = 0;
	return sys_addr_refuse_used;
}

static void
live_add(uintptr_t addr, size_t npages)
{
	assert_true(nlive < LIVE_MAX);
	live[nlive++] = (struct live){ addr, npages };
}

/* `want` is where the model says; 0: nowhere. */
static void
settle(uintptr_t want, uintptr_t got, size_t npages, unsigned refused, size_t zeroed)
{
	sys_addr_refuse_used = 0;
	if (want == 0) {
		assert_int_equal(got, 0);
		assert_int_equal(sys_addr_events, 0);
		return;
	}
	if (model_take(want, npages, refused, zeroed)) {
		assert_int_equal(got, want);
		live_add(got, npages);
		nallocs++;
		nlarge += npages > CHUNK_PAGES;
	} else {
		assert_int_equal(got, 0);
		nrefused++;
	}
}

static bool
op_alloc(size_t npages)
{
	uintptr_t want = naive_pages_find(&naive, npages);
	unsigned refused = maybe_refuse();
	size_t zeroed;
	uintptr_t got = page_alloc_alloc(&heap, npages, &zeroed);
	settle(want, got, npages, refused, zeroed);
	return want != 0;
}

static bool
op_aligned(size_t npages, size_t align_pages)
{
	size_t align = align_pages > unit ? align_pages : unit;
	uintptr_t want = naive_pages_find_aligned(&naive, npages, align);
	unsigned refused = maybe_refuse();
	size_t zeroed;
	uintptr_t got = page_alloc_alloc_aligned(&heap, npages, align_pages, &zeroed);
	settle(want, got, npages, refused, zeroed);
	assert_int_equal(got % (align_pages * PAGE_SIZE), 0);
	return want != 0;
}

static void
op_at(uintptr_t addr, size_t npages)
{
	bool want = naive_pages_all_free(&naive, addr, npages);
	unsigned refused = maybe_refuse();
	size_t zeroed;
	bool got = page_alloc_alloc_at(&heap, addr, npages, &zeroed);
	settle(want ? addr : 0, got ? addr : 0, npages, refused, zeroed);
}

/* Frees all of a live range, or a piece of it; the rest stays live. */
static void
op_free(size_t i)
{
	struct live l = live[i];
	size_t units = l.npages / unit, skip = 0, n = units;
	if (units > 1 && below(3) == 0) {
		skip = below(units);
		n = 1 + below(units - skip);
	}
	live[i] = live[--nlive];
	if (skip != 0)
		live_add(l.addr, skip * unit);
	if (skip + n < units && nlive < LIVE_MAX)
		live_add(l.addr + (skip + n) * unit * PAGE_SIZE, (units - skip - n) * unit);
	else
		n = units - skip;
	page_alloc_free(&heap, l.addr + skip * unit * PAGE_SIZE, n * unit);
	naive_pages_set(&naive, l.addr + skip * unit * PAGE_SIZE, n * unit, NAIVE_FREE);
}

static void
op_cache_fill(void)
{
	bool some = naive_cache_fill(&naive_cache, &naive);
	sys_addr_events = 0;
	page_alloc_to_cache(&heap, &cache);
	assert_int_equal(sys_addr_events, 0);
	assert_int_equal(cache.pages != 0, some);
	if (some)
		assert_int_equal(cache.base, naive_cache.base);
	for (unsigned i = 0; i < 64; i++) {
		assert_int_equal(cache.pages >> i & 1, naive_cache.page[i] != NAIVE_USED);
		assert_int_equal(cache.scav >> i & 1, naive_cache.page[i] == NAIVE_SCAV);
	}
}

static void
op_cache_alloc(size_t npages)
{
	uintptr_t want = npages > 64 ? 0 : naive_cache_find(&naive_cache, npages);
	unsigned refused = maybe_refuse();
	size_t zeroed, model_zeroed = 0;
	uintptr_t got = page_cache_alloc(&cache, npages, &zeroed);
	sys_addr_refuse_used = 0;
	size_t first = (want - naive_cache.base) / PAGE_SIZE, calls = 0;
	bool in_run = false;

	for (size_t i = first; want != 0 && i < first + npages; i++) {
		bool scav = naive_cache.page[i] == NAIVE_SCAV;
		calls += scav && !in_run;
		in_run = scav;
		if (scav && calls == refused && refused != 0) {
			want = 0;
			calls--;
			break;
		}
		model_zeroed += scav;
		naive_cache.page[i] = NAIVE_FREE;
	}
	assert_int_equal(got, want);
	assert_int_equal(sys_addr_events, calls);
	assert_int_equal(zeroed, model_zeroed);
	if (want != 0) {
		memset(&naive_cache.page[first], NAIVE_USED, npages);
		live_add(got, npages);
	}
}

static void
op_cache(size_t npages)
{
	if (naive_cache_find(&naive_cache, 1) == 0)
		op_cache_fill();
	else if (below(16) != 0)
		op_cache_alloc(npages);
	else {
		page_cache_flush(&cache, &heap);
		naive_cache_flush(&naive_cache, &naive);
		assert_true(cache.pages == 0 && cache.scav == 0);
	}
}

static void
op_scavenge_end(void)
{
	if (flight.npages == 0)
		return;
	page_alloc_scavenge_end(&heap, flight.addr, flight.npages);
	naive_pages_set(&naive, flight.addr, flight.npages, NAIVE_SCAV);
	flight.npages = 0;
}

static void
op_scavenge(size_t max_pages)
{
	uintptr_t want = 0, got = 0;
	size_t whole = max_pages / unit * unit;
	op_scavenge_end();
	size_t n = whole == 0 ? 0 : naive_pages_scavenge_next(&naive, whole, &want);
	uint64_t before = heap.released_pages;
	assert_int_equal(page_alloc_scavenge_begin(&heap, max_pages, &got), n);
	assert_int_equal(got, want);
	assert_int_equal(heap.released_pages - before, n);
	nscavenged += n != 0;
	if (n != 0)
		naive_pages_set(&naive, got, n, NAIVE_USED);
	flight = (struct live){ got, n };
	if (below(2) == 0)
		op_scavenge_end();
}

static void
op_grow(uintptr_t base, size_t nchunks)
{
	if (naive_pages_grow(&naive, base, nchunks * NAIVE_CHUNK_PAGES))
		assert_true(page_alloc_grow(&heap, base, nchunks * CHUNK_SIZE));
}

static uintptr_t
random_site(void)
{
	static const uintptr_t site[] = {
		CHUNK_SIZE,                              /* the lowest there is */
		20 * ((uintptr_t)1 << 34) - 2 * CHUNK_SIZE,   /* across a root border */
		0x7f1234400000,
		0x7f123c000000,                          /* across arenas and 32 MiB */
		0x7f1400000000 - 3 * CHUNK_SIZE,
		ADDR_LIMIT - 8 * CHUNK_SIZE,             /* the highest there is */
	};
	return site[below(ARRAY_LEN(site))];
}

static void
op_grow_random(void)
{
	if (naive.nchunks >= 32)
		return;
	size_t at = below(7), n = 1 + below(3);
	uintptr_t base = random_site() + at * CHUNK_SIZE;
	if (base + n * CHUNK_SIZE <= ADDR_LIMIT)
		op_grow(base, n);
}

static size_t
random_size(unsigned profile)
{
	switch (below(16) + profile) {
	case 16: case 17: case 18: case 19:
		return unit * (1 + below(64));
	case 20:
		return unit * (1 + below(300 / unit));
	case 21: case 22:
		return unit * (1 + below(2000 / unit));
	default:
		return unit * (1 + below(4));
	}
}

static uintptr_t
random_place(void)
{
	if (nlive != 0 && below(3) != 0) {
		const struct live *l = &live[below(nlive)];
		return l->addr + l->npages * PAGE_SIZE < ADDR_LIMIT ?
		    l->addr + l->npages * PAGE_SIZE : l->addr;
	}
	return random_site() + below(8 * CHUNK_PAGES / unit) * unit * PAGE_SIZE;
}

static void
random_op(unsigned profile, unsigned grow_bias)
{
	size_t npages = random_size(profile);
	unsigned kind = (unsigned)below(100);

	nops++;
	if (nlive + 2 >= LIVE_MAX || (kind < 45 - grow_bias && nlive > 0))
		op_free(below(nlive));
	else if (kind < 70) {
		if (!op_alloc(npages) && below(3) == 0)
			op_grow_random();
	} else if (kind < 76)
		op_aligned(npages, (size_t)1 << below(11));
	else if (kind < 81) {
		uintptr_t at = random_place();
		size_t room = (ADDR_LIMIT - at) / PAGE_SIZE;
		op_at(at, npages < room ? npages : room);
	} else if (kind < 92)
		op_cache(npages);
	else if (kind < 99)
		op_scavenge(1 + below(below(2) ? 16 : 600));
	else if (below(4) == 0)
		op_grow_random();
}

static void
finish(void)
{
	op_scavenge_end();
	page_cache_flush(&cache, &heap);
	naive_cache_flush(&naive_cache, &naive);
	while (nlive > 0)
		op_free(nlive - 1);
	check_all();
	assert_int_equal(heap.free_pages, heap.grown_pages);
	while (page_alloc_idle_pages(&heap) != 0) {
		op_scavenge(600);
		op_scavenge_end();
	}
	check_all();
	assert_int_equal(heap.scavenged_pages, heap.grown_pages);
}

static void
random_sequence(size_t os_page_bytes, unsigned profile, unsigned long ops, uint64_t seed)
{
	unsigned bias = 15;
	world_start(os_page_bytes, seed);
	for (unsigned long i = 1; i <= ops; i++) {
		if (i % 1000 == 0)
			bias = (unsigned)below(35);
		while (i % 2500 == 0 && profile > 4 && nlive > 0)
			op_free(below(nlive));       /* room for runs over chunks */
		random_op(profile, bias);
		if (i % 64 == 0)
			check_counters();
		if (i % 4000 == 0)
			check_all();
	}
	finish();
}

static void
test_random_small(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 8; seed++)
		random_sequence(4096, 2, 60000, seed);
}

static void
test_random_mixed(void **state)
{
	(void)state;
	for (uint64_t seed = 101; seed <= 108; seed++)
		random_sequence(4096, 7, 60000, seed);
}

static void
test_random_os_pages(void **state)
{
	(void)state;
	for (uint64_t seed = 201; seed <= 205; seed++)
		random_sequence(65536, 5, 30000, seed);
	random_sequence(16384, 5, 50000, 206);
}

/* The sequences above did what they are for. */
static void
test_random_was_thorough(void **state)
{
	(void)state;
	print_message("%lu operations: %lu allocations (%lu over a chunk), "
	    "%lu refused by the system, %lu scavenges\n",
	    nops, nallocs, nlarge, nrefused, nscavenged);
	assert_true(nops >= 1000000);
	assert_true(nallocs > 250000 && nlarge > 500 && nrefused > 500 && nscavenged > 10000);
}

/* -- by hand ------------------------------------------------------------- */

/* Many GiB at a time, over three root entries. */
static void
test_huge(void **state)
{
	(void)state;
	world_start(4096, 7);
	uintptr_t base = 0x400000000000 - 4096 * CHUNK_SIZE;
	op_grow(base, 2 * 4096 + 100);
	check_all();
	assert_true(heap.root[base >> 34] == (uint64_t)1 << 63);

	size_t region = (size_t)1 << 21;
	assert_true(op_alloc(2 * region + 17));
	assert_false(op_alloc(100 * CHUNK_PAGES));
	assert_true(op_alloc(100 * CHUNK_PAGES - 17));
	assert_false(op_alloc(1));
	assert_int_equal(heap.search_addr, PAGE_SEARCH_NONE);
	check_all();
	nlive = 1;
	page_alloc_free(&heap, live[1].addr, live[1].npages);
	naive_pages_set(&naive, live[1].addr, live[1].npages, NAIVE_FREE);
	op_free(0);
	for (unsigned i = 0; i < 40; i++) {
		size_t big = 1 + below(region / 2);
		if (i % 4 == 3 && nlive > 0)
			op_free(below(nlive));
		else if (i % 4 == 2)
			op_aligned(big, region / 16 << below(5));
		else
			op_alloc(big);
	}
	check_all();
	while (nlive > 0)
		op_free(0);
	check_all();
}

/* A run may begin in one root entry and end in the next. */
static void
test_straddles_root_border(void **state)
{
	uintptr_t base = 30 * GIB16 - CHUNK_SIZE;
	(void)state;
	world_start(4096, 8);
	op_grow(base, 2);
	assert_true(op_alloc(2 * CHUNK_PAGES));
	assert_int_equal(live[0].addr, base);
	page_alloc_free(&heap, base + CHUNK_SIZE - 3 * PAGE_SIZE, 6);
	naive_pages_set(&naive, base + CHUNK_SIZE - 3 * PAGE_SIZE, 6, NAIVE_FREE);
	assert_false(op_alloc(7));
	assert_true(op_alloc(6));
	assert_int_equal(live[1].addr, base + CHUNK_SIZE - 3 * PAGE_SIZE);
	check_all();
}

/* Neighbours in the address space with a gap of one chunk: no run across it. */
static void
test_gap_breaks_run(void **state)
{
	uintptr_t base = 31 * GIB16 - CHUNK_SIZE;
	(void)state;
	world_start(4096, 9);
	op_grow(base, 1);
	op_grow(base + 2 * CHUNK_SIZE, 1);
	assert_false(op_alloc(CHUNK_PAGES + 1));
	op_grow(base + CHUNK_SIZE, 1);
	assert_true(op_alloc(3 * CHUNK_PAGES));
	check_all();
}

/* search_addr must not rest on the first address of a summary entry that was
 * never grown: an allocation fails above, a free below, then the next one. */
static void
test_search_addr_is_grown(void **state)
{
	uintptr_t high = 0x7f0000000000 + 5 * CHUNK_SIZE;
	(void)state;
	world_start(4096, 10);
	op_grow(CHUNK_SIZE, 1);
	op_grow(high, 2);
	assert_true(op_alloc(CHUNK_PAGES));
	assert_true(op_alloc(CHUNK_PAGES + 1));
	assert_int_equal(live[1].addr, high);
	check_all();
	assert_true(naive_pages_grown(&naive, heap.search_addr));
	op_free(0);
	check_all();
	op_cache_fill();
	check_all();
	/* The last block of the last chunk: the page after it is not grown. */
	assert_true(op_alloc(CHUNK_PAGES - 64));
	op_cache_alloc(1);
	page_cache_flush(&cache, &heap);
	naive_cache_flush(&naive_cache, &naive);
	check_all();
	op_alloc(63);
	op_alloc(CHUNK_PAGES - 1 - 64);
	op_cache_fill();
	check_all();
}

static void
test_no_metadata_memory(void **state)
{
	(void)state;
	world_start(4096, 11);
	op_grow(5 * GIB16, 1);
	sys_addr_refuse_meta = true;
	assert_false(page_alloc_grow(&heap, 8 * GIB16 - CHUNK_SIZE, 2 * CHUNK_SIZE));
	check_all();
	op_grow(5 * GIB16 + CHUNK_SIZE, 1);    /* its region is there */
	check_all();
	sys_addr_refuse_meta = false;
	op_grow(8 * GIB16 - CHUNK_SIZE, 2);
	check_all();
	assert_true(op_alloc(2 * CHUNK_PAGES));
}

static void
scavenge(uintptr_t want_addr, size_t want)
{
	uintptr_t at = 0;
	assert_int_equal(page_alloc_scavenge_begin(&heap, CHUNK_PAGES, &at), want);
	assert_int_equal(at, want_addr);
	sys_unused((void *)at, want << PAGE_SHIFT);
	page_alloc_scavenge_end(&heap, at, want);
}

/* The first run was made Ready, the second was refused: the first is idle now, in a
 * chunk that had nothing to scavenge. */
static void
test_refused_run_leaves_idle_pages(void **state)
{
	uintptr_t base = 3 * GIB16, a = base + CHUNK_SIZE, b = a + CHUNK_SIZE, where;
	size_t zeroed;
	(void)state;
	world_start(4096, 13);
	op_grow(base, 3);
	assert_int_equal(page_alloc_alloc(&heap, 2 * CHUNK_PAGES + 1, &zeroed), base);
	page_alloc_free(&heap, a, CHUNK_PAGES);
	scavenge(a, CHUNK_PAGES);
	page_alloc_free(&heap, base, 1);
	scavenge(base, 1);                      /* ... and a's chunk was looked into in vain */
	page_alloc_free(&heap, b, 1);
	sys_addr_refuse_used = 2;
	assert_int_equal(page_alloc_alloc(&heap, CHUNK_PAGES + 9, &zeroed), 0);
	assert_null(page_alloc_verify(&heap, true, &where));
	assert_int_equal(page_alloc_idle_pages(&heap), CHUNK_PAGES + 1);
	scavenge(b, 1);
	scavenge(a, CHUNK_PAGES);
}

static void
test_is_free(void **state)
{
	uintptr_t base = 3 * GIB16;
	size_t zeroed;
	(void)state;
	world_start(4096, 12);
	op_grow(base, 1);
	assert_true(op_alloc(3));
	assert_false(page_alloc_is_free(&heap, base));
	assert_false(page_alloc_is_free(&heap, base + 3 * PAGE_SIZE - 1));
	assert_true(page_alloc_is_free(&heap, base + 3 * PAGE_SIZE));
	assert_true(page_alloc_is_free(&heap, base + CHUNK_SIZE - 1));
	assert_false(page_alloc_is_free(&heap, base + CHUNK_SIZE));
	assert_false(page_alloc_is_free(&heap, base - 1));
	assert_false(page_alloc_is_free(&heap, 0));
	assert_false(page_alloc_is_free(&heap, ADDR_LIMIT));
	assert_false(page_alloc_is_free(&heap, UINTPTR_MAX));
	assert_true(page_alloc_is_used(&heap, base));
	assert_true(page_alloc_is_used(&heap, base + 3 * PAGE_SIZE - 1));
	assert_false(page_alloc_is_used(&heap, base + 3 * PAGE_SIZE));
	assert_false(page_alloc_is_used(&heap, base + CHUNK_SIZE));
	assert_false(page_alloc_is_used(&heap, base - 1));
	assert_false(page_alloc_is_used(&heap, 0));
	assert_false(page_alloc_is_used(&heap, ADDR_LIMIT));
	assert_false(page_alloc_is_used(&heap, UINTPTR_MAX));
	assert_false(page_alloc_alloc_at(&heap, 9 * GIB16, 1, &zeroed));
	assert_int_equal(page_alloc_alloc(&heap, (size_t)1 << 35, &zeroed), 0);
	assert_int_equal(page_alloc_alloc_aligned(&heap, 512, (size_t)1 << 35, &zeroed), 0);
	assert_int_equal(page_alloc_alloc_at(&heap, ADDR_LIMIT - PAGE_SIZE, 1, &zeroed), 0);
	check_all();
}

/* An aligned place in the first fit is taken without room to spare. */
static void
test_aligned_exact(void **state)
{
	(void)state;
	world_start(4096, 13);
	op_grow(40 * GIB16, 4);
	assert_true(op_aligned(4 * CHUNK_PAGES, 4 * CHUNK_PAGES));
	assert_int_equal(live[0].addr, 40 * GIB16);
	assert_int_equal(heap.free_pages, 0);
	op_free(0);
	check_all();
}

/* -- errors -------------------------------------------------------------- */

static void
expect_die(void (*fn)(void), const char *tag)
{
	if (setjmp(fake_die_jmp) == 0) {
		fake_die_armed = true;
		fn();
		fake_die_armed = false;
		fail_msg("%s did not fire", tag);
	}
	fake_die_armed = false;
	assert_int_equal(fake_die_info.code, DIE_CORRUPTION);
	assert_string_equal(fake_die_info.site, tag);
}

#define BASE (50 * GIB16)

static void
errors_start(size_t os_page_bytes)
{
	world_start(os_page_bytes, 14);
	op_grow(BASE, 2);
	assert_true(op_alloc(64));
}

static void free_again(void) { page_alloc_free(&heap, BASE, 64); }
static void free_longer(void) { page_alloc_free(&heap, BASE, 65); }
static void free_across(void) { page_alloc_free(&heap, BASE, CHUNK_PAGES + 1); }
static void free_above(void) { page_alloc_free(&heap, BASE + 2 * CHUNK_SIZE, 1); }
static void free_far(void) { page_alloc_free(&heap, 9 * GIB16, 1); }
static void free_unaligned(void) { page_alloc_free(&heap, BASE + 8, 1); }
static void free_nothing(void) { page_alloc_free(&heap, BASE, 0); }
static void free_outside(void) { page_alloc_free(&heap, ADDR_LIMIT, 1); }
static void free_wraps(void) { page_alloc_free(&heap, BASE, SIZE_MAX); }
static void end_again(void) { page_alloc_scavenge_end(&heap, BASE, 64); }
static void grow_again(void) { page_alloc_grow(&heap, BASE, CHUNK_SIZE); }
static void grow_odd(void) { page_alloc_grow(&heap, BASE + PAGE_SIZE, CHUNK_SIZE); }
static void grow_zero(void) { page_alloc_grow(&heap, 0, CHUNK_SIZE); }

static void
alloc_part(void)
{
	size_t zeroed;
	page_alloc_alloc(&heap, 7, &zeroed);
}

static void
align_odd(void)
{
	size_t zeroed;
	page_alloc_alloc_aligned(&heap, 8, 3, &zeroed);
}

static void
test_call_errors(void **state)
{
	(void)state;
	errors_start(4096);
	expect_die(free_longer, "PAGE-10");
	expect_die(free_across, "PAGE-10");
	expect_die(free_above, "PAGE-10");
	expect_die(free_far, "PAGE-10");
	expect_die(free_unaligned, "PAGE-11");
	expect_die(free_nothing, "PAGE-11");
	expect_die(free_outside, "PAGE-11");
	expect_die(free_wraps, "PAGE-11");
	expect_die(align_odd, "PAGE-11");
	expect_die(grow_again, "PAGE-6");
	expect_die(grow_odd, "PAGE-11");
	expect_die(grow_zero, "PAGE-11");
	check_all();                     /* none of them changed anything */
	op_free(0);
	expect_die(end_again, "PAGE-10");
	while (nlive > 0)
		op_free(0);
	expect_die(free_again, "PAGE-10");
	check_all();
	errors_start(65536);
	expect_die(alloc_part, "PAGE-11");
	check_all();
}

static struct page_region *
region(void)
{
	return heap.regions[BASE >> 34];
}

static void
expect_tag_of(bool all, const char *tag, uintptr_t where)
{
	uintptr_t got_where = 0;
	const char *got = page_alloc_verify(&heap, all, &got_where);
	assert_non_null(got);
	assert_string_equal(got, tag);
	assert_int_equal(got_where, where);
}

static void
expect_tag(const char *tag, uintptr_t where)
{
	expect_tag_of(true, tag, where);
	expect_tag_of(false, tag, where);
}

/* Far from all that was grown. */
static void
expect_tag_far(const char *tag, uintptr_t where)
{
	uintptr_t any;
	expect_tag_of(true, tag, where);
	assert_null(page_alloc_verify(&heap, false, &any));
}

static void
test_planted_summaries(void **state)
{
	(void)state;
	errors_start(4096);
	page_sum *leaf = &region()->sums[8 + 64 + 512], *parent = region()->sums;
	leaf[1]++;
	expect_tag("PAGE-1", BASE + CHUNK_SIZE);
	leaf[1]--;
	leaf[77] = 1;                                   /* never grown */
	expect_tag_far("PAGE-1", BASE + 77 * CHUNK_SIZE);
	leaf[77] = 0;
	parent[3] = page_sum_pack(0, 5, 0);
	expect_tag("PAGE-2", BASE + 3 * (GIB16 / 8));
	parent[3] = 0;
	parent[8 + 64 + 201] = page_sum_pack(0, 5, 0);  /* below one that says nothing */
	expect_tag("PAGE-2", BASE + 25 * (GIB16 / 64));
	parent[8 + 64 + 201] = 0;
	for (size_t i = 0, n = 8, at = 0; i < 3; i++, at += n, n *= 8) {
		parent[at] ^= (uint64_t)1 << 30;
		expect_tag("PAGE-2", BASE);
		parent[at] ^= (uint64_t)1 << 30;
	}
	heap.root[BASE >> 34] = 0;
	expect_tag("PAGE-2", BASE);
	heap.root[BASE >> 34] = page_sum_merge(parent, 18);
	heap.root[7] = 1;                               /* no region */
	expect_tag("PAGE-2", 7 * GIB16);
	heap.root[7] = 0;
	heap.root[700] = 1;
	expect_tag_far("PAGE-2", 700 * GIB16);
	heap.root[700] = 0;
	check_all();
}

static void
test_planted_bits(void **state)
{
	(void)state;
	errors_start(4096);
	struct page_chunk *c = region()->chunks;
	page_bits_set(&c->scav, 5, 1);
	expect_tag("PAGE-3", BASE + 5 * PAGE_SIZE);
	page_bits_clear(&c->scav, 5, 1);
	page_bits_clear(&c->alloc, 0, 1);
	expect_tag("PAGE-1", BASE);
	page_bits_set(&c->alloc, 0, 1);
	page_bits_set(&c[9].scav, 500, 1);
	expect_tag("PAGE-8", BASE + 9 * CHUNK_SIZE);
	page_bits_clear(&c[9].scav, 500, 1);
	page_bits_set(&c[9].alloc, 5, 1);
	expect_tag("PAGE-8", BASE + 9 * CHUNK_SIZE);
	page_bits_clear(&c[9].alloc, 5, 1);
	page_bits_set(&c[64].alloc, 5, 1);
	expect_tag_far("PAGE-8", BASE + 64 * CHUNK_SIZE);
	page_bits_clear(&c[64].alloc, 5, 1);
	heap.region_map[0] |= 4;
	expect_tag("PAGE-8", 2 * GIB16);
	heap.region_map[0] &= ~(uint64_t)4;
	heap.region_map[0] ^= (uint64_t)1 << 50;
	expect_tag_of(true, "PAGE-8", BASE);
	expect_tag_of(false, "PAGE-4", 0);      /* what is there is missed in the sums */
	heap.region_map[0] ^= (uint64_t)1 << 50;
	check_all();
}

static void
test_planted_counters(void **state)
{
	(void)state;
	errors_start(4096);
	heap.free_pages++;
	expect_tag("PAGE-4", 0);
	heap.free_pages--;
	heap.scavenged_pages--;
	expect_tag("PAGE-5", 0);
	heap.scavenged_pages++;
	page_bits_clear(&region()->chunks[0].scav, 511, 1);   /* a bit, not the count */
	expect_tag("PAGE-9", BASE);
	region()->scav_maybe[0] |= 1;
	heap.scav_region = BASE >> 34;
	expect_tag("PAGE-5", 0);
	region()->scav_maybe[0] &= ~(uint64_t)1;
	heap.scav_region = 0;
	page_bits_set(&region()->chunks[0].scav, 511, 1);
	heap.grown_pages += CHUNK_PAGES;
	expect_tag("PAGE-6", 0);
	heap.grown_pages -= CHUNK_PAGES;
	check_all();
}

static void
test_planted_hints(void **state)
{
	(void)state;
	errors_start(4096);
	uintptr_t hint = heap.search_addr;
	heap.search_addr = BASE + 65 * PAGE_SIZE;
	expect_tag("PAGE-7", heap.search_addr);
	heap.search_addr = PAGE_SEARCH_NONE;
	expect_tag("PAGE-7", heap.search_addr);
	heap.search_addr = BASE - PAGE_SIZE;
	expect_tag("PAGE-7", heap.search_addr);
	heap.search_addr = 0;
	expect_tag("PAGE-7", heap.search_addr);
	heap.search_addr = hint;

	while (nlive > 0)
		op_free(0);
	check_all();
	region()->scav_maybe[0] ^= 1;
	expect_tag("PAGE-9", BASE);
	region()->scav_maybe[0] ^= 1;
	heap.scav_region--;
	expect_tag("PAGE-9", BASE);
	heap.scav_region++;
	check_all();
}

static void
alloc_one(void)
{
	size_t zeroed;
	page_alloc_alloc(&heap, 1, &zeroed);
}

static void
alloc_more(void)
{
	size_t zeroed;
	page_alloc_alloc(&heap, CHUNK_PAGES, &zeroed);
}

/* What a search meets when summaries promise what the bits do not hold. */
static void
test_planted_promise(void **state)
{
	(void)state;
	errors_start(4096);
	page_bits_set(&region()->chunks[0].alloc, 0, CHUNK_PAGES);
	expect_die(alloc_one, "PAGE-12");
	page_bits_clear(&region()->chunks[0].alloc, 64, CHUNK_PAGES - 64);
	check_all();
	page_sum *leaf = &region()->sums[8 + 64 + 512];
	page_sum keep = leaf[1];
	leaf[1] = 0;
	expect_die(alloc_more, "PAGE-12");
	leaf[1] = keep;
	check_all();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_straddles_root_border),
		cmocka_unit_test(test_gap_breaks_run),
		cmocka_unit_test(test_search_addr_is_grown),
		cmocka_unit_test(test_no_metadata_memory),
		cmocka_unit_test(test_refused_run_leaves_idle_pages),
		cmocka_unit_test(test_is_free),
		cmocka_unit_test(test_aligned_exact),
		cmocka_unit_test(test_call_errors),
		cmocka_unit_test(test_planted_summaries),
		cmocka_unit_test(test_planted_bits),
		cmocka_unit_test(test_planted_counters),
		cmocka_unit_test(test_planted_hints),
		cmocka_unit_test(test_planted_promise),
		cmocka_unit_test(test_huge),
		cmocka_unit_test(test_random_small),
		cmocka_unit_test(test_random_mixed),
		cmocka_unit_test(test_random_os_pages),
		cmocka_unit_test(test_random_was_thorough),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
