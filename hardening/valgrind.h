/* valgrind.h - tells Memcheck of every object, so that it can do its work on ours.
 *
 * Threat:    none; without it Memcheck, run with spanguard's malloc in place, takes
 *            the heap for one block of defined memory and finds nothing in it.
 * Mechanism: whether the process runs under Memcheck is asked once, at the start. If
 *            so, the options become mode=plain with records: an armed mode, so that
 *            each malloc and free is seen, and with nothing that Memcheck does better
 *            or would take for an error: no guards, quarantine, samples, patterns.
 *            Then, by the client requests of <valgrind/memcheck.h>:
 *
 *              pages of a new span    no access
 *              malloc                 a block of exactly what was asked for
 *              free                   no block any more; what is no block goes to
 *                                     Memcheck, too, and the call returns
 *
 *            A span's struct has its address, and so that of its first slot, which
 *            would count as reachable for ever: the first slots of small spans are
 *            not handed out, and when the program ends every word of the metadata
 *            that is a large object's address becomes undefined, so that the leak
 *            search passes over it.
 *
 *            16 bytes behind each slot and the rest of a large object's last page stay
 *            no access, as Memcheck's own redzones would. A wrong pairing of malloc, new
 *            and new[] is told by spanguard: a client request cannot say it.
 *            valgrind=0 leaves all this out, under tools that have their own view.
 * Limits:    Memcheck takes every mapping that it has not made itself for roots, and
 *            our heap is one: of a lost structure only the head is definitely lost,
 *            what it points to counts as reachable and not as indirectly lost.
 *            A large object of whole pages has no rest: what overflows straight into
 *            a live one behind it is not seen.
 * Cost:      none outside of Memcheck: the question is asked once, and the requests
 *            are behind the branch to the armed path.
 * Way round: Valgrind must leave our malloc in place:
 *            --soname-synonyms=somalloc=nouserintercepts.
 * Test:      tests/valgrind. */
#ifndef SPANGUARD_VALGRIND_H
#define SPANGUARD_VALGRIND_H

#include "hooks.h"

enum { VALGRIND_TAIL_BYTES = 16 };

/* Under Memcheck, and it is to be told. */
bool valgrind_is_on(void);
/* Test builds: as if nobody had asked. */
void valgrind_reset(void);
void valgrind_seal(void);

void valgrind_new_span(struct mspan *s);
void valgrind_alloc(const void *p, size_t bytes, enum malloc_api api);
void valgrind_free(const void *p);

#endif
