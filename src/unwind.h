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

/* The module that is ours, for unwind_calls; 0, 0: no telling. */
void unwind_own_code(uintptr_t start, uintptr_t end);

/* For every malloc and free: the caller's stack as unwind_here_quietly has it, but
 * of our own frames only the outermost one, the function that the program called. */
size_t unwind_calls(uintptr_t *pcs, size_t max);

#endif
