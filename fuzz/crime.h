/* crime.h - H9's run, for the harness and for the enumeration of enumerate.c. */
#ifndef SPANGUARD_FUZZ_CRIME_H
#define SPANGUARD_FUZZ_CRIME_H

#include "die.h"
#include "prog.h"

/* 1 if a bug was planted (and reported as it must be). check_clean: the program
 * without its bug runs first and must live. */
int sg_crime_run(const uint8_t *data, size_t bytes, bool check_clean);

/* Called with each report that had to come; NULL: nobody. */
extern void (*sg_crime_seen)(const struct die_info *d);

#endif
