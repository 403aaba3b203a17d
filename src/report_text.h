/* report_text.h - the facts of a report as text for people and for tools that
 * read AddressSanitizer's reports. Async-signal-safe. */
#ifndef SPANGUARD_REPORT_TEXT_H
#define SPANGUARD_REPORT_TEXT_H

#include "facts.h"

void report_text(struct print *p, const struct facts *f);

/* The part that says what f->info.addr is, and who allocated and freed it. */
void report_text_address(struct print *p, const struct facts *f);
/* One stack, as it stands in a report. */
void report_text_frames(struct print *p, const uintptr_t *pcs, size_t n);

#endif
