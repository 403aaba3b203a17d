/* checkmark.h - the second opinion on a mark, as Go's gccheckmark.
 *
 * Threat:    a fault in the mark: what something points to is released, or called lost.
 * Mechanism: the same roots, the world still stopped, and otherwise nothing in common
 *            with mark.c: spans are found through the arenas' page_in_use bits, slots
 *            by plain division, liveness is read from the spans themselves, the
 *            worklist is one stack with room for every live object, and what is
 *            reached is kept in the arenas' checkmarks, one bit per 8-byte word, at
 *            the object's first word.
 * Cost:      1/64 of the heap for the bits, 8 bytes of address space per live object,
 *            and about three times the time of the mark.
 * Way round: a root that is none for either.
 * Test:      tests/test_checkmark.c, tests/mark.
 *
 * CHECKMARK-1  an object has its checkmark if and only if the mark reached it, and
 *              there are no other checkmarks. (Tiny objects of 4 bytes share a word
 *              and so a checkmark: it stands if either was reached.) */
#ifndef SPANGUARD_CHECKMARK_H
#define SPANGUARD_CHECKMARK_H

#include "roots.h"

struct mspan;

/* Whether the mark reached slot idx of the i-th span. */
typedef bool checkmark_reached(void *arg, size_t i, size_t idx);

/* And a sampled object, which is in no span. */
typedef bool checkmark_outside(void *arg, uintptr_t base);

struct checkmark {
	const struct roots *roots;
	struct mspan *const *spans;    /* all in use */
	size_t n_spans;
	checkmark_reached *reached;
	checkmark_outside *outside_reached;
	void *arg;
	/* out */
	size_t objects;                /* reached by this pass */
	size_t differences;
	uintptr_t first;               /* address of the first one */
};

/* false: no memory. Between stw_stop and stw_start. */
bool checkmark_run(struct checkmark *c);

#endif
