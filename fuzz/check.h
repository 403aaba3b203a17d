/* check.h - H12's fields, for the harness and for `sgfuzz bits`. */
#ifndef SPANGUARD_FUZZ_CHECK_H
#define SPANGUARD_FUZZ_CHECK_H

#include "prog.h"

enum sg_cover {
	SG_COVERED,            /* every flip must be reported */
	SG_POINTER,            /* the same, but a flip may make verify fault */
	SG_FACT,               /* the only record of something: no one could tell */
	SG_HINT,               /* may have any value */
};

struct sg_field {
	const char *name;
	void *p;
	size_t bytes;
	enum sg_cover cover;
	const struct mspan *span;  /* of which it is, or NULL */
};

enum { SG_FIELDS_MAX = 65536 };

struct sg_fields {
	size_t n;
	struct sg_field field[SG_FIELDS_MAX];
};

const struct sg_fields *sg_collect_fields(void);
bool sg_flip_is_reported(const struct sg_field *f, size_t bit);
/* A bit of a covered field that may have either value, for a reason given there. */
bool sg_known_blind(const struct sg_field *f, size_t bit);

/* Flips the bits of all fields after the program, and prints the table of all. */
void sg_count_bits(const uint8_t *data, size_t bytes);
int sg_print_bits(void);

/* H7 over one input, each call to the system failing in turn; how many runs, at most
 * `most`. */
uint64_t sg_fault_sweep(const uint8_t *data, size_t bytes, uint64_t most);

#endif
