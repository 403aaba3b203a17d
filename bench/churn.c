/* churn.c - threads that live for one short burst.
 *
 *   churn [threads-in-all [at-once [blocks-per-thread]]]
 *
 * Thread-per-request programs: each thread allocates a few hundred blocks,
 * frees three quarters of them, leaves the rest in its lane's inbox and exits.
 * The next thread of the lane frees what it finds there. What an allocator
 * spends on starting and ending a thread shows here, and whether it finds the
 * memory of dead threads again. */
#include "bench.h"

struct left {
	void **blocks;
	uint32_t *bytes;
	size_t count;
};

struct burst {
	struct left in, out;
	size_t blocks, seed;
};

static void
left_free(struct left *l)
{
	for (size_t i = 0; i < l->count; i++)
		block_free(l->blocks[i], l->bytes[i]);
	free(l->blocks);
	free(l->bytes);
	*l = (struct left){NULL, NULL, 0};
}

static void *
burst_run(void *arg)
{
	struct burst *b = arg;
	struct rng r = {b->seed};

	left_free(&b->in);
	b->out.blocks = block_raw(b->blocks * sizeof(void *));
	b->out.bytes = block_raw(b->blocks * sizeof(uint32_t));
	for (size_t i = 0; i < b->blocks; i++) {
		size_t bytes = i % 32 == 0 ? rng_range(&r, 1024, 16384) : rng_range(&r, 16, 512);
		void *p = block_new(bytes);

		if (i % 4 != 0) {
			block_free(p, bytes);
			continue;
		}
		b->out.blocks[b->out.count] = p;
		b->out.bytes[b->out.count++] = (uint32_t)bytes;
	}
	return NULL;
}

int
main(int argc, char **argv)
{
	size_t total = bench_arg(argc, argv, 1, 30000);
	size_t lanes = bench_arg(argc, argv, 2, 8);
	size_t blocks = bench_arg(argc, argv, 3, 300);
	struct burst *b = calloc(lanes, sizeof(*b));
	pthread_t *ids = calloc(lanes, sizeof(*ids));

	if (b == NULL || ids == NULL)
		bench_fail("churn: no memory for the lanes");
	for (size_t i = 0; i < total; i++) {
		struct burst *lane = &b[i % lanes];

		if (i >= lanes)
			bench_join(ids[i % lanes]);
		lane->in = lane->out;
		lane->out = (struct left){NULL, NULL, 0};
		lane->blocks = blocks;
		lane->seed = i;
		ids[i % lanes] = bench_thread(burst_run, lane);
	}
	for (size_t i = 0; i < lanes && i < total; i++) {
		bench_join(ids[i]);
		left_free(&b[i].out);
	}
	free(ids);
	free(b);
	return 0;
}
