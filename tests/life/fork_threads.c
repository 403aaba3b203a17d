/* fork_threads.c - fork while eight threads allocate.
 *
 * argv[1]: how: fork, _Fork, syscall (of the kernel itself), vfork, spawn,
 * clone. argv[2]: number of children.
 * argv[3]: number of threads that allocate meanwhile.
 * A forked child allocates, checks and frees what the parent's threads own,
 * starts a thread, forks again, and leaves by exit. An alarm bounds each child:
 * an inherited lock that nobody will ever release shows as SIGALRM. */
#include "check.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { THREADS_MAX = 8, OBJECTS = 400, CHILD_SECONDS = 30, STACK_BYTES = 256 << 10 };

/* Finished before the first fork, so a child sees every object complete. */
static struct { unsigned char *p; size_t n; } owned[THREADS_MAX][OBJECTS];
static pthread_barrier_t ready;
static volatile bool stop;
static int nthreads;
extern char **environ;
pid_t fork_without_handlers(void) __asm__("_Fork");

static void *
worker(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg, seed = me * 977u + 5;
	for (unsigned i = 0; i < OBJECTS; i++) {
		size_t n = next_size(&seed);
		owned[me][i].n = n;
		owned[me][i].p = malloc(n);
		check(owned[me][i].p != NULL);
		key_fill(owned[me][i].p, n, me);
	}
	pthread_barrier_wait(&ready);
	while (!stop)
		churn(next_random(&seed), 100);
	return NULL;
}

static void
free_what_threads_own(void)
{
	for (unsigned t = 0; t < (unsigned)nthreads; t++)
		for (unsigned i = 0; i < OBJECTS; i++) {
			check(key_holds(owned[t][i].p, owned[t][i].n, t));
			free(owned[t][i].p);
			owned[t][i].p = NULL;
		}
}

static void *
churn_once(void *arg)
{
	churn((unsigned)(uintptr_t)arg, 300);
	return NULL;
}

static void
await(pid_t child)
{
	int status;
	check(child > 0);
	check(waitpid(child, &status, 0) == child);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		char text[64];
		snprintf(text, sizeof text, "child's wait status %#x\n", (unsigned)status);
		check(write(2, text, strlen(text)) > 0);
		_exit(96);
	}
}

static _Noreturn void
child_main(unsigned seed)
{
	pthread_t thread;
	alarm(CHILD_SECONDS);
	churn(seed, 500);
	free_what_threads_own();
	pid_t grandchild = fork();
	if (grandchild == 0) {
		alarm(CHILD_SECONDS);
		churn(seed + 1, 500);
		_exit(0);
	}
	churn(seed + 2, 500);
	check(pthread_create(&thread, NULL, churn_once, (void *)(uintptr_t)seed) == 0);
	check(pthread_join(thread, NULL) == 0);
	await(grandchild);
	exit(0);
}

/* Without atfork handlers a child may not start threads or run exit handlers:
 * it only allocates and frees. */
static _Noreturn void
bare_child_main(unsigned seed)
{
	alarm(CHILD_SECONDS);
	churn(seed, 500);
	free_what_threads_own();
	churn(seed + 1, 500);
	_exit(0);
}

static void
run_true_vfork(void)
{
	char *argv[] = { (char *)"true", NULL };
	pid_t child = vfork();
	if (child == 0) {
		execve("/bin/true", argv, environ);
		_exit(95);
	}
	await(child);
}

static void
run_true_spawn(void)
{
	pid_t child;
	char *argv[] = { (char *)"true", NULL };
	check(posix_spawn(&child, "/bin/true", NULL, NULL, argv, environ) == 0);
	await(child);
}

static void *from_clone[100];

/* Shares memory and the thread register with its suspended parent: to the
 * allocator it is the same thread under another process id. */
static int
clone_main(void *arg)
{
	churn((unsigned)(uintptr_t)arg, 300);
	for (unsigned i = 0; i < 100; i++) {
		from_clone[i] = malloc(10 + i);
		key_fill(from_clone[i], 10 + i, i);
	}
	return 0;
}

static void
run_clone(unsigned seed)
{
	static char stack[STACK_BYTES] __attribute__((aligned(16)));
	await(clone(clone_main, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD,
	            (void *)(uintptr_t)seed));
	for (unsigned i = 0; i < 100; i++) {
		check(key_holds(from_clone[i], 10 + i, i));
		free(from_clone[i]);
	}
}

static void
run_fork(const char *how, unsigned seed)
{
	bool raw = strcmp(how, "syscall") == 0, bare = raw || strcmp(how, "_Fork") == 0;
	pid_t child = raw ? (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) :
	    bare ? fork_without_handlers() : fork();
	if (child == 0 && bare)
		bare_child_main(seed);
	if (child == 0)
		child_main(seed);
	await(child);
}

int
main(int argc, char **argv)
{
	pthread_t thread[THREADS_MAX];
	check(argc == 4);
	int children = atoi(argv[2]);
	nthreads = atoi(argv[3]);
	check(nthreads <= THREADS_MAX);
	check(pthread_barrier_init(&ready, NULL, (unsigned)nthreads + 1) == 0);
	for (intptr_t i = 0; i < nthreads; i++)
		check(pthread_create(&thread[i], NULL, worker, (void *)i) == 0);
	pthread_barrier_wait(&ready);
	for (unsigned i = 0; i < (unsigned)children; i++) {
		churn(i, 50);
		if (strcmp(argv[1], "vfork") == 0)
			run_true_vfork();
		else if (strcmp(argv[1], "spawn") == 0)
			run_true_spawn();
		else if (strcmp(argv[1], "clone") == 0)
			run_clone(i);
		else
			run_fork(argv[1], i);
	}
	stop = true;
	for (int i = 0; i < nthreads; i++)
		check(pthread_join(thread[i], NULL) == 0);
	free_what_threads_own();
	say("forked\n");
	return 0;
}
