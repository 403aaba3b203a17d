/* h6_scav.c - H6: what the page heap believes of each page is what the system has.
 *
 *   page                        the system's state
 *   free, scavenged             Prepared
 *   free, not scavenged         Ready
 *   in a page cache, scavenged  Prepared
 *   otherwise                   Ready, or a guard
 *
 * After every op that gives pages back, and at the end; every object's pages are
 * looked at by the programs of prog.c already. Of the pacing: the background never
 * gives back before the delay has passed, gets to an end when it has, and makes
 * no more calls than there are idle runs. */
#include "prog.h"

#include "mcache.h"
#include "mpagealloc.h"

static struct sg_prog prog;

/* Four looks in each delay: what is idle now is due after two delays at the most. */
enum { TICKS_MIN = 40, PAGES_A_TICK = 16 };

static bool
in_page_cache(uintptr_t at, bool *scavenged)
{
	for (struct mcache *c = mcache_first(); c != NULL; c = c->next) {
		uintptr_t page = (at - c->pages.base) >> PAGE_SHIFT;
		if (at < c->pages.base || page >= 64 || (c->pages.pages >> page & 1) == 0)
			continue;
		*scavenged = (c->pages.scav >> page & 1) != 0;
		return true;
	}
	return false;
}

/* What the system has, up to `end`. */
struct seen {
	uintptr_t end;
	enum sys_state state;
	bool guarded;
};

static void
look(uintptr_t at, struct seen *seen)
{
	if (at >= seen->end)
		seen->end = align_down(at, sys_page_bytes()) +
		    fake_sys_run((const void *)at, &seen->state, &seen->guarded);
}

/* 64 pages, as is right for free ones that are scavenged. */
static bool
all_prepared(uintptr_t at, struct seen *seen)
{
	look(at, seen);
	return seen->end - at >= 64 * PAGE_SIZE && seen->state == SYS_PREPARED && !seen->guarded;
}

static void
audit_page(uintptr_t at, bool free, bool scavenged, struct seen *seen)
{
	look(at, seen);
	enum sys_state s = seen->state;
	bool cached = !free && in_page_cache(at, &scavenged);

	if (scavenged) {
		SG_CHECK(PAGES, s == SYS_PREPARED && !seen->guarded,
		    "page %#lx is %s, scavenged, and in state %d", (unsigned long)at,
		    free ? "free" : cached ? "cached" : "used", (int)s);
		return;
	}
	SG_CHECK(PAGES, s == SYS_READY || (!free && !cached && (seen->guarded ||
	    s == SYS_PREPARED)), "page %#lx is %s, not scavenged, and in state %d",
	    (unsigned long)at, free ? "free" : cached ? "cached" : "used", (int)s);
}

static void
audit_chunk(const struct page_region *reg, size_t r, size_t c)
{
	uintptr_t base = ((uintptr_t)r << PAGE_REGION_SHIFT) + ((uintptr_t)c << CHUNK_SHIFT);
	struct seen seen = { 0 };

	for (unsigned i = 0; i < CHUNK_PAGES; i++) {
		const struct page_chunk *chunk = &reg->chunks[c];
		if (i % 64 == 0 && chunk->alloc.w[i / 64] == 0 && chunk->scav.w[i / 64] == ~(uint64_t)0 &&
		    all_prepared(base + ((uintptr_t)i << PAGE_SHIFT), &seen)) {
			i += 63;
			continue;
		}
		bool used = page_bits_get(&reg->chunks[c].alloc, i);
		audit_page(base + ((uintptr_t)i << PAGE_SHIFT), !used,
		    page_bits_get(&reg->chunks[c].scav, i), &seen);
	}
}

static void
audit_region(size_t r)
{
	const struct page_region *reg = mheap_.pages.regions[r];

	for (size_t w = 0; w < PAGE_REGION_CHUNKS / 64; w++)
		for (uint64_t g = reg->grown[w]; g != 0; g &= g - 1)
			audit_chunk(reg, r, w * 64 + ctz64(g));
}

static void
audit(void)
{
	for (size_t m = 0; m < ARRAY_LEN(mheap_.pages.region_map); m++)
		for (uint64_t bits = mheap_.pages.region_map[m]; bits != 0; bits &= bits - 1)
			audit_region(m * 64 + ctz64(bits));
}

static bool
gives_back(enum sg_op op)
{
	return op == OP_TRIM || op == OP_SCAVENGE || op == OP_TICK || op == OP_ADVANCE ||
	    op == OP_FLUSH || op == OP_EXIT;
}

/* The clock goes on until everything idle is back; `calls` is what it cost. */
static void
drain(void)
{
	uint64_t delay = mheap_.config.scavenge_delay_ns, calls;
	size_t idle = page_alloc_idle_pages(&mheap_.pages);
	unsigned ticks = 0, ticks_max = TICKS_MIN + (unsigned)(idle / PAGES_A_TICK);

	calls = fake_sys_calls(FAKE_SYS_UNUSED);
	for (; page_alloc_idle_pages(&mheap_.pages) != 0 && ticks < ticks_max; ticks++) {
		fake_sys_advance(delay / 4 + 1000000);
		mheap_scavenge_tick(&mheap_);
	}
	SG_CHECK(PACE, page_alloc_idle_pages(&mheap_.pages) == 0,
	    "%zu of %zu idle pages are not back after %u ticks",
	    page_alloc_idle_pages(&mheap_.pages), idle, ticks);
	calls = fake_sys_calls(FAKE_SYS_UNUSED) - calls;
	SG_CHECK(PACE, calls <= idle + ticks, "%llu calls for %zu pages",
	    (unsigned long long)calls, idle);
	fake_sys_advance(delay);
	calls = fake_sys_calls(FAKE_SYS_UNUSED);
	mheap_scavenge_tick(&mheap_);
	SG_CHECK(PACE, fake_sys_calls(FAKE_SYS_UNUSED) == calls, "calls with nothing idle");
}

/* Pages freed just now stay at least until the delay has passed. */
static void
not_before_the_delay(void)
{
	uint64_t calls = fake_sys_calls(FAKE_SYS_UNUSED);
	size_t idle;

	mheap_scavenge_all(&mheap_);
	if (sg_heap_use(0) == NULL || !sg_prog_malloc(&prog, 0, 300000))
		return;
	sg_prog_free(&prog, 0);
	mheap_flush_quarantine(&mheap_);
	idle = page_alloc_idle_pages(&mheap_.pages);
	calls = fake_sys_calls(FAKE_SYS_UNUSED);
	fake_sys_advance(mheap_.config.scavenge_delay_ns / 2);
	mheap_scavenge_tick(&mheap_);
	SG_CHECK(PACE, idle == 0 || mheap_.config.scavenge_delay_ns < 2 ||
	    fake_sys_calls(FAKE_SYS_UNUSED) == calls, "pages went back before the delay");
}

static void
body(void *arg)
{
	struct sg_prog *p = arg;
	struct sgf_op op;

	for (size_t i = 0; i < p->nops; i++) {
		sgf_read_op(p->data, p->bytes, i, &op);
		sg_prog_step(p, i);
		if (gives_back(sg_prog_op(&op)))
			audit();
	}
	sg_prog_heal(p);
	sg_at.op = -1;
	audit();
	sg_prog_free_all(p);
	if (p->header.knob[3] & 1)
		not_before_the_delay();
	if (p->config.options.scavenge_delay_ms != 0)
		drain();
	audit();
	sg_prog_end(p);
	audit();
}

static int
run(const uint8_t *data, size_t bytes)
{
	sg_prog_start(&prog, data, bytes);
	sg_prog_must_live(&prog, body);
	return 0;
}

const struct sg_harness sg_h_scav = { "scav", &sg_prog_language, run };
