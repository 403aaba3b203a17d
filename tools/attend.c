/* attend.c - the child, its reports, its end.
 *
 * The program gets a socket for reports (SOCK_SEQPACKET: one report is one
 * message, so reports of several processes stay whole). This process stays:
 * passes signals on, prints each report with function, file and line
 * (symbolize.c), and ends as the program ended. */
#define _GNU_SOURCE
#include "tools.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "run.h"
#include "../src/print.h"

enum {
	REPORT_FD_MIN = 200,       /* above what programs count on */
	MESSAGE_BYTES = 1 << 17,
};

/* Leaves the program's end of the socket open for it and names it in the
 * environment, with its identity so that a reused number is not written to. */
static void
name_channel(int fd)
{
	struct stat st;
	char spec[96];
	struct timeval limit = { 5, 0 };
	int bytes = MESSAGE_BYTES;
	int high = fcntl(fd, F_DUPFD, REPORT_FD_MIN);
	if (high < 0)
		high = fcntl(fd, F_DUPFD, 3);
	close(fd);
	setsockopt(high, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	setsockopt(high, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	if (high < 0 || fstat(high, &st) != 0)
		return;
	snprintf(spec, sizeof(spec), "%d:%llu:%llu", high, (unsigned long long)st.st_dev,
	    (unsigned long long)st.st_ino);
	setenv("SPANGUARD_REPORT_FD", spec, 1);
}

/* One message; false if there is none now or the other ends are all closed. */
static bool
take_report(int fd)
{
	static char text[MESSAGE_BYTES + 1];
	char *done = NULL;
	size_t bytes = 0;
	ssize_t n = recv(fd, text, MESSAGE_BYTES, MSG_DONTWAIT);
	if (n <= 0)
		return n < 0 && errno == EINTR;
	text[n] = 0;
	FILE *out = open_memstream(&done, &bytes);
	if (out == NULL) {
		print_write(2, text, (size_t)n);
		return true;
	}
	symbolize_text(text, out);
	fclose(out);
	print_write(2, done, bytes);       /* in one piece */
	free(done);
	return true;
}

/* A signal for us is meant for the program. What the terminal sends goes to the
 * whole foreground group, so the program has that one already. */
static void
pass_signal(int sfd, pid_t child)
{
	struct signalfd_siginfo si;
	while (read(sfd, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
		if (si.ssi_signo != SIGCHLD && si.ssi_code != SI_KERNEL &&
		    (pid_t)si.ssi_pid != child)
			kill(child, (int)si.ssi_signo);
	}
}

/* True with *status when the program has ended. A program that was stopped
 * stops us too, so the shell sees a stopped job; going on means both. */
static bool
reap(pid_t child, int *status)
{
	pid_t pid;
	while ((pid = waitpid(child, status, WNOHANG | WUNTRACED)) == child) {
		if (!WIFSTOPPED(*status))
			return true;
		raise(SIGSTOP);
		kill(child, SIGCONT);
	}
	return pid < 0 && errno == ECHILD;
}

static void
attend(pid_t child, int reports, int sfd, int *status)
{
	struct pollfd p[2] = {
		{ .fd = reports, .events = POLLIN }, { .fd = sfd, .events = POLLIN },
	};
	while (!reap(child, status)) {
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			break;
		if ((p[0].revents & (POLLIN | POLLHUP)) != 0 && !take_report(reports) &&
		    (p[0].revents & POLLHUP) != 0)
			p[0].fd = -1;
		if ((p[1].revents & POLLIN) != 0)
			pass_signal(sfd, child);
	}
	while (take_report(reports))
		;
}

/* Ends as the program did, but with no second core file. */
static _Noreturn void
end_like(int status)
{
	struct rlimit none = { 0, 0 };
	if (!WIFSIGNALED(status))
		exit(WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_CANNOT);
	int sig = WTERMSIG(status);
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, sig);
	setrlimit(RLIMIT_CORE, &none);
	prctl(PR_SET_DUMPABLE, 0);
	signal(sig, SIG_DFL);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	raise(sig);
	_exit(128 + sig);
}

_Noreturn void
run_and_stay(const struct run *c)
{
	static const int passed[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2,
		SIGALRM, SIGWINCH, SIGCONT, SIGCHLD };
	int ends[2];
	int status = 0;
	sigset_t set, old;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
		exec_program(c);
	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_LEN(passed); i++)
		sigaddset(&set, passed[i]);
	sigprocmask(SIG_BLOCK, &set, &old);
	int sfd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	pid_t child = fork();
	if (child < 0 || sfd < 0) {
		perror("spanguard");
		exit(EXIT_CANNOT);
	}
	if (child == 0) {
		name_channel(ends[1]);
		sigprocmask(SIG_SETMASK, &old, NULL);
		exec_program(c);
	}
	close(ends[1]);
	attend(child, ends[0], sfd, &status);
	end_like(status);
}

