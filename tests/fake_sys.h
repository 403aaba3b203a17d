/* fake_sys.h - sys.h without the kernel: one window of real memory, a state
 * byte for each page of the simulated OS page size, and any illegal transition
 * is a message on stderr and abort().
 *
 *   window  | sys_reserve -->                                  <-- sys_alloc |
 *           fake_sys_base()                                + fake_sys_window_bytes()
 *
 * Memory in the window can really be read and written in every state, unless
 * `real_faults` asks for real protection; contents that sys.h calls forfeit are
 * zero afterwards. The simulated kernel:
 *   - counts mappings: maximal runs of pages of equal protection (Prepared and
 *     Ready are the same, marker guards split nothing), and refuses what would
 *     take their number above max_map_count;
 *   - fails the N-th call of a set of functions (fake_sys_fail);
 *   - has a clock that stands still and random bytes from a seed;
 *   - puts reservations one after the other, with gaps, or where a script says.
 *     A hint outside of the window is an address that is not free.
 * RSS is what is Ready (sys_read_stats): what was touched cannot be known.
 * Thread-safe by one mutex. A reset costs some microseconds plus the pages used. */
#ifndef SPANGUARD_FAKE_SYS_H
#define SPANGUARD_FAKE_SYS_H

#include "sys.h"

/* Bits of the masks below. */
enum fake_sys_call {
	FAKE_SYS_RESERVE = 1 << 0,
	FAKE_SYS_ALLOC = 1 << 1,
	FAKE_SYS_MAP = 1 << 2,
	FAKE_SYS_USED = 1 << 3,
	FAKE_SYS_FAULT = 1 << 4,
	FAKE_SYS_UNFAULT = 1 << 5,
	FAKE_SYS_MOVE = 1 << 6,
	FAKE_SYS_RENEW = 1 << 7,
	FAKE_SYS_CAN_FAIL = (1 << 8) - 1,
	FAKE_SYS_UNUSED = 1 << 8,      /* these are counted, and cannot fail */
	FAKE_SYS_FREE = 1 << 9,
	FAKE_SYS_POPULATE = 1 << 10,
	FAKE_SYS_SEAL = 1 << 11,
	FAKE_SYS_HUGE = 1 << 12,
	FAKE_SYS_ALL = (1 << 13) - 1,
};

enum fake_sys_place {
	FAKE_SYS_CONTIGUOUS,   /* each reservation behind the one before */
	FAKE_SYS_GAPS,         /* ... after 1 to 8 units of its alignment, by the seed */
	FAKE_SYS_SCRIPT,       /* at base + script[i], then contiguous behind the last */
};

struct fake_sys_config {
	size_t page_bytes;             /* 4096, 16384 or 65536; 0: 4096 */
	uint64_t max_map_count;        /* 0: no limit */
	bool no_markers;               /* a kernel before 6.13 */
	bool real_faults;              /* Reserved, guarded and None really fault */
	enum fake_sys_place place;     /* of a sys_reserve that is not at its hint */
	const size_t *script_bytes;    /* offsets from the base; not copied */
	size_t script_len;
	uint64_t seed;                 /* of sys_random and of the gaps */
	uint64_t now_ns;
	uint32_t fail_mask;            /* as fake_sys_fail */
	uint64_t fail_nth;
	bool fail_onwards;
};

/* A new kernel with nothing mapped; NULL: all defaults. What was in the window
 * is gone. sys_init(SYS_GUARD_AUTO, 50) is implied; calling it again is fine. */
void fake_sys_reset(const struct fake_sys_config *config);

/* Counted from now, the nth (1, 2, ...) call of a function in mask fails, and
 * with `onwards` all later ones; nth 0: none. */
void fake_sys_fail(uint32_t mask, uint64_t nth, bool onwards);

/* Calls of the functions in mask since the reset. */
uint64_t fake_sys_calls(uint32_t mask);
/* How many of all calls were refused since the reset, by fake_sys_fail or for want of
 * mappings. */
uint64_t fake_sys_refusals(void);

/* The memory that the fake has besides its variables, for harnesses that set all
 * of it back. */
void fake_sys_each_range(void (*fn)(void *p, size_t bytes));

void fake_sys_set_now(uint64_t now_ns);
void fake_sys_advance(uint64_t ns);

uintptr_t fake_sys_base(void);
size_t fake_sys_window_bytes(void);
uint64_t fake_sys_mappings(void);
enum sys_state fake_sys_state(const void *p);    /* SYS_NONE outside of the window */
bool fake_sys_guarded(const void *p);
/* Both of p, in the window; and how many bytes from the OS page of p on are the same. */
size_t fake_sys_run(const void *p, enum sys_state *state, bool *guarded);

#endif
