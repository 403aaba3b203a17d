/* atomic.h - every atomic access of the allocator, and the only file that
 * names the compiler's builtins for them.
 *
 * The type says that a field is shared; the function says the memory order.
 * The schedule-exploring build (fuzz/sched/schedule.h) defines SPANGUARD_SCHED and links
 * sched_point(), which turns each access into a place where another thread may
 * run, and sched_relax(), a wait for somebody else's write. */
#ifndef SPANGUARD_ATOMIC_H
#define SPANGUARD_ATOMIC_H

#include "base.h"

enum sched_kind {
	SCHED_READ, SCHED_WRITE,          /* relaxed */
	SCHED_ACQUIRE, SCHED_RELEASE,
	SCHED_UPDATE,                     /* read and write, acquire and release */
	SCHED_FENCE,                      /* for signal handlers */
};

#if defined(SPANGUARD_SCHED)
void sched_point(const volatile void *at, enum sched_kind kind);
void sched_relax(void);
#else
INLINE void
sched_point(const volatile void *at, enum sched_kind kind)
{
	(void)at;
	(void)kind;
}

INLINE void
sched_relax(void)
{
}
#endif

typedef struct { uint32_t v; } atomic_u32;
typedef struct { uint64_t v; } atomic_u64;
typedef struct { void *v; } atomic_ptr;

#define ATOMIC_OPS(name, type, val)                                            \
	INLINE val name##_load_relaxed(const type *a)                          \
	{ sched_point(a, SCHED_READ);                                          \
	  return __atomic_load_n(&a->v, __ATOMIC_RELAXED); }                   \
	INLINE val name##_load_acquire(const type *a)                          \
	{ sched_point(a, SCHED_ACQUIRE);                                       \
	  return __atomic_load_n(&a->v, __ATOMIC_ACQUIRE); }                   \
	INLINE void name##_store_relaxed(type *a, val x)                       \
	{ sched_point(a, SCHED_WRITE);                                         \
	  __atomic_store_n(&a->v, x, __ATOMIC_RELAXED); }                      \
	INLINE void name##_store_release(type *a, val x)                       \
	{ sched_point(a, SCHED_RELEASE);                                       \
	  __atomic_store_n(&a->v, x, __ATOMIC_RELEASE); }                      \
	INLINE val name##_exchange(type *a, val x)                             \
	{ sched_point(a, SCHED_UPDATE);                                        \
	  return __atomic_exchange_n(&a->v, x, __ATOMIC_ACQ_REL); }            \
	INLINE bool name##_cas(type *a, val *want, val x)                      \
	{ sched_point(a, SCHED_UPDATE);                                        \
	  return __atomic_compare_exchange_n(&a->v, want, x, false,            \
	      __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE); }

ATOMIC_OPS(a32, atomic_u32, uint32_t)
ATOMIC_OPS(a64, atomic_u64, uint64_t)
ATOMIC_OPS(aptr, atomic_ptr, void *)
#undef ATOMIC_OPS

/* A byte that is constant for all but a stale reader, who may see the old or the
 * new value. */
INLINE uint8_t
byte_load_relaxed(const uint8_t *b)
{
	sched_point(b, SCHED_READ);
	return __atomic_load_n(b, __ATOMIC_RELAXED);
}

INLINE void
byte_store_relaxed(uint8_t *b, uint8_t x)
{
	sched_point(b, SCHED_WRITE);
	__atomic_store_n(b, x, __ATOMIC_RELAXED);
}

INLINE uint32_t
a32_fetch_add(atomic_u32 *a, uint32_t x)
{
	sched_point(a, SCHED_UPDATE);
	return __atomic_fetch_add(&a->v, x, __ATOMIC_ACQ_REL);
}

INLINE uint64_t
a64_fetch_add(atomic_u64 *a, uint64_t x)
{
	sched_point(a, SCHED_UPDATE);
	return __atomic_fetch_add(&a->v, x, __ATOMIC_ACQ_REL);
}

INLINE uint64_t
a64_fetch_sub(atomic_u64 *a, uint64_t x)
{
	sched_point(a, SCHED_UPDATE);
	return __atomic_fetch_sub(&a->v, x, __ATOMIC_ACQ_REL);
}

INLINE uint64_t
a64_fetch_or(atomic_u64 *a, uint64_t x)
{
	sched_point(a, SCHED_UPDATE);
	return __atomic_fetch_or(&a->v, x, __ATOMIC_ACQ_REL);
}

INLINE uint64_t
a64_fetch_and(atomic_u64 *a, uint64_t x)
{
	sched_point(a, SCHED_UPDATE);
	return __atomic_fetch_and(&a->v, x, __ATOMIC_ACQ_REL);
}

/* Orders what one thread does as its own signal handlers see it. */
INLINE void
compiler_fence(void)
{
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	sched_point(NULL, SCHED_FENCE);
}

INLINE void
cpu_relax(void)
{
	sched_relax();
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

#endif
