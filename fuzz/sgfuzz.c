/* sgfuzz.c - inputs without a fuzzing engine.
 *
 *   sgfuzz run [-t] [-n TIMES] HARNESS PATH...    every input once, or TIMES times
 *   sgfuzz stable [-n ROUNDS] HARNESS PATH...     the same edges in each round? (stable.c)
 *   sgfuzz random [-n OPERATIONS] [-s SEED] HARNESS   that many, at random (random.c)
 *   sgfuzz dump HARNESS FILE                      as text
 *   sgfuzz asm HARNESS [TEXT]                     text (or stdin) to bytes, on stdout
 *   sgfuzz min HARNESS FILE OUT                   fewer ops that fail in the same way
 *   sgfuzz c HARNESS FILE                         as a C program for any malloc
 *   sgfuzz bits FILE...                           which flipped bits verify reports
 *   sgfuzz sweep MOST FILE...                     H7: each call to the system fails in
 *                                                 turn, the first MOST of each input
 *   sgfuzz enumerate LENGTH                       all short programs of H9
 *   sgfuzz list                                   names of the harnesses
 *
 * PATH is a file, or a directory for all files in it, in order of name. run -t
 * prints the trace hash of each input; -n fails if two traces of one input
 * differ. Status 0: all passed; 2: wrong usage; else a failing input aborted the
 * run, and the last lines name oracle and input. */
#define _GNU_SOURCE
#include "harness.h"
#include "check.h"
#include "fheap.h"
#include "sgfuzz.h"

#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const struct sg_harness *const harnesses[] = {
#define HARNESS(name) &sg_h_##name,
#include "harnesses.def"
};

/* A report of a sanitizer ends in SIGABRT too. */
const char *__asan_default_options(void);
const char *
__asan_default_options(void)
{
	return "abort_on_error=1:handle_abort=0:detect_leaks=0";
}

const char *__ubsan_default_options(void);
const char *
__ubsan_default_options(void)
{
	return "print_stacktrace=1:abort_on_error=1";
}

static void
name_input(int sig)
{
	const char *s = sg_at.input != NULL ? sg_at.input : "?";

	if (write(2, "sgfuzz: died at input=", 22) < 0 || write(2, s, strlen(s)) < 0 ||
	    write(2, "\n", 1) < 0)
		_exit(1);
	signal(sig, SIG_DFL);
	raise(sig);
}

size_t
sgfuzz_read(const char *path, uint8_t *out)
{
	FILE *f = fopen(path, "rb");
	size_t n;

	if (f == NULL) {
		perror(path);
		exit(2);
	}
	n = fread(out, 1, SGF_MAX_BYTES, f);
	fclose(f);
	return n;
}

uint64_t
sgfuzz_run_once(const struct sg_harness *h, const uint8_t *data, size_t bytes)
{
	sg_at.harness = h->name;
	sg_at.op = -1;
	sg_trace = 1;
	h->run(data, bytes);
	sg_heap_forget();
	return sg_trace;
}

/* ---- run ---- */

static struct {
	const struct sg_harness *h;
	uint64_t times, seed;
	bool trace, collects;
	unsigned long ran;
	struct sgfuzz_input *in;
	size_t inputs;
} job = { .times = 1 };

/* Kept for sgfuzz_stable. */
static void
collect(const char *path, const uint8_t *data, size_t n)
{
	struct sgfuzz_input *in = realloc(job.in, (job.inputs + 1) * sizeof(*in));
	uint8_t *copy = malloc(n != 0 ? n : 1);

	if (in == NULL || copy == NULL)
		abort();
	job.in = in;
	memcpy(copy, data, n);
	in[job.inputs++] = (struct sgfuzz_input){ strdup(path), copy, n };
}

static void
run_file(const char *path)
{
	static uint8_t data[SGF_MAX_BYTES];
	size_t n = sgfuzz_read(path, data);

	if (job.collects) {
		collect(path, data, n);
		return;
	}
	uint64_t first;

	sg_at.input = path;
	/* exactly as long as the input, so that a read behind it is seen */
	uint8_t *copy = malloc(n != 0 ? n : 1);
	memcpy(copy, data, n);
	first = sgfuzz_run_once(job.h, copy, n);
	for (uint64_t i = 1; i < job.times; i++)
		SG_CHECK(SAME, sgfuzz_run_once(job.h, copy, n) == first,
		    "run %llu left another trace", (unsigned long long)i);
	if (job.trace)
		printf("%016llx %s\n", (unsigned long long)first, path);
	free(copy);
	job.ran++;
}

static void
run_path(const char *path)
{
	struct dirent **list;
	struct stat st;
	char *name;            /* no room for it on the stack: H15 would find there what was before */
	int n;

	if (stat(path, &st) != 0) {
		perror(path);
		exit(2);
	}
	if (!S_ISDIR(st.st_mode)) {
		run_file(path);
		return;
	}
	n = scandir(path, &list, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		if (asprintf(&name, "%s/%s", path, list[i]->d_name) < 0)
			abort();
		if (list[i]->d_name[0] != '.' && strstr(list[i]->d_name, ".expect") == NULL)
			run_path(name);
		free(name);
		free(list[i]);
	}
	free(list);
}

static int
run_inputs(int argc, char **argv)
{
	struct timespec a, b;
	double s;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
	for (int i = 0; i < argc; i++)
		run_path(argv[i]);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
	s = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9;
	printf("%s: %lu inputs passed, %.0f executions per second of CPU\n", job.h->name, job.ran,
	    (double)job.ran * (double)job.times / s);
	return 0;
}

static int
stable(int argc, char **argv)
{
	job.collects = true;
	for (int i = 0; i < argc; i++)
		run_path(argv[i]);
	return sgfuzz_stable(job.h, job.in, job.inputs, (unsigned)job.times);
}

/* ---- text ---- */

static int
dump(const char *path)
{
	static uint8_t data[SGF_MAX_BYTES];

	sgf_print(data, sgfuzz_read(path, data), job.h->language, stdout);
	return 0;
}

static int
assemble(const char *path)
{
	static uint8_t data[SGF_MAX_BYTES];
	FILE *in = path != NULL ? fopen(path, "r") : stdin;
	size_t n;

	if (in == NULL) {
		perror(path);
		return 2;
	}
	n = sgf_parse(in, path != NULL ? path : "stdin", job.h->language, data);
	return n != 0 && fwrite(data, 1, n, stdout) == n ? 0 : 2;
}

static int
bits(int argc, char **argv)
{
	static uint8_t data[SGF_MAX_BYTES];

	for (int i = 0; i < argc; i++)
		sg_count_bits(data, sgfuzz_read(argv[i], data));
	return sg_print_bits();
}

static int
sweep(uint64_t most, int argc, char **argv)
{
	static uint8_t data[SGF_MAX_BYTES];
	unsigned long long runs = 0;

	sg_at.harness = "fault";
	for (int i = 0; i < argc; i++) {
		sg_at.input = argv[i];
		runs += sg_fault_sweep(data, sgfuzz_read(argv[i], data), most);
	}
	printf("sweep: %d inputs, %llu runs, in each another call failed\n", argc, runs);
	return 0;
}

static int
usage(void)
{
	fprintf(stderr, "usage: sgfuzz run [-t] [-n TIMES] HARNESS PATH...\n"
	    "       sgfuzz stable [-n ROUNDS] HARNESS PATH...\n"
	    "       sgfuzz random [-n OPERATIONS] [-s SEED] HARNESS\n"
	    "       sgfuzz dump|min|c HARNESS FILE [OUT]\n       sgfuzz asm HARNESS [TEXT]\n"
	    "       sgfuzz bits FILE...\n       sgfuzz sweep MOST FILE...\n       sgfuzz enumerate LENGTH\n       sgfuzz list\n");
	return 2;
}

static int
list(void)
{
	for (size_t i = 0; i < sizeof(harnesses) / sizeof(harnesses[0]); i++)
		puts(harnesses[i]->name);
	return 0;
}

static int
dispatch(const char *command, int argc, char **argv)
{
	if (strcmp(command, "run") == 0 && argc > 0)
		return run_inputs(argc, argv);
	if (strcmp(command, "stable") == 0 && argc > 0)
		return stable(argc, argv);
	if (strcmp(command, "random") == 0 && argc == 0)
		return sgfuzz_random(job.h, job.seed, job.times);
	if (strcmp(command, "dump") == 0 && argc == 1)
		return dump(argv[0]);
	if (strcmp(command, "asm") == 0 && argc < 2)
		return assemble(argc == 1 ? argv[0] : NULL);
	if (strcmp(command, "min") == 0 && argc == 2)
		return sgfuzz_min(job.h, argv[0], argv[1]);
	if (strcmp(command, "c") == 0 && argc == 1)
		return sgfuzz_c(job.h, argv[0]);
	return usage();
}

int
main(int argc, char **argv)
{
	const char *command = argc > 1 ? argv[1] : "";
	int c;

	if (strcmp(command, "list") == 0)
		return list();
	if (strcmp(command, "bits") == 0 && argc > 2)
		return bits(argc - 2, argv + 2);
	if (strcmp(command, "sweep") == 0 && argc > 3)
		return sweep(strtoull(argv[2], NULL, 10), argc - 3, argv + 3);
	if (strcmp(command, "enumerate") == 0 && argc == 3)
		return sgfuzz_enumerate((unsigned)atoi(argv[2]));
	optind = 2;
	while (argc > 2 && (c = getopt(argc, argv, "+n:s:t")) != -1) {
		if (c == 'n')
			job.times = strtoull(optarg, NULL, 10);
		else if (c == 's')
			job.seed = strtoull(optarg, NULL, 10);
		else if (c == 't')
			job.trace = true;
		else
			return usage();
	}
	for (size_t i = 0; optind < argc && i < sizeof(harnesses) / sizeof(harnesses[0]); i++)
		if (strcmp(harnesses[i]->name, argv[optind]) == 0)
			job.h = harnesses[i];
	if (job.h == NULL)
		return usage();
	signal(SIGABRT, name_input);
	return dispatch(command, argc - optind - 1, argv + optind + 1);
}
