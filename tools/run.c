/* run.c - spanguard [run]: the command line, the library, the environment.
 *
 * Check the options against the table of the library, check that a preload can
 * work (preflight.c), then start the program and stay (attend.c), or become it. */
#define _GNU_SOURCE
#include "tools.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "run.h"
#include "../src/options.h"

/* ---- the command line --------------------------------------------------- */

static void
set_library(char *out, const char *path)
{
	if (realpath(path, out) == NULL) {
		fprintf(stderr, "spanguard: library %s: %s\n", path, strerror(errno));
		exit(EXIT_CANNOT);
	}
}

/* Appends name=value as the table prints it, so that quotes are right. */
static void
add_option(struct run *c, const struct option_row *row, const struct options *o)
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
take_table_option(struct run *c, char **argv)
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
take_environment(struct run *c)
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

static bool
take_flag(struct run *c, const char *arg)
{
	if (strcmp(arg, "--no-symbolize") == 0)
		c->symbolize = false;
	else if (strcmp(arg, "--force") == 0)
		c->force = true;
	else if (strcmp(arg, "--no-pools") == 0)
		c->no_pools = true;
	else
		return false;
	return true;
}

/* A file of the program's reports must not depend on where it goes (chdir). */
static void
set_file(struct run *c, const char *option, const char *given, char *out)
{
	char here[PATH_MAX];
	const struct option_row *row = options_find(option, strlen(option));
	struct options o;
	char complaint[512];
	struct print p;
	print_init(&p, complaint, sizeof(complaint));
	options_parse(&o, NULL, "spanguard", "", &p);
	if (given[0] == 0 || strcmp(given, "stderr") == 0)
		return;
	if (given[0] == '/')
		snprintf(out, PATH_MAX, "%s", given);
	else if (getcwd(here, sizeof(here)) != NULL &&
	    snprintf(out, PATH_MAX, "%s/%s", here, given) >= PATH_MAX)
		usage_error("path too long: ", given);
	if (!options_set(&o, "spanguard", option, strlen(option), out, strlen(out), &p)) {
		fputs(complaint, stderr);
		exit(EXIT_USAGE);
	}
	add_option(c, row, &o);
}

/* For whoever reads it afterwards: a run without a finding leaves an empty one.
 * That it cannot be written to is said with the first report. */
static void
make_file(const char *name)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0666);
	if (fd >= 0)
		close(fd);
}

static void
set_files(struct run *c)
{
	static struct options o;
	char complaint[4096];
	struct print p;
	print_init(&p, complaint, sizeof(complaint));
	options_parse(&o, NULL, "spanguard", c->options, &p);
	c->ignores_leaks = !o.leak_check && (o.mode == OPT_MODE_DEBUG || o.mode == OPT_MODE_GUARD);
	set_file(c, "log", o.log, c->log);
	set_file(c, "json", o.json, c->json);
	if (c->json[0] != 0 && strchr(c->json, '%') == NULL)
		make_file(c->json);
}

static void
parse_run(struct run *c, char **argv)
{
	c->symbolize = true;
	take_environment(c);
	while (argv[0] != NULL && strncmp(argv[0], "--", 2) == 0) {
		if (argv[0][2] == 0) {
			argv++;
			break;
		}
		if (take_flag(c, argv[0])) {
			argv++;
		} else if (strncmp(argv[0], "--lib=", 6) == 0) {
			set_library(c->library, argv[0] + 6);
			argv++;
		} else if (strcmp(argv[0], "--help") == 0) {
			exit(command_help(0, NULL));
		} else {
			argv += take_table_option(c, argv);
		}
	}
	if (argv[0] == NULL)
		usage_error("no program given", "");
	if (argv[0][0] == '-')
		usage_error("unknown option ", argv[0]);
	c->argv = argv;
	set_files(c);
}

/* ---- the library -------------------------------------------------------- */

bool
find_library(char *out)
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
	if (given != NULL && given[0] != 0) {
		set_library(out, given);
		return true;
	}
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	self[n > 0 ? n : 0] = 0;
	if (strrchr(self, '/') == NULL)
		return false;
	*strrchr(self, '/') = 0;
	for (size_t i = 0; i < ARRAY_LEN(places); i++) {
		snprintf(path, sizeof(path), "%s/%s", self, places[i]);
		if (access(path, R_OK) == 0) {
			set_library(out, path);
			return true;
		}
	}
	return false;
}

static void
need_library(struct run *c)
{
	if (c->library[0] != 0 || find_library(c->library))
		return;
	fputs("spanguard: libspanguard.so is not next to this command; name it in SPANGUARD_LIB "
	    "or with --lib=FILE\n", stderr);
	exit(EXIT_CANNOT);
}

static void
set_environment(const struct run *c)
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
	if (c->no_pools) {
		setenv("PYTHONMALLOC", "malloc", 1);
		setenv("G_SLICE", "always-malloc", 1);
		setenv("GLIBCXX_FORCE_NEW", "1", 1);
	}
	free(list);
}

_Noreturn void
exec_program(const struct run *c, int error_fd)
{
	execvp(c->argv[0], c->argv);
	int e = errno;
	if (error_fd >= 0 && write(error_fd, &e, sizeof(e)) < 0)
		e = errno;
	fprintf(stderr, "spanguard: %s: %s\n", c->argv[0], strerror(e));
	_exit(e == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE);
}

int
command_run(int argc, char **argv)
{
	static struct run c;
	(void)argc;
	parse_run(&c, argv + 1);
	need_library(&c);
	int r = preflight(c.argv[0], c.library, c.program, c.force);
	if (r != 0)
		return r;
	set_environment(&c);
	if (!c.symbolize)
		exec_program(&c, -1);
	run_and_stay(&c);
}
