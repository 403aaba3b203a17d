/* randomness.c - how well can placements be guessed? Seen from outside: nothing
 * but the addresses that malloc returns. Figures go to stdout, one fact a line,
 * "name key=value ..."; randomness.py judges them.
 *
 *   choice SIZE NELEMS WINDOW N      ranks of the choices within a window, and the
 *                                    first slot of each new span (noscan: nobody
 *                                    else allocates there)
 *   place SIZE COUNT                 addresses of a fixed sequence of calls
 *   threads SIZE RUNS                two threads' choices against each other
 *   fork SIZE RUNS                   a child's next choices against its parent's
 *   adjacent SIZE NELEMS RUNS        how often objects i and j are neighbours
 *   after-free SIZE NELEMS RUNS HOW  which later allocation gets a freed slot
 *                                    HOW: one, churn, all, share (see there)
 *   reuse SIZE NELEMS                allocations between a free and the reuse
 *
 * A run that must not know of earlier ones is a forked child; the child reports
 * through shared memory, so it calls malloc for nothing but the experiment. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <dlfcn.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	WINDOW = 64,
	SLOTS = 1024,
	WINDOWS_PER_CHILD = 1 << 13,
	PAIRS = 64,                 /* objects whose pairs are looked at */
	FIRST = 16,                 /* choices compared between threads, parent and child */
	LATER = 4096,               /* allocations looked at for a reuse */
	REUSES = 2000,
};

typedef void *(*alloc_fn)(size_t);

static size_t size, nelems;

static void
fail(const char *why)
{
	fprintf(stderr, "randomness: %s\n", why);
	_exit(99);
}

static void *
shared(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		fail("mmap");
	return p;
}

static void *
need(size_t n)
{
	void *p = malloc(n);
	if (p == NULL)
		fail("no memory");
	return p;
}

/* Random numbers of the experiment's own: what is freed next must not depend on
 * the allocator's stream. */
static uint64_t
next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static uint64_t
fresh_state(int run)
{
	return 0x9e3779b97f4a7c15u * (uint64_t)(run + 1) ^ (uint64_t)getpid() << 32;
}

/* Runs `job` in a child; what it finds goes into memory that both have. */
static void
in_child(void (*job)(void *, int), void *arg, int run)
{
	int status;
	pid_t child = fork();
	if (child == 0) {
		job(arg, run);
		_exit(0);
	}
	if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
		fail("a child did not end well");
}

/* ---- choice ---- */

struct choice {
	size_t window;
	alloc_fn alloc;
	uint64_t spans;
	uint64_t rank[WINDOW + 1][WINDOW];   /* [free slots][which of them, by address] */
	uint64_t first[SLOTS];               /* slot taken first in a new span */
};

/* order: the slots of one window, as they came. Counts for each choice how many
 * free slots lie below the one that was chosen. */
static void
count_ranks(struct choice *c, const uint16_t *order, size_t n)
{
	uint64_t used[SLOTS / 64] = { 0 };
	for (size_t i = 0; i < n; i++)
		used[order[i] / 64] |= (uint64_t)1 << (order[i] % 64);
	for (size_t i = 0; i < n; i++) {
		size_t word = order[i] / 64, rank = 0;
		uint64_t bit = (uint64_t)1 << (order[i] % 64);
		for (size_t w = 0; w < word; w++)
			rank += (size_t)__builtin_popcountll(used[w]);
		rank += (size_t)__builtin_popcountll(used[word] & (bit - 1));
		used[word] &= ~bit;
		c->rank[n - i][rank]++;
	}
}

/* A whole new span: its lowest address is its base, for every slot is taken. */
static void
one_span(struct choice *c, uintptr_t *at)
{
	uint16_t order[SLOTS] = { 0 };
	uintptr_t base = UINTPTR_MAX;
	for (size_t i = 0; i < nelems; i++) {
		at[i] = (uintptr_t)c->alloc(size);
		base = at[i] < base ? at[i] : base;
	}
	size_t slot = malloc_usable_size((void *)base);
	slot = (slot + 15) & ~(size_t)15;    /* a canary is no part of what is usable */
	for (size_t i = 0; i < nelems; i++) {
		if ((at[i] - base) / slot >= nelems)
			fail("the span does not begin where this test believes");
		order[i] = (uint16_t)((at[i] - base) / slot);
	}
	c->first[order[0]]++;
	c->spans++;
	for (size_t i = 0; i < nelems; i += c->window)
		count_ranks(c, order + i, nelems - i < c->window ? nelems - i : c->window);
}

static void
choose_in_child(void *arg, int run)
{
	static uintptr_t at[SLOTS];
	struct choice *c = arg;
	(void)run;
	for (size_t n = 0; n < WINDOWS_PER_CHILD; n += (nelems + c->window - 1) / c->window)
		one_span(c, at);
}

static int
run_choice(size_t window, uint64_t draws)
{
	struct choice *c = shared(sizeof(*c));
	c->window = window;
	c->alloc = (alloc_fn)dlsym(RTLD_DEFAULT, "spanguard_malloc_noscan");
	if (c->alloc == NULL)
		fail("no spanguard");
	uint64_t have = 0;
	for (int run = 0; have < draws; run++) {
		in_child(choose_in_child, c, run);
		have = 0;
		for (size_t r = 0; r < window; r++)
			have += c->rank[window][r];
	}
	for (size_t k = 1; k <= window; k++) {
		printf("rank free=%zu", k);
		for (size_t r = 0; r < k; r++)
			printf(" %llu", (unsigned long long)c->rank[k][r]);
		putchar('\n');
	}
	printf("first slots=%zu", nelems);
	for (size_t i = 0; i < nelems; i++)
		printf(" %llu", (unsigned long long)c->first[i]);
	putchar('\n');
	return 0;
}

/* ---- place ---- */

static int
run_place(size_t count)
{
	static void *live[97];
	uint64_t state = 12345;
	for (size_t i = 0; i < count; i++) {
		size_t k = next(&state) % 97;
		free(live[k]);
		live[k] = need(i % 5 == 0 ? 1 + next(&state) % 100000 : size);
		printf("%p\n", live[k]);
	}
	return 0;
}

/* ---- threads, fork ---- */

struct picks {
	uint16_t rank[2][FIRST];
};

/* Which of the first FIRST objects lies lowest, second lowest ...: the order in
 * which one window was drawn, whatever the span's place. */
static void
rank_of_all(const uintptr_t *at, uint16_t *rank)
{
	for (int i = 0; i < FIRST; i++) {
		rank[i] = 0;
		for (int k = 0; k < FIRST; k++)
			rank[i] += at[k] < at[i];
	}
}

static void *
pick_in_thread(void *rank)
{
	uintptr_t at[FIRST];
	for (int i = 0; i < FIRST; i++)
		at[i] = (uintptr_t)need(size);
	rank_of_all(at, rank);
	return NULL;
}

static void
two_threads(void *arg, int run)
{
	struct picks *p = (struct picks *)arg + run;
	pthread_t t[2];
	for (int i = 0; i < 2; i++)
		if (pthread_create(&t[i], NULL, pick_in_thread, p->rank[i]) != 0)
			fail("thread");
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
}

/* Two children of one parent, which has a window open: what one of them gets
 * must say nothing about what the other gets. */
static void
pick_addresses(void *arg, int run)
{
	uintptr_t *at = arg;
	(void)run;
	for (int i = 0; i < FIRST; i++)
		at[i] = (uintptr_t)need(size);
}

static int
print_matches(const char *name, const struct picks *p, int runs)
{
	unsigned long same = 0;
	for (int r = 0; r < runs; r++)
		for (int i = 0; i < FIRST; i++)
			same += p[r].rank[0][i] == p[r].rank[1][i];
	printf("%s runs=%d same=%lu of=%d expected=%.4f\n", name, runs, same, runs * FIRST,
	    1.0 / FIRST);
	return 0;
}

static int
run_threads(int runs)
{
	struct picks *p = shared(sizeof(*p) * (size_t)runs);
	for (int r = 0; r < runs; r++)
		in_child(two_threads, p, r);
	return print_matches("threads", p, runs);
}

/* Absolute addresses: the siblings have the same spans. At position i an address
 * is one of those the window still has, so chance alone makes some equal. */
static int
run_fork(int runs)
{
	uintptr_t *at[2] = { shared(sizeof(uintptr_t) * FIRST), shared(sizeof(uintptr_t) * FIRST) };
	unsigned long same = 0, positions = 0;
	for (int r = 0; r < runs; r++) {
		need(size);
		for (int i = 0; i < 2; i++)
			in_child(pick_addresses, at[i], r);
		for (int i = 0; i < FIRST; i++) {
			same += at[0][i] == at[1][i];
			positions++;
		}
	}
	printf("fork runs=%d same=%lu of=%lu\n", runs, same, positions);
	return 0;
}

/* ---- adjacent ---- */

struct adjacency {
	uint32_t pair[PAIRS][PAIRS];
};

static void
count_adjacent(void *arg, int run)
{
	struct adjacency *a = arg;
	uintptr_t at[PAIRS];
	(void)run;
	for (int i = 0; i < PAIRS; i++)
		at[i] = (uintptr_t)need(size);
	size_t slot = (malloc_usable_size((void *)at[0]) + 15) & ~(size_t)15;
	for (int i = 0; i < PAIRS; i++)
		for (int k = i + 1; k < PAIRS; k++) {
			uintptr_t gap = at[i] < at[k] ? at[k] - at[i] : at[i] - at[k];
			if (gap == slot)
				a->pair[i][k]++;
		}
}

static int
run_adjacent(int runs)
{
	struct adjacency *a = shared(sizeof(*a));
	uint32_t most = 0;
	uint64_t all = 0;
	for (int r = 0; r < runs; r++)
		in_child(count_adjacent, a, r);
	for (int i = 0; i < PAIRS; i++)
		for (int k = i + 1; k < PAIRS; k++) {
			most = a->pair[i][k] > most ? a->pair[i][k] : most;
			all += a->pair[i][k];
		}
	printf("adjacent runs=%d most=%u mean=%.5f\n", runs, most,
	    (double)all / (PAIRS * (PAIRS - 1) / 2) / runs);
	return 0;
}

/* ---- after-free ---- */

struct reuse_at {
	const char *how;
	uint32_t at[LATER + 1];     /* [LATER]: not seen */
};

/* one    nelems objects live, one freed, then only allocations
 * churn  two spans' worth live; one freed, then a random one for each allocation
 * all    two spans' worth live, everything freed, then only allocations
 * share  the worst an attacker can do who knows where the spans are: exactly one
 *        span's worth live, and no more freed in it than makes it worth a sweep */
static void
follow_freed_slot(void *arg, int run)
{
	static void *live[2 * SLOTS];
	struct reuse_at *r = arg;
	uint64_t state = fresh_state(run);
	bool all = strcmp(r->how, "all") == 0, share = strcmp(r->how, "share") == 0;
	size_t n = all || strcmp(r->how, "churn") == 0 ? 2 * nelems : nelems;
	size_t also = all ? n : share ? (nelems + 3) / 4 - 1 : 0;
	for (size_t i = 0; i < n; i++)
		live[i] = need(size);
	size_t victim = next(&state) % n;
	uintptr_t slot = (uintptr_t)live[victim];
	free(live[victim]);
	for (size_t i = 1; i <= also && i < n; i++) {
		free(live[(victim + i) % n]);
		live[(victim + i) % n] = NULL;
	}
	live[victim] = NULL;
	for (size_t i = 0; i < LATER; i++) {
		size_t k = next(&state) % n;
		if (strcmp(r->how, "churn") == 0)
			free(live[k]);
		live[k] = need(size);
		if ((uintptr_t)live[k] == slot) {
			__atomic_fetch_add(&r->at[i], 1, __ATOMIC_RELAXED);
			return;
		}
	}
	__atomic_fetch_add(&r->at[LATER], 1, __ATOMIC_RELAXED);
}

static int
run_after_free(int runs, const char *how)
{
	struct reuse_at *r = shared(sizeof(*r));
	size_t most = 0, seen = 0, within = 0;
	r->how = how;
	for (int i = 0; i < runs; i++)
		in_child(follow_freed_slot, r, i);
	size_t first = LATER;
	for (size_t i = 0; i < LATER; i++) {
		most = r->at[i] > r->at[most] ? i : most;
		first = r->at[i] != 0 && i < first ? i : first;
		seen += r->at[i];
		within += i < 256 ? r->at[i] : 0;
	}
	printf("after-free how=%s runs=%d reused=%zu most=%u at=%zu first=%zu within256=%zu\n", how,
	    runs, seen, r->at[most], most + 1, first + 1, within);
	return 0;
}

/* ---- reuse ---- */

struct distances {
	uint32_t n;
	uint32_t at[REUSES];
};

static int
by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x < y ? -1 : x > y;
}

/* An open hash of addresses to the number of the allocation after which each was
 * freed; never shrinks, addresses repeat. */
enum { TABLE = 1 << 16 };
static struct { uintptr_t p; uint64_t when; } table[TABLE];

static uint64_t *
freed_when(uintptr_t p)
{
	size_t i = (size_t)(p * 0x9e3779b97f4a7c15u >> 48);
	while (table[i].p != p && table[i].p != 0)
		i = (i + 1) % TABLE;
	table[i].p = p;
	return &table[i].when;
}

/* live objects at a time, one random one replaced at each step. live 1 is the
 * tight pair malloc, free, malloc, free. */
static void
measure_reuse(struct distances *d, size_t live_n)
{
	static void *live[2 * SLOTS];
	uint64_t state = fresh_state((int)live_n);
	memset(table, 0, sizeof(table));
	d->n = 0;
	for (size_t i = 0; i < live_n; i++)
		live[i] = need(size);
	for (uint64_t now = 1; d->n < REUSES && now < 200000; now++) {
		size_t k = next(&state) % live_n;
		*freed_when((uintptr_t)live[k]) = now;
		free(live[k]);
		live[k] = need(size);
		uint64_t *when = freed_when((uintptr_t)live[k]);
		if (*when != 0)
			d->at[d->n++] = (uint32_t)(now - *when + 1);
		*when = 0;
	}
	for (size_t i = 0; i < live_n; i++)
		free(live[i]);
	qsort(d->at, d->n, sizeof(d->at[0]), by_value);
}

static void
print_distances(const char *name, const struct distances *d)
{
	uint32_t within = 0;
	for (uint32_t i = 0; i < d->n; i++)
		within += d->at[i] <= 256;
	printf("reuse pattern=%s seen=%u min=%u p10=%u median=%u within256=%u\n", name, d->n,
	    d->n != 0 ? d->at[0] : 0, d->n != 0 ? d->at[d->n / 10] : 0,
	    d->n != 0 ? d->at[d->n / 2] : 0, within);
}

static int
run_reuse(void)
{
	static struct distances d;
	measure_reuse(&d, 1);
	print_distances("pair", &d);
	measure_reuse(&d, 2 * nelems);
	print_distances("churn", &d);
	return 0;
}

int
main(int argc, char **argv)
{
	static char buffer[65536];
	setvbuf(stdout, buffer, _IOFBF, sizeof(buffer));
	unsigned long a[6] = { 0 };
	for (int i = 2; i < argc && i < 8; i++)
		a[i - 2] = strtoul(argv[i], NULL, 0);
	if (argc < 3)
		fail("usage: see the head of randomness.c");
	size = a[0];
	nelems = a[1];
	if (strcmp(argv[1], "choice") == 0 && nelems <= SLOTS && a[2] <= WINDOW)
		return run_choice(a[2], a[3]);
	if (strcmp(argv[1], "place") == 0)
		return run_place(a[1]);
	if (strcmp(argv[1], "threads") == 0)
		return run_threads((int)a[1]);
	if (strcmp(argv[1], "fork") == 0)
		return run_fork((int)a[1]);
	if (strcmp(argv[1], "adjacent") == 0)
		return run_adjacent((int)a[2]);
	if (strcmp(argv[1], "after-free") == 0 && argc > 5)
		return run_after_free((int)a[2], argv[5]);
	if (strcmp(argv[1], "reuse") == 0)
		return run_reuse();
	fail("unknown experiment");
	return 98;
}
