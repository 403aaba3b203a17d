/* symbols.c - see symbols.h. Debug information comes from elfutils, which looks
 * under /usr/lib/debug and asks debuginfod if the user set one up. */
#define _GNU_SOURCE
#include "symbols.h"

#include <dlfcn.h>
#include <dwarf.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools.h"

struct object *objects;
const char *debug_dir;

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

static bool
load_debug(struct object *o, const char *dir)
{
	char file[PATH_MAX];
	snprintf(file, sizeof(file), "%s/.build-id/%.2s/%s.debug", dir, o->build_id,
	    o->build_id + 2);
	return load_file(o, file);
}

/* By its name only where the build id says that it is the one. */
static bool
load_by_name(struct object *o, const char *dir)
{
	char file[PATH_MAX];
	const char *name = strrchr(o->path, '/');
	snprintf(file, sizeof(file), "%s/%s", dir, name != NULL ? name + 1 : o->path);
	return load_file(o, file);
}

static void
load(struct object *o)
{
	bool known = strlen(o->build_id) > 2;
	if (known && debug_dir != NULL && (load_debug(o, debug_dir) || load_by_name(o, debug_dir)))
		return;
	if (!load_file(o, o->path) && known)
		load_debug(o, "/usr/lib/debug");
}

struct object *
object_of(const char *path, const char *build_id)
{
	for (struct object *o = objects; o != NULL; o = o->next) {
		if (strcmp(o->path, path) == 0 && strcmp(o->build_id, build_id) == 0)
			return o;
	}
	struct object *o = calloc(1, sizeof(*o));
	if (o == NULL || (o->path = strdup(path)) == NULL ||
	    (o->build_id = strdup(build_id)) == NULL)
		exit(EXIT_CANNOT);
	o->next = objects;
	objects = o;
	load(o);
	return o;
}

/* ---- names -------------------------------------------------------------- */

typedef char *demangle_fn(const char *, char *, size_t *, int *);

/* The demangler lives in the C++ runtime; without it names stay as they are. */
char *
plain_name(const char *name)
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
	if (plain == NULL)
		plain = strdup(name);
	if (plain == NULL)
		exit(EXIT_CANNOT);
	return plain;
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

/* What is inlined into malloc says nothing to somebody who called malloc. */
static bool
is_spanguard(const struct object *o)
{
	const char *name = strrchr(o->path, '/');
	return strncmp(name != NULL ? name + 1 : o->path, "libspanguard.so", 15) == 0;
}

int
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
		if (tag == DW_TAG_subprogram || !is_spanguard(o)) {
			const char *name = die_name(&chain[i]);
			put(ctx, name != NULL ? name : "??", at);
			shown++;
		}
		if (tag == DW_TAG_subprogram)
			break;
		at = call_site(cu, &chain[i]);
	}
	free(chain);
	free(found);
	return shown;
}

const char *
object_symbol(const struct object *o, uint64_t offset)
{
	return o->module != NULL ? dwfl_module_addrname(o->module, offset) : NULL;
}

struct first {
	const char *name;
};

static void
take_first(void *ctx, const char *name, struct place at)
{
	struct first *f = ctx;
	(void)at;
	if (f->name == NULL)
		f->name = name;
}

/* "t_df+0x1161": of the objects seen so far, the one of that file name. */
static char *
token_name(const char *token)
{
	const char *plus = strstr(token, "+0x");
	size_t n = plus != NULL ? (size_t)(plus - token) : 0;
	struct first f = { NULL };
	for (struct object *o = objects; plus != NULL && o != NULL; o = o->next) {
		const char *base = strrchr(o->path, '/');
		base = base != NULL ? base + 1 : o->path;
		if (strlen(base) != n || strncmp(base, token, n) != 0 || o->module == NULL)
			continue;
		uint64_t offset = strtoull(plus + 1, NULL, 16);
		if (each_function(o, offset, take_first, &f) == 0)
			f.name = object_symbol(o, offset);
		break;
	}
	return plain_name(f.name != NULL ? f.name : token);
}

void
put_token(const char *token, FILE *out)
{
	while (*token != 0) {
		const char *end = strstr(token, "--");
		char *one = strndup(token, end != NULL ? (size_t)(end - token) : strlen(token));
		if (one == NULL)
			exit(EXIT_CANNOT);
		char *name = token_name(one);
		fprintf(out, "%s%s", name, end != NULL ? "--" : "");
		free(name);
		free(one);
		token = end != NULL ? end + 2 : token + strlen(token);
	}
}
