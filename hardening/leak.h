/* leak.h - objects that are live and that nobody can reach any more.
 *
 * Threat:    none; memory that is lost is found with the stack that allocated it.
 * Mechanism: a mark pass (mark.h); what it did not reach is lost. An object is an
 *            indirect leak if a word of another lost object points into it, so the
 *            members of a cycle all are, else a direct one: LeakSanitizer's rules,
 *            and its report, grouped by the stack of the allocation where that is
 *            known (records=1, sampled objects). Suppressions are LeakSanitizer's,
 *            too; they are matched against dynamic symbols and module paths.
 * Cost:      see mark.h for how long the world stands still; 40 bytes of scratch
 *            memory a lost object. Nothing while no check runs, but for one test on
 *            the slow path with leak_signal.
 * Way round: an object with a stale pointer to it on a stack, in a freed slot of a
 *            live object, or in the unused rest of one counts as reached.
 * Test:      tests/test_leak.c, tests/leaks (verdicts compared with LeakSanitizer).
 *
 * State under the world lock. */
#ifndef SPANGUARD_LEAK_H
#define SPANGUARD_LEAK_H

#include "hooks.h"

struct leak_config {
	const char *suppressions;      /* path of a file; "" none */
};

void leak_init(const struct leak_config *config);

/* Writes a report if anything is lost that no suppression names. The number of
 * lost objects reported; -1: there was no pass. delta: only objects that the last
 * check, of either kind, did not find lost. */
int leak_check(bool delta);

/* p's object, and what only it leads to, is no leak. false: no memory, or p is not
 * an object of ours. */
bool leak_ignore(const void *p);

/* From a signal handler: at once if that can be, else at the next safe point. pid, fd:
 * a descriptor of the process that asked, for the report and a line with the result;
 * pid 0: the report goes where all go. */
void leak_from_signal(bool delta, int pid, int fd);
bool leak_wanted(void);
void leak_if_wanted(void);

#endif
