/* report.c - spanguard report FILE --to sarif|junit|github */
#define _GNU_SOURCE
#include "tools.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "ci_items.h"

struct request {
	const char *file, *to, *root;
};

/* --name VALUE or --name=VALUE; NULL: it is another argument. */
static const char *
value_of(const char *name, char ***argv)
{
	size_t n = strlen(name);
	if (strncmp(**argv, name, n) != 0)
		return NULL;
	if ((**argv)[n] == '=')
		return **argv + n + 1;
	if ((**argv)[n] != 0)
		return NULL;
	if ((*argv)[1] == NULL)
		usage_error("a value is missing after ", name);
	return *++*argv;
}

static void
parse(struct request *r, char **argv)
{
	const char *v;
	for (; *argv != NULL; argv++) {
		if ((v = value_of("--to", &argv)) != NULL)
			r->to = v;
		else if ((v = value_of("--root", &argv)) != NULL)
			r->root = v;
		else if (r->file == NULL && (strcmp(*argv, "-") == 0 || **argv != '-'))
			r->file = *argv;
		else
			usage_error("report does not take ", *argv);
	}
	if (r->file == NULL || r->to == NULL)
		usage_error("report takes a file and --to sarif, junit or github", "");
}

int
command_report(int argc, char **argv)
{
	struct request r = { .root = "." };
	char root[PATH_MAX];
	size_t n;
	(void)argc;
	parse(&r, argv + 1);
	if (realpath(r.root, root) == NULL) {
		fprintf(stderr, "spanguard: %s: %s\n", r.root, strerror(errno));
		return EXIT_CANNOT;
	}
	FILE *in = strcmp(r.file, "-") == 0 ? stdin : fopen(r.file, "re");
	if (in == NULL) {
		fprintf(stderr, "spanguard: %s: %s\n", r.file, strerror(errno));
		return EXIT_CANNOT;
	}
	struct ci_item *items = ci_items(in, r.file, root, &n);
	if (strcmp(r.to, "sarif") == 0)
		ci_put_sarif(items, root, stdout);
	else if (strcmp(r.to, "junit") == 0)
		ci_put_junit(items, n, stdout);
	else if (strcmp(r.to, "github") == 0)
		ci_put_github(items, stdout);
	else
		usage_error("report makes sarif, junit or github, not ", r.to);
	return fflush(stdout) != 0 ? EXIT_CANNOT : 0;
}
