/* litmus_pages.c - litmus programs of large objects, pages, sets of spans, locks,
 * fork and signal handlers. */
#include "litmus.h"

#include <string.h>

#include "mspanset.h"
#include "persistentalloc.h"

enum { B = 2048, SLOTS = 8, LARGE = 5 * PAGE_SIZE, LARGER = 20 * PAGE_SIZE };

static void nothing(void) { }
static void free_0(void) { litmus_free(0); }
static void free_1(void) { litmus_free(1); }
static void free_3(void) { litmus_free(3); }
static void free_4(void) { litmus_free(4); }
static void alloc_20(void) { litmus_alloc(20, B); }
static void large_20(void) { litmus_alloc(20, LARGE); }
static void large_30(void) { litmus_alloc(30, LARGE); }
static void larger_20(void) { litmus_alloc(20, LARGER); }
static void larger_30(void) { litmus_alloc(30, LARGER); }
static void verify_between(void) { litmus_verify(); }

static void
three_large(void)
{
	for (unsigned i = 0; i < 3; i++)
		litmus_alloc(i, LARGER);
}

static void
hole_behind_0(void)
{
	three_large();
	litmus_free(1);
}

static void
free_and_alloc_large(void)
{
	litmus_free(0);
	litmus_alloc(20, LARGER);
}

static void grow_0(void) { litmus_realloc(0, 2 * LARGER); }
static void shrink_0(void) { litmus_realloc(0, LARGER / 2); }

static void
move_0(void)
{
	litmus_realloc(0, 4 * LARGER);
}

static void
scavenge(void)
{
	mheap_scavenge_all(&mheap_);
}

/* Pages that lie idle, in several runs. */
static void
idle_pages(void)
{
	three_large();
	litmus_alloc(3, LARGE);
	litmus_free(0);
	litmus_free(2);
}

/* Both threads have pages in their caches. */
static void
cached_pages(void)
{
	litmus_alloc(0, B);
	litmus_as(1);
	litmus_alloc(1, B);
	litmus_as(0);
}

static void
flush_quarantine(void)
{
	mheap_flush_quarantine(&mheap_);
}

static void again_0(void) { litmus_free_again(0); }

/* ---- sets of spans ---- */

static struct span_set test_set LITMUS_STATE;

static struct span_set *
set(void)
{
	return &test_set;
}

static struct mspan *
dummy(unsigned i)
{
	return (struct mspan *)(uintptr_t)(0x1000 + 16 * i);
}

static void
must_push(unsigned i)
{
	if (!span_set_push(set(), &mheap_.meta, dummy(i)))
		sched_fail("push: no memory");
}

static unsigned
pop_one(void)
{
	struct mspan *s = span_set_pop(set());
	if (s == NULL)
		return 0;
	unsigned i = (unsigned)((uintptr_t)s - 0x1000) / 16;
	if (i >= LITMUS_NAMES || litmus_marked(i))
		sched_fail("pop gave %p, out before", (void *)s);
	litmus_mark(i);
	return i;
}

static void
set_near_edge(void)
{
	memset(&test_set, 0, sizeof(test_set));
	for (unsigned i = 0; i < SPAN_SET_BLOCK_SLOTS - 1; i++) {
		must_push(1);
		span_set_pop(set());
	}
	must_push(1);
	must_push(2);
}

static void
set_at_edge(void)
{
	memset(&test_set, 0, sizeof(test_set));
	for (unsigned i = 0; i < SPAN_SET_BLOCK_SLOTS; i++) {
		must_push(1);
		span_set_pop(set());
	}
}

static void
pop_two(void)
{
	pop_one();
	pop_one();
}

static void
pop_and_push(void)
{
	pop_one();
	must_push(3);
}

static void push_4(void) { must_push(4); }
static void push_5(void) { must_push(5); }

static void
pop_1(void)
{
	pop_one();
}

/* What was pushed is popped, each once. */
static void
set_empties(void)
{
	const char *tag = span_set_check(set());
	if (tag == NULL)
		tag = span_set_check_pool();
	if (tag != NULL)
		sched_fail("%s", tag);
	while (pop_one() != 0)
		continue;
	for (unsigned i = 1; i <= 2; i++)
		if (!litmus_marked(i))
			sched_fail("%u is lost", i);
}

static void
pushed_4_5(void)
{
	while (pop_one() != 0)
		continue;
	if (!litmus_marked(4) || !litmus_marked(5))
		sched_fail("a push is lost");
}

/* ---- locks and metadata ---- */

static struct mutex test_lock LITMUS_STATE;
static unsigned inside LITMUS_STATE;

static void
lock_twice(void)
{
	for (int i = 0; i < 2; i++) {
		mutex_lock(&test_lock);
		if (inside++ != 0)
			sched_fail("two threads hold one lock");
		sched_point(&test_lock, SCHED_WRITE);
		inside--;
		mutex_unlock(&test_lock);
	}
}

static void
metadata(void)
{
	static const size_t sizes[] = { 48, 4096, 3000 };

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		char *p = persistent_alloc(&mheap_.meta, sizes[i], 64);
		if (p == NULL)
			sched_fail("no metadata");
		for (size_t k = 0; k < sizes[i]; k += 16) {
			if (p[k] != 0)
				sched_fail("metadata at %p is somebody's", (void *)(p + k));
			p[k] = 1;
		}
	}
}

/* ---- threads and fork ---- */

static void
all_end(void)
{
	for (unsigned i = 3; i-- > 0;) {
		litmus_as(i);
		litmus_exit();
		litmus_reborn();
	}
}

static void
first_call(void)
{
	litmus_alloc(20 + sched_self(), 64);
}

static void
end_and_again(void)
{
	litmus_alloc(20, 64);
	litmus_exit();
}

static void
small_and_large(void)
{
	for (unsigned i = 0; i < SLOTS; i++)
		litmus_alloc(i, B);
	litmus_alloc(8, LARGE);
}

static void
fork_parent(void)
{
	litmus_fork(false);
	litmus_alloc(30, B);
}

static void
fork_child(void)
{
	litmus_fork(true);
	litmus_alloc(30, B);
	litmus_alloc(31, LARGE);
	litmus_verify();
}

/* The child's thread is past its end: the shared cache serves it. */
static void
fork_past_end(void)
{
	litmus_exit();
	litmus_fork(true);
	litmus_alloc(30, B);
	litmus_free(0);
	litmus_verify();
}

static void
work_small(void)
{
	litmus_alloc(20, B);
	litmus_free(20);
}

static void
work_remote(void)
{
	litmus_free(0);
	litmus_free(1);
	litmus_alloc(20, B);
}

static void
work_large(void)
{
	litmus_free(8);
	litmus_alloc(20, LARGE);
}

static void work_exit(void) { litmus_exit(); }

/* ---- signal handlers ---- */

/* A window that is not empty. */
static void
handler_setup(void)
{
	for (unsigned i = 0; i < SLOTS - 2; i++)
		litmus_alloc(i, B);
	litmus_alloc(8, LARGE);
}

static void handler_alloc(void) { litmus_alloc(30, B); litmus_alloc(31, 64); }
static void handler_large(void) { litmus_alloc(30, LARGE); litmus_free(30); }

static void
handler_free(void)
{
	litmus_free(0);
	litmus_free(8);
}

static void
main_small(void)
{
	litmus_free(1);
	for (unsigned i = 20; i < 23; i++)
		litmus_alloc(i, B);
	litmus_free(2);
}

static void
main_large(void)
{
	litmus_alloc(20, LARGE);
	litmus_free(20);
}

const struct litmus litmus_pages[] = {
	{ .name = "large-alloc", .about = "two large allocations",
	  .threads = 2, .setup = nothing, .thread = { large_20, large_30 } },
	{ .name = "large-free-alloc", .about = "a large free while another allocates",
	  .threads = 2, .setup = three_large, .thread = { free_and_alloc_large, larger_30 } },
	{ .name = "large-coalesce", .about = "two neighbours are freed, a third thread allocates",
	  .threads = 3, .setup = three_large, .thread = { free_0, free_1, large_20 } },
	{ .name = "large-verify", .about = "a large object freed and one made during verify",
	  .threads = 3, .setup = three_large, .thread = { free_0, larger_20, verify_between } },
	{ .name = "large-recorded", .about = "with records and redzones: freed and made during verify",
	  .threads = 3, .setup = three_large, .thread = { free_0, larger_20, verify_between },
	  .recorded = true },
	{ .name = "large-double", .about = "BUG: two threads free one large object",
	  .threads = 2, .setup = three_large, .thread = { free_0, again_0 },
	  .deaths = 1 << DIE_DOUBLE_FREE },
	{ .name = "grow-neighbour", .about = "realloc grows in place, another takes the pages behind",
	  .threads = 2, .setup = hole_behind_0, .thread = { grow_0, larger_20 } },
	{ .name = "shrink-neighbour", .about = "realloc gives up its tail, another takes it",
	  .threads = 2, .setup = three_large, .thread = { shrink_0, large_20 } },
	{ .name = "move-neighbour", .about = "realloc moves, another frees behind it and allocates",
	  .threads = 2, .setup = three_large, .thread = { move_0, free_1 } },
	{ .name = "resize-verify", .about = "verify while realloc grows and shrinks in place",
	  .threads = 2, .setup = hole_behind_0, .thread = { grow_0, verify_between } },
	{ .name = "scavenge-alloc", .about = "the scavenger gives pages back, another takes them",
	  .threads = 2, .setup = idle_pages, .thread = { larger_20, scavenge } },
	{ .name = "scavenge-free", .about = "the scavenger at work while pages become free",
	  .threads = 2, .setup = idle_pages, .thread = { free_3, scavenge } },
	{ .name = "scavenge-two", .about = "two scavengers and an allocation",
	  .threads = 3, .setup = idle_pages, .thread = { larger_20, scavenge, scavenge } },
	{ .name = "scavenge-verify", .about = "verify while the scavenger is at work",
	  .threads = 2, .setup = idle_pages, .thread = { scavenge, verify_between } },
	{ .name = "pages-flush", .about = "a trim flushes the page cache its owner takes from",
	  .threads = 2, .setup = cached_pages, .thread = { large_20, litmus_trim } },
	{ .name = "pages-two", .about = "two threads fill their page caches",
	  .threads = 2, .setup = nothing, .thread = { alloc_20, large_30 } },
	{ .name = "quarantine-free", .about = "two large frees push others out of the quarantine",
	  .threads = 3, .setup = three_large, .thread = { free_0, free_1, large_20 },
	  .quarantine_bytes = LARGER },
	{ .name = "quarantine-flush", .about = "the quarantine is emptied while spans come in",
	  .threads = 2, .setup = three_large, .thread = { free_0, flush_quarantine },
	  .quarantine_bytes = 64 * LARGER },
	{ .name = "quarantine-double", .about = "BUG: a large object is freed twice, into the quarantine",
	  .threads = 2, .setup = three_large, .thread = { free_0, again_0 },
	  .quarantine_bytes = 64 * LARGER, .deaths = 1 << DIE_DOUBLE_FREE },
	{ .name = "set-aba", .about = "pops and pushes over the edge of a block",
	  .threads = 3, .setup = set_near_edge, .thread = { pop_two, pop_and_push, pop_1 },
	  .check = set_empties },
	{ .name = "set-grow", .about = "two pushes install the same new block",
	  .threads = 2, .setup = set_at_edge, .thread = { push_4, push_5 }, .check = pushed_4_5 },
	{ .name = "set-refill", .about = "a push into the block that a pop sets free",
	  .threads = 3, .setup = set_near_edge, .thread = { pop_two, push_4, push_5 },
	  .check = pushed_4_5 },
	{ .name = "lock", .about = "three threads and one lock",
	  .threads = 3, .setup = nothing, .thread = { lock_twice, lock_twice, lock_twice } },
	{ .name = "metadata", .about = "two threads take metadata",
	  .threads = 2, .setup = nothing, .thread = { metadata, metadata } },
	{ .name = "first-calls", .about = "three threads begin at once, with caches from the pool",
	  .threads = 3, .setup = all_end, .thread = { first_call, first_call, first_call } },
	{ .name = "end-begin", .about = "a cache goes to the pool and from there to another thread",
	  .threads = 2, .setup = all_end, .thread = { end_and_again, first_call } },
	{ .name = "fork-parent", .about = "the parent goes on; others were at work",
	  .threads = 2, .setup = small_and_large, .thread = { fork_parent, work_remote } },
	{ .name = "fork-small", .about = "the child of a thread, another was in its fast path",
	  .threads = 2, .setup = small_and_large, .thread = { fork_child, work_small }, .forks = true },
	{ .name = "fork-remote", .about = "the child, others were freeing its objects",
	  .threads = 2, .setup = small_and_large, .thread = { fork_child, work_remote }, .forks = true },
	{ .name = "fork-large", .about = "the child, another was in the page heap",
	  .threads = 2, .setup = small_and_large, .thread = { fork_child, work_large }, .forks = true },
	{ .name = "fork-exit", .about = "the child, another was at its end",
	  .threads = 2, .setup = small_and_large, .thread = { fork_child, work_exit }, .forks = true },
	{ .name = "fork-shared", .about = "the child of a thread past its end, another was at work",
	  .threads = 2, .setup = small_and_large, .thread = { fork_past_end, work_small }, .forks = true },
	{ .name = "fork-trim", .about = "the child, another was trimming",
	  .threads = 2, .setup = small_and_large, .thread = { fork_child, litmus_trim }, .forks = true },
	{ .name = "handler-alloc", .about = "a signal handler allocates anywhere in malloc and free",
	  .threads = 2, .setup = handler_setup, .thread = { main_small, handler_alloc },
	  .handler_of = { 0, 1 } },
	{ .name = "handler-free", .about = "a signal handler frees small and large objects",
	  .threads = 2, .setup = handler_setup, .thread = { main_small, handler_free },
	  .handler_of = { 0, 1 } },
	{ .name = "handler-large", .about = "a signal handler comes in on the page heap",
	  .threads = 2, .setup = handler_setup, .thread = { main_large, handler_large },
	  .handler_of = { 0, 1 } },
	{ .name = "handler-remote", .about = "... and another thread frees meanwhile",
	  .threads = 3, .setup = handler_setup, .thread = { main_small, handler_free, free_4 },
	  .handler_of = { 0, 1, 0 } },
	{ .name = NULL },
};
