/* prog_more.c - op "more" of prog.c: what a program may call beside the malloc
 * interface, by op->a. Each says what the model has; the texts are whole. */
#define _GNU_SOURCE
#include "prog.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../include/spanguard.h"
#include "api.h"
#include "marena.h"
#include "mcache.h"
#include "mlookup.h"
#include "mstats.h"
#include "tls.h"
#include "verify.h"
#include "../hardening/debug.h"
#include "../hardening/fault.h"
#include "../hardening/guardmode.h"
#include "../hardening/hooks.h"
#include "../hardening/sample.h"
#include "../hardening/zerosize.h"

static void
usable(const struct sg_prog *p, const struct sgf_op *op)
{
	const struct sg_object *o = &p->object[op->handle];

	if (o->p != NULL && !o->boot)
		SG_CHECK(USABLE, spanguard_usable_size(o->p) == o->usable, "it changed");
	SG_CHECK(USABLE, spanguard_usable_size(NULL) == 0, "of nothing");
}

static void
tuning(const struct sgf_op *op)
{
	struct mallinfo2 wide = sg_mallinfo2();
	struct mallinfo m = sg_mallinfo();

	SG_CHECK(STATS, sg_mallopt((int)op->imm, op->b) == 1, "mallopt is not understood");
	SG_CHECK(STATS, (size_t)m.uordblks == (wide.uordblks < INT32_MAX ? wide.uordblks : INT32_MAX) &&
	    (size_t)m.hblkhd == (wide.hblkhd < INT32_MAX ? wide.hblkhd : INT32_MAX) &&
	    (size_t)m.hblks == wide.hblks, "mallinfo counts otherwise than mallinfo2");
}

static ssize_t
refuse(void *cookie, const char *text, size_t bytes)
{
	(void)cookie;
	(void)text;
	(void)bytes;
	errno = ENOSPC;
	return -1;
}

/* Both as text of the C library, which has a malloc of its own here. */
static void
texts(const struct sgf_op *op)
{
	char *text = NULL;
	size_t bytes = 0;
	FILE *f = open_memstream(&text, &bytes), *was = stderr;

	SG_CHECK(STATS, sg_malloc_info(1 + op->b, f) == EINVAL, "malloc_info with options");
	SG_CHECK(STATS, sg_malloc_info(0, f) == 0 && fflush(f) == 0 && strstr(text, "<malloc ") == text &&
	    strcmp(text + bytes - 10, "</malloc>\n") == 0, "malloc_info says %s", text);
	size_t before = bytes;
	stderr = f;
	sg_malloc_stats();
	stderr = was;
	fclose(f);
	SG_CHECK(STATS, bytes > before && strstr(text + before, "live objects") != NULL,
	    "malloc_stats says %s", text + before);
	free(text);
	if ((op->b & 1) == 0)
		return;
	f = fopencookie(NULL, "w", (cookie_io_functions_t){ .write = refuse });
	setvbuf(f, NULL, _IONBF, 0);
	SG_CHECK(STATS, sg_malloc_info(0, f) == -1, "malloc_info wrote where nothing can be written");
	fclose(f);
}

/* A signal asks for a recount: at rest, or in the middle of a call, after which it is made. */
static void
recount(const struct sgf_op *op)
{
	struct mcache *c = mcache_self();

	if (c != NULL && op->b & 1) {
		c->busy = CACHE_SLOW;
		verify_from_signal();
		c->busy = CACHE_IDLE;
		verify_now_and_then();
	} else {
		verify_from_signal();
	}
}

/* Objects that live outside of spans, by kind: ROOM_HEAP is what those of no bytes say. */
static size_t
count(const struct sg_prog *p, enum room_kind kind)
{
	struct room_object r;
	size_t n = 0;

	for (size_t i = 0; i < p->nlive; i++) {
		const struct sg_object *o = &p->object[p->live[i]];
		n += !o->boot && span_of((uintptr_t)o->p) == NULL && hook_object((uintptr_t)o->p, &r) &&
		    r.kind == kind && r.live && r.base == (uintptr_t)o->p;
	}
	return n;
}

static void
outside(const struct sg_prog *p)
{
	struct sample_stats s;
	size_t want = count(p, ROOM_SAMPLED);

	sample_read_stats(&s);
	SG_CHECK(STATS, s.live == want && s.sampled >= s.live + s.freed, "%zu sampled objects of %llu live, "
	    "not %zu", s.live, (unsigned long long)s.sampled, want);
	want = count(p, ROOM_HEAP);
	SG_CHECK(STATS, zerosize_live_count() == want, "%zu objects of no bytes live, not %zu",
	    zerosize_live_count(), want);
}

/* ---- what a report looks up ---- */

static const struct sg_object *
model_of(const struct sg_prog *p, uintptr_t addr)
{
	for (size_t i = 0; i < p->nlive; i++) {
		const struct sg_object *o = &p->object[p->live[i]];
		if (addr - (uintptr_t)o->p < (o->usable != 0 ? o->usable : 1))
			return o;
	}
	return NULL;
}

/* A byte of a live object is found to be one, by the heap or by its room; and what is
 * said to be live is. Around it, no room knows better than to say so. */
static void
look_at(const struct sg_prog *p, uintptr_t addr)
{
	static const struct fault_room *const rooms[] = { &sample_room, &guardmode_room, &zerosize_room,
		&debug_room, &fault_heap };
	const struct sg_object *o = model_of(p, addr);
	struct fault_claim claim;
	struct addr_info info;
	struct room_object r;

	heap_describe(addr, &info);
	if (o != NULL && !o->boot && span_of((uintptr_t)o->p) != NULL)
		SG_CHECK(RECORD, info.state == SLOT_LIVE && info.slot_base <= (uintptr_t)o->p, "%#lx of the object at %p is in state %d, "
		    "from %#lx", (unsigned long)addr, (void *)o->p, (int)info.state, (unsigned long)info.slot_base);
	for (size_t i = 0; i < ARRAY_LEN(rooms); i++) {
		sg_note(rooms[i]->claim(addr, &claim));
		for (int behind = 0; rooms[i]->beside != NULL && behind < 2; behind++)
			sg_note(rooms[i]->beside(addr, behind != 0, &r));
		if (!rooms[i]->object(addr, &r) || !r.live || addr - r.base >= r.bytes)
			continue;
		SG_CHECK(RECORD, o != NULL && (uintptr_t)o->p == r.base && r.bytes >= o->asked,
		    "of %#lx a room says: %zu bytes from %#lx, live", (unsigned long)addr, r.bytes,
		    (unsigned long)r.base);
	}
}

static void
look(const struct sg_prog *p, const struct sgf_op *op)
{
	const struct sg_object *o = &p->object[op->handle];
	uintptr_t at = (uintptr_t)o->p, page = sys_page_bytes();
	const uintptr_t addr[] = { at, at + o->asked - 1, at + o->asked, at + o->usable, at - 1, at + 8,
		align_down(at, page) - 1, align_up(at + o->asked, page), at + op->imm, at - op->imm,
		at + page * (op->b + 1u), at - page * (op->b + 1u), fake_sys_base() + ((uintptr_t)op->imm << 8),
		(uintptr_t)op->imm << (op->b & 31) };

	for (size_t i = 0; i < ARRAY_LEN(addr); i++)
		look_at(p, addr[i]);
}

void
sg_prog_more(struct sg_prog *p, const struct sgf_op *op)
{
	if (op->a & 128) {
		look(p, op);
		return;
	}
	switch (op->a % 8) {
	case 0: usable(p, op); break;
	case 1: sg_note(spanguard_scavenge()); break;
	case 2: tuning(op); break;
	case 3: texts(op); break;
	case 4: mstats_log(); break;
	case 5: hooks_at_exit(); break;
	case 6: recount(op); break;
	default: outside(p); break;
	}
}
