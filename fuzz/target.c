/* target.c - one harness as a fuzz target; compiled with SG_HARNESS=<name>. The
 * same function serves libFuzzer, AFL++'s driver and OSS-Fuzz's engines. */
#include "fheap.h"

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define THE_HARNESS JOIN(sg_h_, SG_HARNESS)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	sg_at = (struct sg_position){ .harness = THE_HARNESS.name, .op = -1 };
	sg_trace = 1;
	THE_HARNESS.run(data, bytes);
	sg_heap_forget();
	return 0;
}
