/* stale.c - keeps a pointer to a freed object in the place that is named, goes on
 * with large objects, and says whether the freed object's memory came back.
 *
 *   stale PLACE [seccomp] [threads] [deaf] [fork]
 *
 * PLACE none: the pointer is dropped. Exit 0; "kept" or "reused". */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../no_tracing.h"

int spanguard_root_add(const void *p, size_t bytes) __attribute__((weak));

enum { BYTES = 300000, ROUNDS = 600, KEPT = 60, WORKERS = 4 };

void *volatile stale_in_bss[4];
void *volatile stale_in_data[4] = { (void *)&stale_in_bss };
_Thread_local void *volatile stale_in_tls;
static uintptr_t hidden;
static volatile int stop, is_deaf, reused;

static _Noreturn void
fail(const char *what)
{
	fprintf(stderr, "stale: %s: %s\n", what, strerror(errno));
	exit(1);
}

static __attribute__((noinline)) void
scrub(void)
{
	volatile char frame[16384];
	for (size_t i = 0; i < sizeof(frame); i++)
		frame[i] = 0;
}

static __attribute__((noinline)) void *
reveal(void)
{
	return (void *)~hidden;
}

static __attribute__((noinline)) void
make_stale(void)
{
	char *p = malloc(BYTES);
	memset(p, 1, BYTES);
	hidden = ~(uintptr_t)p;
	free(p);
}

/* Notes whether [p, p + bytes) has a byte of the freed object, with everything
 * inverted, so that the address stands nowhere meanwhile. */
static void
look(const void *p, uintptr_t bytes)
{
	uintptr_t inverted = ~(uintptr_t)p;
	if (inverted - hidden < bytes || hidden - inverted < BYTES)
		reused = 1;
}

/* Large objects come and go, and some stay, so that every hole is used. Where the
 * freed one is to come back, as long as it takes: the thread that is in the middle
 * of a pass may have to wait for a processor. */
static __attribute__((noinline)) int
churn(bool until_reused)
{
	static char *kept[KEPT];
	int most = until_reused ? 100 * ROUNDS : ROUNDS;
	for (int i = 0; i < ROUNDS || (i < most && !reused); i++) {
		char *p = malloc(BYTES);
		p[0] = p[BYTES - 1] = 1;
		look(p, BYTES);
		free(kept[i % KEPT]);
		kept[i % KEPT] = p;
		if (i % 16 == 0)
			scrub();
	}
	return reused;
}

static void *
worker(void *arg)
{
	void *kept[64] = { NULL };
	for (unsigned i = 0; !stop; i++) {
		free(kept[i % 64]);
		kept[i % 64] = malloc(i % 7919);
		look(kept[i % 64], 1);
	}
	for (int i = 0; i < 64; i++)
		free(kept[i]);
	return arg;
}

/* One that no signal reaches. */
static void *
deaf(void *arg)
{
	sigset_t all;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	pthread_setname_np(pthread_self(), "deaf one");
	is_deaf = 1;
	while (!stop)
		usleep(1000);
	return arg;
}

static __attribute__((noinline)) void
plant(const char *place)
{
	if (strcmp(place, "bss") == 0)
		stale_in_bss[2] = reveal();
	else if (strcmp(place, "data") == 0)
		stale_in_data[1] = reveal();
	else if (strcmp(place, "tls") == 0)
		stale_in_tls = reveal();
	else if (strcmp(place, "heap") == 0)
		*(void **)(stale_in_bss[0] = calloc(1, 64)) = (char *)reveal() + 1000;
	else if (strcmp(place, "unreached") == 0)
		*(void *volatile *)calloc(1, 64) = reveal();
	else if (strcmp(place, "user") == 0) {
		void **m = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		spanguard_root_add(m, 4096);
		m[7] = reveal();
	}
}

static int
in_child(bool until_reused)
{
	int status;
	pid_t pid = fork();
	if (pid < 0)
		fail("fork");
	if (pid == 0)
		_exit(churn(until_reused));
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		fail("the child");
	return WEXITSTATUS(status);
}

static int
has(char **argv, const char *word)
{
	for (int i = 2; argv[i] != NULL; i++)
		if (strcmp(argv[i], word) == 0)
			return 1;
	return 0;
}

int
main(int argc, char **argv)
{
	pthread_t t[WORKERS + 1];
	void *volatile on_stack = NULL;
	int threads = 0;
	if (argc < 2)
		return 2;
	if (has(argv, "seccomp"))
		if (!forbid_tracing())
			fail("seccomp");
	for (; has(argv, "threads") && threads < WORKERS; threads++)
		if (pthread_create(&t[threads], NULL, worker, NULL) != 0)
			fail("pthread_create");
	if (has(argv, "deaf") && pthread_create(&t[threads++], NULL, deaf, NULL) != 0)
		fail("pthread_create");
	while (has(argv, "deaf") && !is_deaf)
		usleep(1000);
	/* no object of interest where the heap begins: who computed with that address
	 * may have left it on the stack */
	if (malloc(1 << 24) == NULL)
		fail("malloc");
	make_stale();
	plant(argv[1]);
	if (strcmp(argv[1], "stack") == 0)
		on_stack = reveal();
	scrub();
	bool until_reused = strcmp(argv[1], "none") == 0 && !has(argv, "deaf");
	int again = has(argv, "fork") ? in_child(until_reused) : churn(until_reused);
	stop = 1;
	for (int i = 0; i < threads; i++)
		pthread_join(t[i], NULL);
	/* another thread may have been in the middle of a pass all the while */
	if (threads != 0 && !has(argv, "fork") && !has(argv, "deaf"))
		again |= churn(until_reused);
	puts(again || reused ? "reused" : "kept");
	return on_stack != NULL && on_stack != reveal();
}
