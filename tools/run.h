/* run.h - one run of a program, between run.c and attend.c. */
#ifndef SPANGUARD_RUN_H
#define SPANGUARD_RUN_H

#include <limits.h>
#include <stdbool.h>

enum { RUN_OPTIONS_BYTES = 16384 };

struct run {
	bool symbolize;
	char library[PATH_MAX];
	char program[PATH_MAX];
	char **argv;                       /* of the program */
	char options[RUN_OPTIONS_BYTES];   /* for SPANGUARD_OPTIONS */
};

/* Becomes the program. */
_Noreturn void exec_program(const struct run *c);

/* attend.c: starts the program, prints its reports, ends as it did. */
_Noreturn void run_and_stay(const struct run *c);

#endif
