/* mcache.c - see mcache.h. The way to a slot, when the window is empty:
 *
 *   mcache_next_slot
 *     1 the current span, if enough is freed    mspan_sweep
 *     2 the current span's next window          mspan_next_window
 *     3 the ready list                          mspan_sweep
 *       an idle span of the class               take_idle
 *     4 spans that others told us about         take_notes
 *     5 a few of the full list, in turn         look_at_full
 *     6 what dead threads left                  mcentral_cache_span
 *     7 a new span                              mheap_alloc_span */
#include "mcache.h"

#include <string.h>

#include "die.h"
#include "marena.h"
#include "sys.h"
#include "tls.h"
#include "../hardening/hooks.h"

/* Full spans looked at per refill, in turn, before the class grows. */
enum { FULL_LOOKS = 8 };

struct mcache mcache_none;
struct mcache mcache_armed;

static struct {
	struct mutex lock;              /* rank LOCK_ALLM */
	struct mcache *all;
	struct mcache *pool;
	uint64_t number;                /* of the next stream: with seed=N it is the same again */
} caches = { .lock = MUTEX_INIT(LOCK_ALLM) };

/* ---- in and out ---- */

uint8_t
mcache_enter(struct mcache *c)
{
	if (c == NULL) {
		sys_hold_signals();
		return CACHE_IDLE;
	}
	uint8_t was = c->busy;
	c->busy = CACHE_SLOW;
	compiler_fence();
	return was;
}

void
mcache_free_span(struct mheap *h, struct mcache *c, struct mspan *s)
{
	struct mutex *m = c != NULL ? &c->lock : &caches.lock;
	mutex_lock(m);
	mheap_free_span(h, s);
	mutex_unlock(m);
}

/* A handler may defer one more as long as busy says slow. */
static void
free_deferred(struct mcache *c)
{
	while (unlikely(aptr_load_relaxed(&c->deferred) != NULL)) {
		struct mspan *s = aptr_exchange(&c->deferred, NULL), *next;
		for (; s != NULL; s = next) {
			next = s->next;
			mcache_free_span(c->heap, c, s);
		}
	}
}

void
mcache_leave(struct mcache *c)
{
	mcache_leave_to(c, CACHE_IDLE);
}

void
mcache_leave_to(struct mcache *c, uint8_t was)
{
	compiler_fence();
	if (c == NULL) {
		sys_release_signals();
		return;
	}
	if (was == CACHE_SLOW)
		return;
	free_deferred(c);
	c->busy = was;
}

void
outer_lock(struct outer_mutex *m)
{
	struct mcache *self = mcache_self();
	uint8_t was = mcache_enter(self);
	mutex_lock(&m->lock);
	m->holder = self;
	m->was = was;
}

bool
outer_trylock(struct outer_mutex *m)
{
	struct mcache *self = mcache_self();
	uint8_t was = mcache_enter(self);
	if (!mutex_trylock(&m->lock)) {
		mcache_leave_to(self, was);
		return false;
	}
	m->holder = self;
	m->was = was;
	return true;
}

void
outer_unlock(struct outer_mutex *m)
{
	struct mcache *self = m->holder;
	uint8_t was = m->was;
	mutex_unlock(&m->lock);
	mcache_leave_to(self, was);
}

bool
mcache_slow_interrupted(void)
{
	const struct mcache *c = mcache_self();
	return c != NULL && c->busy == CACHE_SLOW;
}

void
mcache_defer_free(struct mcache *c, struct mspan *s)
{
	/* one handler may interrupt another here */
	void *head = aptr_load_relaxed(&c->deferred);
	do {
		s->next = head;
	} while (!aptr_cas(&c->deferred, &head, s));
}

/* ---- queues ---- */

static void
queue_push(struct span_queue *q, struct mspan *s, enum span_list mark)
{
	s->next = NULL;
	s->prev = q->tail;
	if (q->tail != NULL)
		q->tail->next = s;
	else
		q->head = s;
	q->tail = s;
	q->n++;
	s->list = (uint8_t)mark;
}

static void
queue_remove(struct span_queue *q, struct mspan *s)
{
	if (s->prev != NULL)
		s->prev->next = s->next;
	else
		q->head = s->next;
	if (s->next != NULL)
		s->next->prev = s->prev;
	else
		q->tail = s->prev;
	s->next = s->prev = NULL;
	q->n--;
	s->list = LIST_NONE;
}

/* ---- where an owned span belongs ---- */

static int32_t
clamp_budget(size_t n)
{
	return n > INT32_MAX ? INT32_MAX : (int32_t)n;
}

/* Puts s (on no list) on the full, the ready or the idle list by what is free in
 * it, and says after how many more frees by the owner to look again: when it
 * becomes worth a sweep, or when it becomes empty. */
static void
file_span(struct mcache *c, struct mspan *s)
{
	size_t live = mspan_live_count(s);
	size_t freed = mspan_freed_beside(s, live);
	if (live == 0) {
		if (mspan_is_tiny(s))
			c->tiny = 0;    /* nothing is to begin in it now */
		queue_push(&c->idle, s, LIST_IDLE);
		c->idle_n[s->span_class]++;
		c->idle_pages += s->npages;
		s->budget = INT32_MAX;
	} else if (s->avail_n == 0 && freed < s->sweep_at) {
		queue_push(&c->full[s->span_class], s, LIST_FULL);
		s->budget = clamp_budget(s->sweep_at - freed);
	} else {
		queue_push(&c->ready[s->span_class], s, LIST_READY);
		s->budget = clamp_budget(live);
	}
}

static void
unfile_span(struct mcache *c, struct mspan *s)
{
	if (s->list == LIST_FULL)
		queue_remove(&c->full[s->span_class], s);
	else if (s->list == LIST_READY)
		queue_remove(&c->ready[s->span_class], s);
	else if (s->list == LIST_IDLE) {
		queue_remove(&c->idle, s);
		c->idle_n[s->span_class]--;
		c->idle_pages -= s->npages;
	}
}

/* Gives an empty span back. The tiny allocator's block may lie in it. */
static void
free_span(struct mcache *c, struct mspan *s)
{
	if (mspan_is_tiny(s))
		c->tiny = 0;
	c->owned_pages -= s->npages;
	mheap_free_span(c->heap, s);
}

/* The oldest idle spans go while there are too many. */
static void
shed_idle(struct mcache *c)
{
	size_t most = c->peak_pages * c->heap->config.idle_share_percent / 100;
	if (most < IDLE_FLOOR_PAGES)
		most = IDLE_FLOOR_PAGES;
	while (c->idle_pages > most) {
		struct mspan *s = c->idle.head;
		unfile_span(c, s);
		free_span(c, s);
	}
}

/* An owned span, not current, whose frees are drained: refile it. */
static void
look_at(struct mcache *c, struct mspan *s)
{
	unfile_span(c, s);
	file_span(c, s);
	shed_idle(c);
}

static void
clear_live(struct mspan *s, size_t idx)
{
	uint64_t live = a64_load_relaxed(&s->bits[idx / 64].live);
	a64_store_release(&s->bits[idx / 64].live, live & ~((uint64_t)1 << (idx % 64)));
}

/* The slot lives until the lock is held, and so the span is c's own still. */
void
mcache_budget_spent(struct mcache *c, struct mspan *s, uintptr_t addr)
{
	size_t idx;
	mspan_slot(s, addr, &idx);
	mcache_enter(c);
	mutex_lock(&c->lock);
	clear_live(s, idx);
	if (s->list == LIST_CURRENT || s->list == LIST_NONE) {
		s->budget = INT32_MAX;
	} else {
		mspan_drain(s);
		look_at(c, s);
	}
	mutex_unlock(&c->lock);
	mcache_leave(c);
}

void
mcache_free_local(struct mcache *c, struct mspan *s, size_t idx)
{
	c->busy = CACHE_FAST;
	compiler_fence();
	if (--s->budget == 0) {
		mcache_budget_spent(c, s, s->base + idx * s->elem_bytes);
		return;
	}
	clear_live(s, idx);
	compiler_fence();
	c->busy = CACHE_IDLE;
}

/* ---- frees by others ---- */

static void
notify_owner(struct mheap *h, struct mspan *s)
{
	struct mcache *c = aptr_load_acquire(&s->owner);
	if (c == &mcache_none) {
		/* s may be another span by now: then another class is told in vain */
		mcentral_note(&h->central[byte_load_relaxed(&s->span_class)]);
		return;
	}
	uint32_t zero = 0;
	if (!a32_cas(&s->note_queued, &zero, 1))
		return;
	void *head = aptr_load_relaxed(&c->notes);
	do {
		aptr_store_relaxed(&s->note_next, head);
	} while (!aptr_cas(&c->notes, &head, s));
}

bool
mcache_free_remote(struct mheap *h, struct mspan *s, size_t idx)
{
	uint64_t bit = (uint64_t)1 << (idx % 64);
	uint64_t live = a64_load_acquire(&s->bits[idx / 64].live);
	if ((live & bit) == 0)
		return false;
	unsigned notify_at = s->notify_at;
	uint64_t before = a64_fetch_or(&s->bits[idx / 64].remote, bit);
	if ((before & bit) != 0)
		return false;
	/* Told once when enough of a word is free, and once when all of it is.
	 * From here on s may be anybody's: its memory stays an mspan. */
	if (popcount64(before) + 1 == notify_at || (live & ~(before | bit)) == 0)
		notify_owner(h, s);
	return true;
}

/* Looks at every span somebody told us about. */
static void
take_notes(struct mcache *c)
{
	struct mspan *s = aptr_load_relaxed(&c->notes);
	if (s == NULL)
		return;
	for (s = aptr_exchange(&c->notes, NULL); s != NULL;) {
		struct mspan *next = aptr_load_relaxed(&s->note_next);
		a32_exchange(&s->note_queued, 0);
		if (aptr_load_acquire(&s->owner) != c) {
			/* it moved on; whoever has it now gets the word */
			if (a32_load_acquire(&s->state) == SPAN_IN_USE)
				notify_owner(c->heap, s);
		} else if (s->list == LIST_FULL || s->list == LIST_READY) {
			mspan_drain(s);
			look_at(c, s);
		}
		s = next;
	}
}

static void
look_at_full(struct mcache *c, unsigned spc)
{
	struct span_queue *q = &c->full[spc];
	size_t n = q->n < FULL_LOOKS ? q->n : FULL_LOOKS;
	for (; n > 0; n--) {
		struct mspan *s = q->head;
		mspan_drain(s);
		look_at(c, s);
	}
}

/* ---- refill ---- */

static void
sweep(struct mcache *c, struct mspan *s)
{
	if (mspan_is_tiny(s))
		c->tiny = 0;            /* its block may be one of those that are free */
	mspan_sweep(s);
}

static void
set_current(struct mcache *c, unsigned spc, struct mspan *s)
{
	struct mcache_alloc *a = &c->alloc[spc];
	s->list = LIST_CURRENT;
	s->budget = INT32_MAX;
	a->span = s;
	a->base = s->base;
	a->elem_bytes = (uint32_t)s->elem_bytes;
}

static bool
draw_window(struct mcache *c, struct mcache_alloc *a)
{
	a->fresh = !a->span->needzero;
	uint32_t most = a->asked == 0 ? FIRST_WINDOW_SLOTS :
	    a->asked < WINDOW_SLOTS ? 2u * a->asked : WINDOW_SLOTS;
	a->n = mspan_draw_window(a->span, a->order, c->rng, most);
	if (a->n == 0)
		return false;
	a->asked = (uint8_t)(a->n > most ? a->n : most);
	a->drawn = (uint8_t)a->n;
	c->handed_out += a->n;
	return true;
}

/* Slots freed since the last sweep come before slots never used, once there are
 * enough of them: their pages are there already. */
static bool
next_window(struct mcache *c, struct mcache_alloc *a)
{
	if (a->span == NULL)
		return false;
	if (mspan_freed_count(a->span) >= a->span->sweep_at)
		sweep(c, a->span);
	return draw_window(c, a);
}

/* The current span has no window left. */
static void
retire_current(struct mcache *c, unsigned spc)
{
	struct mcache_alloc *a = &c->alloc[spc];
	struct mspan *s = a->span;
	if (s == NULL)
		return;
	a->span = NULL;
	mspan_drain(s);
	file_span(c, s);
	shed_idle(c);
}

/* The idle span of the class that was last used. */
static struct mspan *
take_idle(struct mcache *c, unsigned spc)
{
	if (c->idle_n[spc] == 0)
		return NULL;
	struct mspan *s = c->idle.tail;
	while (s->span_class != spc)
		s = s->prev;
	unfile_span(c, s);
	if (s->avail_n < s->nelems)
		sweep(c, s);
	return s;
}

static struct mspan *
take_ready(struct mcache *c, unsigned spc)
{
	struct span_queue *q = &c->ready[spc];
	while (q->head != NULL) {
		struct mspan *s = q->head;
		queue_remove(q, s);
		mspan_drain(s);
		if (mspan_freed_count(s) >= s->sweep_at)
			sweep(c, s);
		if (s->avail_n != 0)
			return s;
		file_span(c, s);
	}
	return take_idle(c, spc);
}

static size_t
span_class_pages(unsigned spc)
{
	if (spc == SPAN_TINY)
		return TINY_SPAN_PAGES;
	return size_classes[span_class_size_class(spc)].span_pages;
}

static struct mspan *
find_span(struct mcache *c, unsigned spc)
{
	struct mspan *s = take_ready(c, spc);
	if (s != NULL)
		return s;
	take_notes(c);
	look_at_full(c, spc);
	s = take_ready(c, spc);
	if (s != NULL)
		return s;
	s = mcentral_cache_span(c->heap, &c->heap->central[spc], c);
	if (s == NULL) {
		if (c->heap->config.scavenge_on_slow_path)
			mheap_scavenge_tick(c->heap);
		s = mheap_alloc_span(c->heap, c, span_class_pages(spc), spc, 1);
		if (s != NULL)
			aptr_store_release(&s->owner, c);
	}
	if (s != NULL)
		c->owned_pages += s->npages;
	if (c->peak_pages < c->owned_pages)
		c->peak_pages = c->owned_pages;
	return s;
}

/* What became of the current spans that no refill asked for lately: those in
 * which nothing lives are idle. */
static void
review(struct mcache *c)
{
	take_notes(c);
	for (unsigned spc = 0; spc < SPAN_CLASSES_ALL; spc++) {
		struct mcache_alloc *a = &c->alloc[spc];
		if (a->review != c->review)
			a->asked = 0;
		if (a->span == NULL || a->review == c->review || !mspan_is_empty(a->span))
			continue;
		mspan_return_window(a->span, a->order, a->n);
		c->handed_out -= a->n;
		a->n = 0;
		retire_current(c, spc);
	}
	c->review++;
	c->peak_pages -= c->peak_pages / PEAK_DECAY;
	if (c->peak_pages < c->owned_pages)
		c->peak_pages = c->owned_pages;
	shed_idle(c);
}

static NOINLINE bool
refill(struct mcache *c, unsigned spc)
{
	struct mcache_alloc *a = &c->alloc[spc];
	mcache_enter(c);
	mutex_lock(&c->lock);
	hook_patrol(a->span, ++c->slow_ops);
	a->review = c->review;
	if (unlikely(c->slow_ops % REVIEW_REFILLS == 0))
		review(c);
	bool ok = next_window(c, a);
	if (!ok) {
		retire_current(c, spc);
		struct mspan *s = find_span(c, spc);
		if (s != NULL) {
			set_current(c, spc, s);
			ok = draw_window(c, a);
		}
	}
	mutex_unlock(&c->lock);
	mcache_leave(c);
	return ok;
}

void *
mcache_next_slot(struct mcache *c, unsigned spc, bool *fresh)
{
	struct mcache_alloc *a = &c->alloc[spc];
	/* a handler may use up the window between the refill and the claim */
	for (;;) {
		c->busy = CACHE_FAST;
		compiler_fence();
		if (likely(a->n != 0))
			break;
		c->busy = CACHE_IDLE;
		if (!refill(c, spc))
			return NULL;
	}
	uint16_t idx = a->order[--a->n];
	uint64_t live = a64_load_relaxed(&a->span->bits[idx / 64].live);
	a64_store_relaxed(&a->span->bits[idx / 64].live, live | (uint64_t)1 << (idx % 64));
	*fresh = a->fresh;
	uintptr_t base = a->base;
	size_t elem_bytes = a->elem_bytes;
	compiler_fence();
	c->busy = CACHE_IDLE;
	return (void *)(base + idx * elem_bytes);
}

/* ---- a cache's life ---- */

/* A dead thread's stream goes on in the next: nobody knows where it was. */
static void
seed_stream(struct mheap *h, struct mcache *c, uint64_t number)
{
	c->rng = h->config.randomize ? &c->stream : NULL;
	if (h->config.seed != 0)
		rand_seed_fixed(&c->stream, h->config.seed, number);
	else if (h->config.randomize && !c->seeded)
		rand_seed_os(&c->stream);
	c->seeded = h->config.seed == 0 && h->config.randomize;
}

struct mcache *
mcache_acquire(struct mheap *h, int tid)
{
	mutex_lock(&caches.lock);
	struct mcache *c = caches.pool;
	if (c != NULL) {
		caches.pool = c->next_free;
	} else {
		c = persistent_alloc(&h->meta, sizeof(*c), CACHE_LINE);
		if (c != NULL) {
			c->lock.rank = LOCK_MCACHE;
			c->heap = h;
			c->next = caches.all;
			aptr_store_release((atomic_ptr *)&caches.all, c);
		}
	}
	if (c != NULL) {
		if (c->heap != h)       /* read without a lock: written only in tests */
			c->heap = h;
		mutex_lock(&c->lock);       /* others look at in_use under it */
		c->tid = tid;
		c->exit_round = 0;
		c->in_use = true;
		mutex_unlock(&c->lock);
		seed_stream(h, c, ++caches.number);
	}
	mutex_unlock(&caches.lock);
	return c;
}

/* All of one class: the window's rest, the current span, both lists. */
static void
release_class(struct mcache *c, unsigned spc)
{
	struct mcache_alloc *a = &c->alloc[spc];
	struct mcentral *m = &c->heap->central[spc];
	if (a->span != NULL) {
		mspan_return_window(a->span, a->order, a->n);
		c->handed_out -= a->n;
		a->n = 0;
		struct mspan *s = a->span;
		a->span = NULL;
		c->owned_pages -= s->npages;
		mcentral_uncache_span(c->heap, m, s);
	}
	while (c->full[spc].head != NULL || c->ready[spc].head != NULL) {
		struct mspan *s = c->full[spc].head != NULL ? c->full[spc].head :
		    c->ready[spc].head;
		unfile_span(c, s);
		c->owned_pages -= s->npages;
		mcentral_uncache_span(c->heap, m, s);
	}
}

static void
release_idle(struct mcache *c)
{
	while (c->idle.head != NULL) {
		struct mspan *s = c->idle.head;
		unfile_span(c, s);
		free_span(c, s);
	}
}

static void
flush_pages(struct mcache *c)
{
	mutex_lock(&c->heap->lock);
	page_cache_flush(&c->pages, &c->heap->pages);
	mutex_unlock(&c->heap->lock);
}

/* Caller holds c->lock, or is alone. */
static void
empty_cache_locked(struct mcache *c)
{
	c->tiny = 0;
	c->peak_pages = 0;
	release_idle(c);
	for (unsigned spc = 0; spc < SPAN_CLASSES_ALL; spc++) {
		c->alloc[spc].asked = c->alloc[spc].drawn = 0;
		if (c->alloc[spc].span != NULL || c->full[spc].n + c->ready[spc].n != 0)
			release_class(c, spc);
	}
	flush_pages(c);
	take_notes(c);          /* passes on what came in meanwhile */
}

void
mcache_release(struct mcache *c)
{
	mcache_enter(c);
	mutex_lock(&c->lock);
	empty_cache_locked(c);
	c->tid = 0;
	c->in_use = false;
	mutex_unlock(&c->lock);
	mcache_leave(c);
	mutex_lock(&caches.lock);
	c->next_free = caches.pool;
	caches.pool = c;
	mutex_unlock(&caches.lock);
}

/* ---- seen from outside ---- */

struct mcache *
mcache_first(void)
{
	return aptr_load_acquire((atomic_ptr *)&caches.all);
}

/* Frees the spans of a queue in which nothing lives; for a cache whose lock is
 * held. The owner cannot be at work on them: it has no object there. */
static size_t
trim_queue_locked(struct mcache *c, struct span_queue *q, bool own)
{
	size_t pages = 0;
	for (struct mspan *s = q->head, *next; s != NULL; s = next) {
		next = s->next;
		/* another thread's tiny block may lie in an empty span */
		if (!mspan_is_empty(s) || (!own && mspan_is_tiny(s)))
			continue;
		mspan_drain(s);
		unfile_span(c, s);
		pages += s->npages;
		free_span(c, s);
	}
	return pages;
}

/* The owner's own current spans, where nothing lives in them. */
static size_t
trim_current(struct mcache *c)
{
	size_t pages = 0;
	for (unsigned spc = 0; spc < SPAN_CLASSES_ALL; spc++) {
		struct mcache_alloc *a = &c->alloc[spc];
		struct mspan *s = a->span;
		if (s == NULL || !mspan_is_empty(s))
			continue;
		mspan_drain(s);
		c->handed_out -= a->n;
		a->n = 0;
		a->span = NULL;
		s->list = LIST_NONE;
		pages += s->npages;
		free_span(c, s);
	}
	return pages;
}

size_t
mcache_trim_all(struct mheap *h, struct mcache *self)
{
	size_t pages = 0;
	uint8_t was = mcache_enter(self);
	for (struct mcache *c = mcache_first(); c != NULL; c = c->next) {
		if (c->heap != h)
			continue;
		mutex_lock(&c->lock);
		if (c == self || !c->in_use)
			take_notes(c);      /* somebody may have been late to tell */
		if (c == self)
			pages += trim_current(c);
		flush_pages(c);
		pages += trim_queue_locked(c, &c->idle, c == self);
		for (unsigned spc = 0; spc < SPAN_CLASSES_ALL; spc++) {
			pages += trim_queue_locked(c, &c->full[spc], c == self);
			pages += trim_queue_locked(c, &c->ready[spc], c == self);
		}
		mutex_unlock(&c->lock);
	}
	mcache_leave_to(self, was);
	return pages;
}

/* ---- fork ---- */

void
mcache_lock_all(void)
{
	mutex_lock(&caches.lock);
	for (struct mcache *c = caches.all; c != NULL; c = c->next)
		mutex_lock(&c->lock);
}

void
mcache_unlock_all(void)
{
	for (struct mcache *c = caches.all; c != NULL; c = c->next)
		mutex_unlock(&c->lock);
	mutex_unlock(&caches.lock);
}

/* The thread of c was somewhere in its fast path, at best. Slots it was about
 * to hand out count as freed; live bits are believed. */
static void
abandon(struct mcache *c)
{
	for (unsigned spc = 0; spc < SPAN_CLASSES_ALL; spc++) {
		struct mcache_alloc *a = &c->alloc[spc];
		if (a->n > WINDOW_SLOTS)
			a->n = 0;
	}
	empty_cache_locked(c);
	c->busy = CACHE_IDLE;
	c->tid = 0;
	c->in_use = false;
	c->next_free = caches.pool;
	caches.pool = c;
}

/* An open window is a list of what comes next: left as it is, every child of one
 * parent would be given the same slots in the same order. In the middle of malloc,
 * where a handler forked, the window is in use and stays. */
static void
put_windows_back(struct mcache *c)
{
	for (unsigned spc = 0; spc < SPAN_CLASSES_ALL; spc++) {
		struct mcache_alloc *a = &c->alloc[spc];
		if (a->n == 0)
			continue;
		mspan_return_window(a->span, a->order, a->n);
		c->handed_out -= a->n;
		a->n = 0;
	}
}

void
mcache_after_fork_child(struct mcache *self, struct mcache *shared, bool idle)
{
	mutex_reset(&caches.lock);
	for (struct mcache *c = caches.all; c != NULL; c = c->next) {
		mutex_reset(&c->lock);
		c->seeded = false;      /* the parent has the same stream */
		if (!c->in_use)
			continue;
		if (c == self || c == shared) {
			c->tid = c == self ? sys_gettid() : 0;
			if (c->heap->config.seed == 0 && c->rng != NULL) {
				rand_seed_os(c->rng);
				if (c == shared || idle)
					put_windows_back(c);
			}
		} else {
			abandon(c);
		}
	}
}

void
mcache_reset(void)
{
	caches.all = NULL;
	caches.pool = NULL;
	caches.number = 0;
}
