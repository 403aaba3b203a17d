/* explain.h - the rows of src/errors.def with their texts. */
#ifndef SPANGUARD_EXPLAIN_H
#define SPANGUARD_EXPLAIN_H

#include <stddef.h>

struct explanation {
	const char *id, *word, *word_cxx, *when;
	const char *cause, *example, *fix;
};

extern const struct explanation explanations[];
extern const size_t explanations_n;

#endif
