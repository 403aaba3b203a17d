/* h21_misuse.c - H21's page allocator and span: calls drawn at random, right and wrong
 * ones; what is wrong follows from a map of the pages and the arrows of mspan.h, and
 * must be stopped where it is made. Or a word is changed that a later call believes. */
#include "parts.h"

#include <string.h>

#include "mpagealloc.h"
#include "mpagecache.h"
#include "mspan.h"
#include "persistentalloc.h"
#include "rand.h"

enum { CHUNKS = 3, PAGES_MAX = CHUNKS * CHUNK_PAGES, TOP_REGION = PAGE_REGIONS - 1 };

static struct page_alloc pages;
static bool taken[PAGES_MAX];      /* handed out, of the chunks from base on */
static uintptr_t base;             /* 0: there are none */
static bool top_grown;

/* A call, for sg_must_stop. */
struct call {
	uintptr_t addr;
	size_t n, align;
	uint64_t bits, scav;
	struct page_cache *cache;
};

static size_t
unit(void)
{
	return sys_page_bytes() > PAGE_SIZE ? sys_page_bytes() / PAGE_SIZE : 1;
}

static bool
bad_range(uintptr_t addr, size_t n)
{
	return addr % (unit() * PAGE_SIZE) != 0 || n == 0 || n % unit() != 0 || addr >= ADDR_LIMIT ||
	    n > (ADDR_LIMIT - addr) / PAGE_SIZE;
}

static bool
all_taken(uintptr_t addr, size_t n)
{
	for (size_t i = 0; i < n; i++, addr += PAGE_SIZE)
		if (addr - base >= PAGES_MAX * PAGE_SIZE || !taken[(addr - base) / PAGE_SIZE])
			return false;
	return true;
}

static void
mark(uintptr_t addr, size_t n, bool as)
{
	memset(&taken[(addr - base) / PAGE_SIZE], as, n * sizeof(taken[0]));
}

static void
free_pages(void *arg)
{
	const struct call *c = arg;

	page_alloc_free(&pages, c->addr, c->n);
}

static void
alloc_pages(void *arg)
{
	const struct call *c = arg;
	size_t zeroed;

	page_alloc_alloc(&pages, c->n, &zeroed);
}

static void
alloc_aligned(void *arg)
{
	const struct call *c = arg;
	size_t zeroed;

	page_alloc_alloc_aligned(&pages, c->n, c->align, &zeroed);
}

static void
grow(void *arg)
{
	const struct call *c = arg;

	page_alloc_grow(&pages, c->addr, c->n);
}

static void
give64(void *arg)
{
	const struct call *c = arg;

	page_alloc_give64(&pages, c->addr, c->bits, c->scav);
}

static void
fill_cache(void *arg)
{
	const struct call *c = arg;

	page_alloc_to_cache(&pages, c->cache);
}

static void
alloc_cached(void *arg)
{
	const struct call *c = arg;
	size_t zeroed;

	page_cache_alloc(c->cache, c->n, &zeroed);
}

/* An address that is right, a little off, or nowhere. */
static uintptr_t
draw_addr(const struct sgf_op *op)
{
	switch (op->b & 7) {
	case 0:
		return base + op->imm % (PAGES_MAX * PAGE_SIZE);
	case 1:
		return ADDR_LIMIT + (uintptr_t)(op->imm & 1) * PAGE_SIZE;
	case 2:
		return ADDR_LIMIT - PAGE_SIZE * unit();
	case 3:
		return base + PAGES_MAX * PAGE_SIZE;
	default:
		return base + align_down(op->imm % PAGES_MAX, unit()) * PAGE_SIZE;
	}
}

static size_t
draw_pages(const struct sgf_op *op)
{
	static const size_t odd[4] = { 0, 3, ADDR_LIMIT / PAGE_SIZE, SIZE_MAX };

	return (op->b >> 3 & 7) == 0 ? odd[op->b >> 6] :
	    (size_t)align_up(1 + (op->imm >> 16) % (1u << (op->b >> 3 & 7) * 2), unit());
}

/* The first run of n that is not taken, or 0. */
static uintptr_t
first_fit(size_t n)
{
	for (size_t i = 0, run = 0; i < PAGES_MAX; i++) {
		run = taken[i] ? 0 : run + 1;
		if (run == n)
			return base + (i + 1 - n) * PAGE_SIZE;
	}
	return 0;
}

static void
do_alloc(const struct sgf_op *op)
{
	size_t n = draw_pages(op), zeroed = 0;
	struct call c = { .n = n };

	if (bad_range(0, n)) {
		sg_must_stop(alloc_pages, &c, "PAGE-11", 0);
		return;
	}
	uintptr_t want = first_fit(n), got;
	if (want == 0 && top_grown)
		return;
	got = page_alloc_alloc(&pages, n, &zeroed);
	SG_CHECK(MODEL, got == want || (got == 0 && sg_parts_refusing), "%zu pages at %#lx, not %#lx", n,
	    (unsigned long)got, (unsigned long)want);
	if (got != 0)
		mark(got, n, true);
}

static void
do_free(const struct sgf_op *op)
{
	struct call c = { .addr = draw_addr(op), .n = draw_pages(op) };

	if (bad_range(c.addr, c.n)) {
		sg_must_stop(free_pages, &c, "PAGE-11", c.addr);
	} else if (!all_taken(c.addr, c.n)) {
		sg_must_stop(free_pages, &c, "PAGE-10", c.addr);
	} else {
		free_pages(&c);
		mark(c.addr, c.n, false);
	}
}

/* Alignments that are none; one that leads out of the address space is no run. */
static void
do_aligned(const struct sgf_op *op)
{
	struct call c = { .n = unit(), .align = op->imm & 1 ? 3 : (ADDR_LIMIT >> PAGE_SHIFT) << 1 };

	if ((op->b & 1) == 0)
		sg_must_stop(alloc_aligned, &c, "PAGE-11", c.align << PAGE_SHIFT);
	if (!top_grown)
		return;
	size_t zeroed = 0, whole = (size_t)1 << (PAGE_REGION_SHIFT - PAGE_SHIFT);
	SG_CHECK(MODEL, page_alloc_alloc_aligned(&pages, whole, 2 * whole, &zeroed) == 0,
	    "an address that is none");
}

/* Twice, at an odd place, at none. With b & 1 the last 16 GiB that there are: nothing
 * is behind them, and none of them is asked for. */
static void
do_grow(const struct sgf_op *op)
{
	struct call c = { .addr = base, .n = CHUNK_SIZE };

	if ((op->b & 1) != 0 && !top_grown) {
		uintptr_t region = (uintptr_t)TOP_REGION << PAGE_REGION_SHIFT;
		top_grown = page_alloc_grow(&pages, region, ADDR_LIMIT - region);
		return;
	}
	if (op->imm % 4 == 0)
		sg_must_stop(grow, &c, "PAGE-6", base);
	c.addr = op->imm % 4 == 1 ? 0 : base + PAGE_SIZE * unit();
	if (op->imm % 4 == 3 && op->b & 2)
		c.addr = draw_addr(op) | 1;
	else if (op->imm % 4 == 3) {
		c.addr = base + PAGES_MAX * PAGE_SIZE;
		c.n += PAGE_SIZE * unit();
	}
	if (op->imm % 4 != 0)
		sg_must_stop(grow, &c, "PAGE-11", c.addr);
}

/* What a cache gives back that it never had. */
static void
do_give(const struct sgf_op *op)
{
	uintptr_t block = align_down(base + op->imm % (PAGES_MAX * PAGE_SIZE), 64 * PAGE_SIZE);
	struct call c = { .addr = block, .bits = op->imm, .scav = op->imm >> (op->b & 31) };
	bool ours = true;

	if (op->b & 16)
		c.bits = c.scav = 0;
	if (op->b & 64)
		c.addr = op->b & 32 ? ADDR_LIMIT : base + PAGES_MAX * PAGE_SIZE + CHUNK_SIZE;
	else if (op->b & 32)
		c.addr += PAGE_SIZE;
	for (unsigned i = 0; i < 64; i++)
		ours &= (c.bits >> i & 1) == 0 || all_taken(block + i * PAGE_SIZE, 1);
	if ((op->b & 96) == 0 && ours && (c.scav & ~c.bits) == 0) {
		c.scav = 0;             /* they are there */
		if (unit() > 1)
			return;
		give64(&c);
		for (unsigned i = 0; i < 64; i++)
			if (c.bits >> i & 1)
				mark(block + i * PAGE_SIZE, 1, false);
		return;
	}
	sg_must_stop(give64, &c, "PAGE-13", c.addr);
}

/* The cache is flushed again: no page of it is taken. */
static void
do_cache(const struct sgf_op *op)
{
	struct page_cache cache = { 0 };
	struct call c = { .n = 0, .cache = &cache };
	size_t zeroed = 0;

	page_alloc_to_cache(&pages, &cache);
	if (cache.pages != 0)
		sg_must_stop(fill_cache, &c, "PAGE-13", cache.base);
	sg_must_stop(alloc_cached, &c, "PAGE-11", cache.base);
	SG_CHECK(MODEL, page_cache_alloc(&cache, PAGE_CACHE_PAGES * 2, &zeroed) == 0, "128 of 64 pages");
	struct page_cache before = cache;
	if (cache.base - base < PAGES_MAX * PAGE_SIZE && cache.scav == cache.pages && op->b & 1) {
		fake_sys_fail(FAKE_SYS_USED, 1, false);
		SG_CHECK(KEPT, page_cache_alloc(&cache, unit(), &zeroed) == 0 &&
		    cache.pages == before.pages && cache.scav == before.scav, "a page was lost");
		fake_sys_fail(0, 0, false);
	}
	page_cache_flush(&cache, &pages);
}

/* The summaries promise a run that the bits do not have. */
static void
break_leaf(void)
{
	uintptr_t at = align_down(pages.search_addr, PAGE_SIZE);
	struct call c = { .n = unit() };

	if (at - base >= PAGES_MAX * PAGE_SIZE)
		return;
	struct page_chunk *chunk = &pages.regions[at >> PAGE_REGION_SHIFT]->chunks[
	    (at >> CHUNK_SHIFT) % PAGE_REGION_CHUNKS], was = *chunk;
	const page_sum *leaf = pages.regions[at >> PAGE_REGION_SHIFT]->sums + 8 + 64 + 512;
	if (page_sum_max(leaf[(at >> CHUNK_SHIFT) % PAGE_REGION_CHUNKS]) < c.n)
		return;
	memset(&chunk->alloc, 0xff, sizeof(chunk->alloc));
	sg_must_stop(alloc_pages, &c, "PAGE-12", at);
	*chunk = was;
}

/* The root promises what no entry below it does. */
static void
break_root(void)
{
	size_t r = base >> PAGE_REGION_SHIFT;
	uintptr_t search = pages.search_addr;
	page_sum was = pages.root[r], below[8];
	struct call c = { .n = CHUNK_PAGES + unit() };

	if (page_sum_max(was) < c.n || pages.free_pages < c.n || page_sum_start(was) >= c.n)
		return;
	memcpy(below, pages.regions[r]->sums, sizeof(below));
	memset(pages.regions[r]->sums, 0, sizeof(below));
	sg_must_stop(alloc_pages, &c, "PAGE-12", (uintptr_t)r << PAGE_REGION_SHIFT);
	memcpy(pages.regions[r]->sums, below, sizeof(below));
	pages.search_addr = search;
}

/* A place that was never grown has a bit. */
static void
break_nothing(const struct sgf_op *op)
{
	uintptr_t at = base + PAGES_MAX * PAGE_SIZE + op->imm % 8 * CHUNK_SIZE, where = 0;
	struct page_chunk *chunk = &pages.regions[base >> PAGE_REGION_SHIFT]->chunks[
	    (at >> CHUNK_SHIFT) % PAGE_REGION_CHUNKS];

	if (at >> PAGE_REGION_SHIFT != base >> PAGE_REGION_SHIFT)
		return;
	chunk->scav.w[op->b % 8] ^= 1;
	const char *tag = page_alloc_verify(&pages, true, &where);
	SG_CHECK(SELFTEST, tag != NULL && strcmp(tag, "PAGE-8") == 0, "%s, not PAGE-8",
	    tag != NULL ? tag : "nothing");
	chunk->scav.w[op->b % 8] ^= 1;
}

/* ---- when only the last 16 GiB are free ---- */

enum { BLOCKS = PAGES_MAX / 64 };

static struct page_cache low[BLOCKS], top;
static size_t lows;

static void
take_all_low(void)
{
	for (lows = 0; ; lows++) {
		struct page_cache c = { 0 };
		page_alloc_to_cache(&pages, &c);
		if (c.pages == 0 || c.base - base >= PAGES_MAX * PAGE_SIZE) {
			top = c;
			return;
		}
		low[lows] = c;
	}
}

/* Whoever looks for the first free page is sent to a region where nothing is grown. */
static void
break_grown(void)
{
	uintptr_t at = (uintptr_t)TOP_REGION << PAGE_REGION_SHIFT, search = pages.search_addr;
	struct page_region *r = pages.regions[TOP_REGION];
	static uint64_t was[PAGE_REGION_CHUNKS / 64];
	struct call c = { .n = unit() };

	memcpy(was, r->grown, sizeof(was));
	memset(r->grown, 0, sizeof(r->grown));
	pages.search_addr = base;
	sg_must_stop(alloc_pages, &c, "PAGE-12", at);
	memcpy(r->grown, was, sizeof(was));
	pages.search_addr = search;
}

/* Pages of the top were idle for a moment, so the scavenger looks there first, and
 * finds those below all the same. A run that is long enough only before it is aligned
 * is none. */
static void
scavenge_below_top(void)
{
	size_t whole = (size_t)1 << (PAGE_REGION_SHIFT - PAGE_SHIFT), zeroed = 0, idle, n;
	struct page_cache again = { 0 };
	uintptr_t at = 0;

	top.scav = 0;
	page_cache_flush(&top, &pages);
	page_alloc_to_cache(&pages, &again);
	SG_CHECK(MODEL, page_alloc_alloc_aligned(&pages, whole - 64, 128, &zeroed) == 0,
	    "a run that ends behind the last address");
	for (size_t i = 0; i < lows; i++)
		page_cache_flush(&low[i], &pages);
	lows = 0;
	idle = page_alloc_idle_pages(&pages);
	n = page_alloc_scavenge_begin(&pages, 64, &at);
	SG_CHECK(MODEL, (n != 0) == (idle != 0) && (n == 0 || at - base < PAGES_MAX * PAGE_SIZE),
	    "of %zu idle pages %zu at %#lx are taken", idle, n, (unsigned long)at);
	if (n != 0) {
		sys_unused((void *)at, n * PAGE_SIZE);
		page_alloc_scavenge_end(&pages, at, n);
	}
	again.scav = again.pages;
	page_cache_flush(&again, &pages);
}

static void
do_top(const struct sgf_op *op)
{
	if (!top_grown)
		return;
	take_all_low();
	page_cache_flush(&top, &pages);
	if (op->b & 1)
		break_grown();
	page_alloc_to_cache(&pages, &top);
	scavenge_below_top();
}

void
sg_misuse_pages(const struct sgf_op *op)
{
	if (base == 0)
		return;
	switch (op->a % 14) {
	case 0: do_grow(op); break;
	case 1: do_give(op); break;
	case 2: do_cache(op); break;
	case 3: break_leaf(); break;
	case 4: break_root(); break;
	case 5: do_aligned(op); break;
	case 9: do_top(op); break;
	case 10: break_nothing(op); break;
	case 6: case 7: case 8: do_alloc(op); break;
	default: do_free(op); break;
	}
	sg_note(pages.free_pages);
}

/* ---- one span ---- */

enum { SPAN_WORDS = 257, SPAN_BASE = 1 << 30 };

static char room[offsetof(struct mspan, bits) +
    SPAN_WORDS * (sizeof(struct slot_word) + 2 * sizeof(uint64_t))] ALIGNED(CACHE_LINE);
static struct mspan *const span = (void *)room;
static struct rand_stream stream;
static uint16_t order[WINDOW_SLOTS];

static void
make_span(unsigned which, uint32_t window_bytes)
{
	unsigned class = 1 + which % (SIZE_CLASSES - 1u);
	const struct span_policy policy = { .sweep_share_percent = 25, .window_bytes = window_bytes };

	memset(room, 0, sizeof(room));
	mspan_init(span, SPAN_BASE, size_classes[class].span_pages, class, true, &policy);
}

struct draw {
	struct rand_stream *rng;
	uint32_t most;
};

static void
draw_window(void *arg)
{
	const struct draw *d = arg;

	mspan_draw_window(span, order, d->rng, d->most);
}

/* More slots are said to be available than are: to the window in order at once, to the
 * random one where it draws few of many. */
static void
miscount(const struct sgf_op *op)
{
	struct draw d = { .rng = op->b & 1 ? &stream : NULL, .most = 4 };

	make_span(op->handle, 1 << 20);
	if (span->nelems < 64 || span->window <= d.most)
		return;
	for (size_t w = 0; w < span->nwords; w++)
		span->avail[w] = d.rng == NULL ? op->imm & 1 : 0;
	if (span->nwords > 3 && d.rng == NULL)
		return;
	sg_must_stop(draw_window, &d, "MSPAN-4", (uintptr_t)span);
}

static void
set_state(void *arg)
{
	mspan_set_state(span, *(enum span_state *)arg);
}

static void
change_state(const struct sgf_op *op)
{
	static const bool arrow[3][3] = {
		[SPAN_DEAD][SPAN_IN_USE] = true, [SPAN_IN_USE][SPAN_DEAD] = true,
		[SPAN_IN_USE][SPAN_PARKED] = true, [SPAN_PARKED][SPAN_DEAD] = true,
	};
	uint32_t from = op->b & 1 ? op->imm : op->imm % 3u;
	enum span_state to = (enum span_state)(op->b / 2 % 3);

	make_span(op->handle, 1 << 20);
	a32_store_relaxed(&span->state, from);
	if (from > SPAN_PARKED || !arrow[from][to])
		sg_must_stop(set_state, &to, "MSPAN-9", (uintptr_t)span);
	else
		mspan_set_state(span, to);
	SG_CHECK(MODEL, a32_load_relaxed(&span->state) == (from > SPAN_PARKED || !arrow[from][to] ?
	    from : to), "the state is %u", a32_load_relaxed(&span->state));
}

/* Slots of a window that were handed out, or put back, meanwhile are not put back. */
static void
put_back(const struct sgf_op *op)
{
	make_span(op->handle, 1 << 20);
	uint32_t all = span->avail_n, n = mspan_draw_window(span, order, op->b & 1 ? &stream : NULL, 64);
	uint32_t live = 0;

	for (uint32_t i = 0; i < n; i++)
		if (op->imm >> i % 32 & 1) {
			a64_fetch_or(&span->bits[order[i] / 64].live, (uint64_t)1 << order[i] % 64);
			live++;
		}
	mspan_return_window(span, order, n);
	mspan_return_window(span, order, n / 2);
	SG_CHECK(MODEL, span->avail_n == all - live, "%u available, not %u", span->avail_n, all - live);
}

void
sg_misuse_span(const struct sgf_op *op)
{
	switch (op->a % 3) {
	case 0: miscount(op); break;
	case 1: change_state(op); break;
	default: put_back(op); break;
	}
}

/* ---- all ---- */

void
sg_misuse_start(const struct sgf_header *h)
{
	memset(taken, 0, sizeof(taken));
	top_grown = false;
	page_alloc_init(&pages, &sg_parts_meta);
	rand_seed_fixed(&stream, h->seed, 2);
	void *p = sys_reserve(0, CHUNKS * CHUNK_SIZE, CHUNK_SIZE, false);
	bool ok = p != NULL && sys_map(p, CHUNKS * CHUNK_SIZE) &&
	    page_alloc_grow(&pages, (uintptr_t)p, CHUNKS * CHUNK_SIZE);
	base = ok ? (uintptr_t)p : 0;
}

/* The allocator's own recount, and each page: what is wrong was not believed. */
void
sg_misuse_end(void)
{
	uintptr_t where = 0;

	if (base != 0) {
		const char *tag = page_alloc_verify(&pages, true, &where);
		SG_CHECK(VERIFY, tag == NULL, "%s at %#lx", tag, (unsigned long)where);
	}
	for (size_t i = 0; base != 0 && i < PAGES_MAX; i++)
		SG_CHECK(MODEL, page_alloc_is_free(&pages, base + i * PAGE_SIZE) == !taken[i],
		    "page %zu is free: %d", i, taken[i]);
	page_alloc_init(&pages, &sg_parts_meta);        /* what was used is clear for the next */
}
