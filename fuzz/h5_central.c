/* h5_central.c - H5: spans that come and go between threads' caches and the central
 * lists. Four logical threads, every size class (scan and noscan), objects made by
 * one and freed by any, threads that end and begin, sweeps and trims.
 *
 * After every `verify` ops, and at the end:
 *   each live slot is an object of the program's, and the other way round (objects
 *   are not written to: this way no page of theirs is ever touched);
 *   each span is in exactly one place: current, full, ready or idle in a cache, a
 *   central set or its spare list, or the quarantine; by class,
 *     spans in the map = cached + central + parked
 *     capacity = live + in windows + available + freed, remote frees among them. */
#include <string.h>

#include "fheap.h"
#include "harness.h"
#include "malloc.h"
#include "marena.h"
#include "mcache.h"
#include "mcentral.h"
#include "mspanset.h"
#include "mstats.h"
#include "msize.h"

#define OPS(OP) \
	OP(ALLOC, "alloc", 0, 23) OP(FREE, "free", 24, 47) OP(EXIT, "exit", 48, 52) \
	OP(SWEEP, "sweep", 53, 56) OP(TRIM, "trim", 57, 58) OP(FLUSH, "flush", 59, 61) \
	OP(CHECK, "check", 62, 63)

enum op { OPS(SGF_ENUM) };

static const uint8_t op_of[SGF_CODES] = { OPS(SGF_CODE) };
static const struct sgf_language language = { .op = { OPS(SGF_NAME) } };

enum { BATCH = 12 };

/* A handle names up to BATCH objects of one class. */
struct batch {
	void *p[BATCH];
	uint32_t n;
	uint8_t span_class;
};

static struct batch batch[SGF_HANDLES];

struct tally {
	size_t spans, capacity, live, windows, available, freed, remote;
	size_t cached, central, parked;
	size_t objects;
};
static struct tally tally[SPAN_CLASSES_ALL];

/* ---- recount ---- */

static void
count_span(struct mspan *s, void *arg)
{
	struct tally *t = &tally[s->span_class];
	const struct mcache *c = aptr_load_acquire(&s->owner);

	(void)arg;
	t->spans++;
	if (a32_load_acquire(&s->state) == SPAN_PARKED) {
		t->parked++;
		return;
	}
	t->capacity += s->nelems;
	t->available += s->avail_n;
	if (c != NULL && c != &mcache_none && c->alloc[s->span_class].span == s)
		t->windows += c->alloc[s->span_class].n;
	for (size_t i = 0; i < s->nelems; i++) {
		uint64_t bit = (uint64_t)1 << (i % 64);
		bool live = (a64_load_relaxed(&s->bits[i / 64].live) & bit) != 0;
		bool remote = (a64_load_relaxed(&s->bits[i / 64].remote) & bit) != 0;
		t->live += live && !remote;
		t->remote += live && remote;
		t->freed += !live && (s->avail[i / 64] & bit) == 0;
	}
}

static size_t
queue_length(const struct span_queue *q, const struct mcache *c, unsigned spc)
{
	size_t n = 0;

	for (const struct mspan *s = q->head; s != NULL; s = s->next, n++)
		SG_CHECK(STATS, aptr_load_acquire(&s->owner) == c && s->span_class == spc,
		    "a span of another cache or class is on a list");
	return n;
}

static void
count_caches(void)
{
	for (const struct mcache *c = mcache_first(); c != NULL; c = c->next) {
		for (unsigned spc = 0; spc < SPAN_CLASSES_ALL; spc++)
			tally[spc].cached += (c->alloc[spc].span != NULL) +
			    queue_length(&c->full[spc], c, spc) + queue_length(&c->ready[spc], c, spc);
		for (const struct mspan *s = c->idle.head; s != NULL; s = s->next)
			tally[s->span_class].cached++;
	}
}

static void
count_central(void)
{
	for (unsigned spc = 0; spc < SPAN_CLASSES_ALL; spc++) {
		const struct mcentral *m = &mheap_.central[spc];
		for (unsigned i = 0; i < 2; i++)
			tally[spc].central += span_set_len(&m->partial[i]) + span_set_len(&m->full[i]);
		for (const struct mspan *s = aptr_load_acquire(&m->spare); s != NULL; s = s->next)
			tally[spc].central++;
	}
}

static void
count_objects(void)
{
	size_t idx;

	for (unsigned h = 0; h < SGF_HANDLES; h++)
		for (uint32_t i = 0; i < batch[h].n; i++) {
			const struct mspan *s = span_of((uintptr_t)batch[h].p[i]);
			SG_CHECK(CONTENT, s != NULL && mspan_slot(s, (uintptr_t)batch[h].p[i], &idx) &&
			    mspan_slot_live(s, idx), "%p is an object and not a live slot", batch[h].p[i]);
			tally[s->span_class].objects++;
		}
}

static void
check(void)
{
	memset(tally, 0, sizeof(tally));
	mstats_each_span(count_span, NULL);
	count_caches();
	count_central();
	count_objects();
	for (unsigned spc = 0; spc < SPAN_CLASSES_ALL; spc++) {
		const struct tally *t = &tally[spc];
		if (span_class_size_class(spc) == 0)
			continue;
		SG_CHECK(STATS, t->spans == t->cached + t->central + t->parked,
		    "class %u: %zu spans, %zu cached, %zu central, %zu parked", spc, t->spans, t->cached,
		    t->central, t->parked);
		SG_CHECK(STATS, t->live == t->objects, "class %u: %zu live slots, %zu objects", spc,
		    t->live, t->objects);
		/* a slot of a window is neither live nor available: it counts as freed */
		SG_CHECK(STATS, t->capacity == t->live + t->remote + t->available + t->freed &&
		    t->windows <= t->freed, "class %u: capacity %zu, live %zu, remote %zu, available %zu, "
		    "freed %zu, in windows %zu", spc, t->capacity, t->live, t->remote, t->available,
		    t->freed, t->windows);
	}
	sg_heap_verify();
}

/* ---- operations ---- */

static void
do_alloc(const struct sgf_op *op)
{
	struct batch *b = &batch[op->handle];
	unsigned class = 1 + op->a % (SIZE_CLASSES - 1u);
	size_t bytes = size_classes[class].elem_bytes;

	if (b->n != 0)
		return;
	bytes -= mheap_.config.armed && bytes > 16 ? 16 : mheap_.config.armed ? 8 : 0;
	for (uint32_t n = 1 + op->b % BATCH; n > 0; n--) {
		void *p = op->imm & 1 ? mallocgc_noscan(bytes, API_NOSCAN) : mallocgc(bytes, API_MALLOC);
		if (p == NULL)
			break;
		SG_CHECK(ALIGN, ((uintptr_t)p & (MALLOC_ALIGN - 1)) == 0, "%p", p);
		b->p[b->n++] = p;
		sg_operations++;
		sg_note((uintptr_t)p - fake_sys_base());
	}
}

/* All of a batch, or each second object of it. */
static void
do_free(const struct sgf_op *op)
{
	struct batch *b = &batch[op->handle];
	uint32_t left = 0;

	for (uint32_t i = 0; i < b->n; i++) {
		void *p = b->p[i];
		if ((op->a & 1) != 0 && (i & 1) != 0) {
			b->p[left++] = p;
			continue;
		}
		freegc(p, API_FREE);
		sg_operations++;
	}
	b->n = left;
}

static void
step(const struct sgf_op *op)
{
	sg_heap_use(op->thread);
	switch ((enum op)op_of[op->code]) {
	case ALLOC: do_alloc(op); break;
	case FREE: do_free(op); break;
	case EXIT: sg_heap_exit(op->thread); break;
	case SWEEP: mcentral_sweep_all(&mheap_, &mheap_.central[op->imm % SPAN_CLASSES_ALL]); break;
	case TRIM: malloc_trim_all(); break;
	case FLUSH: mheap_flush_quarantine(&mheap_); break;
	case CHECK: check(); break;
	}
}

static void
body(void *arg)
{
	const struct { const uint8_t *data; size_t bytes; } *in = arg;

	sg_each_op(in->data, in->bytes, &language, step, check);
	check();
	for (unsigned k = 0; k < SGF_HANDLES; k++)
		do_free(&(struct sgf_op){ .handle = (uint8_t)k });
	sg_heap_idle();
	memset(tally, 0, sizeof(tally));
	mstats_each_span(count_span, NULL);
	for (unsigned spc = 0; spc < SPAN_CLASSES_ALL; spc++)
		SG_CHECK(BASELINE, tally[spc].spans == 0, "%zu spans of class %u are left",
		    tally[spc].spans, spc);
	sg_heap_verify();
}

static int
run(const uint8_t *data, size_t bytes)
{
	struct { const uint8_t *data; size_t bytes; } in = { data, bytes };
	struct sg_heap_config config;
	struct sgf_header h;

	sgf_read_header(data, bytes, &h);
	h.mode %= 3;                    /* plain, hardened, strict: all objects in spans */
	h.geometry &= (uint8_t)~32;     /* enough mappings */
	sg_heap_config(&h, &config);
	config.options.scavenge = OPT_SCAVENGE_OFF;
	sg_heap_start(&config);
	memset(batch, 0, sizeof(batch));
	const struct die_info *d = sg_heap_try(body, &in);
	SG_CHECK(DEATH, d == NULL, "code %d, site %s, address %#lx", (int)d->code,
	    d->site != NULL ? d->site : "-", (unsigned long)d->addr);
	return 0;
}

const struct sg_harness sg_h_central = { "central", &language, run };
