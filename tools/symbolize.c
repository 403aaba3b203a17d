/* symbolize.c - function, file and line for the frames of a report.
 *
 *     #1 0x55.. in f (/bin/prog+0x1234) (BuildId: ab..)
 *  -> #1 0x55.. in inlined /src/a.c:3:7
 *     #2 0x55.. in f /src/a.c:12:3
 *
 * The file is taken when its build id is the one of the report; else the debug
 * file of that build id under /usr/lib/debug, so a report can be finished
 * later, after an upgrade or on another machine. Debug information comes from
 * elfutils, which looks under /usr/lib/debug and asks debuginfod if the user
 * set one up. Lines that are not frames pass through unchanged. */
#define _GNU_SOURCE
#include "tools.h"

#include <dlfcn.h>
#include <dwarf.h>
#include <elfutils/libdwfl.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct object {
	struct object *next;
	char *path;
	char *build_id;          /* hex; "" if the report has none */
	Dwfl *dwfl;
	Dwfl_Module *module;     /* NULL: nothing found */
};

/* A frame line taken apart; offsets are into the line. */
struct frame {
	char pc[24];
	char symbol[512];        /* "" if none */
	char path[PATH_MAX];
	char build_id[80];
	Dwarf_Addr offset;
};

static struct object *objects;

static char *debuginfo_path;

static const Dwfl_Callbacks callbacks = {
	.find_elf = dwfl_build_id_find_elf,
	.find_debuginfo = dwfl_standard_find_debuginfo,
	.section_address = dwfl_offline_section_address,
	.debuginfo_path = &debuginfo_path,
};

/* ---- objects ------------------------------------------------------------ */

static bool
build_id_is(Dwfl_Module *m, const char *hex)
{
	const unsigned char *bits;
	GElf_Addr at;
	char have[80] = "";
	int n = dwfl_module_build_id(m, &bits, &at);
	for (int i = 0; i < n && i < 32; i++)
		snprintf(have + 2 * i, 3, "%02x", bits[i]);
	return hex[0] == 0 || strcmp(have, hex) == 0;
}

static bool
load_file(struct object *o, const char *file)
{
	if (access(file, R_OK) != 0)
		return false;
	o->dwfl = dwfl_begin(&callbacks);
	if (o->dwfl == NULL)
		return false;
	dwfl_report_begin(o->dwfl);
	o->module = dwfl_report_elf(o->dwfl, file, file, -1, 0, false);
	dwfl_report_end(o->dwfl, NULL, NULL);
	if (o->module != NULL && build_id_is(o->module, o->build_id))
		return true;
	dwfl_end(o->dwfl);
	o->dwfl = NULL;
	o->module = NULL;
	return false;
}

static struct object *
object_of(const struct frame *f)
{
	char debug[PATH_MAX];
	for (struct object *o = objects; o != NULL; o = o->next) {
		if (strcmp(o->path, f->path) == 0 && strcmp(o->build_id, f->build_id) == 0)
			return o;
	}
	struct object *o = calloc(1, sizeof(*o));
	if (o == NULL || (o->path = strdup(f->path)) == NULL ||
	    (o->build_id = strdup(f->build_id)) == NULL)
		exit(EXIT_CANNOT);
	o->next = objects;
	objects = o;
	if (!load_file(o, f->path) && strlen(f->build_id) > 2) {
		snprintf(debug, sizeof(debug), "/usr/lib/debug/.build-id/%.2s/%s.debug",
		    f->build_id, f->build_id + 2);
		load_file(o, debug);
	}
	return o;
}

/* ---- names -------------------------------------------------------------- */

typedef char *demangle_fn(const char *, char *, size_t *, int *);

/* The demangler lives in the C++ runtime; without it names stay as they are. */
static void
put_name(FILE *out, const char *name)
{
	static demangle_fn *demangle;
	static bool looked;
	int status = 0;
	if (!looked) {
		void *lib = dlopen("libstdc++.so.6", RTLD_LAZY);
		void *fn = lib != NULL ? dlsym(lib, "__cxa_demangle") : NULL;
		memcpy(&demangle, &fn, sizeof(fn));
		looked = true;
	}
	char *plain = demangle != NULL && strncmp(name, "_Z", 2) == 0 ?
	    demangle(name, NULL, NULL, &status) : NULL;
	fputs(plain != NULL ? plain : name, out);
	free(plain);
}

static const char *
die_name(Dwarf_Die *die)
{
	Dwarf_Attribute a;
	const char *s = dwarf_formstring(dwarf_attr_integrate(die, DW_AT_linkage_name, &a));
	if (s == NULL)
		s = dwarf_formstring(dwarf_attr_integrate(die, DW_AT_MIPS_linkage_name, &a));
	if (s == NULL)
		s = dwarf_formstring(dwarf_attr_integrate(die, DW_AT_name, &a));
	return s;
}

/* The unit that covers addr. Clang writes no .debug_aranges, so ask each unit
 * when the index has nothing. */
static Dwarf_Die *
unit_of(Dwfl_Module *m, Dwarf_Addr addr, Dwarf_Addr *bias)
{
	Dwarf_Die *cu = dwfl_module_addrdie(m, addr, bias);
	if (cu != NULL)
		return cu;
	while ((cu = dwfl_module_nextcu(m, cu, bias)) != NULL) {
		if (dwarf_haspc(cu, addr - *bias) == 1)
			return cu;
	}
	return NULL;
}

/* ---- one frame ---------------------------------------------------------- */

struct place {
	const char *file;
	int line, column;
};

static void
put_place(FILE *out, const char *name, struct place at)
{
	put_name(out, name);
	fprintf(out, " %s", at.file != NULL ? at.file : "??");
	if (at.line > 0)
		fprintf(out, ":%d", at.line);
	if (at.line > 0 && at.column > 0)
		fprintf(out, ":%d", at.column);
}

static int
number_attr(Dwarf_Die *die, unsigned attr)
{
	Dwarf_Attribute a;
	Dwarf_Word v = 0;
	dwarf_formudata(dwarf_attr(die, attr, &a), &v);
	return (int)v;
}

static struct place
call_site(Dwarf_Die *cu, Dwarf_Die *die)
{
	struct place at = { NULL, number_attr(die, DW_AT_call_line),
		number_attr(die, DW_AT_call_column) };
	Dwarf_Files *files;
	size_t n;
	if (dwarf_getsrcfiles(cu, &files, &n) == 0)
		at.file = dwarf_filesrc(files, (size_t)number_attr(die, DW_AT_call_file), NULL, NULL);
	return at;
}

/* Calls `put` for each function at addr, the innermost inlined one first.
 * Returns the number; 0: no debug information. */
typedef void put_fn(void *ctx, const char *name, struct place at);

static int
each_function(struct object *o, Dwarf_Addr addr, put_fn *put, void *ctx)
{
	Dwarf_Addr bias = 0;
	Dwarf_Die *found = NULL;
	Dwarf_Die *chain = NULL;
	int shown = 0;
	Dwarf_Die *cu = unit_of(o->module, addr, &bias);
	if (cu == NULL || dwarf_getscopes(cu, addr - bias, &found) <= 0)
		return 0;
	struct place at = { NULL, 0, 0 };
	Dwarf_Line *line = dwarf_getsrc_die(cu, addr - bias);
	if (line != NULL) {
		at.file = dwarf_linesrc(line, NULL, NULL);
		dwarf_lineno(line, &at.line);
		dwarf_linecol(line, &at.column);
	}
	/* The scopes above are lexical; the call chain is the tree of DIEs. */
	int n = dwarf_getscopes_die(&found[0], &chain);
	for (int i = 0; i < n; i++) {
		int tag = dwarf_tag(&chain[i]);
		if (tag != DW_TAG_inlined_subroutine && tag != DW_TAG_subprogram)
			continue;
		const char *name = die_name(&chain[i]);
		put(ctx, name != NULL ? name : "??", at);
		shown++;
		if (tag == DW_TAG_subprogram)
			break;
		at = call_site(cu, &chain[i]);
	}
	free(chain);
	free(found);
	return shown;
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
	put_place(f->out, name, at);
	fputc('\n', f->out);
}

/* Only the first, which is the innermost. */
static void
put_summary(void *ctx, const char *name, struct place at)
{
	struct frame_out *f = ctx;
	if ((*f->number)++ != 0)
		return;
	fprintf(f->out, " %s", at.file != NULL ? at.file : "??");
	if (at.line > 0)
		fprintf(f->out, ":%d", at.line);
	if (at.line > 0 && at.column > 0)
		fprintf(f->out, ":%d", at.column);
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
	struct object *o = object_of(&f);
	struct frame_out fo = { out, f.pc, number };
	if (strncmp(line, "    #0 ", 7) == 0)
		*number = 0;
	if (o->module != NULL && each_function(o, f.offset, put_frame, &fo) != 0)
		return true;
	const char *name = o->module != NULL ? dwfl_module_addrname(o->module, f.offset) : NULL;
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
	struct object *o = object_of(&f);
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

void
symbolize_text(const char *text, FILE *out)
{
	int number = 0;
	while (*text != 0) {
		size_t n = strcspn(text, "\n");
		char *line = strndup(text, n);
		if (line == NULL)
			exit(EXIT_CANNOT);
		if (!show_frame(line, out, &number) && !show_summary(line, out))
			fprintf(out, "%s%s", line, text[n] != 0 ? "\n" : "");
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
		if (!show_frame(line, out, &number) && !show_summary(line, out))
			fprintf(out, "%s%s", line, end != NULL ? "\n" : "");
	}
	free(line);
	return ferror(in) || fflush(out) != 0 ? EXIT_CANNOT : 0;
}

int
command_symbolize(int argc, char **argv)
{
	FILE *in = stdin;
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
