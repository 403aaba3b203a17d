/* marena.h - arenas of 64 MiB and the map from an address to its span.
 *
 *   arena_map.slots[addr >> 26] -> struct heap_arena   (outside the heap)
 *                                  .spans[(addr >> 13) & 8191] -> struct mspan
 *
 * The map has one slot for each 64 MiB of the 48-bit address space: 32 MiB of
 * zero pages of which a program touches one or two. A slot never goes back to
 * NULL, so it is read without a lock. Any address may be asked.
 *
 * ARENA-1  spans[i] of every page of a span of small slots is that span
 * ARENA-2  spans[i] of a large span is set at its first and last page only:
 *          making a 25 MiB object must not write 3,200 entries; interior
 *          addresses are found through page_in_use (arena_span_containing)
 * ARENA-3  page_in_use has a bit at the first page of every span, no other
 * ARENA-4  spans[i] is NULL where no span is
 * ARENA-5  page_last[i] tells what last lived on a free page (0: nothing yet)
 *
 * spans[] is written by the thread that makes or frees the span; page_in_use
 * by atomic and/or; readers load acquire. */
#ifndef SPANGUARD_MARENA_H
#define SPANGUARD_MARENA_H

#include "atomic.h"
#include "base.h"

struct mspan;
struct persistent;

enum { ARENA_SLOTS = 1 << (ADDR_BITS - ARENA_SHIFT) };
#define ARENA_WORDS (ARENA_PAGES / 64)

struct heap_arena {
	atomic_ptr spans[ARENA_PAGES];
	atomic_u64 page_in_use[ARENA_WORDS];
	atomic_u64 page_marks[ARENA_WORDS];     /* spans a mark pass has reached */
	atomic_u64 page_specials[ARENA_WORDS];  /* spans with a record in a hardening room */
	uint8_t page_last[ARENA_PAGES];         /* span class + 1 of the last tenant */
	uintptr_t base;
	atomic_u64 zeroed_base;                 /* pages from here on were never in a span */
	uint64_t *checkmarks;                   /* a bit per 8-byte word, made when first needed */
	struct heap_arena *next;                /* all arenas, newest first */
};

struct arena_map {
	atomic_ptr slots[ARENA_SLOTS];
	atomic_ptr all;                         /* list of heap_arena */
};

extern struct arena_map arena_map;

INLINE struct heap_arena *
arena_of(uintptr_t addr)
{
	if (unlikely(addr >> ADDR_BITS))
		return NULL;
	return aptr_load_acquire(&arena_map.slots[addr >> ARENA_SHIFT]);
}

INLINE size_t
arena_page_idx(uintptr_t addr)
{
	return (addr >> PAGE_SHIFT) & (ARENA_PAGES - 1);
}

/* The span that starts at, or (small slots) covers, addr; NULL for any other
 * address of the world. Interior addresses of large spans: see below. */
INLINE struct mspan *
span_of(uintptr_t addr)
{
	struct heap_arena *a = arena_of(addr);
	if (unlikely(a == NULL))
		return NULL;
	return aptr_load_acquire(&a->spans[arena_page_idx(addr)]);
}

/* The span that covers addr, however deep inside, or NULL. Slow; for reports,
 * marking and checks. */
struct mspan *arena_span_containing(uintptr_t addr);

/* Makes the heap_arenas for [base, base+bytes). false: no metadata memory. */
bool arena_add(struct persistent *meta, uintptr_t base, size_t bytes);

/* Enters and removes a span. */
void arena_set_span(struct mspan *s);
void arena_clear_span(struct mspan *s);
/* The span's last page moved (realloc in place): old_npages -> s->npages. */
void arena_resize_span(struct mspan *s, size_t old_npages);

/* Empties the map (test builds; the arenas' memory is somebody else's). */
void arena_reset(void);

#endif
