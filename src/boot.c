/* boot.c - see boot.h. */
#include "boot.h"

#include "atomic.h"

enum {
	BOOT_BYTES = 1 << 20,
	GRANULES = BOOT_BYTES / MALLOC_ALIGN,
	WORD_GRANULES = 64,
	WORDS = GRANULES / WORD_GRANULES,
	REGION_ALIGN = 4096,
};

static char region[BOOT_BYTES] ALIGNED(REGION_ALIGN);
static atomic_u64 used[WORDS];
static atomic_u64 starts[WORDS];
static uint32_t length[GRANULES];       /* of the object that starts there */

static uint64_t
run_mask(size_t n, size_t at)
{
	return (n == WORD_GRANULES ? ~(uint64_t)0 : ((uint64_t)1 << n) - 1) << at;
}

/* n granules at a multiple of `step` inside word w; WORD_GRANULES if none fit. */
static size_t
claim_in_word(size_t w, size_t n, size_t step)
{
	uint64_t now = a64_load_relaxed(&used[w]);
	size_t at = 0;
	while (at + n <= WORD_GRANULES) {
		uint64_t mask = run_mask(n, at);
		if ((now & mask) != 0)
			at += step;
		else if (a64_cas(&used[w], &now, now | mask))
			return at;
	}
	return WORD_GRANULES;
}

static void
unclaim_words(size_t w, size_t n)
{
	while (n > 0)
		a64_store_release(&used[w + --n], 0);
}

static bool
claim_words(size_t w, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t zero = 0;
		if (!a64_cas(&used[w + i], &zero, ~(uint64_t)0)) {
			unclaim_words(w, i);
			return false;
		}
	}
	return true;
}

static void *
start_object(size_t granule, size_t n)
{
	length[granule] = (uint32_t)n;
	a64_fetch_or(&starts[granule / 64], (uint64_t)1 << (granule % 64));
	return region + granule * MALLOC_ALIGN;
}

static void *
alloc_words(size_t granules, size_t align)
{
	size_t n = (granules + WORD_GRANULES - 1) / WORD_GRANULES;
	size_t step = align / (WORD_GRANULES * MALLOC_ALIGN);
	for (size_t w = 0; w + n <= WORDS; w += step != 0 ? step : 1)
		if (claim_words(w, n))
			return start_object(w * WORD_GRANULES, n * WORD_GRANULES);
	return NULL;
}

void *
boot_alloc(size_t bytes, size_t align)
{
	if (bytes > BOOT_BYTES || align > REGION_ALIGN)
		return NULL;
	size_t n = bytes == 0 ? 1 : (bytes + MALLOC_ALIGN - 1) / MALLOC_ALIGN;
	size_t step = align <= MALLOC_ALIGN ? 1 : align / MALLOC_ALIGN;
	if (n > WORD_GRANULES || step > WORD_GRANULES)
		return alloc_words(n, align);
	for (size_t w = 0; w < WORDS; w++) {
		size_t at = claim_in_word(w, n, step);
		if (at < WORD_GRANULES)
			return start_object(w * WORD_GRANULES + at, n);
	}
	return NULL;
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
	if (off % MALLOC_ALIGN != 0)
		return BOOT_INTERIOR;
	if (!bit(starts, i))
		return bit(used, i) ? BOOT_INTERIOR : BOOT_FREED;
	*bytes = (size_t)length[i] * MALLOC_ALIGN;
	return BOOT_OK;
}

/* By hand, a granule at a time: memset may not be callable yet. */
static void
wipe(void *p, size_t bytes)
{
	for (uint64_t *w = p, *end = w + bytes / sizeof(*w); w < end; w += 2) {
		w[0] = w[1] = 0;
		__asm__ volatile("" ::: "memory");
	}
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
	/* the start bit is the claim: of two frees at once, one gets it */
	if ((a64_fetch_and(&starts[i / 64], ~mask) & mask) == 0)
		return BOOT_FREED;
	wipe(p, bytes);
	for (size_t n = bytes / MALLOC_ALIGN; n > 0;) {
		size_t at = i % WORD_GRANULES;
		size_t here = n < WORD_GRANULES - at ? n : WORD_GRANULES - at;
		a64_fetch_and(&used[i / 64], ~run_mask(here, at));
		i += here;
		n -= here;
	}
	return BOOT_OK;
}
