/* launch.c - runs one command and measures it.
 *
 *   launch report-file [NAME=value ...] -- command [args ...]
 *
 * Writes one line to report-file: wait status, wall ns, user us, system us, peak
 * RSS KiB. The assignments go into the environment of the command only, so the
 * allocator under test does not run in this program.
 *
 * It exists because Linux carries the peak RSS of the process that calls exec
 * over into the new program: started from Python, every row below Python's own
 * 10 to 20 MiB would show those instead. This program has about 1 MiB. The peak
 * is the largest of the command and of the children it waited for, so a compiler
 * driver counts with its compiler. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void
launch_die(const char *what)
{
	fprintf(stderr, "launch: %s: %s\n", what, strerror(errno));
	exit(127);
}

static long long
now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (long long)t.tv_sec * 1000000000 + t.tv_nsec;
}

static long long
time_us(struct timeval t)
{
	return (long long)t.tv_sec * 1000000 + t.tv_usec;
}

int
main(int argc, char **argv)
{
	int split = 2, status;
	long long start_ns, wall_ns;
	struct rusage ru;
	FILE *report;
	pid_t child;

	while (split < argc && strcmp(argv[split], "--") != 0)
		split++;
	if (split + 1 >= argc) {
		fputs("usage: launch report-file [NAME=value ...] -- command [args ...]\n", stderr);
		return 127;
	}
	start_ns = now_ns();
	child = fork();
	if (child < 0)
		launch_die("fork");
	if (child == 0) {
		for (int i = 2; i < split; i++)
			putenv(argv[i]);
		execvp(argv[split + 1], &argv[split + 1]);
		launch_die(argv[split + 1]);
	}
	while (wait4(child, &status, 0, &ru) < 0) {
		if (errno != EINTR)
			launch_die("wait4");
	}
	wall_ns = now_ns() - start_ns;
	report = fopen(argv[1], "we");
	if (report == NULL)
		launch_die(argv[1]);
	fprintf(report, "%d %lld %lld %lld %ld\n", status, wall_ns, time_us(ru.ru_utime),
		time_us(ru.ru_stime), ru.ru_maxrss);
	if (fclose(report) != 0)
		launch_die(argv[1]);
	return 0;
}
