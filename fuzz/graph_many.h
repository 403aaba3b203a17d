/* graph_many.h - many objects, ranges and refusals for H15. */
#ifndef SPANGUARD_FUZZ_GRAPH_MANY_H
#define SPANGUARD_FUZZ_GRAPH_MANY_H

#include "fheap.h"

/* shared: where ranges may be registered; they are removed again. */
void sg_graph_many(const struct sgf_op *op, char *shared);

#endif
