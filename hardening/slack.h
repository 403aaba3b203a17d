/* slack.h - bytes around an object that were filled with one value and must have it
 * still: what guard.c's pages cannot see, because it stayed within the object's own. */
#ifndef SPANGUARD_SLACK_H
#define SPANGUARD_SLACK_H

#include <string.h>

#include "../src/die.h"

/* The first changed byte of [at, end), or end. All bytes are alike if each is as
 * the one behind it, and that memcmp sees at full width. */
static inline uintptr_t
slack_changed_from(uintptr_t at, uintptr_t end, uint8_t fill)
{
	const uint8_t *p = (const uint8_t *)at;
	if (at == end || (p[0] == fill && memcmp(p, p + 1, end - at - 1) == 0))
		return end;
	while (at < end && *(const uint8_t *)at == fill)
		at++;
	return at;
}

/* Whether something of [from, end) changed; what did goes into *d. */
static inline bool
slack_diff(uintptr_t from, uintptr_t end, uint8_t fill, struct die_diff *d)
{
	uintptr_t first = slack_changed_from(from, end, fill);
	if (likely(first == end))
		return false;
	*d = (struct die_diff){ .base = first };
	for (uintptr_t at = first; at < end; at++) {
		uint8_t found = *(const uint8_t *)at;
		if (d->n < DIE_DIFF_BYTES) {
			d->found[d->n] = found;
			d->expected[d->n++] = fill;
		}
		d->changed += found != fill;
	}
	return true;
}

#endif
