/* heap_support.h - a heap of the test's own making, as often as it likes.
 *
 *   heap_stop()  ->  (fake_sys_reset(..))  ->  heap_start(..)  ->  test
 *
 * heap_stop forgets arenas, caches and spans while their metadata can still be
 * read; then the fake system may be emptied; heap_start sets up anew.
 *
 * One test thread can be several threads of the allocator: heap_new_cache makes
 * the cache of one more, heap_use goes on as its thread, heap_exit ends it. So
 * who owns, who frees and in what order is the test's choice, not the clock's. */
#ifndef SPANGUARD_TESTS_HEAP_SUPPORT_H
#define SPANGUARD_TESTS_HEAP_SUPPORT_H

#include "die.h"
#include "malloc.h"
#include "mcache.h"
#include "mheap.h"
#include "verify.h"

/* Zero is: slots in address order, seed 1, sweep at 25 %, windows of 64 slots,
 * no scavenging. */
struct heap_setup {
	bool randomize;
	uint64_t seed;               /* 0: 1 */
	unsigned sweep_percent;      /* 0: 25 */
	size_t window_bytes;         /* 0: 1 GiB, so 64 slots of any class */
	bool scavenge;               /* on the slow path */
	uint64_t scavenge_delay_ns;
};

void heap_stop(void);
void heap_start(const struct heap_setup *setup);    /* NULL: zero */

/* The calling thread's cache, attached if it has none. */
struct mcache *heap_cache(void);
struct mcache *heap_new_cache(void);
void heap_use(struct mcache *c);                    /* NULL: a thread without one */
void heap_exit(struct mcache *c);                   /* and heap_use(NULL) if it is ours */

/* Fails the test, naming the tags, if verify finds anything. */
void heap_assert_sound(void);
/* Whether verify names `tag` among what it finds. */
bool heap_verify_finds(const char *tag);

/* After a death inside the allocator: frees the locks it left. */
void heap_unlock_all(void);

struct mspan *heap_span(const void *p);             /* not NULL */
size_t heap_slot(const void *p);

/* The call, and whether it ends in death. For any outcome of these: no lock is
 * held afterwards. fake_die_info tells the rest. */
bool heap_free_dies(void *p, enum die_code code);
bool heap_realloc_dies(void *p, size_t bytes, enum die_code code);
bool heap_usable_dies(void *p, enum die_code code);
bool heap_free_sized_dies(void *p, size_t bytes, size_t align, enum die_code code);

/* xorshift64*: the same numbers everywhere. */
uint64_t heap_rand(uint64_t *state);

#endif
