/* zero.c - see zero.h. */
#include "zero.h"

#include <string.h>

#include "../src/die.h"
#include "../src/mspan.h"

static bool on;

void
zero_init(bool enabled)
{
	on = enabled;
}

bool
zero_is_on(void)
{
	return on;
}

void
zero_slot(const struct mspan *s, void *p)
{
	if (on)
		memset(p, 0, s->elem_bytes);
}

/* Slots are multiples of 16 bytes; eight words at a time, so that the compiler
 * may use vectors. */
static bool
all_zero(const uint64_t *w, size_t words)
{
	size_t i = 0;
	for (; i + 8 <= words; i += 8)
		if ((w[i] | w[i + 1] | w[i + 2] | w[i + 3] | w[i + 4] | w[i + 5] | w[i + 6] |
		    w[i + 7]) != 0)
			return false;
	for (; i < words; i++)
		if (w[i] != 0)
			return false;
	return true;
}

bool
zero_holds(const struct mspan *s, const void *p)
{
	return !on || all_zero(p, s->elem_bytes / sizeof(uint64_t));
}

static _Noreturn NOINLINE void
report(const struct mspan *s, const unsigned char *p, const char *api)
{
	struct die_diff diff = { 0 };
	size_t first = 0;
	while (p[first] == 0)
		first++;
	diff.base = (uintptr_t)p + first;
	diff.n = s->elem_bytes - first < DIE_DIFF_BYTES ? s->elem_bytes - first : DIE_DIFF_BYTES;
	memcpy(diff.found, p + first, diff.n);
	for (size_t i = first; i < s->elem_bytes; i++)
		diff.changed += p[i] != 0;
	die(&(struct die_info){ .code = DIE_WRITE_AFTER_FREE, .api = api, .site = "zero",
	    .addr = (uintptr_t)p, .diff = &diff });
}

void
zero_check(const struct mspan *s, const void *p, const char *api)
{
	if (unlikely(!zero_holds(s, p)))
		report(s, p, api);
}
