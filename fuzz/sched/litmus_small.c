/* litmus_small.c - litmus programs of small objects: frees by other threads,
 * owners that sweep, refill and end, spans without an owner, trims.
 *
 * Slots of 2048 bytes: 8 a span, swept from 2 freed ones on, the owner told of 2. */
#include "litmus.h"

#include "malloc.h"

/* A has room for a canary in the same slot. */
enum { B = 2048, A = B - 8, SLOTS = 8 };

static void
alloc_many(unsigned first, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		litmus_alloc(first + i, B);
}

static void
free_many(unsigned first, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		litmus_free(first + i);
}

static void nothing(void) { }
static void free_0(void) { litmus_free(0); }
static void free_1(void) { litmus_free(1); }
static void free_5_6(void) { free_many(5, 2); }
static void free_7(void) { litmus_free(7); }
static void free_8(void) { litmus_free(8); }
static void free_0_1(void) { free_many(0, 2); }
static void free_2_3(void) { free_many(2, 2); }
static void free_8_9(void) { free_many(8, 2); }
static void alloc_20(void) { litmus_alloc(20, B); }
static void alloc_30(void) { litmus_alloc(30, B); }
static void alloc_20_21(void) { alloc_many(20, 2); }
static void one_full_span(void) { alloc_many(0, SLOTS); }
static void two_full_spans(void) { alloc_many(0, 2 * SLOTS); }
static void two_objects(void) { alloc_many(0, 2); }

static void
free_some_then_alloc(void)
{
	free_many(0, 2);
	alloc_many(20, 3);
}

/* Thread 0 has ended and left a full and a partial span. */
static void
left_behind(void)
{
	alloc_many(0, SLOTS + 2);
	litmus_free(0);
	litmus_exit();
	litmus_as(1);
}

/* ... two full ones, with enough freed in both to make a sweep worth while. */
static void
left_behind_noted(void)
{
	two_full_spans();
	litmus_exit();
	litmus_as(1);
	free_many(0, 2);
	free_many(SLOTS, 2);
}

/* ... and thread 1 has a full span of its own. */
static void
left_and_own(void)
{
	left_behind_noted();
	litmus_as(1);
	alloc_many(20, 1);
	litmus_as(2);
}

/* The first span has one live object; another one is ready. */
static void
almost_empty(void)
{
	alloc_many(0, 3 * SLOTS);
	free_many(SLOTS, SLOTS);
	free_many(0, SLOTS - 1);
}

/* ... three live objects, 5 to 7. */
static void
three_left(void)
{
	alloc_many(0, 3 * SLOTS);
	free_many(SLOTS, SLOTS);
	free_many(0, SLOTS - 3);
}

/* A full current span, an empty ready one. */
static void
room_in_reserve(void)
{
	two_full_spans();
	free_many(0, SLOTS);
}

/* A span of another class, filled: it is on a list, and its budget counts. */
static void
fill_other_class(void)
{
	for (unsigned i = 40; i < 50; i++)
		litmus_alloc(i, 1792);
}

static void
exit_0_of_two(void)
{
	litmus_exit();
}

static void
begin_anew(void)
{
	litmus_alloc(30, B);
}

static void
third_not_begun(void)
{
	one_full_span();
	litmus_as(2);
	litmus_exit();
	litmus_reborn();
	litmus_as(0);
}

static void
exit_then_alloc(void)
{
	litmus_exit();
	litmus_alloc(30 + sched_self(), B);
	litmus_free(30 + sched_self());
}

static void
pass_on_one(void)
{
	litmus_alloc(30, B);
	litmus_alloc(31, B);
}

static void
take_over_one(void)
{
	litmus_await(30);
	litmus_free(30);
}

static void
tiny_three(void)
{
	litmus_alloc_noscan(0, 4);
	litmus_alloc_noscan(1, 4);
	litmus_alloc_noscan(2, 4);
}

static void
tiny_more(void)
{
	litmus_alloc_noscan(20, 4);
	litmus_alloc_noscan(21, 8);
}

enum { TINY_BLOCKS = PAGE_SIZE / TINY_BLOCK_BYTES };
static void *tiny[2 * TINY_BLOCKS] LITMUS_STATE = { 0 };

/* An empty span that is not the current one, and in it the block that is filled
 * next: of it and the new one it has more room. */
static void
tiny_all_freed(void)
{
	for (unsigned i = 0; i < 2 * TINY_BLOCKS - 1; i++)
		tiny[i] = mallocgc_noscan(8, API_NOSCAN);
	litmus_alloc_noscan(0, 12);
	for (unsigned i = 0; i < 2 * TINY_BLOCKS - 1; i++)
		freegc(tiny[i], API_FREE);
}

static void fill_tiny(void) { litmus_alloc_noscan(20, 8); }

static void free_2(void) { litmus_free(2); }
static void again_0(void) { litmus_free_again(0); }

/* A program that frees twice; the objects are taken off the books first. */
static void
free_0_as_owner(void)
{
	litmus_free(0);
	alloc_many(20, 2);
}

static void
one_of_the_two(void)
{
	two_full_spans();
	free_many(2, 2);
}

static void
full_span_armed(void)
{
	for (unsigned i = 0; i < SLOTS; i++)
		litmus_alloc(i, A);
}

static void
two_more_armed(void)
{
	litmus_alloc(20, A);
	litmus_alloc(21, A);
}

static void
verify_between(void)
{
	litmus_verify();
}

static void
stats_between(void)
{
	litmus_stats();
}

static void
exit_and_refill(void)
{
	litmus_alloc(20, B);
	litmus_exit();
}

const struct litmus litmus_small[] = {
	{ .name = "remote-refill", .about = "two remote frees while the owner refills",
	  .threads = 2, .setup = one_full_span, .thread = { alloc_20_21, free_0_1 } },
	{ .name = "remote-word", .about = "two threads free neighbours of one word, the owner refills",
	  .threads = 3, .setup = one_full_span, .thread = { alloc_20, free_0, free_1 } },
	{ .name = "sweep-free", .about = "the owner frees, sweeps and refills; another frees",
	  .threads = 2, .setup = one_full_span, .thread = { free_some_then_alloc, free_2_3 } },
	{ .name = "hand-over", .about = "objects made by one thread and freed by the other at once",
	  .threads = 2, .setup = one_full_span, .thread = { pass_on_one, take_over_one } },
	{ .name = "exit-free", .about = "a thread ends while another frees its objects",
	  .threads = 2, .setup = one_full_span, .thread = { litmus_exit, free_0_1 } },
	{ .name = "exit-last", .about = "a thread ends while two others free all it left",
	  .threads = 3, .setup = two_objects, .thread = { litmus_exit, free_0, free_1 } },
	{ .name = "exit-refill", .about = "a thread refills, then ends; another frees and refills",
	  .threads = 2, .setup = one_full_span, .thread = { exit_and_refill, free_some_then_alloc } },
	{ .name = "adopt-free", .about = "a span is adopted while another thread frees in it",
	  .threads = 3, .setup = left_behind, .thread = { nothing, alloc_20, free_1 } },
	{ .name = "adopt-two", .about = "two threads adopt from one central list",
	  .threads = 3, .setup = left_behind_noted, .thread = { nothing, alloc_20, alloc_30 } },
	{ .name = "adopt-last", .about = "a span is adopted while its last objects are freed",
	  .threads = 3, .setup = left_behind, .thread = { nothing, alloc_20, free_8_9 } },
	{ .name = "advance-uncache", .about = "one advances the sweep generation, one gives up spans",
	  .threads = 3, .setup = left_and_own, .thread = { nothing, litmus_exit, alloc_30 } },
	{ .name = "central-trim", .about = "a trim sweeps the central lists while a thread adopts",
	  .threads = 3, .setup = left_behind_noted, .thread = { nothing, alloc_20, litmus_trim } },
	{ .name = "central-exit", .about = "two threads give up their spans at once",
	  .threads = 2, .setup = two_full_spans, .thread = { litmus_exit, exit_and_refill } },
	{ .name = "note-released", .about = "a note goes to a cache that its thread gives back",
	  .threads = 3, .setup = third_not_begun, .thread = { exit_0_of_two, free_0_1, begin_anew } },
	{ .name = "note-gone", .about = "the last remote frees of a span that its owner gives back",
	  .threads = 3, .setup = three_left, .thread = { litmus_trim, free_5_6, free_7 } },
	{ .name = "note-other", .about = "a late note for a struct that is another span by now",
	  .threads = 3, .setup = almost_empty, .thread = { litmus_trim, free_7, fill_other_class } },
	{ .name = "trim-free", .about = "a trim while the owner frees the last object",
	  .threads = 2, .setup = almost_empty, .thread = { free_7, litmus_trim } },
	{ .name = "trim-budget", .about = "the owner's last free, a trim, the struct in use again",
	  .threads = 3, .setup = almost_empty, .thread = { free_7, litmus_trim, fill_other_class } },
	{ .name = "trim-alloc", .about = "a trim while the owner refills from its empty span",
	  .threads = 2, .setup = room_in_reserve, .thread = { alloc_20, litmus_trim } },
	{ .name = "trim-trim", .about = "two trims, and the owner frees",
	  .threads = 3, .setup = room_in_reserve, .thread = { free_8, litmus_trim, litmus_trim } },
	{ .name = "trim-exit", .about = "a trim while the thread ends",
	  .threads = 2, .setup = room_in_reserve, .thread = { litmus_exit, litmus_trim } },
	{ .name = "shared-cache", .about = "two threads past their end allocate and free",
	  .threads = 2, .setup = one_full_span, .thread = { exit_then_alloc, exit_then_alloc } },
	{ .name = "tiny-remote", .about = "tiny objects of a block freed while it is being filled",
	  .threads = 2, .setup = tiny_three, .thread = { tiny_more, free_0_1 } },
	{ .name = "tiny-trim", .about = "a trim while the owner frees and fills tiny blocks",
	  .threads = 2, .setup = tiny_all_freed, .thread = { fill_tiny, litmus_trim } },
	{ .name = "tiny-exit", .about = "a thread ends, its tiny objects are freed",
	  .threads = 3, .setup = tiny_three, .thread = { litmus_exit, free_2, free_0_1 } },
	{ .name = "verify-refill", .about = "verify while a thread refills and another frees",
	  .threads = 3, .setup = one_full_span, .thread = { alloc_20, free_0_1, verify_between } },
	{ .name = "verify-exit", .about = "verify while a thread ends",
	  .threads = 2, .setup = one_of_the_two, .thread = { litmus_exit, verify_between } },
	{ .name = "stats-exit", .about = "statistics while a thread ends",
	  .threads = 2, .setup = one_of_the_two, .thread = { litmus_exit, stats_between } },
	{ .name = "armed-remote", .about = "canaries and zeroes: remote frees while the owner refills",
	  .threads = 2, .setup = full_span_armed, .thread = { two_more_armed, free_0_1 }, .armed = true },
	{ .name = "armed-verify", .about = "canaries and zeroes: verify while others allocate and free",
	  .threads = 3, .setup = full_span_armed, .thread = { two_more_armed, free_0, verify_between },
	  .armed = true },
	{ .name = "double-remote", .about = "BUG: two threads that do not own it free one object",
	  .threads = 3, .setup = one_full_span, .thread = { nothing, free_0, again_0 },
	  .deaths = 1 << DIE_DOUBLE_FREE },
	{ .name = "double-owner", .about = "BUG: owner and another thread free one object",
	  .threads = 2, .setup = one_full_span, .thread = { free_0, again_0 },
	  .deaths = 1 << DIE_DOUBLE_FREE },
	{ .name = "double-reuse", .about = "BUG: as before, and the owner goes on to use the slot again",
	  .threads = 2, .setup = one_of_the_two, .thread = { free_0_as_owner, again_0 },
	  .deaths = 1 << DIE_DOUBLE_FREE,
	  .gap = "the slot is a new object by the time the second free comes" },
	{ .name = NULL },
};
