/* h10_rand.c - H10: can the allocator's choices be foreseen? A heap is set up anew
 * for each of many seeds, and after the input's program the same few calls follow.
 * In the randomising modes, over the seeds:
 *
 *   choice     the slot that malloc returns is uniform over the free slots it may
 *              choose from: G-test against the uniform distribution
 *   favourite  no single slot comes more often than chance has it: the min-entropy
 *              of the choice, where 192 draws can tell
 *   threads    what one thread is given says nothing about another's
 *   adjacent   two calls in a row give neighbours no oftener than chance
 *   reclaim    a freed slot is not what the next calls of its size return
 *   uninit     what malloc returns holds nothing of others (strict: zeroes)
 *   seeds      equal seeds give equal addresses; different ones do not
 *
 * The classes looked at have 64 slots or more; the span is fresh, so chance is
 * known: the first window is drawn from the whole span. Thresholds are set so that
 * a fair allocator fails once in 10^9 inputs. */
#include "prog.h"

#include <math.h>
#include <string.h>

#include "api.h"
#include "marena.h"
#include "mspan.h"
#include "msize.h"

enum { SEEDS = 192, SLOTS_MAX = 2048, BUCKETS = 16, NEXT = 8 };

static struct sg_prog prog;

struct tally {
	size_t bytes;
	unsigned buckets[BUCKETS];
	unsigned slots[SLOTS_MAX];
	size_t nelems;
	unsigned n;
	unsigned threads_alike, threads_n;
	unsigned adjacent, same_again;
	uint64_t first_trace;
	unsigned equal_traces;
	double expected_adjacent;
};

static struct tally tally;

static size_t
class_bytes(const struct sgf_header *h)
{
	return 16u * (1 + h->knob[3] % 40u);       /* up to 640 bytes: 64 slots or more */
}

/* The first slot that a thread is given whose heap began with this one. */
static void
look_at_other_thread(struct tally *t, size_t slot)
{
	const struct mspan *s;
	uint8_t *a;
	size_t other;

	if (sg_heap_use(1) != NULL) {
		a = sg_malloc(t->bytes);
		s = span_of((uintptr_t)a);
		if (s != NULL && mspan_slot(s, (uintptr_t)a, &other)) {
			t->threads_n++;
			t->threads_alike += other == slot;
		}
	}
	sg_heap_use(0);
}

static void
look_at_choice(struct tally *t)
{
	uint8_t *a = sg_malloc(t->bytes), *b = sg_malloc(t->bytes);
	const struct mspan *s = span_of((uintptr_t)a);
	size_t elem, slot;
	uint64_t trace = (uintptr_t)a ^ (uintptr_t)b << 20;

	SG_CHECK(NULLNESS, a != NULL && b != NULL, "no memory");
	if (s == NULL || !mspan_slot(s, (uintptr_t)a, &slot))
		return;
	elem = s->elem_bytes;
	t->buckets[slot * BUCKETS / s->nelems]++;
	t->slots[slot % SLOTS_MAX]++;
	t->nelems = s->nelems;
	t->n++;
	look_at_other_thread(t, slot);
	t->expected_adjacent += 2.0 / s->nelems;
	t->adjacent += (size_t)(a - b) == elem || (size_t)(b - a) == elem;
	t->equal_traces += trace == t->first_trace;
	t->first_trace = t->n == 1 ? trace : t->first_trace;
	sg_free(a);
	for (unsigned i = 0; i < NEXT; i++) {
		uint8_t *c = sg_malloc(t->bytes);
		t->same_again += c == a;
		b = b != NULL ? b : c;
	}
}

static void
without_program(void *arg)
{
	(void)arg;
	if (sg_heap_use(0) != NULL)
		look_at_choice(&tally);
}

/* 2 sum O ln(O / E), which is chi-square with BUCKETS - 1 degrees of freedom. */
static double
g_statistic(const struct tally *t)
{
	double g = 0, e = (double)t->n / BUCKETS;

	for (unsigned i = 0; i < BUCKETS; i++)
		if (t->buckets[i] != 0)
			g += 2 * t->buckets[i] * log(t->buckets[i] / e);
	return g;
}

/* The least k with which any of `slots` slots is drawn k times or more in n uniform
 * draws with a probability below 10^-10: Poisson's tail, and one such for each. */
static unsigned
most_by_chance(unsigned n, double slots)
{
	double mean = n / slots, term = exp(-mean), tail = 1;
	unsigned k = 0;

	while (slots * tail > 1e-10 && k < n) {
		tail -= term;
		term *= mean / ++k;
		if (tail < 1e-9 && k > mean)    /* the difference has no digits left */
			tail = 1.5 * term;
	}
	return k;
}

static unsigned
most_drawn(const struct tally *t)
{
	unsigned most = 0;

	for (size_t i = 0; i < SLOTS_MAX; i++)
		most = t->slots[i] > most ? t->slots[i] : most;
	return most;
}

static void
judge(const struct tally *t, bool randomize)
{
	double far = t->expected_adjacent + 8 + 6 * sqrt(t->expected_adjacent);

	sg_note((uint64_t)t->adjacent << 32 | t->same_again);
	if (!randomize || t->n < SEEDS / 2)
		return;
	SG_CHECK(RANDOM, g_statistic(t) < 75, "%zu bytes: G is %.1f with %d degrees of freedom",
	    t->bytes, g_statistic(t), BUCKETS - 1);
	SG_CHECK(RANDOM, most_drawn(t) < most_by_chance(t->n, (double)t->nelems),
	    "%zu bytes: one slot of %zu came first in %u heaps of %u", t->bytes, t->nelems,
	    most_drawn(t), t->n);
	SG_CHECK(RANDOM, t->threads_alike < most_by_chance(t->threads_n, (double)t->nelems),
	    "%zu bytes: two threads were given the same slot in %u heaps of %u", t->bytes,
	    t->threads_alike, t->threads_n);
	SG_CHECK(RANDOM, t->adjacent < far, "%zu bytes: %u of %u pairs are neighbours, "
	    "%.1f are chance", t->bytes, t->adjacent, t->n, t->expected_adjacent);
	SG_CHECK(RANDOM, t->same_again == 0, "%zu bytes: a freed slot came back %u times",
	    t->bytes, t->same_again);
	SG_CHECK(RANDOM, t->equal_traces < t->n / 4, "%u of %u seeds gave equal addresses",
	    t->equal_traces, t->n);
}

static int
run(const uint8_t *data, size_t bytes)
{
	struct sgf_header h;
	struct sg_heap_config config;

	sgf_read_header(data, bytes, &h);
	h.geometry = 0;
	h.mode = 1 + h.mode % 2;        /* hardened, strict */
	h.knob[0] = h.knob[1] = h.knob[2] = 0;
	sg_heap_config(&h, &config);
	memset(&tally, 0, sizeof(tally));
	tally.bytes = class_bytes(&h);
	for (unsigned i = 0; i < SEEDS; i++) {
		config.options.seed = (uint64_t)h.seed * SEEDS + i + 1;
		sg_prog_start_with(&prog, data, 0, &config);
		sg_prog_must_live(&prog, without_program);
	}
	judge(&tally, config.options.randomize);
	return 0;
}

static const struct sgf_language language = {
	.op = { "none" }, .knob = { NULL, NULL, NULL, "size class" },
};

const struct sg_harness sg_h_rand = { "rand", &language, run };
