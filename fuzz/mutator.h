/* mutator.h - changes to sgf1 inputs that mean something: ops come, go, swap and
 * repeat, handles are pointed elsewhere, sizes sit on the edges of classes and
 * pages. One core for libFuzzer (LLVMFuzzerCustomMutator) and for AFL++ (the
 * custom mutator library built from this file with SG_AFL_MUTATOR). */
#ifndef SPANGUARD_FUZZ_MUTATOR_H
#define SPANGUARD_FUZZ_MUTATOR_H

#include <stddef.h>
#include <stdint.h>

/* Changes data in place; the new length, at most max. */
size_t sg_mutate(uint8_t *data, size_t bytes, size_t max, uint64_t *random);
/* Ops of a, then ops of b from some point on; the header of a. */
size_t sg_cross(const uint8_t *a, size_t na, const uint8_t *b, size_t nb, uint8_t *out,
    size_t max, uint64_t *random);

/* The same for the text of options. */
size_t sg_mutate_text(uint8_t *data, size_t bytes, size_t max, uint64_t *random);

/* Puts `bytes` of what in at `at` of n, if no more than max come of it; how many there are. */
size_t sg_insert(uint8_t *data, size_t n, size_t max, size_t at, const void *what, size_t bytes);

#endif
