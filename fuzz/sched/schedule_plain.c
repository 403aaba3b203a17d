/* schedule_plain.c - what the compiler calls before plain accesses when it is told to
 * instrument for ThreadSanitizer; here each is a point of the schedule. See schedule.h.
 * memcpy and its kind are renamed in the tiers' object by fuzz/sched/sched.mk. */
#include <string.h>

#include "schedule.h"

#define HERE ((uintptr_t)__builtin_return_address(0))

#define ACCESS(name, bytes, write)                                             \
	void __tsan_##name(void *p);                                           \
	void __tsan_##name(void *p) { sched_plain((uintptr_t)p, bytes, write, HERE); }

ACCESS(read1, 1, false)
ACCESS(read2, 2, false)
ACCESS(read4, 4, false)
ACCESS(read8, 8, false)
ACCESS(read16, 16, false)
ACCESS(write1, 1, true)
ACCESS(write2, 2, true)
ACCESS(write4, 4, true)
ACCESS(write8, 8, true)
ACCESS(write16, 16, true)
ACCESS(unaligned_read2, 2, false)
ACCESS(unaligned_read4, 4, false)
ACCESS(unaligned_read8, 8, false)
ACCESS(unaligned_read16, 16, false)
ACCESS(unaligned_write2, 2, true)
ACCESS(unaligned_write4, 4, true)
ACCESS(unaligned_write8, 8, true)
ACCESS(unaligned_write16, 16, true)

void __tsan_init(void);

void
__tsan_init(void)
{
	sched_is_plain = true;
}

void *plain_memcpy(void *to, const void *from, size_t n);
void *plain_memmove(void *to, const void *from, size_t n);
void *plain_memset(void *to, int byte, size_t n);

void *
plain_memcpy(void *to, const void *from, size_t n)
{
	sched_plain((uintptr_t)from, n, false, HERE);
	sched_plain((uintptr_t)to, n, true, HERE);
	return memcpy(to, from, n);
}

void *
plain_memmove(void *to, const void *from, size_t n)
{
	sched_plain((uintptr_t)from, n, false, HERE);
	sched_plain((uintptr_t)to, n, true, HERE);
	return memmove(to, from, n);
}

void *
plain_memset(void *to, int byte, size_t n)
{
	sched_plain((uintptr_t)to, n, true, HERE);
	return memset(to, byte, n);
}
