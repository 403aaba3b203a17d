/* boot.c - see boot.h. */
#include "boot.h"

#include "atomic.h"

enum {
	BOOT_BYTES = 1 << 20,
	GRANULES = BOOT_BYTES / MALLOC_ALIGN,
	WORDS = GRANULES / 64,
};

static char region[BOOT_BYTES] ALIGNED(4096);
static atomic_u64 next_granule;
static atomic_u64 starts[WORDS];
static atomic_u64 live[WORDS];

void *
boot_alloc(size_t bytes, size_t align)
{
	size_t per_align = align <= MALLOC_ALIGN ? 1 : align / MALLOC_ALIGN;
	size_t n = bytes / MALLOC_ALIGN + 1;
	if (bytes > BOOT_BYTES || per_align > GRANULES)
		return NULL;
	/* the region is page-aligned; a larger alignment is taken by position */
	uintptr_t base = (uintptr_t)region / MALLOC_ALIGN;
	uint64_t from = a64_load_relaxed(&next_granule), at;
	do {
		at = align_up(base + from, per_align) - base;
		if (at + n > GRANULES)
			return NULL;
	} while (!a64_cas(&next_granule, &from, at + n));
	a64_fetch_or(&starts[at / 64], (uint64_t)1 << (at % 64));
	a64_fetch_or(&live[at / 64], (uint64_t)1 << (at % 64));
	return region + at * MALLOC_ALIGN;
}

static bool
bit(const atomic_u64 *words, size_t i)
{
	return (a64_load_acquire(&words[i / 64]) >> (i % 64) & 1) != 0;
}

enum boot_verdict
boot_look(const void *p, size_t *bytes)
{
	size_t off = (uintptr_t)p - (uintptr_t)region;
	*bytes = 0;
	if (off >= BOOT_BYTES)
		return BOOT_FOREIGN;
	size_t i = off / MALLOC_ALIGN;
	if (off % MALLOC_ALIGN != 0 || !bit(starts, i))
		return BOOT_INTERIOR;
	if (!bit(live, i))
		return BOOT_FREED;
	size_t end = i + 1, used = a64_load_acquire(&next_granule);
	while (end < used && !bit(starts, end))
		end++;
	*bytes = (end - i) * MALLOC_ALIGN;
	return BOOT_OK;
}

enum boot_verdict
boot_free(void *p)
{
	size_t bytes;
	enum boot_verdict v = boot_look(p, &bytes);
	if (v != BOOT_OK)
		return v;
	size_t i = ((uintptr_t)p - (uintptr_t)region) / MALLOC_ALIGN;
	uint64_t mask = (uint64_t)1 << (i % 64);
	uint64_t before = a64_fetch_and(&live[i / 64], ~mask);
	return (before & mask) != 0 ? BOOT_OK : BOOT_FREED;
}
