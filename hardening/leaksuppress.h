/* leaksuppress.h - which leaks nobody wants to hear of, in LeakSanitizer's format:
 *
 *   # a comment
 *   leak:pattern
 *
 * A pattern matches anywhere in the name of a function (leaknames.h) or the path of a
 * module, of any frame of the stack; "*" is any characters, "^" and "$" tie it to an end. They
 * come from the file of the option leak_suppressions and from the program's own
 * function __lsan_default_suppressions, if it exports one. */
#ifndef SPANGUARD_LEAKSUPPRESS_H
#define SPANGUARD_LEAKSUPPRESS_H

#include "../src/base.h"

struct print;

enum { SUPPRESS_MAX = 256 };

struct suppression {
	const char *text;
	size_t bytes;
	size_t objects, lost_bytes;    /* what it named, in this check */
};

struct suppressions {
	struct suppression s[SUPPRESS_MAX];
	size_t n;
	char *file;                    /* scratch memory, kept while the list is in use */
	size_t file_bytes;
};

/* Under the world lock; suppress_drop afterwards, whatever came of it. path may be
 * "". false: there is a path and it cannot be read. */
bool suppress_load(struct suppressions *l, const char *path);
void suppress_drop(struct suppressions *l);

/* The first that names the function or the module; NULL none. Both may be NULL. */
struct suppression *suppress_find(struct suppressions *l, const char *function,
    const char *module);

bool suppress_matches(const char *pattern, size_t bytes, const char *text);

/* LeakSanitizer's table of those that were used; nothing if none was. */
void suppress_put_used(struct print *p, const struct suppressions *l);

#endif
