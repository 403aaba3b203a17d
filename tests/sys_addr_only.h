/* sys_addr_only.h - the system for tests that work on addresses alone: heap
 * ranges are never touched and need not exist, so a test may grow a page
 * allocator anywhere in the address space. Takes the place of sys_linux.c.
 *
 * sys_used and sys_unused of such ranges are recorded; metadata (sys_alloc,
 * sys_reserve) is real memory and not recorded. One thread. */
#ifndef SPANGUARD_TESTS_SYS_ADDR_ONLY_H
#define SPANGUARD_TESTS_SYS_ADDR_ONLY_H

#include "../src/sys.h"

enum sys_addr_op { SYS_ADDR_USED, SYS_ADDR_UNUSED };

struct sys_addr_event {
	enum sys_addr_op op;
	uintptr_t addr;
	size_t bytes;
};

enum { SYS_ADDR_LOG_MAX = 8192 };

/* What was called since the test last set sys_addr_events to 0. */
extern struct sys_addr_event sys_addr_log[SYS_ADDR_LOG_MAX];
extern size_t sys_addr_events;

extern size_t sys_addr_page_bytes;       /* what sys_page_bytes says */
extern unsigned sys_addr_refuse_used;    /* refuse the n-th sys_used from now; 0: none */
extern bool sys_addr_refuse_meta;        /* no more metadata memory */
extern uint64_t sys_addr_clock_ns;       /* what sys_now_ns says */
extern void (*sys_addr_on_unused)(uintptr_t addr, size_t bytes);  /* may be NULL */

/* Back to the start: unmaps all metadata memory, 4 KiB OS pages, empty log. */
void sys_addr_reset(void);

#endif
