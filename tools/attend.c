/* attend.c - the child, its reports, its end.
 *
 *   run_and_stay     socket, signals, fork
 *   attend           until the program has ended: messages, signals, and is our
 *                    library in it at all?
 *   take_message     a greeting, a report, its JSON
 *   end_like         the program's status, or 86, 23, 125
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
	NAP_MS = 200,              /* while the program has not greeted */
	NAPS_MAX = 10,             /* between looks into its mappings */
	LOOKS_MAX = 3,             /* without the library: it is not coming */
};

#define HELLO "spanguard-hello"    /* export_bound.c */

struct session {
	const struct run *run;
	pid_t child;
	int reports;
	int exec_error;            /* errno of execvp, 0: it is running */
	bool greeted;              /* the library in it has said so */
	char elsewhere[PATH_MAX];  /* whose malloc it has, "": ours */
	unsigned naps, looks;
	unsigned errors, leaks;
};

/* Leaves the program's end of the socket open for it and names it in the
 * environment, with its identity so that a reused number is not written to. */
static void
name_channel(const struct run *c, int fd)
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
	snprintf(spec, sizeof(spec), "%d:%llu:%llu%s", high, (unsigned long long)st.st_dev,
	    (unsigned long long)st.st_ino, c->json[0] != 0 ? ":json" : "");
	setenv("SPANGUARD_REPORT_FD", spec, 1);
}

/* ---- messages ----------------------------------------------------------- */

/* Appends to the file with %p filled in; false: it cannot be written to. */
static bool
append(const char *pattern, pid_t pid, const char *text, size_t bytes)
{
	char name[2 * PATH_MAX];
	size_t n = 0;
	for (const char *s = pattern; *s != 0 && n < sizeof(name) - 16; s++) {
		if (s[0] == '%' && s[1] == 'p') {
			n += (size_t)snprintf(name + n, 16, "%d", (int)pid);
			s++;
		} else {
			name[n++] = *s;
		}
	}
	name[n] = 0;
	int fd = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0666);
	bool ok = fd >= 0 && print_write(fd, text, bytes);
	if (fd >= 0)
		close(fd);
	return ok;
}

/* A report, its JSON, or a line that is no report: with symbols, to where it is
 * to go, in one piece. */
static void
pass_on(const struct run *c, pid_t pid, const char *text, size_t n)
{
	char *done = NULL;
	size_t bytes = 0;
	bool json = text[0] == '{';
	const char *file = json ? c->json : c->log;
	FILE *out = open_memstream(&done, &bytes);
	if (out != NULL && json)
		symbolize_json(text, out);
	else if (out != NULL)
		symbolize_text(text, out);
	bool ok = out != NULL && fclose(out) == 0;
	const char *what = ok ? done : text;
	size_t whole = ok ? bytes : n;
	if ((file[0] == 0 || !append(file, pid, what, whole)) && !json)
		print_write(2, what, whole);
	free(done);
}

static void
count(struct session *s, const char *text)
{
	static const char mark[] = "==ERROR: spanguard: ";
	const char *what = strstr(text, mark);
	if (what == NULL)
		return;
	if (strncmp(what + strlen(mark), "detected memory leaks", 21) == 0)
		s->leaks++;
	else
		s->errors++;
}

/* "spanguard-hello bound PID", "spanguard-hello elsewhere PID FILE" */
static void
greet(struct session *s, const char *text)
{
	char how[16] = "", file[PATH_MAX] = "";
	int pid = 0;
	sscanf(text, HELLO " %15s %d %4095[^\n]", how, &pid, file);
	bool bound = strcmp(how, "bound") == 0;
	if (!s->greeted) {
		s->greeted = true;
		snprintf(s->elsewhere, sizeof(s->elsewhere), "%s", bound ? "" : file);
	} else if (!bound) {
		fprintf(stderr, "spanguard: warning: process %d has a malloc of its own (%s); "
		    "spanguard does not see it\n", pid, file);
	}
}

/* Who sent it, by the kernel's word. */
static pid_t
sender(struct msghdr *m)
{
	struct ucred cred = { 0 };
	struct cmsghdr *h = CMSG_FIRSTHDR(m);
	if (h != NULL && h->cmsg_type == SCM_CREDENTIALS)
		memcpy(&cred, CMSG_DATA(h), sizeof(cred));
	return cred.pid;
}

/* One message; false if there is none now or the other ends are all closed. */
static bool
take_message(struct session *s)
{
	static char text[MESSAGE_BYTES + 1];
	char control[CMSG_SPACE(sizeof(struct ucred))];
	struct iovec v = { text, MESSAGE_BYTES };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = control,
		.msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(s->reports, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n <= 0)
		return n < 0 && errno == EINTR;
	text[n] = 0;
	if (strncmp(text, HELLO " ", sizeof(HELLO)) == 0) {
		greet(s, text);
		return true;
	}
	count(s, text);
	pass_on(s->run, sender(&m), text, (size_t)n);
	return true;
}

/* ---- is our malloc in the program at all? -------------------------------- */

static bool
is_mapped(pid_t pid, const char *library)
{
	char name[64];
	char line[PATH_MAX + 128];
	bool found = false;
	snprintf(name, sizeof(name), "/proc/%d/maps", (int)pid);
	FILE *f = fopen(name, "re");
	if (f == NULL)
		return true;       /* nothing can be told */
	while (!found && fgets(line, sizeof(line), f) != NULL)
		found = strstr(line, library) != NULL;
	fclose(f);
	return found;
}

/* Called now and then until the program has greeted. Its loader maps what is
 * preloaded before anything else: a program that has run for a while without the
 * library will never get it. */
static bool
is_without_us(struct session *s)
{
	if (s->greeted || s->run->force || ++s->naps < NAPS_MAX)
		return false;
	s->naps = 0;
	s->looks = is_mapped(s->child, s->run->library) ? 0 : s->looks + 1;
	return s->looks >= LOOKS_MAX;
}

static _Noreturn void
refuse_unbound(const struct session *s, bool still_there)
{
	const char *prog = s->run->argv[0];
	if (still_there) {
		kill(s->child, SIGKILL);
		waitpid(s->child, NULL, 0);
	}
	if (s->elsewhere[0] != 0)
		fprintf(stderr, "spanguard: cannot work with %s: its malloc is that of %s\n"
		    "  Build it without its own malloc, or run it with --force to check what is left.\n",
		    prog, s->elsewhere);
	else
		fprintf(stderr, "spanguard: cannot work with %s: the library did not get into the process\n"
		    "  The loader ignored LD_PRELOAD; 'spanguard doctor %s' looks for the reason.\n",
		    prog, prog);
	exit(EXIT_CANNOT);
}

/* ---- signals and the end of the program ---------------------------------- */

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
attend(struct session *s, int sfd, int *status)
{
	struct pollfd p[2] = {
		{ .fd = s->reports, .events = POLLIN }, { .fd = sfd, .events = POLLIN },
	};
	while (!reap(s->child, status)) {
		if (poll(p, 2, s->greeted ? -1 : NAP_MS) < 0 && errno != EINTR)
			break;
		if ((p[0].revents & (POLLIN | POLLHUP)) != 0 && !take_message(s) &&
		    (p[0].revents & POLLHUP) != 0)
			p[0].fd = -1;
		if ((p[1].revents & POLLIN) != 0)
			pass_signal(sfd, s->child);
		if ((s->elsewhere[0] != 0 && !s->run->force) || is_without_us(s))
			refuse_unbound(s, true);
	}
	while (take_message(s))
		;
}

/* The program's status, unless there was something to report and the program was
 * allowed to end in its own way. */
static int
exit_code(const struct session *s, int status)
{
	int code = WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_CANNOT;
	if (s->errors != 0)
		return EXIT_REPORTED;
	return s->leaks != 0 && code == 0 ? EXIT_LEAKS : code;
}

/* Ends by the signal that ended the program, but with no second core file. */
static _Noreturn void
end_by(int sig)
{
	struct rlimit none = { 0, 0 };
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

/* For somebody who watches: no report might be taken for no leaks. Where descriptor 2 is
 * a file or a pipe, nothing is added to what the program says. */
static void
mention_leaks(const struct session *s)
{
	if (s->run->ignores_leaks && s->greeted && s->errors == 0 && isatty(2))
		fputs("spanguard: no error was found; leaks were not looked for (--leak-check=1 does)\n",
		    stderr);
}

/* A loader that cannot start the program at all ends with 127 and has said why. */
static _Noreturn void
end_like(const struct session *s, int status)
{
	bool loader_failed = WIFEXITED(status) && WEXITSTATUS(status) == EXIT_NOT_FOUND;
	if (s->exec_error != 0)
		exit(WEXITSTATUS(status));
	if (!s->run->force && (s->elsewhere[0] != 0 || (!s->greeted && !loader_failed)))
		refuse_unbound(s, false);
	if (WIFSIGNALED(status))
		end_by(WTERMSIG(status));
	mention_leaks(s);
	exit(exit_code(s, status));
}

/* ---- start ---------------------------------------------------------------- */

static _Noreturn void
become_program(const struct run *c, int reports, int errors, const sigset_t *mask)
{
	name_channel(c, reports);
	sigprocmask(SIG_SETMASK, mask, NULL);
	exec_program(c, errors);
}

_Noreturn void
run_and_stay(const struct run *c)
{
	static const int passed[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2,
		SIGALRM, SIGWINCH, SIGCONT, SIGCHLD };
	static struct session s;
	int ends[2], errors[2], on = 1;
	int status = 0;
	sigset_t set, old;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0 ||
	    pipe2(errors, O_CLOEXEC) != 0)
		exec_program(c, -1);
	setsockopt(ends[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_LEN(passed); i++)
		sigaddset(&set, passed[i]);
	sigprocmask(SIG_BLOCK, &set, &old);
	int sfd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	s = (struct session){ .run = c, .reports = ends[0], .child = fork() };
	if (s.child < 0 || sfd < 0) {
		perror("spanguard");
		exit(EXIT_CANNOT);
	}
	if (s.child == 0)
		become_program(c, ends[1], errors[1], &old);
	close(ends[1]);
	close(errors[1]);
	if (read(errors[0], &s.exec_error, sizeof(s.exec_error)) < 0)
		s.exec_error = 0;
	close(errors[0]);
	attend(&s, sfd, &status);
	end_like(&s, status);
}
