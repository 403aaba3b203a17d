/* sgfuzz.h - the parts of the sgfuzz tool. */
#ifndef SPANGUARD_FUZZ_SGFUZZ_H
#define SPANGUARD_FUZZ_SGFUZZ_H

#include "harness.h"

/* The file's first SGF_MAX_BYTES bytes; exits if there is no such file. */
size_t sgfuzz_read(const char *path, uint8_t *out);
/* The trace. */
uint64_t sgfuzz_run_once(const struct sg_harness *h, const uint8_t *data, size_t bytes);

/* min.c, toc.c, enumerate.c: exit statuses. */
int sgfuzz_min(const struct sg_harness *h, const char *path, const char *out);
int sgfuzz_enumerate(unsigned length);
int sgfuzz_c(const struct sg_harness *h, const char *path);

struct sgfuzz_input {
	const char *name;
	const uint8_t *data;
	size_t bytes;
};

/* stable.c: status. */
int sgfuzz_stable(const struct sg_harness *h, const struct sgfuzz_input *in, size_t inputs,
    unsigned times);

/* random.c: status. At least so many operations of random inputs. */
int sgfuzz_random(const struct sg_harness *h, uint64_t seed, uint64_t operations);

#endif
