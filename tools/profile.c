/* profile.c - spanguard profile: runs a program with a heap profile, or turns a
 * profile into folded stacks.
 *
 *   spanguard profile [OPTION ..] [--] PROGRAM ..   run with records and profile on
 *   spanguard profile --folded FILE                 "main;f;malloc 4096", in use
 *   spanguard profile --folded-total FILE           the same of all ever allocated
 *
 * Folded stacks are what flamegraph.pl, inferno and speedscope take. Bytes of a
 * sampled profile are scaled up as pprof does: one object of s bytes stands for
 * 1 / (1 - exp(-s / every)). */
#define _GNU_SOURCE
#include "symbols.h"
#include "tools.h"

#include <elf.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FRAMES = 64, NAMES = 512, PASS_ON = 3 };

struct mapping {
	uintptr_t start, end;
	uintptr_t bias;              /* address less what the ELF file says */
	char *path;
};

struct profile {
	struct mapping *map;
	size_t n_maps;
	double every;                /* 0: all objects are in it */
	bool total;
};

/* ---- mappings ----------------------------------------------------------- */

static bool
is_fixed(const char *path)
{
	Elf64_Ehdr h;
	FILE *f = fopen(path, "re");
	bool fixed = f != NULL && fread(&h, sizeof(h), 1, f) == 1 && h.e_type == ET_EXEC;
	if (f != NULL)
		fclose(f);
	return fixed;
}

/* A module begins where its file's first byte is mapped. */
static void
add_mapping(struct profile *p, const char *line)
{
	unsigned long start, end, offset;
	int path_at = 0;
	if (sscanf(line, "%lx-%lx %*s %lx %*s %*s %n", &start, &end, &offset, &path_at) != 3 ||
	    path_at == 0 || line[path_at] != '/')
		return;
	struct mapping *more = realloc(p->map, (p->n_maps + 1) * sizeof(*more));
	if (more == NULL)
		return;
	p->map = more;
	struct mapping *m = &more[p->n_maps];
	*m = (struct mapping){ start, end, start, strndup(line + path_at, strcspn(line + path_at, "\n")) };
	if (m->path == NULL)
		return;
	if (offset != 0 && p->n_maps != 0 && strcmp(more[p->n_maps - 1].path, m->path) == 0)
		m->bias = more[p->n_maps - 1].bias;
	else if (is_fixed(m->path))
		m->bias = 0;
	p->n_maps++;
}

static const struct mapping *
mapping_of(const struct profile *p, uintptr_t pc)
{
	for (size_t i = 0; i < p->n_maps; i++)
		if (pc - p->map[i].start < p->map[i].end - p->map[i].start)
			return &p->map[i];
	return NULL;
}

/* ---- names -------------------------------------------------------------- */

/* Innermost first, as frames and inlined functions come. */
struct names {
	char *name[NAMES];
	size_t n;
};

static void
add_name(struct names *s, char *name)
{
	if (name == NULL || s->n == NAMES) {
		free(name);
		return;
	}
	for (char *c = name; *c != 0; c++)
		if (*c == ';' || *c == '\n')
			*c = ':';
	s->name[s->n++] = name;
}

static void
put_function(void *ctx, const char *name, struct place at)
{
	(void)at;
	add_name(ctx, plain_name(name));
}

static void
add_frame(const struct profile *p, struct names *s, uintptr_t pc)
{
	const struct mapping *m = mapping_of(p, pc);
	char *text = NULL;
	if (m == NULL) {
		add_name(s, strdup("[unknown]"));
		return;
	}
	struct object *o = object_of(m->path, "");
	if (each_function(o, pc - m->bias, put_function, s) != 0)
		return;
	const char *symbol = object_symbol(o, pc - m->bias);
	const char *file = strrchr(m->path, '/');
	if (symbol != NULL)
		add_name(s, plain_name(symbol));
	else if (asprintf(&text, "[%s]", file != NULL ? file + 1 : m->path) > 0)
		add_name(s, text);
}

/* ---- rows --------------------------------------------------------------- */

static double
scaled(const struct profile *p, double n, double bytes)
{
	if (p->every == 0 || n == 0 || bytes == 0)
		return bytes;
	return bytes / (1 - exp(-(bytes / n) / p->every));
}

static void
fold_row(const struct profile *p, const char *line)
{
	unsigned long n, bytes, all_n, all_bytes;
	int at = 0;
	struct names s = { .n = 0 };
	if (sscanf(line, "%lu: %lu [%lu: %lu] @%n", &n, &bytes, &all_n, &all_bytes, &at) != 4 ||
	    at == 0)
		return;
	double value = p->total ? scaled(p, (double)all_n, (double)all_bytes) :
	    scaled(p, (double)n, (double)bytes);
	if (value < 1)
		return;
	for (char *end; line[at] == ' '; at = (int)(end - line)) {
		uintptr_t pc = strtoul(line + at, &end, 16);
		add_frame(p, &s, pc - 1);
	}
	while (s.n > 0) {
		printf("%s%s", s.name[s.n - 1], s.n > 1 ? ";" : "");
		free(s.name[--s.n]);
	}
	printf(" %.0f\n", value);
}

static bool
read_head(struct profile *p, const char *line)
{
	const char *kind = strstr(line, "] @ ");
	if (strncmp(line, "heap profile: ", 14) != 0 || kind == NULL)
		return false;
	const char *every = strstr(kind, "heap_v2/");
	p->every = every != NULL ? strtod(every + 8, NULL) : 0;
	return true;
}

/* The mappings stand behind the rows: twice through. */
static int
fold(const char *path, bool total)
{
	struct profile p = { .total = total };
	char *line = NULL;
	size_t cap = 0;
	FILE *f = fopen(path, "re");
	if (f == NULL) {
		fprintf(stderr, "spanguard: %s: %s\n", path, strerror(errno));
		return EXIT_CANNOT;
	}
	bool ok = getline(&line, &cap, f) > 0 && read_head(&p, line);
	while (ok && getline(&line, &cap, f) > 0)
		add_mapping(&p, line);
	rewind(f);
	while (ok && getline(&line, &cap, f) > 0 && line[0] != '\n')
		fold_row(&p, line);
	if (!ok)
		fprintf(stderr, "spanguard: %s is no heap profile\n", path);
	for (size_t i = 0; i < p.n_maps; i++)
		free(p.map[i].path);
	free(p.map);
	free(line);
	fclose(f);
	return ok && !ferror(stdout) ? 0 : EXIT_CANNOT;
}

/* ---- the command -------------------------------------------------------- */

int
command_profile(int argc, char **argv)
{
	static char run[] = "run", records[] = "--records=1", every[] = "--profile=512k";
	if (argc < 2)
		usage_error("profile wants a program", "");
	if (strcmp(argv[1], "--folded") == 0 || strcmp(argv[1], "--folded-total") == 0) {
		if (argc != 3)
			usage_error("a heap profile is wanted behind ", argv[1]);
		return fold(argv[2], argv[1][8] != 0);
	}
	char **with = calloc((size_t)argc + PASS_ON, sizeof(*with));
	if (with == NULL)
		return EXIT_CANNOT;
	with[0] = run;
	with[1] = records;
	with[2] = every;
	for (int i = 1; i < argc; i++)
		with[i + 2] = argv[i];
	return command_run(argc + 2, with);
}
