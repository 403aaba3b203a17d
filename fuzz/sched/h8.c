/* h8.c - tries the schedules of the litmus programs.
 *
 *   h8                       all of them, exhaustively, at two preemptions
 *   h8 --bound=1 NAME...     some, at one
 *   h8 --pct=N --depth=3     N random schedules of each
 *   h8 --replay='NAME:SCHEDULE'   one, with the places of its switches
 *   h8 --input FILE...       inputs of the fuzz target, or directories of them
 *   h8 --list
 *
 * Status 0: nothing found; 1: a litmus failed, its schedule is printed; 2: usage. */
#define _GNU_SOURCE
#include <dirent.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "explore.h"
#include "litmus.h"
#include "litmus_input.h"

static struct {
	unsigned bound;
	uint64_t max;
	uint64_t pct;
	unsigned depth;
	uint64_t seed;
} how = { .bound = 2, .max = UINT64_MAX, .depth = 3, .seed = 1 };

struct trial {
	const struct litmus *l;
	struct litmus_result r;
	uint64_t gaps;
};

static bool
try_one(void *arg, struct sched_chooser *c)
{
	struct trial *t = arg;
	bool ok = litmus_run(t->l, c, &t->r);

	t->gaps += t->r.gap;
	return ok;
}

static double
now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool
try_litmus(const struct litmus *l, uint64_t *schedules)
{
	struct trial t = { .l = l };
	struct explore_result r;
	char text[SCHED_TEXT_BYTES];
	double start = now_s();

	if (!litmus_begin(l))
		return false;
	if (how.pct != 0)
		explore_pct(try_one, &t, how.depth, how.seed, how.pct, &r);
	else
		explore_exhaustive(try_one, &t, how.bound, how.max, &r);
	double took = now_s() - start;
	*schedules += r.schedules;
	printf("%-18s %s %8llu schedules, %5u points, %4u decisions, %6.2f s", l->name,
	    r.failed ? "FAIL" : "ok  ", (unsigned long long)r.schedules, r.points, r.decisions, took);
	if (r.cut_short)
		printf(", cut short");
	if (t.gaps != 0)
		printf("; known gap in %llu: %s", (unsigned long long)t.gaps, l->gap);
	putchar('\n');
	if (r.failed) {
		sched_print(text);
		printf("  %s\n  %s\n  again: h8 --replay='%s:%s'\n", l->about, t.r.what, l->name, text);
	}
	litmus_end();
	fflush(stdout);
	return !r.failed;
}

/* ---- replay ---- */

/* The line of source at pc, by addr2line; pc itself if there is none. */
static void
print_place(uintptr_t pc)
{
	char command[128], exe[64], line[512];

	snprintf(exe, sizeof(exe), "/proc/%d/exe", (int)getpid());
	snprintf(command, sizeof(command), "addr2line -sfpie %s %#lx 2>/dev/null", exe,
	    (unsigned long)pc - 1);
	FILE *f = popen(command, "r");
	bool any = false;
	while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
		/* the atomic itself is of no interest */
		if (strstr(line, "atomic.h") != NULL)
			continue;
		line[strcspn(line, "\n")] = '\0';
		char *text = strncmp(line, " (inlined by) ", 14) == 0 ? line + 14 : line;
		printf("%s%s", any ? " < " : "", text);
		any = true;
	}
	if (f != NULL)
		pclose(f);
	if (!any)
		printf("%#lx", (unsigned long)pc);
	putchar('\n');
}

static void
print_switches(void)
{
	const struct sched_switch *s;
	unsigned n = sched_switches(&s);

	for (unsigned i = 0; i < n; i++) {
		if (s[i].how == '+') {
			printf("  begins with thread %u\n", s[i].to);
			continue;
		}
		printf("  thread %u, point %u, %s thread %u at ", s[i].from, s[i].point,
		    s[i].how == '>' ? "is preempted by" : "cannot go on, then", s[i].to);
		print_place(s[i].pc);
	}
}

static int
replay(const char *text)
{
	const char *colon = strchr(text, ':');
	char name[64];
	struct explore_result r;

	if (colon == NULL || colon - text >= (long)sizeof(name))
		return 2;
	snprintf(name, sizeof(name), "%.*s", (int)(colon - text), text);
	struct trial t = { .l = litmus_find(name) };
	if (t.l == NULL) {
		fprintf(stderr, "h8: no litmus %s\n", name);
		return 2;
	}
	if (!litmus_begin(t.l))
		return 1;
	bool followed = explore_replay(try_one, &t, colon + 1, &r);
	litmus_end();
	print_switches();
	printf("%s: %s%s\n", name, r.failed ? "FAIL: " : "ok", r.failed ? t.r.what : "");
	if (!followed)
		printf("the program did not follow the schedule to its end\n");
	return r.failed || !followed;
}

/* ---- inputs ---- */

static unsigned inputs, bad_inputs;

static void
run_file(const char *path)
{
	static uint8_t data[4096];
	char text[SCHED_TEXT_BYTES];
	struct litmus_result r;
	FILE *f = fopen(path, "rb");

	if (f == NULL) {
		perror(path);
		bad_inputs++;
		return;
	}
	size_t n = fread(data, 1, sizeof(data), f);
	fclose(f);
	inputs++;
	if (litmus_input(data, n, &r))
		return;
	bad_inputs++;
	sched_print(text);
	printf("%s: FAIL: %s\n  schedule %s\n", path, r.what, text);
	litmus_input_print(data, n);
	print_switches();
}

static int
run_inputs(char **paths, int n)
{
	char path[4096];

	if (!litmus_input_begin())
		return 1;
	for (int i = 0; i < n; i++) {
		struct dirent **names = NULL;
		int k = scandir(paths[i], &names, NULL, alphasort);
		if (k < 0)
			run_file(paths[i]);
		for (int j = 0; j < k; j++) {
			snprintf(path, sizeof(path), "%s/%s", paths[i], names[j]->d_name);
			if (names[j]->d_name[0] != '.')
				run_file(path);
			free(names[j]);
		}
		free(names);
	}
	printf("h8: %u inputs, %u failed\n", inputs, bad_inputs);
	return bad_inputs != 0 || inputs == 0;
}

/* ---- command line ---- */

static int
list(void)
{
	const struct litmus *l;

	for (unsigned i = 0; (l = litmus_at(i)) != NULL; i++)
		printf("%-18s %u threads  %s\n", l->name, l->threads, l->about);
	return 0;
}

static const struct option options_[] = {
	{ "bound", required_argument, NULL, 'b' }, { "max", required_argument, NULL, 'm' },
	{ "pct", required_argument, NULL, 'p' }, { "depth", required_argument, NULL, 'd' },
	{ "seed", required_argument, NULL, 's' }, { "replay", required_argument, NULL, 'r' },
	{ "input", no_argument, NULL, 'i' }, { "list", no_argument, NULL, 'l' }, { NULL, 0, NULL, 0 },
};

static int
run_all(char **names, int n)
{
	uint64_t schedules = 0;
	unsigned tried = 0, failed = 0;
	double start = now_s();
	const struct litmus *l;

	for (int i = 0; i < n; i++) {
		if (litmus_find(names[i]) == NULL) {
			fprintf(stderr, "h8: no litmus %s\n", names[i]);
			return 2;
		}
	}
	for (unsigned i = 0; (l = litmus_at(i)) != NULL; i++) {
		bool wanted = n == 0;
		for (int k = 0; k < n; k++)
			wanted |= strcmp(names[k], l->name) == 0;
		if (!wanted)
			continue;
		tried++;
		failed += !try_litmus(l, &schedules);
	}
	double took = now_s() - start;
	printf("h8: %u litmus programs, %u failed; %llu schedules in %.1f s, %.0f/s\n", tried, failed,
	    (unsigned long long)schedules, took, (double)schedules / took);
	return failed != 0;
}

int
main(int argc, char **argv)
{
	const char *again = NULL;
	int c;

	while ((c = getopt_long(argc, argv, "", options_, NULL)) != -1) {
		switch (c) {
		case 'b': how.bound = (unsigned)atoi(optarg); break;
		case 'm': how.max = strtoull(optarg, NULL, 0); break;
		case 'p': how.pct = strtoull(optarg, NULL, 0); break;
		case 'd': how.depth = (unsigned)atoi(optarg); break;
		case 's': how.seed = strtoull(optarg, NULL, 0); break;
		case 'r': again = optarg; break;
		case 'i': return run_inputs(argv + optind, argc - optind);
		case 'l': return list();
		default: return 2;
		}
	}
	if (again != NULL)
		return replay(again);
	return run_all(argv + optind, argc - optind);
}
