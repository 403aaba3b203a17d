/* large.c - medium and large objects with their pages touched.
 *
 *   large [replacements [slots [low-KiB [high-KiB [threads]]]]]
 *
 * A live set of `slots` blocks is replaced at random. Sizes are log-uniform
 * from low to high (powers of two; every octave equally often). Of each block
 * every page is written, and every second block is filled completely, as a
 * buffer is that a file is read into. One replacement in eight is a realloc to a
 * new size. The row `large` runs 32 KiB to 8 MiB. */
#include "bench.h"

struct big {
	void *p;
	size_t bytes;
};

struct job {
	size_t replacements, nslots, low_bytes, high_bytes, seed;
};

static void *
large_run(void *arg)
{
	struct job *j = arg;
	struct rng r = {j->seed};
	struct big *slots = calloc(j->nslots, sizeof(*slots));

	if (slots == NULL)
		bench_fail("large: no memory for the table");
	for (size_t i = 0; i < j->replacements; i++) {
		struct big *b = &slots[rng_below(&r, j->nslots)];
		size_t bytes = rng_log_range(&r, j->low_bytes, j->high_bytes);

		if (b->p != NULL && i % 8 == 0) {
			b->p = block_resize(b->p, b->bytes, bytes);
		} else {
			if (b->p != NULL)
				block_free(b->p, b->bytes);
			b->p = block_new(bytes);
		}
		b->bytes = bytes;
		if (i % 2 == 0)
			memset(b->p, block_tag(bytes), bytes);
	}
	for (size_t i = 0; i < j->nslots; i++) {
		if (slots[i].p != NULL)
			block_free(slots[i].p, slots[i].bytes);
	}
	free(slots);
	return NULL;
}

int
main(int argc, char **argv)
{
	struct job job = {
		.replacements = bench_arg(argc, argv, 1, 6000),
		.nslots = bench_arg(argc, argv, 2, 48),
		.low_bytes = bench_arg(argc, argv, 3, 32) << 10,
		.high_bytes = bench_arg(argc, argv, 4, 8192) << 10,
	};
	size_t threads = bench_arg(argc, argv, 5, 2);
	struct job *jobs = block_raw(threads * sizeof(*jobs));
	pthread_t *ids = block_raw(threads * sizeof(*ids));

	for (size_t i = 0; i < threads; i++) {
		jobs[i] = job;
		jobs[i].seed = i + 31;
		ids[i] = bench_thread(large_run, &jobs[i]);
	}
	for (size_t i = 0; i < threads; i++)
		bench_join(ids[i]);
	free(ids);
	free(jobs);
	return 0;
}
