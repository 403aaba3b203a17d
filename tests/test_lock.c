/* test_lock.c - src/lock.c: exclusion, sleeping and waking; and, where the build
 * has lock_checks, that each wrong use dies under its tag. */
#define _GNU_SOURCE
#include "fake_die.h"
#include "lock.h"
#include "sys.h"

#include <stdarg.h>
#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 4, ROUNDS = 20000 };

static struct mutex shared = MUTEX_INIT(LOCK_MHEAP);
static uint64_t counter, tries_won;

static void *
add_many(void *arg)
{
	for (unsigned i = 0; i < ROUNDS; i++) {
		if (i % 4 == 0 && mutex_trylock(&shared))
			tries_won++;
		else
			mutex_lock(&shared);
		mutex_assert_held(&shared);
		/* Not an atomic add: two threads at once would lose one. */
		uint64_t before = *(volatile uint64_t *)&counter;
		if (i % 512 == 0)
			sched_yield();
		*(volatile uint64_t *)&counter = before + 1;
		mutex_unlock(&shared);
	}
	return arg;
}

static void
test_exclusion(void **state)
{
	pthread_t t[THREADS];

	(void)state;
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, add_many, NULL), 0);
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(counter, THREADS * ROUNDS);
	assert_true(tries_won > 0);
	assert_int_equal(a32_load_relaxed(&shared.state), 0);
}

static void *
lock_and_unlock(void *arg)
{
	mutex_lock(arg);
	mutex_unlock(arg);
	return arg;
}

/* The waiters sleep (state 2) until the holder lets go, and then all get by. */
static void
test_sleepers_are_woken(void **state)
{
	struct mutex m = MUTEX_INIT(LOCK_MHEAP);
	pthread_t t[THREADS];

	(void)state;
	mutex_lock(&m);
	assert_int_equal(a32_load_relaxed(&m.state), 1);
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, lock_and_unlock, &m), 0);
	while (a32_load_relaxed(&m.state) != 2)
		sched_yield();
	mutex_unlock(&m);
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(a32_load_relaxed(&m.state), 0);
}

static void
test_trylock_and_reset(void **state)
{
	struct mutex m = { 0 };

	(void)state;
	assert_true(mutex_trylock(&m));
	assert_false(mutex_trylock(&m));
	mutex_unlock(&m);
	mutex_lock(&m);
	mutex_reset(&m);
	assert_true(mutex_trylock(&m));
	mutex_unlock(&m);
}

static void *
lock_for_good(void *arg)
{
	mutex_lock(arg);
	return arg;
}

/* A lock that another thread held when the process forked. */
static void
test_reset_in_child(void **state)
{
	struct mutex m = MUTEX_INIT(LOCK_MHEAP);
	pthread_t t;
	int status = 0;
	pid_t pid;

	(void)state;
	assert_int_equal(pthread_create(&t, NULL, lock_for_good, &m), 0);
	pthread_join(t, NULL);
	pid = fork();
	if (pid == 0) {
		if (mutex_trylock(&m))
			_exit(1);
		mutex_reset(&m);
		mutex_lock(&m);
		mutex_unlock(&m);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- checks ---- */

static void
lock_it(void *m)
{
	mutex_lock(m);
}

static void
unlock_it(void *m)
{
	mutex_unlock(m);
}

static void
assert_it(void *m)
{
	mutex_assert_held(m);
}

static void
assert_dies(void (*fn)(void *), struct mutex *m, const char *tag)
{
	assert_true(fake_die_caught(fn, m));
	assert_int_equal(fake_die_info.code, DIE_CORRUPTION);
	assert_string_equal(fake_die_info.site, tag);
	assert_int_equal(fake_die_info.addr, (uintptr_t)m);
}

static void
test_order(void **state)
{
	struct mutex none = { 0 };

	(void)state;
	if (!lock_checks)
		skip();
	for (uint32_t held = 1; held < LOCK_RANKS; held++) {
		struct mutex a = MUTEX_INIT(held);

		mutex_lock(&a);
		for (uint32_t rank = 1; rank < LOCK_RANKS; rank++) {
			struct mutex b = MUTEX_INIT(rank);
			bool again = rank == held && (rank == LOCK_MCACHE
			    || rank == LOCK_MCENTRAL || rank == LOCK_SPANSET);

			if (rank <= held && !again) {
				assert_dies(lock_it, &b, "LOCK-1");
				assert_int_equal(a32_load_relaxed(&b.state), 0);
			} else {
				mutex_lock(&b);
				mutex_unlock(&b);
			}
		}
		mutex_lock(&none);
		mutex_unlock(&none);
		mutex_unlock(&a);
	}
}

/* The order looks at all that is held, also when it is let go out of order. */
static void
test_order_of_three(void **state)
{
	struct mutex a = MUTEX_INIT(LOCK_INIT), b = MUTEX_INIT(LOCK_MHEAP);
	struct mutex c = MUTEX_INIT(LOCK_MCACHE), bad = MUTEX_INIT(LOCK_RANKS);

	(void)state;
	if (!lock_checks)
		skip();
	mutex_lock(&a);
	mutex_lock(&b);
	mutex_unlock(&a);
	assert_dies(lock_it, &c, "LOCK-1");
	assert_true(mutex_trylock(&c));       /* cannot wait, so may */
	mutex_unlock(&b);
	assert_dies(lock_it, &a, "LOCK-1");   /* c is held */
	mutex_lock(&b);
	mutex_unlock(&c);
	mutex_unlock(&b);
	assert_dies(lock_it, &bad, "LOCK-1");
	mutex_lock(&a);
	mutex_unlock(&a);
}

static void
test_ownership(void **state)
{
	struct mutex m = MUTEX_INIT(LOCK_MHEAP);
	pthread_t t;

	(void)state;
	if (!lock_checks)
		skip();
	assert_dies(unlock_it, &m, "LOCK-2");
	assert_dies(assert_it, &m, "LOCK-2");
	mutex_lock(&m);
	mutex_assert_held(&m);
	assert_dies(lock_it, &m, "LOCK-3");
	mutex_unlock(&m);
	assert_int_equal(pthread_create(&t, NULL, lock_for_good, &m), 0);
	pthread_join(t, NULL);
	assert_dies(unlock_it, &m, "LOCK-2");
	assert_dies(assert_it, &m, "LOCK-2");
	assert_int_equal(a32_load_relaxed(&m.state), 1);
}

/* As fork does: very many thread caches at once, then the ranks below; the
 * child resets them in place of unlocking. */
static void
test_many_held(void **state)
{
	enum { MANY = 1000 };
	static struct mutex cache[MANY];
	struct mutex heap = MUTEX_INIT(LOCK_MHEAP), first = MUTEX_INIT(LOCK_INIT);

	(void)state;
	for (size_t i = 0; i < MANY; i++) {
		cache[i] = (struct mutex)MUTEX_INIT(LOCK_MCACHE);
		mutex_lock(&cache[i]);
	}
	mutex_lock(&heap);
	mutex_unlock(&heap);
	if (lock_checks)
		assert_dies(lock_it, &first, "LOCK-1");
	for (size_t i = 0; i < MANY / 2; i++)
		mutex_unlock(&cache[i]);
	if (lock_checks)
		assert_dies(lock_it, &first, "LOCK-1");
	for (size_t i = MANY / 2; i < MANY; i++)
		mutex_unlock(&cache[i]);
	mutex_lock(&first);
	mutex_unlock(&first);
	if (lock_checks)
		assert_dies(unlock_it, &cache[MANY - 1], "LOCK-2");

	for (size_t i = 0; i < MANY; i++)
		mutex_lock(&cache[i]);
	for (size_t i = 0; i < MANY; i++)
		mutex_reset(&cache[i]);
	mutex_lock(&first);
	mutex_unlock(&first);
}

/* Words that no lock has, in the way of one who waits. */
static void
test_overwritten(void **state)
{
	static const uint32_t words[] = { 3, 4, 0x80000001, UINT32_MAX };
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		struct mutex m = MUTEX_INIT(LOCK_MHEAP);
		a32_store_relaxed(&m.state, words[i]);
		assert_dies(lock_it, &m, "LOCK-5");
	}
}

static void *
keep_for_long(void *arg)
{
	const struct timespec long_time = { 5, 0 };
	mutex_lock(arg);
	nanosleep(&long_time, NULL);
	mutex_unlock(arg);
	return NULL;
}

/* Held by nobody: only where no other thread is there. A holder may take his time. */
static void
test_held_by_nobody(void **state)
{
	struct mutex m = MUTEX_INIT(LOCK_MHEAP), other = MUTEX_INIT(LOCK_MHEAP);
	pthread_t t;
	int status;
	(void)state;
	if (!sys_is_only_thread())
		skip();         /* a sanitizer's own */
	a32_store_relaxed(&m.state, 1);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(fake_die_caught(lock_it, &m) && strcmp(fake_die_info.site, "LOCK-5") == 0 ? 5 : 0);
	assert_int_equal(pthread_create(&t, NULL, keep_for_long, &other), 0);
	assert_false(sys_is_only_thread());
	while (a32_load_acquire(&other.state) == 0)
		sched_yield();
	assert_false(fake_die_caught(lock_it, &other));
	mutex_unlock(&other);
	pthread_join(t, NULL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 5);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exclusion),
		cmocka_unit_test(test_sleepers_are_woken),
		cmocka_unit_test(test_trylock_and_reset),
		cmocka_unit_test(test_reset_in_child),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_order_of_three),
		cmocka_unit_test(test_ownership),
		cmocka_unit_test(test_many_held),
		cmocka_unit_test(test_overwritten),
		cmocka_unit_test(test_held_by_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
