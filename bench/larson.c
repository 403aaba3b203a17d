/* larson.c - a live set per worker, replaced at random; workers die and their
 * successors inherit what they left.
 *
 *   larson [threads [generations [replacements [slots]]]]
 *
 *     worker g of lane 0:  [slots] --dies, hands the table on--+
 *     worker g+1 of lane 1:            [slots] <---------------+  and so on, lanes
 *                                                                 move up by one
 *
 * The pattern is that of P.-A. Larson and M. Krishnan, "Memory allocation for
 * long-running server applications" (ISMM 1998): sizes 16 to 512, mostly small,
 * each worker a thread that does a fixed number of replacements, then starts
 * its successor and exits. A successor frees blocks of a thread that is dead or
 * of another one that is alive: the table goes to the next lane each time. */
#include "bench.h"

struct slot {
	void *p;
	size_t bytes;
};

struct lane {
	struct slot *slots;
	size_t nslots, replacements;
	size_t generation, lane;
};

static size_t
larson_size(struct rng *r)
{
	return rng_below(r, 4) != 0 ? rng_range(r, 16, 128) : rng_range(r, 129, 512);
}

static void *
larson_worker(void *arg)
{
	struct lane *l = arg;
	struct rng r = {l->generation * 1000003 + l->lane};

	for (size_t i = 0; i < l->replacements; i++) {
		struct slot *s = &l->slots[rng_below(&r, l->nslots)];

		block_free(s->p, s->bytes);
		s->bytes = larson_size(&r);
		s->p = block_new(s->bytes);
	}
	return NULL;
}

static struct slot *
larson_table(size_t nslots, size_t seed)
{
	struct slot *slots = block_raw(nslots * sizeof(*slots));
	struct rng r = {seed};

	for (size_t i = 0; i < nslots; i++) {
		slots[i].bytes = larson_size(&r);
		slots[i].p = block_new(slots[i].bytes);
	}
	return slots;
}

/* A generation: one thread per lane. Then every table moves up one lane. */
static void
larson_generation(struct lane *lanes, size_t threads)
{
	pthread_t *ids = block_raw(threads * sizeof(*ids));
	struct slot *last;

	for (size_t i = 0; i < threads; i++)
		ids[i] = bench_thread(larson_worker, &lanes[i]);
	for (size_t i = 0; i < threads; i++)
		bench_join(ids[i]);
	last = lanes[threads - 1].slots;
	for (size_t i = threads - 1; i > 0; i--)
		lanes[i].slots = lanes[i - 1].slots;
	lanes[0].slots = last;
	for (size_t i = 0; i < threads; i++)
		lanes[i].generation++;
	free(ids);
}

int
main(int argc, char **argv)
{
	size_t threads = bench_arg(argc, argv, 1, 8);
	size_t generations = bench_arg(argc, argv, 2, 20);
	size_t replacements = bench_arg(argc, argv, 3, 100000);
	size_t nslots = bench_arg(argc, argv, 4, 5000);
	struct lane *lanes = block_raw(threads * sizeof(*lanes));

	for (size_t i = 0; i < threads; i++) {
		lanes[i] = (struct lane){.nslots = nslots, .replacements = replacements, .lane = i};
		lanes[i].slots = larson_table(nslots, i + 1);
	}
	for (size_t g = 0; g < generations; g++)
		larson_generation(lanes, threads);
	for (size_t i = 0; i < threads; i++) {
		for (size_t k = 0; k < nslots; k++)
			block_free(lanes[i].slots[k].p, lanes[i].slots[k].bytes);
		free(lanes[i].slots);
	}
	free(lanes);
	return 0;
}
