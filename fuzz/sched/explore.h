/* explore.h - which schedules of a program are tried.
 *
 *   exhaustive   all with at most `bound` preemptions (Musuvathi, Qadeer: "Iterative
 *                context bounding", 2007), depth first, by running from the start
 *   PCT          random priorities, lowered at depth - 1 random points (Burckhardt
 *                et al., 2010): any bug of that depth has a known chance per run
 *   replay       one, from its text
 *   bytes        as a fuzzer's input says: pairs of decisions to let pass, choice */
#ifndef SPANGUARD_FUZZ_SCHED_EXPLORE_H
#define SPANGUARD_FUZZ_SCHED_EXPLORE_H

#include "schedule.h"

/* Runs the program once; false: something is wrong, and the search ends. */
typedef bool (*explore_run)(void *arg, struct sched_chooser *c);

struct explore_result {
	uint64_t schedules;
	uint32_t points;           /* in the longest run */
	uint32_t decisions;
	bool failed;
	bool cut_short;            /* max was reached */
};

void explore_exhaustive(explore_run run, void *arg, unsigned bound, uint64_t max,
    struct explore_result *r);
void explore_pct(explore_run run, void *arg, unsigned depth, uint64_t seed, uint64_t runs,
    struct explore_result *r);
/* false: the program took another way than the text says. */
bool explore_replay(explore_run run, void *arg, const char *text, struct explore_result *r);
bool explore_bytes(explore_run run, void *arg, const uint8_t *data, size_t size);

#endif
