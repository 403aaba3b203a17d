/* spanguard.c - the command: runs a program on spanguard and finishes reports.
 *
 *   spanguard [run] [--NAME=VALUE ..] [--] PROGRAM [ARGS ..]
 *   spanguard symbolize [FILE]
 *   spanguard options [--markdown]
 *   spanguard help | --version
 *
 * run: check the options against the table of the library, check that a preload
 * can work (preflight.c), start the program in a child with a socket for
 * reports, and stay: pass signals on, print each report with function, file and
 * line (symbolize.c), end as the program ended. The socket is SOCK_SEQPACKET,
 * one report is one message, so reports of several processes stay whole. */
#define _GNU_SOURCE
#include "tools.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../src/options.h"

#ifndef SPANGUARD_VERSION
#define SPANGUARD_VERSION "0.1"
#endif

enum {
	REPORT_FD_MIN = 200,       /* above what programs count on */
	MESSAGE_BYTES = 1 << 17,
	TEXT_BYTES = 16384,
};

struct command {
	bool symbolize;
	char library[PATH_MAX];
	char program[PATH_MAX];
	char **argv;               /* of the program */
	char options[TEXT_BYTES];  /* for SPANGUARD_OPTIONS */
};

/* ---- tables for people -------------------------------------------------- */

static char table_text[65536];

static const char modes[][10] = { "plain", "hardened", "strict", "debug", "guard" };

static void
preset_cell(struct print *p, const char *mode, const struct option_row *row)
{
	const char *v = options_preset(mode, row);
	print_str(p, v != NULL ? v : "");
	print_str(p, " | ");
}

static void
markdown_row(struct print *p, const struct option_row *row)
{
	print_str(p, "| `");
	print_str(p, row->name);
	print_str(p, "` | ");
	size_t range = p->len;
	options_print_range(row, p);
	/* A bar would end the cell. */
	for (char *c = p->buf + range; *c != 0; c++) {
		if (*c == '|')
			*c = '/';
	}
	print_str(p, " | ");
	print_str(p, row->def);
	print_str(p, " | ");
	for (size_t i = 0; i < ARRAY_LEN(modes); i++)
		preset_cell(p, modes[i], row);
	print_str(p, row->help);
	print_str(p, " |\n");
}

static int
show_options(bool markdown)
{
	static struct options o;
	static uint8_t origin[OPTIONS_COUNT];
	struct print p;
	print_init(&p, table_text, sizeof(table_text));
	if (!markdown) {
		options_parse(&o, origin, "spanguard", "", &p);
		options_print_help(&o, origin, &p);
		return print_flush(&p, 1) ? 0 : EXIT_CANNOT;
	}
	print_str(&p, "# Options\n\n"
	    "<!-- Written by `spanguard options --markdown` from src/options.def. -->\n\n"
	    "Set them with `SPANGUARD_OPTIONS=\"name=value:name=value\"` or, with the `spanguard` command, as\n"
	    "`--name=value`. What is named counts more than what the mode sets, and that more than the default.\n"
	    "Separators are `:`, `,` and white space; a value with a separator in it goes in quotes. Sizes take\n"
	    "`k`, `m`, `g` and `t`, numbers may be hexadecimal, yes/no options take `0/1`, `no/yes`, `off/on` and\n"
	    "`false/true`. A wrong name or value is reported with the nearest right one and changes nothing; the\n"
	    "`spanguard` command does not start the program then (exit code 2). A set-uid program ignores\n"
	    "its environment.\n\n"
	    "| option | takes | default |");
	for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
		print_str(&p, " `mode=");
		print_str(&p, modes[i]);
		print_str(&p, "` |");
	}
	print_str(&p, " what it does |\n|---|---|---|---|");
	for (size_t i = 0; i < ARRAY_LEN(modes); i++)
		print_str(&p, "---|");
	print_char(&p, '\n');
	for (size_t i = 0; i < OPTIONS_COUNT; i++)
		markdown_row(&p, &options_table[i]);
	return print_flush(&p, 1) ? 0 : EXIT_CANNOT;
}

static int
show_help(int fd)
{
	static const char text[] =
	    "usage: spanguard [run] [OPTION ..] [--] PROGRAM [ARGS ..]\n"
	    "       spanguard symbolize [FILE]       add function, file and line to a saved report\n"
	    "       spanguard options [--markdown]   all options of the allocator\n"
	    "       spanguard help\n"
	    "\n"
	    "Runs PROGRAM with its malloc replaced by spanguard, and prints what goes wrong.\n"
	    "\n"
	    "  --mode=MODE            plain, hardened (the default), strict, debug or guard\n"
	    "  --NAME=VALUE           any option of the allocator (see spanguard options)\n"
	    "  --lib=FILE             the library to use (else SPANGUARD_LIB, else next to this command)\n"
	    "  --no-symbolize         do not stay around: the program takes the place of this process\n"
	    "\n"
	    "Exit code: that of PROGRAM; 2 bad option, 125 spanguard cannot work with PROGRAM,\n"
	    "126 PROGRAM cannot be run, 127 not found. A program that was killed by a signal,\n"
	    "as every one with a heap error is (SIGABRT), ends this command by the same signal.\n";
	return print_write(fd, text, sizeof(text) - 1) ? 0 : EXIT_CANNOT;
}

/* ---- the command line --------------------------------------------------- */

static _Noreturn void
usage_error(const char *what, const char *arg)
{
	fprintf(stderr, "spanguard: %s%s\nTry 'spanguard help'.\n", what, arg);
	exit(EXIT_USAGE);
}

static void
set_library(struct command *c, const char *path)
{
	if (realpath(path, c->library) == NULL) {
		fprintf(stderr, "spanguard: library %s: %s\n", path, strerror(errno));
		exit(EXIT_CANNOT);
	}
}

/* Appends name=value as the table prints it, so that quotes are right. */
static void
add_option(struct command *c, const struct option_row *row, const struct options *o)
{
	struct print p;
	size_t n = strlen(c->options);
	if (sizeof(c->options) - n < OPTION_STRING_BYTES + 64)
		usage_error("too many options", "");
	print_init(&p, c->options + n, sizeof(c->options) - n);
	if (n != 0)
		print_char(&p, ':');
	print_str(&p, row->name);
	print_char(&p, '=');
	options_print_value(o, row, &p);
}

/* --name=value, --name value, or --name for a yes/no option. Returns how many
 * arguments it took. */
static int
take_table_option(struct command *c, char **argv)
{
	static struct options scratch;
	static bool ready;
	char complaint[1024];
	struct print out;
	char name[64];
	const char *arg = argv[0] + 2;
	size_t n = strcspn(arg, "=");
	const char *value = arg[n] == '=' ? arg + n + 1 : NULL;
	int took = 1;
	print_init(&out, complaint, sizeof(complaint));
	if (!ready)
		options_parse(&scratch, NULL, "spanguard", "", &out);
	ready = true;
	snprintf(name, sizeof(name), "%.*s", (int)n, arg);
	for (char *s = name; *s != 0; s++)
		*s = *s == '-' ? '_' : *s;
	const struct option_row *row = options_find(name, strlen(name));
	if (value == NULL && row != NULL && row->kind == OPTION_BOOL)
		value = "1";
	if (value == NULL && row != NULL && argv[1] != NULL) {
		value = argv[1];
		took = 2;
	}
	if (value == NULL)
		value = "";
	if (!options_set(&scratch, "spanguard", name, strlen(name), value, strlen(value), &out)) {
		fputs(complaint, stderr);
		exit(EXIT_USAGE);
	}
	add_option(c, row, &scratch);
	return took;
}

/* The user's SPANGUARD_OPTIONS are checked here too: the message then comes
 * before anything is started. */
static void
take_environment(struct command *c)
{
	static struct options scratch;
	char complaint[4096];
	struct print out;
	const char *given = getenv("SPANGUARD_OPTIONS");
	if (given == NULL)
		return;
	print_init(&out, complaint, sizeof(complaint));
	if (options_parse(&scratch, NULL, "spanguard: SPANGUARD_OPTIONS", given, &out) != 0) {
		fputs(complaint, stderr);
		exit(EXIT_USAGE);
	}
	if (strlen(given) > 3000)
		usage_error("SPANGUARD_OPTIONS is too long", "");
	strcpy(c->options, given);
}

static void
parse_run(struct command *c, char **argv)
{
	c->symbolize = true;
	take_environment(c);
	while (argv[0] != NULL && strncmp(argv[0], "--", 2) == 0) {
		if (argv[0][2] == 0) {
			argv++;
			break;
		}
		if (strcmp(argv[0], "--no-symbolize") == 0) {
			c->symbolize = false;
			argv++;
		} else if (strncmp(argv[0], "--lib=", 6) == 0) {
			set_library(c, argv[0] + 6);
			argv++;
		} else if (strcmp(argv[0], "--help") == 0) {
			exit(show_help(1));
		} else {
			argv += take_table_option(c, argv);
		}
	}
	if (argv[0] == NULL)
		usage_error("no program given", "");
	if (argv[0][0] == '-')
		usage_error("unknown option ", argv[0]);
	c->argv = argv;
}

/* ---- the library -------------------------------------------------------- */

static void
find_library(struct command *c)
{
	static const char *const places[] = {
		"libspanguard.so", "../lib/libspanguard.so", "../libspanguard.so",
		"../lib/spanguard/libspanguard.so", "../lib64/libspanguard.so",
#if defined(__x86_64__)
		"../lib/x86_64-linux-gnu/libspanguard.so",
#elif defined(__aarch64__)
		"../lib/aarch64-linux-gnu/libspanguard.so",
#endif
	};
	char self[PATH_MAX];
	char path[PATH_MAX + 64];
	const char *given = getenv("SPANGUARD_LIB");
	if (c->library[0] != 0)
		return;
	if (given != NULL && given[0] != 0) {
		set_library(c, given);
		return;
	}
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (n > 0) {
		self[n] = 0;
		*strrchr(self, '/') = 0;
		for (size_t i = 0; i < ARRAY_LEN(places); i++) {
			snprintf(path, sizeof(path), "%s/%s", self, places[i]);
			if (access(path, R_OK) == 0) {
				set_library(c, path);
				return;
			}
		}
	}
	fputs("spanguard: libspanguard.so is not next to this command; name it in SPANGUARD_LIB "
	    "or with --lib=FILE\n", stderr);
	exit(EXIT_CANNOT);
}

static void
set_environment(const struct command *c)
{
	const char *others = getenv("LD_PRELOAD");
	char *list = NULL;
	if (strpbrk(c->library, ": \t") != NULL) {
		fprintf(stderr, "spanguard: %s: LD_PRELOAD cannot hold a path with a blank or a colon\n",
		    c->library);
		exit(EXIT_CANNOT);
	}
	bool more = others != NULL && others[0] != 0;
	if (asprintf(&list, "%s%s%s", c->library, more ? ":" : "", more ? others : "") < 0)
		exit(EXIT_CANNOT);
	setenv("LD_PRELOAD", list, 1);
	setenv("SPANGUARD_OPTIONS", c->options, 1);
	setenv("SPANGUARD_STRICT_OPTIONS", "1", 1);
	free(list);
}

static _Noreturn void
exec_program(const struct command *c)
{
	execvp(c->argv[0], c->argv);
	int e = errno;
	fprintf(stderr, "spanguard: %s: %s\n", c->argv[0], strerror(e));
	_exit(e == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE);
}

/* ---- the child and its reports ------------------------------------------ */

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

static _Noreturn void
run_and_stay(const struct command *c)
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

static int
run(char **argv)
{
	static struct command c;
	parse_run(&c, argv);
	find_library(&c);
	int r = preflight(c.argv[0], c.library, c.program);
	if (r != 0)
		return r;
	set_environment(&c);
	if (!c.symbolize)
		exec_program(&c);
	run_and_stay(&c);
}

static int
symbolize(char **argv)
{
	FILE *in = stdin;
	if (argv[0] != NULL && argv[1] != NULL)
		usage_error("symbolize takes one file", "");
	if (argv[0] != NULL && strcmp(argv[0], "-") != 0)
		in = fopen(argv[0], "re");
	if (in == NULL) {
		fprintf(stderr, "spanguard: %s: %s\n", argv[0], strerror(errno));
		return EXIT_CANNOT;
	}
	return symbolize_file(in, stdout);
}

int
main(int argc, char **argv)
{
	if (argc < 2) {
		show_help(2);
		return EXIT_USAGE;
	}
	const char *verb = argv[1];
	if (strcmp(verb, "help") == 0 || strcmp(verb, "--help") == 0 || strcmp(verb, "-h") == 0)
		return show_help(1);
	if (strcmp(verb, "--version") == 0)
		return puts("spanguard " SPANGUARD_VERSION) < 0;
	if (strcmp(verb, "symbolize") == 0)
		return symbolize(argv + 2);
	if (strcmp(verb, "options") == 0)
		return show_options(argc > 2 && strcmp(argv[2], "--markdown") == 0);
	return run(argv + 1 + (strcmp(verb, "run") == 0));
}
