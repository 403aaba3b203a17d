/* segv_owner.c - SIGSEGV belongs to the program. argv[1] = handler: its own
 * handler must get its own fault, with the right address, and go on; argv[1] =
 * crash: without a handler the program dies of the fault itself. */
#include "check.h"
#include <setjmp.h>
#include <signal.h>

static sigjmp_buf back;
static void *volatile seen;

static void
on_fault(int sig, siginfo_t *info, void *context)
{
	(void)sig, (void)context;
	seen = info->si_addr;
	siglongjmp(back, 1);
}

int
main(int argc, char **argv)
{
	struct sigaction old;
	check(argc == 2);
	churn(5, 1000);
	for (int sig = 1; sig < 32; sig++) {
		/* Nobody may have taken a signal before the program did, but for the
		 * one that says of a guard page what was touched. */
		if (sig == SIGKILL || sig == SIGSTOP || sig == SIGSEGV)
			continue;
		check(sigaction(sig, NULL, &old) == 0);
		check(old.sa_handler == SIG_DFL || old.sa_handler == SIG_IGN);
	}
	stack_t alt;
	check(sigaltstack(NULL, &alt) == 0);
	check(alt.ss_flags == SS_DISABLE);
	int *volatile wild = (int *)0x5000;
	if (strcmp(argv[1], "crash") == 0)
		*wild = 1;
	struct sigaction mine = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
	check(sigaction(SIGSEGV, &mine, NULL) == 0);
	for (int i = 0; i < 100; i++) {
		seen = NULL;
		if (sigsetjmp(back, 1) == 0)
			*wild = 1;
		check(seen == (void *)0x5000);
		churn((unsigned)i, 50);
	}
	check(sigaction(SIGSEGV, NULL, &old) == 0);
	check(old.sa_sigaction == on_fault);
	say("mine\n");
	return 0;
}
