/* reporttext.h - the reporter's words in place of tests/fake_die.c's, and whether they
 * are sound: the text and the line of JSON of a report, a leak report, notes. */
#ifndef SPANGUARD_FUZZ_REPORTTEXT_H
#define SPANGUARD_FUZZ_REPORTTEXT_H

#include "die.h"
#include "harness.h"

/* The line is one JSON object by RFC 8259 and UTF-8, and less than 1 MiB. */
bool reporttext_is_json(const char *s, size_t n);

/* Composes the report of *info as report.c would, but for stopping. What it says of
 * kind, address and place in the sentence must be so; the line of JSON is returned,
 * good until the next call. */
const char *reporttext_compose(const struct die_info *info, bool goes_on);

/* Leak reports: objects that the lines of JSON named since reporttext_forget. */
void reporttext_forget(void);
size_t reporttext_json_objects(void);
/* fake_note holds all of the last note: it was not sent off in parts. */
bool reporttext_whole(void);

/* fn(bytes), from a function that suppressions can name. */
void *reporttext_hushed(void *(*fn)(size_t bytes), size_t bytes);

#endif
