/* h12_check.c - H12: the checker is checked. A program runs; then single bits of the
 * metadata are flipped, one at a time, and verify must report each, by any tag; the
 * bit goes back, and at the end verify must be content again.
 *
 * Which bit: an op "bug" or "overflow" says by its numbers (a the kind of field,
 * handle which of that kind, imm the bit), when the program has ended; the
 * other ops are the program. Fields are the rows of collect(). Those marked HINT
 * hold a choice or a hint, which may have any value: they are not flipped here, and
 * `sgfuzz bits` lists them with the share that is reported all the same. Bits that
 * are the only record of a fact (a live bit of a slot that is not free) cannot be
 * told from the truth by anybody: FACT.
 *
 * A flipped pointer may make verify itself fault. In the library that is a report of
 * its own; here it counts as one. Under the sanitizers, which would stop verify at
 * the first odd number, nothing is flipped. */
#define _GNU_SOURCE
#include "check.h"

#include "../include/spanguard.h"
#include "fake_die.h"
#include "../hardening/hooks.h"

#include <setjmp.h>
#include <signal.h>
#include <string.h>

#include "marena.h"
#include "mcache.h"
#include "mpagealloc.h"
#include "mspan.h"
#include "mstats.h"
#include "proc.h"
#include "tls.h"
#include "verify.h"

enum { FLIPS_MAX = 96, SAMPLE = 500, KINDS_MAX = 64 };

static struct sg_prog prog;
static struct sg_fields fields;
static sigjmp_buf faulted;

/* ---- the fields ---- */

/* The kinds of fields there are in this heap, each with the number of its fields. */
static struct {
	const char *name;
	size_t fields;
} kind[KINDS_MAX];
static size_t kinds;

static const struct mspan *of;     /* the span whose fields are added */

static void
add(const char *name, void *p, size_t bytes, enum sg_cover cover)
{
	size_t k = 0;

	if (fields.n == SG_FIELDS_MAX || bytes == 0)
		return;
	fields.field[fields.n++] = (struct sg_field){ name, p, bytes, cover, of };
	while (k < kinds && kind[k].name != name)
		k++;
	kinds += k == kinds;
	kind[k].name = name;
	kind[k].fields++;
}

/* The nth field of a kind. */
static const struct sg_field *
pick(size_t which, size_t nth)
{
	const struct sg_field *f = fields.field;

	which %= kinds;
	nth %= kind[which].fields;
	while (f->name != kind[which].name || nth-- > 0)
		f++;
	return f;
}

static void
add_bits(struct mspan *s)
{
	for (size_t i = 0; i < s->nwords; i++) {
		add("mspan.avail[]", &s->avail[i], 8, SG_COVERED);
		add("mspan.live[]", &s->bits[i].live, 8, SG_FACT);
		add("mspan.remote[]", &s->bits[i].remote, 8, SG_FACT);
	}
}

/* Inputs name a kind by its number: a row that goes leaves its place to a new one. */
static void
add_span(struct mspan *s, void *arg)
{
	(void)arg;
	of = s;
	add("mspan.base", &s->base, 8, SG_POINTER);
	add("mspan.cont", &s->cont, 8, SG_POINTER);
	add("mspan.room_words", &s->room_words, 2, SG_COVERED);
	add("mspan.avail", &s->avail, 8, SG_POINTER);
	add("mspan.owner", &s->owner, 8, SG_POINTER);
	add("mspan.elem_bytes", &s->elem_bytes, 8, SG_COVERED);
	add("mspan.divmul", &s->divmul, 4, mspan_is_large(s) ? SG_HINT : SG_COVERED);
	add("mspan.nelems", &s->nelems, 4, SG_COVERED);
	add("mspan.npages", &s->npages, 8, SG_COVERED);
	add("mspan.span_class", &s->span_class, 1, SG_COVERED);
	add("mspan.nwords", &s->nwords, 2, SG_COVERED);
	add("mspan.avail_n", &s->avail_n, 4, SG_COVERED);
	add("mspan.state", &s->state, 4, SG_COVERED);
	add("mspan.list", &s->list, 1, mspan_is_large(s) ||
	    a32_load_acquire(&s->state) == SPAN_PARKED ? SG_HINT : SG_COVERED);
	add("mspan.guards", &s->guards, 1, SG_HINT);
	add("mspan.sized_class", &s->sized_class, 1, SG_HINT);
	add("mspan.notify_at", &s->notify_at, 2, SG_HINT);
	add("mspan.sweep_at", &s->sweep_at, 2, SG_HINT);
	add("mspan.budget", &s->budget, 4, SG_HINT);
	add("mspan.needzero", &s->needzero, 1, SG_HINT);
	add("mspan.window", &s->window, 1, SG_HINT);
	add("mspan.pool", &s->pool, 1, SG_HINT);
	if (s->nwords <= 64)
		add_bits(s);
	of = NULL;
}

static void
add_arena(struct heap_arena *a)
{
	/* the first pages of an arena are the used ones, the last stand for the rest */
	add("arena.spans[] used", a->spans, 64 * 8, SG_POINTER);
	add("arena.spans[] unused", &a->spans[ARENA_PAGES - 64], 64 * 8, SG_POINTER);
	add("arena.page_in_use[]", a->page_in_use, 64, SG_COVERED);
	add("arena.page_last[]", a->page_last, 64, SG_HINT);
	add("arena.zeroed_base", &a->zeroed_base, 8, SG_HINT);
}

static void
add_pages(struct page_alloc *p)
{
	add("pages.free_pages", &p->free_pages, 8, SG_COVERED);
	add("pages.scavenged_pages", &p->scavenged_pages, 8, SG_COVERED);
	add("pages.grown_pages", &p->grown_pages, 8, SG_COVERED);
	add("pages.scavenging_pages", &p->scavenging_pages, 8, SG_COVERED);
	add("pages.search_addr", &p->search_addr, 8, SG_HINT);
	add("pages.region_map[]", p->region_map, sizeof(p->region_map), SG_COVERED);
	add("pages.root[]", p->root, 512, SG_COVERED);
	for (size_t r = 0; r < PAGE_REGIONS; r++) {
		struct page_region *reg = p->regions[r];
		if (reg == NULL)
			continue;
		add("pages.root[] used", &p->root[r], sizeof(p->root[r]), SG_COVERED);
		for (size_t c = 0; c < PAGE_REGION_CHUNKS; c++)
			if ((reg->grown[c / 64] >> (c % 64) & 1) != 0)
				add("pages.chunk", &reg->chunks[c], sizeof(reg->chunks[c]),
				    SG_COVERED);
		add("pages.sums[]", reg->sums, sizeof(reg->sums), SG_COVERED);
		add("pages.grown[]", reg->grown, sizeof(reg->grown), SG_COVERED);
	}
}

static void
add_cache(struct mcache *c)
{
	for (unsigned i = 0; i < SPAN_CLASSES_ALL; i++) {
		struct mcache_alloc *a = &c->alloc[i];
		add("mcache.alloc.n", &a->n, 4, SG_COVERED);
		add("mcache.full", &c->full[i], sizeof(c->full[i]), SG_POINTER);
		add("mcache.ready", &c->ready[i], sizeof(c->ready[i]), SG_POINTER);
		if (a->span == NULL)
			continue;
		add("mcache.alloc.base", &a->base, 8, SG_COVERED);
		add("mcache.alloc.fresh", &a->fresh, 1, SG_HINT);
		add("mcache.alloc.span", &a->span, 8, SG_POINTER);
		add("mcache.alloc.elem_bytes", &a->elem_bytes, 4, SG_COVERED);
		add("mcache.alloc.order[]", a->order, a->n * sizeof(a->order[0]), SG_FACT);
	}
	add("mcache.pages.base", &c->pages.base, 8, c->pages.pages != 0 ? SG_POINTER : SG_HINT);
	add("mcache.pages.pages", &c->pages.pages, 8, SG_COVERED);
}

const struct sg_fields *
sg_collect_fields(void)
{
	fields.n = kinds = 0;
	memset(kind, 0, sizeof(kind));
	mstats_each_span(add_span, NULL);
	for (struct heap_arena *a = aptr_load_acquire(&arena_map.all); a != NULL; a = a->next)
		add_arena(a);
	add_pages(&mheap_.pages);
	for (struct mcache *c = mcache_first(); c != NULL; c = c->next)
		add_cache(c);
	add("mheap.spans_in_use", &mheap_.spans_in_use, 8, SG_COVERED);
	add("mheap.span_pages_in_use", &mheap_.span_pages_in_use, 8, SG_COVERED);
	for (unsigned i = 0; i < SPAN_CLASSES_ALL; i++)
		add("mcentral.sweepgen", &mheap_.central[i].sweepgen, 4, SG_HINT);
	return &fields;
}

/* ---- one flip ---- */

/* Each heap, and not one in four, is verified whole. */
static void
start_to_check(const uint8_t *data, size_t bytes)
{
	sg_prog_start(&prog, data, bytes);
	mheap_.config.verify_grown_only = false;
}

static size_t
verify_quietly(void)
{
	struct verify_failure f[VERIFY_MAX_FAILURES];
	size_t n;

	proc_world_lock();
	n = verify_heap(&mheap_, mcache_self(), true, f);
	proc_world_unlock();
	return n;
}

static void
on_fault(int sig)
{
	(void)sig;
	siglongjmp(faulted, 1);
}

bool
sg_flip_is_reported(const struct sg_field *f, size_t bit)
{
	struct sigaction sa = { .sa_handler = on_fault, .sa_flags = SA_NODEFER }, segv, bus;
	uint8_t *at = (uint8_t *)f->p + bit / 8, old = *at;
	volatile bool reported = true;

	sigaction(SIGSEGV, &sa, &segv);
	sigaction(SIGBUS, &sa, &bus);
	if (sigsetjmp(faulted, 1) == 0) {
		*at = (uint8_t)(old ^ 1u << bit % 8);
		reported = verify_quietly() != 0;
	}
	*at = old;
	sigaction(SIGSEGV, &segv, NULL);
	sigaction(SIGBUS, &bus, NULL);
	sg_heap_forget_calls();
	return reported;
}

static bool
is_covered(const struct sg_field *f)
{
	return f->cover == SG_COVERED || f->cover == SG_POINTER;
}

/* ---- and the same as a death ---- */

static void
recount_from_call(void *arg)
{
	(void)arg;
	verify_or_die();
}

static void
recount_from_signal(void *arg)
{
	(void)arg;
	verify_from_signal();
}

static void
recount_after_signal(void *arg)
{
	struct mcache *c = arg;

	c->busy = CACHE_SLOW;
	verify_from_signal();
	c->busy = CACHE_IDLE;
	verify_now_and_then();
}

static void
patrol(void *arg)
{
	hook_patrol(arg, 0);
}

/* The first that a recount finds, as another thread's is made: NULL if nothing. */
static const char *
first_found(uintptr_t *where)
{
	struct verify_failure f[VERIFY_MAX_FAILURES];

	proc_world_lock();
	size_t n = verify_heap(&mheap_, mcache_self(), false, f);
	proc_world_unlock();
	*where = n != 0 ? f[0].where : 0;
	return n != 0 ? f[0].tag : NULL;
}

/* What looks like a write of the program's, a room puts into words. */
static bool
is_explained(const struct die_info *d, uintptr_t where)
{
	return (d->code == DIE_CANARY || d->code == DIE_WRITE_AFTER_FREE || d->code == DIE_UNDERFLOW_SEEN) &&
	    d->addr == where;
}

static void
must_die(void (*fn)(void *), void *arg, const char *api, const char *tag, uintptr_t where)
{
	bool died = fake_die_caught(fn, arg);
	const struct die_info *d = &fake_die_info;

	SG_CHECK(SITE, died, "%s: %s at %#lx is no death", api, tag, (unsigned long)where);
	SG_CHECK(SITE, !died || is_explained(d, where) || (d->code == DIE_VERIFY && strcmp(d->site, tag) == 0 && d->addr == where &&
	    strcmp(d->api, api) == 0), "code %d, %s at %#lx by %s, not %s at %#lx by %s", (int)d->code, d->site,
	    (unsigned long)d->addr, d->api, tag, (unsigned long)where, api);
}

/* The bit is changed each time: a recount puts the marks right that it makes. The
 * span that is damaged itself the patrol finds, too. */
static void
die_of_it(const struct sg_field *f, uint8_t *at, uint8_t changed, unsigned how)
{
	static void (*const by[])(void *) = { recount_from_call, recount_from_signal, recount_after_signal };
	uintptr_t where;
	struct mcache *c = mcache_self();

	*at = changed;
	const char *tag = first_found(&where);
	*at = changed;
	if (tag != NULL && c != NULL)
		must_die(by[how % 3], c, "verify", tag, where);
	*at = changed;
	if (tag != NULL)
		SG_CHECK(SITE, spanguard_verify() != 0, "%s is not told of", tag);
	*at = changed;
	if (options.patrol != 0 && f->span != NULL && strncmp(f->name, "mspan.", 6) == 0 &&
	    (tag = verify_span(f->span)) != NULL)
		must_die(patrol, (void *)(uintptr_t)f->span, "patrol", tag, (uintptr_t)f->span);
}

/* A pointer that was changed may fault here, as in sg_flip_is_reported. */
static void
die_of_flip(const struct sg_field *f, size_t bit, unsigned how)
{
	struct sigaction sa = { .sa_handler = on_fault, .sa_flags = SA_NODEFER }, segv, bus;
	uint8_t *at = (uint8_t *)f->p + bit / 8, old = *at;
	jmp_buf outer;

	memcpy(outer, fake_die_jmp, sizeof(outer));
	sigaction(SIGSEGV, &sa, &segv);
	sigaction(SIGBUS, &sa, &bus);
	if (sigsetjmp(faulted, 1) == 0)
		die_of_it(f, at, (uint8_t)(old ^ 1u << bit % 8), how);
	*at = old;
	sigaction(SIGSEGV, &segv, NULL);
	sigaction(SIGBUS, &bus, NULL);
	sg_heap_forget_calls();
	memcpy(fake_die_jmp, outer, sizeof(outer));
	fake_die_armed = true;          /* this is within sg_heap_try */
}

static void
flip_one(const struct sgf_op *op)
{
	const struct sg_field *f = pick(op->a, op->handle);
	size_t bit = op->imm % (f->bytes * 8);

	bool reported = sg_flip_is_reported(f, bit);
	sg_note(reported);
	SG_CHECK(SELFTEST, reported || !is_covered(f) || sg_known_blind(f, bit),
	    "%s, bit %zu of %zu bytes", f->name, bit, f->bytes);
	if (reported && op->b & 1)
		die_of_flip(f, bit, op->b >> 1);
}

/* ---- bits that may have either value, for a reason ---- */

bool
sg_known_blind(const struct sg_field *f, size_t bit)
{
	uint32_t n;

	/* fewer slots in a window: the others stand as freed, and are swept one day */
	if (strcmp(f->name, "mcache.alloc.n") != 0)
		return false;
	memcpy(&n, f->p, sizeof(n));
	return (n ^ (uint32_t)1 << bit) < n;
}

static bool
is_flip(const struct sgf_op *op)
{
	return sg_prog_op(op) == OP_BUG || sg_prog_op(op) == OP_OVERFLOW;
}

static void
body(void *arg)
{
	struct sg_prog *p = arg;
	struct sgf_op op;
	unsigned flips = 0;

	for (size_t i = 0; i < p->nops; i++)
		sg_prog_step(p, i);
	sg_prog_heal(p);
	sg_collect_fields();
	for (size_t i = 0; i < p->nops && flips < FLIPS_MAX; i++) {
		sgf_read_op(p->data, p->bytes, i, &op);
		if (!is_flip(&op) || sg_with_asan)
			continue;
		sg_at.op = (long)i;
		sg_at.op_name = "flip";
		flip_one(&op);
		flips++;
	}
	sg_prog_end(p);
}

static int
run(const uint8_t *data, size_t bytes)
{
	start_to_check(data, bytes);
	sg_prog_must_live(&prog, body);
	return 0;
}

const struct sg_harness sg_h_check = { "check", &sg_prog_language, run };

/* ---- sgfuzz bits ---- */

static struct row {
	const char *name;
	enum sg_cover cover;
	unsigned long flips, reported;
	size_t bits;               /* of the fields of this program */
} rows[64];

static struct row *
row_of(const struct sg_field *f)
{
	size_t i = 0;

	while (rows[i].name != NULL && (strcmp(rows[i].name, f->name) != 0 ||
	    rows[i].cover != f->cover))
		i++;
	rows[i].name = f->name;
	rows[i].cover = f->cover;
	return &rows[i];
}

/* All bits of a kind, or about SAMPLE of them. */
static void
count_field(const struct sg_field *f, struct row *r)
{
	static uint64_t random;

	for (size_t bit = 0; bit < f->bytes * 8; bit++) {
		if (r->bits > SAMPLE && sg_random(&random) % r->bits >= SAMPLE)
			continue;
		r->flips++;
		r->reported += sg_flip_is_reported(f, bit) ? 1 : 0;
	}
}

static void
count_bits(void *arg)
{
	struct sg_prog *p = arg;

	for (size_t i = 0; i < p->nops; i++)
		sg_prog_step(p, i);
	sg_prog_heal(p);
	sg_collect_fields();
	for (size_t i = 0; i < fields.n; i++)
		row_of(&fields.field[i])->bits += fields.field[i].bytes * 8;
	for (size_t i = 0; i < fields.n; i++)
		count_field(&fields.field[i], row_of(&fields.field[i]));
	for (struct row *r = rows; r->name != NULL; r++)
		r->bits = 0;
	sg_prog_end(p);
}

void
sg_count_bits(const uint8_t *data, size_t bytes)
{
	start_to_check(data, bytes);
	sg_prog_must_live(&prog, count_bits);
}

int
sg_print_bits(void)
{
	static const char *const cover[] = { "covered", "covered", "fact", "hint" };
	unsigned long flips[2] = { 0 }, reported[2] = { 0 };

	printf("%-26s %-8s %10s %10s %8s\n", "field", "class", "flips", "reported", "percent");
	for (const struct row *r = rows; r->name != NULL; r++) {
		bool covered = r->cover == SG_COVERED || r->cover == SG_POINTER;
		if (r->flips == 0)
			continue;
		printf("%-26s %-8s %10lu %10lu %7.2f%%\n", r->name, cover[r->cover], r->flips,
		    r->reported, 100.0 * (double)r->reported / (double)r->flips);
		flips[covered] += r->flips;
		reported[covered] += r->reported;
	}
	printf("covered: %lu of %lu flips reported, %.2f%%\nall: %.2f%%\n", reported[1], flips[1],
	    100.0 * (double)reported[1] / (double)flips[1], 100.0 *
	    (double)(reported[0] + reported[1]) / (double)(flips[0] + flips[1]));
	return 0;
}
