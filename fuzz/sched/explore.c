/* explore.c - see explore.h. */
#include "explore.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DECISIONS_MAX = 1 << 16, PCT_DEPTH_MAX = 16 };

/* Locations that two threads use are known only after they did. Short searches
 * come first: each finds more of them, and starts again. */
enum { ROUNDS_MAX = 64 };

static void
count_run(struct explore_result *r)
{
	r->schedules++;
	if (sched_points() > r->points)
		r->points = sched_points();
	if (sched_decisions() > r->decisions)
		r->decisions = sched_decisions();
}

/* ---- exhaustive ---- */

struct taken {
	uint8_t choice, n;
	uint8_t spent;         /* preemptions before it */
	bool preempts;
};

struct dfs {
	struct sched_chooser c;
	unsigned bound;
	uint32_t fixed;        /* decisions that repeat the prefix */
	uint32_t n;
	unsigned spent;
	struct taken *taken;
};

static unsigned
dfs_choose(struct sched_chooser *c, const struct sched_decision *d)
{
	struct dfs *s = (struct dfs *)c;
	bool free_choice = !d->preempts || s->spent < s->bound;
	unsigned choice = 0;

	if (!free_choice)
		return 0;                /* never branched at */
	if (s->n == DECISIONS_MAX)
		sched_fail("the schedule has too many decisions to be explored");
	struct taken *t = &s->taken[s->n];
	if (s->n < s->fixed)
		choice = t->choice;
	*t = (struct taken){ (uint8_t)choice, (uint8_t)d->n, (uint8_t)s->spent, d->preempts };
	s->n++;
	s->spent += d->preempts && choice != 0;
	return choice;
}

/* The next prefix in depth-first order; false: there is none. */
static bool
dfs_next(struct dfs *s)
{
	while (s->n > 0) {
		struct taken *t = &s->taken[s->n - 1];
		if (t->choice + 1 < t->n && t->spent + (unsigned)t->preempts <= s->bound) {
			t->choice++;
			s->fixed = s->n;
			return true;
		}
		s->n--;
	}
	return false;
}

/* One search; true: over, false: there are more shared locations than it knew. */
static bool
dfs_round(struct dfs *s, explore_run run, void *arg, uint64_t max, struct explore_result *r)
{
	uint64_t first = r->schedules;

	s->fixed = 0;
	do {
		s->n = s->spent = 0;
		r->failed = !run(arg, &s->c);
		count_run(r);
		r->cut_short = r->schedules >= max;
		/* what is new early, most of it, costs a short round only */
		if (r->schedules - first == 64 && sched_learn())
			return false;
	} while (!r->failed && !r->cut_short && dfs_next(s));
	return r->failed || r->cut_short || !sched_learn();
}

void
explore_exhaustive(explore_run run, void *arg, unsigned bound, uint64_t max,
    struct explore_result *r)
{
	struct dfs s = { .c = { dfs_choose } };

	*r = (struct explore_result){ 0 };
	s.taken = calloc(DECISIONS_MAX, sizeof(*s.taken));
	if (s.taken == NULL)
		abort();
	for (s.bound = 0; s.bound <= bound && !r->failed && !r->cut_short; s.bound++)
		for (int i = 0; i < ROUNDS_MAX && !dfs_round(&s, run, arg, max, r); i++)
			continue;
	free(s.taken);
}

/* ---- PCT ---- */

struct pct {
	struct sched_chooser c;
	uint64_t random;
	uint32_t decision;
	unsigned changes;
	uint32_t change[PCT_DEPTH_MAX];
	int priority[SCHED_THREADS];
};

static uint64_t
random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static unsigned
pct_choose(struct sched_chooser *c, const struct sched_decision *d)
{
	struct pct *s = (struct pct *)c;
	unsigned best = 0;

	for (unsigned i = 0; i < s->changes; i++)
		if (s->change[i] == s->decision && d->from < SCHED_THREADS)
			s->priority[d->from] = -(int)i - 1;
	s->decision++;
	for (unsigned i = 1; i < d->n; i++)
		if (s->priority[d->options[i]] > s->priority[d->options[best]])
			best = i;
	return best;
}

static void
pct_draw(struct pct *s, unsigned depth, uint32_t decisions)
{
	s->decision = 0;
	s->changes = depth > 0 ? depth - 1 : 0;
	for (unsigned i = 0; i < s->changes; i++)
		s->change[i] = (uint32_t)(random_next(&s->random) % (decisions + 1));
	for (unsigned i = 0; i < SCHED_THREADS; i++)
		s->priority[i] = (int)i + 1;
	for (unsigned i = SCHED_THREADS - 1; i > 0; i--) {
		unsigned k = (unsigned)(random_next(&s->random) % (i + 1));
		int t = s->priority[i];
		s->priority[i] = s->priority[k];
		s->priority[k] = t;
	}
}

void
explore_pct(explore_run run, void *arg, unsigned depth, uint64_t seed, uint64_t runs,
    struct explore_result *r)
{
	struct pct s = { .c = { pct_choose }, .random = seed };

	*r = (struct explore_result){ 0 };
	if (depth > PCT_DEPTH_MAX)
		depth = PCT_DEPTH_MAX;
	for (uint64_t i = 0; i < runs && !r->failed; i++) {
		pct_draw(&s, depth, r->decisions);
		r->failed = !run(arg, &s.c);
		count_run(r);
		sched_learn();
	}
}

/* ---- replay ---- */

struct replay {
	struct sched_chooser c;
	struct sched_switch step[SCHED_SWITCHES];
	unsigned n, at;
	bool astray;
};

static unsigned
replay_choose(struct sched_chooser *c, const struct sched_decision *d)
{
	struct replay *s = (struct replay *)c;
	const struct sched_switch *w = &s->step[s->at];
	char how = d->from == SCHED_THREADS ? '+' : d->preempts ? '>' : '|';

	if (s->at == s->n || w->from != d->from || w->how != how || w->point != d->point)
		return 0;
	s->at++;
	for (unsigned i = 0; i < d->n; i++)
		if (d->options[i] == w->to)
			return i;
	s->astray = true;
	return 0;
}

bool
explore_replay(explore_run run, void *arg, const char *text, struct explore_result *r)
{
	static struct replay s;

	*r = (struct explore_result){ 0 };
	s.c.choose = replay_choose;
	s.at = 0;
	s.astray = false;
	if (!sched_parse(text, s.step, &s.n))
		return false;
	sched_every_point(true);
	r->failed = !run(arg, &s.c);
	sched_every_point(false);
	count_run(r);
	return !s.astray && s.at == s.n;
}

/* ---- bytes ---- */

struct bytes {
	struct sched_chooser c;
	const uint8_t *at, *end;
	unsigned pass;
};

static void
bytes_next(struct bytes *s)
{
	s->pass = UINT_MAX;
	if (s->end - s->at >= 2)
		s->pass = *s->at++;
}

static unsigned
bytes_choose(struct sched_chooser *c, const struct sched_decision *d)
{
	struct bytes *s = (struct bytes *)c;

	if (s->pass-- != 0)
		return 0;
	unsigned choice = *s->at++ % d->n;
	bytes_next(s);
	return choice;
}

bool
explore_bytes(explore_run run, void *arg, const uint8_t *data, size_t size)
{
	struct bytes s = { .c = { bytes_choose }, .at = data, .end = data + size };

	bytes_next(&s);
	return run(arg, &s.c);
}
