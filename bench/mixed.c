/* mixed.c - batches of mixed sizes with realloc, freed in three orders.
 *
 *   mixed [threads [batches-per-thread [blocks-per-batch]]]
 *
 * A batch allocates its blocks (60 % up to 128 bytes, 30 % up to 1 KiB, 9 % up
 * to 8 KiB, 1 % up to 64 KiB), reallocates a quarter of them to another size,
 * and frees all but a few: newest first, oldest first, or in random order, by
 * turns. One block in sixteen outlives its batch, in a ring that holds the
 * survivors of the last batches. */
#include "bench.h"

enum { SURVIVORS = 4096 };

struct held {
	void *p;
	size_t bytes;
};

struct mixer {
	size_t batches, blocks, seed;
};

static size_t
mixed_size(struct rng *r)
{
	size_t roll = rng_below(r, 100);

	if (roll < 60)
		return rng_range(r, 1, 128);
	if (roll < 90)
		return rng_range(r, 129, 1024);
	return roll < 99 ? rng_range(r, 1025, 8192) : rng_range(r, 8193, 65536);
}

static void
held_drop(struct held *h)
{
	if (h->p != NULL)
		block_free(h->p, h->bytes);
	h->p = NULL;
}

static void
batch_fill(struct held *batch, size_t n, struct rng *r)
{
	for (size_t i = 0; i < n; i++) {
		batch[i].bytes = mixed_size(r);
		batch[i].p = block_new(batch[i].bytes);
	}
	for (size_t i = 0; i < n / 4; i++) {
		struct held *h = &batch[rng_below(r, n)];
		size_t bytes = mixed_size(r);

		h->p = block_resize(h->p, h->bytes, bytes);
		h->bytes = bytes;
	}
}

/* Puts the blocks in the order in which batch_drop frees them. */
static void
batch_order(struct held *batch, size_t n, size_t turn, struct rng *r)
{
	for (size_t i = 0; turn % 3 == 0 && i < n / 2; i++) {
		struct held swap = batch[i];

		batch[i] = batch[n - 1 - i];
		batch[n - 1 - i] = swap;
	}
	for (size_t i = n; turn % 3 == 1 && i > 1; i--) {
		size_t k = rng_below(r, i);
		struct held swap = batch[i - 1];

		batch[i - 1] = batch[k];
		batch[k] = swap;
	}
}

static void *
mixed_run(void *arg)
{
	struct mixer *m = arg;
	struct rng r = {m->seed};
	struct held *batch = block_raw(m->blocks * sizeof(*batch));
	struct held *ring = calloc(SURVIVORS, sizeof(*ring));
	size_t survivors = 0;

	if (ring == NULL)
		bench_fail("mixed: no memory for the survivors");
	for (size_t turn = 0; turn < m->batches; turn++) {
		batch_fill(batch, m->blocks, &r);
		batch_order(batch, m->blocks, turn, &r);
		for (size_t i = 0; i < m->blocks; i++) {
			struct held *keep = &ring[survivors % SURVIVORS];

			if (i % 16 != 0) {
				held_drop(&batch[i]);
				continue;
			}
			held_drop(keep);
			*keep = batch[i];
			survivors++;
		}
	}
	for (size_t i = 0; i < SURVIVORS; i++)
		held_drop(&ring[i]);
	free(ring);
	free(batch);
	return NULL;
}

int
main(int argc, char **argv)
{
	size_t threads = bench_arg(argc, argv, 1, 2);
	size_t batches = bench_arg(argc, argv, 2, 3000);
	size_t blocks = bench_arg(argc, argv, 3, 2000);
	struct mixer *m = block_raw(threads * sizeof(*m));
	pthread_t *ids = block_raw(threads * sizeof(*ids));

	for (size_t i = 0; i < threads; i++) {
		m[i] = (struct mixer){batches, blocks, i + 11};
		ids[i] = bench_thread(mixed_run, &m[i]);
	}
	for (size_t i = 0; i < threads; i++)
		bench_join(ids[i]);
	free(ids);
	free(m);
	return 0;
}
