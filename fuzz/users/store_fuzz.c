/* store_fuzz.c - the fuzz target: one store per input. The same source serves
 * libFuzzer (clang -fsanitize=fuzzer) and AFL++ (afl-clang-fast -fsanitize=fuzzer);
 * the allocator comes in from outside, by LD_PRELOAD or AFL_PRELOAD. */
#include "store.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct store *s = store_new();
	if (s == NULL)
		return 0;
	store_run(s, (const char *)data, bytes);
	store_free(s);
	return 0;
}
