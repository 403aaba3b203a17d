/* mcentral.c - see mcentral.h. */
#include "mcentral.h"

#include "die.h"
#include "mcache.h"
#include "mheap.h"
#include "mspan.h"

/* How many unswept spans one refill may look at before the heap grows. */
enum { SWEEP_BUDGET = 100 };

void
mcentral_init(struct mcentral *m, unsigned span_class)
{
	m->span_class = span_class;
	m->lock.rank = LOCK_MCENTRAL;
	a32_store_relaxed(&m->sweepgen, 2);
}

static size_t
swept_idx(uint32_t sweepgen)
{
	return sweepgen / 2 % 2;
}

void
mcentral_note(struct mcentral *m)
{
	a64_fetch_add(&m->pending, 1);
}

static void
push_locked(struct mheap *h, struct mcentral *m, struct span_set *set, struct mspan *s)
{
	if (likely(span_set_push(set, &h->meta, s)))
		return;
	s->next = aptr_load_relaxed(&m->spare);
	aptr_store_relaxed(&m->spare, s);
}

/* Puts a span that nobody owns where its free slots say. Under the lock: the
 * set it chose must not become the other one, and then swept again, meanwhile. */
static void
put_swept(struct mheap *h, struct mcentral *m, struct mspan *s)
{
	mutex_lock(&m->lock);
	uint32_t sg = a32_load_relaxed(&m->sweepgen);
	s->sweepgen = sg;
	push_locked(h, m, s->avail_n > 0 ? &m->partial[swept_idx(sg)] :
	    &m->full[swept_idx(sg)], s);
	mutex_unlock(&m->lock);
}

static void
adopt(struct mcentral *m, struct mcache *c, struct mspan *s)
{
	s->sweepgen = a32_load_relaxed(&m->sweepgen);
	aptr_store_release(&s->owner, c);
}

/* True if the swept sets have been made the unswept ones. */
static bool
advance(struct mcentral *m)
{
	bool done = false;
	mutex_lock(&m->lock);
	uint32_t sg = a32_load_relaxed(&m->sweepgen);
	size_t unswept = 1 - swept_idx(sg);
	if (a64_load_relaxed(&m->pending) != 0 && span_set_len(&m->partial[unswept]) == 0 &&
	    span_set_len(&m->full[unswept]) == 0) {
		a64_exchange(&m->pending, 0);
		a32_store_release(&m->sweepgen, sg + 2);
		done = true;
	}
	mutex_unlock(&m->lock);
	return done;
}

/* Sweeps s if enough of it is free; true if it then has slots to give. */
static bool
sweep_for_use(struct mspan *s)
{
	mspan_drain(s);
	if (mspan_freed_count(s) >= s->sweep_at)
		mspan_sweep(s);
	return s->avail_n > 0;
}

/* All that stand in spare, linked by next. */
static struct mspan *
take_spare(struct mcentral *m)
{
	if (likely(aptr_load_relaxed(&m->spare) == NULL))
		return NULL;
	mutex_lock(&m->lock);
	struct mspan *s = aptr_exchange(&m->spare, NULL);
	mutex_unlock(&m->lock);
	return s;
}

/* A usable one of spare; the others go where there is room for them now. */
static struct mspan *
take_from_spare(struct mheap *h, struct mcentral *m)
{
	struct mspan *found = NULL, *next;
	for (struct mspan *s = take_spare(m); s != NULL; s = next) {
		next = s->next;
		s->next = NULL;
		if (found == NULL && sweep_for_use(s))
			found = s;
		else
			put_swept(h, m, s);
	}
	return found;
}

static struct mspan *
take_unswept(struct mheap *h, struct mcentral *m, struct span_set *set, int *budget)
{
	while (*budget > 0) {
		struct mspan *s = span_set_pop(set);
		if (s == NULL)
			return NULL;
		(*budget)--;
		if (sweep_for_use(s))
			return s;
		put_swept(h, m, s);
	}
	return NULL;
}

struct mspan *
mcentral_cache_span(struct mheap *h, struct mcentral *m, struct mcache *c)
{
	int budget = SWEEP_BUDGET;
	struct mspan *s = take_from_spare(h, m);
	if (s == NULL)
		s = span_set_pop(&m->partial[swept_idx(a32_load_acquire(&m->sweepgen))]);
	if (s == NULL) {
		if (a64_load_relaxed(&m->pending) != 0)
			advance(m);
		size_t unswept = 1 - swept_idx(a32_load_acquire(&m->sweepgen));
		s = take_unswept(h, m, &m->partial[unswept], &budget);
		if (s == NULL)
			s = take_unswept(h, m, &m->full[unswept], &budget);
	}
	if (s != NULL)
		adopt(m, c, s);
	return s;
}

void
mcentral_uncache_span(struct mheap *h, struct mcentral *m, struct mspan *s)
{
	/* what the owner freed itself, nobody will tell of again */
	sweep_for_use(s);
	if (mspan_is_empty(s)) {
		mheap_free_span(h, s);
		return;
	}
	s->list = LIST_NONE;
	aptr_store_release(&s->owner, &mcache_none);
	put_swept(h, m, s);
}

/* Returns the pages of a span given back. */
static size_t
sweep_or_free(struct mheap *h, struct mcentral *m, struct mspan *s)
{
	sweep_for_use(s);
	if (!mspan_is_empty(s)) {
		put_swept(h, m, s);
		return 0;
	}
	size_t pages = s->npages;
	mheap_free_span(h, s);
	return pages;
}

static size_t
sweep_set(struct mheap *h, struct mcentral *m, struct span_set *set, size_t n)
{
	size_t pages = 0;
	struct mspan *s;
	for (; n > 0 && (s = span_set_pop(set)) != NULL; n--)
		pages += sweep_or_free(h, m, s);
	return pages;
}

static size_t
sweep_spare(struct mheap *h, struct mcentral *m)
{
	size_t pages = 0;
	for (struct mspan *s = take_spare(m), *next; s != NULL; s = next) {
		next = s->next;
		pages += sweep_or_free(h, m, s);
	}
	return pages;
}

size_t
mcentral_sweep_all(struct mheap *h, struct mcentral *m)
{
	size_t pages = sweep_spare(h, m);
	advance(m);
	for (size_t i = 0; i < 2; i++) {
		pages += sweep_set(h, m, &m->partial[i], span_set_len(&m->partial[i]));
		pages += sweep_set(h, m, &m->full[i], span_set_len(&m->full[i]));
	}
	return pages;
}
