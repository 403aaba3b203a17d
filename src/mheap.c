/* mheap.c - see mheap.h. */
#include "mheap.h"

#include <string.h>

#include "die.h"
#include "marena.h"
#include "mcache.h"
#include "sys.h"
#include "tls.h"
#include "../hardening/hooks.h"

/* The pools of struct mspan, by words of bits. */
static const uint16_t pool_words[SPAN_POOLS] = { 1, 6, 9, 17, 33, 65, 257 };

/* Spans below this many pages may come from a thread's page cache. */
enum { CACHED_SPAN_PAGES = 16 };

/* No span has more pages than there are addresses. */
#define ADDR_PAGES ((size_t)ADDR_LIMIT >> PAGE_SHIFT)

/* The zone of the first arena's random address: above anything the kernel
 * places by itself from below, below its mmap area. 39-bit machines refuse the
 * hint and get what the kernel gives. */
#define ARENA_ZONE_BASE ((uintptr_t)0x100000000000)
#define ARENA_ZONE_BYTES ((uintptr_t)0x400000000000)

void
mheap_init(struct mheap *h, const struct mheap_config *config)
{
	h->lock.rank = LOCK_MHEAP;
	h->config = *config;
	if (config->armed)
		mcache_armed.busy = CACHE_SLOW;
	persistent_init(&h->meta);
	page_alloc_init(&h->pages, &h->meta);
	scavenger_init(&h->scav, config->scavenge_delay_ns);
	if (config->seed != 0)
		rand_seed_fixed(&h->rng, config->seed, 0);
	else
		rand_seed_os(&h->rng);
	h->os_page_pages = sys_page_bytes() > PAGE_SIZE ? sys_page_bytes() >> PAGE_SHIFT : 1;
	for (unsigned i = 0; i < SPAN_POOLS; i++)
		fixalloc_init_keep(&h->span_pool[i], &h->meta, mspan_struct_bytes(pool_words[i]),
		    CACHE_LINE);
	for (unsigned i = 0; i < SPAN_CLASSES_ALL; i++)
		mcentral_init(&h->central[i], i);
}

void
mheap_reset(struct mheap *h)
{
	size_t behind = offsetof(struct mheap, pages) + sizeof(h->pages);
	memset(h, 0, offsetof(struct mheap, pages));
	memset((char *)h + behind, 0, sizeof(*h) - behind);
	page_alloc_init(&h->pages, &h->meta);    /* clears what was used of 256 KiB */
}

size_t
mheap_round_pages(const struct mheap *h, size_t npages)
{
	return align_up(npages, h->os_page_pages);
}

/* ---- growth ---- */

/* Adds [base, base + bytes) of reserved space to the page allocator. If the
 * system refuses, the address space is given back. */
static bool
map_pages(struct mheap *h, uintptr_t base, size_t bytes)
{
	if (!sys_map((void *)base, bytes)) {
		sys_free((void *)base, bytes, SYS_RESERVED);
		h->reserved_bytes -= bytes;
		return false;
	}
	if (h->config.huge_pages && h->pages.grown_pages << PAGE_SHIFT >= HUGE_FROM_BYTES)
		sys_huge((void *)base, bytes);
	if (arena_add(&h->meta, base, bytes) && page_alloc_grow(&h->pages, base, bytes))
		return true;
	sys_free((void *)base, bytes, SYS_PREPARED);
	h->reserved_bytes -= bytes;
	return false;
}

static uintptr_t
reserve_near(struct mheap *h, size_t bytes)
{
	if (h->grow_end != 0)    /* also when the region is used up: arenas adjoin */
		return (uintptr_t)sys_reserve(h->grow_end, bytes, ARENA_SIZE, true);
	uintptr_t hint = ARENA_ZONE_BASE + rand_u64(&h->rng) % ARENA_ZONE_BYTES;
	return (uintptr_t)sys_reserve(align_down(hint, ARENA_SIZE), bytes, ARENA_SIZE, true);
}

/* Forgets the growth region; what is left of it becomes free pages first, where
 * the system lets it. */
static void
use_up_region(struct mheap *h)
{
	size_t left = h->grow_end - h->grow_base;
	if (left != 0)
		map_pages(h, h->grow_base, left);
	h->grow_base = h->grow_end = 0;
}

/* Takes [at, at + bytes) of reserved space as the growth region, or as more of
 * it where it lies right behind. */
static bool
take_region(struct mheap *h, uintptr_t at, size_t bytes)
{
	if (at + bytes > ADDR_LIMIT) {
		sys_free((void *)at, bytes, SYS_RESERVED);
		return false;
	}
	h->reserved_bytes += bytes;
	if (at != h->grow_end) {
		use_up_region(h);
		h->grow_base = at;
	}
	h->grow_end = at + bytes;
	return true;
}

/* Makes the growth region at least `bytes` (a multiple of the chunk) long:
 * whole arenas behind the last one, else whole arenas anywhere, else (address
 * space is short: RLIMIT_AS) just what is needed. */
static bool
reserve_region(struct mheap *h, size_t bytes)
{
	size_t missing = bytes - (h->grow_end - h->grow_base);
	size_t want = align_up(h->grow_end != 0 ? missing : bytes, ARENA_SIZE);
	uintptr_t at = reserve_near(h, want);
	if (at == 0) {
		want = align_up(bytes, ARENA_SIZE);
		at = (uintptr_t)sys_reserve(0, want, ARENA_SIZE, false);
	}
	if (at == 0) {
		want = bytes;
		at = (uintptr_t)sys_reserve(0, want, CHUNK_SIZE, false);
	}
	return at != 0 && take_region(h, at, want);
}

static bool
grow_locked(struct mheap *h, size_t npages)
{
	size_t bytes = align_up(npages << PAGE_SHIFT, CHUNK_SIZE);
	if (bytes >= ADDR_LIMIT)
		return false;
	if (h->grow_end - h->grow_base < bytes && !reserve_region(h, bytes))
		return false;
	uintptr_t base = h->grow_base;
	h->grow_base += bytes;
	return map_pages(h, base, bytes);
}

/* ---- struct mspan ---- */

static unsigned
pool_of(size_t nwords)
{
	unsigned i = 0;
	while (pool_words[i] < nwords)
		i++;
	return i;
}

static size_t
words_for(size_t npages, unsigned span_class)
{
	size_t elem = (npages << PAGE_SHIFT);
	if (span_class == SPAN_TINY)
		elem = TINY_GRANULE_BYTES;
	else if (span_class_size_class(span_class) != 0)
		elem = size_classes[span_class_size_class(span_class)].elem_bytes;
	size_t n = (npages << PAGE_SHIFT) / elem;
	return mspan_words(n < SPAN_MAX_SLOTS ? n : SPAN_MAX_SLOTS);
}

static struct mspan *
pool_get_locked(struct mheap *h, unsigned pool)
{
	struct mspan *s = fixalloc_alloc(&h->span_pool[pool]);
	if (s != NULL) {
		s->pool = (uint8_t)pool;
		s->room_words = pool_words[pool];
	}
	return s;
}

static void
pool_put_locked(struct mheap *h, struct mspan *s)
{
	fixalloc_free(&h->span_pool[s->pool], s);
}

/* ---- spans ---- */

static uintptr_t
take_pages_locked(struct mheap *h, size_t npages, size_t align_pages, size_t *zeroed)
{
	if (align_pages > 1)
		return page_alloc_alloc_aligned(&h->pages, npages, align_pages, zeroed);
	return page_alloc_alloc(&h->pages, npages, zeroed);
}

static uintptr_t
find_pages_locked(struct mheap *h, size_t npages, size_t align_pages, size_t *zeroed)
{
	uintptr_t base = take_pages_locked(h, npages, align_pages, zeroed);
	if (base == 0) {
		size_t ask = npages + (align_pages > 1 ? align_pages : 0);
		if (!grow_locked(h, ask))
			return 0;
		base = take_pages_locked(h, npages, align_pages, zeroed);
	}
	scavenger_note(&h->scav, &h->pages);
	return base;
}

/* What is asked of the page allocator for one span. */
struct span_request {
	size_t npages;         /* the span's own */
	size_t total_pages;    /* with its guards */
	size_t align_pages;
	unsigned span_class;
	unsigned guards;       /* enum span_guard */
};

size_t
mheap_span_pages(const struct mheap *h, const struct mspan *s)
{
	return s->npages + ((s->guards & GUARD_BEFORE) != 0) * h->os_page_pages +
	    ((s->guards & GUARD_AFTER) != 0) * h->os_page_pages;
}

static struct span_request
request_span(const struct mheap *h, size_t npages, unsigned span_class, size_t align_pages)
{
	struct span_request r = { .npages = npages, .align_pages = align_pages,
		.span_class = span_class };
	r.guards = hook_span_guards(span_class, align_pages > 1);
	struct mspan s = { .npages = npages, .guards = (uint8_t)r.guards };
	r.total_pages = mheap_span_pages(h, &s);
	return r;
}

/* Nothing of the program's is in its pages any more; they become free. */
static void
release_span(struct mheap *h, struct mspan *s)
{
	size_t guard_bytes = h->os_page_pages << PAGE_SHIFT;
	uintptr_t at = s->base - ((s->guards & GUARD_BEFORE) != 0 ? guard_bytes : 0);
	size_t total_pages = mheap_span_pages(h, s);
	if (s->guards != 0 && !hook_guards_take_off(s, guard_bytes)) {
		hook_span_keep(h, s);   /* a guard page must not become a free page */
		return;
	}
	hook_span_release(s);
	mutex_lock(&h->lock);
	arena_clear_span(s);
	mspan_set_state(s, SPAN_DEAD);
	a64_fetch_sub(&h->spans_in_use, 1);
	a64_fetch_sub(&h->span_pages_in_use, total_pages);
	page_alloc_free(&h->pages, at, total_pages);
	pool_put_locked(h, s);
	mutex_unlock(&h->lock);
}

static struct mspan *
finish_span(struct mheap *h, struct mspan *s, uintptr_t at, const struct span_request *r,
    bool zeroed)
{
	size_t guard_bytes = h->os_page_pages << PAGE_SHIFT;
	uintptr_t base = at + ((r->guards & GUARD_BEFORE) != 0 ? guard_bytes : 0);
	mspan_init(s, base, r->npages, r->span_class, zeroed || h->config.zeroed,
	    &h->config.span);
	if (r->guards != 0) {
		s->guards = (uint8_t)r->guards;
		hook_guards_put(s, guard_bytes);
	}
	bool ok = hook_span_new(s);
	a64_fetch_add(&h->spans_in_use, 1);
	a64_fetch_add(&h->span_pages_in_use, r->total_pages);
	arena_set_span(s);
	if (unlikely(!ok)) {
		release_span(h, s);
		return NULL;
	}
	return s;
}

/* From the thread's page cache and its one spare mspan: no lock if both last. */
static struct mspan *
alloc_span_cached(struct mheap *h, struct mcache *c, const struct span_request *r)
{
	unsigned pool = pool_of(words_for(r->npages, r->span_class));
	size_t zeroed = 0;
	uintptr_t at = page_cache_alloc(&c->pages, r->total_pages, &zeroed);
	struct mspan *s = c->spare[pool];
	if (at == 0 || s == NULL) {
		mutex_lock(&h->lock);
		if (s == NULL)
			s = pool_get_locked(h, pool);
		if (s != NULL && at == 0) {
			page_cache_flush(&c->pages, &h->pages);
			page_alloc_to_cache(&h->pages, &c->pages);
			at = page_cache_alloc(&c->pages, r->total_pages, &zeroed);
			scavenger_note(&h->scav, &h->pages);
		}
		if (s != NULL && at == 0)
			at = find_pages_locked(h, r->total_pages, 1, &zeroed);
		if (s == NULL && at != 0) {     /* pages, but nothing to describe them */
			page_alloc_free(&h->pages, at, r->total_pages);
			at = 0;
		}
		c->spare[pool] = at != 0 ? pool_get_locked(h, pool) : s;
		mutex_unlock(&h->lock);
	} else {
		c->spare[pool] = NULL;
	}
	return at != 0 ? finish_span(h, s, at, r, zeroed == r->total_pages) : NULL;
}

static struct mspan *
alloc_span_locking(struct mheap *h, const struct span_request *r)
{
	size_t zeroed = 0;
	uintptr_t at = 0;
	mutex_lock(&h->lock);
	struct mspan *s = pool_get_locked(h, pool_of(words_for(r->npages, r->span_class)));
	if (s != NULL)
		at = find_pages_locked(h, r->total_pages, r->align_pages, &zeroed);
	if (s != NULL && at == 0)
		pool_put_locked(h, s);
	mutex_unlock(&h->lock);
	return at != 0 ? finish_span(h, s, at, r, zeroed == r->total_pages) : NULL;
}

/* One that has left the quarantine and waits, guards and all, for its like. */
static struct mspan *
take_over(struct mheap *h, const struct span_request *r)
{
	bool large = span_class_size_class(r->span_class) == 0 && r->span_class != SPAN_TINY;
	struct mspan *s = hook_span_reuse(h, r->npages, r->guards,
	    pool_of(words_for(r->npages, r->span_class)), large);
	if (s == NULL)
		return NULL;
	uint8_t guards = s->guards;
	hook_span_release(s);
	mspan_set_state(s, SPAN_DEAD);
	mspan_init(s, s->base, r->npages, r->span_class, h->config.zeroed, &h->config.span);
	s->guards = guards;
	if (likely(hook_span_new(s)))
		return s;
	release_span(h, s);
	return NULL;
}

struct mspan *
mheap_alloc_span(struct mheap *h, struct mcache *c, size_t npages, unsigned span_class,
    size_t align_pages)
{
	npages = mheap_round_pages(h, npages);
	if (npages > ADDR_PAGES || align_pages > ADDR_PAGES - npages)
		return NULL;
	struct span_request r = request_span(h, npages, span_class, align_pages);
	struct mspan *s = align_pages == 1 ? take_over(h, &r) : NULL;
	if (s != NULL)
		return s;
	if (c != NULL && r.total_pages < CACHED_SPAN_PAGES && align_pages == 1)
		return alloc_span_cached(h, c, &r);
	return alloc_span_locking(h, &r);
}

static bool
release_all(struct mheap *h, struct mspan *s)
{
	bool any = s != NULL;
	while (s != NULL) {
		struct mspan *next = s->next;
		release_span(h, s);
		s = next;
	}
	return any;
}

void
mheap_free_span(struct mheap *h, struct mspan *s)
{
	/* A range that sys_move filled is a mapping of its own, which cannot merge
	 * with its neighbours: mapped afresh, it can. */
	if (s->moved && sys_renew((void *)s->base, mspan_bytes(s)))
		s->moved = false;
	mspan_retire(s);
	aptr_store_release(&s->owner, &mcache_none);
	s->next = NULL;
	release_all(h, hook_span_free(h, s));
}

bool
mheap_flush_quarantine(struct mheap *h)
{
	return release_all(h, hook_quarantine_flush(h));
}

void
mheap_release_unmarked(struct mheap *h)
{
	struct mspan *s = hook_mark_due() ? hook_mark_pass(h) : NULL;
	if (s == NULL)
		return;
	struct mcache *self = mcache_self();
	uint8_t was = mcache_enter(self);
	release_all(h, s);
	mcache_leave_to(self, was);
}

static void
resize_span_locked(struct mheap *h, struct mspan *s, size_t npages)
{
	size_t old = s->npages;
	s->npages = npages;
	s->elem_bytes = npages << PAGE_SHIFT;
	arena_resize_span(s, old);
	a64_fetch_add(&h->span_pages_in_use, npages - old);
}

void
mheap_shrink_span(struct mheap *h, struct mspan *s, size_t npages)
{
	size_t old = s->npages;
	npages = mheap_round_pages(h, npages);
	if (npages >= old)
		return;
	mutex_lock(&h->lock);
	resize_span_locked(h, s, npages);
	page_alloc_free(&h->pages, s->base + mspan_bytes(s), old - npages);
	mutex_unlock(&h->lock);
}

bool
mheap_grow_span(struct mheap *h, struct mspan *s, size_t npages)
{
	size_t zeroed = 0;
	npages = mheap_round_pages(h, npages);
	if (npages > (ADDR_LIMIT - s->base) >> PAGE_SHIFT)
		return false;
	mutex_lock(&h->lock);
	bool ok = page_alloc_alloc_at(&h->pages, s->base + mspan_bytes(s), npages - s->npages,
	    &zeroed);
	if (ok) {
		scavenger_note(&h->scav, &h->pages);
		resize_span_locked(h, s, npages);
	}
	mutex_unlock(&h->lock);
	return ok;
}

/* ---- returning pages ---- */

uint64_t
mheap_scavenge_tick(struct mheap *h)
{
	uint64_t now = sys_now_ns();
	mutex_lock(&h->lock);
	size_t due = scavenger_due_pages(&h->scav, &h->pages, now);
	if (due != 0)
		a64_fetch_add(&h->scavenged_pages, scavenge_pages(&h->pages, &h->lock, due));
	uint64_t next = scavenger_next_ns(&h->scav);
	mutex_unlock(&h->lock);
	return next;
}

size_t
mheap_scavenge_all(struct mheap *h)
{
	mutex_lock(&h->lock);
	size_t n = scavenge_pages(&h->pages, &h->lock, SIZE_MAX);
	a64_fetch_add(&h->scavenged_pages, n);
	mutex_unlock(&h->lock);
	return n << PAGE_SHIFT;
}
