/* markreport.h - where the pointer stands that keeps a parked span from leaving
 * (mark_report=1): one text per span, on the log, and the program goes on. */
#ifndef SPANGUARD_MARKREPORT_H
#define SPANGUARD_MARKREPORT_H

#include "mark.h"

/* The first of `references` pointers that a pass found. Threads may run again;
 * not under a lock of the tiers. */
void mark_report_reference(const struct mark_reference *r, size_t references);

#endif
