/* pinned.c - see pinned.h. */
#include "pinned.h"

#include "mark.h"
#include "markreport.h"
#include "quarantine.h"
#include "../src/atomic.h"
#include "../src/lock.h"
#include "../src/mcache.h"
#include "../src/mheap.h"
#include "../src/mspan.h"
#include "../src/report.h"
#include "../src/sys.h"
#include "../src/tls.h"

#define RETRY_NS ((uint64_t)30 * 1000000000)
enum { RETRY_DOUBLINGS = 7 };

struct span_fifo {
	struct mspan *head, *tail;
	size_t n;
};

static struct {
	struct pinned_config config;
	struct span_fifo waiting;
	struct span_fifo watched;
	size_t bytes, n, resident_bytes;
	size_t since_bytes, since_spans;        /* the last pass */
	atomic_u32 due;
	atomic_u64 not_before_ns;               /* no pass: the last one failed */
	uint64_t failures;                      /* in a row */
	bool warned;
	struct pinned_stats stats;
} pin;

/* What a pass works with, in scratch memory beside its stack. */
struct pass {
	struct mheap *heap;
	struct mark_watch *watch;
	struct mark_reference *first;           /* of each watch, for the report; or NULL */
	size_t cap;
	struct mspan *leaving;
};

/* ---- lists ---- */

static void
fifo_push(struct span_fifo *q, struct mspan *s)
{
	s->next = NULL;
	if (q->tail != NULL)
		q->tail->next = s;
	else
		q->head = s;
	q->tail = s;
	q->n++;
}

static struct mspan *
fifo_pop(struct span_fifo *q)
{
	struct mspan *s = q->head;
	if (s == NULL)
		return NULL;
	q->head = s->next;
	if (q->head == NULL)
		q->tail = NULL;
	q->n--;
	s->next = NULL;
	return s;
}

static void
push(struct mspan **list, struct mspan *s)
{
	s->next = *list;
	*list = s;
}

static bool
is_resident(const struct mspan *s)
{
	return !s->faulted && (s->parked & PARKED_RETURNED) == 0;
}

static void
count_in_locked(const struct mspan *s)
{
	pin.n++;
	pin.bytes += mspan_bytes(s);
	if (is_resident(s))
		pin.resident_bytes += mspan_bytes(s);
}

static void
count_out_locked(const struct mspan *s)
{
	pin.n--;
	pin.bytes -= mspan_bytes(s);
	if (is_resident(s))
		pin.resident_bytes -= mspan_bytes(s);
}

/* ---- parking ---- */

AT_ENDS void
pinned_init(const struct pinned_config *config)
{
	pin.config = *config;
	pin.waiting = pin.watched = (struct span_fifo){ NULL, NULL, 0 };
	pin.bytes = pin.n = pin.resident_bytes = 0;
	pin.since_bytes = pin.since_spans = 0;
	a32_store_relaxed(&pin.due, 0);
	a64_store_relaxed(&pin.not_before_ns, 0);
	pin.failures = 0;
	pin.warned = false;
	pin.stats = (struct pinned_stats){ 0 };
}

bool
pinned_is_on(void)
{
	return pin.config.on;
}

static size_t
pass_bytes_locked(const struct mheap *h)
{
	size_t in_spans = (size_t)a64_load_relaxed(&h->span_pages_in_use) << PAGE_SHIFT;
	size_t live = in_spans > pin.bytes ? in_spans - pin.bytes : 0;
	size_t share = live / 100 * pin.config.pass_percent;
	size_t want = share > pin.config.pass_bytes ? share : pin.config.pass_bytes;
	/* a pass comes before anything has to leave without one */
	return want < pin.config.most_bytes / 2 ? want : pin.config.most_bytes / 2;
}

static bool
is_due_locked(const struct mheap *h)
{
	return pin.since_bytes >= pass_bytes_locked(h) || pin.since_spans >= pin.config.pass_spans;
}

static struct mspan *
take_oldest_locked(void)
{
	struct mspan *out = NULL;
	while (pin.bytes > pin.config.most_bytes && pin.waiting.n > 1) {
		struct mspan *s = fifo_pop(&pin.waiting);
		count_out_locked(s);
		pin.stats.unmarked_bytes += mspan_bytes(s);
		push(&out, s);
	}
	return out;
}

static void
warn_unmarked(void)
{
	report_warn("quarantine=mark: more is parked than mark_most_bytes allows, because it is "
	    "pointed to or no mark pass succeeds; the oldest leave unmarked", NULL);
}

void
pinned_keep_locked(struct mspan *s)
{
	quarantine_enter_locked(s);
	fifo_push(&pin.waiting, s);
	count_in_locked(s);
}

struct mspan *
pinned_park(struct mheap *h, struct mspan *s)
{
	if (pin.config.fault || pin.resident_bytes + mspan_bytes(s) > pin.config.resident_bytes)
		quarantine_close(s);
	mutex_lock(&h->lock);
	pinned_keep_locked(s);
	pin.since_bytes += mspan_bytes(s);
	pin.since_spans++;
	if (is_due_locked(h))
		a32_store_relaxed(&pin.due, 1);
	struct mspan *out = take_oldest_locked();
	bool warn = out != NULL && !pin.warned;
	pin.warned |= warn;
	mutex_unlock(&h->lock);
	if (warn)
		warn_unmarked();
	return out;
}

struct mspan *
pinned_take_all(struct mheap *h)
{
	struct mspan *out = NULL, *s;
	mutex_lock(&h->lock);
	while ((s = fifo_pop(&pin.waiting)) != NULL) {
		count_out_locked(s);
		push(&out, s);
	}
	mutex_unlock(&h->lock);
	return out;
}

/* ---- a pass ---- */

bool
pinned_due(void)
{
	return a32_load_relaxed(&pin.due) != 0;
}

static size_t
waiting_now(struct mheap *h)
{
	mutex_lock(&h->lock);
	size_t n = pin.waiting.n;
	mutex_unlock(&h->lock);
	return n;
}

/* The oldest of those that wait are the ones to be watched. */
static size_t
take_watched(struct pass *p)
{
	size_t n = 0;
	mutex_lock(&p->heap->lock);
	size_t left = pin.bytes;
	for (struct mspan *s; n < p->cap && (s = fifo_pop(&pin.waiting)) != NULL; n++) {
		fifo_push(&pin.watched, s);
		p->watch[n] = (struct mark_watch){ .base = s->base,
			.end = s->base + mspan_bytes(s) };
		left -= mspan_bytes(s);
	}
	/* what was parked after the room for the watches was made waits for the next pass */
	pin.since_bytes = left;
	pin.since_spans = pin.waiting.n;
	a32_store_relaxed(&pin.due, is_due_locked(p->heap));
	mutex_unlock(&p->heap->lock);
	return n;
}

static void
fail_pass(void)
{
	uint64_t wait = RETRY_NS << (pin.failures < RETRY_DOUBLINGS ? pin.failures :
	    RETRY_DOUBLINGS);
	pin.failures++;
	pin.stats.failed++;
	a64_store_relaxed(&pin.not_before_ns, sys_now_ns() + wait);
}

static bool
begin(struct mark_request *req)
{
	struct pass *p = req->arg;
	if (pin.watched.n != 0)
		return false;
	p->cap = waiting_now(p->heap);
	if (p->cap == 0)
		return false;
	p->watch = stw_scratch_alloc(p->cap * sizeof(*p->watch));
	if (p->watch != NULL && pin.config.report)
		p->first = stw_scratch_alloc(p->cap * sizeof(*p->first));
	if (p->watch == NULL) {
		fail_pass();
		return false;
	}
	req->watch = p->watch;
	req->n_watch = take_watched(p);
	return true;
}

/* Of all, the first that is on no stack. */
static void
note_first(const struct mark_reference *r, void *arg)
{
	struct pass *p = arg;
	if (p->first == NULL)
		return;
	struct mark_reference *have = &p->first[r->watch];
	if (have->at == 0 || (have->place == MARK_IN_STACK && r->place != MARK_IN_STACK))
		*have = *r;
}

/* Pinned pages are not to cost memory. Nobody else has these spans now. */
static size_t
close_pinned(const struct pass *p)
{
	size_t i = 0, bytes = 0;
	for (struct mspan *s = pin.watched.head; s != NULL; s = s->next, i++)
		if (p->watch[i].references != 0 && is_resident(s)) {
			quarantine_close(s);
			bytes += is_resident(s) ? 0 : mspan_bytes(s);
		}
	return bytes;
}

/* A word on a stack is often one that the next call overwrites: it is reported if
 * it, or another one there, still stands when the next pass comes. */
static bool
worth_telling(struct mspan *s, const struct mark_reference *r)
{
	bool seen = (s->parked & PARKED_SEEN) != 0;
	if ((s->parked & PARKED_TOLD) != 0)
		return false;
	s->parked |= PARKED_SEEN;
	if (r->place == MARK_IN_STACK && !seen)
		return false;
	s->parked |= PARKED_TOLD;
	return true;
}

static void
tell_pinned(const struct pass *p)
{
	size_t i = 0;
	if (p->first == NULL)
		return;
	for (struct mspan *s = pin.watched.head; s != NULL; s = s->next, i++)
		if (p->watch[i].references != 0 && worth_telling(s, &p->first[i]))
			mark_report_reference(&p->first[i], p->watch[i].references);
}

/* Each watched span stays or leaves; without a verdict all stay. */
static void
part(struct pass *p, bool ok)
{
	size_t closed = ok ? close_pinned(p) : 0;
	if (ok)
		tell_pinned(p);
	mutex_lock(&p->heap->lock);
	pin.resident_bytes -= closed;
	pin.stats.pinned_spans = 0;
	struct mspan *s;
	for (size_t i = 0; (s = fifo_pop(&pin.watched)) != NULL; i++) {
		if (!ok || p->watch[i].references != 0) {
			pin.stats.pinned_spans++;
			fifo_push(&pin.waiting, s);
			continue;
		}
		count_out_locked(s);
		pin.stats.released_bytes += mspan_bytes(s);
		pin.stats.released_spans++;
		push(&p->leaving, s);
	}
	mutex_unlock(&p->heap->lock);
}

static void
end(struct mark_request *req, bool ok)
{
	struct pass *p = req->arg;
	if (p->watch == NULL)
		return;
	if (ok) {
		pin.failures = 0;
		pin.stats.passes++;
	} else {
		fail_pass();
	}
	part(p, ok);
	stw_scratch_free(p->first, p->cap * sizeof(*p->first));
	stw_scratch_free(p->watch, p->cap * sizeof(*p->watch));
}

/* A thread without a cache may be a handler that interrupted somebody with the
 * list of all caches locked; who has one and is idle holds no lock of ours, or
 * the world's, and that is only tried. */
struct mspan *
pinned_pass(struct mheap *h)
{
	struct pass p = { .heap = h };
	struct mark_request req = { .no_wait = true, .begin = begin, .end = end,
		.on_reference = note_first, .arg = &p };
	struct mark_result r;
	const struct mcache *c = mcache_self();
	if (c == NULL || c->busy != CACHE_IDLE ||
	    sys_now_ns() < a64_load_relaxed(&pin.not_before_ns))
		return NULL;
	mark_run(&req, &r);
	return p.leaving;
}

void
pinned_after_fork_child(void)
{
	struct mspan *s;
	while ((s = fifo_pop(&pin.watched)) != NULL)
		fifo_push(&pin.waiting, s);
}

/* ---- checks and figures ---- */

size_t
pinned_bytes(void)
{
	return pin.bytes;
}

struct sums {
	size_t n, bytes, resident_bytes;
	bool parked;
};

static void
add_up(const struct span_fifo *q, struct sums *sum)
{
	for (const struct mspan *s = q->head; s != NULL; s = s->next) {
		sum->n++;
		sum->bytes += mspan_bytes(s);
		sum->resident_bytes += is_resident(s) ? mspan_bytes(s) : 0;
		sum->parked &= quarantine_is_parked(s);
	}
}

/* While a pass closes what it has in its hands, only the sums of both hold. */
const char *
pinned_check(void)
{
	struct sums sum = { .parked = true };
	add_up(&pin.waiting, &sum);
	add_up(&pin.watched, &sum);
	if (!sum.parked)
		return "QUAR-2";
	bool ok = sum.n == pin.n && sum.bytes == pin.bytes &&
	    (pin.watched.n != 0 || sum.resident_bytes == pin.resident_bytes);
	return ok ? NULL : "PIN-1";
}

void
pinned_read_stats(struct pinned_stats *out)
{
	*out = pin.stats;
	out->bytes = pin.bytes;
	out->spans = pin.n;
	out->resident_bytes = pin.resident_bytes;
}
