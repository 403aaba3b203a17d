/* debug.h - every byte around an object, and every byte of a freed one, is checked.
 *
 * Threat:    overflows, underflows, writes after free, a free by the wrong function:
 *            found with the object, to the byte, and with both stacks.
 * Mechanism: a slot holds its object at the first byte; the rest, 16 bytes at least,
 *            is redzone. Its last 16 bytes are so whether the slot is live or not:
 *            they are the redzone before the next slot, whoever owns that.
 *
 *              | object | redzone .. 16 | object    | redzone .. 16 |
 *              | freed: fill      .. 16 | never used            .. 16 |
 *
 *            Before the first slot, and on both sides of a large object, lie guard
 *            pages. A freed slot is filled and waits in a queue, first in first out;
 *            the tiers still hold it for live. Then it waits for its span to be swept.
 *            When it is handed out again, or its span retires, every byte of it must
 *            be as it was left: by then it is out of the caches, and looking at it
 *            any earlier would cost as much once more. Records
 *            (sidetable.h) say what was asked for, by which function, where.
 * Cost:      16 bytes and a record a slot; three passes over each small object;
 *            the queue's bound in memory.
 * Way round: a jump over the redzone into another object; a write of the byte that
 *            was there; reads of small objects' redzones.
 * Test:      tests/debug.
 *
 * REDZONE-1  behind every live object, up to the end of its slot: REDZONE_BYTE
 * REDZONE-2  the last 16 bytes of the slot before a slot that was ever used:
 *            REDZONE_BYTE. Checked when either is freed, and before malloc sets them
 *            anew for the one in front
 * REDZONE-3  a freed slot holds fill_free, but for its last 16 bytes
 *
 * Locks: one around the queue, LOCK_WAITING. A handler that interrupts its holder
 * does not wait: what it frees leaves at once. */
#ifndef SPANGUARD_DEBUG_H
#define SPANGUARD_DEBUG_H

#include "fault.h"

struct debug_config {
	bool redzone;               /* else only records and mismatches */
	bool mismatch;
	uint8_t fill_alloc;
	uint8_t fill_free;
	size_t fill_max_bytes;
	size_t wait_bytes;          /* bound of the queue */
	unsigned wait_share;        /* ... in percent of the heap, 1 MiB always */
};

void debug_init(const struct debug_config *config);
void debug_fork_prepare(void);
void debug_fork_parent(void);
void debug_after_fork_child(void);

/* Empties the queue. */
void debug_flush(void);

/* As hook_slot_alloc and hook_slot_free. */
bool debug_alloc(const struct mspan *s, void *p, size_t bytes, size_t align,
    enum malloc_api api, bool fresh);
enum free_verdict debug_free(struct mspan *s, size_t idx, enum malloc_api api);

/* Complains if api is no way to free what r says of the object at p. */
struct side_record;
void debug_check_pair(const struct side_record *r, const void *p, enum malloc_api api);

/* As hook_slot_check and hook_slot_explain. */
const char *debug_check(const struct mspan *s, uintptr_t *where);
bool debug_explain(uintptr_t where, const char *api);

/* Objects with a record, for reports. It claims no address. */
extern const struct fault_room debug_room;

#endif
