/* target.c - one harness as a fuzz target; compiled with SG_HARNESS=<name>. The
 * same function serves libFuzzer, AFL++'s driver and OSS-Fuzz's engines. One input
 * in sixteen is run twice, and must leave the same trace. */
#include <string.h>

#include "fheap.h"
#include "mutator.h"

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define THE_HARNESS JOIN(sg_h_, SG_HARNESS)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* ---- the mutator, for libFuzzer and those who speak its language ---- */

static bool
is_text(void)
{
	return strcmp(THE_HARNESS.language->op[0], "text") == 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t bytes, size_t max, unsigned seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t na, const uint8_t *b, size_t nb,
    uint8_t *out, size_t max, unsigned seed);

size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t bytes, size_t max, unsigned seed)
{
	uint64_t random = seed;

	return is_text() ? sg_mutate_text(data, bytes, max, &random) :
	    sg_mutate(data, bytes, max, &random);
}

size_t
LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t na, const uint8_t *b, size_t nb,
    uint8_t *out, size_t max, unsigned seed)
{
	uint64_t random = seed;

	return sg_cross(a, na, b, nb, out, max, &random);
}

/* ---- one input ---- */

static uint64_t
trace_of(const uint8_t *data, size_t bytes)
{
	sg_at = (struct sg_position){ .harness = THE_HARNESS.name, .op = -1 };
	sg_trace = 1;
	THE_HARNESS.run(data, bytes);
	sg_heap_forget();
	return sg_trace;
}

/* Which inputs, the inputs say: an engine that runs one again finds the same. */
static bool
runs_twice(const uint8_t *data, size_t bytes)
{
	uint64_t h = bytes;

	for (size_t i = 0; i < bytes; i++)
		h = (h ^ data[i]) * 0x100000001b3u;
	return h * 0x9e3779b97f4a7c15u >> 60 == 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	uint64_t trace = trace_of(data, bytes);

	if (runs_twice(data, bytes))
		SG_CHECK(SAME, trace_of(data, bytes) == trace, "the second run left another trace");
	return 0;
}
