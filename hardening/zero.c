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

static bool
holds(uintptr_t from, uintptr_t end)
{
	return all_zero((const uint64_t *)from, (end - from) / sizeof(uint64_t));
}

/* [from, end) is not zero. addr: the slot, or 0 for the first changed byte. Where
 * the program goes on, it is zero afterwards. */
static NOINLINE void
report(uintptr_t from, uintptr_t end, uintptr_t addr, struct die_info info)
{
	const unsigned char *p = (const unsigned char *)from, *stop = (const unsigned char *)end;
	struct die_diff diff = { 0 };
	while (*p == 0)
		p++;
	diff.base = (uintptr_t)p;
	diff.n = stop - p < DIE_DIFF_BYTES ? (size_t)(stop - p) : DIE_DIFF_BYTES;
	memcpy(diff.found, p, diff.n);
	for (; p < stop; p++)
		diff.changed += *p != 0;
	info.addr = addr != 0 ? addr : diff.base;
	info.diff = &diff;
	complain(&info);
	memset((void *)from, 0, end - from);
}

bool
zero_check(const struct mspan *s, const void *p, const char *api)
{
	uintptr_t at = (uintptr_t)p;
	if (likely(zero_holds(s, p)))
		return false;
	report(at, at + s->elem_bytes, at, (struct die_info){
	    .code = DIE_WRITE_AFTER_FREE, .api = api, .site = "zero" });
	return true;
}

static uintptr_t
tail_of(const struct mspan *s)
{
	return s->base + s->nelems * s->elem_bytes;
}

uintptr_t
zero_tail_changed(const struct mspan *s)
{
	uintptr_t at = tail_of(s), end = s->base + mspan_bytes(s);
	if (!on || holds(at, end))
		return 0;
	while (*(const unsigned char *)at == 0)
		at++;
	return at;
}

bool
zero_tail_check(const struct mspan *s, const char *api)
{
	if (likely(zero_tail_changed(s) == 0))
		return false;
	report(tail_of(s), s->base + mspan_bytes(s), 0, (struct die_info){
	    .code = DIE_CANARY, .api = api, .site = "tail" });
	return true;
}
