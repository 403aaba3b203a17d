/* lock.c - the futex mutex of lock.h, and the check of the lock order.
 *
 *          lock: cas 0->1            unlock: exchange 0
 *   free ------------------> held ------------------------> free
 *                              | lock: spin, then exchange 2
 *                              v
 *                            held, sleepers -- unlock: exchange 0, wake one
 *
 * A thread that has slept takes the lock in state 2, since it cannot know
 * whether others sleep still; that costs at most one wake too many.
 * Source of the algorithm: U. Drepper, "Futexes are tricky" (2011), section 6.
 *
 * Checks, in builds with SPANGUARD_LOCK_CHECKS=1, and LOCK-4 with 2, in whole
 * libraries: unit tests call the tiers from outside of any call of the program's:
 *   LOCK-1  a lock is taken only while all ranks held are lower; equal ranks
 *           together only in LOCK_MCACHE, LOCK_MCENTRAL and LOCK_SPANSET, of
 *           which fork takes all. Rank LOCK_NONE is free of order. A trylock
 *           cannot wait, so it may go against the order, but counts as held.
 *   LOCK-2  only the holder unlocks, and asserts that it holds
 *   LOCK-3  nobody locks what they hold
 *   LOCK-4  a lock is waited for only where no handler of the program's that comes
 *           in would wait for it: the cache is marked, or signals are held back
 * And in every build, where a lock is waited for:
 *   LOCK-5  its word is one of the three, and somebody exists who may free it
 * What a thread holds is in its TLS: pointers of the first HELD_MAX locks, and
 * a count per rank. Builds without checks have no TLS from here.
 *
 * Cost: one compare-and-swap to lock, one exchange to unlock. */
#define _GNU_SOURCE 1
#include "lock.h"
#include "die.h"
#include "sys.h"

#include <errno.h>
#include <sched.h>

#ifndef SPANGUARD_LOCK_CHECKS
#define SPANGUARD_LOCK_CHECKS 0
#endif

/* About a microsecond of pause instructions. */
#ifndef SPANGUARD_LOCK_SPINS
#define SPANGUARD_LOCK_SPINS 32
#endif

enum {
	CHECKS = SPANGUARD_LOCK_CHECKS != 0,
	SPINS = SPANGUARD_LOCK_SPINS,
	FREE = 0, HELD = 1, CONTENDED = 2,
};

const bool lock_checks = CHECKS;
const bool lock_checks_handlers = SPANGUARD_LOCK_CHECKS > 1;

/* Referenced only under CHECKS: the compiler drops it from other builds. */
static __thread struct held_locks held __attribute__((tls_model("initial-exec")));

static bool
rank_may_repeat(uint32_t rank)
{
	return rank == LOCK_MCACHE || rank == LOCK_MCENTRAL || rank == LOCK_SPANSET;
}

static uint32_t
held_find(const struct mutex *m)
{
	for (uint32_t i = 0; i < held.count; i++) {
		if (held.lock[i] == m)
			return i;
	}
	return HELD_MAX;
}

/* Before waiting, so that a wrong order is a report and not a deadlock. */
static void
check_order(const struct mutex *m)
{
	if (held_find(m) != HELD_MAX)
		die_corruption("LOCK-3", m);
	if (mutex_handlers_kept_out != NULL && !mutex_handlers_kept_out())
		die_corruption("LOCK-4", m);
	if (m->rank == LOCK_NONE)
		return;
	if (m->rank >= LOCK_RANKS)
		die_corruption("LOCK-1", m);
	if (held.ranks >> (m->rank + (rank_may_repeat(m->rank) ? 1u : 0u)) != 0)
		die_corruption("LOCK-1", m);
}

static void
held_add(const struct mutex *m)
{
	if (held.count < HELD_MAX)
		held.lock[held.count++] = m;
	else
		held.untracked++;
	held.of_rank[m->rank]++;
	held.ranks |= 1u << m->rank;
}

/* false: the thread does not hold m. */
static bool
held_remove(const struct mutex *m)
{
	uint32_t i = held_find(m);

	if (i != HELD_MAX)
		held.lock[i] = held.lock[--held.count];
	else if (held.untracked > 0)
		held.untracked--;
	else
		return false;
	if (--held.of_rank[m->rank] == 0)
		held.ranks &= ~(1u << m->rank);
	return true;
}

/* Spinning is of use only where the holder can run meanwhile. */
static bool
many_cpus(void)
{
	static atomic_u32 known;    /* 0 not asked yet, 1 one, 2 more */
	uint32_t k = a32_load_relaxed(&known);

	if (unlikely(k == 0)) {
		uint64_t set[16] = { 0 };
		unsigned cpus = 0;
		int saved_errno = errno;

		if (sched_getaffinity(0, sizeof(set), (cpu_set_t *)(void *)set) != 0)
			cpus = 2;    /* more CPUs than bits */
		for (size_t i = 0; i < ARRAY_LEN(set); i++)
			cpus += popcount64(set[i]);
		errno = saved_errno;
		k = cpus > 1 ? 2 : 1;
		a32_store_relaxed(&known, k);
	}
	return k == 2;
}

static bool
take_if_free(struct mutex *m)
{
	uint32_t want = FREE;

	return a32_cas(&m->state, &want, HELD);
}

bool (*mutex_orphaned)(void);
bool (*mutex_handlers_kept_out)(void);

/* A child that nobody told makes all locks free, also those that this thread holds
 * on its way to the one it waits for. Nobody else is there to take them; but the
 * checks want them held until they are given back. */
static bool
was_orphaned(void)
{
	struct held_locks mine;

	if (mutex_orphaned == NULL)
		return false;
	if (CHECKS)
		mine = held;
	if (!mutex_orphaned())
		return false;
	for (uint32_t i = 0; CHECKS && i < mine.count; i++)
		a32_store_relaxed((atomic_u32 *)&mine.lock[i]->state, HELD);
	if (CHECKS)
		held = mine;
	return true;
}

static NOINLINE void
lock_slow(struct mutex *m)
{
	for (int i = many_cpus() ? SPINS : 0; i > 0; i--) {
		if (a32_load_relaxed(&m->state) == FREE && take_if_free(m))
			return;
		cpu_relax();
	}
	uint32_t was;
	while ((was = a32_exchange(&m->state, CONTENDED)) != FREE) {
		if (was > CONTENDED)
			die_corruption("LOCK-5", m);
		if (was_orphaned())
			continue;
		if (sys_futex_wait(&m->state.v, CONTENDED) && sys_is_only_thread() &&
		    a32_load_relaxed(&m->state) == CONTENDED)
			die_corruption("LOCK-5", m);
	}
}

void
mutex_lock(struct mutex *m)
{
	if (CHECKS)
		check_order(m);
	if (unlikely(!take_if_free(m)))
		lock_slow(m);
	if (CHECKS)
		held_add(m);
}

bool
mutex_trylock(struct mutex *m)
{
	if (!take_if_free(m))
		return false;
	if (CHECKS)
		held_add(m);
	return true;
}

void
mutex_unlock(struct mutex *m)
{
	if (CHECKS && !held_remove(m))
		die_corruption("LOCK-2", m);
	if (unlikely(a32_exchange(&m->state, FREE) == CONTENDED))
		sys_futex_wake(&m->state.v, 1);
}

void
mutex_reset(struct mutex *m)
{
	/* Of locks that did not fit into held.lock, those in use are taken for
	 * ours: fork takes all it resets. */
	bool ours = CHECKS && (held_find(m) != HELD_MAX
	    || (a32_load_relaxed(&m->state) != FREE && held.of_rank[m->rank] > 0));

	if (ours)
		held_remove(m);
	a32_store_release(&m->state, FREE);
}

void
mutex_assert_held(const struct mutex *m)
{
	if (CHECKS && held_find(m) == HELD_MAX && held.untracked == 0)
		die_corruption("LOCK-2", m);
}

void
lock_forget_held(void)
{
	for (uint32_t i = 0; CHECKS && i < held.count; i++)
		a32_store_release((atomic_u32 *)&held.lock[i]->state, FREE);
	if (CHECKS)
		held = (struct held_locks){ 0 };
}

void
mutex_switch_thread(struct held_locks *from, const struct held_locks *to)
{
	*from = held;
	held = *to;
}

const struct held_locks *
mutex_held(void)
{
	return &held;
}
