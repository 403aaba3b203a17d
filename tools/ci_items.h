/* ci_items.h - reports as the list of findings that a CI server shows.
 *
 * A report is one finding; equal ones (by fingerprint) are one with a count. */
#ifndef SPANGUARD_CI_ITEMS_H
#define SPANGUARD_CI_ITEMS_H

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>

#include "explain.h"

/* A place in a source file; file "": none is known. */
struct ci_place {
	char file[PATH_MAX];     /* relative to the root, or absolute */
	bool relative;
	int line, column;        /* 0: not known */
	char function[512];
};

struct ci_item {
	struct ci_item *next;
	json_t *report;
	json_t *stacks;          /* { "error": {..}, "alloc": {..} } */
	const struct explanation *error;
	char fingerprint[64];
	char *message;
	struct ci_place place;   /* the first frame inside of the root, if any */
	unsigned count;
};

/* Reads all of `in`; NULL with *n 0 if there is none. Ends the process on a line
 * that is not JSON. */
struct ci_item *ci_items(FILE *in, const char *name, const char *root, size_t *n);

struct ci_place ci_place_of(json_t *frame, const char *root);

void ci_put_sarif(const struct ci_item *items, const char *root, FILE *out);
void ci_put_junit(const struct ci_item *items, size_t n, FILE *out);
void ci_put_github(const struct ci_item *items, FILE *out);

#endif
