/* h14_diff.c - H14: the same program in every mode and under another seed. What a
 * program can see without looking at addresses and usable sizes must be the same:
 * which calls gave NULL, what errno was, what the bytes are. */
#include "prog.h"

static struct sg_prog prog;

static void
body(void *arg)
{
	struct sg_prog *p = arg;

	p->no_faults = true;
	for (size_t i = 0; i < p->nops; i++)
		sg_prog_step(p, i);
	sg_prog_end(p);
}

static uint64_t
observed(const uint8_t *data, size_t bytes, const struct sg_heap_config *config)
{
	sg_prog_start_with(&prog, data, bytes, config);
	prog.quiet = true;
	sg_prog_must_live(&prog, body);
	return prog.observed;
}

static int
run(const uint8_t *data, size_t bytes)
{
	struct sgf_header h;
	struct sg_heap_config config;
	uint64_t first = 0, next;

	sgf_read_header(data, bytes, &h);
	h.geometry &= 31;
	for (unsigned mode = 0; mode < SG_MODES; mode++) {
		h.mode = (uint8_t)mode;        /* 0 to 4 are the five */
		h.seed += mode;
		sg_heap_config(&h, &config);
		next = observed(data, bytes, &config);
		SG_CHECK(SAME, mode == 0 || next == first,
		    "mode %u shows something else than plain", mode);
		first = next;
	}
	return 0;
}

const struct sg_harness sg_h_diff = { "diff", &sg_prog_language, run };
