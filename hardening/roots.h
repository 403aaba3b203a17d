/* roots.h - where a pointer that keeps an object alive can stand, outside the heap.
 *
 *   registers   of every stopped thread, vector registers too, and the caller's
 *   stacks      from the stack pointer to the top of its mapping
 *   data        every other private mapping that can be read and written: data and
 *               bss of all modules, TLS, the brk heap, what others mapped
 *   user        ranges that spanguard_root_add was told about
 *
 * Not roots: the heap itself and sampled objects (mark.h), our metadata, scratch
 * memory of the pass, what other rooms exclude, device files, shared mappings
 * (register those), and pages that
 * were never written: they are not touched, so a pass costs no memory.
 *
 * Below the stack pointer (and the red zone) a stack is dead, but only where it
 * is certain that the mapping is this thread's stack and nothing else: the main
 * stack, or an anonymous mapping with an inaccessible one right below it that
 * holds one thread's stack pointer and, above it, the same thread's TLS. Any
 * other mapping with a stack in it (coroutines, stacks in .bss) is scanned whole.
 * A stack that libc keeps for the next thread is dead but for libc's record at its
 * top, with the result of a thread that was not joined.
 *
 * ROOTS-1  pieces are word-aligned, can be read and do not change while the world
 *          is stopped; two of them may overlap
 *
 * Which pages were written: PAGEMAP_SCAN (Linux 6.7), else /proc/self/pagemap,
 * else every page that can be read. Cost: some 100 us, and 2 us a mapping. */
#ifndef SPANGUARD_ROOTS_H
#define SPANGUARD_ROOTS_H

#include "../src/base.h"

enum root_kind {
	ROOT_STACK,           /* or registers, of thread tid */
	ROOT_DATA,            /* of a module, or another mapping */
	ROOT_USER,
	ROOT_KINDS
};

struct root_piece {
	uintptr_t start, end;
	enum root_kind kind;
	int tid;              /* ROOT_STACK; 0 if several threads are in the mapping */
};

struct roots {
	struct root_piece *piece;
	size_t n;
	size_t cap;
	size_t bytes;
	bool no_memory;
};

/* Collects all roots. The world is stopped, the heap lock is held. self_sp is the
 * caller's stack pointer: nothing below it is a root. false: no memory, or no
 * /proc/self/maps. Either way roots_release afterwards. */
bool roots_collect(struct roots *r, uintptr_t self_sp);
void roots_release(struct roots *r);

/* Calls fn for each part of [start, end) that can be read and may hold something,
 * word-aligned. For long ranges of the heap. */
void roots_each_resident(uintptr_t start, uintptr_t end,
    void (*fn)(uintptr_t from, uintptr_t to, void *arg), void *arg);

/* [p, p + bytes) is (no longer) a root. 0; ENOMEM; remove: ENOENT if it was not
 * added just so. The caller holds the world lock. */
int roots_add(const void *p, size_t bytes);
int roots_remove(const void *p, size_t bytes);

/* Memory of a room that may hold heap addresses which keep nothing alive. The
 * memory stays where it is for good. At most ROOTS_EXCLUDED_MAX. */
enum { ROOTS_EXCLUDED_MAX = 32 };
void roots_exclude(const void *p, size_t bytes);
/* The same for one pass and one range; NULL ends it. */
void roots_exclude_pass(const void *p, size_t bytes);
/* Forgets ranges of both kinds: test builds, whose memory is gone. */
void roots_reset(void);

/* How written pages are found; tests force the ways that this kernel does not need. */
enum roots_way { ROOTS_WAY_SCAN, ROOTS_WAY_PAGEMAP, ROOTS_WAY_PEEK };
extern enum roots_way roots_way;

#endif
