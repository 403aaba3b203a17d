/* afl_mutator.c - mutator.c as an AFL++ custom mutator library:
 * AFL_CUSTOM_MUTATOR_LIBRARY=build/fuzz/afl/sgf_mutator.so. The functions bear the
 * names and types that afl-fuzz looks up. */
#include "mutator.h"

#include <stdlib.h>
#include <string.h>

#include "sgf.h"

struct state {
	uint64_t random;
	uint8_t out[SGF_MAX_BYTES];
};

void *afl_custom_init(void *afl, unsigned seed);
size_t afl_custom_fuzz(void *data, uint8_t *buf, size_t bytes, uint8_t **out, uint8_t *add,
    size_t add_bytes, size_t max);
void afl_custom_deinit(void *data);

void *
afl_custom_init(void *afl, unsigned seed)
{
	struct state *s = calloc(1, sizeof(*s));

	(void)afl;
	if (s != NULL)
		s->random = seed;
	return s;
}

size_t
afl_custom_fuzz(void *data, uint8_t *buf, size_t bytes, uint8_t **out, uint8_t *add,
    size_t add_bytes, size_t max)
{
	struct state *s = data;
	size_t n = bytes < sizeof(s->out) ? bytes : sizeof(s->out);

	if (max > sizeof(s->out))
		max = sizeof(s->out);
	*out = s->out;
	if (add != NULL && s->random % 8 == 0)
		n = sg_cross(buf, bytes, add, add_bytes, s->out, max, &s->random);
	else
		memcpy(s->out, buf, n);
	return sg_mutate(s->out, n, max, &s->random);
}

void
afl_custom_deinit(void *data)
{
	free(data);
}
