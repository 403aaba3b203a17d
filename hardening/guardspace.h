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
 * Test:      tests/test_guardmode.c, tests/guard.
 *
 * GUARDSPACE-1  an object lies in the pages of its own slot that do not fault while it
 *               is LIVE; seen at its free, and whenever a freed one changes its list
 * GUARDSPACE-2  every slot between UNUSED and REPORTED has a guard on both sides
 * GUARDSPACE-3  what leaves the quarantine is FREED, or was reported meanwhile
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
	GUARD_INDIRECT = 32,        /* mark: a lost object points to it */
	GUARD_STUCK = 64,           /* BUSY for good: some of its pages fault, unknown which */
};

/* Guards that a report has taken off; one between two slots is the first's. */
enum guard_opened { GUARD_BEFORE_OPENED = 1, GUARD_BEHIND_OPENED = 2 };

/* ---- what is where: also for tools that look from outside (root.h) ---- */

/* What a chunk is: the low byte; for runs with a number of chunks above it. */
enum guard_chunk {
	CHUNK_FREE,
	CHUNK_FAULTED,              /* free, and all of it faults */
	CHUNK_RUN,                  /* the first of so many */
	CHUNK_BODY,                 /* so many chunks behind the first */
	CHUNK_CLASS,                /* + index of the class */
};

enum {
	GUARD_CHUNK_PAGES = 256,
	GUARD_GRANULE_PAGES = 2,    /* no slot with its guard is shorter */
	GUARD_GRANULES = GUARD_CHUNK_PAGES / GUARD_GRANULE_PAGES,
	GUARD_CLASSES = 12,
};

/* Pages of a slot. */
static const uint8_t guard_class_pages[GUARD_CLASSES] = {
	1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16 };

struct guard_region {
	uintptr_t base;
	size_t bytes;
	size_t n_chunks;
	size_t first_free;          /* no free chunk is before it */
	atomic_u32 *chunk;
	struct guard_record *record;    /* one per granule */
};

struct guard_directory {
	atomic_u32 n;
	size_t page_bytes;
	struct guard_region region[GUARDSPACE_REGIONS];
};

/* A slot by its first page; 0: none. */
struct guard_slots {
	uintptr_t in, before, behind;
};

static inline bool
guard_is_run(uint32_t word)
{
	return (word & 0xff) == CHUNK_RUN;
}

static inline bool
guard_is_class(uint32_t word)
{
	return word >= CHUNK_CLASS && word < CHUNK_CLASS + GUARD_CLASSES;
}

/* A slot and the guard behind it. */
static inline size_t
guard_stride(uint32_t word, size_t page)
{
	return (guard_class_pages[word - CHUNK_CLASS] + (size_t)1) * page;
}

/* The pages of a slot of such a chunk; of a run all but the first and the last. */
static inline size_t
guard_slot_bytes(uint32_t word, size_t page)
{
	return guard_is_run(word) ? ((word >> 8) * GUARD_CHUNK_PAGES - 2) * page :
	    guard_stride(word, page) - page;
}

static inline size_t
guard_granule(const struct guard_region *g, size_t page, uintptr_t data)
{
	return (data - g->base) / (GUARD_GRANULE_PAGES * page);
}

/* The slots around addr. word: of the chunk that addr is in, or of the head of the
 * run; chunk: where that begins. */
static inline struct guard_slots
guard_locate(uint32_t word, uintptr_t chunk, size_t page, uintptr_t addr)
{
	struct guard_slots out = { 0, 0, 0 };
	uintptr_t first = chunk + page;
	if (!guard_is_run(word) && !guard_is_class(word))
		return out;
	size_t slot = guard_slot_bytes(word, page), stride = slot + page;
	size_t n = guard_is_run(word) ? 1 : (GUARD_CHUNK_PAGES - 1) * page / stride;
	if (addr < first) {
		out.behind = first;
		return out;
	}
	size_t i = (addr - first) / stride, off = (addr - first) % stride;
	if (i >= n)
		return out;
	if (off < slot) {
		out.in = first + i * stride;
		return out;
	}
	out.before = first + i * stride;
	out.behind = i + 1 < n ? first + (i + 1) * stride : 0;
	return out;
}

const struct guard_directory *guardspace_directory(void);

/* ---- the room ---- */

struct guardspace_config {
	bool left;                  /* objects at the first byte of their pages */
	size_t quarantine_bytes;    /* of address space */
};

void guardspace_init(const struct guardspace_config *config);

/* A BUSY slot with an object of `bytes` at base, a multiple of align (a power of
 * two): the pages that the object needs read as zero, all others of the slot
 * fault. NULL: none to be had, or the caller interrupted the holder of the lock. */
struct guard_record *guardspace_take(size_t bytes, size_t align);

/* FREEING to FREED: its pages fault from here on, or stay open and read as zero. */
void guardspace_free(struct guard_record *r, bool faults);

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

/* GUARDSPACE-1 of an object that is live, or being freed by the caller. */
bool guardspace_sound(const struct guard_record *r);

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
