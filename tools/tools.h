/* tools.h - what the files of the spanguard command share. */
#ifndef SPANGUARD_TOOLS_H
#define SPANGUARD_TOOLS_H

#include <stdio.h>

#include "../src/base.h"

enum {
#define EXIT_CODE(constant, value, help) constant = value,
#include "exit_codes.def"
};

/* The sub-commands; argv[0] is the verb. */
#define COMMAND(verb, arguments, help) int command_##verb(int argc, char **argv);
#include "commands.def"

/* spanguard.c */
_Noreturn void usage_error(const char *what, const char *arg);
void show_help(FILE *out);

/* run.c: the library this command uses (PATH_MAX bytes); false: there is none. */
bool find_library(char *out);

/* preflight.c: finds out before the start why a preload would fail or be
 * without effect, says so on stderr, and returns the exit code (0: go on).
 * `path_out` (PATH_MAX bytes) gets the file that would be run. With `force` only
 * what makes a start impossible counts. */
int preflight(const char *program, const char *library, char *path_out, bool force);

/* symbolize.c: adds function, file, line and inlined frames to the frames and
 * the SUMMARY of the report in `text` and writes it to `out`. */
void symbolize_text(const char *text, FILE *out);
/* The same for one line of JSON. */
void symbolize_json(const char *line, FILE *out);

#endif
