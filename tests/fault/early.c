/* early.c - a library whose handler for SIGSEGV stands before ours: it is
 * initialised first when it comes behind ours in LD_PRELOAD.
 *
 * EARLY says what it installs: comma-separated words of plain (no siginfo),
 * ignore, onstack, nodefer, resethand, usr1 (blocked while it runs). The handler
 * prints what it sees, and leaves for chain.c's jump buffer if there is one. */
#include "fault.h"

#include <setjmp.h>
#include <signal.h>

sigjmp_buf *early_back;
void *early_stack_base;         /* of the alternate stack that chain.c made */
size_t early_stack_bytes;

static void
seen(int sig, void *addr)
{
	char here;
	sigset_t mask;
	struct sigaction now;
	sigprocmask(SIG_BLOCK, NULL, &mask);
	sigaction(sig, NULL, &now);
	bool alt = (size_t)(&here - (char *)early_stack_base) < early_stack_bytes;
	addr = (uintptr_t)addr > 0x10000 ? (void *)-1 : addr;   /* the same in each run */
	say("signal %d at %p segv %d usr1 %d alt %d default %d errno %d\n", sig, addr,
	    sigismember(&mask, SIGSEGV), sigismember(&mask, SIGUSR1), alt,
	    now.sa_handler == SIG_DFL, errno);
	if (early_back != NULL)
		siglongjmp(*early_back, 1);
}

static void
with_info(int sig, siginfo_t *info, void *context)
{
	check(context != NULL);
	seen(sig, info->si_code > 0 ? info->si_addr : NULL);
}

static void
without_info(int sig)
{
	seen(sig, NULL);
}

__attribute__((constructor)) static void
install(void)
{
	const char *how = getenv("EARLY");
	struct sigaction sa = { .sa_flags = SA_SIGINFO };
	if (how == NULL)
		return;
	sa.sa_sigaction = with_info;
	if (strstr(how, "plain") != NULL) {
		sa.sa_flags = 0;
		sa.sa_handler = without_info;
	}
	if (strstr(how, "ignore") != NULL) {
		sa.sa_flags = 0;
		sa.sa_handler = SIG_IGN;
	}
	if (strstr(how, "onstack") != NULL)
		sa.sa_flags |= SA_ONSTACK;
	if (strstr(how, "nodefer") != NULL)
		sa.sa_flags |= SA_NODEFER;
	if (strstr(how, "resethand") != NULL)
		sa.sa_flags |= (int)SA_RESETHAND;
	if (strstr(how, "usr1") != NULL)
		sigaddset(&sa.sa_mask, SIGUSR1);
	check(sigaction(SIGSEGV, &sa, NULL) == 0);
}
