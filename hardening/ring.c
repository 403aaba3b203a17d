/* ring.c - see ring.h. */
#include "ring.h"

#include "../src/atomic.h"
#include "../src/persistentalloc.h"
#include "sidetable.h"

struct ring_entry {
	atomic_u64 number;      /* from 1 on; written last */
	uintptr_t addr;
	size_t bytes;           /* as asked for; 0 for a free */
	int tid;
	enum malloc_api api;
};

static struct {
	struct persistent memory;
	struct ring_entry *entries;     /* NULL: off */
	size_t places;                  /* a power of two */
	atomic_u64 last;                /* number of the last call */
} ring;

AT_ENDS void
ring_init(size_t entries)
{
	size_t places = 1;
	ring.entries = NULL;
	a64_store_relaxed(&ring.last, 0);
	if (entries == 0)
		return;
	while (places < entries)
		places *= 2;
	persistent_init(&ring.memory);
	ring.entries = persistent_alloc(&ring.memory, places * sizeof(*ring.entries), CACHE_LINE);
	ring.places = places;
}

void
ring_note(const void *p, size_t bytes, enum malloc_api api)
{
	if (likely(ring.entries == NULL))
		return;
	uint64_t number = a64_fetch_add(&ring.last, 1) + 1;
	struct ring_entry *e = &ring.entries[number & (ring.places - 1)];
	a64_store_relaxed(&e->number, 0);
	e->addr = (uintptr_t)p;
	e->bytes = bytes;
	e->tid = sidetable_tid();
	e->api = api;
	a64_store_release(&e->number, number);
}
