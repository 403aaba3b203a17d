/* store.h - a small program of the kind people fuzz: a store of JSON values,
 * driven by lines of text, on top of Debian's libcjson. It has one planted bug,
 * of the kind that no crash shows: see store.c. */
#ifndef STORE_H
#define STORE_H

#include <stddef.h>

struct store;

struct store *store_new(void);
void store_free(struct store *s);

/* Runs every line of text[0 .. bytes):
 *     set KEY JSON      get KEY      del KEY      show
 * A line that is none of these is passed over. Returns how many were run. */
size_t store_run(struct store *s, const char *text, size_t bytes);

#endif
