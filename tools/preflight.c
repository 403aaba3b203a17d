/* preflight.c - is there a program, and is there a reason why a preload cannot work?
 *
 * A loader that ignores LD_PRELOAD does so silently, and then the program runs
 * unprotected. The reasons are in checks.c. Of a script the interpreter counts. */
#define _GNU_SOURCE
#include "tools.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checks.h"

enum { SCRIPT_DEPTH = 4 };

/* ---- finding the program ------------------------------------------------ */

static bool
is_file(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

/* As execvp(3) does; false if there is none. Prefers one that may be run. */
static bool
find_program(const char *program, char *out)
{
	const char *dirs = getenv("PATH");
	char found[PATH_MAX] = "";
	if (strchr(program, '/') != NULL) {
		snprintf(out, PATH_MAX, "%s", program);
		return access(program, F_OK) == 0;
	}
	if (dirs == NULL)
		dirs = "/usr/local/bin:/usr/bin:/bin";
	for (;;) {
		size_t n = strcspn(dirs, ":");
		snprintf(out, PATH_MAX, "%.*s%s%s", (int)n, dirs, n != 0 ? "/" : "./", program);
		if (is_file(out) && access(out, X_OK) == 0)
			return true;
		if (is_file(out) && found[0] == 0)
			memcpy(found, out, PATH_MAX);
		if (dirs[n] == 0)
			break;
		dirs += n + 1;
	}
	memcpy(out, found, PATH_MAX);
	return found[0] != 0;
}

/* ---- scripts ------------------------------------------------------------- */

/* The interpreter that a script's first line names; false: the shell runs it, or
 * it cannot be read. */
static bool
interpreter(const char *path, char *out)
{
	char line[PATH_MAX];
	FILE *f = fopen(path, "re");
	char *s = f != NULL ? fgets(line, sizeof(line), f) : NULL;
	if (f != NULL)
		fclose(f);
	if (s == NULL || strncmp(s, "#!", 2) != 0)
		return false;
	s += 2 + strspn(s + 2, " \t");
	s[strcspn(s, " \t\n")] = 0;
	snprintf(out, PATH_MAX, "%s", s);
	return true;
}

/* Follows scripts to the file that is loaded in the end. 0: `path` is an ELF file;
 * -1: nothing to check. */
static int
resolve(char *path, struct elf_facts *facts)
{
	char next[PATH_MAX];
	for (int depth = 0;; depth++) {
		*facts = elf_facts(path);
		if (facts->is_elf)
			return 0;
		if (!interpreter(path, next))
			return -1;
		if (depth == SCRIPT_DEPTH || access(next, X_OK) != 0) {
			fprintf(stderr, "spanguard: %s: its interpreter %s cannot be run: %s\n",
			    path, next, strerror(errno));
			return EXIT_NOT_EXECUTABLE;
		}
		memcpy(path, next, PATH_MAX);
	}
}

/* ---- before a run --------------------------------------------------------- */

static int
refuse(const struct subject *s, const struct finding *f)
{
	fprintf(stderr, "spanguard: cannot work with %s: %s\n  %s\n", s->path, f->found, f->fix);
	return EXIT_CANNOT;
}

static int
find_and_resolve(const char *program, char *path_out, struct subject *s)
{
	static char loaded[PATH_MAX];
	if (program[0] == 0 || !find_program(program, path_out)) {
		fprintf(stderr, "spanguard: %s: not found\n", program);
		return EXIT_NOT_FOUND;
	}
	if (!is_file(path_out) || access(path_out, X_OK) != 0) {
		fprintf(stderr, "spanguard: %s: not executable\n", path_out);
		return EXIT_NOT_EXECUTABLE;
	}
	memcpy(loaded, path_out, PATH_MAX);
	s->path = loaded;
	return resolve(loaded, &s->program);
}

int
preflight(const char *program, const char *library, char *path_out, bool force)
{
	struct subject s = { .library = library, .lib = elf_facts(library) };
	int r = find_and_resolve(program, path_out, &s);
	if (r != 0)
		return r > 0 ? r : 0;
	for (size_t i = 0; i < checks_n; i++) {
		struct finding f = { 0 };
		checks[i].look(&s, &f);
		if (f.verdict == CHECK_REFUSE || (f.verdict == CHECK_PARTLY && !force))
			return refuse(&s, &f);
	}
	return 0;
}

/* ---- doctor: all of them ---------------------------------------------------- */

static const char *const verdicts[] = {
	[CHECK_FINE] = "ok", [CHECK_NOTE] = "note", [CHECK_PARTLY] = "FAIL", [CHECK_REFUSE] = "FAIL",
};

static bool
show_check(const struct check *c, const struct subject *s)
{
	struct finding f = { 0 };
	c->look(s, &f);
	printf("%-5s %-13s  %s\n", verdicts[f.verdict], c->name,
	    f.verdict == CHECK_FINE ? c->why : f.found);
	if (f.verdict != CHECK_FINE)
		printf("                     why: %s\n                     fix: %s\n", c->why, f.fix);
	return f.verdict < CHECK_PARTLY;
}

int
command_doctor(int argc, char **argv)
{
	static char library[PATH_MAX], path[PATH_MAX];
	struct subject s = { .library = library };
	bool fine = true;
	int at = 1, r = -1;
	if (at < argc && strcmp(argv[at], "--") == 0)
		at++;
	if (find_library(library))
		s.lib = elf_facts(library);
	if (at < argc)
		r = find_and_resolve(argv[at], path, &s);
	if (r > 0)
		return r;
	if (r == 0)
		printf("%s\n", s.path);
	for (size_t i = 0; i < checks_n; i++)
		if (r == 0 || !checks[i].of_program)
			fine &= show_check(&checks[i], &s);
	return fine ? 0 : EXIT_CANNOT;
}
