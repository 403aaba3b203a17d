/* guardspace.h - places for guarded objects: address space, guards, quarantine.
 *
 * Threat:    none by itself; guardmode.h, whose ground this is, says which.
 * Mechanism: regions of address space, apart from the arenas, doubling as they
 *            come. A region is cut in chunks of 256 OS pages; a chunk is cut in
 *            slots of one length, or a run of chunks is one long slot.
 *
 *              chunk   | G | slot 0 | G | slot 1 | G | .. | slot k | G | unused
 *              run     | G .. G G | the object's pages | G |
 *
 *            G is a page that faults. A guard is put when its slot is first used
 *            and stays for good; the pages of a freed slot fault as a whole, and
 *            those of a slot used again that its object does not need still do.
 *
 *   UNUSED --take--> BUSY -> LIVE --free--> FREEING -> FREED (quarantine) --+
 *                     ^                                                     |
 *                     +-- used again, the oldest first <--- over the bound -+
 *   LIVE, FREEING, FREED --report, and the program goes on--> REPORTED, for good
 *
 * Cost:      a slot of one page costs one system call when it is first used and
 *            one when it is used again (0.2 us each), one when it is freed and a
 *            page fault when it is written (1.4 us each); 16 bytes of page table
 *            and a record of 72 bytes. A region is three mappings, and its pages
 *            are part of the mapping of the region before where they adjoin.
 * Test:      tests/test_guardspace.c, tests/guard.
 *
 * GUARDSPACE-1  a LIVE object lies in the pages of its own slot that do not fault
 * GUARDSPACE-2  every slot between UNUSED and REPORTED has a guard on both sides
 *
 * Locks: LOCK_GUARDSPACE around the lists, never around a free: freed slots are
 * pushed to a lock-free list that the next allocation empties. A signal handler
 * that interrupts the holder is told that there is no place. Records are looked
 * up by address without a lock. */
#ifndef SPANGUARD_GUARDSPACE_H
#define SPANGUARD_GUARDSPACE_H

#include "sidetable.h"

enum { GUARDSPACE_REGIONS = 64 };

enum guard_state {
	GUARD_UNUSED, GUARD_BUSY, GUARD_LIVE, GUARD_FREEING, GUARD_FREED,
	GUARD_REPORTED,             /* nothing of it faults any more: live still, */
	GUARD_REPORTED_FREED,       /* or not */
};

/* One per slot, outside of the heap. Who took it to BUSY or FREEING owns it. */
struct guard_record {
	atomic_u32 state;           /* enum guard_state */
	uint8_t flags;              /* enum guard_flag */
	uint8_t region;
	uint8_t opened;             /* enum guard_opened, under the lock */
	uintptr_t base;             /* of the object */
	size_t bytes;               /* as asked for */
	uintptr_t data;             /* first byte of the slot's pages */
	struct guard_record *next;  /* on one list at most */
	struct side_record side;    /* functions, threads, stacks */
};

enum guard_flag {
	GUARD_NOSCAN = 1,
	GUARD_OPEN = 2,             /* FREED, and its pages do not fault: refused */
	GUARD_WHITE = 4,            /* mark: live and not reached yet */
	GUARD_CHECKED = 8,          /* checkmark: reached */
	GUARD_RESCAN = 16,          /* mark: reached and not looked into */
};

/* Guards that a report has taken off; one between two slots is the first's. */
enum guard_opened { GUARD_BEFORE_OPENED = 1, GUARD_BEHIND_OPENED = 2 };

struct guardspace_config {
	bool left;                  /* objects at the first byte of their pages */
	size_t quarantine_bytes;    /* of address space */
};

void guardspace_init(const struct guardspace_config *config);

/* A BUSY slot with an object of `bytes` at base, a multiple of align (a power of
 * two): the pages that the object needs read as zero, all others of the slot
 * fault. NULL: none to be had, or the caller interrupted the holder of the lock. */
struct guard_record *guardspace_take(size_t bytes, size_t align);

/* FREEING to FREED: its pages fault from here on. */
void guardspace_free(struct guard_record *r);

/* The pages of a slot that its object needs, which do not fault while it lives. */
uintptr_t guardspace_open_start(const struct guard_record *r);
uintptr_t guardspace_open_end(const struct guard_record *r);
/* All pages that an object of the slot may have. */
size_t guardspace_slot_bytes(const struct guard_record *r);

/* The record of the slot that addr is in, and those of the slots whose guard it
 * is in, before and behind addr; each may be NULL. false: not our address space. */
struct guard_around {
	struct guard_record *in, *before, *behind;
};
bool guardspace_find(uintptr_t addr, struct guard_around *out);

/* Makes everything between the slots before and behind r touchable; true if it is.
 * false: the caller interrupted the holder of the lock. */
bool guardspace_give_up(struct guard_record *r);

/* Every record that was ever used, in address order. */
void guardspace_each(void (*fn)(struct guard_record *r, void *arg), void *arg);
/* The range that holds every slot; empty: there is none. */
void guardspace_bounds(uintptr_t *lo, uintptr_t *hi);
/* Every range of memory of this room's, slots and records. */
void guardspace_each_range(void (*fn)(uintptr_t start, uintptr_t end, void *arg), void *arg);

void guardspace_fork_prepare(void);
void guardspace_fork_parent(void);
void guardspace_fork_child(void);

struct guardspace_stats {
	size_t regions;
	size_t bytes;               /* of address space */
	uint64_t unguarded;         /* takes that failed */
	size_t quarantine_bytes;
};

void guardspace_read_stats(struct guardspace_stats *out);

#endif
