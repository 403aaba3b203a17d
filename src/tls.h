/* tls.h - the calling thread's cache, in sixteen bytes of initial-exec TLS.
 *
 * NULL until the thread's first call and after its last. On x86-64 the offset
 * of the variable is read from the GOT by hand: another library's IFUNC
 * resolver may call malloc before the loader has relocated this one, and then
 * the GOT slot is still 0, which no real offset is. (Elsewhere the linker's
 * code is used, and such a resolver is not served.) */
#ifndef SPANGUARD_TLS_H
#define SPANGUARD_TLS_H

#include "base.h"

struct mcache;

struct thread_state {
	struct mcache *cache;
	bool gone;             /* the exit hook ran its last round: no cache any more */
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
mcache_self(void)
{
	struct mcache *c;
	uintptr_t off = tls_offset();
	if (unlikely(off == 0))
		return NULL;
	__asm__ volatile("movq %%fs:(%1), %0" : "=r"(c) : "r"(off));
	return c;
}

#else

INLINE uintptr_t
tls_offset(void)
{
	return 1;
}

INLINE struct mcache *
mcache_self(void)
{
	return thread_state.cache;
}

#endif

#endif
