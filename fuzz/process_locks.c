/* process_locks.c - locks and call stacks in H20: the order of locks, who holds them and
 * who may never get them; and the depot, against a list of what was put into it. */
#define _GNU_SOURCE
#include "process.h"

#include <string.h>

#include "fake_die.h"
#include "lock.h"
#include "mcache.h"
#include "../hardening/depot.h"

/* ---- locks ---- */

enum { LOCKS = 8, MANY = 70 };

enum way { LOCK, TRY, UNLOCK, ASSERT_HELD, RESET, WAIT, WAIT_FOR_EVER, CORRUPT, WAYS };

static struct mutex locks[LOCKS] = { MUTEX_INIT(LOCK_NONE), MUTEX_INIT(LOCK_INIT), MUTEX_INIT(LOCK_MCACHE),
	MUTEX_INIT(LOCK_MCACHE), MUTEX_INIT(LOCK_MHEAP), MUTEX_INIT(LOCK_RANKS), MUTEX_INIT(LOCK_NONE), MUTEX_INIT(LOCK_MHEAP) };

static struct {
	bool held[LOCKS];
	bool kept_out;                 /* of handlers */
	struct mutex *given_up;
	unsigned waits;
	enum way way;
	unsigned which;
} g;

static bool
handlers_kept_out(void)
{
	return g.kept_out;
}

/* Another thread gives the lock up while this one sleeps; or nobody is there to do so. */
static bool
on_wait(const uint32_t *word)
{
	(void)word;
	if (++g.waits < 3)
		return false;
	if (g.way == WAIT_FOR_EVER)
		return true;
	a32_store_relaxed(&locks[g.which].state, 0);
	return false;
}

static void
act(void *arg)
{
	struct mutex *m = arg;

	switch (g.way) {
	case UNLOCK: mutex_unlock(m); break;
	case ASSERT_HELD: mutex_assert_held(m); break;
	case TRY: g.held[g.which] |= mutex_trylock(m); break;
	case RESET: mutex_reset(m); break;
	default: mutex_lock(m); break;
	}
}

/* NULL: it goes through. */
static const char *
naive_death(void)
{
	uint32_t rank = locks[g.which].rank;
	bool waits = g.way == WAIT || g.way == WAIT_FOR_EVER || g.way == CORRUPT;

	if (g.way == UNLOCK || g.way == ASSERT_HELD)
		return g.held[g.which] ? NULL : "LOCK-2";
	if (g.way == TRY || g.way == RESET)
		return NULL;
	if (g.held[g.which])
		return "LOCK-3";
	if (!g.kept_out)
		return "LOCK-4";
	for (unsigned i = 0; i < LOCKS && rank != LOCK_NONE; i++)
		if (rank >= LOCK_RANKS || (g.held[i] && locks[i].rank != LOCK_NONE && (locks[i].rank > rank ||
		    (locks[i].rank == rank && rank != LOCK_MCACHE))))
			return "LOCK-1";
	return waits && g.way != WAIT ? "LOCK-5" : NULL;
}

static void
forget_locks(void)
{
	lock_forget_held();
	for (unsigned i = 0; i < LOCKS; i++)
		a32_store_relaxed(&locks[i].state, 0);
	memset(g.held, 0, sizeof(g.held));
}

static void
one_step(unsigned which, enum way way, bool kept_out)
{
	struct mutex *m = &locks[which];

	g.way = way;
	g.which = which;
	g.kept_out = kept_out;
	g.waits = 0;
	if (m->rank == LOCK_RANKS && way == TRY)       /* counts by ranks that there are */
		return;
	bool foreign = way == WAIT || way == WAIT_FOR_EVER || way == CORRUPT;
	if (foreign && !g.held[which])
		a32_store_relaxed(&m->state, way == CORRUPT ? 7 : 1);
	const char *want = naive_death();
	bool died = fake_die_caught(act, m);
	SG_CHECK(MODEL, died == (want != NULL) && (!died || strcmp(fake_die_info.site, want) == 0), "lock %u: %s, not %s",
	    which, died ? fake_die_info.site : "nothing", want != NULL ? want : "nothing");
	SG_CHECK(MODEL, way != WAIT || died || g.waits == 3, "slept %u times", g.waits);
	sg_note((unsigned)died);
	if (died || foreign) {
		forget_locks();
		return;
	}
	if (way == LOCK || way == UNLOCK || way == RESET)
		g.held[which] = way == LOCK;
	SG_CHECK(MODEL, (a32_load_relaxed(&m->state) != 0) == g.held[which], "lock %u is %s", which,
	    g.held[which] ? "free" : "held");
}

/* More locks than a thread's list has place for. */
static void
many(void)
{
	static struct mutex more[MANY];
	struct held_locks other = { .count = 0 }, mine;

	for (unsigned i = 0; i < MANY; i++)
		mutex_lock(&more[i]);
	SG_CHECK(MODEL, mutex_held()->count + mutex_held()->untracked == MANY, "%u locks are held", mutex_held()->count);
	mutex_switch_thread(&mine, &other);
	SG_CHECK(MODEL, mutex_held()->count == 0, "another thread holds them");
	mutex_switch_thread(&other, &mine);
	for (unsigned i = MANY; i-- > 0;)
		mutex_unlock(&more[i]);
	SG_CHECK(MODEL, mutex_held()->count + mutex_held()->untracked == 0, "some stay");
}

void
process_locks(const struct sgf_op *op)
{
	uint64_t random = op->imm;

	if (mutex_held()->count != 0)
		return;
	mutex_handlers_kept_out = handlers_kept_out;
	sim.on_wait = on_wait;
	sim.only_thread = true;
	bool (*orphaned)(void) = mutex_orphaned;
	mutex_orphaned = NULL;
	g.kept_out = true;
	forget_locks();
	if (op->b & 1)
		many();
	for (unsigned i = 0; i < op->a % 16; i++) {
		uint64_t r = sg_random(&random);
		one_step((unsigned)(r % LOCKS), (enum way)((r >> 8) % (r >> 24 & 3 ? 3 : WAYS)), (r >> 16 & 7) != 0);
	}
	forget_locks();
	mutex_handlers_kept_out = NULL;
	mutex_orphaned = orphaned;
	sim.on_wait = NULL;
}

/* ---- the depot ---- */

enum { STACKS = 40, FRAMES = DEPOT_FRAMES + 4 };

static struct {
	uintptr_t pcs[FRAMES];
	size_t n;
	uint32_t id;
} put[STACKS];

/* Few different ones; the longest longer than what is kept. */
static size_t
draw_stack(uintptr_t *pcs, uint64_t r)
{
	size_t n = (r & 15) == 0 ? FRAMES : (r & 15) == 1 ? DEPOT_FRAMES : r % 5;

	for (size_t i = 0; i < n; i++)
		pcs[i] = 0x400000 + (r >> 8 & 3) * (i + 1) * 16;
	return n;
}

static void
check_put(size_t i, bool full)
{
	size_t kept = put[i].n < DEPOT_FRAMES ? put[i].n : DEPOT_FRAMES;
	uint32_t got, id = put[i].id;
	const uintptr_t *pcs = depot_get(id, &got);

	SG_CHECK(MODEL, (id == 0) == (kept == 0 || full), "stack of %zu frames: id %u", kept, id);
	SG_CHECK(MODEL, (pcs == NULL) == (id == 0) && (id == 0 || (got == kept &&
	    memcmp(pcs, put[i].pcs, kept * sizeof(*pcs)) == 0)), "id %u leads to another stack", id);
	for (size_t k = 0; k < i && id != 0; k++) {
		size_t other = put[k].n < DEPOT_FRAMES ? put[k].n : DEPOT_FRAMES;
		bool same = other == kept && memcmp(put[k].pcs, put[i].pcs, kept * sizeof(*pcs)) == 0;
		SG_CHECK(MODEL, same == (put[k].id == id), "ids %u and %u of %s stacks", put[k].id, id,
		    same ? "the same" : "different");
	}
}

/* Not where the heap at hand has its stacks in it. */
void
process_depot(const struct sgf_op *op)
{
	uint64_t random = op->imm;
	size_t chunks = op->a % 3;
	unsigned warnings = sg_warnings;
	bool full = chunks == 0;
	struct depot_stats s;

	if (options.records || options.guard_objects || options.stack_depth != 0 || options.sample != 0)
		return;
	depot_init(chunks * DEPOT_CHUNK_BYTES + op->b);
	if ((op->b & 3) == 3 && chunks != 0) {
		fake_sys_fail(FAKE_SYS_ALLOC, 1, true);
		full = true;
	}
	for (size_t i = 0; i < STACKS; i++) {
		put[i].n = draw_stack(put[i].pcs, sg_random(&random));
		put[i].id = depot_put(put[i].pcs, put[i].n);
		check_put(i, full);
	}
	fake_sys_fail(0, 0, false);
	/* ids that are none: any answer but a crash */
	for (unsigned i = 0; i < 8; i++) {
		uint32_t n, id = (uint32_t)sg_random(&random);
		const uintptr_t *pcs = depot_get(i & 1 ? id % 256 : id, &n);
		SG_CHECK(MODEL, (pcs == NULL) == (n == 0) && n <= DEPOT_FRAMES, "%u frames", n);
	}
	/* until it is full */
	if (op->b & 4 && !full) {
		uintptr_t pcs[DEPOT_FRAMES] = { 0 };
		uint32_t last = 1;
		for (unsigned i = 0; last != 0 && i < 3 * DEPOT_CHUNK_UNITS / DEPOT_FRAMES; i++) {
			pcs[0] = i + 1;
			last = depot_put(pcs, DEPOT_FRAMES);
		}
		SG_CHECK(MODEL, last == 0, "it is never full");
		full = true;
		for (size_t i = 0; i < STACKS; i++)
			SG_CHECK(MODEL, depot_put(put[i].pcs, put[i].n) == put[i].id, "what is in it is not found when it is full");
	}
	depot_read_stats(&s);
	SG_CHECK(STATS, (s.refused != 0) == (full && chunks != 0), "%lu refused", (unsigned long)s.refused);
	SG_CHECK(STATS, sg_warnings - warnings == (s.refused != 0), "%u warnings", sg_warnings - warnings);
	sg_note(s.stacks);
	depot_init(0);
}
