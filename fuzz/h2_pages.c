/* h2_pages.c - H2: the page allocator against tests/naive_pages.c, which has one byte
 * per page and walks. Each op: the exact address, and how many pages were zero. At
 * the end, and every `verify` ops: the counters, each bit, each summary of each
 * level, search_addr; by op, the allocator's own recount, too.
 *
 * Chunks lie where the fake system puts them: one behind the other, or with gaps.
 * The kernel may refuse the n-th sys_used of an op (fault_nth, op's b). */
#include <string.h>

#include "fake_sys.h"
#include "harness.h"
#include "mpagealloc.h"
#include "mpagecache.h"
#include "naive_pages.h"
#include "persistentalloc.h"

enum { CHUNKS_MAX = 6, RUNS_MAX = 4096 };

#define OPS(OP) \
	OP(GROW, "grow", 58, 62) OP(ALLOC, "alloc", 0, 15) OP(ALIGNED, "aligned", 30, 33) \
	OP(ALLOC_AT, "alloc_at", 34, 37) OP(FREE, "free", 16, 29) \
	OP(FREE_PART, "free_part", 38, 41) OP(FILL, "fill", 42, 43) \
	OP(CACHE_ALLOC, "cache_alloc", 44, 49) OP(FLUSH, "flush", 50, 51) \
	OP(SCAV_BEGIN, "scav_begin", 52, 54) OP(SCAV_END, "scav_end", 55, 57) \
	OP(CHECK, "check", 63, 63)

enum op { OPS(SGF_ENUM) };

static const uint8_t op_of[SGF_CODES] = { OPS(SGF_CODE) };
static const struct sgf_language language = { .op = { OPS(SGF_NAME) } };

struct run {
	uintptr_t addr;
	size_t npages;
};

static struct page_alloc pages;
static struct persistent meta;
static struct naive_pages naive;
static struct page_cache cache;
static struct naive_cache naive_cache;
static struct run object[SGF_HANDLES];
static struct run flight;          /* begun and not ended scavenging */
static bool verify_all;            /* in recount: what was never grown, too */
static size_t unit, chunks;        /* OS page in span pages; chunks grown */

/* ---- comparing ---- */

static void
compare_counters(void)
{
	size_t scav = naive_pages_count(&naive, NAIVE_SCAV);
	size_t idle = naive_pages_count(&naive, NAIVE_FREE);

	SG_CHECK(MODEL, pages.scavenged_pages == scav && pages.free_pages == scav + idle &&
	    pages.grown_pages == naive.nchunks * NAIVE_CHUNK_PAGES,
	    "free %zu, scavenged %zu, grown %zu; the model: %zu, %zu, %zu", pages.free_pages,
	    pages.scavenged_pages, pages.grown_pages, scav + idle, scav,
	    naive.nchunks * NAIVE_CHUNK_PAGES);
}

/* All 64 pages are in one state, on both sides. */
static bool
word_is(const struct page_chunk *c, unsigned w, const uint8_t page[64])
{
	return memcmp(page, page + 1, 63) == 0 &&
	    c->alloc.w[w] == (page[0] == NAIVE_USED ? ~(uint64_t)0 : 0) &&
	    c->scav.w[w] == (page[0] == NAIVE_SCAV ? ~(uint64_t)0 : 0);
}

static void
compare_chunk(const struct naive_chunk *n)
{
	const struct page_region *r = pages.regions[n->base >> 34];
	const struct page_chunk *c = &r->chunks[(n->base >> 22) % 4096];

	for (unsigned k = 0; k < NAIVE_CHUNK_PAGES; k++) {
		if (k % 64 == 0 && word_is(c, k / 64, &n->page[k])) {
			k += 63;
			continue;
		}
		bool used = page_bits_get(&c->alloc, k), scav = page_bits_get(&c->scav, k);
		SG_CHECK(MODEL, used == (n->page[k] == NAIVE_USED) && scav == (n->page[k] == NAIVE_SCAV),
		    "page %#lx: alloc %d, scavenged %d, the model: %d",
		    (unsigned long)(n->base + k * PAGE_SIZE), used, scav, n->page[k]);
	}
}

static void
compare_summary(page_sum s, uintptr_t base, unsigned log_pages)
{
	size_t sum[3];

	naive_pages_summary(&naive, base, (size_t)1 << log_pages, sum);
	SG_CHECK(MODEL, page_sum_start(s) == sum[0] && page_sum_max(s) == sum[1] &&
	    page_sum_end(s) == sum[2] && (s == 0) == (sum[1] == 0),
	    "summary of 2^%u pages at %#lx", log_pages, (unsigned long)base);
}

/* Of each level those above a chunk, each once; all others are those of nothing. */
static void
compare_summaries(void)
{
	for (size_t i = 0; i < naive.nchunks; i++) {
		uintptr_t at = naive.chunk[i]->base;
		uintptr_t before = i > 0 ? naive.chunk[i - 1]->base : ~(uintptr_t)0;
		uintptr_t region = at >> 34;
		const page_sum *sums = pages.regions[region]->sums;
		if (before >> 34 != region)
			compare_summary(pages.root[region], region << 34, 21);
		for (unsigned level = 1, n = 8; level < 5; level++, n *= 8) {
			unsigned log_pages = 21 - 3 * level;
			uintptr_t k = (at & (((uintptr_t)1 << 34) - 1)) >> (log_pages + 13);
			if (before >> (log_pages + 13) != at >> (log_pages + 13))
				compare_summary(sums[k], at >> (log_pages + 13) << (log_pages + 13), log_pages);
			sums += n;
		}
	}
}

static void
compare_search(void)
{
	uintptr_t first = naive_pages_find(&naive, 1);

	if (pages.search_addr == PAGE_SEARCH_NONE)
		SG_CHECK(MODEL, first == 0, "search_addr says none, %#lx is free", (unsigned long)first);
	else
		SG_CHECK(MODEL, (first == 0 || pages.search_addr <= first) &&
		    naive_pages_grown(&naive, pages.search_addr), "search_addr %#lx, first free %#lx",
		    (unsigned long)pages.search_addr, (unsigned long)first);
}

static void
compare_all(void)
{
	compare_counters();
	for (size_t i = 0; i < naive.nchunks; i++)
		compare_chunk(naive.chunk[i]);
	compare_summaries();
	compare_search();
}

/* The allocator's own recount costs as much as sixty ops. */
static void
recount(void)
{
	uintptr_t where = 0;
	const char *tag = page_alloc_verify(&pages, verify_all, &where);

	SG_CHECK(VERIFY, tag == NULL, "%s at %#lx", tag, (unsigned long)where);
	compare_all();
}

/* ---- operations, each on both ---- */

/* What the model makes of a range it finds free: with the refused call's number
 * (0: none), the runs before it are committed and stay free. */
static bool
model_take(uintptr_t addr, size_t npages, unsigned refused, size_t zeroed)
{
	static struct naive_run run[RUNS_MAX];
	size_t n = naive_pages_scav_runs(&naive, addr, npages, run, RUNS_MAX), sum = 0;
	bool ok = refused == 0 || n < refused;

	for (size_t i = 0; i < (ok ? n : refused - 1); i++) {
		naive_pages_set(&naive, run[i].addr, run[i].npages, NAIVE_FREE);
		sum += run[i].npages;
	}
	if (ok) {
		SG_CHECK(MODEL, zeroed == sum, "%zu pages said to be zero, %zu are", zeroed, sum);
		naive_pages_set(&naive, addr, npages, NAIVE_USED);
	}
	return ok;
}

static unsigned
refuse(const struct sgf_op *op)
{
	unsigned nth = op->b >= 240 ? 1 + op->b % 3u : 0;

	fake_sys_fail(FAKE_SYS_USED, nth, false);
	return nth;
}

static size_t
pages_wanted(const struct sgf_op *op)
{
	return (size_t)align_up(1 + op->imm % ((size_t)1 << op->b % 12u), unit);
}

static void
keep(unsigned handle, uintptr_t addr, size_t npages)
{
	object[handle] = (struct run){ addr, npages };
	sg_note(addr - fake_sys_base());
}

static void
do_alloc(const struct sgf_op *op, size_t align)
{
	size_t n = pages_wanted(op), zeroed = 0;
	unsigned refused;
	uintptr_t want, got;

	if (object[op->handle].npages != 0)
		return;
	sg_operations++;
	refused = refuse(op);
	want = align > 1 ? naive_pages_find_aligned(&naive, n, align) : naive_pages_find(&naive, n);
	got = align > 1 ? page_alloc_alloc_aligned(&pages, n, align, &zeroed) :
	    page_alloc_alloc(&pages, n, &zeroed);
	fake_sys_fail(0, 0, false);
	if (want != 0 && !model_take(want, n, refused, zeroed))
		want = 0;
	SG_CHECK(MODEL, got == want, "%zu pages at %#lx, the model says %#lx", n, (unsigned long)got,
	    (unsigned long)want);
	if (got != 0)
		keep(op->handle, got, n);
}

/* Behind another object, in it, or anywhere. */
static void
do_alloc_at(const struct sgf_op *op)
{
	const struct run *o = &object[op->a];
	size_t n = pages_wanted(op), zeroed = 0;
	uintptr_t at = o->addr + ((o->npages + op->imm / 4096 * unit) << PAGE_SHIFT);

	if (o->npages == 0 || object[op->handle].npages != 0 || at + (n << PAGE_SHIFT) >= ADDR_LIMIT)
		return;
	sg_operations++;
	unsigned refused = refuse(op);
	bool can = naive_pages_all_free(&naive, at, n);
	bool ok = page_alloc_alloc_at(&pages, at, n, &zeroed);
	fake_sys_fail(0, 0, false);
	bool want = can && model_take(at, n, refused, zeroed);
	SG_CHECK(MODEL, ok == want, "alloc_at %#lx: %d, the model says %d", (unsigned long)at, ok, want);
	if (ok)
		keep(op->handle, at, n);
}

static void
do_free(const struct sgf_op *op, bool part)
{
	struct run *o = &object[op->handle];
	size_t n = part ? (size_t)align_up(op->imm % (o->npages + 1), unit) : o->npages;
	bool head = part && (op->a & 1) != 0;

	if (n == 0)
		return;
	uintptr_t at = head ? o->addr : o->addr + ((o->npages - n) << PAGE_SHIFT);
	page_alloc_free(&pages, at, n);
	sg_operations++;
	naive_pages_set(&naive, at, n, NAIVE_FREE);
	o->npages -= n;
	if (head)
		o->addr += n << PAGE_SHIFT;
}

static void
do_fill(void)
{
	if (cache.pages != 0)
		return;
	page_alloc_to_cache(&pages, &cache);
	sg_operations++;
	bool want = naive_cache_fill(&naive_cache, &naive);
	SG_CHECK(MODEL, (cache.pages != 0) == want && (!want || cache.base == naive_cache.base),
	    "the cache's block is %#lx, the model says %#lx", (unsigned long)cache.base,
	    (unsigned long)naive_cache.base);
}

/* The cache commits run by run, like the allocator. */
static void
do_cache_alloc(const struct sgf_op *op)
{
	size_t n = (size_t)align_up(1 + op->imm % 16, unit), zeroed = 0, scav = 0;

	if (object[op->handle].npages != 0)
		return;
	uintptr_t want = naive_cache_find(&naive_cache, n);
	uintptr_t got = page_cache_alloc(&cache, n, &zeroed);
	sg_operations++;
	SG_CHECK(MODEL, got == want, "cache: %zu pages at %#lx, the model says %#lx", n,
	    (unsigned long)got, (unsigned long)want);
	if (got == 0)
		return;
	for (size_t i = 0; i < n; i++) {
		uint8_t *page = &naive_cache.page[((got - naive_cache.base) >> PAGE_SHIFT) + i];
		scav += *page == NAIVE_SCAV;
		*page = NAIVE_USED;
	}
	SG_CHECK(MODEL, zeroed == scav, "cache: %zu pages said to be zero, %zu are", zeroed, scav);
	keep(op->handle, got, n);
}

static void
do_flush(void)
{
	page_cache_flush(&cache, &pages);
	naive_cache_flush(&naive_cache, &naive);
}

static void
scav_end(void)
{
	if (flight.npages == 0)
		return;
	sys_unused((void *)flight.addr, flight.npages << PAGE_SHIFT);
	page_alloc_scavenge_end(&pages, flight.addr, flight.npages);
	naive_pages_set(&naive, flight.addr, flight.npages, NAIVE_SCAV);
	flight = (struct run){ 0, 0 };
}

static void
scav_begin(const struct sgf_op *op)
{
	size_t max = pages_wanted(op) + op->a % unit, got, want;    /* not always whole OS pages */
	uintptr_t at = 0, want_at = 0;

	if (flight.npages != 0)
		return;
	want = naive_pages_scavenge_next(&naive, max & ~(unit - 1), &want_at);
	got = page_alloc_scavenge_begin(&pages, max, &at);
	sg_operations++;
	SG_CHECK(MODEL, got == want && (got == 0 || at == want_at),
	    "scavenger takes %zu at %#lx, the model says %zu at %#lx", got, (unsigned long)at, want,
	    (unsigned long)want_at);
	flight = (struct run){ at, got };
	naive_pages_set(&naive, at, got, NAIVE_USED);
}

static void
do_grow(const struct sgf_op *op)
{
	size_t n = 1 + op->a % 2u;

	if (chunks + n > CHUNKS_MAX)
		return;
	void *p = sys_reserve(0, n * CHUNK_SIZE, CHUNK_SIZE, false);
	if (p == NULL || !sys_map(p, n * CHUNK_SIZE))
		return;
	bool ok = page_alloc_grow(&pages, (uintptr_t)p, n * CHUNK_SIZE);
	SG_CHECK(NULLNESS, ok, "grow refused");
	naive_pages_grow(&naive, (uintptr_t)p, n * NAIVE_CHUNK_PAGES);
	chunks += n;
}

static void
step(const struct sgf_op *op)
{
	switch ((enum op)op_of[op->code]) {
	case GROW: do_grow(op); break;
	case ALLOC: do_alloc(op, 1); break;
	case ALIGNED: do_alloc(op, (size_t)align_up(unit, (size_t)1 << op->a % 10u)); break;
	case ALLOC_AT: do_alloc_at(op); break;
	case FREE: do_free(op, false); break;
	case FREE_PART: do_free(op, true); break;
	case FILL: do_fill(); break;
	case CACHE_ALLOC: do_cache_alloc(op); break;
	case FLUSH: do_flush(); break;
	case SCAV_BEGIN: scav_begin(op); break;
	case SCAV_END: scav_end(); break;
	case CHECK: recount(); break;
	}
}

static void
start(const struct sgf_header *h)
{
	static const size_t os_page[4] = { 4096, 4096, 16384, 65536 };
	const struct fake_sys_config sys = { .page_bytes = os_page[h->geometry & 3],
		.place = (h->geometry & 4) != 0 ? FAKE_SYS_GAPS : FAKE_SYS_CONTIGUOUS, .seed = h->seed };

	fake_sys_reset(&sys);
	verify_all = sgf_one_in_four(h);
	unit = sys.page_bytes > PAGE_SIZE ? sys.page_bytes >> PAGE_SHIFT : 1;
	chunks = 0;
	memset(object, 0, sizeof(object));
	flight = (struct run){ 0, 0 };
	cache = (struct page_cache){ 0 };
	naive_cache = (struct naive_cache){ 0 };
	memset(&meta, 0, sizeof(meta));
	naive_pages_clear(&naive);
	persistent_init(&meta);
	page_alloc_init(&pages, &meta);
	do_grow(&(struct sgf_op){ .a = h->geometry >> 3 });
}

static int
run(const uint8_t *data, size_t bytes)
{
	struct sgf_header h;

	sgf_read_header(data, bytes, &h);
	start(&h);
	sg_each_op(data, bytes, &language, step, compare_all);
	scav_end();
	do_flush();
	compare_all();
	page_alloc_init(&pages, &meta);         /* what was used is clear for the next */
	return 0;
}

const struct sg_harness sg_h_pages = { "pages", &language, run };
