/* fake_die.h - die() for tests: says what it was told, and goes back to the test.
 *
 *   fake_die_caught(fn, arg)   runs fn(arg); true if it died, and then
 *                              fake_die_info tells of what
 *
 * or by hand, with locals that change in between volatile:
 *
 *   fake_die_armed = true;
 *   if (setjmp(fake_die_jmp) == 0) {
 *           thing_that_dies();
 *           fake_die_armed = false;
 *           fail_msg("did not die");
 *   }
 *   assert_string_equal(fake_die_info.site, "MSPAN-3");
 *
 * Each death disarms. A death that nobody waits for is printed and aborts.
 * Only the thread that armed may die; locks held on the way out stay held. */
#ifndef SPANGUARD_FAKE_DIE_H
#define SPANGUARD_FAKE_DIE_H

#include "die.h"

#include <setjmp.h>

extern struct die_info fake_die_info;
extern jmp_buf fake_die_jmp;
extern bool fake_die_armed;

/* The last text that report_note was asked for, and how many there were. */
enum { FAKE_NOTE_BYTES = 65536 };
extern char fake_note[FAKE_NOTE_BYTES];
extern unsigned fake_notes;

bool fake_die_caught(void (*fn)(void *), void *arg);

#endif
