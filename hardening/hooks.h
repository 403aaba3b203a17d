/* hooks.h - what the tiers know of the hardening rooms: these calls, and nothing
 * else of hardening/. Each is made from one place, named beside it. */
#ifndef SPANGUARD_HOOKS_H
#define SPANGUARD_HOOKS_H

#include "../src/api.h"
#include "../src/base.h"

struct mheap;
struct mspan;
struct rand_stream;

/* Before anything is made of the options (proc.c): under Valgrind they change. */
void hook_options(void);

/* Once, from proc.c, after the tiers are up and before the first span. */
void hooks_init(struct mheap *h);

/* Bytes at the end of each small slot that the rooms take for themselves (proc.c). */
uint32_t hooks_tail_bytes(void);

/* Every room off, nothing parked: test builds, whose heap is made anew. */
void hooks_reset(void);

/* From the constructor (proc.c): what needs a living libc, signal handlers. */
void hooks_start(void);
/* The part of it that needs neither; test builds make it again for each heap. */
void hooks_start_sampling(void);

/* When the program ends (proc.c): what the rooms have to say. */
void hooks_at_exit(void);
/* Writes the heap profile, from a signal handler (proc.c). */
void hook_profile(void);

/* Some `most`, or s->window, of the slots that s has available, in the order in which the last is
 * handed out first, leave avail; how many. s has some (mspan_next_window). */
uint32_t hook_draw_window(struct mspan *s, uint16_t *order, struct rand_stream *rng,
    uint32_t most);

/* How many slots of a new span have to be freed before it is swept (mspan_init). */
uint16_t hook_sweep_at(uint32_t slots, unsigned share_percent);

/* Which guard pages a new span is to have: bits of enum span_guard (mheap.c). */
unsigned hook_span_guards(unsigned span_class, bool aligned);
/* Puts them, the span's pages being taken; and takes them off again (mheap.c).
 * false: one is still there, because the system refused. */
void hook_guards_put(struct mspan *s, size_t guard_bytes);
bool hook_guards_take_off(struct mspan *s, size_t guard_bytes);

/* An empty span leaves the tiers (mheap_free_span): parks it, or not, and returns
 * the spans, linked by next, that are to be released to the page heap now. */
struct mspan *hook_span_free(struct mheap *h, struct mspan *s);
/* A span that has left the quarantine and has the shape asked for: in state PARKED,
 * in the arena map, with its guards, its pages readable again, and zero where all free
 * memory is. Or NULL.
 * (mheap.c) */
struct mspan *hook_span_reuse(struct mheap *h, size_t npages, unsigned guards, unsigned pool,
    bool large);
/* A span that cannot be released now, for a guard that the system would not take
 * off, is parked (again), whatever the bound: it is tried again later (mheap.c). */
void hook_span_keep(struct mheap *h, struct mspan *s);
/* All parked spans, because memory has run out or the heap is reset. */
struct mspan *hook_quarantine_flush(struct mheap *h);
/* quarantine=mark: whether a mark pass is due, and the pass, by a thread that has
 * no lock of ours (mheap_release_unmarked); as hook_span_free. */
bool hook_mark_due(void);
struct mspan *hook_mark_pass(struct mheap *h);
/* Recounts it under the heap lock; NULL or the tag that does not hold. */
const char *hook_quarantine_check(void);
/* Draws guards and the order of leaving anew (proc.c). */
void hook_heap_after_fork_child(void);
/* Bytes parked. */
size_t hook_quarantine_bytes(void);

/* The records of a new span, and their end (mheap.c). false: no memory. */
bool hook_span_new(struct mspan *s);
void hook_span_release(struct mspan *s);

/* In an armed mode, a slot or large object on its way out of the allocator (malloc.c):
 * bytes and align as asked for. fresh: it holds zeroes only; the return value says
 * whether it does so still. */
bool hook_slot_alloc(const struct mspan *s, void *p, size_t bytes, size_t align,
    enum malloc_api api, bool fresh);

enum free_verdict {
	FREE_NOW,               /* the tiers go on */
	FREE_LATER,             /* a room keeps it, live to the tiers, and calls free_slot */
	FREE_REFUSED,           /* it was freed before */
};

/* ... and back in; the slot is live to the tiers. */
enum free_verdict hook_slot_free(struct mspan *s, size_t idx, enum malloc_api api);
/* Live to the tiers, but freed by the program. */
bool hook_slot_freed(const struct mspan *s, size_t idx);
/* How many of those there are in a span (mstats.c). */
size_t hook_slots_freed(const struct mspan *s);
/* Before everything idle is given back (malloc.c), with no lock held: what waits
 * goes to the tiers. And afterwards: memory of the rooms themselves. */
void hook_trim_begin(void);
void hook_trim_end(void);
/* Memory of the rooms for records and stacks. */
size_t hook_metadata_bytes(void);
/* What was asked for; `otherwise` if nobody knows. */
size_t hook_slot_bytes(const struct mspan *s, size_t idx, size_t otherwise);
/* A call was given what is no live object. true: somebody else has reported it, and
 * the call is to do nothing (malloc.c). */
bool hook_wrong_pointer(const void *p);
/* After the program's last destructor (proc.c); and whether a free in an armed mode
 * comes after that and need not be made (malloc.c). */
void hook_valgrind_end(void);
bool hook_free_at_end(const void *p);
/* Looks at every slot of a span at rest: canaries of live ones, zeroes of freed
 * ones (verify.c, patrol). NULL, or the tag of what is wrong, and where. */
const char *hook_slot_check(const struct mspan *s, uintptr_t *where);

/* The full report of a slot that hook_slot_check named, which ends the program
 * unless halt_on_error=0. false: where is not such a slot. */
bool hook_slot_explain(uintptr_t where, const char *api);

/* Now and then, from a refill (mcache.c): checks one span of this thread. */
void hook_patrol(const struct mspan *s, uint64_t refills);

/* ---- objects outside of spans: of no bytes, and sampled ones (malloc.c) ---- */

enum outside_verdict {
	OUTSIDE_FOREIGN,        /* no room's */
	OUTSIDE_OK,             /* a live object, and this is its first byte */
	OUTSIDE_FREED,          /* it was one */
	OUTSIDE_INTERIOR,
};

/* Zeroed memory that is in no span, or NULL: then a span serves the request.
 * refill: the call found its window empty. */
void *hook_outside_alloc(size_t bytes, size_t align, bool noscan, bool refill,
    enum malloc_api api);
/* What p is, for any address that is in no span; *bytes: as asked for. */
enum outside_verdict hook_outside_look(const void *p, enum malloc_api api, size_t *bytes,
    bool *noscan);
/* Frees p if it is OUTSIDE_OK. */
enum outside_verdict hook_outside_free(void *p, enum malloc_api api);
/* Around a fork (proc.c), the heap's locks being held. */
void hook_fork_prepare(void);
void hook_fork_parent(void);
/* In a forked child (proc.c), its one thread running. */
void hook_fork_child(void);
/* Recounts both (verify.c): NULL, or the tag that does not hold, and where. */
const char *hook_outside_check(uintptr_t *where);

/* ---- what a room knows of an object (report.c) ---- */

enum { ROOM_FRAMES = 64 };

/* A stack that somebody keeps; tid 0: nobody did. */
struct room_trace {
	int tid;
	uint32_t frames;        /* at most ROOM_FRAMES; 0: the thread alone is known */
	const uintptr_t *pcs;   /* innermost first, as unwind.h gives them */
};

/* Whose record it is. */
enum room_kind {
	ROOM_HEAP,              /* a slot or large object without a record: what is NULL */
	ROOM_SAMPLED,
	ROOM_RECORDED,          /* a slot or large object with a record (sidetable.h) */
	ROOM_GUARDED,
};

struct room_object {
	enum room_kind kind;
	const char *what;       /* for people: "a sampled object"; NULL: the heap knows more */
	uintptr_t base;
	size_t bytes;           /* as asked for */
	bool live;
	const char *api;        /* the call that allocated it, NULL: not known */
	const char *free_api;   /* the call that freed it */
	uint64_t serial;        /* of the allocation, from 1 on in order; 0: not counted */
	uint64_t free_serial;   /* of the last allocation before the free */
	struct room_trace allocated;
	struct room_trace freed;
};

/* The object that an address lies in, or whose guard it lies in. false: no room
 * keeps one. Lock-free, for any address; in fault.c. */
bool hook_object(uintptr_t addr, struct room_object *out);
/* The one beside that object, where a room knows of one (neighbours.c). */
bool hook_object_beside(uintptr_t addr, bool behind, struct room_object *out);

/* mark.h: a conservative mark and its second pass (export_spanguard.c): 0 they
 * agree, -1 there was none; else death. */
int hook_mark_check(void);
/* leak.h: a check, and one of what is new (export_spanguard.c, proc.c): the number of
 * lost objects, -1: none was made. What is no leak: 0 or EINVAL. */
int hook_leak_check(bool delta);
int hook_leak_ignore(const void *p);
/* leak_signal (proc.c), the answer also to a descriptor of the process that asked (0:
 * none); and what the handler left to do (malloc.c). */
void hook_leak_from_signal(bool delta, int pid, int fd);
void hook_leak_if_wanted(void);
/* Root ranges of the user's (export_spanguard.c): 0, ENOMEM or ENOENT. */
int hook_root_add(const void *p, size_t bytes);
int hook_root_remove(const void *p, size_t bytes);
/* A thread of our own that no stop of the world is to wait for (proc.c); and a
 * forked child forgets those of its parent (proc.c). */
void hook_thread_exempt(int tid);
void hook_mark_after_fork_child(void);

#endif
