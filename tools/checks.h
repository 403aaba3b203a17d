/* checks.h - reasons why spanguard might not work with a program or on a machine.
 *
 * One table (checks.c): preflight.c stops at the first that forbids a start, and
 * doctor.c shows them all. */
#ifndef SPANGUARD_CHECKS_H
#define SPANGUARD_CHECKS_H

#include <stdbool.h>
#include <stddef.h>

#include "elffacts.h"

struct subject {
	const char *path;            /* of the program, or of its interpreter */
	struct elf_facts program;
	const char *library;
	struct elf_facts lib;
};

enum verdict {
	CHECK_FINE,
	CHECK_NOTE,                  /* good to know */
	CHECK_PARTLY,                /* works, but not everything is seen: --force */
	CHECK_REFUSE,                /* cannot work */
};

struct finding {
	enum verdict verdict;
	char found[512];             /* what is the case: "it is statically linked" */
	char fix[512];               /* what to do: one line */
};

struct check {
	const char *name;
	bool of_program;             /* else of this machine and session */
	const char *why;             /* what it asks for, and why that matters */
	void (*look)(const struct subject *s, struct finding *f);
};

extern const struct check checks[];
extern const size_t checks_n;

#endif
