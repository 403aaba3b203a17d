/* canary.c - see canary.h. */
#include "canary.h"

#include <string.h>

#include "../src/die.h"
#include "../src/mspan.h"
#include "../src/sys.h"

static bool on;
static uint64_t secret[2];

void
canary_init(bool enabled, uint64_t seed)
{
	on = enabled;
	secret[0] = seed;
	secret[1] = ~seed;
	if (seed == 0)
		sys_random(secret, sizeof(secret));
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

/* The finaliser of splitmix64 (Steele, Lea, Flood). */
static uint64_t
mix(uint64_t z)
{
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* A key of the span's own, out of reach behind the second secret, then the slot:
 * who reads one canary learns the key of its span at most. The lowest byte, the
 * first in memory, is cleared. */
uint64_t
canary_of(const struct mspan *s, const void *p)
{
	uint64_t span_key = mix((uint64_t)s->base ^ secret[0]) ^ secret[1];
	return mix((uint64_t)(uintptr_t)p ^ span_key) & ~(uint64_t)0xff;
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

bool
canary_check(const struct mspan *s, const void *p, const char *api)
{
	uint64_t want = canary_of(s, p);
	struct die_diff diff = { .base = (uintptr_t)place(s, p), .n = CANARY_BYTES };
	if (likely(canary_intact(s, p)))
		return false;
	memcpy(diff.found, place(s, p), CANARY_BYTES);
	memcpy(diff.expected, &want, CANARY_BYTES);
	for (size_t i = 0; i < CANARY_BYTES; i++)
		diff.changed += diff.found[i] != diff.expected[i];
	complain(&(struct die_info){ .code = DIE_CANARY, .api = api, .site = "canary",
	    .addr = (uintptr_t)p, .diff = &diff });
	return true;
}
