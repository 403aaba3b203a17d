/* tls.h - the calling thread's cache, in 24 bytes of initial-exec TLS.
 *
 * front is what the fast paths see: the thread's own cache, or, in a mode that
 * wants to see every call, mcache_armed, which is always empty, always busy and
 * owns no span, so that every malloc and free takes its ordinary slow branch.
 *
 * Both are NULL until the thread's first call and after its last. On x86-64 the offset
 * of the variable is read from the GOT by hand: another library's IFUNC
 * resolver may call malloc before the loader has relocated this one, and then
 * the GOT slot is still 0, which no real offset is. (Elsewhere the linker's
 * code is used, and such a resolver is not served.) */
#ifndef SPANGUARD_TLS_H
#define SPANGUARD_TLS_H

#include "base.h"

struct mcache;

struct thread_state {
	struct mcache *front;  /* first: read at offset 0 below */
	struct mcache *cache;
	bool gone;             /* the exit hook ran its last round: no cache any more */
	bool forks_bare;       /* its fork under way began in the middle of malloc */
	bool compares;         /* it looks at a guarded object's slack (guardmode.c) */
};

#define TLS_MODEL __attribute__((tls_model("initial-exec"), visibility("hidden")))
extern _Thread_local struct thread_state thread_state TLS_MODEL;

#if defined(__x86_64__) && defined(__PIC__) && !defined(SPANGUARD_TEST_BUILD)

INLINE uintptr_t
tls_offset(void)
{
	uintptr_t off;
	__asm__("movq thread_state@GOTTPOFF(%%rip), %0" : "=r"(off));
	return off;
}

INLINE struct mcache *
mcache_front(void)
{
	struct mcache *c;
	uintptr_t off = tls_offset();
	if (unlikely(off == 0))
		return NULL;
	__asm__ volatile("movq %%fs:(%1), %0" : "=r"(c) : "r"(off));
	return c;
}

/* The same for who only compares it with a span's owner. That needs no check for 0:
 * %fs:(0), read before relocation, is the thread control block's own address, and no
 * cache lies there. */
INLINE struct mcache *
mcache_front_raw(void)
{
	struct mcache *c;
	__asm__ volatile("movq %%fs:(%1), %0" : "=r"(c) : "r"(tls_offset()));
	return c;
}

#else

INLINE struct mcache *
mcache_front_raw(void)
{
	return thread_state.front;
}

INLINE uintptr_t
tls_offset(void)
{
	return 1;
}

INLINE struct mcache *
mcache_front(void)
{
	return thread_state.front;
}

#endif

/* The thread's own cache, in any mode. */
INLINE struct mcache *
mcache_self(void)
{
	return unlikely(tls_offset() == 0) ? NULL : thread_state.cache;
}

#endif
