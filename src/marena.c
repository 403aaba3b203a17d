/* marena.c - see marena.h. */
#include "marena.h"

#include <string.h>

#include "mspan.h"
#include "persistentalloc.h"

struct arena_map arena_map;

static void
arena_link(struct heap_arena *a)
{
	void *head = aptr_load_relaxed(&arena_map.all);
	do {
		a->next = head;
	} while (!aptr_cas(&arena_map.all, &head, a));
}

static size_t
missing_arenas(uintptr_t first, uintptr_t end)
{
	size_t n = 0;
	for (uintptr_t at = first; at < end; at += ARENA_SIZE)
		n += aptr_load_acquire(&arena_map.slots[at >> ARENA_SHIFT]) == NULL;
	return n;
}

bool
arena_add(struct persistent *meta, uintptr_t base, size_t bytes)
{
	uintptr_t first = align_down(base, ARENA_SIZE), end = base + bytes;
	size_t n = missing_arenas(first, end);
	if (n == 0)
		return true;
	/* one piece for all of them: an object of many GiB costs one mapping */
	struct heap_arena *a = persistent_alloc(meta, n * sizeof(*a), CACHE_LINE);
	if (a == NULL)
		return false;
	for (uintptr_t at = first; at < end; at += ARENA_SIZE) {
		atomic_ptr *slot = &arena_map.slots[at >> ARENA_SHIFT];
		if (aptr_load_acquire(slot) != NULL)
			continue;
		a->base = at;
		a64_store_relaxed(&a->zeroed_base, at);
		aptr_store_release(slot, a);
		arena_link(a++);
	}
	return true;
}

static atomic_ptr *
span_entry(uintptr_t addr)
{
	return &arena_of(addr)->spans[arena_page_idx(addr)];
}

static void
set_entries(struct mspan *s, struct mspan *value)
{
	if (mspan_is_large(s)) {
		aptr_store_release(span_entry(s->base), value);
		aptr_store_release(span_entry(s->base + mspan_bytes(s) - PAGE_SIZE), value);
		return;
	}
	for (size_t i = 0; i < s->npages; i++)
		aptr_store_release(span_entry(s->base + (i << PAGE_SHIFT)), value);
}

static void
set_page_last(uintptr_t at, uintptr_t end, uint8_t mark)
{
	while (at < end) {
		struct heap_arena *a = arena_of(at);
		uintptr_t stop = a->base + ARENA_SIZE < end ? a->base + ARENA_SIZE : end;
		memset(&a->page_last[arena_page_idx(at)], mark, (stop - at) >> PAGE_SHIFT);
		at = stop;
	}
}

static void
remember_tenant(const struct mspan *s)
{
	uint8_t mark = (uint8_t)(s->span_class + 1);
	set_page_last(s->base, s->base + mspan_bytes(s), mspan_is_large(s) ? 0 : mark);
	if (mspan_is_large(s))
		arena_of(s->base)->page_last[arena_page_idx(s->base)] = mark;
}

static void
raise_zeroed_base(const struct mspan *s)
{
	uintptr_t at = s->base, end = s->base + mspan_bytes(s);
	while (at < end) {
		struct heap_arena *a = arena_of(at);
		uintptr_t stop = a->base + ARENA_SIZE < end ? a->base + ARENA_SIZE : end;
		uint64_t seen = a64_load_relaxed(&a->zeroed_base);
		while (seen < stop && !a64_cas(&a->zeroed_base, &seen, stop))
			;
		at = stop;
	}
}

void
arena_set_span(struct mspan *s)
{
	struct heap_arena *a = arena_of(s->base);
	size_t i = arena_page_idx(s->base);
	raise_zeroed_base(s);
	set_entries(s, s);
	a64_fetch_or(&a->page_in_use[i / 64], (uint64_t)1 << (i % 64));
}

void
arena_clear_span(struct mspan *s)
{
	struct heap_arena *a = arena_of(s->base);
	size_t i = arena_page_idx(s->base);
	remember_tenant(s);
	a64_fetch_and(&a->page_in_use[i / 64], ~((uint64_t)1 << (i % 64)));
	set_entries(s, NULL);
}

void
arena_resize_span(struct mspan *s, size_t old_npages)
{
	uintptr_t old_last = s->base + ((old_npages - 1) << PAGE_SHIFT);
	uintptr_t new_last = s->base + mspan_bytes(s) - PAGE_SIZE;
	raise_zeroed_base(s);
	/* not what lived there before this span */
	if (new_last < old_last)
		set_page_last(new_last + PAGE_SIZE, old_last + PAGE_SIZE, 0);
	if (old_last != s->base)
		aptr_store_release(span_entry(old_last), NULL);
	aptr_store_release(span_entry(new_last), s);
}

/* The highest page at or below page i of `a` at which a span starts, or -1. */
static long
last_start_at_or_below(const struct heap_arena *a, size_t i)
{
	uint64_t keep = ~(uint64_t)0 >> (63 - i % 64);
	for (long w = (long)(i / 64); w >= 0; w--) {
		uint64_t bits = a64_load_relaxed(&a->page_in_use[w]) & keep;
		if (bits != 0)
			return w * 64 + 63 - __builtin_clzll(bits);
		keep = ~(uint64_t)0;
	}
	return -1;
}

struct mspan *
arena_span_containing(uintptr_t addr)
{
	uintptr_t at = addr;
	struct heap_arena *a = arena_of(addr);
	while (a != NULL) {
		long i = last_start_at_or_below(a, arena_page_idx(at));
		if (i >= 0) {
			struct mspan *s = aptr_load_acquire(&a->spans[i]);
			return s != NULL && addr - s->base < mspan_bytes(s) ? s : NULL;
		}
		if (a->base == 0)
			return NULL;
		at = a->base - 1;
		a = arena_of(at);
	}
	return NULL;
}

void
arena_reset(void)
{
	struct heap_arena *a = aptr_load_relaxed(&arena_map.all);
	for (; a != NULL; a = a->next)
		aptr_store_relaxed(&arena_map.slots[a->base >> ARENA_SHIFT], NULL);
	aptr_store_relaxed(&arena_map.all, NULL);
}
