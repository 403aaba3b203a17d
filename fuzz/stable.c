/* stable.c - sgfuzz stable: an input must take the same edges whenever it is run.
 *
 * All inputs in order, TIMES rounds, in one process: what an input did in the first
 * round it must do in the last, whatever came between. Before the first, as with
 * AFL++'s driver and libFuzzer, an input of no bytes is run and not counted: what a
 * process does once is no input's. State that survives an input
 * (a counter, a cache, a static set late, an address) shows here, and costs a fuzzing
 * engine its stability. Edges are the counters of clang's inline-8bit-counters, in
 * AFL++'s classes; the build has them in build/fuzz/edges only. */
#define _GNU_SOURCE
#include "harness.h"
#include "sgfuzz.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN_MAX = 40 };

struct pc_entry {
	uintptr_t pc, flags;
};

static uint8_t *counters, *counters_end;
static const struct pc_entry *pcs;

void __sanitizer_cov_8bit_counters_init(uint8_t *start, uint8_t *end);
void __sanitizer_cov_pcs_init(const uintptr_t *start, const uintptr_t *end);

void
__sanitizer_cov_8bit_counters_init(uint8_t *start, uint8_t *end)
{
	counters = start;
	counters_end = end;
}

void
__sanitizer_cov_pcs_init(const uintptr_t *start, const uintptr_t *end)
{
	(void)end;
	pcs = (const struct pc_entry *)(const void *)start;
}

static uint8_t
count_class(uint8_t n)
{
	return n < 4 ? n : n < 8 ? 4 : n < 16 ? 5 : n < 32 ? 6 : n < 128 ? 7 : 8;
}

/* One round's edges of one input. */
static void
run_counted(const struct sg_harness *h, const struct sgfuzz_input *in, uint8_t *out)
{
	size_t n = (size_t)(counters_end - counters);

	memset(counters, 0, n);
	sg_at.input = in->name;
	sgfuzz_run_once(h, in->data, in->bytes);
	for (size_t i = 0; i < n; i++)
		out[i] = count_class(counters[i]);
}

static void
show(const uint8_t *varies, size_t n)
{
	Dl_info info;
	size_t shown = 0;

	for (size_t i = 0; i < n && shown < SHOWN_MAX; i++)
		if (varies[i] != 0 && dladdr((const void *)pcs[i].pc, &info) != 0) {
			printf("  %#lx\n", (unsigned long)(pcs[i].pc - (uintptr_t)info.dli_fbase));
			shown++;
		}
}

int
sgfuzz_stable(const struct sg_harness *h, const struct sgfuzz_input *in, size_t inputs,
    unsigned times)
{
	size_t n = (size_t)(counters_end - counters), edges = 0, bad = 0;
	uint8_t *first = calloc(inputs + 3, n), *now = first + inputs * n;
	uint8_t *varies = now + n, *seen = varies + n;

	if (n == 0 || first == NULL) {
		fprintf(stderr, "sgfuzz: no counters here: build/fuzz/edges/sgfuzz has them\n");
		return 2;
	}
	sgfuzz_run_once(h, first, 0);
	for (unsigned round = 0; round < times; round++)
		for (size_t k = 0; k < inputs; k++) {
			uint8_t *map = round == 0 ? first + k * n : now;

			run_counted(h, &in[k], map);
			for (size_t i = 0; i < n; i++) {
				seen[i] |= map[i] != 0;
				varies[i] |= map[i] != first[k * n + i];
			}
		}
	for (size_t i = 0; i < n; i++) {
		edges += seen[i];
		bad += varies[i];
	}
	printf("%s: %zu inputs, %u rounds, %zu edges, %zu vary: %.2f %% stable\n", h->name, inputs,
	    times, edges, bad, 100.0 - 100.0 * (double)bad / (double)(edges != 0 ? edges : 1));
	show(varies, n);
	free(first);
	return bad != 0;
}
