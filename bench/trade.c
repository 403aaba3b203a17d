/* trade.c - threads that replace each other's objects in one shared table.
 *
 *   trade [threads [replacements-per-thread [slots]]]
 *
 * Each step allocates a block, swaps it into a random slot of a table that all
 * threads share, and frees what was there: with n threads, (n-1)/n of all frees
 * are of a block that another thread allocated. The size lives in the block,
 * since nothing else travels with the pointer. */
#include "bench.h"

#include <stdatomic.h>

struct trader {
	_Atomic(uint32_t *) *slots;
	size_t nslots, replacements, id;
};

enum { MIN_BYTES = 16 };

static size_t
trade_size(struct rng *r)
{
	size_t roll = rng_below(r, 100);

	if (roll < 80)
		return rng_range(r, MIN_BYTES, 128);
	if (roll < 99)
		return rng_range(r, 129, 1024);
	return rng_range(r, 1025, 8192);
}

static uint32_t *
trade_new(struct rng *r)
{
	size_t bytes = trade_size(r);
	uint32_t *p = block_new(bytes);

	p[0] = (uint32_t)bytes;
	return p;
}

static void
trade_free(uint32_t *p)
{
	size_t bytes = p[0];

	if (bytes < MIN_BYTES || ((unsigned char *)p)[bytes - 1] != block_tag(bytes))
		bench_fail("trade: block %p was overwritten", (void *)p);
	free(p);
}

static void *
trade_run(void *arg)
{
	struct trader *t = arg;
	struct rng r = {t->id + 77};

	for (size_t i = 0; i < t->replacements; i++) {
		size_t at = rng_below(&r, t->nslots);
		uint32_t *old = atomic_exchange_explicit(&t->slots[at], trade_new(&r),
							 memory_order_acq_rel);

		if (old != NULL)
			trade_free(old);
	}
	return NULL;
}

int
main(int argc, char **argv)
{
	size_t threads = bench_arg(argc, argv, 1, 4);
	size_t replacements = bench_arg(argc, argv, 2, 3000000);
	size_t nslots = bench_arg(argc, argv, 3, 50000);
	struct trader *traders = block_raw(threads * sizeof(*traders));
	pthread_t *ids = block_raw(threads * sizeof(*ids));
	_Atomic(uint32_t *) *slots = calloc(nslots, sizeof(*slots));

	if (slots == NULL)
		bench_fail("trade: no memory for the table");
	for (size_t i = 0; i < threads; i++) {
		traders[i] = (struct trader){slots, nslots, replacements, i};
		ids[i] = bench_thread(trade_run, &traders[i]);
	}
	for (size_t i = 0; i < threads; i++)
		bench_join(ids[i]);
	for (size_t i = 0; i < nslots; i++) {
		uint32_t *p = atomic_load_explicit(&slots[i], memory_order_relaxed);

		if (p != NULL)
			trade_free(p);
	}
	free(slots);
	free(ids);
	free(traders);
	return 0;
}
