/* mstats.h - counts, taken by walking the spans: nothing is counted on the
 * fast path, so nothing can drift. */
#ifndef SPANGUARD_MSTATS_H
#define SPANGUARD_MSTATS_H

#include "../include/spanguard.h"
#include "print.h"

struct mheap;
struct mspan;

/* Calls fn for every span of the arena map, in address order within an arena. */
void mstats_each_span(void (*fn)(struct mspan *s, void *arg), void *arg);

/* Caller holds the world lock or is alone. */
void mstats_read(struct mheap *h, struct spanguard_stats *out);

/* Of the process's heap, under the world lock; in a handler that interrupted the
 * slow path, whose locks may be this thread's own, without any. */
void mstats_read_process(struct spanguard_stats *out);

/* One line of JSON, the fields by their names. */
void mstats_print_json(const struct spanguard_stats *s, struct print *out);

/* One XML element, the fields as its attributes. */
void mstats_print_xml(const struct spanguard_stats *s, struct print *out);

/* The process's heap, to the log. */
void mstats_log(void);

#endif
