/* ring.h - the last so many calls, for somebody who looks at a stopped process or a core.
 *
 * Threat:    none; "what happened to this address, and just before the crash?"
 * Mechanism: each allocation and free of an armed mode takes the next number and
 *            writes one entry at that place of a ring, outside of the heap. Nothing in
 *            the process reads it: `spanguard last` of tools/spanguard-gdb.py does, and
 *            so works on a core file. ring=N arms a mode that is not armed itself.
 * Cost:      40 bytes an entry; an atomic addition and five stores a call.
 * Way round: objects that never pass the armed path: those of boot.c.
 * Test:      tests/gdb.
 *
 *   entry  number written last, 0 while the rest is being written
 *
 * Writers do not wait for each other; who is a whole ring behind writes over a newer
 * entry, which then has a number that does not fit its place: a reader leaves it out. */
#ifndef SPANGUARD_RING_H
#define SPANGUARD_RING_H

#include "hooks.h"

/* Room for `entries`, rounded up to a power of two; 0: off. Memory is taken once. */
void ring_init(size_t entries);

/* A call has just been served. */
void ring_note(const void *p, size_t bytes, enum malloc_api api);

#endif
