/* leaknames.h - names of functions that a module does not export.
 *
 * A suppression names functions, and most functions of a program are in no dynamic
 * symbol table. The file of the module has them, unless it is stripped: .symtab is
 * mapped for the look-up, and read with bounds that the file says and that are
 * checked. A file that is not the one the module was loaded from is not used.
 * C++ names are as linked; leaknames_plain makes A::b of _ZN1A1bEv.
 *
 * Locks: under the world lock, because of static buffers. Cost: a walk over all
 * symbols, 10 ns each; the last 1024 addresses are kept. */
#ifndef SPANGUARD_LEAKNAMES_H
#define SPANGUARD_LEAKNAMES_H

#include "../src/procmap.h"

enum { LEAKNAME_BYTES = 256 };

/* NULL: no symbol of the file covers addr. The string is good until the next call. */
const char *leaknames_find(const struct module *m, uintptr_t addr);

/* As facts_look_up, with functions that are not exported. */
bool leaknames_look_up(uintptr_t pc, const char **function, const char **module);

/* What a name as linked is in the source, without its arguments, if it is a plain or a
 * nested one; else false. */
bool leaknames_plain(const char *linked, char *plain, size_t cap);

/* Forgets what was found: modules come and go. */
void leaknames_forget(void);

#endif
