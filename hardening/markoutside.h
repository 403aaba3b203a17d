/* markoutside.h - live objects that are in no span, for the mark: sampled ones
 * (sample.h) and guarded ones (guardmode.h). What the white bits are to slots, a
 * flag is to them. Between stw_stop and stw_start only. */
#ifndef SPANGUARD_MARKOUTSIDE_H
#define SPANGUARD_MARKOUTSIDE_H

#include "guardspace.h"
#include "sample.h"

/* flags: GUARD_WHITE, GUARD_RESCAN, GUARD_INDIRECT, GUARD_NOSCAN of guardspace.h */
struct outside_object {
	uintptr_t base;
	size_t bytes;
	uint8_t *flags;
};

struct outside {
	uintptr_t lo;                  /* all of them lie in [lo, lo + bytes) */
	uintptr_t bytes;
	struct sampled_object {
		uintptr_t base;
		size_t bytes;
		uint8_t flags;
	} sampled[SAMPLE_SLOTS];
	size_t n_sampled;
};

/* Finds all there are, and makes them white. */
void outside_fill(struct outside *o);

/* The object that an address lies in; one of no bytes has its first. */
bool outside_at(struct outside *o, uintptr_t addr, struct outside_object *out);

void outside_each(struct outside *o, void (*fn)(const struct outside_object *x, void *arg),
    void *arg);

/* Calls fn for every word of the object, where it is and what it is. Words are
 * counted from the first byte, which may be odd (guard_align=1). */
void outside_each_word(const struct outside_object *x,
    void (*fn)(uintptr_t value, uintptr_t at, void *arg), void *arg);

#endif
