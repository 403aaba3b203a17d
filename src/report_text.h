/* report_text.h - the facts of a report as text for people and for tools that
 * read AddressSanitizer's reports. Async-signal-safe. */
#ifndef SPANGUARD_REPORT_TEXT_H
#define SPANGUARD_REPORT_TEXT_H

#include "facts.h"

void report_text(struct print *p, const struct facts *f);

#endif
