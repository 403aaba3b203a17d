/* test_callstack.c - the cached walk finds what the tables say, on every stack. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "callstack.h"
#include "unwind.h"

enum { MAX = 64, STACK_BYTES = 256 << 10 };

#define KEEP_FRAME() __asm__ volatile("" : : : "memory")

static uintptr_t fast[MAX], slow[MAX];
static size_t n_fast, n_slow;
static struct callstack_thread *thread;

/* Both walks, from here: the first frame of both is the caller, at its call. */
static NOINLINE void
look(void)
{
	errno = EXDEV;
	n_fast = callstack(thread, callstack_frame(), fast, MAX);
	assert_int_equal(errno, EXDEV);
	n_slow = unwind_here_quietly(slow, MAX);
	KEEP_FRAME();
}

static void
assert_same(size_t at_least)
{
	/* the slow one begins with this function itself */
	assert_true(n_fast >= at_least);
	size_t n = n_fast < MAX - 1 ? n_fast : MAX - 1;
	if (n_fast < MAX)
		assert_int_equal(n_slow, n_fast + 1);
	assert_memory_equal(fast, slow + 1, n * sizeof(*fast));
}

static NOINLINE void
recurse(unsigned depth, volatile char *p)
{
	char local[48];
	local[depth % sizeof(local)] = *p;
	if (depth == 0)
		look();
	else
		recurse(depth - 1, local);
	KEEP_FRAME();
	*p = local[0];
}

/* The frame's size is known at run time only: its table goes by the frame pointer. */
static NOINLINE void
with_vla(size_t n, unsigned depth)
{
	volatile char vla[n];
	vla[n - 1] = 1;
	recurse(depth, &vla[n - 1]);
	KEEP_FRAME();
}

/* Realigned: difficult. */
static NOINLINE void
realigned(size_t n)
{
	volatile char ALIGNED(64) aligned[64];
	volatile char vla[n];
	aligned[0] = vla[0] = 1;
	recurse(2, &aligned[0]);
	KEEP_FRAME();
}

static int
compare(const void *a, const void *b)
{
	look();
	KEEP_FRAME();
	return *(const char *)a - *(const char *)b;
}

static void
on_this_stack(void)
{
	volatile char c = 1;
	char pair[] = "ba";
	for (unsigned depth = 0; depth < 40; depth++) {
		recurse(depth, &c);
		assert_same(depth + 1);
	}
	for (size_t n = 1; n < 3000; n += 100) {
		with_vla(n, 3);
		assert_same(5);
	}
	realigned(100);
	assert_same(5);
	qsort(pair, 2, 1, compare);         /* through libc, without frame pointers */
	assert_same(4);
	recurse(200, &c);
	assert_int_equal(n_fast, MAX);
	assert_same(MAX);
}

static void
test_main_thread(void **state)
{
	struct callstack_thread t = { 0 };
	(void)state;
	callstack_init();
	thread = &t;
	on_this_stack();
	assert_int_not_equal(t.hi, 0);
	on_this_stack();                    /* every rule from the cache */
}

static void *
thread_main(void *arg)
{
	on_this_stack();
	return arg;
}

static void
test_thread(void **state)
{
	struct callstack_thread t = { 0 };
	pthread_t id;
	(void)state;
	thread = &t;
	assert_int_equal(pthread_create(&id, NULL, thread_main, NULL), 0);
	pthread_join(id, NULL);
	assert_int_not_equal(t.hi, 0);
}

static ucontext_t here, there;

static void
on_fiber(void)
{
	on_this_stack();
}

/* A stack that is not the thread's own, between pages that cannot be touched. */
static void
test_fiber(void **state)
{
	struct callstack_thread t = { 0 };
	volatile char c = 1;
	(void)state;
	char *p = mmap(NULL, STACK_BYTES + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	assert_int_equal(mprotect(p + 4096, STACK_BYTES, PROT_READ | PROT_WRITE), 0);
	thread = &t;
	recurse(1, &c);                     /* the own stack is known */
	assert_int_equal(getcontext(&there), 0);
	there.uc_stack.ss_sp = p + 4096;
	there.uc_stack.ss_size = STACK_BYTES;
	there.uc_link = &here;
	makecontext(&there, on_fiber, 0);
	assert_int_equal(swapcontext(&here, &there), 0);
	munmap(p, STACK_BYTES + 8192);
	recurse(1, &c);
	assert_same(3);
}

static void
handler(int sig)
{
	volatile char c = (char)sig;
	recurse(3, &c);
	KEEP_FRAME();
}

static void
test_signal(void **state)
{
	struct callstack_thread t = { 0 };
	struct sigaction sa = { .sa_handler = handler };
	(void)state;
	thread = &t;
	assert_int_equal(sigaction(SIGUSR1, &sa, NULL), 0);
	raise(SIGUSR1);
	assert_same(6);
}

/* Frames that lead nowhere: it stops, and reads nothing that is not there. */
static void
test_garbage(void **state)
{
	struct callstack_thread t = { 0 };
	uintptr_t frame[512], pcs[MAX];
	uint64_t x = 88172645463325252u;
	(void)state;
	thread = &t;
	look();
	for (int round = 0; round < 20000; round++) {
		for (size_t i = 0; i < ARRAY_LEN(frame); i++) {
			x ^= x << 13, x ^= x >> 7, x ^= x << 17;
			uintptr_t any[] = { x, x >> 17, (uintptr_t)&frame[x % 512],
				(uintptr_t)&look + x % 4096, fast[x % n_fast] + 1, 0 };
			frame[i] = any[x >> 32 & 7 ? (x >> 32 & 7) % 6 : 0];
		}
		size_t n = callstack(&t, frame, pcs, MAX);
		assert_true(n >= 1 && n <= MAX);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_main_thread),
		cmocka_unit_test(test_thread),
		cmocka_unit_test(test_fiber),
		cmocka_unit_test(test_signal),
		cmocka_unit_test(test_garbage),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
