/* crime_rooms.c - see crime_rooms.h.
 *
 *   kind                              debug                       guard
 *   0  a byte behind the object       canary, or the next         canary, of what is
 *                                     slot's underflow-seen       left of its pages
 *   1  a byte before it               underflow-seen, or the      underflow-seen
 *                                     canary of who is there
 *   2  write after free               write-after-free            it faults at once
 *   3  free by an operator            api-mismatch, at the call   the same
 *   4  look at its record: live, and then freed. Nothing dies.
 *   5  touch of a guard, or after free: guard mode and sampled objects. The room says
 *      which error it is and of which object. Nothing dies; with halt_on_error=0 (bit
 *      7 of knob[1]) the access is let through and the program goes on.
 *
 * One byte is changed, so a report that shows bytes begins with it and counts one. */
#include "crime_rooms.h"

#include <string.h>

#include "api.h"
#include "malloc.h"
#include "marena.h"
#include "mlookup.h"
#include "mspan.h"
#include "../hardening/guardmode.h"
#include "../hardening/guardspace.h"
#include "../hardening/hooks.h"
#include "../hardening/redzone.h"
#include "../hardening/sample.h"

#define CODE(c) ((uint32_t)1 << (c))

enum { KINDS = 6, STACK_IS_WHOLE = 16 };

uintptr_t sg_room_frame;
bool sg_room_let_through;

static bool
is_debug(const struct sgf_header *h)
{
	return h->mode < 128 && sg_mode_of(h) == OPT_MODE_DEBUG;
}

static bool
is_guard(const struct sgf_header *h)
{
	return h->mode < 128 && sg_mode_of(h) == OPT_MODE_GUARD;
}

bool
sg_room_mode(const struct sgf_header *h)
{
	return h->mode >= 128 || is_debug(h) || is_guard(h);
}

static bool
knows_operators(const uint8_t *data, size_t bytes)
{
	struct sgf_op op;

	for (size_t i = 0; i < sgf_ops(bytes); i++) {
		sgf_read_op(data, bytes, i, &op);
		if (sg_prog_op(&op) >= OP_NEW)
			return true;
	}
	return false;
}

void
sg_room_config(const struct sgf_header *h, const uint8_t *data, size_t bytes, struct options *o)
{
	sg_room_let_through = false;
	if (!sg_room_mode(h))
		return;
	o->halt_on_error = (h->knob[1] & 128) == 0;
	if (h->mode >= 128)
		return;
	o->guard_side = h->knob[1] & 64 ? OPT_GUARD_LEFT : OPT_GUARD_RIGHT;
	o->mismatch = !knows_operators(data, bytes);
}

SG_UNCHECKED static void
flip(uintptr_t at, uint8_t bits)
{
	*(volatile uint8_t *)at ^= bits;
}

static void
change(struct sg_room_bug *bug, uintptr_t at, const struct sgf_op *op)
{
	bug->changed = at;
	flip(at, (uint8_t)(op->imm | 1));
}

/* ---- debug mode ---- */

static void
debug_behind(const struct sg_object *o, const struct mspan *s, const struct sgf_op *op,
    struct sg_room_bug *bug)
{
	size_t zone = s->elem_bytes - o->asked;

	if (zone == 0)
		return;
	bug->codes = CODE(DIE_CANARY);
	change(bug, bug->object + o->asked + op->b % zone, op);
	if (!mspan_is_large(s) && bug->changed >= bug->object + s->elem_bytes - REDZONE_BYTES) {
		bug->codes |= CODE(DIE_UNDERFLOW_SEEN);
		bug->next = bug->object + s->elem_bytes;
	}
}

static void
debug_before(const struct mspan *s, const struct sgf_op *op, struct sg_room_bug *bug)
{
	if (mspan_is_large(s) || bug->object == s->base)
		return;
	bug->codes = CODE(DIE_UNDERFLOW_SEEN) | CODE(DIE_CANARY);
	bug->next = bug->object - s->elem_bytes;
	change(bug, bug->object - 1 - op->b % REDZONE_BYTES, op);
}

static void
debug_after_free(struct sg_prog *p, const struct sgf_op *op, struct sg_room_bug *bug)
{
	struct sg_object o = p->object[op->handle];
	const struct mspan *s;

	sg_prog_free(p, op->handle);
	s = span_of(bug->object);
	if (s == NULL || mspan_is_large(s) || a32_load_acquire(&s->state) != SPAN_IN_USE)
		return;                 /* the whole span went */
	bug->codes = CODE(DIE_WRITE_AFTER_FREE);
	change(bug, bug->object + op->imm % (s->elem_bytes - REDZONE_BYTES), op);
	sg_note(o.asked);
}

/* ---- guard mode ---- */

static bool
faults_there(uintptr_t at)
{
	return fake_sys_state((void *)at) != SYS_READY || fake_sys_guarded((void *)at);
}

/* All pages of the object and no other: what lies beside it in them is slack, less
 * than its alignment on the side of the guard. */
static void
guard_pages(const struct sg_prog *p, const struct sg_object *o)
{
	size_t page = sys_page_bytes();
	uintptr_t start = align_down((uintptr_t)o->p, page), end = align_up((uintptr_t)o->p + o->asked, page);
	size_t align = o->align > 16 ? o->align : 16;

	for (uintptr_t at = start; at < end; at += page)
		SG_CHECK(GUARDED, !faults_there(at), "a page of a live object faults");
	SG_CHECK(GUARDED, sg_room_let_through || (faults_there(start - 1) && faults_there(end)), "no guard beside %zu bytes at %p",
	    o->asked, (void *)o->p);
	if (o->asked == 0)
		return;
	if (p->config.options.guard_side == OPT_GUARD_LEFT)
		SG_CHECK(GUARDED, (uintptr_t)o->p == start, "an object begins %zu bytes behind its guard",
		    (size_t)((uintptr_t)o->p - start));
	else
		SG_CHECK(GUARDED, end - ((uintptr_t)o->p + o->asked) < align,
		    "an object of %zu bytes ends %zu bytes before its guard", o->asked,
		    (size_t)(end - ((uintptr_t)o->p + o->asked)));
}

static void
guard_slack(struct sg_prog *p, const struct sgf_op *op, bool before, struct sg_room_bug *bug)
{
	const struct sg_object *o = &p->object[op->handle];
	size_t page = sys_page_bytes();
	uintptr_t start = align_down(bug->object, page), end = align_up(bug->object + o->asked, page);
	size_t slack = before ? bug->object - start : end - (bug->object + o->asked);

	guard_pages(p, o);
	if (slack == 0 || o->asked == 0)
		return;
	bug->codes = CODE(before ? DIE_UNDERFLOW_SEEN : DIE_CANARY);
	change(bug, before ? bug->object - 1 - op->imm % slack : bug->object + o->asked + op->imm % slack, op);
}

static void
guard_after_free(struct sg_prog *p, const struct sgf_op *op)
{
	struct sg_object o = p->object[op->handle];
	size_t page = sys_page_bytes();

	sg_prog_free(p, op->handle);
	for (uintptr_t at = align_down((uintptr_t)o.p, page); at < (uintptr_t)o.p + o.asked; at += page)
		SG_CHECK(GUARDED, faults_there(at), "a freed object of %zu bytes can be touched", o.asked);
}

static void
touch(struct sg_prog *p, const struct sgf_op *op, const struct fault_room *room)
{
	struct sg_object o = p->object[op->handle];
	size_t page = sys_page_bytes();
	uintptr_t base = (uintptr_t)o.p, start = align_down(base, page), end = align_up(base + o.asked, page);
	uintptr_t at = op->b & 2 ? base : op->b & 1 ? start - 1 : end;
	enum die_code want = op->b & 2 ? DIE_USE_AFTER_FREE : op->b & 1 ? DIE_UNDERFLOW : DIE_OVERFLOW;
	bool left = p->config.options.guard_objects && p->config.options.guard_side == OPT_GUARD_LEFT;
	struct fault_claim claim;
	struct room_object r;
	bool silent = false;

	if (sg_room_let_through || o.asked == 0 || (left && at == end))    /* ... is the next object's */
		return;
	if (op->b & 2)
		sg_prog_free(p, op->handle);
	if (!faults_there(at))
		return;                 /* no guard was to be had */
	bool known = room->claim(at, &claim), whose = room->object(at, &r);
	SG_CHECK(GUARDED, known && claim.code == want && whose && r.base == base && r.bytes == o.asked &&
	    r.live == ((op->b & 2) == 0), "of a touch at %#lx, %zu bytes at %#lx: known %d, code %d for %d, "
	    "%zu bytes at %#lx", (unsigned long)at, o.asked, (unsigned long)base, known,
	    known ? (int)claim.code : 0, (int)want, whose ? r.bytes : 0, whose ? (unsigned long)r.base : 0);
	bool on = room->go_on(at, &silent);
	SG_CHECK(GUARDED, on != (bool)p->config.options.halt_on_error, "it goes on: %d", on);
	if (!on)
		return;
	room->let_through(at);
	sg_room_let_through = true;
	SG_CHECK(GUARDED, !faults_there(at) && !faults_there(base), "a touch that is let through faults again");
}

/* ---- both ---- */

static void
pair(const struct sg_prog *p, const struct sgf_op *op, struct sg_room_bug *bug)
{
	static const enum malloc_api by[] = { API_DELETE, API_DELETE_ARRAY, API_DELETE_ALIGNED,
		API_DELETE_ARRAY_ALIGNED };
	const struct sg_object *o = &p->object[op->handle];

	if (!p->config.options.mismatch)
		return;
	bug->codes = CODE(DIE_API_MISMATCH);
	bug->at_call = true;
	sg_unpoison(o->p, o->usable);
	freegc(o->p, by[op->b % (sizeof(by) / sizeof(by[0]))]);
}

static void
check_stack(const struct room_trace *t, const char *what, size_t depth)
{
	bool there = false;

	for (uint32_t i = 0; i < t->frames; i++)
		there |= t->pcs[i] == sg_room_frame || t->pcs[i] + 1 == sg_room_frame;
	if (depth >= STACK_IS_WHOLE)
		SG_CHECK(RECORD, there, "the stack of an object's %s, %u frames, does not hold who ran the "
		    "program", what, t->frames);
}

static void
look(struct sg_prog *p, const struct sgf_op *op)
{
	struct sg_object o = p->object[op->handle];
	size_t depth = p->config.options.stack_depth;
	uintptr_t at = (uintptr_t)o.p + (o.asked != 0 ? op->imm % o.asked : 0);
	struct room_object was, is;

	bool known = hook_object(at, &was);
	SG_CHECK(RECORD, known && was.live && was.base == (uintptr_t)o.p && was.bytes == o.asked &&
	    was.api != NULL && was.serial != 0,
	    "of %zu bytes at %p, live: known %d, live %d, %zu bytes at %#lx", o.asked, (void *)o.p, known,
	    was.live, was.bytes, (unsigned long)was.base);
	check_stack(&was.allocated, "allocation", depth);
	sg_prog_free(p, op->handle);
	const struct mspan *s = span_of((uintptr_t)o.p);
	if (is_debug(&p->header) && (s == NULL || mspan_is_large(s) ||
	    a32_load_acquire(&s->state) != SPAN_IN_USE))
		return;
	known = hook_object(at, &is);
	SG_CHECK(RECORD, known && !is.live && is.base == was.base && is.bytes == was.bytes &&
	    is.serial == was.serial && is.free_serial >= is.serial && is.free_api != NULL &&
	    strcmp(is.free_api, "free") == 0,
	    "of %zu bytes at %p, freed: known %d, live %d, %zu bytes at %#lx, freed by %s", o.asked,
	    (void *)o.p, known, is.live, is.bytes, (unsigned long)is.base,
	    is.free_api != NULL ? is.free_api : "nobody");
	check_stack(&is.freed, "free", depth);
}

void
sg_room_plant(struct sg_prog *p, const struct sgf_op *op, unsigned kind, struct sg_room_bug *bug)
{
	const struct sg_object *o = &p->object[op->handle];
	const struct mspan *s = span_of((uintptr_t)o->p);
	struct guard_around around;
	bool guarded = is_guard(&p->header) && guardspace_find((uintptr_t)o->p, &around);

	memset(bug, 0, sizeof(*bug));
	bug->object = (uintptr_t)o->p;
	if (p->header.mode >= 128) {
		struct room_object r;
		if (o->p != NULL && hook_object(bug->object, &r) && r.kind == ROOM_SAMPLED)
			touch(p, op, &sample_room);
		return;
	}
	/* served by boot.c, or without a guard: no record */
	if (o->p == NULL || o->boot || (is_debug(&p->header) && (s == NULL || s->side == NULL)) ||
	    (is_guard(&p->header) && !guarded))
		return;
	kind %= KINDS;
	if (kind == 3)
		pair(p, op, bug);
	else if (kind == 4)
		look(p, op);
	else if (kind == 5 && guarded)
		touch(p, op, &guardmode_room);
	else if (guarded && kind == 2)
		guard_after_free(p, op);
	else if (guarded)
		guard_slack(p, op, kind == 1, bug);
	else if (kind == 0)
		debug_behind(o, s, op, bug);
	else if (kind == 1)
		debug_before(s, op, bug);
	else if (kind == 2)
		debug_after_free(p, op, bug);
}

void
sg_room_judge(const struct sg_room_bug *bug, const struct die_info *d)
{
	SG_CHECK(BLAME, d->addr == bug->object || (bug->next != 0 && d->addr == bug->next),
	    "code %d at %#lx; the object is at %#lx", (int)d->code, (unsigned long)d->addr,
	    (unsigned long)bug->object);
	if (bug->changed == 0 || d->code == DIE_VERIFY)
		return;
	SG_CHECK(BLAME, d->diff != NULL && d->diff->base == bug->changed && d->diff->changed == 1,
	    "byte %#lx was changed; the report shows %#lx and counts %zu", (unsigned long)bug->changed,
	    d->diff != NULL ? (unsigned long)d->diff->base : 0, d->diff != NULL ? d->diff->changed : 0);
}
