/* canary.c - see canary.h. */
#include "canary.h"

#include <string.h>

#include "../src/die.h"
#include "../src/mspan.h"
#include "../src/sys.h"

struct canary_state canary_state_;

void
canary_init(bool enabled, uint64_t seed)
{
	canary_state_.on = enabled;
	canary_state_.secret[0] = seed;
	canary_state_.secret[1] = ~seed;
	if (seed == 0)
		sys_random(canary_state_.secret, sizeof(canary_state_.secret));
}

static char *
place(const struct mspan *s, const void *p)
{
	return (char *)p + s->elem_bytes - CANARY_BYTES;
}

bool
canary_absent(const struct mspan *s, const void *p)
{
	uint64_t c;
	memcpy(&c, place(s, p), sizeof(c));
	return c == 0;
}

NOINLINE bool
canary_report(const struct mspan *s, const void *p, const char *api)
{
	uint64_t want = canary_of(s, p);
	struct die_diff diff = { .base = (uintptr_t)place(s, p), .n = CANARY_BYTES };
	memcpy(diff.found, place(s, p), CANARY_BYTES);
	memcpy(diff.expected, &want, CANARY_BYTES);
	for (size_t i = 0; i < CANARY_BYTES; i++)
		diff.changed += diff.found[i] != diff.expected[i];
	complain(&(struct die_info){ .code = DIE_CANARY, .api = api, .site = "canary",
	    .addr = (uintptr_t)p, .diff = &diff });
	return true;
}
