/* test_unwind.c - stacks of known shape: every frame found, in order, on a small
 * stack, over a signal, and garbage survived. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "peek.h"
#include "unwind.h"

enum { MAX = 256 };

static uintptr_t pcs[MAX];
static size_t count;

#define KEEP_FRAME() __asm__ volatile("" : : : "memory")

/* Each function leaves where its call returns to, so the test knows the truth. */
static uintptr_t truth[MAX];
static size_t depth_of_truth;

static NOINLINE void
leaf(void)
{
	truth[depth_of_truth++] = (uintptr_t)__builtin_return_address(0);
	errno = EXDEV;
	count = unwind_here(pcs, MAX);
	KEEP_FRAME();
}

static NOINLINE void
recurse(unsigned depth, volatile char *p)
{
	char local[48];
	local[depth % sizeof(local)] = *p;
	truth[depth_of_truth++] = (uintptr_t)__builtin_return_address(0);
	if (depth == 0)
		leaf();
	else
		recurse(depth - 1, local);
	KEEP_FRAME();
	*p = local[0];
}

/* A frame whose size is known at run time only, realigned: found by an
 * expression or by the frame pointer. */
static NOINLINE void
odd_frame(size_t n)
{
	char ALIGNED(64) aligned[64];
	char vla[n];
	memset(vla, 0, n);
	memset(aligned, 0, sizeof(aligned));
	truth[depth_of_truth++] = (uintptr_t)__builtin_return_address(0);
	recurse(3, vla);
	KEEP_FRAME();
	__asm__ volatile("" : : "r"(aligned), "r"(vla) : "memory");
}

/* truth is outermost first and holds return addresses; pcs is the reverse with
 * leaf itself in front. */
static void
expect_truth(void)
{
	assert_int_equal(errno, EXDEV);
	assert_true(count > depth_of_truth);
	assert_true(pcs[0] - (uintptr_t)&leaf < 4096);
	for (size_t i = 0; i < depth_of_truth && i + 1 < count; i++)
		assert_true(pcs[i + 1] == truth[depth_of_truth - 1 - i] - 1);
	depth_of_truth = 0;
}

static void
plain(void **state)
{
	char c = 0;
	(void)state;
	recurse(10, &c);
	expect_truth();
	odd_frame(100);
	expect_truth();
	assert_true(count < 40);
}

static void
deep(void **state)
{
	char c = 0;
	(void)state;
	recurse(100, &c);
	expect_truth();
	recurse(254, &c);
	assert_int_equal(count, MAX);
	assert_true(pcs[MAX - 1] == truth[1] - 1);
	depth_of_truth = 0;
}

static void *
small_stack(void *arg)
{
	char c = 0;
	(void)arg;
	recurse(20, &c);
	return NULL;
}

static void
on_small_stack(void **state)
{
	pthread_t t;
	pthread_attr_t a;
	size_t bytes = 65536;
	(void)state;
	pthread_attr_init(&a);
	assert_int_equal(pthread_attr_setstacksize(&a, bytes), 0);
	assert_int_equal(pthread_create(&t, &a, small_stack, NULL), 0);
	assert_int_equal(pthread_join(t, NULL), 0);
	pthread_attr_destroy(&a);
	expect_truth();
	assert_true(count < 30);
}

static void
on_signal(int sig)
{
	char c = 0;
	(void)sig;
	recurse(1, &c);
}

static NOINLINE void
raises(int sig)
{
	truth[depth_of_truth++] = (uintptr_t)__builtin_return_address(0);
	raise(sig);
	KEEP_FRAME();
}

static int
compare_up(const void *a, const void *b)
{
	raises(SIGUSR1);
	return *(const int *)a - *(const int *)b;
}

/* handler <- kernel's frame <- raise (no frame pointer) <- raises <- qsort of libc. */
static void
over_signal(void **state)
{
	int two[] = { 2, 1 };
	struct sigaction sa;
	stack_t alt;
	char *mem = malloc(65536);
	(void)state;
	memset(&sa, 0, sizeof(sa));
	memset(&alt, 0, sizeof(alt));
	alt.ss_sp = mem;
	alt.ss_size = 65536;
	sa.sa_handler = on_signal;
	for (int on_alt = 0; on_alt < 2; on_alt++) {
		depth_of_truth = 0;
		sa.sa_flags = on_alt ? SA_ONSTACK : 0;
		assert_int_equal(sigaltstack(&alt, NULL), 0);
		assert_int_equal(sigaction(SIGUSR1, &sa, NULL), 0);
		qsort(two, 2, sizeof(two[0]), compare_up);
		uintptr_t in_compare = truth[0] - 1;
		bool seen = false;
		bool seen_here = false;
		for (size_t i = 0; i < count; i++) {
			seen |= pcs[i] == in_compare;
			seen_here |= pcs[i] - (uintptr_t)&over_signal < 2048;
		}
		assert_true(seen);
		assert_true(seen_here);
	}
	alt.ss_flags = SS_DISABLE;
	sigaltstack(&alt, NULL);
	free(mem);
	depth_of_truth = 0;
}

/* ---- garbage ------------------------------------------------------------ */

static sigjmp_buf back;
static uint64_t seed = 88172645463325252u;

static uint64_t
next_random(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

/* Writes over the stack of all callers, unwinds, and leaves by longjmp. */
__attribute__((no_sanitize("address")))
static NOINLINE void
smash(unsigned round, uintptr_t unmapped)
{
	volatile uintptr_t *sp = (volatile uintptr_t *)__builtin_frame_address(0);
	uintptr_t values[] = { 0, 1, unmapped, (uintptr_t)sp, (uintptr_t)0x4141414141414141,
		(uintptr_t)&smash, (uintptr_t)sp + 64, UINTPTR_MAX, unmapped + 4095 };
	for (unsigned i = 0; i < 160; i++) {
		uint64_t r = next_random();
		if (round % 4 == 0 || r % 4 != 0)
			sp[i] = values[(r >> 8) % ARRAY_LEN(values)] ^ (r % 16 == 5 ? r >> 40 : 0);
	}
	count = unwind_here(pcs, MAX);
	siglongjmp(back, 1);
}

static volatile unsigned garbage_round;

static NOINLINE void
pad_stack(uintptr_t unmapped)
{
	char pad[4096];
	__asm__ volatile("" : : "r"(pad) : "memory");
	smash(garbage_round, unmapped);
	__asm__ volatile("" : : "r"(pad) : "memory");
}

/* The smashed part of the stack is the padding, and nothing returns through it. */
static NOINLINE void
unwind_garbage(uintptr_t unmapped)
{
	if (sigsetjmp(back, 0) == 0)
		pad_stack(unmapped);
}

static void
garbage(void **state)
{
	size_t longest = 0;
	char *hole = mmap(NULL, 65536, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	(void)state;
	assert_true(hole != MAP_FAILED);
	for (garbage_round = 0; garbage_round < 300; garbage_round = garbage_round + 1) {
		count = SIZE_MAX;
		unwind_garbage((uintptr_t)hole);
		assert_true(count <= MAX);
		longest = count > longest ? count : longest;
	}
	assert_true(longest >= 1);
	munmap(hole, 65536);
}

static void
trims(void **state)
{
	uintptr_t a[] = { 10, 11, 12, 50, 11, 60 };
	(void)state;
	assert_int_equal(unwind_trim(a, 6, 10, 20), 4);
	assert_true(a[0] == 12 && a[1] == 50 && a[2] == 11 && a[3] == 60);
	assert_int_equal(unwind_trim(a, 4, 10, 20), 4);
	assert_int_equal(unwind_trim(a, 4, 0, 100), 4);
	assert_int_equal(unwind_trim(a, 4, 70, 80), 4);
	assert_int_equal(unwind_trim(a, 0, 10, 20), 0);
	assert_true(a[0] == 12);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain),
		cmocka_unit_test(deep),
		cmocka_unit_test(on_small_stack),
		cmocka_unit_test(over_signal),
		cmocka_unit_test(garbage),
		cmocka_unit_test(trims),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
