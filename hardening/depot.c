/* depot.c - see depot.h. */
#include "depot.h"

#include <string.h>

#include "../src/atomic.h"
#include "../src/report.h"
#include "../src/sys.h"

enum {
	UNIT_BYTES = DEPOT_UNIT_BYTES,
	CHUNK_UNITS = DEPOT_CHUNK_UNITS,
	CHUNKS = 4096,
	HEADER_UNITS = 1,
	FIRST_ID = 1,               /* 0 is no id */
	BUCKETS = 1 << 16,
	HASH_BITS = DEPOT_HASH_BITS,
};

static struct {
	uint64_t limit;             /* in units, like at */
	atomic_u64 at;
	atomic_u64 stacks, refused;
	atomic_ptr chunks[CHUNKS];
	atomic_u32 buckets[BUCKETS];
} depot;

void
depot_init(size_t bytes)
{
	memset(&depot, 0, sizeof(depot));
	size_t chunks = bytes / DEPOT_CHUNK_BYTES;
	depot.limit = (uint64_t)(chunks < CHUNKS ? chunks : CHUNKS) * CHUNK_UNITS;
	a64_store_relaxed(&depot.at, FIRST_ID);
}

AT_ENDS const atomic_ptr *
depot_chunks(void)
{
	return depot.chunks;
}

/* Of two who need it first, one keeps what it got. */
static bool
have_chunk(uint64_t i)
{
	void *have = aptr_load_acquire(&depot.chunks[i]);
	size_t edge = sys_page_bytes(), whole = DEPOT_CHUNK_BYTES + 2 * edge;
	if (likely(have != NULL))
		return true;
	char *p = sys_alloc(whole);
	if (p == NULL)
		return false;
	if (!aptr_cas(&depot.chunks[i], &have, p + edge)) {
		sys_free(p, whole, SYS_READY);
		return true;
	}
	/* a refused guard stays a zeroed page that nobody uses */
	sys_fault(p, edge);
	sys_fault(p + edge + DEPOT_CHUNK_BYTES, edge);
	return true;
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

static struct depot_entry *
entry_of(uint32_t id)
{
	char *chunk = aptr_load_acquire(&depot.chunks[id / CHUNK_UNITS]);
	return (struct depot_entry *)(chunk + (size_t)(id % CHUNK_UNITS) * UNIT_BYTES);
}

static uint32_t
find(uint32_t id, uint32_t until, const uintptr_t *pcs, size_t n, uint32_t frames_hash)
{
	while (id != until) {
		const struct depot_entry *e = entry_of(id);
		if (e->frames_hash == frames_hash && memcmp(e->pcs, pcs, n * sizeof(*pcs)) == 0)
			return id;
		id = e->next;
	}
	return 0;
}

static uint32_t
refuse(void)
{
	if (a64_fetch_add(&depot.refused, 1) == 0)
		report_warn("no more memory for call stacks (depot_bytes): objects with a new "
		    "one are recorded without it", NULL);
	return 0;
}

/* An entry lies in one chunk; what is left of the one before stays unused. */
static uint32_t
claim(uint64_t units)
{
	uint64_t at = a64_load_relaxed(&depot.at), id;
	do {
		id = at % CHUNK_UNITS + units <= CHUNK_UNITS ? at :
		    align_up(at, CHUNK_UNITS) + FIRST_ID;
		if (id + units > depot.limit)
			return refuse();
	} while (!a64_cas(&depot.at, &at, id + units));
	return have_chunk(id / CHUNK_UNITS) ? (uint32_t)id : refuse();
}

static uint32_t
add(atomic_u32 *bucket, uint32_t head, const uintptr_t *pcs, size_t n, uint32_t frames_hash)
{
	uint32_t id = claim(HEADER_UNITS + n);
	if (id == 0)
		return 0;
	struct depot_entry *e = entry_of(id);
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
	if (n == 0 || depot.limit == 0)
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
	uint64_t room = CHUNK_UNITS - id % CHUNK_UNITS;
	*n = 0;
	if (id < FIRST_ID || id >= depot.limit || room <= HEADER_UNITS ||
	    aptr_load_acquire(&depot.chunks[id / CHUNK_UNITS]) == NULL)
		return NULL;
	const struct depot_entry *e = entry_of(id);
	uint32_t frames = e->frames_hash >> HASH_BITS;
	if (frames == 0 || frames > DEPOT_FRAMES || frames + (uint64_t)HEADER_UNITS > room)
		return NULL;
	*n = frames;
	return e->pcs;
}

void
depot_read_stats(struct depot_stats *out)
{
	*out = (struct depot_stats){ .stacks = a64_load_relaxed(&depot.stacks),
		.bytes = sizeof(depot.buckets), .refused = a64_load_relaxed(&depot.refused) };
	for (size_t i = 0; i < CHUNKS && aptr_load_relaxed(&depot.chunks[i]) != NULL; i++)
		out->bytes += DEPOT_CHUNK_BYTES;
}
