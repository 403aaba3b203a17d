/* unwind.h - the call stack of the calling thread.
 *
 * Works through code without frame pointers (.eh_frame, see cfi.h) and through
 * generated code with them; over signal frames; stops where a stack makes no
 * sense. Takes no lock, allocates nothing, never faults, keeps errno; uses less
 * than 3 KiB of stack. For code outside of modules that the loader knows it
 * reads /proc/self/maps with static buffers: one thread at a time, like all of
 * procmap.h. */
#ifndef SPANGUARD_UNWIND_H
#define SPANGUARD_UNWIND_H

#include "base.h"

/* Fills pcs with the callers of the function that calls this, innermost first,
 * beginning with that function itself. A pc lies inside of the call instruction
 * (or is the very one that a signal interrupted), ready for symbolisation. */
size_t unwind_here(uintptr_t *pcs, size_t max);

/* The same without reading files, where the loader has a table to ask (glibc):
 * for a program that goes on, perhaps in a sandbox. Makes no system call but the
 * one of peek.h, takes any number of threads; generated code is believed. */
size_t unwind_here_quietly(uintptr_t *pcs, size_t max);

/* Drops the frames at the inner end whose pc is in [lo, hi), but for the
 * outermost of them: the entry point that the program called. Frames that are
 * all inside stay as they are. Returns the new number. */
size_t unwind_trim(uintptr_t *pcs, size_t n, uintptr_t lo, uintptr_t hi);

/* A loaded module by the loader's own lock-free table; false: none, or no table. */
struct unwind_module {
	uintptr_t start, end;
	uintptr_t eh_frame_hdr;    /* 0: has none */
};

bool unwind_module(uintptr_t pc, struct unwind_module *out);
/* Is there such a table? */
bool unwind_knows_modules(void);

#endif
