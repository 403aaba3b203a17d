/* prodcons.c - blocks allocated by one set of threads and freed by another.
 *
 *   prodcons [producers [batches-per-producer]]
 *
 *     producer: batch of 256 blocks --> bounded queue (32 batches) --> consumer: free
 *
 * As many consumers as producers; no thread frees what it allocated. A batch
 * (itself a block) makes the queue cheap beside the allocator. First with one
 * pair of threads, then with all of them on one queue. */
#include "bench.h"

enum { BATCH = 256, DEPTH = 32 };

struct batch {
	size_t count;
	void *blocks[BATCH];
	uint32_t bytes[BATCH];
};

struct queue {
	pthread_mutex_t lock;
	pthread_cond_t not_empty, not_full;
	struct batch *ring[DEPTH];
	size_t head, count;
	size_t producers_left;
};

struct producer {
	struct queue *q;
	size_t batches, seed;
};

static void
queue_put(struct queue *q, struct batch *b)
{
	pthread_mutex_lock(&q->lock);
	while (q->count == DEPTH)
		pthread_cond_wait(&q->not_full, &q->lock);
	q->ring[(q->head + q->count++) % DEPTH] = b;
	pthread_cond_signal(&q->not_empty);
	pthread_mutex_unlock(&q->lock);
}

/* NULL: all producers are done and the queue is empty. */
static struct batch *
queue_get(struct queue *q)
{
	struct batch *b = NULL;

	pthread_mutex_lock(&q->lock);
	while (q->count == 0 && q->producers_left > 0)
		pthread_cond_wait(&q->not_empty, &q->lock);
	if (q->count > 0) {
		b = q->ring[q->head];
		q->head = (q->head + 1) % DEPTH;
		q->count--;
		pthread_cond_signal(&q->not_full);
	}
	pthread_mutex_unlock(&q->lock);
	return b;
}

static size_t
message_size(struct rng *r)
{
	size_t roll = rng_below(r, 100);

	if (roll < 90)
		return rng_range(r, 16, 256);
	return roll < 99 ? rng_range(r, 257, 2048) : rng_range(r, 2049, 16384);
}

static void *
producer_run(void *arg)
{
	struct producer *p = arg;
	struct rng r = {p->seed};

	for (size_t i = 0; i < p->batches; i++) {
		struct batch *b = block_raw(sizeof(*b));

		b->count = BATCH;
		for (size_t k = 0; k < BATCH; k++) {
			b->bytes[k] = (uint32_t)message_size(&r);
			b->blocks[k] = block_new(b->bytes[k]);
		}
		queue_put(p->q, b);
	}
	pthread_mutex_lock(&p->q->lock);
	p->q->producers_left--;
	pthread_cond_broadcast(&p->q->not_empty);
	pthread_mutex_unlock(&p->q->lock);
	return NULL;
}

static void *
consumer_run(void *arg)
{
	struct batch *b;

	while ((b = queue_get(arg)) != NULL) {
		for (size_t k = 0; k < b->count; k++)
			block_free(b->blocks[k], b->bytes[k]);
		free(b);
	}
	return NULL;
}

static void
prodcons_run(size_t producers, size_t batches)
{
	struct queue q = {.lock = PTHREAD_MUTEX_INITIALIZER,
			  .not_empty = PTHREAD_COND_INITIALIZER,
			  .not_full = PTHREAD_COND_INITIALIZER,
			  .producers_left = producers};
	struct producer *p = block_raw(producers * sizeof(*p));
	pthread_t *ids = block_raw(2 * producers * sizeof(*ids));

	for (size_t i = 0; i < producers; i++) {
		p[i] = (struct producer){&q, batches, i + 5};
		ids[2 * i] = bench_thread(producer_run, &p[i]);
		ids[2 * i + 1] = bench_thread(consumer_run, &q);
	}
	for (size_t i = 0; i < 2 * producers; i++)
		bench_join(ids[i]);
	free(ids);
	free(p);
}

int
main(int argc, char **argv)
{
	size_t producers = bench_arg(argc, argv, 1, 4);
	size_t batches = bench_arg(argc, argv, 2, 5000);

	prodcons_run(1, batches * producers);
	prodcons_run(producers, batches);
	return 0;
}
