/* enumerate.c - sgfuzz enumerate: every program of H9 over an alphabet of twelve ops,
 * up to a length, in every mode. Fuzzing finds long programs; this leaves out no
 * short one. */
#include "crime.h"
#include "sgfuzz.h"

#include <stdlib.h>
#include <string.h>

enum { SYMBOLS = 12, LENGTH_MAX = 8 };

/* code by its first name in prog.c, handle, a, b, imm */
static const struct symbol {
	const char *name;
	uint8_t thread, handle, a, b;
	uint32_t imm;
} alphabet[SYMBOLS] = {
	{ "malloc", 0, 0, 0, 0, 24 },              /* 0: a small object */
	{ "malloc", 0, 1, 0, 0, 24 },              /* 1: its neighbour, perhaps */
	{ "malloc", 0, 2, 4, 0, 5 },               /* 2: a large one */
	{ "free", 0, 0, 0, 0, 0 },
	{ "free", 1, 1, 0, 0, 0 },                 /* by another thread */
	{ "free", 0, 2, 0, 0, 0 },
	{ "realloc", 0, 0, 0, 0, 200 },
	{ "trim", 0, 0, 0, 0, 0 },
	{ "exit", 0, 0, 0, 0, 0 },
	{ "bug", 0, 0, 0, 0, 0 },                  /* free again */
	{ "bug", 0, 2, 2, 0, 7 },                  /* free of an inner byte */
	{ "bug", 1, 0, 8, 0, 0 },                  /* free of a stale pointer */
};

static uint8_t
code_of(const char *name)
{
	uint8_t i = 0;

	while (strcmp(sg_prog_language.op[i], name) != 0)
		i++;
	return i;
}

static void
write_symbol(uint8_t *at, unsigned which)
{
	const struct symbol *s = &alphabet[which];

	sgf_write_op(at, &(struct sgf_op){ .code = code_of(s->name), .thread = s->thread,
	    .handle = s->handle, .a = s->a, .b = s->b, .imm = s->imm });
}

int
sgfuzz_enumerate(unsigned length)
{
	uint8_t data[SGF_HEADER_BYTES + LENGTH_MAX * SGF_OP_BYTES];
	unsigned long programs = 0, bugs = 0, all = 1;

	if (length < 1 || length > LENGTH_MAX)
		return 2;
	for (unsigned i = 0; i < length; i++)
		all *= SYMBOLS;
	sg_at.harness = "crime";
	for (unsigned mode = 0; mode < SG_MODES; mode++)
		for (unsigned long n = 0; n < all; n++) {
			unsigned long rest = n;
			sgf_write_header(data, &(struct sgf_header){ .mode = (uint8_t)mode });
			for (unsigned i = 0; i < length; i++, rest /= SYMBOLS)
				write_symbol(data + SGF_HEADER_BYTES + i * SGF_OP_BYTES,
				    (unsigned)(rest % SYMBOLS));
			programs++;
			bugs += sg_crime_run(data, SGF_HEADER_BYTES + length * SGF_OP_BYTES, false) != 0;
		}
	printf("enumerate: %lu programs of %u ops, %lu with a bug that was reported\n", programs,
	    length, bugs);
	return bugs != 0 && bugs < programs ? 0 : 1;
}
