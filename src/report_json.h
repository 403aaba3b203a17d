/* report_json.h - the facts of a report as one line of JSON, by the schema
 * doc/report.schema.json ("spanguard-report/1"). Async-signal-safe. */
#ifndef SPANGUARD_REPORT_JSON_H
#define SPANGUARD_REPORT_JSON_H

#include "facts.h"

#define REPORT_JSON_SCHEMA "spanguard-report/1"

/* Ends in a newline. Of each stack, so many frames that the buffer takes all. */
void report_json(struct print *p, const struct facts *f);

#endif
