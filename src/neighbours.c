/* neighbours.c - the objects on both sides of the one that a report is about.
 *
 *   | before | .. | the object | .. | behind |
 *
 * An overflow of one object is seen at the next one, and a pointer that ran too far
 * lies in another object than the one it was made from; so a report of such an error
 * names both neighbours, live or freed, and who allocated them.
 *
 * In a span they are the slots beside; at its ends, and of a large object, what lies
 * behind the guard page, if that is there. Of guarded and sampled objects a room
 * knows them; those beside a sampled one were not its neighbours in the program's
 * eyes, but a pointer that ran out of one ends in another all the same.
 *
 * Frames are copied here, where a fault in corrupted records only costs the report
 * what the heap knows. Async-signal-safe, no lock, like all of facts.h. */
#include "facts.h"

#include <string.h>

enum { GUARD_STEP = PAGE_SIZE };     /* at least a guard page */

static bool
wants_neighbours(enum die_code code)
{
	switch (code) {
	case DIE_OVERFLOW:
	case DIE_UNDERFLOW:
	case DIE_CANARY:
	case DIE_UNDERFLOW_SEEN:
	case DIE_WRITE_AFTER_FREE:
	case DIE_INTERIOR_FREE:
	case DIE_INVALID_FREE: return true;
	default: return false;
	}
}

static bool
is_slot(const struct addr_info *a)
{
	return (a->kind == ADDR_SMALL || a->kind == ADDR_TINY || a->kind == ADDR_LARGE) &&
	    a->state != SLOT_TAIL;
}

/* The stack without spanguard's and libc's own frames: who asked for the object. */
static void
take_frames(struct neighbour_facts *n, const struct room_trace *t)
{
	size_t i = 0, have = t->frames < ROOM_FRAMES ? t->frames : ROOM_FRAMES;
	n->tid = t->tid;
	while (i < have && facts_frame_is_libs(facts_frame(t->pcs[i])))
		i++;
	for (; i < have && n->frames < NEIGHBOUR_FRAMES; i++)
		n->pcs[n->frames++] = t->pcs[i];
}

static void
take_room_object(struct neighbour_facts *n, const struct room_object *o)
{
	*n = (struct neighbour_facts){ .known = true, .base = o->base, .bytes = o->bytes,
		.state = o->live ? SLOT_LIVE : SLOT_FREED, .what = o->api == NULL ? o->what : NULL,
		.api = o->api, .serial = o->serial, .free_api = o->live ? NULL : o->free_api };
	take_frames(n, &o->allocated);
}

/* The slot at addr, or one step further where a guard page is. */
static void
take_slot(struct neighbour_facts *n, uintptr_t addr, uintptr_t step, uintptr_t not_this)
{
	struct addr_info a;
	struct room_object o;
	heap_describe(addr, &a);
	if (a.kind == ADDR_FOREIGN || a.kind == ADDR_HEAP_UNUSED || a.kind == ADDR_HEAP_RELEASED)
		heap_describe(addr + step, &a);
	if (!is_slot(&a) || a.slot_base == not_this)
		return;
	if (hook_object(a.slot_base, &o) && o.base == a.slot_base && facts_object_is_known(&o))
		take_room_object(n, &o);
	else
		*n = (struct neighbour_facts){ .known = true, .base = a.slot_base,
			.bytes = a.elem_bytes, .state = a.state };
}

void
facts_take_neighbours(struct facts *f)
{
	const struct addr_info *a = &f->place.heap;
	struct neighbour_facts *before = &f->neighbour[NEIGHBOUR_BEFORE];
	struct neighbour_facts *behind = &f->neighbour[NEIGHBOUR_BEHIND];
	struct room_object o;
	if (f->info.addr == 0 || !wants_neighbours(f->info.code))
		return;
	if (is_slot(a)) {
		uintptr_t end = a->kind == ADDR_LARGE || a->slot_idx + 1 == a->nelems ?
		    a->span_base + a->span_bytes : a->slot_base + a->elem_bytes;
		take_slot(before, a->slot_base - 1, 0 - (uintptr_t)GUARD_STEP, a->slot_base);
		take_slot(behind, end, GUARD_STEP, a->slot_base);
		return;
	}
	if (hook_object_beside(f->info.addr, false, &o))
		take_room_object(before, &o);
	if (hook_object_beside(f->info.addr, true, &o))
		take_room_object(behind, &o);
}

const char *
facts_neighbour_name(size_t side)
{
	return side == NEIGHBOUR_BEFORE ? "before" : "behind";
}
