/* snapshot.h - memory as it was, in microseconds: pages that a run writes to
 * are found by protecting all of them, and only those are copied back.
 *
 *   snap_add(..) for each range;  snap_take();  (run;  snap_back();)*  snap_drop();
 *
 * Between take and drop the ranges are read-only until first written; that
 * costs one SIGSEGV per page and snapshot. Later runs pay a copy per such page.
 * What the kernel is to write to must not lie in an untouched page. */
#ifndef SPANGUARD_FUZZ_SCHED_SNAPSHOT_H
#define SPANGUARD_FUZZ_SCHED_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void snap_add(void *p, size_t bytes);
void snap_take(void);
void snap_back(void);
void snap_drop(void);

/* Of all that runs have changed, as it is now. */
uint64_t snap_hash(void);

/* Pages that have been written to since the snapshot. */
size_t snap_pages(void);

/* All bytes of [p, p + bytes) will be written by means that cannot fault. */
void snap_touch(void *p, size_t bytes);

/* Asked about a fault that is none of ours; it need not return. */
extern void (*snap_stray)(const void *at);

/* madvise for code whose memory is in a range. */
int tiers_madvise(void *p, size_t bytes, int advice);

#endif
