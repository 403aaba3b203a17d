/* signal_storm.c - malloc and free in a signal handler that interrupts malloc
 * and free of the same thread. No standard allows it and many programs do it.
 *
 * argv[1]: seconds. Two threads churn keyed objects; a profiling timer hits
 * whichever runs, and main sends signals as fast as it can. The handler keeps
 * keyed objects of its own. A slot given out twice shows as a wrong key on one
 * side or the other, a lock taken twice as a hang. */
#include "check.h"
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>

enum { KEPT = 32, THREADS = 2 };

struct kept {
	unsigned char *p;
	size_t n;
};

static __thread struct kept kept[KEPT];
static __thread unsigned handler_seed, handler_key;
static pthread_t victim[THREADS];
static sigset_t storm;
static volatile bool stop;
static unsigned long handled;

static void
handler(int sig)
{
	(void)sig;
	int saved = errno;
	for (int i = 0; i < 4; i++) {
		struct kept *k = &kept[next_random(&handler_seed) % KEPT];
		check(k->p == NULL || key_holds(k->p, k->n, handler_key));
		free(k->p);
		k->n = 1 + next_random(&handler_seed) % 700;
		k->p = malloc(k->n);
		check(k->p != NULL);
		key_fill(k->p, k->n, handler_key);
	}
	__atomic_fetch_add(&handled, 1, __ATOMIC_RELAXED);
	errno = saved;
}

static void *
work(void *arg)
{
	unsigned seed = 77 + (unsigned)(uintptr_t)arg;
	handler_seed = seed;
	handler_key = seed + 1000;
	check(pthread_sigmask(SIG_UNBLOCK, &storm, NULL) == 0);
	while (!stop)
		churn(next_random(&seed), 50);
	check(pthread_sigmask(SIG_BLOCK, &storm, NULL) == 0);
	for (int i = 0; i < KEPT; i++) {
		check(kept[i].p == NULL || key_holds(kept[i].p, kept[i].n, handler_key));
		free(kept[i].p);
	}
	return NULL;
}

int
main(int argc, char **argv)
{
	check(argc == 2);
	double end = seconds_now() + atof(argv[1]);
	sigemptyset(&storm);
	sigaddset(&storm, SIGUSR1);
	sigaddset(&storm, SIGPROF);
	/* The handler's own state is not made for a second signal inside the first. */
	struct sigaction sa = { .sa_handler = handler, .sa_flags = SA_RESTART, .sa_mask = storm };
	check(sigaction(SIGUSR1, &sa, NULL) == 0 && sigaction(SIGPROF, &sa, NULL) == 0);
	/* Threads inherit the mask, and open it when they are ready. */
	check(pthread_sigmask(SIG_BLOCK, &storm, NULL) == 0);
	for (intptr_t i = 0; i < THREADS; i++)
		check(pthread_create(&victim[i], NULL, work, (void *)i) == 0);
	struct itimerval tick = { { 0, 1000 }, { 0, 1000 } };
	check(setitimer(ITIMER_PROF, &tick, NULL) == 0);
	while (seconds_now() < end) {
		for (int i = 0; i < THREADS; i++)
			check(pthread_kill(victim[i], SIGUSR1) == 0);
		struct timespec pause = { 0, 20000 };
		nanosleep(&pause, NULL);
	}
	stop = true;
	for (int i = 0; i < THREADS; i++)
		check(pthread_join(victim[i], NULL) == 0);
	check(handled > 100);
	say("survived\n");
	return 0;
}
