/* litmus_input.h - a litmus whose threads and schedule are bytes.
 *
 *   0..3 ops     6 ops of 2 bytes for each of 3 threads: code, argument
 *   36 ..        schedule: pairs of decisions to let pass, choice (explore.h)
 *
 * Every byte string is one; what is missing is nothing to do. An op on an object
 * that is not there, or that another thread is at, does nothing, so that every
 * program is a correct one. */
#ifndef SPANGUARD_FUZZ_SCHED_LITMUS_INPUT_H
#define SPANGUARD_FUZZ_SCHED_LITMUS_INPUT_H

#include "litmus.h"

enum { INPUT_THREADS = 3, INPUT_OPS = 6, INPUT_PROGRAM_BYTES = INPUT_THREADS * INPUT_OPS * 2 };

/* Takes the snapshot that every input starts from. Once, before the first. */
bool litmus_input_begin(void);

/* true: as it should be. */
bool litmus_input(const uint8_t *data, size_t bytes, struct litmus_result *r);

/* The program as text, one line for each thread. */
void litmus_input_print(const uint8_t *data, size_t bytes);

#endif
