/* api.c - leak checks that are asked for, and the lives a checked program can have.
 *
 *   api WHAT [seccomp]     exit 0 unless WHAT says otherwise */
#include "cases.h"

#include <errno.h>

#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "../../include/spanguard.h"
#include "../no_tracing.h"

void lose_one(void);
void lose_another(void);
void lose_pair(void);
void lose_string(void);

/* Not static: suppressions name them. */
APART void lose_one(void) { get(40); }
APART void lose_another(void) { get(56); }
APART void lose_string(void) { keep(strdup("lost")); }
APART void lose_pair(void) { node(24, get(100)); }

static void
say(const char *what, int n)
{
	printf("%s %d\n", what, n);
}

static APART int
check_now(void)
{
	scrub();
	return spanguard_leak_check();
}

static APART int
check_delta(void)
{
	scrub();
	return spanguard_leak_check_delta();
}

static void
demand(void)
{
	say("none", check_now());
	lose_one();
	say("one", check_now());
	lose_pair();
	say("three", check_now());
}

static void
delta(void)
{
	lose_one();
	say("new", check_delta());
	say("new", check_delta());
	lose_another();
	lose_pair();
	say("new", check_delta());
	say("all", check_now());
	say("new", check_delta());
}

static APART void
ignore_one(int which)
{
	char *p = get(48);
	char *q = node(64, get(80));
	char *large = get(200000);
	say("ignore", spanguard_leak_ignore(which == 0 ? p + 47 : which == 1 ? q : large + 5));
}

static void
ignore(void)
{
	int local = 0;
	for (int i = 0; i < 3; i++) {
		ignore_one(i);
		say("left", check_delta());
	}
	say("foreign", spanguard_leak_ignore(&local));
	say("null", spanguard_leak_ignore(NULL));
}

/* A freed object that was ignored: what comes after it is not. */
static APART void
ignore_and_free(void)
{
	void *p = get(300000);
	spanguard_leak_ignore(p);
	free(p);
	for (int i = 0; i < 3; i++)
		get(300000);
}

static void
ignored_and_freed(void)
{
	ignore_and_free();
	say("left", check_now());
}

static void
by_signal(void)
{
	lose_one();
	scrub();
	raise(SIGUSR2);
	/* where the signal came at a bad moment, the next slow call does it */
	for (int i = 0; i < 1000; i++)
		free(get(100000));
}

static void
losing_child(void)
{
	pid_t pid = fork();
	if (pid == 0) {
		lose_one();
		scrub();
		exit(0);
	}
	int status;
	waitpid(pid, &status, 0);
	say("child", WEXITSTATUS(status));
}

/* Every other thread looks like the one that blocks the signal. */
static void *
deaf(void *arg)
{
	sigset_t all;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	pthread_setname_np(pthread_self(), "deaf one");
	if (write(*(int *)arg, "r", 1) == 1)
		for (;;)
			pause();
	return NULL;
}

static void
with_deaf(void)
{
	pthread_t t;
	int fd[2];
	char c;
	if (pipe(fd) != 0 || pthread_create(&t, NULL, deaf, &fd[1]) != 0 || read(fd[0], &c, 1) != 1)
		_exit(2);
	lose_one();
}

/* LeakSanitizer does not look into mappings; here they count. */
static void
by_mapping(void)
{
	void **m = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	m[1000] = get(40);
}

static void
hold(void)
{
	lose_one();
	printf("out of the buffer");     /* not flushed */
}

static void status_3(void) { lose_one(); scrub(); exit(3); }
static void status_0_by_exit(void) { lose_one(); scrub(); exit(0); }
static void ends_by__exit(void) { lose_one(); scrub(); _exit(0); }
static void clean(void) { free(get(40)); }
static void at_exit(void) { lose_another(); }
static void in_atexit(void) { atexit(at_exit); }

static void
many_places(void)
{
	for (volatile int i = 0; i < 2; i++)
		lose_one();
	lose_another();
	lose_pair();
}

static void by_strdup(void) { lose_string(); }

/* Freed ones are pointed to as well, and may be held back. */
static void
kept_and_freed(void)
{
	static void *volatile table[100];
	for (int i = 0; i < 100; i++)
		table[i] = get(41);
	for (int i = 10; i < 100; i++)
		free(table[i]);
	lose_one();
	scrub();
}

#define MODE(f) { #f, f, 0, 0 }

int
main(int argc, char **argv)
{
	static const struct leak_case modes[] = {
		MODE(demand), MODE(delta), MODE(ignore), MODE(ignored_and_freed), MODE(by_signal),
		MODE(losing_child), MODE(with_deaf), MODE(by_mapping), MODE(hold), MODE(status_3),
		MODE(status_0_by_exit), MODE(ends_by__exit), MODE(clean), MODE(in_atexit),
		MODE(many_places), MODE(by_strdup), MODE(kept_and_freed),
	};
	if (argc < 2)
		return 2;
	if (argc > 2 && strcmp(argv[2], "seccomp") == 0)
		if (!forbid_tracing())
			_exit(2);
	return run_case(modes, sizeof(modes) / sizeof(modes[0]), argv[1]);
}
