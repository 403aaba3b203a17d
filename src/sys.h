/* sys.h - the operating system's memory, in four states, by Go's names.
 *
 *   from       call          to
 *   None       sys_reserve   Reserved   address space only; a touch faults
 *   None       sys_alloc     Ready      metadata chunks
 *   Reserved   sys_map       Prepared   may be committed; not yet counted as used
 *   Prepared   sys_used      Ready      safe to touch
 *   Ready      sys_unused    Prepared   contents forfeit, physical pages given back
 *   Ready      sys_fault     Reserved   guard: any touch faults, contents forfeit
 *   Reserved   sys_unfault   Prepared   ours, not Go's: a guard is taken off again
 *   any        sys_free      None
 *
 * Ranges are multiples of the OS page (sys_page_bytes), which is a run-time
 * value of 4, 16 or 64 KiB. sys_linux.c makes the calls; tests link
 * tests/fake_sys.c, which keeps a state for every page and can fail call N.
 * Every function may be called from any thread without a lock. */
#ifndef SPANGUARD_SYS_H
#define SPANGUARD_SYS_H

#include "base.h"

enum sys_state { SYS_NONE, SYS_RESERVED, SYS_PREPARED, SYS_READY, SYS_STATES };

/* How sys_fault makes a guard. */
enum sys_guard_kind {
	SYS_GUARD_AUTO,      /* marker where the kernel has it, else mprotect */
	SYS_GUARD_MARKER,    /* MADV_GUARD_INSTALL (Linux 6.13): no mapping is split */
	SYS_GUARD_MPROTECT,  /* PROT_NONE mappings under a budget */
};

struct sys_stats {
	uint64_t bytes[SYS_STATES];       /* by state, exact; [SYS_NONE] stays 0 */
	uint64_t guard_bytes;             /* under a live guard (part of Reserved) */
	uint64_t guards_installed;        /* sys_fault calls that put a guard */
	uint64_t guards_skipped;          /* sys_fault calls refused by the budget */
	uint64_t guard_vma_budget;        /* 0 with markers */
	uint64_t calls;                   /* memory system calls made */
};

/* Reads the OS page size, probes guard markers and sets the VMA budget of the
 * fallback to `vma_share_percent` of vm.max_map_count less the mappings there
 * are now. Idempotent; called before any other function of this file. */
void sys_init(enum sys_guard_kind guards, unsigned vma_share_percent);

size_t sys_page_bytes(void);
enum sys_guard_kind sys_guard_in_use(void);   /* never SYS_GUARD_AUTO after sys_init */

/* Address space at `hint` if that is free (0: anywhere), aligned to `align`
 * (a power of two >= the OS page). With `exact`, only at hint. NULL if there is
 * none; errno is not touched by any function here. */
void *sys_reserve(uintptr_t hint, size_t bytes, size_t align, bool exact);

/* Zeroed, readable and writable memory for metadata, or NULL. */
void *sys_alloc(size_t bytes);

/* false: the kernel refused (ENOMEM); the range keeps its state. */
bool sys_map(void *p, size_t bytes);
bool sys_used(void *p, size_t bytes);
void sys_unused(void *p, size_t bytes);

/* Puts a guard over Ready memory. false: budget spent or kernel refused; the
 * range is still Ready and its contents are unchanged. */
bool sys_fault(void *p, size_t bytes);
bool sys_unfault(void *p, size_t bytes);

/* `from` says which state the range is in, for the accounting. */
void sys_free(void *p, size_t bytes, enum sys_state from);

/* Moves the pages behind Ready `from` to Ready `to` (same length, disjoint);
 * `from` is Ready and reads as zero afterwards. false: nothing has happened. */
bool sys_move(void *to, void *from, size_t bytes);

/* Ready stays Ready: contents forfeit, the mapping made afresh, so that it can
 * merge with its neighbours again after sys_move. false: nothing has happened. */
bool sys_renew(void *p, size_t bytes);

/* Faults the range in for writing at one stroke (MADV_POPULATE_WRITE); a hint. */
void sys_populate(void *p, size_t bytes);

/* Prepared or Ready memory may be backed by huge pages, where the kernel has them
 * for who asks (transparent_hugepage=madvise); a hint. */
void sys_huge(void *p, size_t bytes);

/* Makes Ready metadata read as zero in a forked child, however it was forked.
 * false: the kernel (before 4.14) does not do that. */
bool sys_wipe_on_fork(void *p, size_t bytes);

/* Makes Ready metadata read-only, and sealed where mseal(2) exists. */
void sys_seal(void *p, size_t bytes);

/* Mappings that stay as they are for the rest of the process, guards in them
 * included: nobody can unmap, move or protect them otherwise. The memory remains
 * what it is. Where mseal(2) (Linux 6.10) exists and may be called; not after the
 * start, for a program may have forbidden itself calls it does not know. */
void sys_keep(void *p, size_t bytes);

void sys_read_stats(struct sys_stats *out);

/* Monotonic clock in nanoseconds, coarse (a few milliseconds). */
uint64_t sys_now_ns(void);

/* Fills `p` from getrandom(2); falls back to the auxiliary vector's bytes, the
 * clock and addresses when the call is not allowed, so it cannot fail. */
void sys_random(void *p, size_t bytes);

/* futex(2) for lock.c, and the calling thread's kernel id. true: it waited for seconds,
 * and nobody woke it. */
bool sys_futex_wait(const uint32_t *word, uint32_t value);
/* Is there no other thread? false also where nobody can tell, and in a child that has
 * its parent's memory (vfork), or that came by no fork we were told of. */
bool sys_is_only_thread(void);
void sys_after_fork_child(void);
void sys_futex_wake(const uint32_t *word, int count);
int sys_gettid(void);

/* Blocks the calling thread's signals but those of faults, SIGABRT and the one given
 * to sys_never_hold (one of ours), until as many releases: for what the program's
 * handlers must not interrupt. */
void sys_never_hold(int sig);
void sys_hold_signals(void);
void sys_release_signals(void);
bool sys_holds_signals(void);

#endif
