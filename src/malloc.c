/* malloc.c - the whole on one page.
 *
 * Memory comes down these steps, each a file, and goes back up them:
 *
 *   1  the window of the thread's cache       malloc_fast.h  mcache.h
 *   2  the spans the thread owns              mcache.c       mspan.c
 *   3  the spans that dead threads left       mcentral.c     mspanset.c
 *   4  the page heap: spans out of pages      mheap.c        marena.c
 *   5  the page allocator and page caches     mpagealloc.c   mpagecache.c
 *   6  the operating system, in four states   sys_linux.c
 *
 *   malloc                        export_libc.c
 *     malloc_fast                 malloc_fast.h   class table, window, live bit
 *       malloc_slow               malloc.c        attach the thread, large or small
 *         mcache_next_slot        mcache.c        steps 2 to 4, in its head comment
 *           mcentral_cache_span   mcentral.c      adopt and sweep
 *           mheap_alloc_span      mheap.c         page cache, or lock and first fit
 *             page_alloc_alloc    mpagealloc.c
 *               sys_map           sys_linux.c     the heap grows
 *         malloc_large            malloc.c        straight from mheap_alloc_span
 *
 *   free                          export_libc.c
 *     free_fast                   malloc_fast.h   map, span, slot, live bit, budget
 *       mcache_budget_spent       mcache.c        ready to sweep, or empty: give back
 *       free_slow                 malloc.c        not ours, not small, or not right
 *         mcache_free_remote      mcache.c        remote bit; tell the owner per batch
 *         free_large              malloc.c        mheap_free_span
 *         bad_pointer             malloc.c        what is it? die()
 *
 * Small is up to SMALL_MAX_BYTES (32 KiB). Tiny is a noscan request below 16
 * bytes. What stands in a slot is the program's alone: no link, no size and no
 * flag of ours is ever there. */
#include "malloc.h"

#include <errno.h>
#include <string.h>

#include "boot.h"
#include "die.h"
#include "facts.h"
#include "malloc_fast.h"
#include "mlookup.h"
#include "msize.h"
#include "options.h"
#include "proc.h"
#include "report.h"
#include "sys.h"
#include "verify.h"
#include "../hardening/hooks.h"

/* Blocks from here on are moved by their page tables, not copied: below, the
 * system call and the TLB flush cost more than the bytes. */
#define MOVE_MIN_BYTES ((size_t)1 << 20)

/* From here on calloc gives dirty pages back instead of writing zeroes: big tables
 * are seldom touched everywhere (doc/performance.md). */
#define ZERO_BY_KERNEL_BYTES ((size_t)256 << 10)

struct mheap mheap_;

static const char api_names[API_COUNT][40] = {
	[API_MALLOC] = "malloc", [API_CALLOC] = "calloc", [API_REALLOC] = "realloc",
	[API_REALLOCARRAY] = "reallocarray", [API_POSIX_MEMALIGN] = "posix_memalign",
	[API_ALIGNED_ALLOC] = "aligned_alloc", [API_MEMALIGN] = "memalign",
	[API_VALLOC] = "valloc", [API_PVALLOC] = "pvalloc",
	[API_FREE] = "free", [API_CFREE] = "cfree", [API_FREE_SIZED] = "free_sized",
	[API_FREE_ALIGNED_SIZED] = "free_aligned_sized",
	[API_USABLE_SIZE] = "malloc_usable_size",
	[API_NEW] = "operator new", [API_NEW_ARRAY] = "operator new[]",
	[API_NEW_ALIGNED] = "operator new", [API_NEW_ARRAY_ALIGNED] = "operator new[]",
	[API_DELETE] = "operator delete", [API_DELETE_ARRAY] = "operator delete[]",
	[API_DELETE_SIZED] = "operator delete", [API_DELETE_ARRAY_SIZED] = "operator delete[]",
	[API_DELETE_ALIGNED] = "operator delete",
	[API_DELETE_ARRAY_ALIGNED] = "operator delete[]",
	[API_DELETE_SIZED_ALIGNED] = "operator delete",
	[API_DELETE_ARRAY_SIZED_ALIGNED] = "operator delete[]",
	[API_NOSCAN] = "spanguard_malloc_noscan",
	[API_NOSCAN_REALLOC] = "spanguard_realloc_noscan",
	[API_SPANGUARD_USABLE_SIZE] = "spanguard_usable_size",
};

const char *
malloc_api_name(enum malloc_api api)
{
	return api < API_COUNT ? api_names[api] : "?";
}

/* ---- pointers that are not right ---- */

/* What it is called when the call gets the address of a freed object. */
static enum die_code
freed_code(enum malloc_api api)
{
	bool frees = api != API_REALLOC && api != API_REALLOCARRAY && api != API_USABLE_SIZE &&
	    api != API_NOSCAN_REALLOC && api != API_SPANGUARD_USABLE_SIZE;
	return frees ? DIE_DOUBLE_FREE : DIE_STALE_POINTER;
}

static enum die_code
judge(const struct addr_info *info, uintptr_t addr, enum malloc_api api)
{
	enum die_code freed = freed_code(api);
	switch (info->kind) {
	case ADDR_FOREIGN:
	case ADDR_HEAP_UNUSED:
		return DIE_INVALID_FREE;
	case ADDR_HEAP_RELEASED:
		return info->slot_base == addr ? freed : DIE_INVALID_FREE;
	case ADDR_SMALL:
	case ADDR_TINY:
	case ADDR_LARGE:
		break;
	}
	if (info->state == SLOT_TAIL || info->state == SLOT_FREE)
		return DIE_INVALID_FREE;    /* malloc never returned it */
	return info->slot_base == addr ? freed : DIE_INTERIOR_FREE;
}

/* Objects that are in no span: of before the heap, of no bytes, sampled ones. */
static enum outside_verdict
outside_look(const void *p, enum malloc_api api, size_t *bytes, bool *noscan)
{
	static const uint8_t of_boot[] = {
		[BOOT_OK] = OUTSIDE_OK, [BOOT_FREED] = OUTSIDE_FREED,
		[BOOT_INTERIOR] = OUTSIDE_INTERIOR,
	};
	enum boot_verdict v = boot_look(p, bytes);
	*noscan = false;
	if (v != BOOT_FOREIGN)
		return of_boot[v];
	return hook_outside_look(p, api, bytes, noscan);
}

static bool
outside_free(void *p, enum malloc_api api)
{
	return boot_free(p) == BOOT_OK ||
	    hook_outside_free(p, api) == OUTSIDE_OK;
}

static const char *
outside_site(const void *p)
{
	size_t bytes;
	return boot_look(p, &bytes) != BOOT_FOREIGN ? "boot" : "outside";
}

/* p is not a live object: finds out what it is, and ends the program, or, where that
 * is to go on after errors, returns. */
static NOINLINE void
bad_pointer(const void *p, enum malloc_api api)
{
	struct addr_info info;
	size_t bytes;
	bool noscan;
	struct die_info d = { .api = malloc_api_name(api), .addr = (uintptr_t)p };
	if (hook_wrong_pointer(p))
		return;
	switch (outside_look(p, api, &bytes, &noscan)) {
	case OUTSIDE_FREED:
		d.code = freed_code(api);
		d.site = outside_site(p);
		break;
	case OUTSIDE_INTERIOR:
		d.code = DIE_INTERIOR_FREE;
		d.site = outside_site(p);
		break;
	case OUTSIDE_FOREIGN:
	case OUTSIDE_OK:
		heap_describe((uintptr_t)p, &info);
		d.code = judge(&info, (uintptr_t)p, api);
		d.site = "slot";
		break;
	}
	complain(&d);
}

/* The live object at p, or NULL after a complaint. In a span that is not in use, no
 * slot is live (mspan_retire): its state, on another line, is not looked at. */
static struct mspan *
live_object(const void *p, enum malloc_api api, size_t *idx)
{
	struct mspan *s = span_of((uintptr_t)p);
	if (likely(s != NULL && mspan_slot(s, (uintptr_t)p, idx) && mspan_slot_live(s, *idx) &&
	    !(mheap_.config.exact && hook_slot_freed(s, *idx))))
		return s;
	bad_pointer(p, api);
	return NULL;
}

/* ---- malloc ---- */

static void *
no_memory(void)
{
	errno = ENOMEM;
	return NULL;
}

NOINLINE void
malloc_bad_request(enum malloc_api api, const char *site, size_t given, size_t of)
{
	if (options.report_requests)
		report_once(&(struct die_info){ .code = DIE_BAD_REQUEST,
		    .api = malloc_api_name(api), .site = site, .given = given, .expected = of });
}

/* NULL was returned to the program. */
static NOINLINE void
tell_failure(enum malloc_api api, size_t bytes)
{
	int saved = errno;
	if (bytes > MALLOC_MAX_BYTES)
		malloc_bad_request(api, "size", bytes, 0);
	else if (options.report_oom && shortage_is_told(bytes))
		report_once(&(struct die_info){ .code = DIE_OUT_OF_MEMORY,
		    .api = malloc_api_name(api), .site = "memory", .given = bytes });
	errno = saved;
}

/* A cache for this call: the thread's own, or, for a thread that is past its
 * end, the one such threads share. NULL: only boot.c can serve the call. */
static struct mcache *
cache_for_call(struct mcache *c)
{
	if (c == NULL)
		c = mcache_attach();
	if (c == NULL)
		return proc_shared_lock();
	if (c->busy == CACHE_FAST)      /* a handler; it may have been interrupted itself */
		return proc_shared_trylock();
	return c->busy == CACHE_SLOW ? NULL : c;
}

/* No lock of ours is held: the time for what stops the world. */
static NOINLINE void
at_safe_point(void)
{
	mheap_release_unmarked(&mheap_);
	hook_leak_if_wanted();
}

static NOINLINE void
tend(void)
{
	if (unlikely(options.quarantine == OPT_QUARANTINE_MARK || options.leak_signal != 0))
		at_safe_point();
	if (unlikely(options.verify_every != 0 || options.verify_signal != 0))
		verify_now_and_then();
}

INLINE void
tend_if_due(void)
{
	if (unlikely(mheap_.config.tended))
		tend();
}

static void
cache_done(struct mcache *c)
{
	proc_shared_unlock(c);
	tend_if_due();
}

static struct mspan *
alloc_large_span(struct mcache *c, size_t bytes, size_t align, unsigned spc)
{
	size_t align_pages = align > PAGE_SIZE ? align >> PAGE_SHIFT : 1;
	mcache_enter(c);
	mutex_lock(&c->lock);
	if (mheap_.config.scavenge_on_slow_path)
		mheap_scavenge_tick(&mheap_);
	struct mspan *s = mheap_alloc_span(&mheap_, c, bytes_to_pages(bytes), spc, align_pages);
	if (likely(s != NULL)) {        /* under the lock: verify sees it whole */
		s->avail[0] = 0;
		s->avail_n = 0;
		a64_store_release(&s->bits[0].live, 1);
	}
	mutex_unlock(&c->lock);
	mcache_leave(c);
	return s;
}

static void *
malloc_large(struct mcache *c, size_t bytes, size_t align, unsigned spc, bool *fresh)
{
	if (unlikely(bytes > MALLOC_MAX_BYTES || align > MALLOC_MAX_BYTES - bytes))
		return NULL;
	struct mspan *s = alloc_large_span(c, bytes != 0 ? bytes : 1, align, spc);
	if (unlikely(s == NULL))
		return NULL;
	*fresh = !s->needzero;
	a64_fetch_add(&mheap_.large_allocs, 1);
	return (void *)s->base;
}

/* The tiny allocator, as in Go: several small pointer-free objects share a
 * block. Each has the live bit of its first granule, so that frees are as
 * exact as anywhere; a block is free when none of its granules starts one. */
static void *
malloc_tiny(struct mcache *c, size_t bytes)
{
	uint32_t need = (uint32_t)align_up(bytes, TINY_GRANULE_BYTES);
	uint32_t at = (uint32_t)align_up(c->tiny_offset, bytes == 8 ? 8 : TINY_GRANULE_BYTES);
	uintptr_t block = c->tiny;
	if (block == 0 || at + need > TINY_BLOCK_BYTES) {
		bool fresh;
		block = (uintptr_t)mcache_next_slot(c, SPAN_TINY, &fresh);
		if (block == 0)
			return NULL;
		at = 0;
	}
	struct mspan *s = span_of(block);
	size_t first = (block + at - s->base) / TINY_GRANULE_BYTES;
	uint64_t live = a64_load_relaxed(&s->bits[first / 64].live);
	a64_store_relaxed(&s->bits[first / 64].live, live | (uint64_t)1 << (first % 64));
	uint64_t rest = ((uint64_t)1 << (need / TINY_GRANULE_BYTES - 1)) - 1;
	s->cont[first / 64] |= rest << (first % 64) << 1;
	/* of the old and the new block, the one with more room is filled next */
	if (at != 0 || c->tiny == 0 || at + need < c->tiny_offset) {
		c->tiny = block;
		c->tiny_offset = at + need;
	}
	return (void *)(block + at);
}

static void *
malloc_any(struct mcache *c, size_t bytes, size_t align, unsigned spc, bool *fresh)
{
	if (span_class_size_class(spc) == 0 && spc != SPAN_TINY)
		return malloc_large(c, bytes, align, spc, fresh);
	if (spc == SPAN_TINY) {
		*fresh = false;
		return malloc_tiny(c, bytes);
	}
	return mcache_next_slot(c, spc, fresh);
}

/* The span class of a request in an armed mode: the canary takes its share of
 * the slot, and no block is shared by tiny objects. */
static unsigned
armed_class(size_t bytes, size_t align, unsigned spc)
{
	unsigned noscan = span_class_noscan(spc) ? SPAN_NOSCAN : 0;
	size_t least = bytes != 0 ? bytes : 1, tail = mheap_.config.tail_bytes;
	return noscan + (align > MALLOC_ALIGN ? size_class_aligned(least + tail, align) :
	    size_class_tailed(least, tail));
}

/* Memory has run out: everything idle and everything parked goes back first. */
static NOINLINE void *
alloc_again(size_t bytes, size_t align, unsigned spc, bool *fresh)
{
	if (bytes > MALLOC_MAX_BYTES)
		return no_memory();
	struct mcache *self = mcache_self();
	if (self != NULL && self->busy != CACHE_IDLE)
		return no_memory();
	mcache_enter(self);
	bool any = mheap_flush_quarantine(&mheap_);
	mcache_leave(self);
	any |= malloc_trim_all() != 0;
	struct mcache *use = any ? cache_for_call(mcache_self()) : NULL;
	if (use == NULL)
		return no_memory();
	void *p = malloc_any(use, bytes, align, spc, fresh);
	cache_done(use);
	return p != NULL ? p : no_memory();
}

/* In armed modes the rooms walk the stack from here, not from where they are. A
 * handler's call that comes in between puts back what it found. */
INLINE const void *
swap_frame(struct mcache *c, const void *frame)
{
	const void *outer = c->call_frame;
	c->call_frame = frame;
	compiler_fence();
	return outer;
}

INLINE void
put_frame_back(struct mcache *c, const void *outer)
{
	compiler_fence();
	c->call_frame = outer;
}

INLINE const void *
enter_call(struct mcache *c, const void *frame)
{
	return c != NULL && mheap_.config.armed ? swap_frame(c, frame) : NULL;
}

INLINE void
leave_call(struct mcache *c, const void *outer)
{
	if (c != NULL && mheap_.config.armed)
		put_frame_back(c, outer);
}

static void *
alloc_any(struct mcache *c, size_t bytes, size_t align, unsigned spc, bool *fresh,
    enum malloc_api api)
{
	bool armed = mheap_.config.armed;
	if (armed && bytes <= MALLOC_MAX_BYTES)
		spc = armed_class(bytes, align, spc);
	void *p = hook_outside_alloc(bytes, align, span_class_noscan(spc),
	    c == NULL || c->alloc[spc].n == 0, api);
	if (unlikely(p != NULL)) {
		*fresh = true;
		return p;
	}
	if (unlikely(bytes == 0 && align <= MALLOC_ALIGN && !armed))
		spc = size_class_of(1) + (span_class_noscan(spc) ? SPAN_NOSCAN : 0);
	struct mcache *use = cache_for_call(c);
	if (unlikely(use == NULL)) {
		p = boot_alloc(bytes, align);
		*fresh = true;
		return p != NULL ? p : no_memory();
	}
	p = malloc_any(use, bytes, align, spc, fresh);
	cache_done(use);
	if (unlikely(p == NULL))
		p = alloc_again(bytes, align, spc, fresh);
	if (armed && p != NULL)
		*fresh = hook_slot_alloc(span_of((uintptr_t)p), p, bytes, align, api, *fresh);
	return p;
}

/* The one way to an object that is not in the window. */
static NOINLINE void *
alloc(struct mcache *c, size_t bytes, size_t align, unsigned spc, bool *fresh,
    enum malloc_api api)
{
	if (unlikely(c == NULL)) {
		mallocinit();           /* the first call of all: no mode is known before */
		if (mheap_.config.armed)
			c = mcache_attach();    /* records are kept by its help */
	}
	const void *outer = enter_call(c, callstack_frame());
	void *p = alloc_any(c, bytes, align, spc, fresh, api);
	leave_call(c, outer);
	if (unlikely(p == NULL))
		tell_failure(api, bytes);
	return p;
}

/* The way of nearly every call in an armed mode: a small object, a window with
 * slots in it, nothing in between. NULL: alloc finds out what it is. */
INLINE void *
alloc_armed(struct mcache *c, size_t bytes, unsigned spc, enum malloc_api api)
{
	bool fresh;
	if (bytes == 0 || bytes > SMALL_MAX_BYTES || c->busy != CACHE_IDLE)
		return NULL;
	bool noscan = span_class_noscan(spc);
	spc = size_class_tailed(bytes, mheap_.config.tail_bytes) + (noscan ? SPAN_NOSCAN : 0);
	if (c->alloc[spc].n == 0)
		return NULL;
	const void *outer = swap_frame(c, callstack_frame());
	void *p = hook_outside_alloc(bytes, MALLOC_ALIGN, noscan, false, api);
	if (likely(p == NULL)) {
		p = mcache_next_slot(c, spc, &fresh);
		if (likely(p != NULL)) {
			tend_if_due();
			hook_slot_alloc(span_of((uintptr_t)p), p, bytes, MALLOC_ALIGN, api, fresh);
		}
	}
	put_frame_back(c, outer);
	return p;
}

void *
malloc_slow(size_t bytes, unsigned span_class, enum malloc_api api)
{
	bool fresh;
	if (unlikely(tls_offset() == 0))
		return boot_alloc(bytes, MALLOC_ALIGN);
	struct mcache *c = mcache_self();
	if (mheap_.config.armed && likely(c != NULL)) {
		void *p = alloc_armed(c, bytes, span_class, api);
		if (likely(p != NULL))
			return p;
	}
	return alloc(mcache_self(), bytes, MALLOC_ALIGN, span_class, &fresh, api);
}

void *
mallocgc(size_t bytes, enum malloc_api api)
{
	return malloc_fast(bytes, api);
}

void *
mallocgc_noscan(size_t bytes, enum malloc_api api)
{
	bool fresh;
	if (bytes < TINY_BLOCK_BYTES && bytes != 0)
		return alloc(mcache_self(), bytes, TINY_GRANULE_BYTES, SPAN_TINY, &fresh, api);
	return malloc_fast_class(bytes, SPAN_NOSCAN, api);
}

/* Large objects are zeroed by giving the pages back: what the program never
 * touches then costs nothing. */
static void
zero_object(void *p, unsigned size_class, size_t bytes)
{
	if (size_class != 0) {
		memset(p, 0, mheap_.config.armed ? bytes : size_classes[size_class].elem_bytes);
	} else if (bytes < ZERO_BY_KERNEL_BYTES) {
		memset(p, 0, bytes);
	} else {
		size_t whole = align_down(bytes, sys_page_bytes());
		sys_unused(p, whole);
		sys_used(p, whole);
		memset((char *)p + whole, 0, bytes - whole);
	}
}

INLINE void *
alloc_zeroed(size_t bytes, unsigned noscan, enum malloc_api api)
{
	bool fresh;
	struct mcache *c = mcache_self();
	unsigned size_class = size_class_of(bytes), spc = size_class + noscan;
	if (unlikely(tls_offset() == 0))
		return boot_alloc(bytes, MALLOC_ALIGN);
	void *p;
	if (likely(size_class != 0 && c != NULL && c->alloc[spc].n != 0 &&
	    c->busy == CACHE_IDLE && !mheap_.config.armed))
		p = mcache_next_slot(c, spc, &fresh);
	else
		p = alloc(c, bytes, MALLOC_ALIGN, spc, &fresh, api);
	if (p != NULL && !fresh)
		zero_object(p, size_class, bytes);
	return p;
}

void *
mallocgc_zeroed(size_t bytes, enum malloc_api api)
{
	return alloc_zeroed(bytes, 0, api);
}

void *
mallocgc_noscan_zeroed(size_t bytes, enum malloc_api api)
{
	if (bytes >= TINY_BLOCK_BYTES || bytes == 0)
		return alloc_zeroed(bytes, SPAN_NOSCAN, api);
	void *p = mallocgc_noscan(bytes, api);
	if (p != NULL)
		memset(p, 0, bytes);
	return p;
}

void *
mallocgc_aligned(size_t align, size_t bytes, enum malloc_api api)
{
	bool fresh;
	if (align <= MALLOC_ALIGN)
		return malloc_fast(bytes, api);
	if (unlikely(tls_offset() == 0))
		return boot_alloc(bytes, align);
	return alloc(mcache_self(), bytes, align, size_class_aligned(bytes, align), &fresh, api);
}

/* ---- free ---- */

/* Of two frees at once the other may be at work on the span, so that a second look
 * at it might see anything. */
static NOINLINE void
late_free_large(const void *p, enum malloc_api api)
{
	complain(&(struct die_info){ .code = DIE_DOUBLE_FREE, .api = malloc_api_name(api),
	    .site = "slot", .addr = (uintptr_t)p });
}

static void
free_large(struct mspan *s, void *p, enum malloc_api api)
{
	/* the remote bit is the claim: of two frees at once, one gets it */
	if (a64_load_acquire(&s->bits[0].live) != 1) {
		bad_pointer(p, api);
		return;
	}
	if ((a64_fetch_or(&s->bits[0].remote, 1) & 1) != 0) {
		late_free_large(p, api);
		return;
	}
	if (mheap_.config.armed)
		hook_slot_free(s, 0, api);
	a64_fetch_add(&mheap_.large_frees, 1);
	struct mcache *c = mcache_self();
	if (unlikely(c != NULL && c->busy == CACHE_SLOW)) {
		mcache_defer_free(c, s);
		return;
	}
	uint8_t was = mcache_enter(c);
	mcache_free_span(&mheap_, c, s);
	if (mheap_.config.scavenge_on_slow_path)
		mheap_scavenge_tick(&mheap_);
	mcache_leave_to(c, was);
}

INLINE void
free_small(struct mspan *s, size_t idx, void *p, enum malloc_api api)
{
	struct mcache *c = mcache_self();
	if (aptr_load_relaxed(&s->owner) == c && c->busy == CACHE_IDLE)
		mcache_free_local(c, s, idx);
	else if (!mcache_free_remote(&mheap_, s, idx))
		bad_pointer(p, api);
}

void
free_slot(struct mspan *s, size_t idx)
{
	free_small(s, idx, (void *)(s->base + idx * s->elem_bytes), API_FREE);
}

/* The slot is looked at and cleared while it is still live, so that nobody can
 * be handed it meanwhile. */
static void
free_armed(struct mspan *s, size_t idx, void *p, enum malloc_api api)
{
	enum free_verdict v = mspan_slot_live(s, idx) ? hook_slot_free(s, idx, api) :
	    FREE_REFUSED;
	if (v == FREE_NOW)
		free_small(s, idx, p, api);
	else if (v == FREE_REFUSED)
		bad_pointer(p, api);
}

static void
free_any(void *p, enum malloc_api api)
{
	size_t idx;
	if (mheap_.config.armed && hook_free_at_end(p))
		return;
	struct mspan *s = span_of((uintptr_t)p);
	if (s == NULL) {
		if (!outside_free(p, api))
			bad_pointer(p, api);
		return;
	}
	if (!mspan_slot(s, (uintptr_t)p, &idx) || a32_load_acquire(&s->state) != SPAN_IN_USE)
		bad_pointer(p, api);
	else if (mspan_is_large(s))
		free_large(s, p, api);
	else if (mheap_.config.armed)
		free_armed(s, idx, p, api);
	else if (!mcache_free_remote(&mheap_, s, idx))
		bad_pointer(p, api);
}

NOINLINE void
free_slow(void *p, enum malloc_api api)
{
	struct mcache *c = mcache_self();
	if (p == NULL)
		return;
	if (unlikely(c == NULL) && mheap_.config.exact)
		c = mcache_attach();    /* stacks are walked by what is known of the thread */
	const void *outer = enter_call(c, callstack_frame());
	free_any(p, api);
	leave_call(c, outer);
}

void
freegc(void *p, enum malloc_api api)
{
	free_fast(p, api);
}

static size_t
room_bytes(const struct mspan *s, size_t idx)
{
	if (mspan_is_large(s))
		return s->elem_bytes;
	if (!mspan_is_tiny(s))
		return s->elem_bytes - mheap_.config.tail_bytes;
	size_t n = 1;
	while ((idx + n) % TINY_BLOCK_GRANULES != 0 &&
	    (s->cont[(idx + n) / 64] >> ((idx + n) % 64) & 1) != 0)
		n++;
	return n * TINY_GRANULE_BYTES;
}

static size_t
object_bytes(const struct mspan *s, size_t idx)
{
	size_t n = room_bytes(s, idx);
	return mheap_.config.exact ? hook_slot_bytes(s, idx, n) : n;
}

/* What the allocator would have given for the size and alignment the program
 * now says; 0: it could not have. */
static size_t
bytes_given_for(size_t bytes, size_t align)
{
	if (mheap_.config.exact)
		return bytes;
	if (bytes == 0)
		bytes = 1;
	size_t tail = mheap_.config.tail_bytes;
	if (bytes > MALLOC_MAX_BYTES)
		return 0;
	unsigned c = align > MALLOC_ALIGN ? size_class_aligned(bytes + tail, align) :
	    size_class_tailed(bytes, tail);
	return c != 0 ? size_classes[c].elem_bytes - tail :
	    mheap_round_pages(&mheap_, bytes_to_pages(bytes)) << PAGE_SHIFT;
}

static NOINLINE void
wrong_size(const void *p, size_t bytes, size_t have, enum malloc_api api)
{
	complain(&(struct die_info){ .code = DIE_SIZE_MISMATCH, .api = malloc_api_name(api),
	    .site = "sized", .addr = (uintptr_t)p, .given = bytes, .expected = have });
}

static void
check_align(const void *p, size_t align, enum malloc_api api)
{
	if (unlikely(align != 0 && ((uintptr_t)p & (align - 1)) != 0))
		complain(&(struct die_info){ .code = DIE_ALIGN_MISMATCH, .api = malloc_api_name(api),
		    .site = "align", .addr = (uintptr_t)p, .given = align,
		    .expected = (size_t)1 << __builtin_ctzll((uintptr_t)p) });
}

/* Of objects outside of spans the size asked for is known; they are judged by
 * its class, like all others. */
static bool
size_fits_outside(size_t have, size_t bytes, size_t align)
{
	return bytes_given_for(bytes, align) == bytes_given_for(have, align);
}

static void
check_size(const void *p, size_t bytes, size_t align, enum malloc_api api)
{
	size_t idx, have;
	bool noscan;
	if (boot_look(p, &have) != BOOT_FOREIGN)
		return;
	if (span_of((uintptr_t)p) == NULL && outside_look(p, api, &have, &noscan) == OUTSIDE_OK) {
		check_align(p, align, api);
		if (!size_fits_outside(have, bytes, align))
			wrong_size(p, bytes, have, api);
		return;
	}
	struct mspan *s = live_object(p, api, &idx);
	if (s == NULL)
		return;
	check_align(p, align, api);
	have = object_bytes(s, idx);
	size_t given = mspan_is_tiny(s) ? align_up(bytes, TINY_GRANULE_BYTES) :
	    bytes_given_for(bytes, align);
	if (unlikely(given != have))
		wrong_size(p, bytes, have, api);
}

void
free_sized_check(void *p, size_t bytes, size_t align, enum malloc_api api)
{
	if (p == NULL)
		return;
	check_size(p, bytes, align, api);
	free_fast(p, api);
}

void
free_aligned_check(void *p, size_t align, enum malloc_api api)
{
	size_t idx, bytes;
	bool noscan;
	if (p == NULL)
		return;
	if ((span_of((uintptr_t)p) != NULL ||
	    outside_look(p, api, &bytes, &noscan) != OUTSIDE_OK) &&
	    live_object(p, api, &idx) == NULL)
		return;
	check_align(p, align, api);
	free_fast(p, api);
}

size_t
usable_size(const void *p, enum malloc_api api)
{
	size_t idx, bytes;
	bool noscan;
	if (p == NULL)
		return 0;
	if (unlikely(span_of((uintptr_t)p) == NULL) &&
	    outside_look(p, api, &bytes, &noscan) == OUTSIDE_OK)
		return bytes;
	struct mspan *s = live_object(p, api, &idx);
	return s != NULL ? object_bytes(s, idx) : 0;
}

/* ---- realloc ---- */

/* A small object stays where it is only within its class, never in a slot that
 * is merely large enough: free_sized of the new size must find that class. */
static bool
same_class(const struct mspan *s, size_t bytes)
{
	return !mspan_is_tiny(s) && bytes <= SMALL_MAX_BYTES &&
	    size_class_tailed(bytes, mheap_.config.tail_bytes) ==
	    span_class_size_class(s->span_class);
}

static bool
resize_large(struct mspan *s, size_t bytes)
{
	size_t npages = mheap_round_pages(&mheap_, bytes_to_pages(bytes));
	struct mcache *c = mcache_self();
	bool ok = true;
	if (npages == s->npages)
		return true;
	/* guards would have to move, and what is cut off to be cleared */
	if (s->guards != 0 || mheap_.config.zeroed || mheap_.config.whole)
		return false;
	if (c != NULL && c->busy != CACHE_IDLE)     /* a handler: the heap may be locked */
		return npages < s->npages;
	mcache_enter(c);
	if (npages < s->npages)
		mheap_shrink_span(&mheap_, s, npages);
	else
		ok = mheap_grow_span(&mheap_, s, npages);
	mcache_leave(c);
	return ok;
}

static void *
move_object(struct mspan *s, void *p, size_t have, size_t bytes, enum malloc_api api)
{
	unsigned noscan = span_class_noscan(s->span_class) ? SPAN_NOSCAN : 0;
	void *q = malloc_fast_class(bytes, noscan, api);
	if (q == NULL)
		return NULL;
	size_t keep = have < bytes ? have : bytes;
	struct mspan *to = span_of((uintptr_t)q);
	size_t whole = to != NULL && mspan_bytes(to) < mspan_bytes(s) ? mspan_bytes(to) :
	    mspan_bytes(s);
	if (keep >= MOVE_MIN_BYTES && !mheap_.config.exact && mspan_is_large(s) && to != NULL && mspan_is_large(to) &&
	    sys_move(q, p, whole))
		to->moved = true;
	else
		memcpy(q, p, keep);
	free_fast(p, api);
	return q;
}

static NOINLINE void *
realloc_outside(void *p, size_t have, size_t bytes, bool noscan, enum malloc_api api)
{
	void *q = malloc_fast_class(bytes, noscan ? SPAN_NOSCAN : 0, api);
	if (q == NULL)
		return NULL;
	memcpy(q, p, have < bytes ? have : bytes);
	struct mcache *c = mcache_self();
	const void *outer = enter_call(c, callstack_frame());
	if (!outside_free(p, api))      /* another thread was faster */
		bad_pointer(p, api);
	leave_call(c, outer);
	return q;
}

void *
reallocgc(void *p, size_t bytes, enum malloc_api api)
{
	size_t idx, have;
	bool noscan;
	if (p == NULL)
		return malloc_fast(bytes, api);
	if (bytes == 0) {
		free_fast(p, api);
		return NULL;
	}
	if (unlikely(span_of((uintptr_t)p) == NULL) &&
	    outside_look(p, api, &have, &noscan) == OUTSIDE_OK)
		return realloc_outside(p, have, bytes, noscan, api);
	struct mspan *s = live_object(p, api, &idx);
	if (s != NULL && unlikely(bytes > MALLOC_MAX_BYTES))
		malloc_bad_request(api, "size", bytes, 0);
	if (unlikely(s == NULL || bytes > MALLOC_MAX_BYTES))
		return no_memory();
	have = object_bytes(s, idx);
	if (mheap_.config.exact) {
		/* moves: who keeps the old address is found out */
	} else if (mspan_is_large(s)) {
		if (bytes > SMALL_MAX_BYTES && resize_large(s, bytes))
			return p;
	} else if (same_class(s, bytes)) {
		return p;
	}
	return move_object(s, p, have, bytes, api);
}

/* ---- giving back ---- */

size_t
malloc_trim_all(void)
{
	struct mcache *self = mcache_self();
	if (self != NULL && self->busy != CACHE_IDLE)
		return 0;
	hook_trim_begin();
	proc_world_lock();
	mcache_trim_all(&mheap_, self);
	for (unsigned i = 0; i < SPAN_CLASSES_ALL; i++)
		mcentral_sweep_all(&mheap_, &mheap_.central[i]);
	size_t bytes = mheap_scavenge_all(&mheap_);
	hook_trim_end();
	proc_world_unlock();
	return bytes;
}
