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
#include "mstats.h"
#include "tls.h"
#include "verify.h"
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

void
sg_prog_more(struct sg_prog *p, const struct sgf_op *op)
{
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
