/* h3_span.c - H3: one span, its bits and look-ups, against a model of one byte per
 * slot. Any class, the random or the ordered window, frees by the owner and by
 * others, windows put back, drains, sweeps, and a second free that a race let
 * through, which the drain must name.
 *
 *   FREE -window-> WINDOW -malloc-> LIVE -free-> FREED -sweep-> FREE
 *                                    +---remote--> REMOTE -drain-> FREED
 *
 * The span's pages need not be there: nothing touches a slot. */
#include <string.h>

#include "die.h"
#include "fheap.h"
#include "harness.h"
#include "mcache.h"
#include "mspan.h"
#include "verify.h"

enum state { FREE, WINDOW, LIVE, REMOTE, FREED };

#define OPS(OP) \
	OP(POP, "pop", 0, 15) OP(OWN_FREE, "own_free", 16, 27) \
	OP(REMOTE_FREE, "remote_free", 28, 39) OP(DRAIN, "drain", 40, 43) \
	OP(SWEEP, "sweep", 44, 47) OP(RETURN, "return", 48, 49) OP(LOOK, "look", 50, 61) \
	OP(RACE, "race", 62, 63)

enum op { OPS(SGF_ENUM) };

static const uint8_t op_of[SGF_CODES] = { OPS(SGF_CODE) };
static const struct sgf_language language = {
	.op = { OPS(SGF_NAME) },
	.knob = { "class", "window" },
};

enum { SPAN_WORDS = 257, BASE_PAGE = 1 << 20 };

static char room[offsetof(struct mspan, bits) +
    SPAN_WORDS * (sizeof(struct slot_word) + 2 * sizeof(uint64_t))] ALIGNED(CACHE_LINE);
static struct mspan *const span = (void *)room;
static uint8_t model[SPAN_MAX_SLOTS];
static uint16_t order[WINDOW_SLOTS];
static uint32_t window;
static struct rand_stream stream, *rng;

static size_t
count(enum state st)
{
	size_t n = 0;

	for (size_t i = 0; i < span->nelems; i++)
		n += model[i] == st;
	return n;
}

static void
compare(void)
{
	size_t live = count(LIVE);

	SG_CHECK(MODEL, mspan_live_count(span) == live, "%zu live, the model says %zu",
	    mspan_live_count(span), live);
	SG_CHECK(MODEL, span->avail_n == count(FREE), "%u available, the model says %zu",
	    span->avail_n, count(FREE));
	SG_CHECK(MODEL, mspan_is_empty(span) == (live == 0), "empty: %d, the model has %zu live",
	    mspan_is_empty(span), live);
	SG_CHECK(MODEL, window != 0 || mspan_freed_count(span) == count(FREED) + count(REMOTE),
	    "%zu freed, the model says %zu", mspan_freed_count(span), count(FREED) + count(REMOTE));
	for (size_t i = 0; i < span->nelems; i++)
		SG_CHECK(MODEL, mspan_slot_live(span, i) == (model[i] == LIVE), "slot %zu: live %d", i,
		    mspan_slot_live(span, i));
	const char *tag = verify_span(span);
	SG_CHECK(VERIFY, tag == NULL, "%s", tag);
}

/* Slots come from FREE, each once; the ordered window is ascending and lowest. */
static void
refill(void)
{
	size_t before = count(FREE);

	window = mspan_next_window(span, order, rng);
	size_t want = before < span->window ? before : span->window;
	SG_CHECK(MODEL, window == want, "a window of %u, the model says %zu", window, want);
	for (uint32_t i = 0; i < window; i++) {
		SG_CHECK(OVERLAP, order[i] < span->nelems && model[order[i]] == FREE,
		    "slot %u is handed out and was in state %d", order[i], model[order[i]]);
		SG_CHECK(MODEL, rng != NULL || i == 0 || order[i] < order[i - 1],
		    "the ordered window is not ascending at %u", i);
		model[order[i]] = WINDOW;
		sg_note(order[i]);
	}
}

static void
pop(void)
{
	if (window == 0)
		refill();
	if (window == 0)
		return;
	size_t idx = order[--window];
	sg_operations++;
	uint64_t live = a64_load_relaxed(&span->bits[idx / 64].live);
	SG_CHECK(MODEL, (live >> (idx % 64) & 1) == 0, "slot %zu of the window is live", idx);
	a64_store_relaxed(&span->bits[idx / 64].live, live | (uint64_t)1 << (idx % 64));
	model[idx] = LIVE;
}

/* The first slot at or behind a number that is in a state; nelems: none. */
static size_t
slot_in(enum state st, size_t from)
{
	for (size_t i = 0; i < span->nelems; i++) {
		size_t k = (from + i) % span->nelems;
		if (model[k] == st)
			return k;
	}
	return span->nelems;
}

static void
own_free(size_t idx)
{
	if (idx == span->nelems)
		return;
	sg_operations++;
	uint64_t live = a64_load_relaxed(&span->bits[idx / 64].live);
	a64_store_relaxed(&span->bits[idx / 64].live, live & ~((uint64_t)1 << (idx % 64)));
	model[idx] = FREED;
}

static void
remote_free(size_t idx)
{
	if (idx == span->nelems)
		return;
	sg_operations++;
	bool ok = mcache_free_remote(&mheap_, span, idx);
	SG_CHECK(DETECT, ok == (model[idx] == LIVE), "a remote free of a slot in state %d: %d",
	    model[idx], ok);
	if (ok)
		model[idx] = REMOTE;
}

static void
drain(void)
{
	size_t n = mspan_drain(span);
	sg_operations++;

	SG_CHECK(MODEL, n == count(REMOTE), "%zu drained, the model says %zu", n, count(REMOTE));
	for (size_t i = 0; i < span->nelems; i++)
		if (model[i] == REMOTE)
			model[i] = FREED;
}

static void
put_back(void)
{
	mspan_return_window(span, order, window);
	for (uint32_t i = 0; i < window; i++)
		model[order[i]] = FREE;
	window = 0;
}

static void
sweep(void)
{
	put_back();
	mspan_sweep(span);
	sg_operations++;
	for (size_t i = 0; i < span->nelems; i++)
		if (model[i] == FREED || model[i] == REMOTE)
			model[i] = FREE;
}

/* Division by multiplication, for any offset in the span and one behind it: exact for
 * a first byte, for others at most one too high. */
static void
look(const struct sgf_op *op)
{
	size_t bytes = mspan_bytes(span), idx;
	size_t off = op->imm % (bytes + 1);

	if (op->a & 1)
		off = off / span->elem_bytes * span->elem_bytes;
	bool exact = mspan_slot(span, span->base + off, &idx);
	size_t more = idx - off / span->elem_bytes;
	SG_CHECK(MODEL, exact == (off % span->elem_bytes == 0) && more <= !exact,
	    "offset %zu: slot %zu, exact %d", off, idx, exact);
	SG_CHECK(MODEL, idx / 64 < span->nwords, "offset %zu: slot %zu has no word", off, idx);
}

static void
drain_it(void *arg)
{
	(void)arg;
	mspan_drain(span);
}

/* Owner and another thread freed at once: a remote bit without a live one. */
static void
race(size_t from)
{
	size_t idx = slot_in(FREED, from);

	if (idx == span->nelems)
		return;
	a64_fetch_or(&span->bits[idx / 64].remote, (uint64_t)1 << (idx % 64));
	const struct die_info *d = sg_heap_try(drain_it, NULL);
	SG_CHECK(DETECT, d != NULL && d->code == DIE_DOUBLE_FREE && strcmp(d->site, "MSPAN-2") == 0 &&
	    d->addr == span->base + idx * span->elem_bytes, "the double free of slot %zu: %s", idx,
	    d == NULL ? "no death" : d->site);
	/* what the drain took before it died, the model takes too */
	for (size_t w = 0; w < span->nwords; w++)
		a64_exchange(&span->bits[w].remote, 0);
	for (size_t i = 0; i < span->nelems; i++) {
		bool live = (a64_load_relaxed(&span->bits[i / 64].live) >> (i % 64) & 1) != 0;
		if (model[i] == REMOTE)
			model[i] = live ? LIVE : FREED;
	}
}

static void
step(const struct sgf_op *op)
{
	size_t from = op->imm % span->nelems;

	switch ((enum op)op_of[op->code]) {
	case POP:
		for (unsigned n = 1 + op->b % 16u; n > 0; n--)
			pop();
		break;
	case OWN_FREE:
		for (unsigned n = 1 + op->b % 8u; n > 0; n--)
			own_free(slot_in(LIVE, from));
		break;
	case REMOTE_FREE:
		if (op->a & 1)
			remote_free(from);      /* whatever it is */
		else
			for (unsigned n = 1 + op->b % 8u; n > 0; n--)
				remote_free(slot_in(LIVE, from));
		break;
	case DRAIN: drain(); break;
	case SWEEP: sweep(); break;
	case RETURN: put_back(); break;
	case LOOK: look(op); break;
	case RACE: race(from); break;
	}
}

static void
start(const struct sgf_header *h)
{
	unsigned class = 1 + h->knob[0] % (SIZE_CLASSES - 1u);
	const struct span_policy policy = { .sweep_share_percent = 1 + h->geometry % 100u,
		.window_bytes = (size_t)1 << (10 + h->knob[1] % 12u) };

	for (unsigned i = 0; i < SPAN_CLASSES_ALL; i++)
		a64_store_relaxed(&mheap_.central[i].pending, 0);
	memset(room, 0, sizeof(room));
	mspan_init(span, (uintptr_t)BASE_PAGE << PAGE_SHIFT, size_classes[class].span_pages,
	    class + (h->knob[0] & 128 ? SPAN_NOSCAN : 0), true, &policy);
	memset(model, FREE, span->nelems);
	window = 0;
	rand_seed_fixed(&stream, h->seed + 1, 1);
	rng = h->mode & 1 ? &stream : NULL;
}

static int
run(const uint8_t *data, size_t bytes)
{
	struct sgf_header h;

	sgf_read_header(data, bytes, &h);
	start(&h);
	sg_each_op(data, bytes, &language, step, compare);
	compare();
	sweep();
	compare();
	return 0;
}

const struct sg_harness sg_h_span = { "span", &language, run };
