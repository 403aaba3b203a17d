/* mpagealloc.c - the page allocator; the picture and the invariants are in the
 * header. The algorithm is that of the Go runtime's mpagealloc.go (Go proposal
 * 35112), with regions allocated on demand in place of one huge reservation.
 *
 * find: look at the summaries of one level from left to right. A run that
 * straddles entries is seen by adding ends to starts, and is complete at this
 * level; an entry whose max is large enough is descended into; whichever comes
 * first in address order wins, which makes the fit exact. search_addr prunes
 * what is known to be full; each search that meets the first free memory moves
 * it up, rounded up to grown memory, since the first free entry of a high level
 * may begin with addresses that were never grown.
 *
 * commit, then claim: sys_used() may be refused, so it is called before any
 * alloc bit is set; what it made Ready before a refusal merely is no longer
 * scavenged.
 *
 * update: after any change of alloc bits, leaf summaries are recomputed and the
 * change moves up until a level does not change any more. */
#include "mpagealloc.h"

#include <string.h>

#include "die.h"
#include "persistentalloc.h"
#include "sys.h"

enum {
	REGION_WORDS = PAGE_REGIONS / 64,
	CHUNK_WORDS = PAGE_REGION_CHUNKS / 64,
	CHUNK_LOG_PAGES = CHUNK_SHIFT - PAGE_SHIFT,
	CHUNKS_LOG_REGION = PAGE_REGION_SHIFT - CHUNK_SHIFT,
	LEAF = PAGE_LEVELS - 1,
};

#define ALL_ONES (~(uint64_t)0)

/* Where a level starts in page_region.sums. */
static const uint16_t level_offset[PAGE_LEVELS] = { 0, 0, 8, 8 + 64, 8 + 64 + 512 };

/* log2 of the pages under one entry of a level. */
static unsigned
level_log_pages(unsigned level)
{
	return CHUNK_LOG_PAGES + PAGE_LEVEL_BITS * (LEAF - level);
}

/* The entry `idx` of a level; below level 0 its region must exist. */
static page_sum *
sum_slot(struct page_alloc *p, unsigned level, size_t idx)
{
	if (level == 0)
		return &p->root[idx];
	unsigned bits = PAGE_LEVEL_BITS * level;
	size_t in_region = idx & (((size_t)1 << bits) - 1);
	return &p->regions[idx >> bits]->sums[level_offset[level] + in_region];
}

static size_t
chunk_index(uintptr_t addr)
{
	return addr >> CHUNK_SHIFT;
}

static unsigned
chunk_page(uintptr_t addr)
{
	return (unsigned)(addr >> PAGE_SHIFT) & (unsigned)(CHUNK_PAGES - 1);
}

static uintptr_t
chunk_addr(size_t chunk, unsigned page)
{
	return ((uintptr_t)chunk << CHUNK_SHIFT) + ((uintptr_t)page << PAGE_SHIFT);
}

static struct page_region *
region_of(const struct page_alloc *p, size_t chunk)
{
	return p->regions[chunk >> CHUNKS_LOG_REGION];
}

static struct page_chunk *
chunk_of(const struct page_alloc *p, size_t chunk)
{
	return &region_of(p, chunk)->chunks[chunk % PAGE_REGION_CHUNKS];
}

static bool
map_get(const uint64_t *map, size_t i)
{
	return (map[i / 64] >> (i % 64) & 1) != 0;
}

static void
map_set(uint64_t *map, size_t i)
{
	map[i / 64] |= (uint64_t)1 << (i % 64);
}

static void
map_clear(uint64_t *map, size_t i)
{
	map[i / 64] &= ~((uint64_t)1 << (i % 64));
}

/* First set bit at or after i, or words * 64. */
static size_t
map_next(const uint64_t *map, size_t words, size_t i)
{
	if (i >= words * 64)
		return words * 64;
	size_t w = i / 64;
	uint64_t x = map[w] & ALL_ONES << i % 64;
	while (x == 0 && ++w < words)
		x = map[w];
	return x == 0 ? words * 64 : w * 64 + ctz64(x);
}

/* Last set bit at or before i, or SIZE_MAX. */
static size_t
map_prev(const uint64_t *map, size_t i)
{
	size_t w = i / 64;
	uint64_t x = map[w] & ALL_ONES >> (63 - i % 64);
	while (x == 0 && w > 0)
		x = map[--w];
	return x == 0 ? SIZE_MAX : w * 64 + 63 - (size_t)__builtin_clzll(x);
}

static bool
chunk_grown(const struct page_alloc *p, size_t chunk)
{
	const struct page_region *r = region_of(p, chunk);
	return r != NULL && map_get(r->grown, chunk % PAGE_REGION_CHUNKS);
}

/* A range of pages, cut at chunk borders. */
struct walk {
	uintptr_t addr;
	size_t left_pages;
	size_t chunk;           /* of the piece at hand */
	unsigned first, count;  /* its pages in that chunk */
};

static bool
walk_next(struct walk *w)
{
	if (w->left_pages == 0)
		return false;
	w->chunk = chunk_index(w->addr);
	w->first = chunk_page(w->addr);
	unsigned room = (unsigned)CHUNK_PAGES - w->first;
	w->count = w->left_pages < room ? (unsigned)w->left_pages : room;
	w->addr += (uintptr_t)w->count << PAGE_SHIFT;
	w->left_pages -= w->count;
	return true;
}

/* PAGE-11, and the range lies in the address space. */
static void
check_range(const struct page_alloc *p, uintptr_t addr, size_t npages)
{
	uintptr_t unit_bytes = (uintptr_t)p->os_pages << PAGE_SHIFT;
	if (addr % unit_bytes != 0 || npages % p->os_pages != 0 || npages == 0 ||
	    addr >= ADDR_LIMIT || npages > (ADDR_LIMIT - addr) >> PAGE_SHIFT)
		die_corruption("PAGE-11", (void *)addr);
}

/* -- summaries ----------------------------------------------------------- */

/* Recomputes every summary above the pages [addr, addr + npages). */
static void
update(struct page_alloc *p, uintptr_t addr, size_t npages)
{
	size_t lo = chunk_index(addr);
	size_t hi = chunk_index(addr + ((npages - 1) << PAGE_SHIFT));
	bool changed = false;

	for (size_t i = lo; i <= hi; i++) {
		page_sum s = page_bits_summarize(&chunk_of(p, i)->alloc);
		page_sum *slot = sum_slot(p, LEAF, i);
		changed |= s != *slot;
		*slot = s;
	}
	for (unsigned level = LEAF; changed && level-- > 0; ) {
		lo >>= PAGE_LEVEL_BITS;
		hi >>= PAGE_LEVEL_BITS;
		changed = false;
		for (size_t i = lo; i <= hi; i++) {
			page_sum s = page_sum_merge(
			    sum_slot(p, level + 1, i << PAGE_LEVEL_BITS),
			    level_log_pages(level + 1));
			page_sum *slot = sum_slot(p, level, i);
			changed |= s != *slot;
			*slot = s;
		}
	}
}

static void
lower_search(struct page_alloc *p, uintptr_t addr)
{
	if (addr < p->search_addr)
		p->search_addr = addr;
}

static void
raise_search(struct page_alloc *p, uintptr_t addr)
{
	if (addr > p->search_addr)
		p->search_addr = addr;
}

/* First grown address at or after addr, which begins a block of a region that
 * holds free memory: so there is one in it. */
static uintptr_t
grown_at_or_after(const struct page_alloc *p, uintptr_t addr)
{
	size_t chunk = chunk_index(addr);
	if (chunk_grown(p, chunk))
		return addr;

	size_t r = chunk >> CHUNKS_LOG_REGION;
	size_t c = map_next(p->regions[r]->grown, CHUNK_WORDS, chunk % PAGE_REGION_CHUNKS);
	if (c == PAGE_REGION_CHUNKS)
		die_corruption("PAGE-12", (void *)addr);
	return chunk_addr(r * PAGE_REGION_CHUNKS + c, 0);
}

/* -- find ---------------------------------------------------------------- */

struct find {
	size_t npages;
	size_t idx;             /* entry descended into, of the level above */
	uintptr_t addr;         /* the run, once found */
	uintptr_t first_free;   /* no free page lies below */
	bool on_first;          /* idx is the first entry with free pages */
};

enum step { STEP_NONE, STEP_FOUND, STEP_DOWN };

/* First entry to look at under f->idx: not left of search_addr. */
static size_t
level_begin(const struct page_alloc *p, const struct find *f, unsigned level)
{
	size_t begin = level == 0 ? 0 : f->idx << PAGE_LEVEL_BITS;
	size_t hint = p->search_addr >> (PAGE_SHIFT + level_log_pages(level));
	return hint > begin ? hint : begin;
}

static enum step
find_in_level(struct page_alloc *p, struct find *f, unsigned level)
{
	unsigned log_pages = level_log_pages(level);
	size_t full = (size_t)1 << log_pages;
	size_t end = level == 0 ? PAGE_REGIONS : (f->idx + 1) << PAGE_LEVEL_BITS;
	size_t run = 0;                  /* free pages that end before entry i */
	size_t first = SIZE_MAX;         /* first entry with free pages */

	for (size_t i = level_begin(p, f, level); i < end; i++) {
		if (level == 0 && p->regions[i] == NULL) {
			run = 0;
			i = map_next(p->region_map, REGION_WORDS, i);
			if (i >= end)
				break;
		}
		page_sum s = *sum_slot(p, level, i);
		if (s == 0) {
			run = 0;
			continue;
		}
		uintptr_t base = (uintptr_t)i << (log_pages + PAGE_SHIFT);
		if (first == SIZE_MAX) {
			first = i;
			if (f->on_first)
				f->first_free = base;
		}
		if (run + page_sum_start(s) >= f->npages) {
			f->addr = base - (run << PAGE_SHIFT);
			return STEP_FOUND;
		}
		if (page_sum_max(s) >= f->npages) {
			f->on_first &= first == i;
			f->idx = i;
			return STEP_DOWN;
		}
		run = page_sum_start(s) == full ? run + full : page_sum_end(s);
	}
	return STEP_NONE;
}

static void
find_in_chunk(const struct page_alloc *p, struct find *f, size_t chunk, unsigned from)
{
	unsigned first;
	unsigned at = page_bits_find(&chunk_of(p, chunk)->alloc, (unsigned)f->npages,
	    from, &first);
	if (at == PAGE_BITS_NONE)
		die_corruption("PAGE-12", (void *)chunk_addr(chunk, from));
	f->addr = chunk_addr(chunk, at);
	if (f->on_first)
		f->first_free = chunk_addr(chunk, first);
}

/* The lowest run of npages, or 0. Moves search_addr up to the first free memory
 * that it met. */
static uintptr_t
find(struct page_alloc *p, size_t npages)
{
	struct find f = { .npages = npages, .on_first = true };

	if (npages > p->free_pages) {
		if (p->free_pages == 0)
			p->search_addr = PAGE_SEARCH_NONE;
		return 0;
	}
	/* Mostly the chunk of search_addr will do: nothing is free before it. */
	size_t chunk = chunk_index(p->search_addr);
	if (page_sum_max(*sum_slot(p, LEAF, chunk)) >= npages) {
		find_in_chunk(p, &f, chunk, chunk_page(p->search_addr));
		raise_search(p, f.first_free);
		return f.addr;
	}
	for (unsigned level = 0; level < PAGE_LEVELS; level++) {
		enum step step = find_in_level(p, &f, level);
		if (step == STEP_NONE && level == 0)
			return 0;
		if (step == STEP_NONE)
			die_corruption("PAGE-12", (void *)(f.idx <<
			    (level_log_pages(level - 1) + PAGE_SHIFT)));
		if (step == STEP_FOUND)
			break;
		if (level == LEAF)
			find_in_chunk(p, &f, f.idx, 0);
	}
	if (f.first_free > p->search_addr)
		raise_search(p, grown_at_or_after(p, f.first_free));
	return f.addr;
}

/* -- alloc --------------------------------------------------------------- */

static void
scav_mark(struct page_alloc *p, size_t chunk)
{
	size_t r = chunk >> CHUNKS_LOG_REGION;
	map_set(p->regions[r]->scav_maybe, chunk % PAGE_REGION_CHUNKS);
	if (r > p->scav_region)
		p->scav_region = r;
}

/* Makes one scavenged run Ready. */
static bool
commit_run(struct page_alloc *p, uintptr_t addr, size_t npages, size_t *zeroed_pages)
{
	if (npages == 0)
		return true;
	if (!sys_used((void *)addr, npages << PAGE_SHIFT))
		return false;
	struct walk w = { .addr = addr, .left_pages = npages };
	while (walk_next(&w))
		page_bits_clear(&chunk_of(p, w.chunk)->scav, w.first, w.count);
	p->scavenged_pages -= npages;
	*zeroed_pages += npages;
	return true;
}

/* Makes all scavenged runs of the free range Ready, each with one call even
 * where it crosses chunks. */
static bool
commit(struct page_alloc *p, uintptr_t addr, size_t npages, size_t *zeroed_pages)
{
	struct walk w = { .addr = addr, .left_pages = npages };
	uintptr_t run_addr = 0;
	size_t run = 0;

	while (walk_next(&w)) {
		const struct page_bits *scav = &chunk_of(p, w.chunk)->scav;
		unsigned at = w.first, end = w.first + w.count, start, n;
		while ((n = page_bits_next_run(scav, at, end, &start)) != 0) {
			uintptr_t a = chunk_addr(w.chunk, start);
			if (a != run_addr + (run << PAGE_SHIFT)) {
				if (!commit_run(p, run_addr, run, zeroed_pages))
					return false;
				run_addr = a;
				run = 0;
			}
			run += n;
			at = start + n;
		}
	}
	return commit_run(p, run_addr, run, zeroed_pages);
}

/* Sets the alloc bits of a free range. */
static void
claim(struct page_alloc *p, uintptr_t addr, size_t npages)
{
	struct walk w = { .addr = addr, .left_pages = npages };
	while (walk_next(&w))
		page_bits_set(&chunk_of(p, w.chunk)->alloc, w.first, w.count);
	p->free_pages -= npages;
	update(p, addr, npages);
}

static bool
commit_and_claim(struct page_alloc *p, uintptr_t addr, size_t npages, size_t *zeroed_pages)
{
	if (commit(p, addr, npages, zeroed_pages)) {
		claim(p, addr, npages);
		return true;
	}
	/* the runs before the refused one are Ready now, and idle */
	struct walk w = { .addr = addr, .left_pages = npages };
	while (walk_next(&w))
		scav_mark(p, w.chunk);
	return false;
}

uintptr_t
page_alloc_alloc(struct page_alloc *p, size_t npages, size_t *zeroed_pages)
{
	check_range(p, 0, npages);
	*zeroed_pages = 0;
	uintptr_t addr = find(p, npages);
	if (addr == 0 || !commit_and_claim(p, addr, npages, zeroed_pages))
		return 0;
	return addr;
}

/* All of the range is grown and free. */
static bool
range_free(const struct page_alloc *p, uintptr_t addr, size_t npages)
{
	if (addr >= ADDR_LIMIT || npages > (ADDR_LIMIT - addr) >> PAGE_SHIFT)
		return false;
	struct walk w = { .addr = addr, .left_pages = npages };
	while (walk_next(&w)) {
		if (!chunk_grown(p, w.chunk) ||
		    page_bits_count(&chunk_of(p, w.chunk)->alloc, w.first, w.count) != 0)
			return false;
	}
	return true;
}

uintptr_t
page_alloc_alloc_aligned(struct page_alloc *p, size_t npages, size_t align_pages,
    size_t *zeroed_pages)
{
	check_range(p, 0, npages);
	*zeroed_pages = 0;
	if (!is_pow2(align_pages) || align_pages > ADDR_LIMIT >> PAGE_SHIFT)
		die_corruption("PAGE-11", (void *)(align_pages << PAGE_SHIFT));
	size_t align = align_pages > p->os_pages ? align_pages : p->os_pages;

	uintptr_t addr = align_up(find(p, npages), align << PAGE_SHIFT);
	if (addr == 0)
		return 0;
	if (!range_free(p, addr, npages))
		addr = align_up(find(p, npages + align - 1), align << PAGE_SHIFT);
	if (addr == 0 || !commit_and_claim(p, addr, npages, zeroed_pages))
		return 0;
	return addr;
}

bool
page_alloc_alloc_at(struct page_alloc *p, uintptr_t addr, size_t npages,
    size_t *zeroed_pages)
{
	check_range(p, addr, npages);
	*zeroed_pages = 0;
	return range_free(p, addr, npages) &&
	    commit_and_claim(p, addr, npages, zeroed_pages);
}

uint64_t
page_alloc_take64(struct page_alloc *p, uintptr_t *base, uint64_t *scav)
{
	uintptr_t addr = find(p, 1);
	if (addr == 0)
		return 0;
	*base = align_down(addr, 64 * PAGE_SIZE);
	struct page_chunk *c = chunk_of(p, chunk_index(addr));
	unsigned w = chunk_page(addr) / 64;
	uint64_t pages = ~c->alloc.w[w];

	*scav = c->scav.w[w] & pages;
	c->alloc.w[w] = ALL_ONES;
	c->scav.w[w] &= ~pages;
	p->free_pages -= popcount64(pages);
	p->scavenged_pages -= popcount64(*scav);
	update(p, *base, 64);
	/* The block had the first free page. Its last page, not the one after it:
	 * that may not be grown. */
	p->search_addr = *base + 63 * PAGE_SIZE;
	return pages;
}

/* -- free ---------------------------------------------------------------- */

/* Dies unless all of the range is handed out. */
static void
check_allocated(const struct page_alloc *p, uintptr_t addr, size_t npages)
{
	check_range(p, addr, npages);
	struct walk w = { .addr = addr, .left_pages = npages };
	while (walk_next(&w)) {
		if (!chunk_grown(p, w.chunk) || page_bits_count(
		    &chunk_of(p, w.chunk)->alloc, w.first, w.count) != w.count)
			die_corruption("PAGE-10", (void *)addr);
	}
}

void
page_alloc_free(struct page_alloc *p, uintptr_t addr, size_t npages)
{
	check_allocated(p, addr, npages);
	struct walk w = { .addr = addr, .left_pages = npages };
	while (walk_next(&w)) {
		page_bits_clear(&chunk_of(p, w.chunk)->alloc, w.first, w.count);
		scav_mark(p, w.chunk);
	}
	p->free_pages += npages;
	lower_search(p, addr);
	update(p, addr, npages);
}

void
page_alloc_give64(struct page_alloc *p, uintptr_t base, uint64_t pages, uint64_t scav)
{
	if (base % (64 * PAGE_SIZE) != 0 || base >= ADDR_LIMIT ||
	    !chunk_grown(p, chunk_index(base)))
		die_corruption("PAGE-13", (void *)base);
	struct page_chunk *c = chunk_of(p, chunk_index(base));
	unsigned w = chunk_page(base) / 64;
	if ((pages & ~c->alloc.w[w]) != 0 || (scav & ~pages) != 0)
		die_corruption("PAGE-13", (void *)base);
	if (pages == 0)
		return;

	c->alloc.w[w] &= ~pages;
	c->scav.w[w] |= scav;
	p->free_pages += popcount64(pages);
	p->scavenged_pages += popcount64(scav);
	if (pages != scav)
		scav_mark(p, chunk_index(base));
	lower_search(p, base + ((uintptr_t)ctz64(pages) << PAGE_SHIFT));
	update(p, base, 64);
}

/* -- scavenging ---------------------------------------------------------- */

/* The highest chunk in scav_maybe, or SIZE_MAX. */
static size_t
scav_last(struct page_alloc *p)
{
	size_t r = p->scav_region;
	while ((r = map_prev(p->region_map, r)) != SIZE_MAX) {
		p->scav_region = r;
		size_t c = map_prev(p->regions[r]->scav_maybe, PAGE_REGION_CHUNKS - 1);
		if (c != SIZE_MAX)
			return r * PAGE_REGION_CHUNKS + c;
		if (r-- == 0)
			break;
	}
	p->scav_region = 0;
	return SIZE_MAX;
}

size_t
page_alloc_scavenge_begin(struct page_alloc *p, size_t max_pages, uintptr_t *addr)
{
	size_t max = max_pages & ~(p->os_pages - 1);
	size_t chunk;

	if (max == 0 || page_alloc_idle_pages(p) == 0)
		return 0;
	while ((chunk = scav_last(p)) != SIZE_MAX) {
		struct page_chunk *c = chunk_of(p, chunk);
		unsigned start;
		size_t n = page_bits_last_clear_run(&c->alloc, &c->scav, &start);
		if (n == 0) {
			/* Allocated again since it was marked: the mark is paid off. */
			map_clear(region_of(p, chunk)->scav_maybe, chunk % PAGE_REGION_CHUNKS);
			continue;
		}
		if (n > max) {
			start += (unsigned)(n - max);
			n = max;
		}
		*addr = chunk_addr(chunk, start);
		claim(p, *addr, n);
		p->released_pages += n;
		p->scavenging_pages += n;
		return n;
	}
	return 0;
}

void
page_alloc_scavenge_end(struct page_alloc *p, uintptr_t addr, size_t npages)
{
	check_allocated(p, addr, npages);
	struct walk w = { .addr = addr, .left_pages = npages };
	while (walk_next(&w)) {
		struct page_chunk *c = chunk_of(p, w.chunk);
		page_bits_clear(&c->alloc, w.first, w.count);
		page_bits_set(&c->scav, w.first, w.count);
	}
	p->free_pages += npages;
	p->scavenged_pages += npages;
	p->scavenging_pages -= npages;
	lower_search(p, addr);
	update(p, addr, npages);
}

/* -- growing ------------------------------------------------------------- */

void
page_alloc_init(struct page_alloc *p, struct persistent *meta)
{
	size_t os_bytes = sys_page_bytes();

	/* Only what was used: the struct is 256 KiB of mostly untouched pages. */
	size_t r = 0;
	while ((r = map_next(p->region_map, REGION_WORDS, r)) < PAGE_REGIONS) {
		p->root[r] = 0;
		p->regions[r] = NULL;
		map_clear(p->region_map, r);
	}
	p->search_addr = PAGE_SEARCH_NONE;
	p->free_pages = 0;
	p->scavenged_pages = 0;
	p->scavenging_pages = 0;
	p->grown_pages = 0;
	p->released_pages = 0;
	p->scav_region = 0;
	p->os_pages = os_bytes > PAGE_SIZE ? os_bytes >> PAGE_SHIFT : 1;
	p->meta = meta;
}

static bool
need_region(struct page_alloc *p, size_t r)
{
	if (p->regions[r] != NULL)
		return true;
	p->regions[r] = persistent_alloc(p->meta, sizeof(struct page_region), CACHE_LINE);
	if (p->regions[r] == NULL)
		return false;
	map_set(p->region_map, r);
	return true;
}

bool
page_alloc_grow(struct page_alloc *p, uintptr_t base, size_t bytes)
{
	size_t npages = bytes >> PAGE_SHIFT;

	check_range(p, base, npages);
	if (base == 0 || base % CHUNK_SIZE != 0 || bytes % CHUNK_SIZE != 0)
		die_corruption("PAGE-11", (void *)base);
	size_t last = (base + bytes - 1) >> PAGE_REGION_SHIFT;
	for (size_t r = base >> PAGE_REGION_SHIFT; r <= last; r++) {
		if (!need_region(p, r))
			return false;
	}
	struct walk w = { .addr = base, .left_pages = npages };
	while (walk_next(&w)) {
		if (chunk_grown(p, w.chunk))
			die_corruption("PAGE-6", (void *)chunk_addr(w.chunk, 0));
		map_set(region_of(p, w.chunk)->grown, w.chunk % PAGE_REGION_CHUNKS);
		page_bits_set(&chunk_of(p, w.chunk)->scav, 0, CHUNK_PAGES);
	}
	p->free_pages += npages;
	p->scavenged_pages += npages;
	p->grown_pages += npages;
	lower_search(p, base);
	update(p, base, npages);
	return true;
}

static bool
is_grown(const struct page_alloc *p, uintptr_t addr)
{
	return addr < ADDR_LIMIT && chunk_grown(p, chunk_index(addr));
}

bool
page_alloc_is_free(const struct page_alloc *p, uintptr_t addr)
{
	return is_grown(p, addr) &&
	    !page_bits_get(&chunk_of(p, chunk_index(addr))->alloc, chunk_page(addr));
}

bool
page_alloc_is_used(const struct page_alloc *p, uintptr_t addr)
{
	return is_grown(p, addr) &&
	    page_bits_get(&chunk_of(p, chunk_index(addr))->alloc, chunk_page(addr));
}

/* -- verify: nothing below uses the code above, but for bit access ------- */

struct recount {
	bool all;                      /* what was never grown, too */
	size_t free_pages, scavenged_pages, grown_pages;
	uintptr_t first_free;
	uintptr_t where;
};

/* Three numbers of a block of pages, extended to the right piece by piece. */
struct slow_sum {
	size_t start, max, end, total;
};

static void
slow_append(struct slow_sum *s, size_t start, size_t max, size_t end, size_t total)
{
	if (s->start == s->total)
		s->start += start;
	if (s->end + start > s->max)
		s->max = s->end + start;
	if (max > s->max)
		s->max = max;
	s->end = start == total ? s->end + total : end;
	s->total += total;
}

static bool
slow_equal(const struct slow_sum *s, page_sum packed)
{
	return page_sum_start(packed) == s->start && page_sum_max(packed) == s->max &&
	    page_sum_end(packed) == s->end;
}

static const char *
verify_absent_chunk(const struct page_region *reg, size_t c)
{
	if (!lines_zero(&reg->chunks[c], sizeof(reg->chunks[c])))
		return "PAGE-8";
	if (reg->sums[level_offset[LEAF] + c] != 0)
		return "PAGE-1";
	return NULL;
}

/* Whether chunks [c, c + 64) were never grown and look like it. */
static bool
absent_chunks(const struct page_region *reg, size_t c, bool all)
{
	return reg->grown[c / 64] == 0 && (!all ||
	    (lines_zero(&reg->chunks[c], 64 * sizeof(reg->chunks[0])) &&
	    lines_zero(&reg->sums[level_offset[LEAF] + c], 64 * sizeof(reg->sums[0]))));
}

/* 64 pages in one state. */
static bool
word_is_even(const struct page_chunk *c, unsigned w)
{
	return c->alloc.w[w] + 1 <= 1 && c->scav.w[w] + 1 <= 1;
}

static const char *
verify_chunk(const struct page_alloc *p, size_t r, size_t c, struct recount *n)
{
	const struct page_region *reg = p->regions[r];
	const struct page_chunk *chunk = &reg->chunks[c];
	struct slow_sum sum = { 0, 0, 0, 0 };
	size_t idle = 0;

	n->where = ((uintptr_t)r << PAGE_REGION_SHIFT) + ((uintptr_t)c << CHUNK_SHIFT);
	if ((reg->grown[c / 64] >> (c % 64) & 1) == 0)
		return verify_absent_chunk(reg, c);
	n->grown_pages += CHUNK_PAGES;
	for (unsigned i = 0, step; i < CHUNK_PAGES; i += step) {
		bool used = page_bits_get(&chunk->alloc, i);
		bool scav = page_bits_get(&chunk->scav, i);
		if (used && scav) {
			n->where += (uintptr_t)i << PAGE_SHIFT;
			return "PAGE-3";
		}
		step = i % 64 == 0 && word_is_even(chunk, i / 64) ? 64 : 1;
		size_t free = used ? 0 : step;
		if (free != 0 && n->first_free == PAGE_SEARCH_NONE)
			n->first_free = n->where + ((uintptr_t)i << PAGE_SHIFT);
		n->free_pages += free;
		n->scavenged_pages += scav ? step : 0;
		idle += scav ? 0 : free;
		slow_append(&sum, free, free, free, step);
	}
	if (!slow_equal(&sum, reg->sums[level_offset[LEAF] + c]))
		return "PAGE-1";
	bool marked = (reg->scav_maybe[c / 64] >> (c % 64) & 1) != 0;
	if (idle != 0 && (!marked || r > p->scav_region))
		return "PAGE-9";
	return NULL;
}

/* Whether eight entries and their children say nothing. */
static bool
absent_sums(const struct page_region *reg, unsigned level, size_t i, bool all)
{
	if (!all && level == LEAF - 1 && reg->grown[i / 8] == 0)
		return true;
	const page_sum *own = &reg->sums[level_offset[level] + i];
	const page_sum *child = &reg->sums[level_offset[level + 1] + 8 * i];
	return lines_zero(own, 8 * sizeof(*own)) && lines_zero(child, 64 * sizeof(*child));
}

/* Levels 0 to 3 of a region, each entry from its eight children. */
static const char *
verify_parents(const struct page_alloc *p, size_t r, struct recount *n)
{
	const struct page_region *reg = p->regions[r];

	for (unsigned level = 0; level < LEAF; level++) {
		size_t child_pages = (size_t)1 << level_log_pages(level + 1);
		size_t entries = (size_t)1 << PAGE_LEVEL_BITS * level;
		for (size_t i = 0; i < entries; i++) {
			const page_sum *child = &reg->sums[level_offset[level + 1] + 8 * i];
			if (i % 8 == 0 && level != 0 && absent_sums(reg, level, i, n->all)) {
				i += 7;
				continue;
			}
			page_sum own = level == 0 ? p->root[r] : reg->sums[level_offset[level] + i];
			struct slow_sum sum = { 0, 0, 0, 0 };
			page_sum any = own;
			for (unsigned k = 0; k < 8; k++)
				any |= child[k];
			if (any == 0)           /* nothing there: most of a region */
				continue;
			for (unsigned k = 0; k < 8; k++)
				slow_append(&sum, page_sum_start(child[k]), page_sum_max(child[k]),
				    page_sum_end(child[k]), child_pages);
			n->where = ((uintptr_t)r << PAGE_REGION_SHIFT) +
			    (((uintptr_t)i * 8 * child_pages) << PAGE_SHIFT);
			if (!slow_equal(&sum, own))
				return "PAGE-2";
		}
	}
	return NULL;
}

static const char *
verify_region(const struct page_alloc *p, size_t r, struct recount *n)
{
	const struct page_region *reg = p->regions[r];

	n->where = (uintptr_t)r << PAGE_REGION_SHIFT;
	bool mapped = (p->region_map[r / 64] >> (r % 64) & 1) != 0;
	if (mapped != (reg != NULL))
		return "PAGE-8";
	if (!mapped)
		return p->root[r] != 0 ? "PAGE-2" : NULL;
	for (size_t c = 0; c < PAGE_REGION_CHUNKS; c++) {
		if (c % 64 == 0 && absent_chunks(reg, c, n->all)) {
			c += 63;
			continue;
		}
		const char *tag = verify_chunk(p, r, c, n);
		if (tag != NULL)
			return tag;
	}
	return verify_parents(p, r, n);
}

/* Whether regions [r, r + 64) do not exist and look like it. */
static bool
absent_regions(const struct page_alloc *p, size_t r, bool all)
{
	return p->region_map[r / 64] == 0 && (!all ||
	    (lines_zero(&p->regions[r], 64 * sizeof(p->regions[0])) &&
	    lines_zero(&p->root[r], 64 * sizeof(p->root[0]))));
}

static const char *
verify_totals(const struct page_alloc *p, struct recount *n)
{
	n->where = 0;
	if (p->free_pages != n->free_pages)
		return "PAGE-4";
	if (p->scavenged_pages != n->scavenged_pages)
		return "PAGE-5";
	if (p->grown_pages != n->grown_pages)
		return "PAGE-6";
	n->where = p->search_addr;
	if (n->first_free < p->search_addr)
		return "PAGE-7";
	if (p->search_addr != PAGE_SEARCH_NONE &&
	    (p->search_addr >= ADDR_LIMIT || !chunk_grown(p, chunk_index(p->search_addr))))
		return "PAGE-7";
	return NULL;
}

const char *
page_alloc_verify(struct page_alloc *p, bool all, uintptr_t *where)
{
	struct recount n = { .all = all, .first_free = PAGE_SEARCH_NONE };
	const char *tag = NULL;

	for (size_t r = 0; tag == NULL && r < PAGE_REGIONS; r++) {
		if (r % 64 == 0 && absent_regions(p, r, all))
			r += 63;
		else
			tag = verify_region(p, r, &n);
	}
	if (tag == NULL)
		tag = verify_totals(p, &n);
	*where = n.where;
	return tag;
}
