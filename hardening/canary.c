/* canary.c - see canary.h. */
#include "canary.h"

#include <string.h>

#include "../src/die.h"
#include "../src/mspan.h"
#include "../src/sys.h"

static bool on;
static uint64_t secret;

void
canary_init(bool enabled, uint64_t seed)
{
	on = enabled;
	secret = seed;
	if (seed == 0)
		sys_random(&secret, sizeof(secret));
}

bool
canary_is_on(void)
{
	return on;
}

static char *
place(const struct mspan *s, const void *p)
{
	return (char *)p + s->elem_bytes - CANARY_BYTES;
}

/* One multiplication by an odd secret-dependent constant: it need only be
 * unknown to somebody who cannot read the heap. The lowest byte, the first in
 * memory, is cleared. */
uint64_t
canary_of(const struct mspan *s, const void *p)
{
	uint64_t x = ((uint64_t)(uintptr_t)p ^ secret) * 0x9e3779b97f4a7c15u;
	x ^= (x >> 32) ^ ((uint64_t)s->base * 0xd1b54a32d192ed03u);
	return x & ~(uint64_t)0xff;
}

void
canary_write(const struct mspan *s, void *p)
{
	uint64_t c = canary_of(s, p);
	if (on)
		memcpy(place(s, p), &c, sizeof(c));
}

bool
canary_intact(const struct mspan *s, const void *p)
{
	uint64_t c;
	if (!on)
		return true;
	memcpy(&c, place(s, p), sizeof(c));
	return c == canary_of(s, p);
}

bool
canary_absent(const struct mspan *s, const void *p)
{
	uint64_t c;
	memcpy(&c, place(s, p), sizeof(c));
	return c == 0;
}

void
canary_check(const struct mspan *s, const void *p, const char *api)
{
	uint64_t want = canary_of(s, p);
	struct die_diff diff = { .base = (uintptr_t)place(s, p), .n = CANARY_BYTES };
	if (likely(canary_intact(s, p)))
		return;
	memcpy(diff.found, place(s, p), CANARY_BYTES);
	memcpy(diff.expected, &want, CANARY_BYTES);
	for (size_t i = 0; i < CANARY_BYTES; i++)
		diff.changed += diff.found[i] != diff.expected[i];
	die(&(struct die_info){ .code = DIE_CANARY, .api = api, .site = "canary",
	    .addr = (uintptr_t)p, .diff = &diff });
}
