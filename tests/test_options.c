/* test_options.c - the option parser: values, ranges, complaints, presets, the
 * fixpoint of parse and print, and the environment of a real process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "options.h"

static struct options o;
static uint8_t origin[OPTIONS_COUNT];
static char text[8192];
static struct print out;

static unsigned
parse(const char *s)
{
	print_init(&out, text, sizeof(text));
	memset(&o, 0xee, sizeof(o));
	return options_parse(&o, origin, "src", s, &out);
}

static void
defaults(void **state)
{
	(void)state;
	assert_int_equal(parse(""), 0);
	assert_string_equal(text, "");
	assert_int_equal(o.mode, OPT_MODE_HARDENED);
	assert_int_equal(o.seed, 0);
	assert_true(o.randomize);
	assert_int_equal(o.sweep_share, 25);
	assert_int_equal(o.span_quarantine_bytes, 16 << 20);
	assert_int_equal(o.span_quarantine_share, 5);
	assert_int_equal(o.scavenge, OPT_SCAVENGE_SLOW);
	assert_int_equal(o.scavenge_delay_ms, 1000);
	assert_int_equal(o.guards, OPT_GUARDS_AUTO);
	assert_int_equal(o.guard_vma_percent, 50);
	assert_string_equal(o.log, "stderr");
	assert_false(o.help);
	assert_int_equal(origin[OPTION_seed], ORIGIN_DEFAULT);
	assert_int_equal(origin[OPTION_randomize], ORIGIN_MODE);
}

static void
modes(void **state)
{
	(void)state;
	assert_int_equal(parse("mode=plain"), 0);
	assert_int_equal(o.mode, OPT_MODE_PLAIN);
	assert_false(o.randomize);
	assert_int_equal(o.sweep_share, 6);
	assert_int_equal(o.span_quarantine_bytes, 0);
	/* The mode is a preset wherever it stands: what is named wins. */
	assert_int_equal(parse("randomize=1:mode=plain,sweep_share=50"), 0);
	assert_true(o.randomize);
	assert_int_equal(o.sweep_share, 50);
	assert_int_equal(origin[OPTION_randomize], ORIGIN_USER);
	assert_int_equal(origin[OPTION_span_quarantine_bytes], ORIGIN_MODE);
	assert_int_equal(origin[OPTION_mode], ORIGIN_USER);
}

/* Every default and preset text must go through its own parser. */
static void
table_is_valid(void **state)
{
	static const char modes_of[][10] = { "plain", "hardened" };
	(void)state;
	parse("");
	for (size_t i = 0; i < OPTIONS_COUNT; i++) {
		const struct option_row *row = &options_table[i];
		assert_true(options_set(&o, "def", row->name, strlen(row->name), row->def,
		    strlen(row->def), &out));
		assert_ptr_equal(options_find(row->name, strlen(row->name)), row);
		assert_true(strlen(row->help) > 20 && strlen(row->help) < sizeof(row->help));
		for (size_t m = 0; m < ARRAY_LEN(modes_of); m++) {
			const char *v = options_preset(modes_of[m], row);
			if (v != NULL)
				assert_true(options_set(&o, "preset", row->name,
				    strlen(row->name), v, strlen(v), &out));
		}
	}
	assert_string_equal(text, "");
}

static void
numbers(void **state)
{
	(void)state;
	assert_int_equal(parse("seed=18446744073709551615"), 0);
	assert_true(o.seed == UINT64_MAX);
	assert_int_equal(parse("seed=0xDeadBeef"), 0);
	assert_true(o.seed == 0xdeadbeef);
	assert_int_equal(parse("span_quarantine_bytes=4K:scavenge_delay_ms=0"), 0);
	assert_int_equal(o.span_quarantine_bytes, 4096);
	assert_int_equal(o.scavenge_delay_ms, 0);
	assert_int_equal(parse("span_quarantine_bytes=1t"), 0);
	assert_true(o.span_quarantine_bytes == (uint64_t)1 << 40);
	assert_int_equal(parse("verify_every=4294967295"), 0);
	assert_int_equal(o.verify_every, UINT32_MAX);
}

struct bad {
	const char *input, *says;
};

static const struct bad bad_inputs[] = {
	{ "seeed=1", "src: unknown option 'seeed', the nearest is 'seed'\n" },
	{ "sweep-share=5", "src: unknown option 'sweep-share', the nearest is 'sweep_share'\n" },
	{ "qqqqqqqqqqqqq=5", "src: unknown option 'qqqqqqqqqqqqq', help=1 lists all\n" },
	{ "seed", "src: expected name=value, found 'seed'\n" },
	{ "=5", "src: expected name=value, found '=5'\n" },
	{ "mode", "src: expected name=value, found 'mode'\n" },
	{ "log=\"abc", "src: expected name=value, found 'log=\"abc'\n" },
	{ "log='abc'd", "src: expected name=value, found 'log='abc'd'\n" },
	{ "mode=paranoid", "src: bad value 'paranoid' for mode, expected plain|hardened|strict|debug|guard; it stays hardened\n" },
	{ "mode=hardend", "src: bad value 'hardend' for mode, expected plain|hardened|strict|debug|guard (the nearest is 'hardened'); it stays hardened\n" },
	{ "sweep_share=0", "src: bad value '0' for sweep_share, expected 1..100; it stays 25\n" },
	{ "sweep_share=101", "src: bad value '101' for sweep_share, expected 1..100; it stays 25\n" },
	{ "sweep_share=", "src: bad value '' for sweep_share, expected 1..100; it stays 25\n" },
	{ "sweep_share=5k", "src: bad value '5k' for sweep_share, expected 1..100; it stays 25\n" },
	{ "sweep_share=-1", "src: bad value '-1' for sweep_share, expected 1..100; it stays 25\n" },
	{ "sweep_share=4294967297", "src: bad value '4294967297' for sweep_share, expected 1..100; it stays 25\n" },
	{ "seed=18446744073709551616", "src: bad value '18446744073709551616' for seed, expected 0..2^64-1; it stays 0\n" },
	{ "seed=0x", "src: bad value '0x' for seed, expected 0..2^64-1; it stays 0\n" },
	{ "span_quarantine_bytes=2t", "src: bad value '2t' for span_quarantine_bytes, expected 0..1t; it stays 16m\n" },
	{ "span_quarantine_bytes=16777216t", "src: bad value '16777216t' for span_quarantine_bytes, expected 0..1t; it stays 16m\n" },
	{ "span_quarantine_bytes=k", "src: bad value 'k' for span_quarantine_bytes, expected 0..1t; it stays 16m\n" },
	{ "randomize=2", "src: bad value '2' for randomize, expected 0|1; it stays 1\n" },
	{ "log=", "src: bad value '' for log, expected 1 to 255 bytes; it stays stderr\n" },
	{ "scavenge=\x01", "src: bad value '\\x01' for scavenge, expected off|slow|background; it stays slow\n" },
};

static void
complaints(void **state)
{
	(void)state;
	static struct options clean;
	parse("");
	clean = o;
	for (size_t i = 0; i < ARRAY_LEN(bad_inputs); i++) {
		assert_int_equal(parse(bad_inputs[i].input), 1);
		assert_string_equal(text, bad_inputs[i].says);
		assert_memory_equal(&o.mode, &clean.mode, sizeof(o.mode));
		assert_int_equal(o.sweep_share, clean.sweep_share);
		assert_true(o.span_quarantine_bytes == clean.span_quarantine_bytes);
		assert_string_equal(o.log, clean.log);
	}
	/* One bad item does not stop the others. */
	assert_int_equal(parse("::bogus=1,seed=5 :nope,sweep_share=7\n"), 2);
	assert_true(o.seed == 5);
	assert_int_equal(o.sweep_share, 7);
}

static void
strings(void **state)
{
	char longest[300];
	(void)state;
	assert_int_equal(parse("log=\"/a:b,c d\":seed=3"), 0);
	assert_string_equal(o.log, "/a:b,c d");
	assert_true(o.seed == 3);
	assert_int_equal(parse("log='/x\"y:z'"), 0);
	assert_string_equal(o.log, "/x\"y:z");
	memcpy(longest, "log=", 4);
	memset(longest + 4, 'x', 255);
	longest[259] = 0;
	assert_int_equal(parse(longest), 0);
	assert_int_equal(strlen(o.log), 255);
	longest[259] = 'x';
	longest[260] = 0;
	assert_int_equal(parse(longest), 1);
	assert_string_equal(o.log, "stderr");
}

static void
fixpoint_of(const char *input)
{
	static struct options first;
	static char once[4096];
	static char twice[4096];
	struct print p;
	parse(input);
	first = o;
	print_init(&p, once, sizeof(once));
	options_print(&first, &p);
	assert_false(p.truncated);
	assert_int_equal(parse(once), 0);
	print_init(&p, twice, sizeof(twice));
	options_print(&o, &p);
	assert_string_equal(once, twice);
	assert_true(first.seed == o.seed);
	assert_string_equal(first.log, o.log);
}

/* OPTIONS-1, over texts put together at random from pieces that matter. */
static void
fixpoint(void **state)
{
	static const char *const pieces[] = {
		"log=", "seed=", "mode=", "plain", "hardened", "sweep_share", "=", ":", ",",
		"\"", "'", " ", "1", "17", "0x7f", "16m", "k", "off", "span_quarantine_bytes=",
		"x", "%p", "\\", "scavenge=background", "guards=mprotect", "\n", "help=1",
	};
	uint64_t r = 1;
	(void)state;
	for (unsigned round = 0; round < 20000; round++) {
		char s[512];
		size_t n = 0;
		for (unsigned i = 0; i < 12; i++) {
			r = r * 6364136223846793005u + 1442695040888963407u;
			const char *piece = pieces[(r >> 33) % ARRAY_LEN(pieces)];
			memcpy(s + n, piece, strlen(piece));
			n += strlen(piece);
		}
		s[n] = 0;
		fixpoint_of(s);
	}
}

/* The output of a child that runs options_init in the given environment. */
static int
init_in_child(const char *opts, const char *strict, char *got, size_t cap)
{
	int fd[2];
	int status;
	size_t n = 0;
	ssize_t r;
	assert_int_equal(pipe(fd), 0);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		dup2(fd[1], 2);
		close(fd[0]);
		close(fd[1]);
		setenv("SPANGUARD_OPTIONS", opts, 1);
		setenv("SPANGUARD_STRICT_OPTIONS", strict, 1);
		options_init();
		_exit((int)options.sweep_share);
	}
	close(fd[1]);
	while (n < cap - 1 && (r = read(fd[0], got + n, cap - 1 - n)) > 0)
		n += (size_t)r;
	got[n] = 0;
	close(fd[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void
environment(void **state)
{
	static char got[32768];
	(void)state;
	assert_int_equal(init_in_child("sweep_share=33", "1", got, sizeof(got)), 33);
	assert_string_equal(got, "");
	assert_int_equal(init_in_child("sweep_share=330", "", got, sizeof(got)), 25);
	assert_string_equal(got, "spanguard: warning: SPANGUARD_OPTIONS: bad value '330' for "
	    "sweep_share, expected 1..100; it stays 25\n");
	assert_int_equal(init_in_child("sweep_share=330", "1", got, sizeof(got)), 2);
	assert_non_null(strstr(got, "'330'"));
	assert_int_equal(init_in_child("help=1:mode=plain", "1", got, sizeof(got)), 6);
	for (size_t i = 0; i < OPTIONS_COUNT; i++)
		assert_non_null(strstr(got, options_table[i].name));
	assert_non_null(strstr(got, "sweep_share=6"));
}

extern char **environ;

/* The state of a malloc that is called before libc has set `environ`: this
 * program starts itself again and hides the environment from itself. */
static int
early_child(void)
{
	environ = NULL;
	options_init();
	return (int)options.sweep_share;
}

static void
early_environment(void **state)
{
	int status;
	(void)state;
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		static char filler[9000] = "FILLER=";
		char *argv[] = { (char *)"test_options", (char *)"early", NULL };
		char *env[] = { filler, (char *)"SPANGUARD_OPTION=sweep_share=91",
			(char *)"SPANGUARD_OPTIONS=sweep_share=77",
			(char *)"SPANGUARD_OPTIONS=sweep_share=92", NULL };
		memset(filler + 7, 'S', sizeof(filler) - 8);
		execve("/proc/self/exe", argv, env);
		_exit(99);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 77);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),
		cmocka_unit_test(modes),
		cmocka_unit_test(table_is_valid),
		cmocka_unit_test(numbers),
		cmocka_unit_test(complaints),
		cmocka_unit_test(strings),
		cmocka_unit_test(fixpoint),
		cmocka_unit_test(environment),
		cmocka_unit_test(early_environment),
	};
	if (argc > 1 && strcmp(argv[1], "early") == 0)
		return early_child();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
