/* test_mspan.c - a span built alone: geometry and look-up by enumeration,
 * windows, drain, sweep, the tiny allocator's blocks, states. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_die.h"
#include "mspan.h"

enum { BASE = 0x40000000 };

static const struct span_policy policy_25 = { 25, (size_t)1 << 30, false };

/* ---- set-up ---- */

static size_t
class_pages(unsigned spc)
{
	if (spc == SPAN_TINY)
		return TINY_SPAN_PAGES;
	return size_classes[span_class_size_class(spc)].span_pages;
}

static struct mspan *
span_make(unsigned spc, size_t npages, const struct span_policy *policy)
{
	size_t elem = spc == SPAN_TINY ? TINY_GRANULE_BYTES :
	    span_class_size_class(spc) == 0 ? npages * PAGE_SIZE :
	    size_classes[span_class_size_class(spc)].elem_bytes;
	size_t bytes = mspan_struct_bytes(mspan_words(npages * PAGE_SIZE / elem));
	struct mspan *s = NULL;

	assert_int_equal(posix_memalign((void **)&s, CACHE_LINE, bytes), 0);
	memset(s, 0, bytes);
	mspan_init(s, BASE, npages, spc, true, policy);
	return s;
}

static struct mspan *
span_of_class(unsigned spc)
{
	return span_make(spc, class_pages(spc), &policy_25);
}

static bool
bit_get(const uint64_t *bits, size_t i)
{
	return (bits[i / 64] >> (i % 64) & 1) != 0;
}

static bool
live_get(const struct mspan *s, size_t i)
{
	return (a64_load_relaxed(&s->bits[i / 64].live) >> (i % 64) & 1) != 0;
}

static void
live_set(struct mspan *s, size_t i, bool on)
{
	uint64_t bit = (uint64_t)1 << (i % 64), v = a64_load_relaxed(&s->bits[i / 64].live);

	a64_store_relaxed(&s->bits[i / 64].live, on ? v | bit : v & ~bit);
}

static void
remote_set(struct mspan *s, size_t i)
{
	a64_fetch_or(&s->bits[i / 64].remote, (uint64_t)1 << (i % 64));
}

static size_t
bits_count(const void *words, size_t n)
{
	const uint64_t *w = words;
	size_t sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += popcount64(w[i]);
	return sum;
}

static size_t
remote_count(const struct mspan *s)
{
	size_t sum = 0;

	for (size_t w = 0; w < s->nwords; w++)
		sum += popcount64(a64_load_relaxed(&s->bits[w].remote));
	return sum;
}

/* Hands out everything, as an owner without a thread would. */
static size_t
take_all(struct mspan *s, struct rand_stream *rng)
{
	uint16_t order[WINDOW_SLOTS];
	uint32_t n;
	size_t sum = 0;

	while ((n = mspan_next_window(s, order, rng)) != 0) {
		for (uint32_t i = 0; i < n; i++)
			live_set(s, order[i], true);
		sum += n;
	}
	return sum;
}

/* ---- geometry and look-up ---- */

static void
check_geometry(const struct mspan *s, unsigned spc, size_t npages)
{
	size_t elem = size_classes[span_class_size_class(spc)].elem_bytes;

	assert_int_equal(s->elem_bytes, elem);
	assert_int_equal(s->nelems, npages * PAGE_SIZE / elem);
	assert_int_equal(s->nwords, s->nelems / 64 + 1);
	assert_int_equal(s->avail_n, s->nelems);
	assert_int_equal(bits_count(s->avail, s->nwords), s->nelems);
	assert_int_equal(mspan_live_count(s), 0);
	assert_int_equal(mspan_freed_count(s), 0);
	assert_true(mspan_is_empty(s));
	assert_ptr_equal(aptr_load_relaxed(&s->owner), &mcache_none);
	assert_in_range(s->sweep_at, 1, s->nelems);
	assert_in_range(s->notify_at, 1, 64);
	assert_in_range(s->window, WINDOW_MIN_SLOTS < s->nelems ? WINDOW_MIN_SLOTS : 1, WINDOW_SLOTS);
}

/* Every byte of the span: a slot's first byte and no other. */
static void
check_slots(const struct mspan *s)
{
	size_t bytes = mspan_bytes(s), next = 0, want = 0;

	for (size_t off = 0; off < bytes; off++) {
		size_t idx;
		bool first = mspan_slot(s, s->base + off, &idx);

		if (first != (off == next) || (first && idx != want))
			fail_msg("class %u, %zu pages, offset %zu: %d, slot %zu", s->span_class,
			    s->npages, off, first, idx);
		if (first) {
			want++;
			next += s->elem_bytes;
		}
		/* what follows looks at the bit: it must have a word */
		if (first && idx / 64 >= s->nwords)
			fail_msg("class %u: slot %zu has no word", s->span_class, idx);
	}
}

/* OS pages of 4, 16 and 64 KiB round spans up to 1, 2 and 8 span pages. */
static void
test_geometry_of_every_class(void **state)
{
	static const size_t rounding[] = { 1, 2, 8 };

	(void)state;
	for (size_t r = 0; r < ARRAY_LEN(rounding); r++)
		for (unsigned spc = 1; spc < SPAN_TINY; spc++) {
			size_t npages = align_up(class_pages(spc), rounding[r]);
			struct mspan *s;

			if (spc == SPAN_LARGE_NOSCAN)
				continue;
			s = span_make(spc, npages, &policy_25);
			check_geometry(s, spc, npages);
			if (spc < SPAN_NOSCAN)
				check_slots(s);
			free(s);
		}
}

static void
test_geometry_of_tiny(void **state)
{
	static const size_t rounding[] = { 1, 2, 8 };

	(void)state;
	for (size_t r = 0; r < ARRAY_LEN(rounding); r++) {
		size_t npages = align_up(TINY_SPAN_PAGES, rounding[r]);
		struct mspan *s = span_make(SPAN_TINY, npages, &policy_25);

		assert_int_equal(s->nelems, npages * PAGE_SIZE / TINY_GRANULE_BYTES);
		assert_int_equal(s->avail_n, npages * PAGE_SIZE / TINY_BLOCK_BYTES);
		assert_int_equal(s->sweep_at, s->avail_n / 4);
		assert_non_null(s->cont);
		check_slots(s);
		free(s);
	}
}

static void
test_geometry_of_large(void **state)
{
	static const size_t pages[] = { 1, 5, 8192, 8193, (size_t)1 << 34 };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(pages); i++) {
		struct mspan *s = span_make(i % 2 ? SPAN_LARGE : SPAN_LARGE_NOSCAN, pages[i],
		    &policy_25);
		size_t idx;

		assert_true(mspan_is_large(s));
		assert_int_equal(s->nelems, 1);
		assert_int_equal(s->elem_bytes, pages[i] << PAGE_SHIFT);
		assert_true(mspan_slot(s, BASE, &idx));
		assert_int_equal(idx, 0);
		assert_false(mspan_slot(s, BASE + 16, &idx));
		assert_false(mspan_slot(s, BASE + mspan_bytes(s) - 1, &idx));
		free(s);
	}
}

/* A struct that lived before: a bigger span's bits must not show through, nor be found
 * by a free that is late by a life of it. */
static void
test_init_forgets_everything_but_the_note(void **state)
{
	struct mspan *s = span_of_class(1);

	(void)state;
	take_all(s, NULL);
	remote_set(s, 5);
	a32_store_relaxed(&s->note_queued, 1);
	s->moved = true;
	mspan_set_state(s, SPAN_DEAD);
	mspan_init(s, BASE + PAGE_SIZE, class_pages(16), 16, false, &policy_25);
	check_geometry(s, 16, class_pages(16));
	assert_int_equal(remote_count(s), 0);
	assert_true(s->nwords < s->room_words);
	for (size_t w = s->nwords; w < s->room_words; w++) {
		assert_int_equal(a64_load_relaxed(&s->bits[w].live), 0);
		assert_int_equal(a64_load_relaxed(&s->bits[w].remote), 0);
	}
	assert_ptr_equal(s->avail, &s->bits[s->room_words]);
	assert_true(s->needzero);
	assert_false(s->moved);
	assert_int_equal(a32_load_relaxed(&s->note_queued), 1);
	assert_int_equal(s->base, BASE + PAGE_SIZE);
	free(s);
}

static void
test_sweep_share_and_window(void **state)
{
	struct span_policy p = { 12, 4096, false };
	struct mspan *s = span_make(16, class_pages(16), &p);    /* 256 B, 128 slots */

	(void)state;
	assert_int_equal(s->sweep_at, 128 * 12 / 100);
	assert_int_equal(s->window, 16);
	free(s);
	s = span_make(72, class_pages(72), &p);                  /* 32 KiB */
	assert_int_equal(s->window, WINDOW_MIN_SLOTS);
	assert_int_equal(s->sweep_at, 8 / 4);
	free(s);
	p.sweep_share_percent = 1;
	s = span_make(16, class_pages(16), &p);
	assert_int_equal(s->sweep_at, 8);
	free(s);
	p.sweep_share_percent = 100;
	s = span_make(16, class_pages(16), &p);
	assert_int_equal(s->sweep_at, 128);
	free(s);
}

/* ---- windows ---- */

/* All windows of a span: distinct free slots, each slot once. */
static void
check_windows(struct mspan *s, struct rand_stream *rng)
{
	uint8_t *seen = calloc(s->nelems, 1);
	uint16_t order[WINDOW_SLOTS];
	size_t sum = 0, total = s->avail_n;
	uint32_t n;

	while ((n = mspan_next_window(s, order, rng)) != 0) {
		assert_true(n <= s->window);
		/* only the last one may be short */
		assert_true(n == s->window || s->avail_n == 0);
		for (uint32_t i = 0; i < n; i++) {
			assert_true(order[i] < s->nelems);
			assert_int_equal(seen[order[i]]++, 0);
			assert_false(bit_get(s->avail, order[i]));
			if (rng == NULL && i > 0)
				assert_true(order[i] < order[i - 1]);
		}
		sum += n;
		assert_int_equal(s->avail_n, total - sum);
	}
	assert_int_equal(sum, total);
	assert_int_equal(bits_count(s->avail, s->nwords), 0);
	free(seen);
}

static void
test_windows_hold_distinct_free_slots(void **state)
{
	struct rand_stream rng;

	(void)state;
	rand_seed_fixed(&rng, 7, 0);
	for (unsigned spc = 1; spc < SPAN_CLASSES_ALL; spc++) {
		if (spc >= SPAN_NOSCAN && spc != SPAN_TINY)
			continue;
		for (int random = 0; random < 2; random++) {
			struct mspan *s = span_of_class(spc);
			check_windows(s, random ? &rng : NULL);
			free(s);
		}
	}
}

/* Without randomness: ascending addresses over the whole span. */
static void
test_plain_windows_ascend(void **state)
{
	struct mspan *s = span_of_class(3);
	uint16_t order[WINDOW_SLOTS];
	uint32_t n;
	size_t next = 0;

	(void)state;
	while ((n = mspan_next_window(s, order, NULL)) != 0)
		while (n > 0)
			assert_int_equal(order[--n], next++);
	assert_int_equal(next, s->nelems);
	free(s);
}

static void
test_windows_pick_the_gaps(void **state)
{
	struct mspan *s = span_of_class(1);
	uint64_t r = 99;

	(void)state;
	take_all(s, NULL);
	for (size_t i = 0; i < s->nelems; i++)
		if ((r = r * 6364136223846793005u + 1) >> 62 == 0)
			live_set(s, i, false);
	mspan_sweep(s);
	assert_in_range(s->avail_n, 1, s->nelems - 1);
	size_t avail = s->avail_n, live = mspan_live_count(s);
	uint16_t order[WINDOW_SLOTS];
	uint32_t n;
	size_t got = 0;
	while ((n = mspan_next_window(s, order, NULL)) != 0) {
		for (uint32_t i = 0; i < n; i++)
			assert_false(live_get(s, order[i]));
		got += n;
	}
	assert_int_equal(got, avail);
	assert_int_equal(got + live, s->nelems);
	free(s);
}

/* z such that P(Z > z) is about 1e-6; the seeds are fixed, so this is no
 * gamble in time, only a statement about the generator. */
static bool
chi_square_ok(const uint32_t *count, size_t cells, double expected)
{
	double chi = 0, df = (double)cells - 1;

	for (size_t i = 0; i < cells; i++) {
		double d = (double)count[i] - expected;
		chi += d * d / expected;
	}
	return fabs(chi - df) < 4.75 * sqrt(2 * df);
}

/* Each place of the window is as likely to hold each slot of it. */
static void
test_random_window_is_uniform(void **state)
{
	enum { ROUNDS = 400000, SLOTS = 64 };
	static uint32_t first[SLOTS], tenth[SLOTS], last[SLOTS], pair[SLOTS * SLOTS];
	struct rand_stream rng;
	struct mspan *s = span_make(16, class_pages(16) / 2, &policy_25);    /* one window is all */

	(void)state;
	assert_int_equal(s->nelems, SLOTS);
	rand_seed_fixed(&rng, 2024, 1);
	for (int i = 0; i < ROUNDS; i++) {
		uint16_t order[WINDOW_SLOTS];
		assert_int_equal(mspan_next_window(s, order, &rng), SLOTS);
		first[order[63]]++;
		tenth[order[54]]++;
		last[order[0]]++;
		pair[order[63] * SLOTS + order[62]]++;
		mspan_return_window(s, order, SLOTS);
	}
	assert_true(chi_square_ok(first, SLOTS, (double)ROUNDS / SLOTS));
	assert_true(chi_square_ok(tenth, SLOTS, (double)ROUNDS / SLOTS));
	assert_true(chi_square_ok(last, SLOTS, (double)ROUNDS / SLOTS));
	/* ordered pairs of the first two, the impossible ones left out */
	uint32_t pairs[SLOTS * (SLOTS - 1)], n = 0;
	for (size_t a = 0; a < SLOTS; a++)
		for (size_t b = 0; b < SLOTS; b++)
			if (a == b)
				assert_int_equal(pair[a * SLOTS + b], 0);
			else
				pairs[n++] = pair[a * SLOTS + b];
	assert_true(chi_square_ok(pairs, n, (double)ROUNDS / n));
	/* min-entropy of the choice within 0.1 bit of log2(64) */
	uint32_t most = 0;
	for (size_t a = 0; a < SLOTS; a++)
		most = first[a] > most ? first[a] : most;
	assert_true(-log2((double)most / ROUNDS) > 6 - 0.1);
	free(s);
}

/* Whichever two of the first allocations: seldom neighbours. */
static void
test_random_slots_are_seldom_adjacent(void **state)
{
	enum { ROUNDS = 20000, LOOK = 24 };
	static const unsigned classes[] = { 1, 4, 8, 9, 12, 16 };
	struct rand_stream rng;

	(void)state;
	rand_seed_fixed(&rng, 31, 4);
	for (size_t k = 0; k < ARRAY_LEN(classes); k++) {
		static uint32_t beside[LOOK][LOOK];
		struct mspan *s = span_of_class(classes[k]);
		memset(beside, 0, sizeof(beside));
		assert_true(s->nelems >= 128);
		for (int r = 0; r < ROUNDS; r++) {
			uint16_t order[WINDOW_SLOTS];
			uint32_t n = mspan_next_window(s, order, &rng);
			for (uint32_t i = 0; i < LOOK; i++)
				for (uint32_t j = 0; j < i; j++)
					beside[i][j] += abs(order[n - 1 - j] - order[n - 1 - i]) == 1;
			mspan_return_window(s, order, n);
		}
		for (uint32_t i = 0; i < LOOK; i++)
			for (uint32_t j = 0; j < i; j++)
				if (beside[i][j] > ROUNDS / 50)
					fail_msg("class %u: allocations %u and %u are neighbours in %u of %d runs",
					    classes[k], j, i, beside[i][j], ROUNDS);
		free(s);
	}
}

/* The first window begins at a random word: every slot can be the first. */
static void
test_random_window_may_begin_anywhere(void **state)
{
	enum { ROUNDS = 40000 };
	static const uint32_t most[] = { 8, 16, 32, 64 };
	static uint32_t seen[1024];
	struct rand_stream rng;
	struct mspan *s = span_of_class(1);

	(void)state;
	assert_int_equal(s->nelems, ARRAY_LEN(seen));
	for (size_t k = 0; k < ARRAY_LEN(most); k++) {
		uint32_t adjacent = 0;
		memset(seen, 0, sizeof(seen));
		rand_seed_fixed(&rng, 5, 5);
		for (int r = 0; r < ROUNDS; r++) {
			uint16_t order[WINDOW_SLOTS];
			uint32_t n = mspan_draw_window(s, order, &rng, most[k]);
			assert_int_equal(n, most[k]);
			seen[order[n - 1]]++;
			adjacent += order[n - 1] + 1 == order[n - 2] || order[n - 1] == order[n - 2] + 1;
			mspan_return_window(s, order, n);
		}
		for (size_t i = 0; i < ARRAY_LEN(seen); i++)
			assert_in_range(seen[i], 1, 3 * ROUNDS / ARRAY_LEN(seen));
		assert_true(adjacent < ROUNDS * 2 / 100);
	}
	free(s);
}

static void
test_same_seed_same_order(void **state)
{
	uint16_t a[WINDOW_SLOTS], b[WINDOW_SLOTS];
	struct rand_stream rng;

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct mspan *s = span_of_class(2);
		rand_seed_fixed(&rng, 12, 3);
		assert_int_equal(mspan_next_window(s, i ? b : a, &rng), WINDOW_SLOTS);
		free(s);
	}
	assert_memory_equal(a, b, sizeof(a));
}

static void
test_return_window_leaves_live_slots(void **state)
{
	struct mspan *s = span_of_class(4);
	uint16_t order[WINDOW_SLOTS];
	uint32_t n = mspan_next_window(s, order, NULL);

	(void)state;
	live_set(s, order[3], true);
	mspan_return_window(s, order, n);
	assert_int_equal(s->avail_n, s->nelems - 1);
	assert_false(bit_get(s->avail, order[3]));
	assert_true(bit_get(s->avail, order[4]));
	mspan_return_window(s, order, n);          /* again: nothing to do */
	assert_int_equal(s->avail_n, s->nelems - 1);
	assert_int_equal(bits_count(s->avail, s->nwords), s->nelems - 1);
	free(s);
}

/* ---- drain and sweep ---- */

static void
test_drain_takes_remote_frees(void **state)
{
	struct mspan *s = span_of_class(2);

	(void)state;
	assert_int_equal(take_all(s, NULL), s->nelems);
	assert_int_equal(mspan_drain(s), 0);
	remote_set(s, 0);
	remote_set(s, 63);
	remote_set(s, 64);
	remote_set(s, s->nelems - 1);
	assert_int_equal(mspan_live_count(s), s->nelems - 4);
	assert_int_equal(mspan_freed_count(s), 4);
	assert_false(mspan_slot_live(s, 63));
	assert_true(live_get(s, 63));         /* MSPAN-2: the owner clears both */
	assert_int_equal(mspan_drain(s), 4);
	assert_false(live_get(s, 63));
	assert_int_equal(remote_count(s), 0);
	assert_int_equal(mspan_freed_count(s), 4);
	assert_int_equal(s->avail_n, 0);           /* freed is not yet available */
	assert_int_equal(mspan_drain(s), 0);
	free(s);
}

static void
drain(void *arg)
{
	mspan_drain(arg);
}

static void
test_drain_sees_two_frees_at_once(void **state)
{
	struct mspan *s = span_of_class(2);

	(void)state;
	take_all(s, NULL);
	live_set(s, 70, false);       /* the owner freed it between the two steps of another */
	remote_set(s, 70);
	assert_true(fake_die_caught(drain, s));
	assert_int_equal(fake_die_info.code, DIE_DOUBLE_FREE);
	assert_string_equal(fake_die_info.site, "MSPAN-2");
	assert_int_equal(fake_die_info.addr, BASE + 70 * s->elem_bytes);
	free(s);
}

static void
test_sweep_frees_exactly_what_was_freed(void **state)
{
	struct mspan *s = span_of_class(5);
	uint64_t r = 4711;
	uint8_t *freed = calloc(s->nelems, 1);
	size_t n = 0;

	(void)state;
	take_all(s, NULL);
	assert_false(s->needzero);
	for (size_t i = 0; i < s->nelems; i++) {
		r = r * 6364136223846793005u + 1442695040888963407u;
		if (r >> 63 == 0)
			continue;
		freed[i] = 1;
		n++;
		if ((r >> 62 & 1) != 0)
			remote_set(s, i);
		else
			live_set(s, i, false);
	}
	assert_int_equal(mspan_freed_count(s), n);
	mspan_sweep(s);
	assert_int_equal(s->avail_n, n);
	assert_int_equal(mspan_freed_count(s), 0);
	assert_int_equal(mspan_live_count(s), s->nelems - n);
	assert_true(s->needzero);
	for (size_t i = 0; i < s->nelems; i++) {
		assert_int_equal(bit_get(s->avail, i), freed[i]);
		assert_int_equal(live_get(s, i), !freed[i]);
	}
	for (size_t i = s->nelems; i < s->nwords * 64u; i++)
		assert_false(bit_get(s->avail, i));    /* MSPAN-3 */
	free(freed);
	free(s);
}

static void
test_empty(void **state)
{
	struct mspan *s = span_of_class(16);

	(void)state;
	assert_true(mspan_is_empty(s));
	live_set(s, 10, true);
	assert_false(mspan_is_empty(s));
	remote_set(s, 10);
	assert_true(mspan_is_empty(s));
	mspan_drain(s);
	assert_true(mspan_is_empty(s));
	live_set(s, s->nelems - 1, true);
	assert_false(mspan_is_empty(s));
	free(s);
}

/* ---- tiny ---- */

/* A block is free when none of its granules starts an object. */
static void
test_tiny_sweep_goes_by_blocks(void **state)
{
	struct mspan *s = span_of_class(SPAN_TINY);
	size_t blocks = s->nelems / TINY_BLOCK_GRANULES;

	(void)state;
	assert_int_equal(take_all(s, NULL), blocks);
	for (size_t i = 0; i < s->nelems; i++)
		live_set(s, i, false);
	/* block b keeps one object at granule b % 5; at 4 there is none */
	for (size_t b = 0; b < blocks; b++)
		if (b % 5 != 4)
			live_set(s, b * 4 + b % 5, true);
	/* an object of block 0 goes on over its second granule */
	s->cont[0] |= 1 << 1;
	s->cont[0] |= (uint64_t)1 << 17;               /* block 4, which is free */
	size_t empty = blocks / 5;
	assert_int_equal(mspan_freed_count(s), empty);
	mspan_sweep(s);
	assert_int_equal(s->avail_n, empty);
	for (size_t i = 0; i < s->nelems; i++)
		assert_int_equal(bit_get(s->avail, i), i % 4 == 0 && i / 4 % 5 == 4);
	assert_int_equal(s->cont[0], 1 << 1);
	free(s);
}

/* ---- states ---- */

struct arrow {
	struct mspan *s;
	enum span_state to;
};

static void
set_state(void *arg)
{
	struct arrow *a = arg;
	mspan_set_state(a->s, a->to);
}

static void
test_only_drawn_arrows(void **state)
{
	static const bool drawn[3][3] = {
		[SPAN_DEAD] = { [SPAN_IN_USE] = true },
		[SPAN_IN_USE] = { [SPAN_DEAD] = true, [SPAN_PARKED] = true },
		[SPAN_PARKED] = { [SPAN_DEAD] = true },
	};
	struct mspan *s = span_of_class(1);

	(void)state;
	for (uint32_t from = 0; from < 4; from++)
		for (uint32_t to = 0; to < 3; to++) {
			struct arrow a = { s, (enum span_state)to };
			a32_store_relaxed(&s->state, from);
			bool died = fake_die_caught(set_state, &a);
			assert_int_equal(died, from == 3 || !drawn[from][to]);
			if (died) {
				assert_string_equal(fake_die_info.site, "MSPAN-9");
				assert_int_equal(a32_load_relaxed(&s->state), from);
			} else {
				assert_int_equal(a32_load_relaxed(&s->state), to);
			}
		}
	free(s);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_geometry_of_every_class),
		cmocka_unit_test(test_geometry_of_tiny),
		cmocka_unit_test(test_geometry_of_large),
		cmocka_unit_test(test_init_forgets_everything_but_the_note),
		cmocka_unit_test(test_sweep_share_and_window),
		cmocka_unit_test(test_windows_hold_distinct_free_slots),
		cmocka_unit_test(test_plain_windows_ascend),
		cmocka_unit_test(test_windows_pick_the_gaps),
		cmocka_unit_test(test_random_window_is_uniform),
		cmocka_unit_test(test_random_slots_are_seldom_adjacent),
		cmocka_unit_test(test_random_window_may_begin_anywhere),
		cmocka_unit_test(test_same_seed_same_order),
		cmocka_unit_test(test_return_window_leaves_live_slots),
		cmocka_unit_test(test_drain_takes_remote_frees),
		cmocka_unit_test(test_drain_sees_two_frees_at_once),
		cmocka_unit_test(test_sweep_frees_exactly_what_was_freed),
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_tiny_sweep_goes_by_blocks),
		cmocka_unit_test(test_only_drawn_arrows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
