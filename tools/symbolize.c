/* symbolize.c - function, file and line for the frames of a report.
 *
 *     #1 0x55.. in f (/bin/prog+0x1234) (BuildId: ab..)
 *  -> #1 0x55.. in inlined /src/a.c:3:7
 *     #2 0x55.. in f /src/a.c:12:3
 *
 * The SUMMARY and DEDUP_TOKEN lines get names, too; lines of JSON are done by
 * symbolize_json.c; all others pass through unchanged. */
#define _GNU_SOURCE
#include "tools.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "symbols.h"

/* A frame line taken apart; offsets are into the line. */
struct frame {
	char pc[24];
	char symbol[512];        /* "" if none */
	char path[PATH_MAX];
	char build_id[80];
	Dwarf_Addr offset;
};

static void
put_place(FILE *out, struct place at)
{
	fprintf(out, " %s", at.file != NULL ? at.file : "??");
	if (at.line > 0)
		fprintf(out, ":%d", at.line);
	if (at.line > 0 && at.column > 0)
		fprintf(out, ":%d", at.column);
}

static void
put_name(FILE *out, const char *name)
{
	char *plain = plain_name(name);
	fputs(plain, out);
	free(plain);
}

/* ---- lines -------------------------------------------------------------- */

struct frame_out {
	FILE *out;
	const char *pc;
	int *number;
};

static void
put_frame(void *ctx, const char *name, struct place at)
{
	struct frame_out *f = ctx;
	fprintf(f->out, "    #%d %s in ", (*f->number)++, f->pc);
	put_name(f->out, name);
	put_place(f->out, at);
	fputc('\n', f->out);
}

/* Only the first, which is the innermost. */
static void
put_summary(void *ctx, const char *name, struct place at)
{
	struct frame_out *f = ctx;
	if ((*f->number)++ != 0)
		return;
	put_place(f->out, at);
	fputs(" in ", f->out);
	put_name(f->out, name);
	fputc('\n', f->out);
}

/* "(PATH+0xOFF)" with nothing of it missing; the end of it, or NULL. */
static const char *
parse_place(const char *s, struct frame *f)
{
	const char *close = strstr(s, ") (BuildId: ");
	if (close == NULL)
		close = strstr(s, ") in ");
	if (close == NULL)
		close = strrchr(s, ')');
	const char *plus = close;
	while (plus != NULL && plus > s && strncmp(plus, "+0x", 3) != 0)
		plus--;
	if (*s != '(' || plus == NULL || plus <= s || (size_t)(plus - s) > sizeof(f->path))
		return NULL;
	memcpy(f->path, s + 1, (size_t)(plus - s) - 1);
	f->path[plus - s - 1] = 0;
	char *end;
	f->offset = strtoull(plus + 1, &end, 16);
	return end == close ? close + 1 : NULL;
}

static bool
parse_frame(const char *line, struct frame *f)
{
	int no;
	int n = 0;
	memset(f, 0, sizeof(*f));
	if (sscanf(line, " #%d %23s %n", &no, f->pc, &n) != 2 || n == 0 ||
	    strncmp(f->pc, "0x", 2) != 0)
		return false;
	const char *s = line + n;
	if (strncmp(s, "in ", 3) == 0) {
		const char *open = strstr(s, " (");
		if (open == NULL)
			return false;
		snprintf(f->symbol, sizeof(f->symbol), "%.*s", (int)(open - s - 3), s + 3);
		s = open + 1;
	}
	s = parse_place(s, f);
	if (s == NULL)
		return false;
	sscanf(s, " (BuildId: %79[0-9a-f])", f->build_id);
	return true;
}

static bool
show_frame(const char *line, FILE *out, int *number)
{
	struct frame f;
	if (!parse_frame(line, &f))
		return false;
	struct object *o = object_of(f.path, f.build_id);
	struct frame_out fo = { out, f.pc, number };
	if (strncmp(line, "    #0 ", 7) == 0)
		*number = 0;
	if (o->module != NULL && each_function(o, f.offset, put_frame, &fo) != 0)
		return true;
	const char *name = object_symbol(o, f.offset);
	if (name == NULL && f.symbol[0] != 0)
		name = f.symbol;
	fprintf(out, "    #%d %s ", (*number)++, f.pc);
	if (name != NULL) {
		fputs("in ", out);
		put_name(out, name);
		fputc(' ', out);
	}
	fprintf(out, "(%s+0x%" PRIx64 ")", f.path, (uint64_t)f.offset);
	if (f.build_id[0] != 0)
		fprintf(out, " (BuildId: %s)", f.build_id);
	fputc('\n', out);
	return true;
}

/* The line has no build id; the frames above had one for the same path. */
static bool
show_summary(const char *line, FILE *out)
{
	struct frame f;
	int shown = 0;
	const char *open = strstr(line, " (");
	memset(&f, 0, sizeof(f));
	if (strncmp(line, "SUMMARY: spanguard: ", 20) != 0 || open == NULL ||
	    parse_place(open + 1, &f) == NULL)
		return false;
	for (struct object *o = objects; o != NULL; o = o->next) {
		if (strcmp(o->path, f.path) == 0)
			snprintf(f.build_id, sizeof(f.build_id), "%s", o->build_id);
	}
	struct object *o = object_of(f.path, f.build_id);
	struct frame_out fo = { out, f.pc, &shown };
	if (o->module == NULL)
		return false;
	char *text = NULL;
	size_t bytes = 0;
	fo.out = open_memstream(&text, &bytes);
	if (fo.out == NULL)
		return false;
	int n = each_function(o, f.offset, put_summary, &fo);
	fclose(fo.out);
	if (n != 0)
		fprintf(out, "%.*s%s", (int)(open - line), line, text);
	free(text);
	return n != 0;
}

static bool
show_token(const char *line, FILE *out)
{
	static const char head[] = "DEDUP_TOKEN: ";
	if (strncmp(line, head, strlen(head)) != 0)
		return false;
	fputs(head, out);
	put_token(line + strlen(head), out);
	fputc('\n', out);
	return true;
}

static void
show_line(const char *line, bool whole, FILE *out, int *number)
{
	if (line[0] == '{')
		symbolize_json(line, out);
	else if (!show_frame(line, out, number) && !show_summary(line, out) &&
	    !show_token(line, out))
		fprintf(out, "%s%s", line, whole ? "\n" : "");
}

void
symbolize_text(const char *text, FILE *out)
{
	int number = 0;
	while (*text != 0) {
		size_t n = strcspn(text, "\n");
		char *line = strndup(text, n);
		if (line == NULL)
			exit(EXIT_CANNOT);
		show_line(line, text[n] != 0, out, &number);
		free(line);
		text += n + (text[n] != 0);
	}
	fflush(out);
}

static int
symbolize_file(FILE *in, FILE *out)
{
	char *line = NULL;
	size_t cap = 0;
	int number = 0;
	while (getline(&line, &cap, in) > 0) {
		char *end = strchr(line, '\n');
		if (end != NULL)
			*end = 0;
		show_line(line, end != NULL, out, &number);
	}
	free(line);
	return ferror(in) || fflush(out) != 0 ? EXIT_CANNOT : 0;
}

int
command_symbolize(int argc, char **argv)
{
	static const char option[] = "--debug-dir=";
	FILE *in = stdin;
	if (argc > 1 && strncmp(argv[1], option, strlen(option)) == 0) {
		debug_dir = argv[1] + strlen(option);
		argv++;
		argc--;
	}
	if (argc > 2)
		usage_error("symbolize takes one file", "");
	if (argc == 2 && strcmp(argv[1], "-") != 0)
		in = fopen(argv[1], "re");
	if (in == NULL) {
		fprintf(stderr, "spanguard: %s: %s\n", argv[1], strerror(errno));
		return EXIT_CANNOT;
	}
	return symbolize_file(in, stdout);
}
