/* h1_api.c - H1: programs over the whole malloc interface, four logical threads
 * with re-entry, in all modes, under all oracles of prog.c. */
#include "prog.h"

static int
run(const uint8_t *data, size_t bytes)
{
	static struct sg_prog p;

	sg_prog_run(&p, data, bytes);
	return 0;
}

const struct sg_harness sg_h_api = { "api", &sg_prog_language, run };
