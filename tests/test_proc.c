/* test_proc.c - threads that come and go, what is called after a thread's end,
 * fork under way of other threads. Real threads, the real system. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_die.h"
#include "heap_support.h"
#include "mstats.h"
#include "proc.h"
#include "sys.h"
#include "tls.h"

static int
setup(void **state)
{
	(void)state;
	heap_stop();
	heap_start(&(struct heap_setup){ .randomize = true, .seed = 3 });
	heap_cache();
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	heap_stop();
	return 0;
}

static void
run(void *(*fn)(void *), void *arg)
{
	pthread_t t;

	assert_int_equal(pthread_create(&t, NULL, fn, arg), 0);
	assert_int_equal(pthread_join(t, NULL), 0);
}

static size_t
caches(void)
{
	size_t n = 0;

	for (struct mcache *c = mcache_first(); c != NULL; c = c->next)
		n++;
	return n;
}

static size_t
caches_in_use(void)
{
	size_t n = 0;

	for (struct mcache *c = mcache_first(); c != NULL; c = c->next)
		n += c->in_use;
	return n;
}

/* ---- start ---- */

static void
test_init_is_done_once(void **state)
{
	struct mcache *c = mcache_self();
	void *p = mallocgc(10, API_MALLOC);

	(void)state;
	mallocinit();
	mallocinit();
	assert_ptr_equal(mcache_self(), c);
	assert_int_equal(usable_size(p, API_USABLE_SIZE), 16);
	assert_int_equal(c->tid, sys_gettid());
	assert_true(c->dies_with_thread);
	assert_true(tls_offset() != 0);
}

/* ---- threads ---- */

static void *
one_object(void *arg)
{
	*(void **)arg = mallocgc(100, API_MALLOC);
	return mcache_self();
}

static void
test_exit_releases_the_cache(void **state)
{
	void *p[50];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(p); i++)
		run(one_object, &p[i]);
	assert_int_equal(caches(), 2);
	assert_int_equal(caches_in_use(), 1);
	for (size_t i = 0; i < ARRAY_LEN(p); i++)
		assert_ptr_equal(aptr_load_relaxed(&heap_span(p[i])->owner), &mcache_none);
	heap_assert_sound();
	for (size_t i = 0; i < ARRAY_LEN(p); i++)
		freegc(p[i], API_FREE);
	assert_true(heap_free_dies(p[7], DIE_DOUBLE_FREE));
	malloc_trim_all();
	assert_int_equal(a64_load_relaxed(&mheap_.spans_in_use), 0);
	heap_assert_sound();
}

/* A thread that only frees has no need of a cache. */
static void *
one_free(void *arg)
{
	freegc(arg, API_FREE);
	return mcache_self();
}

static void
test_thread_that_only_frees(void **state)
{
	void *p = mallocgc(100, API_MALLOC);

	(void)state;
	run(one_free, p);
	assert_int_equal(caches(), 1);
	assert_true(heap_free_dies(p, DIE_DOUBLE_FREE));
	heap_assert_sound();
}

/* Other keys' destructors: they allocate and free in every round there is. */
static pthread_key_t late_key;
static atomic_u32 late_rounds;

static void
late_destructor(void *arg)
{
	void *p = mallocgc(48, API_MALLOC);

	freegc(arg, API_FREE);
	a32_fetch_add(&late_rounds, 1);
	pthread_setspecific(late_key, p);       /* again, until libc gives up */
}

static void *
with_late_destructor(void *arg)
{
	(void)arg;
	pthread_setspecific(late_key, mallocgc(48, API_MALLOC));
	return NULL;
}

static void
test_frees_in_other_destructors(void **state)
{
	(void)state;
	a32_store_relaxed(&late_rounds, 0);
	assert_int_equal(pthread_key_create(&late_key, late_destructor), 0);
	for (int i = 0; i < 20; i++)
		run(with_late_destructor, NULL);
	pthread_key_delete(late_key);
	assert_true(a32_load_relaxed(&late_rounds) >= 20 * 4);
	/* nobody is left with a cache: ours, and at most the shared one */
	assert_true(caches_in_use() <= 2);
	assert_true(caches() <= 3);
	heap_assert_sound();
}

/* After the last round: the shared cache serves, frees are remote. */
static void *
after_the_end(void *arg)
{
	void **p = arg, *q[200];

	q[0] = mallocgc(100, API_MALLOC);
	struct mcache *mine = mcache_self();
	thread_state.gone = true;
	heap_use(NULL);
	mcache_release(mine);
	for (size_t i = 1; i < ARRAY_LEN(q); i++) {
		q[i] = mallocgc(i * 40, API_MALLOC);
		assert_non_null(q[i]);
		memset(q[i], 1, i * 40);
		assert_null(mcache_self());
	}
	p[0] = mallocgc(100000, API_MALLOC);
	p[1] = mallocgc_noscan(5, API_NOSCAN);
	p[2] = mallocgc_aligned(4096, 5, API_MEMALIGN);
	p[3] = reallocgc(mallocgc_zeroed(77, API_CALLOC), 5000, API_REALLOC);
	for (size_t i = 0; i < ARRAY_LEN(q); i++)
		freegc(q[i], API_FREE);
	return NULL;
}

static void
test_calls_after_the_threads_end(void **state)
{
	void *p[4];

	(void)state;
	run(after_the_end, p);
	struct mcache *shared = proc_shared_lock();
	proc_shared_unlock(shared);
	assert_ptr_equal(aptr_load_relaxed(&heap_span(p[1])->owner), shared);
	heap_assert_sound();
	for (size_t i = 0; i < ARRAY_LEN(p); i++) {
		freegc(p[i], API_FREE);
		assert_true(heap_free_dies(p[i], DIE_DOUBLE_FREE));
	}
	heap_assert_sound();
}

static void *
gone_traffic(void *arg)
{
	void *p[64] = { NULL };
	uint64_t r = (uintptr_t)arg + 1;

	thread_state.gone = true;
	for (int i = 0; i < 4000; i++) {
		void **slot = &p[heap_rand(&r) % 64];
		freegc(*slot, API_FREE);
		*slot = mallocgc(heap_rand(&r) % 2000, API_MALLOC);
		assert_non_null(*slot);
	}
	for (size_t i = 0; i < ARRAY_LEN(p); i++)
		freegc(p[i], API_FREE);
	return NULL;
}

static void
test_many_threads_share_the_shared_cache(void **state)
{
	pthread_t t[4];

	(void)state;
	for (uintptr_t i = 0; i < ARRAY_LEN(t); i++)
		assert_int_equal(pthread_create(&t[i], NULL, gone_traffic, (void *)i), 0);
	for (size_t i = 0; i < ARRAY_LEN(t); i++)
		pthread_join(t[i], NULL);
	assert_int_equal(caches(), 2);
	heap_assert_sound();
}

static void
test_shared_lock_and_trylock(void **state)
{
	struct mcache *c = proc_shared_lock();

	(void)state;
	assert_non_null(c);
	assert_null(proc_shared_trylock());
	proc_shared_unlock(mcache_self());      /* another's: nothing happens */
	assert_null(proc_shared_trylock());
	proc_shared_unlock(c);
	assert_ptr_equal(proc_shared_trylock(), c);
	proc_shared_unlock(c);
}

/* ---- the world ---- */

static void
test_world_lock(void **state)
{
	(void)state;
	proc_world_lock();
	assert_false(proc_world_trylock());
	proc_world_unlock();
	assert_true(proc_world_trylock());
	proc_world_unlock();
}

/* ---- fork ---- */

static atomic_u32 stop;
static void *inherited[100];

static void *
busy_thread(void *arg)
{
	void *p[200] = { NULL };
	uint64_t r = (uintptr_t)arg + 7;

	while (a32_load_acquire(&stop) == 0) {
		void **slot = &p[heap_rand(&r) % ARRAY_LEN(p)];
		size_t n = heap_rand(&r) % (heap_rand(&r) % 50 ? 1000 : 200000);
		freegc(*slot, API_FREE);
		*slot = heap_rand(&r) % 4 ? mallocgc(n, API_MALLOC) :
		    mallocgc_noscan(n % 50, API_NOSCAN);
		if (heap_rand(&r) % 1000 == 0)
			malloc_trim_all();
	}
	for (size_t i = 0; i < ARRAY_LEN(p); i++)
		freegc(p[i], API_FREE);
	return NULL;
}

/* 0, or a number that says what was wrong. */
static int
in_the_child(void)
{
	struct verify_failure f[VERIFY_MAX_FAILURES];
	void *p[300];

	if (caches_in_use() > 2)
		return 1;
	for (size_t i = 0; i < ARRAY_LEN(inherited); i++)
		freegc(inherited[i], API_FREE);
	for (size_t i = 0; i < ARRAY_LEN(p); i++) {
		p[i] = mallocgc(i * 30, API_MALLOC);
		if (p[i] == NULL)
			return 2;
		memset(p[i], 3, i * 30);
	}
	size_t n = verify_heap(&mheap_, mcache_self(), true, f);
	if (n != 0) {
		print_error("child: verify: %s\n", f[0].tag);
		return 3;
	}
	for (size_t i = 0; i < ARRAY_LEN(p); i++)
		freegc(p[i], API_FREE);
	malloc_trim_all();
	return verify_heap(&mheap_, mcache_self(), true, f) != 0 ? 4 : 0;
}

static void
test_fork_with_threads_at_work(void **state)
{
	pthread_t t[3];

	(void)state;
	a32_store_release(&stop, 0);
	for (size_t i = 0; i < ARRAY_LEN(inherited); i++)
		inherited[i] = mallocgc(i * 11, API_MALLOC);
	for (uintptr_t i = 0; i < ARRAY_LEN(t); i++)
		assert_int_equal(pthread_create(&t[i], NULL, busy_thread, (void *)i), 0);
	for (int i = 0; i < 30; i++) {
		int status = -1;
		pid_t pid = fork();
		assert_true(pid >= 0);
		if (pid == 0)
			_exit(in_the_child());
		assert_int_equal(waitpid(pid, &status, 0), pid);
		if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
			fail_msg("fork %d: child's status %#x", i, (unsigned)status);
	}
	a32_store_release(&stop, 1);
	for (size_t i = 0; i < ARRAY_LEN(t); i++)
		pthread_join(t[i], NULL);
	heap_assert_sound();
}

enum { DRAWS = 32 };

/* Forks; true if both processes then got the same addresses from draw(). */
static bool
same_in_the_child(void (*draw)(uintptr_t out[DRAWS]))
{
	int fd[2], status;
	uintptr_t mine[DRAWS], theirs[DRAWS];

	assert_int_equal(pipe(fd), 0);
	pid_t pid = fork();
	draw(mine);
	if (pid == 0)
		_exit(write(fd[1], mine, sizeof(mine)) == (ssize_t)sizeof(mine) ? 0 : 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(read(fd[0], theirs, sizeof(theirs)), sizeof(theirs));
	close(fd[0]);
	close(fd[1]);
	return memcmp(mine, theirs, sizeof(mine)) == 0;
}

static void
draw_here(uintptr_t out[DRAWS])
{
	for (size_t i = 0; i < DRAWS; i++)
		out[i] = (uintptr_t)mallocgc(1000, API_MALLOC);
	for (size_t i = 0; i < DRAWS; i++)
		freegc((void *)out[i], API_FREE);
}

static void *
drawing_thread(void *out)
{
	draw_here(out);
	return NULL;
}

/* In the cache of the last thread that did so. */
static void
draw_in_a_thread(uintptr_t out[DRAWS])
{
	pthread_t t;

	assert_int_equal(pthread_create(&t, NULL, drawing_thread, out), 0);
	pthread_join(t, NULL);
}

/* The child draws other random numbers than its parent, unless a seed is set; so do
 * the threads it starts, in the caches of threads that died before the fork. */
static void
test_fork_reseeds(void **state)
{
	uintptr_t out[DRAWS];

	(void)state;
	for (uint64_t seed = 0; seed < 2; seed++) {
		heap_stop();
		heap_start(&(struct heap_setup){ .randomize = true });
		mheap_.config.seed = seed;
		heap_cache();
		draw_in_a_thread(out);
		assert_int_equal(same_in_the_child(draw_here), seed != 0);
		assert_int_equal(same_in_the_child(draw_in_a_thread), seed != 0);
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_init_is_done_once),
		TEST(test_exit_releases_the_cache),
		TEST(test_thread_that_only_frees),
		TEST(test_frees_in_other_destructors),
		TEST(test_calls_after_the_threads_end),
		TEST(test_many_threads_share_the_shared_cache),
		TEST(test_shared_lock_and_trylock),
		TEST(test_world_lock),
		TEST(test_fork_with_threads_at_work),
		TEST(test_fork_reseeds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
