/* chain.c - faults that are nobody's guard.
 *
 *   chain wild       a store to an unmapped page; with early.so, and it jumps back
 *   chain twice      the same a second time
 *   chain kill       SIGSEGV sent by kill
 *   chain overflow   the stack runs out, on an alternate stack's thread
 *   chain thread     a guard touched by a thread with 64 KiB of stack
 *   chain alt        the same on an alternate stack, where the program made one
 *   chain own        the program installs a handler after us: it gets guard
 *                    touches, too
 *
 * early_back and the others are early.c's, where it is loaded. */
#include "fault.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>

extern sigjmp_buf *early_back __attribute__((weak));
extern void *early_stack_base __attribute__((weak));
extern size_t early_stack_bytes __attribute__((weak));

static char alt_stack[64 << 10];

static void
use_alt_stack(void)
{
	stack_t st = { .ss_sp = alt_stack, .ss_size = sizeof alt_stack };
	check(sigaltstack(&st, NULL) == 0);
	if (&early_stack_base != NULL) {
		early_stack_base = alt_stack;
		early_stack_bytes = sizeof alt_stack;
	}
}

__attribute__((noinline)) static void
offend(volatile char *p)
{
	*p = 1;
	barrier();
}

/* Its handler would otherwise be called for ever. */
static void
jump_out_of_handler(sigjmp_buf *back)
{
	if (&early_back != NULL)
		early_back = back;
}

static void
wild(void)
{
	static sigjmp_buf back;
	sigset_t mask;
	errno = EXDEV;
	jump_out_of_handler(&back);
	if (sigsetjmp(back, 1) == 0)
		offend((volatile char *)0x5000);
	sigprocmask(SIG_BLOCK, NULL, &mask);
	check(!sigismember(&mask, SIGSEGV) && !sigismember(&mask, SIGUSR1));
	say("back\n");
}

__attribute__((noinline)) static int
deeper(int n)
{
	volatile char fill[4096];
	fill[n % 4096] = (char)n;
	int r = n < 0 ? 0 : deeper(n + 1);
	return r + fill[(n + 1) % 4096];
}

static void
overflow(void)
{
	static sigjmp_buf back;
	jump_out_of_handler(&back);
	if (sigsetjmp(back, 1) == 0)
		say("%d\n", deeper(0));
	say("back\n");
}

static void *
touch_guard(void *arg)
{
	(void)arg;
	offend(opaque(malloc(0)));
	return NULL;
}

static void
small_thread(void)
{
	pthread_t t;
	pthread_attr_t attr;
	pthread_attr_init(&attr);
	check(pthread_attr_setstacksize(&attr, 64 << 10) == 0);
	check(pthread_create(&t, &attr, touch_guard, NULL) == 0);
	pthread_join(t, NULL);
}

static void
own(int sig, siginfo_t *info, void *context)
{
	(void)sig, (void)info, (void)context;
	say("own\n");
	_exit(7);
}

int
main(int argc, char **argv)
{
	struct sigaction mine = { .sa_sigaction = own, .sa_flags = SA_SIGINFO };
	check(argc == 2);
	if (strcmp(argv[1], "wild") == 0 || strcmp(argv[1], "twice") == 0) {
		use_alt_stack();
		wild();
		if (strcmp(argv[1], "twice") == 0)
			wild();
	} else if (strcmp(argv[1], "kill") == 0) {
		use_alt_stack();
		kill(getpid(), SIGSEGV);
		say("went on\n");
	} else if (strcmp(argv[1], "overflow") == 0) {
		use_alt_stack();
		overflow();
	} else if (strcmp(argv[1], "thread") == 0) {
		small_thread();
	} else if (strcmp(argv[1], "alt") == 0) {
		use_alt_stack();
		touch_guard(NULL);
	} else if (strcmp(argv[1], "own") == 0) {
		check(sigaction(SIGSEGV, &mine, NULL) == 0);
		touch_guard(NULL);
	} else {
		fail("unknown kind");
	}
	return 0;
}
