/* handler_verify.c - spanguard_verify, interrupted by a handler that frees the very
 * object which is being looked at.
 *
 * argv[1]: seconds. There is one object at a time, mostly slack in mode=guard. */
#include "check.h"
#include <signal.h>
#include <sys/time.h>
#include <time.h>

int spanguard_verify(void) __attribute__((weak));

static unsigned char *volatile object;
static volatile unsigned long freed;

static void
handler(int sig)
{
	(void)sig;
	int saved = errno;
	check(key_holds(object, 10, 5));
	free(object);
	object = malloc(10);
	check(object != NULL);
	key_fill(object, 10, 5);
	freed++;
	errno = saved;
}

int
main(int argc, char **argv)
{
	check(argc == 2 && spanguard_verify != NULL);
	object = malloc(10);
	key_fill(object, 10, 5);
	struct sigaction sa = { .sa_handler = handler, .sa_flags = SA_RESTART };
	check(sigaction(SIGALRM, &sa, NULL) == 0);
	struct itimerval tick = { { 0, 500 }, { 0, 500 } };
	check(setitimer(ITIMER_REAL, &tick, NULL) == 0);
	time_t end = time(NULL) + atoi(argv[1]);
	while (time(NULL) < end)
		check(spanguard_verify() == 0);
	check(freed > 100);
	say("survived\n");
	return 0;
}
