/* symbols.h - functions, files and lines of an offset into an ELF file.
 *
 * The file is taken when its build id is the one asked for; else the file of that
 * build id in debug_dir, by build id or by its own name; else the debug file under
 * /usr/lib/debug. So a report can be finished later, after an upgrade or on another
 * machine. Objects are kept until the process ends. */
#ifndef SPANGUARD_SYMBOLS_H
#define SPANGUARD_SYMBOLS_H

#include <elfutils/libdwfl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct object {
	struct object *next;
	char *path;
	char *build_id;          /* hex; "" if the report has none */
	Dwfl *dwfl;
	Dwfl_Module *module;     /* NULL: nothing found */
};

/* Where else files are: DIR/.build-id/ab/cdef.debug, or DIR/prog. NULL: nowhere. */
extern const char *debug_dir;

/* All that were asked for, the last one first. */
extern struct object *objects;

/* build_id in hex, "" if it is not known. Never NULL. */
struct object *object_of(const char *path, const char *build_id);

struct place {
	const char *file;        /* NULL: not known */
	int line, column;        /* 0: not known */
};

typedef void put_fn(void *ctx, const char *name, struct place at);

/* Calls `put` for each function at offset, the innermost inlined one first (of
 * libspanguard.so only the one that is called).
 * Returns the number; 0: no debug information. Names are as linked. */
int each_function(struct object *o, uint64_t offset, put_fn *put, void *ctx);

/* The symbol table's name, NULL: none. */
const char *object_symbol(const struct object *o, uint64_t offset);

/* A C++ name as in the source; to be freed. */
char *plain_name(const char *name);

/* The token of a report with names for its "file+0xoffset" parts. */
void put_token(const char *token, FILE *out);

#endif
