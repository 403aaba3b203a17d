/* valgrind.c - see valgrind.h. */
#include "valgrind.h"

#include <valgrind/memcheck.h>

#include "../src/marena.h"
#include "../src/mheap.h"
#include "../src/mspan.h"
#include "../src/mstats.h"
#include "../src/options.h"
#include "../src/persistentalloc.h"
#include "../src/sys.h"

enum { OS_PAGE_LEAST_BYTES = 4096 };

/* What the options become; those that say where reports go are kept. */
static const char adjusted[] = "mode=plain:records=1:mismatch=1:stack_depth=0:halt_on_error=0:"
    "randomize=1:sweep_share=100:scavenge=off";

/* Does not change after the start (seal.h): who sets it turns the checks of free off. */
static struct { bool on; } ALIGNED(OS_PAGE_LEAST_BYTES) fixed;
static bool ended;

bool
valgrind_is_on(void)
{
	return fixed.on;
}

/* Where an OS page is longer, what else lies on it is not ours to seal. */
AT_ENDS void
valgrind_seal(void)
{
	if (sys_page_bytes() == OS_PAGE_LEAST_BYTES)
		sys_seal(&fixed, sizeof(fixed));
}

void
valgrind_reset(void)
{
	ended = false;
	if (fixed.on)                   /* else it may be sealed */
		fixed.on = false;
}

AT_ENDS void
hook_options(void)
{
	static struct options plain;
	static char complaints[256];
	struct print p;
	/* other tools than Memcheck do not know this request */
	if (!options.valgrind || VALGRIND_MAKE_MEM_DEFINED(&fixed.on, sizeof(fixed.on)) == 0)
		return;
	print_init(&p, complaints, sizeof(complaints));
	options_parse(&plain, NULL, "valgrind", adjusted, &p);
	plain.seed = options.seed;
	plain.stats_at_exit = options.stats_at_exit;
	__builtin_memcpy(plain.log, options.log, sizeof(plain.log));
	options = plain;
	fixed.on = true;
}

/* The first slot of small ones counts as taken, for ever. */
void
valgrind_new_span(struct mspan *s)
{
	VALGRIND_MAKE_MEM_NOACCESS(s->base, mspan_bytes(s));
	if (mspan_is_large(s) || mspan_is_tiny(s) || (s->avail[0] & 1) == 0)
		return;
	a64_store_relaxed(&s->bits[0].live, a64_load_relaxed(&s->bits[0].live) | 1);
	s->avail[0] &= ~(uint64_t)1;
	s->avail_n--;
}

/* calloc's bytes are clear, or will be when it returns. */
void
valgrind_alloc(const void *p, size_t bytes, enum malloc_api api)
{
	VALGRIND_MALLOCLIKE_BLOCK(p, bytes, VALGRIND_TAIL_BYTES, api == API_CALLOC);
}

void
valgrind_free(const void *p)
{
	VALGRIND_FREELIKE_BLOCK(p, VALGRIND_TAIL_BYTES);
}

bool
hook_wrong_pointer(const void *p)
{
	if (!fixed.on)
		return false;
	valgrind_free(p);
	return true;
}

/* A copy of a large object's address, other than the one that tells so. */
static bool
is_copy(const uintptr_t *w)
{
	uintptr_t value = *w;           /* padding, it may be */
	VALGRIND_MAKE_MEM_DEFINED(&value, sizeof(value));
	const struct mspan *s = span_of(value);
	return s != NULL && mspan_is_large(s) && s->base == value && w != &s->base;
}

static void
hide_copies(uintptr_t from, uintptr_t end)
{
	for (uintptr_t w = from; w < end; w += sizeof(uintptr_t))
		if (is_copy((const uintptr_t *)w))
			VALGRIND_MAKE_MEM_UNDEFINED(w, sizeof(uintptr_t));
}

static void
hide_base(struct mspan *s, void *unused)
{
	(void)unused;
	if (mspan_is_large(s) && mspan_slot_live(s, 0))
		VALGRIND_MAKE_MEM_UNDEFINED(&s->base, sizeof(s->base));
}

AT_ENDS void
hook_valgrind_end(void)
{
	size_t guard = sys_page_bytes();        /* one at each end of a region */
	if (!fixed.on)
		return;
	hide_copies((uintptr_t)&mheap_, (uintptr_t)(&mheap_ + 1));
	const struct persistent_region *r = aptr_load_acquire(&mheap_.meta.regions);
	for (; r != NULL; r = r->next)
		hide_copies(r->base + guard, r->end - guard);
	mstats_each_span(hide_base, NULL);
	ended = true;
}

/* Valgrind makes libc and libstdc++ free what they keep for ever. */
bool
hook_free_at_end(const void *p)
{
	bool keeps = fixed.on && ended;
	if (keeps)
		valgrind_free(p);
	return keeps;
}
