/* quarantine.c - see quarantine.h. */
#include "quarantine.h"

#include <string.h>

#include "pinned.h"
#include "../src/lock.h"
#include "../src/mcache.h"
#include "../src/mheap.h"
#include "../src/mspan.h"
#include "../src/rand.h"
#include "../src/sys.h"

enum { POPULATE_MOST_BYTES = 32768 };

static struct {
	struct quarantine_config config;
	struct rand_stream rng;
	struct mspan *spans[QUARANTINE_SPANS];
	size_t n;
	size_t bytes;
	/* spans that have left, until one of their shape is asked for; oldest first */
	struct mspan *leaving[QUARANTINE_LEAVING];
	uint64_t shape[QUARANTINE_LEAVING];     /* of leaving[i] */
	size_t waiting;
	size_t waiting_bytes;                   /* of all of them */
} quar;

void
quarantine_init(const struct quarantine_config *config)
{
	quar.config = *config;
	quar.n = quar.bytes = quar.waiting = quar.waiting_bytes = 0;
	if (config->seed != 0)
		rand_seed_fixed(&quar.rng, config->seed, 1);
	else
		rand_seed_os(&quar.rng);
}

void
quarantine_after_fork_child(void)
{
	pinned_after_fork_child();
	if (quar.config.seed == 0 && quar.config.bytes != 0)
		rand_seed_os(&quar.rng);
}

static size_t
bound_locked(const struct mheap *h)
{
	size_t in_spans = (size_t)a64_load_relaxed(&h->span_pages_in_use) << PAGE_SHIFT;
	size_t share = in_spans / 100 * quar.config.share_percent;
	if (share < QUARANTINE_FLOOR_BYTES || quar.config.fault)
		share = quar.config.fault ? quar.config.bytes : QUARANTINE_FLOOR_BYTES;
	return share < quar.config.bytes ? share : quar.config.bytes;
}

/* Removes a random one. */
static struct mspan *
take_locked(void)
{
	size_t i = rand_below(&quar.rng, (uint32_t)quar.n);
	struct mspan *s = quar.spans[i];
	quar.spans[i] = quar.spans[--quar.n];
	quar.bytes -= mspan_bytes(s);
	return s;
}

static void
push(struct mspan **list, struct mspan *s)
{
	s->next = *list;
	*list = s;
}

void
quarantine_close(struct mspan *s)
{
	s->faulted = sys_fault((void *)s->base, mspan_bytes(s));
	if (s->faulted)
		return;
	sys_unused((void *)s->base, mspan_bytes(s));
	s->parked |= PARKED_RETURNED;
}

void
quarantine_enter_locked(struct mspan *s)
{
	s->list = LIST_NONE;
	if (a32_load_acquire(&s->state) != SPAN_PARKED)
		mspan_set_state(s, SPAN_PARKED);
}

static void
park_locked(struct mspan *s)
{
	quarantine_enter_locked(s);
	quar.spans[quar.n++] = s;
	quar.bytes += mspan_bytes(s);
}

/* Spans of one shape can take each other's place: pages, guards, room for bits,
 * and the way in which the arena map knows them. */
static uint64_t
shape_of(size_t npages, unsigned guards, unsigned pool, bool large)
{
	return (uint64_t)npages << 16 | (guards & (GUARD_BEFORE | GUARD_AFTER)) << 12 |
	    pool << 4 | (unsigned)large << 1 | 1;
}

/* Worth a place among those that wait: what taking over saves is the guards, and the
 * faulting of the whole. Pages that stay mapped are memory, so there it is small spans. */
static bool
may_wait(const struct mspan *s)
{
	if (!quar.config.take_over)
		return false;
	return quar.config.fault ? s->faulted : s->guards != 0 &&
	    mspan_bytes(s) <= LEAVING_MOST_BYTES;
}

static struct mspan *
end_wait_locked(size_t i)
{
	struct mspan *s = quar.leaving[i];
	size_t behind = --quar.waiting - i;
	memmove(&quar.leaving[i], &quar.leaving[i + 1], behind * sizeof(quar.leaving[0]));
	memmove(&quar.shape[i], &quar.shape[i + 1], behind * sizeof(quar.shape[0]));
	quar.waiting_bytes -= mspan_bytes(s);
	return s;
}

static bool
waiting_full(const struct mspan *s)
{
	if (quar.config.fault)
		return quar.waiting == QUARANTINE_LEAVING;
	return quar.waiting == LEAVING_MAPPED ||
	    quar.waiting_bytes + mspan_bytes(s) > LEAVING_ALL_BYTES;
}

/* s has left, and waits; the oldest that wait make room for it. */
static void
wait_locked(struct mspan **out, struct mspan *s)
{
	if (!may_wait(s)) {
		push(out, s);
		return;
	}
	while (waiting_full(s))
		push(out, end_wait_locked(0));
	quar.leaving[quar.waiting] = s;
	quar.shape[quar.waiting++] = shape_of(s->npages, s->guards, s->pool, mspan_is_large(s));
	quar.waiting_bytes += mspan_bytes(s);
}

/* The oldest of its shape, which would be the first to go. */
static struct mspan *
take_waiting_locked(uint64_t shape)
{
	for (size_t i = 0; i < quar.waiting; i++)
		if (quar.shape[i] == shape)
			return end_wait_locked(i);
	return NULL;
}

static struct mspan *
swap_locked(struct mheap *h, struct mspan *s)
{
	struct mspan *out = NULL;
	size_t bound = bound_locked(h);
	if (mspan_bytes(s) > bound) {
		push(&out, s);
	} else {
		park_locked(s);
		bound = bound_locked(h);
	}
	while (quar.n != 0 && (quar.bytes > bound || quar.n == QUARANTINE_SPANS))
		wait_locked(&out, take_locked());
	return out;
}

/* One place stays free for the next span, so that swap_locked has room. */
void
hook_span_keep(struct mheap *h, struct mspan *s)
{
	mutex_lock(&h->lock);
	if (pinned_is_on())
		pinned_keep_locked(s);
	else if (quar.n < QUARANTINE_SPANS - 1)
		park_locked(s);
	else if (a32_load_acquire(&s->state) != SPAN_PARKED)
		mspan_set_state(s, SPAN_PARKED);
	mutex_unlock(&h->lock);
}

/* What leaves is readable again, and zero where the mode promises that. false:
 * the system would not take the guard off. With mprotect that can split a
 * mapping, and the program may have used up vm.max_map_count. */
static bool
make_ready(struct mspan *s)
{
	void *p = (void *)s->base;
	size_t bytes = mspan_bytes(s);
	if (s->faulted) {
		if (!sys_unfault(p, bytes))
			return false;
		s->faulted = false;
		sys_used(p, bytes);
	} else if ((s->parked & PARKED_RETURNED) != 0) {
		sys_used(p, bytes);
	} else if (quar.config.zeroed && mspan_is_large(s)) {
		sys_unused(p, bytes);
		sys_used(p, bytes);
	}
	s->parked = 0;
	return true;
}

/* Those of the list that can go; the others are parked again. */
static struct mspan *
make_all_ready(struct mheap *h, struct mspan *list)
{
	struct mspan *out = NULL, *next;
	for (struct mspan *s = list; s != NULL; s = next) {
		next = s->next;
		if (likely(make_ready(s)))
			push(&out, s);
		else
			hook_span_keep(h, s);
	}
	return out;
}

/* The last look at its slots: what was written into freed ones would be lost
 * with the pages, or be found by an innocent. */
static void
look_at_slots(const struct mspan *s)
{
	uintptr_t where = 0;
	if (hook_slot_check(s, &where) != NULL)
		hook_slot_explain(where, "retirement");
}

struct mspan *
hook_span_free(struct mheap *h, struct mspan *s)
{
	struct mspan *out = NULL;
	look_at_slots(s);
	if (pinned_is_on())
		return make_all_ready(h, pinned_park(h, s));
	if (quar.config.bytes == 0) {
		push(&out, s);
	} else {
		if (quar.config.fault)
			s->faulted = sys_fault((void *)s->base, mspan_bytes(s));
		mutex_lock(&h->lock);
		out = swap_locked(h, s);
		mutex_unlock(&h->lock);
	}
	return make_all_ready(h, out);
}

struct mspan *
hook_span_reuse(struct mheap *h, size_t npages, unsigned guards, unsigned pool, bool large)
{
	uint64_t shape = shape_of(npages, guards, pool, large);
	bool none = quar.config.bytes == 0 || !quar.config.take_over;
	if (none || (!quar.config.fault && guards == 0) || pinned_is_on())
		return NULL;
	mutex_lock(&h->lock);
	struct mspan *s = take_waiting_locked(shape);
	mutex_unlock(&h->lock);
	if (s == NULL)
		return NULL;
	bool faulted = s->faulted;
	if (unlikely(!make_ready(s))) {
		hook_span_keep(h, s);
		return NULL;
	}
	/* small slots soon touch all of it: one call instead of a fault a page */
	if (faulted && !large && mspan_bytes(s) <= POPULATE_MOST_BYTES)
		sys_populate((void *)s->base, mspan_bytes(s));
	return s;
}

struct mspan *
hook_quarantine_flush(struct mheap *h)
{
	struct mspan *out = pinned_take_all(h);
	mutex_lock(&h->lock);
	while (quar.n != 0)
		push(&out, take_locked());
	while (quar.waiting != 0)
		push(&out, end_wait_locked(quar.waiting - 1));
	mutex_unlock(&h->lock);
	return make_all_ready(h, out);
}

bool
hook_mark_due(void)
{
	return pinned_due();
}

struct mspan *
hook_mark_pass(struct mheap *h)
{
	return make_all_ready(h, pinned_pass(h));
}

size_t
hook_quarantine_bytes(void)
{
	return quar.bytes + (quar.config.fault ? 0 : quar.waiting_bytes) + pinned_bytes();
}

bool
quarantine_is_parked(const struct mspan *s)
{
	return a32_load_acquire(&s->state) == SPAN_PARKED && mspan_is_empty(s) &&
	    aptr_load_acquire(&s->owner) == &mcache_none;
}

const char *
hook_quarantine_check(void)
{
	size_t bytes = 0, waiting = 0;
	for (size_t i = 0; i < quar.n; i++) {
		const struct mspan *s = quar.spans[i];
		bytes += mspan_bytes(s);
		if (!quarantine_is_parked(s))
			return "QUAR-2";
	}
	for (size_t i = 0; i < quar.waiting; i++) {
		waiting += mspan_bytes(quar.leaving[i]);
		if (!quarantine_is_parked(quar.leaving[i]))
			return "QUAR-2";
	}
	return bytes == quar.bytes && waiting == quar.waiting_bytes ? pinned_check() : "QUAR-1";
}
