/* peek.h - reads of memory that may not be there.
 *
 * A report follows pointers found on a stack or in a module that may be garbage
 * or be unmapped by another thread. Each OS page is asked for once per struct
 * peek: futex(2), told to wait no time at all for a word of the page to change,
 * reads it first, so EFAULT says unreadable; no signal handler, no descriptor,
 * and a call that the locks of a program need, so every sandbox has it.
 * Between asking and reading the page can still go away; nothing here keeps
 * state for longer than one report. Async-signal-safe, errno kept. */
#ifndef SPANGUARD_PEEK_H
#define SPANGUARD_PEEK_H

#include "base.h"

enum { PEEK_CACHE = 16 };

/* Zero-initialised: nothing known yet. */
struct peek {
	uintptr_t good[PEEK_CACHE];   /* page address + 1 of readable pages */
};

bool peek_ok(struct peek *k, uintptr_t addr, size_t bytes);

/* Copies, or returns false with dst unchanged. */
bool peek_read(struct peek *k, void *dst, uintptr_t addr, size_t bytes);

/* Copies a string of at most cap - 1 bytes; false if it does not end before. */
bool peek_str(struct peek *k, char *dst, size_t cap, uintptr_t addr);

#endif
