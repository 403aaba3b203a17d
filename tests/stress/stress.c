/* stress.c - everything at once, for a given time, with every byte accounted for.
 *
 *   stress SECONDS [SEED]
 *
 *   8 threads   each: malloc, calloc, realloc, memalign of log-uniform sizes
 *               1 B .. 1 MiB, now and then 8 MiB; own table of objects
 *      |        a quarter of all objects goes through mailboxes
 *      v
 *   mailboxes   any thread takes and frees what another one made
 *   churn       a thread lives one or two seconds, leaves its objects in the
 *               mailboxes, and a new one takes its place
 *   main        forks every 100 ms: the child allocates, checks and frees inherited
 *               objects, and exits 0; once a second calls spanguard_verify()
 *
 * Every object is filled with a key made of its address, size and a random word
 * and is checked before it is freed or resized: an object given out twice, lost
 * or written to by the allocator shows as a wrong key. Objects above
 * CHECK_ALL_BYTES are checked at both ends and at one word per 4 KiB page.
 * Growth: live bytes are bounded by the tables, so the peak of resident memory
 * in the last quarter of the time may not be above that in the first by more
 * than a quarter plus GROWTH_SLACK_BYTES. Every wait is bounded; a watchdog ends a run that hangs.
 *
 * Exit status 0: good. What was wrong stands on stderr. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	THREADS = 8,
	OWN = 256,                  /* objects a thread keeps */
	BOXES = 512,                /* objects in the mailboxes */
	CHECK_ALL_BYTES = 8192,
	LARGE_BYTES = 8 << 20,
	GROWTH_SLACK_BYTES = 32 << 20,
	GROWTH_MIN_SECONDS = 8,     /* below, the first quarter is still filling up */
	FORK_EVERY_MS = 100,
	CHILD_SECONDS = 30,
	HANG_SECONDS = 60,
};

struct object {
	unsigned char *p;
	size_t bytes;
	uint64_t key;
};

struct box {
	pthread_mutex_t lock;
	struct object in;
};

struct totals {
	uint64_t allocs, frees, reallocs, bytes, mailed, threads, forks, verifies;
};

struct worker {
	uint64_t random;
	struct object own[OWN];
	struct totals done;
	uint64_t until_ns;
	bool alone;                 /* in a forked child: no mail */
};

struct growth {
	size_t early_bytes, late_bytes;
};

int spanguard_verify(void) __attribute__((weak));

static struct box boxes[BOXES];
static struct worker workers[THREADS];
static struct totals totals;       /* of ended threads; under totals_lock */
static pthread_mutex_t totals_lock = PTHREAD_MUTEX_INITIALIZER;
static volatile bool stop;

static _Noreturn void
fail(const char *what, const struct object *o)
{
	char text[256];
	int n = snprintf(text, sizeof text, "stress: %s: object %p of %zu bytes, process %d, errno %d\n",
	                 what, o != NULL ? (void *)o->p : NULL, o != NULL ? o->bytes : 0, getpid(), errno);
	if (write(2, text, (size_t)n) != n)
		_exit(4);
	_exit(3);
}

static uint64_t
now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t
next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state * 0x2545f4914f6cdd1du >> 11;
}

/* Log-uniform over 1 B .. 1 MiB; one in 4096 is LARGE_BYTES. */
static size_t
next_bytes(uint64_t *state)
{
	uint64_t r = next_random(state);
	if (r % 4096 == 0)
		return LARGE_BYTES;
	size_t top = (size_t)1 << (r / 4096 % 20 + 1);
	return 1 + next_random(state) % (top - top / 2) + top / 2 - 1;
}

static size_t
resident_bytes(void)
{
	char text[128] = { 0 };
	unsigned long total, resident;
	int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof text - 1) <= 0)
		fail("no /proc/self/statm", NULL);
	close(fd);
	if (sscanf(text, "%lu %lu", &total, &resident) != 2)
		fail("odd /proc/self/statm", NULL);
	return resident * (size_t)sysconf(_SC_PAGESIZE);
}

/* ---- objects and their keys ---- */

/* The word that belongs at offset `at` of an object. */
static uint64_t
word_at(const struct object *o, size_t at)
{
	return (o->key + at) * 0x9e3779b97f4a7c15u ^ o->bytes;
}

static size_t
step_of(const struct object *o)
{
	return o->bytes <= CHECK_ALL_BYTES ? 8 : 4096;
}

/* Calls for every stretch of the object that carries a key: whole words at
 * step_of distances, and the last bytes. */
static void
object_fill(struct object *o)
{
	uint64_t w;
	for (size_t at = 0; at + 8 <= o->bytes; at += step_of(o)) {
		w = word_at(o, at);
		memcpy(o->p + at, &w, 8);
	}
	size_t tail = o->bytes < 8 ? o->bytes : o->bytes % 8;
	w = word_at(o, o->bytes);
	memcpy(o->p + o->bytes - tail, &w, tail);
}

/* The first `limit` bytes only, for what a realloc keeps. */
static bool
object_holds(const struct object *o, size_t limit)
{
	for (size_t at = 0; at + 8 <= limit; at += step_of(o)) {
		uint64_t w = word_at(o, at);
		if (memcmp(o->p + at, &w, 8) != 0)
			return false;
	}
	if (limit < o->bytes)
		return true;
	size_t tail = o->bytes < 8 ? o->bytes : o->bytes % 8;
	uint64_t w = word_at(o, o->bytes);
	return memcmp(o->p + o->bytes - tail, &w, tail) == 0;
}

static void
object_free(struct object *o, struct totals *t)
{
	if (o->p == NULL)
		return;
	if (!object_holds(o, o->bytes))
		fail("contents lost", o);
	free(o->p);
	o->p = NULL;
	t->frees++;
}

static bool
is_zero(const unsigned char *p, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += bytes <= CHECK_ALL_BYTES ? 1 : 509)
		if (p[i] != 0)
			return false;
	return true;
}

static void
object_make(struct object *o, struct worker *w)
{
	uint64_t r = next_random(&w->random);
	size_t align = (size_t)16 << (r / 64 % 10);
	o->bytes = next_bytes(&w->random);
	o->key = r;
	switch (r % 8) {
	case 0:
		o->p = calloc(1, o->bytes);
		if (o->p != NULL && !is_zero(o->p, o->bytes))
			fail("calloc is not zero", o);
		break;
	case 1:
		o->p = memalign(align, o->bytes);
		if ((uintptr_t)o->p % align != 0)
			fail("not aligned", o);
		break;
	default:
		o->p = malloc(o->bytes);
		break;
	}
	if (o->p == NULL)
		fail("no memory", o);
	if (malloc_usable_size(o->p) < o->bytes)
		fail("usable size too small", o);
	object_fill(o);
	w->done.allocs++;
	w->done.bytes += o->bytes;
}

static void
object_resize(struct object *o, struct worker *w)
{
	size_t old = o->bytes, bytes = next_bytes(&w->random);
	if (!object_holds(o, old))
		fail("contents lost", o);
	unsigned char *p = realloc(o->p, bytes);
	if (p == NULL)
		fail("no memory", o);
	o->p = p;
	/* Checked under the old size, whose step and key the bytes were made with. */
	if (!object_holds(o, bytes < old ? bytes : old))
		fail("realloc lost contents", o);
	o->bytes = bytes;
	object_fill(o);
	w->done.reallocs++;
}

/* ---- threads ---- */

/* Puts o in a box and takes what was there; returns the latter. */
static struct object
mail(struct object o, uint64_t random)
{
	struct box *b = &boxes[random % BOXES];
	pthread_mutex_lock(&b->lock);
	struct object old = b->in;
	b->in = o;
	pthread_mutex_unlock(&b->lock);
	return old;
}

static void
step(struct worker *w)
{
	uint64_t r = next_random(&w->random);
	struct object *o = &w->own[r / 16 % OWN];
	if (o->p != NULL && r % 16 < 3) {
		object_resize(o, w);
		return;
	}
	if (o->p != NULL && r % 16 < 7 && !w->alone) {
		*o = mail(*o, r / 65536);
		w->done.mailed++;
	}
	object_free(o, &w->done);
	object_make(o, w);
}

static void
add_totals(const struct totals *t)
{
	pthread_mutex_lock(&totals_lock);
	totals.allocs += t->allocs;
	totals.frees += t->frees;
	totals.reallocs += t->reallocs;
	totals.bytes += t->bytes;
	totals.mailed += t->mailed;
	totals.threads++;
	pthread_mutex_unlock(&totals_lock);
}

static void *
worker_main(void *arg)
{
	struct worker *w = arg;
	memset(&w->done, 0, sizeof w->done);
	while (!stop && now_ns() < w->until_ns)
		for (int i = 0; i < 64; i++)
			step(w);
	/* Others free what this thread made, after it is gone. */
	for (int i = 0; i < OWN; i++) {
		w->own[i] = mail(w->own[i], next_random(&w->random));
		object_free(&w->own[i], &w->done);
	}
	add_totals(&w->done);
	return NULL;
}

/* ---- processes ---- */

/* Inherits a heap in full motion. Only boxes that were not being changed at the
 * moment of the fork are looked at; the locks of the others stay locked here. */
static _Noreturn void
child_main(uint64_t seed)
{
	static struct worker w;
	alarm(CHILD_SECONDS);
	w.random = seed | 1;
	w.alone = true;
	for (int i = 0; i < BOXES; i++)
		if (pthread_mutex_trylock(&boxes[i].lock) == 0)
			object_free(&boxes[i].in, &w.done);
	for (int i = 0; i < 200; i++)
		step(&w);
	for (int i = 0; i < OWN; i++)
		object_free(&w.own[i], &w.done);
	_exit(0);
}

static void
fork_once(uint64_t seed)
{
	int status;
	pid_t child = fork();
	if (child == 0)
		child_main(seed);
	if (child < 0 || waitpid(child, &status, 0) != child)
		fail("no fork", NULL);
	if (status != 0) {
		errno = status;
		fail("child ended badly, wait status is errno", NULL);
	}
}

static void
start(pthread_t *thread, struct worker *w, uint64_t *random, uint64_t end_ns)
{
	uint64_t until_ns = now_ns() + 1000000000u + next_random(random) % 1000000000u;
	w->random = next_random(random) | 1;
	w->until_ns = until_ns < end_ns ? until_ns : end_ns;
	if (pthread_create(thread, NULL, worker_main, w) != 0)
		fail("no thread", NULL);
}

static void
verify(void)
{
	if (spanguard_verify == NULL)
		return;
	if (spanguard_verify() != 0)
		fail("spanguard_verify", NULL);
	totals.verifies++;
}

static void
on_alarm(int sig)
{
	(void)sig;
	static const char text[] = "stress: hung\n";
	if (write(2, text, sizeof text - 1) < 0)
		_exit(6);
	_exit(5);
}

/* Keeps the highest resident size of the first and of the last quarter. */
static void
watch_growth(struct growth *g, double share_done)
{
	size_t bytes = resident_bytes();
	if (share_done < 0.25 && bytes > g->early_bytes)
		g->early_bytes = bytes;
	if (share_done > 0.75 && bytes > g->late_bytes)
		g->late_bytes = bytes;
}

static void
run(double seconds, uint64_t seed, struct growth *growth)
{
	pthread_t thread[THREADS];
	uint64_t random = seed * 2654435761u + 88172645463325252u, begin_ns = now_ns();
	uint64_t end_ns = begin_ns + (uint64_t)(seconds * 1e9), next_verify_ns = begin_ns;
	for (int i = 0; i < THREADS; i++)
		start(&thread[i], &workers[i], &random, end_ns);
	while (now_ns() < end_ns) {
		struct timespec pause = { 0, FORK_EVERY_MS * 1000000L };
		alarm(HANG_SECONDS);
		nanosleep(&pause, NULL);
		fork_once(next_random(&random));
		totals.forks++;
		for (int i = 0; i < THREADS; i++)
			if (pthread_tryjoin_np(thread[i], NULL) == 0)
				start(&thread[i], &workers[i], &random, end_ns);
		if (now_ns() >= next_verify_ns) {
			verify();
			next_verify_ns += 1000000000u;
		}
		watch_growth(growth, (double)(now_ns() - begin_ns) / (double)(end_ns - begin_ns));
	}
	stop = true;
	alarm(HANG_SECONDS);
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
}

int
main(int argc, char **argv)
{
	static char out[1024];      /* stdio's own buffer would be on the heap */
	double seconds = argc > 1 ? atof(argv[1]) : 10;
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	struct growth growth = { 0, 0 };
	setvbuf(stdout, out, _IOFBF, sizeof out);
	signal(SIGALRM, on_alarm);
	for (int i = 0; i < BOXES; i++)
		pthread_mutex_init(&boxes[i].lock, NULL);
	run(seconds, seed, &growth);
	struct totals left = { 0 };
	if (seconds >= GROWTH_MIN_SECONDS &&
	    growth.late_bytes > growth.early_bytes + growth.early_bytes / 4 + GROWTH_SLACK_BYTES) {
		fprintf(stderr, "stress: growth from %zu to %zu MiB\n",
		        growth.early_bytes >> 20, growth.late_bytes >> 20);
		return 7;
	}
	for (int i = 0; i < BOXES; i++)
		object_free(&boxes[i].in, &left);
	totals.frees += left.frees;
	verify();
	malloc_trim(0);
	if (totals.allocs != totals.frees)
		fail("objects lost", NULL);
	printf("%llu allocations (%llu MiB), %llu reallocs, %llu frees, %llu by mail, %llu threads, %llu forks, %llu verifies\n",
	       (unsigned long long)totals.allocs, (unsigned long long)(totals.bytes >> 20),
	       (unsigned long long)totals.reallocs, (unsigned long long)totals.frees,
	       (unsigned long long)totals.mailed, (unsigned long long)totals.threads,
	       (unsigned long long)totals.forks, (unsigned long long)totals.verifies);
	printf("RSS at most %zu MiB in the first quarter, %zu MiB in the last, %zu MiB when all is freed and trimmed\n",
	       growth.early_bytes >> 20, growth.late_bytes >> 20, resident_bytes() >> 20);
	return 0;
}
