/* server.c - what a long-running server does to a heap: lifetimes that do not nest.
 *
 *   server [threads [requests-per-thread]]
 *
 * Each worker keeps 64 requests in flight. A step advances one of them at
 * random: it allocates headers and parse nodes (tens of bytes), then a response
 * buffer (log-normal, median 1.5 KiB, tail to 1 MiB), and after 4 to 24 steps
 * frees all it has. One request in eight also touches two shared tables, each
 * guarded by striped locks, so that entries are freed by other threads:
 *
 *   sessions  16384 x 3 blocks, live for very long, replaced at random
 *   cache      4096 x 1 block, log-normal, evicted at random; its median grows
 *              eightfold over the run, so holes of the early phases fit no more
 */
#include "bench.h"

#include <math.h>

enum {
	IN_FLIGHT = 64,
	REQUEST_BLOCKS = 26,
	SESSIONS = 16384,
	SESSION_BLOCKS = 3,
	CACHE = 4096,
	STRIPES = 64,
	QUANTILES = 4096,
	PHASES = 4,
};

struct held {
	void *p;
	size_t bytes;
};

struct request {
	struct held blocks[REQUEST_BLOCKS];
	size_t steps, last;
};

struct worker {
	size_t requests, seed;
};

static struct held sessions[SESSIONS][SESSION_BLOCKS];
static struct held cache[CACHE];
static pthread_mutex_t session_locks[STRIPES], cache_locks[STRIPES];
static uint32_t log_normal[QUANTILES];   /* bytes, around a median of 1536 */

/* Box-Muller from fixed seeds; sigma 1.4, cut to 16 bytes .. 1 MiB. */
static void
log_normal_init(void)
{
	struct rng r = {99};

	for (size_t i = 0; i < QUANTILES; i++) {
		double u = ((double)(rng_next(&r) >> 11) + 1) / 9007199254740993.0;
		double v = (double)(rng_next(&r) >> 11) / 9007199254740992.0;
		double gauss = sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
		double bytes = 1536 * exp(1.4 * gauss);

		log_normal[i] = (uint32_t)(bytes < 16 ? 16 : bytes > 1048576 ? 1048576 : bytes);
	}
}

static size_t
response_size(struct rng *r)
{
	return log_normal[rng_below(r, QUANTILES)];
}

static void
held_replace(struct held *h, size_t bytes)
{
	if (h->p != NULL)
		block_free(h->p, h->bytes);
	h->bytes = bytes;
	h->p = block_new(bytes);
}

static void
held_drop(struct held *h)
{
	if (h->p != NULL)
		block_free(h->p, h->bytes);
	h->p = NULL;
}

static void
session_touch(struct rng *r)
{
	size_t i = rng_below(r, SESSIONS);

	pthread_mutex_lock(&session_locks[i % STRIPES]);
	held_replace(&sessions[i][0], rng_range(r, 40, 120));
	if (rng_below(r, 4) == 0)
		held_replace(&sessions[i][1], rng_range(r, 100, 700));
	if (rng_below(r, 16) == 0)
		held_replace(&sessions[i][2], rng_range(r, 500, 3000));
	pthread_mutex_unlock(&session_locks[i % STRIPES]);
}

static void
cache_touch(struct rng *r, size_t phase)
{
	size_t i = rng_below(r, CACHE);
	size_t bytes = response_size(r) << phase;

	pthread_mutex_lock(&cache_locks[i % STRIPES]);
	held_replace(&cache[i], bytes > 262144 ? 262144 : bytes);
	pthread_mutex_unlock(&cache_locks[i % STRIPES]);
}

/* One step of a request; true when it has been answered. */
static bool
request_step(struct request *q, struct rng *r)
{
	size_t bytes = q->steps + 2 < q->last ? rng_range(r, 16, 200) : response_size(r);

	if (q->steps < q->last) {
		held_replace(&q->blocks[q->steps++], bytes);
		return false;
	}
	for (size_t i = 0; i < q->last; i++)
		held_drop(&q->blocks[i]);
	return true;
}

static void *
worker_run(void *arg)
{
	struct worker *w = arg;
	struct rng r = {w->seed};
	struct request *flight = calloc(IN_FLIGHT, sizeof(*flight));

	if (flight == NULL)
		bench_fail("server: no memory for the requests");
	for (size_t i = 0; i < IN_FLIGHT; i++)
		flight[i].last = rng_range(&r, 4, 24);
	for (size_t done = 0; done < w->requests;) {
		struct request *q = &flight[rng_below(&r, IN_FLIGHT)];

		if (!request_step(q, &r))
			continue;
		q->steps = 0;
		q->last = rng_range(&r, 4, 24);
		if (done++ % 8 == 0) {
			session_touch(&r);
			cache_touch(&r, done * PHASES / (w->requests + 1));
		}
	}
	for (size_t i = 0; i < IN_FLIGHT; i++) {
		for (size_t k = 0; k < REQUEST_BLOCKS; k++)
			held_drop(&flight[i].blocks[k]);
	}
	free(flight);
	return NULL;
}

static void
tables_drop(void)
{
	for (size_t i = 0; i < SESSIONS; i++) {
		for (size_t k = 0; k < SESSION_BLOCKS; k++)
			held_drop(&sessions[i][k]);
	}
	for (size_t i = 0; i < CACHE; i++)
		held_drop(&cache[i]);
}

int
main(int argc, char **argv)
{
	size_t threads = bench_arg(argc, argv, 1, 2);
	size_t requests = bench_arg(argc, argv, 2, 300000);
	struct worker *w = block_raw(threads * sizeof(*w));
	pthread_t *ids = block_raw(threads * sizeof(*ids));

	log_normal_init();
	for (size_t i = 0; i < STRIPES; i++) {
		pthread_mutex_init(&session_locks[i], NULL);
		pthread_mutex_init(&cache_locks[i], NULL);
	}
	for (size_t i = 0; i < threads; i++) {
		w[i] = (struct worker){requests, i + 17};
		ids[i] = bench_thread(worker_run, &w[i]);
	}
	for (size_t i = 0; i < threads; i++)
		bench_join(ids[i]);
	tables_drop();
	free(ids);
	free(w);
	return 0;
}
