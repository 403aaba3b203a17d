/* depot.h - every different call stack once, under a number of 32 bits.
 *
 * Threat:    none; it is what lets a record of 32 bytes name two stacks.
 * Mechanism: chunks of 1 MiB between guards, taken as they are needed, filled from
 *            the low end, never emptied:
 *
 *              [header: next, frames, hash | pcs ..] [header | pcs ..] ..
 *
 *            and a table of chains by hash. An id is the chunk and the place of the
 *            header in it, in units of 8 bytes. Who adds one writes it in full and
 *            then hangs it in front of its chain by compare-and-swap; nobody waits
 *            for anybody, so a signal handler may come in anywhere.
 * Cost:      a hash over the pcs and, mostly, one comparison. 8 bytes and 8 a
 *            frame for each different stack; 256 KiB of table as it is touched.
 * Way round: when depot_bytes are used up new stacks get id 0, "not kept", and the
 *            log says so once.
 * Test:      tests/test_depot.c.
 *
 * DEPOT-1  every id that was given out is the place of a header whose frames lie
 *          below at and in the same chunk
 * DEPOT-2  no two entries of one chain have the same frames, but for those that
 *          two threads added at the same time */
#ifndef SPANGUARD_DEPOT_H
#define SPANGUARD_DEPOT_H

#include "../src/atomic.h"

enum { DEPOT_FRAMES = 64, DEPOT_CHUNK_BYTES = 1 << 20 };

/* What an id is, also for tools that read from outside (root.h). */
enum {
	DEPOT_UNIT_BYTES = 8,
	DEPOT_CHUNK_UNITS = DEPOT_CHUNK_BYTES / DEPOT_UNIT_BYTES,
	DEPOT_HASH_BITS = 24,       /* kept beside the number of frames */
};

struct depot_entry {
	uint32_t next;              /* id of the next in the chain; constant once hung in */
	uint32_t frames_hash;       /* frames << DEPOT_HASH_BITS | a part of the hash */
	uintptr_t pcs[];
};

/* The addresses of the chunks, by number. */
const atomic_ptr *depot_chunks(void);

/* Empty; `bytes`: the most it may take, in whole chunks. 0: every id is 0. */
void depot_init(size_t bytes);

/* The id of these frames, the same for the same frames; 0: n is 0, or it is full. */
uint32_t depot_put(const uintptr_t *pcs, size_t n);

/* The frames of an id, *n of them; NULL for 0 and for what is no id. */
const uintptr_t *depot_get(uint32_t id, uint32_t *n);

struct depot_stats {
	uint64_t stacks;        /* different ones */
	uint64_t bytes;         /* taken, the table included */
	uint64_t refused;       /* stacks that found it full */
};

void depot_read_stats(struct depot_stats *out);

#endif
