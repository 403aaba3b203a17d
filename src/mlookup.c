/* mlookup.c - see mlookup.h. */
#include "mlookup.h"

#include "die.h"
#include "marena.h"
#include "mcache.h"
#include "mspan.h"

static size_t
class_bytes(unsigned span_class)
{
	if (span_class == SPAN_TINY)
		return TINY_GRANULE_BYTES;
	unsigned c = span_class_size_class(span_class);
	return c != 0 ? size_classes[c].elem_bytes : 0;
}

/* No span there now: what lived here last is in page_last. Where its slots began
 * is not known, but the span began at a page: a first byte is a multiple of the
 * largest power of two that divides the class's size, and of no less. */
static void
describe_released(const struct heap_arena *a, uintptr_t addr, struct addr_info *out)
{
	uint8_t last = a->page_last[arena_page_idx(addr)];
	if (last == 0) {
		out->kind = addr < a64_load_relaxed(&a->zeroed_base) ? ADDR_HEAP_RELEASED : ADDR_HEAP_UNUSED;
		return;
	}
	unsigned spc = last - 1u;
	out->kind = ADDR_HEAP_RELEASED;
	out->size_class = span_class_size_class(spc);
	out->noscan = span_class_noscan(spc);
	out->elem_bytes = class_bytes(spc);
	size_t step = out->elem_bytes & -out->elem_bytes;
	out->slot_base = align_down(addr, step != 0 && step < PAGE_SIZE ? step : PAGE_SIZE);
}

/* avail and the window belong to the owner; a torn answer is better than none.
 * Before its first sweep a span has no freed slot in either. */
static bool
never_used(const struct mspan *s, size_t idx)
{
	size_t slot = mspan_is_tiny(s) ? idx - idx % TINY_BLOCK_GRANULES : idx;
	const struct mcache *c = aptr_load_acquire(&s->owner);
	if (s->needzero)
		return false;
	if ((s->avail[slot / 64] >> (slot % 64) & 1) != 0)
		return true;
	if (c == NULL || c == &mcache_none || c->alloc[s->span_class].span != s)
		return false;
	const struct mcache_alloc *a = &c->alloc[s->span_class];
	for (uint32_t i = 0; i < a->n && i < WINDOW_SLOTS; i++)
		if (a->order[i] == slot)
			return true;
	return false;
}

static enum slot_state
slot_state_of(const struct mspan *s, size_t idx, bool *by_other)
{
	size_t w = idx / 64;
	uint64_t bit = (uint64_t)1 << (idx % 64);
	if (idx >= s->nelems)
		return SLOT_TAIL;
	if ((a64_load_acquire(&s->bits[w].remote) & bit) != 0) {
		*by_other = a32_load_acquire(&s->state) == SPAN_IN_USE;    /* mspan_retire */
		return SLOT_FREED;
	}
	if ((a64_load_acquire(&s->bits[w].live) & bit) != 0)
		return SLOT_LIVE;
	return never_used(s, idx) ? SLOT_FREE : SLOT_FREED;
}

static void
describe_slot(const struct mspan *s, uintptr_t addr, struct addr_info *out)
{
	size_t off = addr - s->base, slot = mspan_is_large(s) ? mspan_bytes(s) : s->elem_bytes;
	if (unlikely(slot == 0))
		die_corruption("MSPAN-6", s);   /* a report goes on without the heap */
	size_t idx = off / slot;
	const struct mcache *c = aptr_load_acquire(&s->owner);
	out->kind = mspan_is_large(s) ? ADDR_LARGE : mspan_is_tiny(s) ? ADDR_TINY : ADDR_SMALL;
	out->span_base = s->base;
	out->span_bytes = mspan_bytes(s);
	out->size_class = span_class_size_class(s->span_class);
	out->noscan = span_class_noscan(s->span_class);
	out->parked = a32_load_acquire(&s->state) == SPAN_PARKED;
	out->elem_bytes = s->elem_bytes;
	out->nelems = s->nelems;
	out->owner_tid = c != &mcache_none && c != NULL ? c->tid : 0;
	/* inside a tiny object: go back to the granule it starts at */
	while (mspan_is_tiny(s) && idx % TINY_BLOCK_GRANULES != 0 &&
	    (s->cont[idx / 64] >> (idx % 64) & 1) != 0)
		idx--;
	out->slot_idx = idx;
	out->slot_base = s->base + idx * s->elem_bytes;
	out->state = slot_state_of(s, idx, &out->freed_by_other);
}

void
heap_describe(uintptr_t addr, struct addr_info *out)
{
	*out = (struct addr_info){ .kind = ADDR_FOREIGN };
	const struct heap_arena *a = arena_of(addr);
	if (a == NULL)
		return;
	const struct mspan *s = span_of(addr);
	if (s == NULL || addr - s->base >= mspan_bytes(s))
		s = arena_span_containing(addr);
	if (s == NULL)
		describe_released(a, addr, out);
	else
		describe_slot(s, addr, out);
}
