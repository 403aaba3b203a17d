/* sidetable.h - a record for every object, outside of the heap.
 *
 * Threat:    none; it is what reports, the leak check and exact sizes are made of.
 * Mechanism: a span gets, with its pages, a block of records, one per slot, and a
 *            bit per slot that says: freed by the program. A record holds what was
 *            asked for, by which function, thread and stack, and who freed it. It
 *            outlives the object until the slot is handed out again, or the span
 *            is released. Blocks are kept per span class, for all blocks of a
 *            class are equally long, and are never given to another use.
 *
 *              struct mspan --side--> [struct side_span | freed bits | records ..]
 *
 * Cost:      32 bytes a slot, and the time of two stack traces an object.
 * Way round: objects that were allocated by a signal handler in the middle of
 *            malloc (boot.c) have none.
 * Test:      tests/debug.
 *
 *   never used (serial 0) --alloc--> LIVE --free: freed bit--> FREED --alloc--> LIVE
 *
 * A slot whose freed bit is set may still be live to the tiers: the program's free
 * is passed on to them later (debug.h). serial is written last by malloc and the
 * bit cleared after it; the bit is set first by free: of two frees, one sets it.
 *
 * SIDE-1  a slot with a serial number and no freed bit is live to the tiers
 * SIDE-2  slack <= elem_bytes of the span
 *
 * Locks: one, LOCK_SIDE, for the blocks that are free. */
#ifndef SPANGUARD_SIDETABLE_H
#define SPANGUARD_SIDETABLE_H

#include "../src/atomic.h"
#include "../src/mspan.h"
#include "hooks.h"

enum {
	SIDE_SLACK_BITS = 20,
	SIDE_API_BITS = 5,
	SIDE_ALIGN_BITS = 5,
};

/* Who did it: tid | api | log2 of the alignment, packed. */
struct side_who {
	uint32_t tid : 22;
	uint32_t api : SIDE_API_BITS;       /* enum malloc_api */
	uint32_t align : SIDE_ALIGN_BITS;   /* log2, 31 at most */
};

struct side_record {
	atomic_u64 serial_slack;   /* serial << SIDE_SLACK_BITS | unasked bytes of the slot */
	atomic_u64 free_serial;    /* of the last allocation before the free; 0: not freed */
	struct side_who alloc;
	struct side_who freed;
	uint32_t alloc_stack;      /* depot.h */
	uint32_t free_stack;
};

struct side_span {
	struct side_span *next_free;
	uint32_t nelems;
	uint32_t nwords;
	size_t bytes;
	bool trimmed;               /* free, and but for this page not resident */
	struct side_record *records;
	atomic_u64 freed[];
};

struct side_config {
	bool on;
	unsigned stack_depth;
	size_t depot_bytes;
	uint64_t break_on_alloc;
};

void sidetable_init(const struct side_config *config);
bool sidetable_is_on(void);
void sidetable_after_fork_child(void);

/* The block of a new span; false: no memory. And back. */
bool sidetable_span_new(struct mspan *s);
void sidetable_span_release(struct mspan *s);

/* NULL where the span has no records, or idx is none of its slots. */
struct side_record *sidetable_record(const struct mspan *s, size_t idx);

bool sidetable_freed(const struct mspan *s, size_t idx);
/* Slots live to the tiers and freed by the program: 64 of them, and how many. */
uint64_t sidetable_waiting_word(const struct mspan *s, size_t word);
size_t sidetable_waiting(const struct mspan *s);

/* Gives back the pages of blocks that no span uses. */
void sidetable_trim(void);
/* Memory taken for blocks and stacks. */
size_t sidetable_bytes(void);
/* Allocated by the program and not freed by it; for any idx. */
bool sidetable_live(const struct mspan *s, size_t idx);

/* Writes the record of an allocation, serial number last, and clears the freed bit.
 * Owner of the slot only. */
void sidetable_alloc(const struct mspan *s, size_t idx, size_t bytes, size_t align,
    enum malloc_api api);
/* Claims the free: false if the slot was freed already. */
bool sidetable_claim_free(const struct mspan *s, size_t idx);

/* The halves of both that are a record's alone; also of guarded objects. */
void sidetable_write_alloc(struct side_record *r, size_t bytes, size_t slack, size_t align,
    enum malloc_api api);
void sidetable_write_free(struct side_record *r, size_t bytes, enum malloc_api api);

static inline uint64_t
side_serial(const struct side_record *r)
{
	return a64_load_acquire(&r->serial_slack) >> SIDE_SLACK_BITS;
}

/* As asked for. */
static inline size_t
side_bytes(const struct side_record *r, size_t elem_bytes)
{
	return elem_bytes - (a64_load_relaxed(&r->serial_slack) &
	    (((uint64_t)1 << SIDE_SLACK_BITS) - 1));
}

/* What a report says of a record; for guarded objects, too. */
void sidetable_describe(const struct side_record *r, uintptr_t base, size_t elem_bytes,
    struct room_object *out);

/* The stack of the caller, without our own frames but the outermost, under its
 * depot number. */
uint32_t sidetable_stack_here(void);
/* The calling thread. */
int sidetable_tid(void);
/* Allocations so far. */
uint64_t sidetable_serial(void);

#endif
