/* fork_in_handler.c - fork, or _Fork, in a handler that interrupts malloc and free
 * of the same thread, while another thread allocates.
 *
 * argv[1]: _Fork, which is async-signal-safe: its child ends at once, as more is not
 * promised to it. fork, which is not, but which crash handlers call: its child
 * allocates. argv[2]: number of children. A handler that takes a lock which its own
 * thread holds hangs. */
#include "check.h"
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>

pid_t fork_without_handlers(void) __asm__("_Fork");

static volatile int children_left;
static bool with_handlers;

static void
handler(int sig)
{
	(void)sig;
	int saved = errno, status;
	if (children_left > 0) {
		children_left--;
		pid_t child = with_handlers ? fork() : fork_without_handlers();
		if (child == 0 && with_handlers)
			churn(1, 20);
		if (child == 0)
			_exit(7);
		check(child > 0);
		check(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
	}
	errno = saved;
}

static void *
work(void *arg)
{
	sigset_t all;
	sigfillset(&all);
	check(pthread_sigmask(SIG_BLOCK, &all, NULL) == 0);
	for (unsigned i = 0; children_left > 0; i++)
		churn(i, 50);
	return arg;
}

int
main(int argc, char **argv)
{
	pthread_t other;
	check(argc == 3);
	with_handlers = strcmp(argv[1], "fork") == 0;
	children_left = atoi(argv[2]);
	check(pthread_create(&other, NULL, work, NULL) == 0);
	struct sigaction sa = { .sa_handler = handler, .sa_flags = SA_RESTART };
	check(sigaction(SIGALRM, &sa, NULL) == 0);
	struct itimerval tick = { { 0, 2000 }, { 0, 2000 } };
	check(setitimer(ITIMER_REAL, &tick, NULL) == 0);
	for (unsigned i = 0; children_left > 0; i++)
		churn(i, 50);
	check(pthread_join(other, NULL) == 0);
	say("forked\n");
	return 0;
}
