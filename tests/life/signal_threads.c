/* signal_threads.c - signals at a thread's very first malloc, and at its last free:
 * while it has no cache yet, or none any more.
 *
 * argv[1]: number of threads, one after the other. Each allocates for the first
 * time, and goes on in its key's destructors to the last round, under two signals
 * whose handler, which the other one interrupts, allocates and frees small and large
 * objects. A lock that is taken where the
 * handler waits for it shows as a hang. */
#include "check.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>

enum { LARGE_BYTES = 200 << 10, ROUNDS_END = 8 };

static pthread_key_t key;
static volatile int target;                     /* tid of the thread under fire, once it waits */
static volatile bool aimed;
static volatile unsigned long handled;          /* by one thread at a time */

static void
touch(size_t bytes, unsigned how)
{
	unsigned char *p = malloc(bytes);
	check(p != NULL);
	key_fill(p, bytes < 512 ? bytes : 512, how);
	check(key_holds(opaque(p), bytes < 512 ? bytes : 512, how));
	free(p);
}

static void
handler(int sig)
{
	int saved = errno;
	touch(24, (unsigned)sig);
	touch(LARGE_BYTES, (unsigned)sig);
	handled++;
	errno = saved;
}

/* The system stops asking after its last round; by then our cache is gone. */
static void
at_end(void *value)
{
	intptr_t round = (intptr_t)value;
	touch(100 + (size_t)round, 1);
	touch(LARGE_BYTES, 2);
	if (round < ROUNDS_END)
		pthread_setspecific(key, (void *)(round + 1));
}

static void *
work(void *arg)
{
	sigset_t none;
	sigemptyset(&none);
	check(pthread_sigmask(SIG_SETMASK, &none, NULL) == 0);
	target = gettid();
	while (!aimed)
		sched_yield();
	touch(1 + (size_t)(uintptr_t)arg % 500, 3);
	for (unsigned long before = handled; handled == before;)
		sched_yield();
	check(pthread_setspecific(key, (void *)1) == 0);
	return NULL;
}

/* Until there is nobody any more; each time a microsecond later, so that the other
 * comes to its end however long its handler takes. */
static void *
fire(void *arg)
{
	while (target == 0)
		sched_yield();
	aimed = true;
	for (unsigned i = 0; syscall(SYS_tgkill, getpid(), target,
	    i % 2 != 0 ? SIGUSR1 : SIGUSR2) == 0; i++)
		for (double next = seconds_now() + 1e-6 * i; seconds_now() < next;)
			sched_yield();
	check(errno == ESRCH);
	return arg;
}

int
main(int argc, char **argv)
{
	check(argc == 2);
	struct sigaction sa = { .sa_handler = handler, .sa_flags = SA_RESTART };
	sigset_t all, old;
	check(sigaction(SIGUSR1, &sa, NULL) == 0 && sigaction(SIGUSR2, &sa, NULL) == 0);
	check(pthread_key_create(&key, at_end) == 0);
	sigfillset(&all);
	check(pthread_sigmask(SIG_BLOCK, &all, &old) == 0);
	for (intptr_t i = 0; i < atoi(argv[1]); i++) {
		pthread_t victim, gun;
		target = 0;
		aimed = false;
		check(pthread_create(&victim, NULL, work, (void *)i) == 0);
		check(pthread_create(&gun, NULL, fire, NULL) == 0);
		check(pthread_join(gun, NULL) == 0);
		check(pthread_join(victim, NULL) == 0);
	}
	say("survived\n");
	return 0;
}
