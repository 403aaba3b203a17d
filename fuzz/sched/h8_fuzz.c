/* h8_fuzz.c - H8 as a fuzz target: the engine finds threads and schedules
 * (litmus_input.h). A failure is printed with its schedule; `h8 --input FILE` runs
 * it again without an engine. */
#include <stdio.h>
#include <stdlib.h>

#include "litmus_input.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	if (!litmus_input_begin())
		abort();
	return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	char text[SCHED_TEXT_BYTES];
	struct litmus_result r;

	if (litmus_input(data, bytes, &r))
		return 0;
	sched_print(text);
	printf("sgfuzz: FAIL oracle=schedule harness=sched: %s\n  schedule %s\n", r.what, text);
	litmus_input_print(data, bytes);
	fflush(stdout);
	abort();
}
