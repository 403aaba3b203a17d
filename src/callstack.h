/* callstack.h - the stack of every malloc and free, for tens of nanoseconds.
 *
 * unwind.h walks a stack by interpreting tables, at about a microsecond a frame.
 * Here the outcome for a return address, three numbers, is kept:
 *
 *   cache[hash of pc]   CFA = sp or fp + a, caller's fp at CFA + b, return address
 *                       at CFA + c; or: the outermost frame, no table, too difficult
 *
 * Lock-free: an entry is two words, rule and rule ^ key; a reader who meets half of
 * one entry and half of another sees that they do not match. The key has a
 * generation in it that changes when the loader frees memory, which it does after
 * every dlclose has unmapped its module: no rule outlives the code it is for.
 *
 * And two stacks of one thread in a row are mostly the same but for a few inner
 * frames. So the frames of the last one are kept, with where each found its return
 * address and its caller's frame pointer. Where a frame of the new stack has the
 * same pc, sp and fp as a kept one, the rest is the same as long as those words are:
 * they are compared, and no rule is asked for. (A rule's outcome depends on nothing
 * else. A return address alone would not do: one frame may have any length.)
 *
 * The stack is read directly between the stack pointer and the end of the thread's
 * own stack, which is found once per thread: the thread control block, or for the
 * first thread where the kernel put its arguments. Other stacks (fibers, sigaltstack)
 * are read through peek.h. Frames of generated code are followed by frame pointers.
 * A difficult frame makes the whole walk unwind.h's.
 *
 * CALLSTACK-1  the stack pointer grows from frame to frame
 *
 * No lock, no malloc, no file, async-signal-safe, errno kept. */
#ifndef SPANGUARD_CALLSTACK_H
#define SPANGUARD_CALLSTACK_H

#include "base.h"

enum { CALLSTACK_KEPT = 96 };

struct callstack_frame {
	uintptr_t pc;           /* return address; the frame's, not its caller's */
	uintptr_t sp, fp;
	intptr_t fp_at;         /* the caller's fp is at its sp + fp_at; 0: it is unchanged */
};

/* What is known of a thread. Zeroes: nothing yet. */
struct callstack_thread {
	int tid;                /* whose; the caller changes it with the thread */
	bool busy;              /* a handler that comes in does without the kept frames */
	bool rooted;            /* kept[0] is the outermost frame there is */
	uint8_t generation;
	uint32_t n;             /* kept frames, outermost first */
	uintptr_t lo, hi;       /* the own stack, as far as it was looked at */
	struct callstack_frame kept[CALLSTACK_KEPT];
};

/* Finds our own module and the loader's. While one thread runs. */
void callstack_init(void);

/* Forgets the rules of all frames: test builds. */
void callstack_forget(void);

/* The frame of the function that this is inlined into, to start from: its caller
 * is the first of the stack. NULL: the machine's frames do not tell. */
#if defined(__x86_64__)
INLINE const void *
callstack_frame(void)
{
	return __builtin_frame_address(0);
}
#else
INLINE const void *
callstack_frame(void)
{
	return NULL;
}
#endif

/* The stack from the caller of `frame`'s function outwards, pcs as unwind.h's; of
 * our own frames only the outermost one, the function that the program called.
 * t or frame NULL: by unwind.h. */
size_t callstack(struct callstack_thread *t, const void *frame, uintptr_t *pcs, size_t max);

#endif
