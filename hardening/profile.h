/* profile.h - which call stacks the memory in use came from, and all that was ever
 * allocated: a heap profile.
 *
 * Threat:    none.
 * Mechanism: with records (sidetable.h) every object names the stack that allocated
 *            it; here each stack has four counters. profile=BYTES takes a stack for one
 *            object in so many bytes, each byte being chosen with the same chance
 *            (Poisson), profile=1 for all. The profile is written at exit and by a
 *            signal, in the text form of gperftools: pprof reads it and scales it up.
 * Cost:      two atomic additions for an object that has a stack; with sampling the
 *            others cost no stack. 2.5 MiB for 65,536 different stacks.
 * Way round: stacks beyond that many are left out, and counted.
 * Test:      tests/inspect/test_profile.py.
 *
 * PROFILE-1  frees <= allocs, for each stack
 *
 * Locks: none; the writer is one at a time, who comes second does without. */
#ifndef SPANGUARD_PROFILE_H
#define SPANGUARD_PROFILE_H

#include "../src/base.h"

struct profile_config {
	size_t every_bytes;     /* 0: off; 1: all */
	const char *file;       /* %p is the process id */
};

void profile_init(const struct profile_config *config);
bool profile_is_on(void);

/* Whether an object of this size is to have its stack taken; and whether the stacks of
 * frees are. True for all without sampling. */
bool profile_takes(size_t bytes);
bool profile_takes_frees(void);

/* stack: of the allocation; 0: not counted. */
void profile_alloc(uint32_t stack, size_t bytes);
void profile_free(uint32_t stack, size_t bytes);

/* Writes the file anew. Async-signal-safe, errno kept. */
void profile_write(void);

#endif
