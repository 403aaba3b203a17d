/* zerosize.c - see zerosize.h. */
#include "zerosize.h"

#include "../src/atomic.h"
#include "../src/sys.h"

enum {
	CHUNKS = 16,
	CHUNK_BYTES = 4 << 20,
	GRANULE_BYTES = MALLOC_ALIGN,
	GRANULES = CHUNK_BYTES / GRANULE_BYTES,
	WORDS = GRANULES / 64,
	LOOK_WORDS = 64,        /* words looked at in one chunk before the next is tried */
	LOOK_BACK = 4096,       /* granules looked at to tell whose touch it was */
};

struct zero_chunk {
	uintptr_t base;
	atomic_u64 live[WORDS];
	atomic_u64 ever[WORDS];     /* was live once */
};

static struct {
	bool on;
	bool seeded;                /* the same addresses in every run */
	atomic_u64 draws;
	uint64_t key;
	atomic_ptr chunks[CHUNKS];  /* struct zero_chunk; from the front, never taken out */
} zero;

void
zerosize_init(bool on, uint64_t seed)
{
	zero.on = on;
	zero.seeded = seed != 0;
	zero.key = seed;
	a64_store_relaxed(&zero.draws, 0);
	for (size_t i = 0; i < CHUNKS; i++)
		aptr_store_relaxed(&zero.chunks[i], NULL);
	if (seed == 0)
		sys_random(&zero.key, sizeof(zero.key));
}

void
zerosize_after_fork_child(void)
{
	if (!zero.seeded)
		sys_random(&zero.key, sizeof(zero.key));
}

/* splitmix64 (Steele, Lea, Flood) over a counter: no lock, and a handler may
 * come in at any point. */
static uint64_t
draw(void)
{
	uint64_t z = zero.key + a64_fetch_add(&zero.draws, 1) * 0x9e3779b97f4a7c15u;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* ---- chunks ------------------------------------------------------------- */

/* The bits, between guards that are simply never mapped. */
static struct zero_chunk *
make_bits(size_t *bytes, size_t edge)
{
	*bytes = align_up(sizeof(struct zero_chunk), edge);
	char *p = sys_reserve(0, *bytes + 2 * edge, edge, false);
	if (p == NULL)
		return NULL;
	if (!sys_map(p + edge, *bytes)) {
		sys_free(p, *bytes + 2 * edge, SYS_RESERVED);
		return NULL;
	}
	sys_used(p + edge, *bytes);
	return (struct zero_chunk *)(void *)(p + edge);
}

static void
delete_chunk(struct zero_chunk *c, size_t bytes, size_t edge)
{
	if (c->base != 0)
		sys_free((void *)c->base, CHUNK_BYTES, SYS_RESERVED);
	sys_free((char *)c - edge, edge, SYS_RESERVED);
	sys_free(c, bytes, SYS_READY);
	sys_free((char *)c + bytes, edge, SYS_RESERVED);
}

/* Of two threads that find no chunk, one takes its own back. */
static struct zero_chunk *
add_chunk(atomic_ptr *slot)
{
	size_t bytes, edge = sys_page_bytes();
	void *have = NULL;
	struct zero_chunk *c = make_bits(&bytes, edge);
	if (c == NULL)
		return NULL;
	c->base = (uintptr_t)sys_reserve(0, CHUNK_BYTES, CHUNK_BYTES, false);
	if (c->base != 0 && aptr_cas(slot, &have, c))
		return c;
	delete_chunk(c, bytes, edge);
	return have;
}

static struct zero_chunk *
chunk_of(uintptr_t addr)
{
	for (size_t i = 0; i < CHUNKS; i++) {
		struct zero_chunk *c = aptr_load_acquire(&zero.chunks[i]);
		if (c == NULL)
			return NULL;
		if (addr - c->base < CHUNK_BYTES)
			return c;
	}
	return NULL;
}

static bool
bit(const atomic_u64 *words, size_t i)
{
	return (a64_load_acquire(&words[i / 64]) >> (i % 64) & 1) != 0;
}

/* ---- alloc and free ----------------------------------------------------- */

/* The bits of a word whose granules are multiples of `step` granules. */
static uint64_t
aligned_bits(size_t step)
{
	uint64_t bits = 0;
	for (size_t i = 0; i < 64; i += step)
		bits |= (uint64_t)1 << i;
	return bits;
}

/* One of the bits that are set in v, all equally likely. */
static unsigned
pick_bit(uint64_t v)
{
	unsigned skip = (unsigned)(((draw() >> 32) * popcount64(v)) >> 32);
	while (skip-- > 0)
		v &= v - 1;
	return ctz64(v);
}

static void *
claim_in(struct zero_chunk *c, size_t align)
{
	size_t step = align / GRANULE_BYTES;
	size_t word_step = step > 64 ? step / 64 : 1;
	uint64_t fits = aligned_bits(step);
	size_t w = draw() % (WORDS / word_step) * word_step;
	for (size_t looks = 0; looks < LOOK_WORDS && looks < WORDS / word_step; looks++) {
		uint64_t open = ~a64_load_relaxed(&c->live[w]) & fits;
		while (open != 0) {
			unsigned i = pick_bit(open);
			uint64_t mask = (uint64_t)1 << i;
			a64_fetch_or(&c->ever[w], mask);
			if ((a64_fetch_or(&c->live[w], mask) & mask) == 0)
				return (void *)(c->base + (w * 64 + i) * GRANULE_BYTES);
			open = ~a64_load_relaxed(&c->live[w]) & fits;
		}
		w = (w + word_step) % WORDS;
	}
	return NULL;
}

void *
zerosize_alloc(size_t align)
{
	void *p = NULL;
	if (!zero.on || align > CHUNK_BYTES)
		return NULL;
	if (align < GRANULE_BYTES)
		align = GRANULE_BYTES;
	for (size_t i = 0; i < CHUNKS && p == NULL; i++) {
		struct zero_chunk *c = aptr_load_acquire(&zero.chunks[i]);
		if (c == NULL)
			c = add_chunk(&zero.chunks[i]);
		if (c == NULL)
			return NULL;
		p = claim_in(c, align);
	}
	return p;
}

enum outside_verdict
zerosize_look(const void *p)
{
	const struct zero_chunk *c = chunk_of((uintptr_t)p);
	if (c == NULL)
		return OUTSIDE_FOREIGN;
	size_t off = (uintptr_t)p - c->base, i = off / GRANULE_BYTES;
	if (!bit(c->ever, i))
		return OUTSIDE_FOREIGN;     /* malloc never returned it */
	if (off % GRANULE_BYTES != 0)
		return OUTSIDE_INTERIOR;
	return bit(c->live, i) ? OUTSIDE_OK : OUTSIDE_FREED;
}

/* The live bit is the claim: of two frees at once, one gets it. */
enum outside_verdict
zerosize_free(void *p)
{
	enum outside_verdict v = zerosize_look(p);
	if (v != OUTSIDE_OK)
		return v;
	struct zero_chunk *c = chunk_of((uintptr_t)p);
	size_t i = ((uintptr_t)p - c->base) / GRANULE_BYTES;
	uint64_t mask = (uint64_t)1 << (i % 64);
	return (a64_fetch_and(&c->live[i / 64], ~mask) & mask) != 0 ? OUTSIDE_OK : OUTSIDE_FREED;
}

/* ---- for reports and checks --------------------------------------------- */

static bool
claims(uintptr_t addr, struct fault_claim *out)
{
	*out = (struct fault_claim){ DIE_ZERO_SIZE, "zerosize" };
	return chunk_of(addr) != NULL;
}

/* Of a touch some way behind an object, that is the nearest one before. */
static bool
object(uintptr_t addr, struct room_object *out)
{
	const struct zero_chunk *c = chunk_of(addr);
	if (c == NULL)
		return false;
	size_t at = (addr - c->base) / GRANULE_BYTES, i = at;
	while (!bit(c->ever, i) && i > 0 && at - i < LOOK_BACK)
		i--;
	if (!bit(c->ever, i))
		i = at;
	*out = (struct room_object){ .what = "an object of no bytes",
		.base = c->base + i * GRANULE_BYTES, .live = bit(c->live, i) };
	return true;
}

const struct fault_room zerosize_room = { .claim = claims, .object = object };

size_t
zerosize_live_count(void)
{
	size_t n = 0;
	for (size_t i = 0; i < CHUNKS; i++) {
		const struct zero_chunk *c = aptr_load_acquire(&zero.chunks[i]);
		for (size_t w = 0; c != NULL && w < WORDS; w++)
			n += popcount64(a64_load_relaxed(&c->live[w]));
	}
	return n;
}

/* ever first is written, so it is read last. */
const char *
zerosize_check(void)
{
	for (size_t i = 0; i < CHUNKS; i++) {
		const struct zero_chunk *c = aptr_load_acquire(&zero.chunks[i]);
		for (size_t w = 0; c != NULL && w < WORDS; w++) {
			uint64_t live = a64_load_acquire(&c->live[w]);
			if ((live & ~a64_load_acquire(&c->ever[w])) != 0)
				return "ZEROSIZE-1";
		}
	}
	return NULL;
}
