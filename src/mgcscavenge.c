/* mgcscavenge.c - the scavenging policy; see the header for the picture. Go's
 * scavenger aims at a goal of retained memory computed per collection; there is
 * no collection here, so the goal is the low-water mark of the last delay. */
#include "mgcscavenge.h"

#include "lock.h"
#include "mpagealloc.h"
#include "sys.h"

static size_t
min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

static uint64_t
add_ns(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static size_t
minus(size_t a, uint64_t b)
{
	return a > b ? a - (size_t)b : 0;
}

void
scavenger_init(struct scavenger *s, uint64_t delay_ns)
{
	uint64_t window_ns = delay_ns / SCAVENGE_WINDOWS;
	*s = (struct scavenger){
		.next_ns = delay_ns == SCAVENGE_NEVER ? SCAVENGE_NEVER : 0,
		.window_ns = window_ns == 0 ? 1 : window_ns,
		.delay_ns = delay_ns,
	};
}

/* SCAV-1: what was given back since the last look is no longer idle, and was
 * idle in every window that is remembered. */
static void
forget_released(struct scavenger *s, const struct page_alloc *p)
{
	uint64_t gone = p->released_pages - s->seen_released;
	s->seen_released = p->released_pages;
	for (size_t i = 0; i < SCAVENGE_WINDOWS; i++)
		s->low_pages[i] = minus(s->low_pages[i], gone);
	s->now_low_pages = minus(s->now_low_pages, gone);
	s->last_pages = minus(s->last_pages, gone);
}

void
scavenger_note(struct scavenger *s, struct page_alloc *p)
{
	if (p->released_pages != s->seen_released)
		forget_released(s, p);
	size_t idle = page_alloc_idle_pages(p);
	s->last_pages = idle;
	if (idle < s->now_low_pages)
		s->now_low_pages = idle;
}

static void
push_window(struct scavenger *s, size_t low)
{
	s->low_pages[s->ring_idx] = low;
	s->ring_idx = (s->ring_idx + 1) % SCAVENGE_WINDOWS;
}

/* Closes `n` windows and sets the share of the one that begins. In all but the
 * first of them nothing was allocated (that is noted), so no fewer pages were
 * idle than at the last look; how many more there were, nobody knows. */
static void
roll_windows(struct scavenger *s, const struct page_alloc *p, uint64_t n)
{
	size_t idle = page_alloc_idle_pages(p);
	push_window(s, min_size(s->now_low_pages, idle));
	for (uint64_t i = 1; i < n && i <= SCAVENGE_WINDOWS; i++)
		push_window(s, min_size(s->last_pages, idle));
	s->last_pages = idle;
	s->now_low_pages = idle;

	size_t due = s->low_pages[0];
	for (size_t i = 1; i < SCAVENGE_WINDOWS; i++)
		due = min_size(due, s->low_pages[i]);
	if (due == 0)
		s->share_pages = 0;
	else if (s->share_pages * SCAVENGE_WINDOWS < due)
		s->share_pages = due / SCAVENGE_WINDOWS + (due % SCAVENGE_WINDOWS != 0);
	if (due != 0 && s->share_pages < SCAVENGE_FLOOR_PAGES)
		s->share_pages = SCAVENGE_FLOOR_PAGES;

	size_t shares = n < SCAVENGE_WINDOWS ? (size_t)n : SCAVENGE_WINDOWS;
	size_t budget = s->budget_pages + s->share_pages * shares;
	budget = align_up(budget, p->os_pages);
	s->budget_pages = min_size(budget, due);
}

static NOINLINE size_t
due_slow(struct scavenger *s, struct page_alloc *p, uint64_t now_ns)
{
	if (s->window_end_ns == 0) {
		s->seen_released = p->released_pages;
		s->last_pages = page_alloc_idle_pages(p);
		s->now_low_pages = s->last_pages;
		s->window_end_ns = add_ns(now_ns, s->window_ns);
		s->next_ns = s->window_end_ns;
		return 0;
	}
	forget_released(s, p);
	if (now_ns >= s->window_end_ns) {
		uint64_t n = 1 + (now_ns - s->window_end_ns) / s->window_ns;
		roll_windows(s, p, n);
		s->window_end_ns = add_ns(s->window_end_ns, n * s->window_ns);
		s->next_ns = now_ns;
		s->gap_ns = (s->window_end_ns - now_ns) /
		    (s->budget_pages / SCAVENGE_CALL_PAGES + 1);
	}
	scavenger_note(s, p);
	/* What dipped in this window is in use, whatever the last ones said. */
	size_t pages = min_size(s->budget_pages, SCAVENGE_CALL_PAGES);
	pages = min_size(pages, s->now_low_pages);
	s->budget_pages -= pages;
	/* From the schedule, not from now: late calls catch up, one by one. */
	s->next_ns = add_ns(s->next_ns, s->gap_ns);
	if (s->budget_pages == 0 || pages == 0 || s->next_ns > s->window_end_ns)
		s->next_ns = s->window_end_ns;
	return pages;
}

size_t
scavenger_due_pages(struct scavenger *s, struct page_alloc *p, uint64_t now_ns)
{
	if (likely(now_ns < s->next_ns) || s->delay_ns == SCAVENGE_NEVER)
		return 0;
	return due_slow(s, p, now_ns);
}

uint64_t
scavenger_next_ns(const struct scavenger *s)
{
	return s->next_ns;
}

size_t
scavenge_pages(struct page_alloc *p, struct mutex *heap_lock, size_t pages)
{
	size_t done = 0;

	mutex_assert_held(heap_lock);
	while (done < pages) {
		uintptr_t addr;
		size_t n = page_alloc_scavenge_begin(p, pages - done, &addr);
		if (n == 0)
			break;
		mutex_unlock(heap_lock);
		sys_unused((void *)addr, n << PAGE_SHIFT);
		mutex_lock(heap_lock);
		page_alloc_scavenge_end(p, addr, n);
		done += n;
	}
	return done;
}
