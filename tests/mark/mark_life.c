/* mark_life.c - a mark pass in the lives a process can have. One mode per run;
 * exit 0 and "ok" if all passes agreed, 3 if there was none. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../no_tracing.h"

int spanguard_mark_check(void);
int spanguard_verify(void);
int spanguard_root_add(const void *p, size_t bytes);
int spanguard_root_remove(const void *p, size_t bytes);

enum { WORKERS = 8, PASSES = 10 };

static atomic_int ready, stop;

static void
fail(const char *what)
{
	fprintf(stderr, "mark_life: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void *
worker(void *arg)
{
	void *kept[100] = { NULL };
	unsigned r = (unsigned)(uintptr_t)arg;
	atomic_fetch_add(&ready, 1);
	while (!atomic_load(&stop)) {
		r = r * 1664525 + 1013904223;
		unsigned i = (r >> 16) % 100;
		free(kept[i]);
		kept[i] = malloc((r >> 8) % 3000);
	}
	for (int i = 0; i < 100; i++)
		free(kept[i]);
	return NULL;
}

static void
passes(void)
{
	for (int i = 0; i < PASSES; i++) {
		int r = spanguard_mark_check();
		if (r != 0)
			exit(r == -1 ? 3 : 1);
	}
	if (spanguard_verify() != 0)
		fail("verify");
}

static void
with_workers(void (*fn)(void))
{
	pthread_t t[WORKERS];
	for (uintptr_t i = 0; i < WORKERS; i++)
		if (pthread_create(&t[i], NULL, worker, (void *)i) != 0)
			fail("pthread_create");
	while (atomic_load(&ready) < WORKERS)
		usleep(100);
	fn();
	atomic_store(&stop, 1);
	for (int i = 0; i < WORKERS; i++)
		pthread_join(t[i], NULL);
}

static void
in_child(void)
{
	int status;
	pid_t pid = fork();
	if (pid < 0)
		fail("fork");
	if (pid == 0) {
		passes();
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
		fail("the child");
}

static void *
deaf(void *arg)
{
	sigset_t all;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	pthread_setname_np(pthread_self(), "deaf one");
	atomic_fetch_add(&ready, 1);
	while (!atomic_load(&stop))
		usleep(1000);
	return arg;
}

static void
with_deaf_thread(void)
{
	pthread_t t;
	pthread_create(&t, NULL, deaf, NULL);
	while (atomic_load(&ready) == 0)
		usleep(100);
	int r = spanguard_mark_check();
	atomic_store(&stop, 1);
	pthread_join(t, NULL);
	if (r != -1 || spanguard_mark_check() != 0)
		exit(1);
}

static void *
after_main(void *arg)
{
	pthread_join(*(pthread_t *)arg, NULL);
	passes();
	puts("ok");
	exit(0);
}

/* main is a zombie in the list of tasks for the rest of the process's life. */
static void
without_main(void)
{
	static pthread_t self, t;
	self = pthread_self();
	pthread_create(&t, NULL, after_main, &self);
	pthread_exit(NULL);
}

/* Handlers that malloc, all the time, in all threads. */
static void
on_timer(int sig)
{
	int saved = errno;
	(void)sig;
	free(malloc(100));
	errno = saved;
}

static void
under_signals(void)
{
	struct sigaction sa = { .sa_handler = on_timer, .sa_flags = SA_RESTART };
	sigaction(SIGUSR1, &sa, NULL);
	for (int i = 0; i < 5; i++) {
		for (int k = 0; k < 20; k++)
			kill(getpid(), SIGUSR1);
		if (spanguard_mark_check() != 0)
			exit(3);
	}
}

static void
user_roots(void)
{
	static char buf[100];
	if (spanguard_root_add(buf, sizeof(buf)) != 0 ||
	    spanguard_root_remove(buf, sizeof(buf)) != 0)
		fail("root");
	errno = 0;
	if (spanguard_root_remove(buf, sizeof(buf)) != -1 || errno != ENOENT)
		fail("root_remove");
	passes();
}

int
main(int argc, char **argv)
{
	static const struct { const char *name; void (*fn)(void); } mode[] = {
		{ "alone", passes }, { "deaf", with_deaf_thread }, { "child", in_child },
		{ "without-main", without_main }, { "roots", user_roots },
	}, crowd[] = {
		{ "threads", passes }, { "threads-child", in_child }, { "signals", under_signals },
	};
	const char *what = argc > 1 ? argv[1] : "";
	if (argc > 2 && strcmp(argv[2], "seccomp") == 0)
		if (!forbid_tracing())
			fail("seccomp");
	for (size_t i = 0; i < sizeof(mode) / sizeof(mode[0]); i++)
		if (strcmp(what, mode[i].name) == 0) {
			mode[i].fn();
			puts("ok");
			return 0;
		}
	for (size_t i = 0; i < sizeof(crowd) / sizeof(crowd[0]); i++)
		if (strcmp(what, crowd[i].name) == 0) {
			with_workers(crowd[i].fn);
			puts("ok");
			return 0;
		}
	return 2;
}
