/* access.h - how many bytes an instruction reads or writes in memory.
 *
 * The kernel says where a fault was and whether it was a write, not how long the
 * access is. Here the instruction says it: prefixes, then one character per
 * opcode. Of an access that begins before a guard and reaches into it, the fault
 * is at the guard's first byte and the length the instruction's.
 *
 * x86-64 only; elsewhere the answer is 0, "not known". So it is for opcodes that
 * user programs do not meet: a wrong figure would be worse than none. */
#ifndef SPANGUARD_ACCESS_H
#define SPANGUARD_ACCESS_H

#include "../src/base.h"

/* code: n bytes (at most 15 matter) from the pc on. 0: not known, cut
 * short, or the instruction touches no memory. A string instruction counts one element. */
size_t access_bytes(const uint8_t *code, size_t n);

#endif
