/* mgcscavenge.h - when idle pages go back to the kernel, and how many at once.
 *
 * Idle pages are free and not scavenged. Time is cut into windows of a quarter
 * of the delay, and the low-water mark of the idle pages is kept for each:
 *
 *   idle    |\__   /\    /\        what dips in a window was in use in it;
 *           |   \_/  \__/  \___    what stays below the lowest dip of the last
 *           |--low--|--low--|--    four full windows was idle for the whole
 *             w0      w1     w2    delay: that much is due
 *
 * Which pages these are does not matter: the allocator takes low addresses, the
 * scavenger gives back high ones. Due pages leave over four windows, a quarter
 * in each, spread over the window in calls of at most SCAVENGE_CALL_PAGES. The
 * shares of windows that nobody called in add up, so after a long silence all
 * that is due leaves within one window.
 *
 *   SCAV-1  released <= due: pages given back by whomever (page_alloc's
 *           released_pages) are taken off every remembered mark
 *   SCAV-2  idle for delay + 1 window => due; gone one delay later if the calls
 *           keep coming at scavenger_next_ns()
 *
 * Locks: everything under the heap lock; scavenge_pages drops it around the
 * system call, with the pages taken out as allocated meanwhile.
 * Cost: one compare per call while nothing is due; note: two. */
#ifndef SPANGUARD_MGCSCAVENGE_H
#define SPANGUARD_MGCSCAVENGE_H

#include "base.h"

struct mutex;
struct page_alloc;

enum {
	SCAVENGE_WINDOWS = 4,        /* per delay */
	SCAVENGE_CALL_PAGES = 1024,  /* 8 MiB: about a millisecond of system call */
	SCAVENGE_FLOOR_PAGES = 128,  /* least share per window: no endless tail */
};

#define SCAVENGE_NEVER UINT64_MAX

struct scavenger {
	uint64_t next_ns;            /* nothing to do before */
	uint64_t window_end_ns;      /* of the window at hand; 0 before the first call */
	uint64_t window_ns;
	uint64_t delay_ns;
	uint64_t seen_released;      /* page_alloc.released_pages taken off the marks */
	size_t low_pages[SCAVENGE_WINDOWS];   /* of the last full windows, a ring */
	size_t ring_idx;             /* the oldest of them */
	size_t now_low_pages;        /* of the window at hand */
	size_t last_pages;           /* idle pages when last looked at */
	size_t share_pages;          /* to leave per window while anything is due */
	size_t budget_pages;         /* of the window at hand, not yet handed out */
	uint64_t gap_ns;             /* between two calls that share out the budget */
};

/* delay_ns: how long pages stay idle before they go; SCAVENGE_NEVER turns it
 * off. The first window starts with the first scavenger_due_pages. */
void scavenger_init(struct scavenger *s, uint64_t delay_ns);

/* How many pages the caller is to hand to scavenge_pages now; mostly 0. */
size_t scavenger_due_pages(struct scavenger *s, struct page_alloc *p, uint64_t now_ns);

/* To be called after pages were allocated (or went to a page cache). Calls after
 * frees are allowed; they tell earlier that pages are idle. */
void scavenger_note(struct scavenger *s, struct page_alloc *p);

/* When scavenger_due_pages has something to do next: a background thread sleeps
 * until then. SCAVENGE_NEVER if it never has. */
uint64_t scavenger_next_ns(const struct scavenger *s);

/* Gives back up to `pages` idle pages, highest addresses first. heap_lock is held
 * on entry and on return and dropped in between, so the heap may have changed.
 * Returns the pages given back; less than `pages` means nothing was left. */
size_t scavenge_pages(struct page_alloc *p, struct mutex *heap_lock, size_t pages);

#endif
