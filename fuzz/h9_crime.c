/* h9_crime.c - H9: a correct program with exactly one bug of the client's, which must
 * be reported: at that very call, or by the time the program ends. The same program
 * without the bug, which runs first, must end without a word.
 *
 * The first op "bug" (or "overflow") whose conditions hold plants it: a says which,
 * handle names the object. What must be reported where:
 *
 *   bug                          code                          when
 *   0  free again, at once       double-free                   the call
 *   1  ... by another thread     double-free                   the call
 *   2  free of an inner byte     interior-free                 the call
 *   3  free of what is not ours  invalid-free                  the call
 *   4  free_sized, other class   size-mismatch                 the call
 *   5  free_aligned_sized        align-mismatch                the call
 *   6  realloc of a freed        stale-pointer                 the call
 *   7  usable size of a freed    stale-pointer                 the call
 *   8  free of a stale pointer   double-, interior-, invalid-free   the call
 *   9  free of an unused page    invalid-free                  the call
 *  10  write behind the object   canary        (strict)        its free, or the end
 *  11  write to a freed slot     write-after-free (strict)     reuse, sweep, the end
 *  12  touch of a freed large    a guard is there (strict)     at once
 *
 * In debug and guard mode 10 to 12, and "overflow", are those of crime_rooms.c.
 *
 * and of a sampled object, in the other modes:
 *  10  write beside the object   canary                        its free
 *
 * and, from op a = 208 on, for which the program or a stray write is to blame:
 *  13  asks for too much, or for an alignment that is none: bad-request; or for what the
 *      system has not: out-of-memory                         the call, once told of
 *  14  record of a guarded object changed   corruption, GUARDSPACE-1   its free
 *  15  ... of a freed one   corruption, GUARDSPACE-1 or -3   when it is used again, if it is
 *  16  free of what is some way off   double-, interior-, invalid-free   the call
 *
 * An address that was handed out again is somebody's: 8 leaves it alone.
 *
 * What dies is then run once more with halt_on_error=0: the same must be told, at once
 * or when the object is freed or the heap counted over, and the rest of the program
 * must find all that is not the bug's as it was. */
#include "crime.h"

#include <string.h>

#include "api.h"
#include "crime_rooms.h"
#include "malloc.h"
#include "marena.h"
#include "mcache.h"
#include "mlookup.h"
#include "mspan.h"
#include "msize.h"
#include "verify.h"
#include "../hardening/guardspace.h"
#include "../hardening/hooks.h"

enum { BUGS = 13, MORE_FROM = 208, MORE_BUGS = 4 };

#define CODE(c) ((uint32_t)1 << (c))

static struct sg_prog prog;

void (*sg_crime_seen)(const struct die_info *d);

static struct {
	bool planted;
	bool pending;              /* may be reported at any later op */
	uint32_t codes;            /* allowed */
	uintptr_t addr;            /* 0: not told */
	unsigned kind;
	struct sg_room_bug room;   /* codes: of debug or guard mode */
	uint8_t *stale[SGF_HANDLES];
	uint8_t *flipped;          /* byte that was changed, */
	uint8_t bits, now;         /* in which bits, and what it is now */
	bool on;                   /* the program goes on after the error */
	unsigned told;             /* how often it was told of */
} crime;

static char not_ours[64];

static void
expect(uint32_t codes, const void *addr)
{
	crime.planted = true;
	crime.codes = codes;
	crime.addr = (uintptr_t)addr;
}

static bool
is_strict(void)
{
	return prog.header.mode < 128 && sg_mode_of(&prog.header) == OPT_MODE_STRICT;
}

/* The object at the handle leaves the model; its pointer is the bug's. */
static uint8_t *
free_first(uint8_t handle, struct sg_object *was)
{
	*was = prog.object[handle];
	sg_prog_free(&prog, handle);
	return was->p;
}

static uint32_t
freed_codes(const struct sg_object *o)
{
	bool tiny = o->noscan && o->asked < TINY_BLOCK_BYTES && o->asked != 0;

	return CODE(DIE_DOUBLE_FREE) | (tiny ? CODE(DIE_INVALID_FREE) : 0);
}

static bool
plant_double(const struct sgf_op *op, bool elsewhere)
{
	struct sg_object o;
	uint8_t *q = free_first(op->handle, &o);

	if (elsewhere && sg_heap_use((op->thread + 1u) % SGF_THREADS) == NULL)
		return false;
	expect(freed_codes(&o), q);
	sg_free(q);
	return true;
}

static bool
plant_interior(const struct sgf_op *op)
{
	const struct sg_object *o = &prog.object[op->handle];
	size_t off = 1 + (op->imm % (o->usable != 0 ? o->usable : 1));

	if (o->usable < 2 || off >= o->usable)
		return false;
	expect(CODE(DIE_INTERIOR_FREE) | CODE(DIE_INVALID_FREE) *
	    (o->noscan && o->asked < TINY_BLOCK_BYTES), o->p + off);
	sg_unpoison(o->p, o->usable);
	sg_free(o->p + off);
	return true;
}

static bool
plant_foreign(const struct sgf_op *op)
{
	void *at[] = { not_ours, not_ours + 16, (void *)(uintptr_t)(op->imm | 1),
		(void *)((uintptr_t)op->imm << 32), (void *)crime.stale };
	void *q = at[op->b % (sizeof(at) / sizeof(at[0]))];

	if (q == NULL || (uintptr_t)q - fake_sys_base() < fake_sys_window_bytes())
		return false;
	expect(CODE(DIE_INVALID_FREE), q);
	sg_free(q);
	return true;
}

/* A size whose class is another. */
static bool
plant_wrong_size(const struct sgf_op *op)
{
	struct sg_object o = prog.object[op->handle];
	size_t wrong = o.usable + 1 + op->imm % 64;

	if (o.p != NULL && span_of((uintptr_t)o.p) == NULL)    /* judged by its class too */
		wrong += size_class_round(o.usable + 16) - o.usable;
	if (o.align != 0 || o.usable == 0 || o.boot)
		return false;
	expect(CODE(DIE_SIZE_MISMATCH), o.p);
	sg_unpoison(o.p, o.usable);
	sg_free_sized(o.p, wrong);
	return true;
}

static bool
plant_wrong_align(const struct sgf_op *op)
{
	struct sg_object o = prog.object[op->handle];
	size_t align = (size_t)1 << (op->b % 20);

	if (((uintptr_t)o.p & (align - 1)) == 0 || o.boot)
		return false;
	expect(CODE(DIE_ALIGN_MISMATCH) | CODE(DIE_SIZE_MISMATCH), o.p);
	sg_unpoison(o.p, o.usable);
	if (op->b & 128 && !prog.config.options.mismatch)
		free_aligned_check(o.p, align, API_DELETE_ALIGNED);
	else
		sg_free_aligned_sized(o.p, align, o.asked);
	return true;
}

static bool
plant_stale_call(const struct sgf_op *op, bool realloc)
{
	struct sg_object o;
	uint8_t *q = free_first(op->handle, &o);
	uint32_t tiny = freed_codes(&o) & CODE(DIE_INVALID_FREE);

	expect(CODE(DIE_STALE_POINTER) | tiny, q);
	if (realloc)
		sg_free(sg_realloc(q, o.asked + 1));    /* one that goes on may be given another */
	else
		(void)sg_malloc_usable_size(q);
	return true;
}

/* The slot that a stale pointer is of may live again; so may its neighbours in a
 * span that was cut anew. */
static bool
plant_old_stale(const struct sgf_op *op)
{
	uint8_t *q = crime.stale[op->handle];

	for (size_t i = 0; q != NULL && i < prog.nlive; i++)
		if (prog.object[prog.live[i]].p == q)
			return false;
	if (q == NULL)
		return false;
	expect(CODE(DIE_DOUBLE_FREE) | CODE(DIE_INTERIOR_FREE) | CODE(DIE_INVALID_FREE), q);
	sg_free(q);
	return true;
}

static bool
plant_unused_page(const struct sgf_op *op)
{
	const struct heap_arena *a = aptr_load_acquire(&arena_map.all);
	uintptr_t q = a != NULL ? a->base + ARENA_SIZE - PAGE_SIZE * (1 + op->b) : 0;
	struct addr_info info;

	heap_describe(q, &info);
	if (a == NULL || info.kind != ADDR_HEAP_UNUSED)
		return false;
	expect(CODE(DIE_INVALID_FREE), (void *)q);
	sg_free((void *)q);
	return true;
}

SG_UNCHECKED static void
flip(uint8_t *at, uint8_t bits)
{
	*(volatile uint8_t *)at ^= bits;
	crime.bits = bits;
	crime.flipped = at;
	crime.now = *at;
}

SG_UNCHECKED static uint8_t
byte_at(const uint8_t *at)
{
	return *(const volatile uint8_t *)at;
}

static bool
plant_overflow(const struct sgf_op *op)
{
	const struct sg_object *o = &prog.object[op->handle];
	const struct mspan *s = span_of((uintptr_t)o->p);

	if (!is_strict() || s == NULL || mspan_is_large(s) || mspan_is_tiny(s))
		return false;
	expect(CODE(DIE_CANARY), NULL);
	crime.pending = true;
	flip(o->p + o->usable + op->b % 8, (uint8_t)(op->imm | 1));
	return true;
}

static bool
faults_there(const void *p)
{
	return fake_sys_state(p) != SYS_READY || fake_sys_guarded(p);
}

static bool
plant_write_after_free(const struct sgf_op *op)
{
	struct sg_object o;
	uint8_t *q;

	if (!is_strict() || prog.object[op->handle].usable == 0 || prog.object[op->handle].boot)
		return false;
	q = free_first(op->handle, &o);
	const struct mspan *s = span_of((uintptr_t)q);
	if (s == NULL || mspan_is_large(s) || a32_load_acquire(&s->state) != SPAN_IN_USE)
		return true;            /* the whole span went: that is bug 12's */
	expect(CODE(DIE_WRITE_AFTER_FREE), NULL);
	crime.pending = true;
	flip(q + op->imm % o.usable, (uint8_t)(op->b | 1));
	return true;
}

static bool
plant_touch_of_freed(const struct sgf_op *op)
{
	struct sg_object o;
	uint8_t *q;

	if (!is_strict() || prog.object[op->handle].usable <= SMALL_MAX_BYTES ||
	    prog.object[op->handle].usable > prog.config.options.span_quarantine_bytes / 2)
		return false;
	q = free_first(op->handle, &o);
	SG_CHECK(DETECT, faults_there(q) && faults_there(q + o.usable - 1),
	    "a freed large object of %zu bytes can be touched", o.usable);
	return true;
}

static bool
is_sampled(const struct sg_object *o)
{
	struct room_object r;

	return span_of((uintptr_t)o->p) == NULL && hook_object((uintptr_t)o->p, &r) &&
	    r.kind == ROOM_SAMPLED;
}

/* In its own pages, where no guard is. */
static bool
plant_beside_sampled(const struct sgf_op *op)
{
	const struct sg_object *o = &prog.object[op->handle];
	size_t page = sys_page_bytes();
	uintptr_t start = align_down((uintptr_t)o->p, page), end = align_up((uintptr_t)o->p + o->asked, page);
	size_t before = (uintptr_t)o->p - start, behind = end - ((uintptr_t)o->p + o->asked);

	if (before + behind == 0)
		return false;
	expect(CODE(DIE_CANARY), o->p);
	crime.pending = true;
	size_t at = op->imm % (before + behind);
	flip((uint8_t *)(at < before ? start + at : end - behind + at - before), (uint8_t)(op->b | 1));
	return true;
}

/* The calls say no; that the program is told of it is an option. */
static bool
plant_bad_request(const struct sgf_op *op)
{
	void *p = NULL;

	options.report_requests = options.report_oom = true;
	expect(CODE(op->b % 6 == 5 ? DIE_OUT_OF_MEMORY : DIE_BAD_REQUEST), NULL);
	if (op->b % 6 == 5)
		fake_sys_fail(FAKE_SYS_RESERVE | FAKE_SYS_ALLOC | FAKE_SYS_MAP, 1, true);
	switch (op->b % 6) {
	case 0: p = sg_malloc(SIZE_MAX - op->imm); break;
	case 1: p = sg_calloc(SIZE_MAX / 2 + op->imm, 3); break;
	case 2: p = sg_reallocarray(NULL, SIZE_MAX / 2 + op->imm, 3); break;
	case 3: (void)!sg_posix_memalign(&p, 24, op->imm & 4095); break;
	case 4: p = sg_memalign(op->imm & 1 ? SIZE_MAX - op->imm : 24, 64); break;
	default: p = sg_malloc(((size_t)1 << 27) + op->imm % 4096);
	}
	fake_sys_fail(0, 0, false);
	options.report_requests = options.report_oom = false;
	SG_CHECK(NULLNESS, (p == NULL) == (op->b % 6 != 4 || op->imm & 1), "%p was granted", p);
	sg_free(p);
	return true;
}

static struct guard_record *
guard_record_of(const void *p)
{
	struct guard_around around;

	return p != NULL && guardspace_find((uintptr_t)p, &around) && around.in != NULL &&
	    around.in->base == (uintptr_t)p ? around.in : NULL;
}

/* Where it lies, how long it is, whose region it is in. By all but the length, a live
 * object is not found any more. */
static void
break_record(struct guard_record *r, const struct sgf_op *op, bool freed)
{
	switch (freed ? op->b % 4 : 1) {
	case 0: r->region = (uint8_t)(GUARDSPACE_REGIONS - 1); break;
	case 1: r->bytes = SIZE_MAX - op->imm; break;
	case 2: r->base ^= (uintptr_t)1 << (40 + op->imm % 8); break;
	default: r->data += (uintptr_t)1 << 30; break;
	}
}

/* A death even of a program that goes on. */
static bool
plant_broken_record(const struct sgf_op *op, bool freed)
{
	struct guard_record *r = guard_record_of(prog.object[op->handle].p);
	uint8_t *p = prog.object[op->handle].p;

	if (r == NULL || crime.on)
		return false;
	if (freed)
		sg_prog_free(&prog, op->handle);
	else
		sg_unpoison(p, prog.object[op->handle].usable);
	expect(CODE(DIE_CORRUPTION), r);
	if (freed && op->b & 8)
		a32_store_relaxed(&r->state, GUARD_BUSY);
	else
		break_record(r, op, freed);
	if (freed)
		return false;           /* perhaps it is never used again */
	sg_free(p);
	return true;
}

/* Neither an object nor far from one: of a room's place that was never used, say. */
static bool
plant_near(const struct sgf_op *op)
{
	static const size_t step[4] = { 1, 16, 4096, 8192 };
	const struct sg_object *o = &prog.object[op->handle];
	size_t off = (1 + op->imm % 512) * step[op->b & 3];
	uint8_t *q = op->b & 4 ? o->p - off : o->p + off;

	for (size_t i = 0; i < prog.nlive; i++)
		if (prog.object[prog.live[i]].p == q)
			return false;
	expect(CODE(DIE_DOUBLE_FREE) | CODE(DIE_INTERIOR_FREE) | CODE(DIE_INVALID_FREE), q);
	sg_free(q);
	return true;
}

/* Planted before the call that may see it: the death does not come back here. */
static bool
plant_in_room(const struct sgf_op *op)
{
	unsigned kind = sg_prog_op(op) == OP_OVERFLOW ? op->a : crime.kind - 10;

	sg_room_plant(&prog, op, kind, &crime.room);
	if (crime.room.codes == 0)
		return false;
	expect(crime.room.codes, NULL);
	crime.pending = !crime.room.at_call;
	crime.flipped = (uint8_t *)crime.room.changed;
	crime.bits = (uint8_t)(op->imm | 1);
	crime.now = crime.flipped != NULL ? byte_at(crime.flipped) : 0;
	return true;
}

static bool
plant(const struct sgf_op *op)
{
	bool has = prog.object[op->handle].p != NULL;

	crime.kind = sg_prog_op(op) == OP_OVERFLOW ? 10 : op->a < MORE_FROM ? op->a % BUGS :
	    BUGS + (op->a - (unsigned)MORE_FROM) % MORE_BUGS;
	if (sg_room_let_through ||
	    (!has && crime.kind != 3 && crime.kind != 8 && crime.kind != 9 && crime.kind != 13))
		return false;
	if (crime.kind == 16)
		return plant_near(op);
	if (crime.kind >= BUGS)
		return crime.kind == 13 ? plant_bad_request(op) : plant_broken_record(op, crime.kind == 15);
	if (crime.kind >= 10 && sg_room_mode(&prog.header))
		return plant_in_room(op);
	if (crime.kind >= 10 && is_sampled(&prog.object[op->handle]))
		return plant_beside_sampled(op);
	switch (crime.kind) {
	case 0:
	case 1:
		return plant_double(op, crime.kind == 1);
	case 2:
		return plant_interior(op);
	case 3:
		return plant_foreign(op);
	case 4:
		return plant_wrong_size(op);
	case 5:
		return plant_wrong_align(op);
	case 6:
	case 7:
		return plant_stale_call(op, crime.kind == 6);
	case 8:
		return plant_old_stale(op);
	case 9:
		return plant_unused_page(op);
	case 10:
		return plant_overflow(op);
	case 11:
		return plant_write_after_free(op);
	default:
		return plant_touch_of_freed(op);
	}
}

/* ---- what was reported ---- */

static uint32_t
code_of(const struct die_info *d)
{
	if (d->code == DIE_VERIFY && strcmp(d->site, "CANARY-1") == 0)
		return CODE(DIE_CANARY);
	if (d->code == DIE_VERIFY && strcmp(d->site, "ZERO-1") == 0)
		return CODE(DIE_WRITE_AFTER_FREE);
	if (d->code == DIE_VERIFY && strcmp(d->site, "REDZONE-1") == 0)
		return CODE(DIE_CANARY);
	if (d->code == DIE_VERIFY && strcmp(d->site, "REDZONE-2") == 0)
		return CODE(DIE_UNDERFLOW_SEEN);
	if (d->code == DIE_VERIFY && strcmp(d->site, "REDZONE-3") == 0)
		return CODE(DIE_WRITE_AFTER_FREE);
	if (d->code == DIE_VERIFY && strcmp(d->site, "slack") == 0)
		return crime.codes & (CODE(DIE_CANARY) | CODE(DIE_UNDERFLOW_SEEN));
	return CODE(d->code);
}

/* ---- going on ---- */

static void judge(const struct die_info *d);

static void
hear(const struct die_info *d)
{
	if (crime.told++ == 0)
		judge(d);
	SG_CHECK(DEATH, (code_of(d) & crime.codes) != 0, "first one thing was told, then code %d at %s",
	    (int)d->code, d->site);
}

/* A zero, once the object is freed, is what the free has left: of a canary, whose bytes
 * follow from where the system put the heap, the bug may have made the same. */
SG_UNCHECKED static void
put_right(bool freed)
{
	bool left = freed && crime.now == 0;

	if (crime.flipped != NULL && !faults_there(crime.flipped) && *crime.flipped == crime.now && !left)
		*(volatile uint8_t *)crime.flipped ^= crime.bits;
}

/* Only who owns a span, or nobody's heir, looks into its slots while others may run. */
static void
count_over(unsigned thread)
{
	for (unsigned t = 0; t < SGF_THREADS && crime.told == 0; t++)
		if (sg_heap_use((thread + t) % SGF_THREADS) != NULL)
			verify_or_die();
	sg_heap_use(thread);
}

/* In a span of none of the threads that live: of the cache that threads past their end
 * share, into whose slots none of them looks. */
static bool
is_of_the_gone(const void *p)
{
	const struct mspan *s = span_of((uintptr_t)p);
	const struct mcache *owner = s != NULL ? aptr_load_acquire(&s->owner) : NULL;
	bool theirs = owner != NULL && owner != &mcache_none;
	for (unsigned t = 0; t < SGF_THREADS; t++)
		theirs = theirs && sg_heap_use(t) != owner;
	return theirs;
}

/* Of a pending bug: the object is freed, or the heap counted over. false: nothing can
 * be done to a freed slot that none of the threads looks into. */
static bool
bring_to_light(const struct sgf_op *op)
{
	bool there = prog.object[op->handle].p != NULL;
	bool theirs = is_of_the_gone(there ? prog.object[op->handle].p : (void *)crime.flipped);

	crime.pending = false;
	if (there && (op->b & 64 || is_sampled(&prog.object[op->handle])))
		sg_prog_free(&prog, op->handle);
	else
		count_over(op->thread);
	if (crime.told == 0 && there && theirs)
		sg_prog_free(&prog, op->handle);
	put_right(prog.object[op->handle].p == NULL);
	return there || !theirs;
}

/* Frees that were only told of were made all the same. */
static void
after_the_bug(const struct sgf_op *op)
{
	const struct sg_object *o = &prog.object[op->handle];
	bool freed = crime.kind == 4 || crime.kind == 5 || crime.room.at_call;

	bool could_be_seen = !crime.pending || bring_to_light(op);
	SG_CHECK(DETECT, crime.told != 0 || !could_be_seen, "bug %u: nobody is told, and the program goes on", crime.kind);
	if (o->p != NULL && freed)
		sg_prog_forget(&prog, op->handle);
	else if (o->p != NULL)
		sg_poison(o->p, o->usable);
}

/* ---- the run ---- */

static bool
is_bug(const struct sgf_op *op)
{
	return sg_prog_op(op) == OP_BUG || sg_prog_op(op) == OP_OVERFLOW;
}

static void
step_with_bug(struct sg_prog *p, size_t i)
{
	struct sgf_op op;
	const uint8_t *was = NULL;

	sgf_read_op(p->data, p->bytes, i, &op);
	if (!is_bug(&op) || crime.planted) {
		was = p->object[op.handle].p;
		sg_prog_step(p, i);
		if (was != NULL && p->object[op.handle].p == NULL)
			crime.stale[op.handle] = (uint8_t *)(uintptr_t)was;
		return;
	}
	sg_at.op = (long)i;
	sg_at.op_name = sg_prog_language.op[op.code];
	if (sg_heap_use(op.thread) == NULL)
		return;
	bool was_planted = plant(&op) && crime.planted;
	if (crime.on && (was_planted || crime.told != 0))
		after_the_bug(&op);
	else if (was_planted && !crime.pending)
		SG_CHECK(DETECT, false, "bug %u: the call returned", crime.kind);
}

static void
with_bug(void *arg)
{
	struct sg_prog *p = arg;

	sg_room_frame = (uintptr_t)__builtin_return_address(0);
	p->no_faults = true;
	for (size_t i = 0; i < p->nops; i++)
		step_with_bug(p, i);
	sg_prog_end(p);
	SG_CHECK(DETECT, !crime.pending, "bug %u was never seen", crime.kind);
}

static void
without_bug(void *arg)
{
	struct sg_prog *p = arg;

	p->no_faults = true;
	for (size_t i = 0; i < p->nops; i++)
		sg_prog_step(p, i);
	sg_prog_end(p);
}

static void
judge(const struct die_info *d)
{
	if (!crime.planted && crime.room.codes != 0)
		expect(crime.room.codes, NULL);         /* the call did not come back */
	SG_CHECK(DEATH, crime.planted, "code %d at %s without a bug", (int)d->code, d->site);
	SG_CHECK(DEATH, (code_of(d) & crime.codes) != 0 &&
	    (crime.addr == 0 || d->addr == crime.addr),
	    "bug %u: code %d, site %s, address %#lx; wanted codes %#x, address %#lx", crime.kind,
	    (int)d->code, d->site != NULL ? d->site : "-", (unsigned long)d->addr, crime.codes,
	    (unsigned long)crime.addr);
	if (crime.room.codes != 0)
		sg_room_judge(&crime.room, d);
	sg_note(d->code);
	if (sg_crime_seen != NULL)
		sg_crime_seen(d);
}

/* As judged before, and then to the end. */
static void
run_on(const uint8_t *data, size_t bytes, struct sg_heap_config *config)
{
	memset(&crime, 0, sizeof(crime));
	config->options.halt_on_error = false;
	crime.on = true;
	sg_room_let_through = false;
	sg_prog_start_with(&prog, data, bytes, config);
	sg_goes_on = hear;
	sg_prog_must_live(&prog, with_bug);
	sg_goes_on = NULL;
	sg_prog_abandon(&prog);
}

int
sg_crime_run(const uint8_t *data, size_t bytes, bool check_clean)
{
	struct sgf_header h;
	struct sg_heap_config config;
	const struct die_info *d;

	sgf_read_header(data, bytes, &h);
	h.geometry &= 31;               /* no limit on mappings: guards must be there */
	sg_heap_config(&h, &config);
	sg_room_config(&h, data, bytes, &config.options);
	if (check_clean) {
		sg_prog_start_with(&prog, data, bytes, &config);
		sg_prog_must_live(&prog, without_bug);
	}
	memset(&crime, 0, sizeof(crime));
	sg_prog_start_with(&prog, data, bytes, &config);
	sg_verify_dies = true;
	d = sg_heap_try(with_bug, &prog);
	sg_verify_dies = false;
	if (d != NULL)
		judge(d);
	sg_prog_abandon(&prog);
	bool planted = crime.planted;
	if (d != NULL && check_clean)
		run_on(data, bytes, &config);
	return planted;
}

static int
run(const uint8_t *data, size_t bytes)
{
	sg_crime_run(data, bytes, true);
	return 0;
}

const struct sg_harness sg_h_crime = { "crime", &sg_prog_language, run };
