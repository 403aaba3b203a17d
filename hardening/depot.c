/* depot.c - see depot.h. */
#include "depot.h"

#include <string.h>

#include "../src/atomic.h"
#include "../src/report.h"
#include "../src/sys.h"

enum {
	UNIT_BYTES = 8,
	BUCKETS = 1 << 16,
	HEADER_UNITS = 1,
	FIRST_ID = 1,               /* 0 is no id */
	HASH_BITS = 24,             /* kept beside the number of frames */
};

struct entry {
	uint32_t next;              /* id of the next in the chain; constant once hung in */
	uint32_t frames_hash;       /* frames << HASH_BITS | a part of the hash */
	uintptr_t pcs[];
};

static struct {
	char *base;                 /* NULL: nothing is kept */
	uint64_t limit;             /* in units, like at */
	atomic_u64 at;              /* 0 is never given out */
	atomic_u64 stacks, refused;
	atomic_u32 buckets[BUCKETS];
} depot;

/* [guard | bytes of zeroed memory | guard], or NULL. The guards stay reserved. */
static char *
guarded_range(size_t bytes, size_t edge)
{
	char *p = sys_reserve(0, bytes + 2 * edge, edge, false);
	if (p == NULL)
		return NULL;
	if (sys_map(p + edge, bytes)) {
		sys_used(p + edge, bytes);
		return p + edge;
	}
	sys_free(p, bytes + 2 * edge, SYS_RESERVED);
	return NULL;
}

void
depot_init(size_t bytes)
{
	size_t edge = sys_page_bytes();
	memset(&depot, 0, sizeof(depot));
	if (bytes > (uint64_t)UINT32_MAX * UNIT_BYTES)
		bytes = (uint64_t)UINT32_MAX * UNIT_BYTES;
	bytes = align_down(bytes, edge);
	while (bytes != 0 && (depot.base = guarded_range(bytes, edge)) == NULL)
		bytes = align_down(bytes / 2, edge);
	depot.limit = bytes / UNIT_BYTES;
	a64_store_relaxed(&depot.at, FIRST_ID);
}

/* Each pc is multiplied by a constant of its place, so that the sum has no long
 * chain of dependent steps (multilinear hashing). */
static uint64_t
hash(const uintptr_t *pcs, size_t n)
{
	uint64_t h = n, k = 0x9e3779b97f4a7c15u;
	for (size_t i = 0; i < n; i++) {
		h += (pcs[i] ^ pcs[i] >> 17) * k;
		k += 0x6a09e667f3bcc908u;
	}
	h ^= h >> 32;
	return h * 0xd6e8feb86659fd93u;
}

static struct entry *
entry_of(uint32_t id)
{
	return (struct entry *)(depot.base + (uint64_t)id * UNIT_BYTES);
}

static uint32_t
find(uint32_t id, uint32_t until, const uintptr_t *pcs, size_t n, uint32_t frames_hash)
{
	while (id != until) {
		const struct entry *e = entry_of(id);
		if (e->frames_hash == frames_hash && memcmp(e->pcs, pcs, n * sizeof(*pcs)) == 0)
			return id;
		id = e->next;
	}
	return 0;
}

static uint32_t
claim(size_t units)
{
	uint64_t at = a64_fetch_add(&depot.at, units);
	if (likely(at + units <= depot.limit))
		return (uint32_t)at;
	a64_fetch_sub(&depot.at, units);
	if (a64_fetch_add(&depot.refused, 1) == 0)
		report_warn("depot_bytes are used up: objects with a new call stack "
		    "are recorded without it", NULL);
	return 0;
}

static uint32_t
add(atomic_u32 *bucket, uint32_t head, const uintptr_t *pcs, size_t n, uint32_t frames_hash)
{
	uint32_t id = claim(HEADER_UNITS + n);
	if (id == 0)
		return 0;
	struct entry *e = entry_of(id);
	e->frames_hash = frames_hash;
	memcpy(e->pcs, pcs, n * sizeof(*pcs));
	e->next = head;
	for (uint32_t seen = head; !a32_cas(bucket, &head, id); seen = head) {
		uint32_t same = find(head, seen, pcs, n, frames_hash);
		if (same != 0)
			return same;    /* somebody else's; ours is in no chain */
		e->next = head;
	}
	a64_fetch_add(&depot.stacks, 1);
	return id;
}

uint32_t
depot_put(const uintptr_t *pcs, size_t n)
{
	if (n == 0 || depot.base == NULL)
		return 0;
	if (n > DEPOT_FRAMES)
		n = DEPOT_FRAMES;
	uint64_t h = hash(pcs, n);
	uint32_t frames_hash = (uint32_t)(n << HASH_BITS | (h & (((uint32_t)1 << HASH_BITS) - 1)));
	atomic_u32 *bucket = &depot.buckets[h >> 48];
	uint32_t head = a32_load_acquire(bucket);
	uint32_t id = find(head, 0, pcs, n, frames_hash);
	return likely(id != 0) ? id : add(bucket, head, pcs, n, frames_hash);
}

const uintptr_t *
depot_get(uint32_t id, uint32_t *n)
{
	uint64_t at = a64_load_acquire(&depot.at);
	*n = 0;
	if (id < FIRST_ID || depot.base == NULL || id + HEADER_UNITS > at)
		return NULL;
	const struct entry *e = entry_of(id);
	uint32_t frames = e->frames_hash >> HASH_BITS;
	if (frames == 0 || frames > DEPOT_FRAMES || id + HEADER_UNITS + (uint64_t)frames > at)
		return NULL;
	*n = frames;
	return e->pcs;
}

void
depot_read_stats(struct depot_stats *out)
{
	uint64_t at = a64_load_relaxed(&depot.at);
	*out = (struct depot_stats){ .stacks = a64_load_relaxed(&depot.stacks),
		.bytes = at * UNIT_BYTES, .refused = a64_load_relaxed(&depot.refused) };
}
