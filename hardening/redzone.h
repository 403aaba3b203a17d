/* redzone.h - bytes that nobody may write, and what is wrong with them.
 *
 * Threat:    a write beyond an object's end or before its beginning, however short;
 *            a write into memory that was freed.
 * Mechanism: a run of one constant byte. The byte behind an object and the one that
 *            freed memory is filled with are told apart in a report.
 * Cost:      a pass over the bytes, 64 at a time.
 * Way round: a write of the very byte that is there already.
 * Test:      tests/test_redzone.c, tests/debug. */
#ifndef SPANGUARD_REDZONE_H
#define SPANGUARD_REDZONE_H

#include "../src/die.h"

enum {
	REDZONE_BYTE = 0xc3,
	REDZONE_BYTES = 16,     /* behind every slot's object, at least */
};

/* Are the n bytes at p all `byte`? */
bool redzone_intact(const void *p, size_t n, uint8_t byte);

/* What is wrong with them, from the first changed byte on. */
void redzone_diff(const void *p, size_t n, uint8_t byte, struct die_diff *out);

#endif
