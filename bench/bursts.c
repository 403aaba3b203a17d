/* bursts.c - thousands of short bursts per thread, caches filled and emptied.
 *
 *   bursts [threads [bursts-per-thread]]
 *
 * A burst takes two or three sizes, allocates up to a thousand blocks, works on
 * them, frees all of them, and yields the processor. From one burst to the next
 * the sizes change, so what a thread cache holds is never what is wanted next:
 * a cache that keeps everything grows, one that gives everything back pays. One
 * burst in ten leaves its blocks for the next burst of the same thread. */
#include "bench.h"

#include <sched.h>

enum { MAX_BLOCKS = 1000, KINDS = 3 };

struct set {
	void *blocks[MAX_BLOCKS];
	uint32_t bytes[MAX_BLOCKS];
	size_t count;
};

struct bursty {
	size_t bursts, seed;
};

static void
set_fill(struct set *s, struct rng *r)
{
	size_t kinds[KINDS];

	for (size_t i = 0; i < KINDS; i++)
		kinds[i] = rng_log_range(r, 16, 4096);
	s->count = rng_range(r, 50, MAX_BLOCKS);
	for (size_t i = 0; i < s->count; i++) {
		s->bytes[i] = (uint32_t)kinds[rng_below(r, KINDS)];
		s->blocks[i] = block_new(s->bytes[i]);
	}
}

/* In order, backwards, or in steps of 7 (coprime to no count in particular:
 * the second loop takes what the steps left out). */
static void
set_empty(struct set *s, size_t turn)
{
	size_t step = turn % 3 == 2 ? 7 : 1;

	for (size_t from = 0; from < step; from++) {
		for (size_t i = from; i < s->count; i += step) {
			size_t at = turn % 3 == 1 ? s->count - 1 - i : i;

			block_free(s->blocks[at], s->bytes[at]);
		}
	}
	s->count = 0;
}

static void *
bursty_run(void *arg)
{
	struct bursty *b = arg;
	struct rng r = {b->seed};
	struct set *now = calloc(1, sizeof(*now));
	struct set *kept = calloc(1, sizeof(*kept));

	if (now == NULL || kept == NULL)
		bench_fail("bursts: no memory for the sets");
	for (size_t turn = 0; turn < b->bursts; turn++) {
		set_fill(now, &r);
		set_empty(kept, turn);
		if (turn % 10 == 9) {
			struct set *swap = kept;

			kept = now;
			now = swap;
		} else {
			set_empty(now, turn);
		}
		sched_yield();
	}
	set_empty(kept, 0);
	set_empty(now, 0);
	free(kept);
	free(now);
	return NULL;
}

int
main(int argc, char **argv)
{
	size_t threads = bench_arg(argc, argv, 1, 8);
	size_t bursts = bench_arg(argc, argv, 2, 5000);
	struct bursty *b = block_raw(threads * sizeof(*b));
	pthread_t *ids = block_raw(threads * sizeof(*ids));

	for (size_t i = 0; i < threads; i++) {
		b[i] = (struct bursty){bursts, i + 41};
		ids[i] = bench_thread(bursty_run, &b[i]);
	}
	for (size_t i = 0; i < threads; i++)
		bench_join(ids[i]);
	free(ids);
	free(b);
	return 0;
}
