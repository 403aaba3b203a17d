/* report_from.c - a double free made in an odd place; the report must come out
 * whole and the program must end by SIGABRT whatever the stack looks like.
 *
 * argv[1]: main, fiber, edge (a fiber whose stack ends where the mapping ends),
 * altstack, tinythread (the smallest stack the system gives a thread),
 * garbage (the frame pointer and the caller's frame are rubbish), deep, two
 * (two threads at once), child (after fork), handler (in a signal handler),
 * closed (stdin, stdout and stderr closed), chroot (argv[2]: empty directory),
 * datafile (fd 2 has become a data file, argv[2]). */
#include "check.h"
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <ucontext.h>

static void *prey;

__attribute__((noinline)) static void
offend(void)
{
	void *again = opaque(prey);
	free(prey);
	free(again);
	check_at(false, "the second free ends the program", __FILE__, __LINE__);
}

static ucontext_t home, fiber;

/* One page of PROT_NONE on both sides of the stack. */
static void
in_fiber(size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char *map = mmap(NULL, bytes + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(map != MAP_FAILED);
	check(mprotect(map + page, bytes, PROT_READ | PROT_WRITE) == 0);
	check(getcontext(&fiber) == 0);
	fiber.uc_stack.ss_sp = map + page;
	fiber.uc_stack.ss_size = bytes;
	fiber.uc_link = &home;
	makecontext(&fiber, offend, 0);
	swapcontext(&home, &fiber);
}

static void
on_signal(int sig)
{
	(void)sig;
	offend();
}

static void
in_handler(int flags)
{
	static char stack[64 << 10];
	stack_t alt = { .ss_sp = stack, .ss_size = sizeof stack };
	check(sigaltstack(&alt, NULL) == 0);
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = flags };
	check(sigaction(SIGUSR1, &sa, NULL) == 0);
	raise(SIGUSR1);
}

static void *
thread_main(void *barrier)
{
	if (barrier == NULL) {
		offend();
		return NULL;
	}
	void *mine = malloc(100), *again = opaque(mine);
	free(mine);
	pthread_barrier_wait(barrier);
	free(again);
	return NULL;
}

static void
in_tiny_thread(void)
{
	pthread_t thread;
	pthread_attr_t attr;
	check(pthread_attr_init(&attr) == 0);
	check(pthread_attr_setstacksize(&attr, (size_t)PTHREAD_STACK_MIN) == 0);
	check(pthread_create(&thread, &attr, thread_main, NULL) == 0);
	pthread_join(thread, NULL);
}

static void
in_two_threads(void)
{
	pthread_t thread[2];
	pthread_barrier_t barrier;
	check(pthread_barrier_init(&barrier, NULL, 2) == 0);
	for (int i = 0; i < 2; i++)
		check(pthread_create(&thread[i], NULL, thread_main, &barrier) == 0);
	for (int i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
}

/* offend() is entered with a frame chain that leads nowhere. */
#if defined(__x86_64__)
#define CALL_WITH_GARBAGE_FRAME "mov $0x7fff12345671, %%rbp\n\tcall *%0"
#else
#define CALL_WITH_GARBAGE_FRAME "mov x29, #0x671\n\tblr %0"
#endif

__attribute__((noinline)) static void
with_garbage_frame(void)
{
	__asm__ volatile(CALL_WITH_GARBAGE_FRAME : : "r"(offend) : "memory");
	_exit(93);
}

__attribute__((noinline)) static int
go_deep(int levels)
{
	if (levels == 0) {
		offend();
		return 0;
	}
	volatile int more = go_deep(levels - 1);
	return more + 1;
}

static void
in_child(void)
{
	pid_t child = fork();
	check(child >= 0);
	if (child == 0)
		offend();
	int status;
	check(waitpid(child, &status, 0) == child);
	check(WIFSIGNALED(status));
	struct sigaction sa = { .sa_handler = SIG_DFL };
	sigaction(WTERMSIG(status), &sa, NULL);
	raise(WTERMSIG(status));
}

static void
with_fd(const char *how, const char *path)
{
	if (strcmp(how, "chroot") == 0) {
		check(chroot(path) == 0 && chdir("/") == 0);
	} else if (strcmp(how, "datafile") == 0) {
		close(2);
		check(open(path, O_RDWR | O_CREAT | O_TRUNC, 0600) == 2);
		check(write(2, "precious\n", 9) == 9);
	} else {
		for (int fd = 0; fd < 3; fd++)
			close(fd);
	}
	offend();
}

int
main(int argc, char **argv)
{
	check(argc >= 2);
	const char *how = argv[1];
	struct rlimit none = { 0, 0 };
	setrlimit(RLIMIT_CORE, &none);
	churn(6, 500);
	prey = malloc(100);
	printf("ADDR %p\n", prey);
	fflush(stdout);
	if (strcmp(how, "main") == 0)
		offend();
	else if (strcmp(how, "fiber") == 0)
		in_fiber(256 << 10);
	else if (strcmp(how, "edge") == 0)
		in_fiber(32 << 10);
	else if (strcmp(how, "altstack") == 0)
		in_handler(SA_ONSTACK);
	else if (strcmp(how, "handler") == 0)
		in_handler(0);
	else if (strcmp(how, "tinythread") == 0)
		in_tiny_thread();
	else if (strcmp(how, "two") == 0)
		in_two_threads();
	else if (strcmp(how, "garbage") == 0)
		with_garbage_frame();
	else if (strcmp(how, "deep") == 0)
		go_deep(10000);
	else if (strcmp(how, "child") == 0)
		in_child();
	else
		with_fd(how, argc > 2 ? argv[2] : NULL);
	return 92;
}
