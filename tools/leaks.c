/* leaks.c - spanguard leaks PID: a leak check in a program that runs on.
 *
 * The program has a handler for the signal of leak_signal. It is sent with the
 * number of a descriptor of this process (sigqueue); the program writes its answer
 * there, through /proc, and goes on. The signal is sent only to a process that
 * catches it: another one would end. */
#define _GNU_SOURCE
#include "tools.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../src/options.h"

enum {
	ASK_DELTA = 1 << 30,         /* LEAK_DELTA in src/proc.c */
	WAIT_SECONDS = 30,
	NAP_NS = 20000000,
	ENVIRON_BYTES = 1 << 20,
};

struct request {
	int pid, signal, wait;
	bool delta;
};

static int
number(const char *s, const char *what)
{
	char *end;
	errno = 0;
	long v = strtol(s, &end, 10);
	if (s[0] == 0 || *end != 0 || errno != 0 || v <= 0 || v > INT_MAX)
		usage_error(what, s);
	return (int)v;
}

static void
parse(struct request *r, char **argv)
{
	for (; *argv != NULL; argv++) {
		if (strcmp(*argv, "--delta") == 0)
			r->delta = true;
		else if (strncmp(*argv, "--signal=", 9) == 0)
			r->signal = number(*argv + 9, "no signal: ");
		else if (strncmp(*argv, "--wait=", 7) == 0)
			r->wait = number(*argv + 7, "no number of seconds: ");
		else if (**argv == '-' || r->pid != 0)
			usage_error("leaks does not take ", *argv);
		else
			r->pid = number(*argv, "no process id: ");
	}
	if (r->pid == 0)
		usage_error("leaks takes a process id", "");
}

static int
refuse(const struct request *r, const char *why, const char *fix)
{
	fprintf(stderr, "spanguard: cannot ask process %d: %s\n  %s\n", r->pid, why, fix);
	return EXIT_CANNOT;
}

/* ---- what the program was started with ------------------------------------- */

static FILE *
open_proc(int pid, const char *file)
{
	char name[64];
	snprintf(name, sizeof(name), "/proc/%d/%s", pid, file);
	return fopen(name, "re");
}

/* The signal that its SPANGUARD_OPTIONS name, 0: none. */
static int
signal_of(int pid)
{
	static const char variable[] = "SPANGUARD_OPTIONS=";
	static char text[ENVIRON_BYTES];
	static struct options o;
	char complaint[4096];
	struct print p;
	int found = 0;
	FILE *f = open_proc(pid, "environ");
	size_t n = f != NULL ? fread(text, 1, sizeof(text) - 1, f) : 0;
	text[n] = 0;
	for (const char *s = text; s < text + n; s += strlen(s) + 1) {
		if (strncmp(s, variable, strlen(variable)) != 0)
			continue;
		print_init(&p, complaint, sizeof(complaint));
		options_parse(&o, NULL, "spanguard", s + strlen(variable), &p);
		found = (int)o.leak_signal;
	}
	if (f != NULL)
		fclose(f);
	return found;
}

static bool
catches(int pid, int sig)
{
	char line[256];
	unsigned long long caught = 0;
	FILE *f = open_proc(pid, "status");
	while (f != NULL && fgets(line, sizeof(line), f) != NULL)
		sscanf(line, "SigCgt: %llx", &caught);
	if (f != NULL)
		fclose(f);
	return sig > 0 && sig <= 64 && (caught >> (sig - 1) & 1) != 0;
}

/* ---- the answer -------------------------------------------------------------- */

static const char done[] = "spanguard: leak check done: ";

/* Waits for the last line; what there is then, to be freed. NULL: none came. */
static char *
await(const struct request *r, int fd)
{
	const struct timespec nap = { 0, NAP_NS };
	struct stat st;
	for (long naps = (long)r->wait * 1000000000 / NAP_NS; naps > 0; naps--) {
		if (kill(r->pid, 0) != 0 && errno == ESRCH)
			return NULL;
		char *text = fstat(fd, &st) == 0 ? calloc(1, (size_t)st.st_size + 1) : NULL;
		if (text != NULL && pread(fd, text, (size_t)st.st_size, 0) == st.st_size &&
		    strstr(text, done) != NULL && text[st.st_size - 1] == '\n')
			return text;
		free(text);
		nanosleep(&nap, NULL);
	}
	return NULL;
}

static int
show(const struct request *r, char *text)
{
	char *last = strstr(text, done);
	int lost = 0;
	bool possible = sscanf(last + strlen(done), "%d", &lost) == 1;
	*last = 0;
	symbolize_text(text, stdout);
	if (!possible)
		return refuse(r, "no check was possible", "A thread did not stop in time, or memory is short.");
	if (lost == 0)
		printf("No leaks%s in process %d.\n", r->delta ? " since the last check" : "", r->pid);
	return fflush(stdout) != 0 ? EXIT_CANNOT : lost != 0 ? EXIT_LEAKS : 0;
}

int
command_leaks(int argc, char **argv)
{
	struct request r = { .wait = WAIT_SECONDS };
	(void)argc;
	parse(&r, argv + 1);
	if (kill(r.pid, 0) != 0)
		return refuse(&r, strerror(errno), "Is it still running, and yours?");
	if (r.signal == 0)
		r.signal = signal_of(r.pid);
	if (r.signal == 0)
		return refuse(&r, "it was not started with leak_signal",
		    "Start it with spanguard --leak-signal=12 PROGRAM, or name the signal with --signal=N.");
	if (!catches(r.pid, r.signal))
		return refuse(&r, "it does not catch that signal, and would end of it",
		    "Is the library in it? See 'spanguard doctor'.");
	int fd = memfd_create("spanguard leaks", 0);
	union sigval value = { .sival_int = fd | (r.delta ? ASK_DELTA : 0) };
	if (fd < 0 || sigqueue(r.pid, r.signal, value) != 0)
		return refuse(&r, strerror(errno), "No signal could be sent.");
	char *text = await(&r, fd);
	if (text == NULL)
		return refuse(&r, "no answer came",
		    "Its threads may all be waiting; it answers at its next call of the allocator.");
	int status = show(&r, text);
	free(text);
	return status;
}
