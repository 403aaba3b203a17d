/* run.h - one run of a program, between run.c and attend.c. */
#ifndef SPANGUARD_RUN_H
#define SPANGUARD_RUN_H

#include <limits.h>
#include <stdbool.h>

enum { RUN_OPTIONS_BYTES = 16384 };

struct run {
	bool symbolize;
	bool force;                        /* start it whatever preflight says */
	bool no_pools;
	bool ignores_leaks;                /* looks for errors, but not for leaks */
	char log[PATH_MAX];                /* absolute; "": stderr. %p is kept */
	char json[PATH_MAX];               /* absolute; "": none */
	char library[PATH_MAX];
	char program[PATH_MAX];
	char **argv;                       /* of the program */
	char options[RUN_OPTIONS_BYTES];   /* for SPANGUARD_OPTIONS */
};

/* Becomes the program; errors go to stderr and to error_fd (-1: to no other). */
_Noreturn void exec_program(const struct run *c, int error_fd);

/* attend.c: starts the program, prints its reports, ends as it did. */
_Noreturn void run_and_stay(const struct run *c);

#endif
