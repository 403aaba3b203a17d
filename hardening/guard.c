/* guard.c - see guard.h. */
#include "guard.h"

#include "../src/lock.h"
#include "../src/marena.h"
#include "../src/mheap.h"
#include "../src/mspan.h"
#include "../src/rand.h"
#include "../src/sys.h"

static struct {
	unsigned spans;
	unsigned large;
	bool both;
	bool spans_both;
	size_t guard_bytes;
	atomic_u64 draws;           /* a counter through a mixer: no lock, no stream */
	uint64_t key;
	uint64_t seed;              /* 0: the key is from the system */
} guard;

void
guard_init(struct mheap *h, unsigned spans, unsigned large, bool both, uint64_t seed)
{
	guard.spans = spans;
	guard.large = large;
	guard.both = both;
	guard.spans_both = false;
	guard.guard_bytes = h->os_page_pages << PAGE_SHIFT;
	guard.seed = seed;
	guard.key = seed;
	a64_store_relaxed(&guard.draws, 0);
	if (seed == 0)
		sys_random(&guard.key, sizeof(guard.key));
}

void
guard_spans_both(bool both)
{
	guard.spans_both = both;
}

void
guard_after_fork_child(void)
{
	if (guard.seed == 0)
		sys_random(&guard.key, sizeof(guard.key));
}

void
guard_off(void)
{
	guard.spans = guard.large = 0;
}

/* splitmix64 (Steele, Lea, Flood): which spans are guarded need not be secret
 * for ever, only not the same ones each time. */
static uint64_t
draw(void)
{
	uint64_t z = guard.key + a64_fetch_add(&guard.draws, 1) * 0x9e3779b97f4a7c15u;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static bool
one_in(unsigned n)
{
	return n == 1 || (n > 1 && draw() % n == 0);
}

unsigned
hook_span_guards(unsigned span_class, bool aligned)
{
	bool large = span_class == SPAN_LARGE || span_class == SPAN_LARGE_NOSCAN;
	bool both = large ? guard.both : guard.spans_both;
	if (!one_in(large ? guard.large : guard.spans))
		return 0;
	/* a page before an aligned object would put it out of line */
	return both && !aligned ? GUARD_BEFORE | GUARD_AFTER : GUARD_AFTER;
}

void
hook_guards_put(struct mspan *s, size_t guard_bytes)
{
	if ((s->guards & GUARD_BEFORE) != 0 &&
	    sys_fault((void *)(s->base - guard_bytes), guard_bytes))
		s->guards |= GUARD_BEFORE_PUT;
	if ((s->guards & GUARD_AFTER) != 0 &&
	    sys_fault((void *)(s->base + mspan_bytes(s)), guard_bytes))
		s->guards |= GUARD_AFTER_PUT;
}

static bool
take_off(uintptr_t at, size_t bytes)
{
	if (!sys_unfault((void *)at, bytes))
		return false;
	sys_used((void *)at, bytes);
	return true;
}

bool
hook_guards_take_off(struct mspan *s, size_t guard_bytes)
{
	if ((s->guards & GUARD_BEFORE_PUT) != 0 && take_off(s->base - guard_bytes, guard_bytes))
		s->guards &= (uint8_t)~GUARD_BEFORE_PUT;
	if ((s->guards & GUARD_AFTER_PUT) != 0 &&
	    take_off(s->base + mspan_bytes(s), guard_bytes))
		s->guards &= (uint8_t)~GUARD_AFTER_PUT;
	return (s->guards & (GUARD_BEFORE_PUT | GUARD_AFTER_PUT)) == 0;
}

/* The span that covers addr or ends before it, if its guard can reach addr. */
static const struct mspan *
span_before(uintptr_t addr)
{
	for (size_t back = 0; back <= guard.guard_bytes && back <= addr; back += PAGE_SIZE) {
		const struct mspan *s = arena_span_containing(addr - back);
		if (s != NULL)
			return s;
	}
	return NULL;
}

static const struct mspan *
span_behind(uintptr_t addr)
{
	for (size_t on = 0; on <= guard.guard_bytes; on += PAGE_SIZE) {
		const struct mspan *s = arena_span_containing(addr + on);
		if (s != NULL)
			return s;
	}
	return NULL;
}

enum guard_side
guard_look(uintptr_t addr, const struct mspan **out)
{
	const struct mspan *s = span_before(addr);
	if (s != NULL && (s->guards & GUARD_AFTER_PUT) != 0 &&
	    addr - (s->base + mspan_bytes(s)) < guard.guard_bytes) {
		*out = s;
		return GUARD_SIDE_AFTER;
	}
	s = span_behind(addr);
	if (s != NULL && (s->guards & GUARD_BEFORE_PUT) != 0 && addr < s->base &&
	    s->base - addr <= guard.guard_bytes) {
		*out = s;
		return GUARD_SIDE_BEFORE;
	}
	return GUARD_SIDE_NONE;
}
