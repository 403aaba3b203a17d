/* stoptheworld.h - every other thread of the process stands still, without ptrace.
 *
 *   stw_stop    a real-time signal to each task of /proc/self/task; its handler
 *               notes registers and stack pointer, answers, waits on a futex
 *   stw_start   one store to the futex word and one wake; they go on
 *
 *   STW-1  generation is odd while the world is stopped or being stopped
 *   STW-2  after stw_stop said yes, every task is the caller, exempt, dead, or
 *          has answered this generation and waits in the handler
 *
 * The handler takes no lock and touches nothing but its own record, so it may
 * come in the middle of malloc. The caller takes every lock that it or what it
 * calls will want BEFORE it stops the world (mark.c says which): a thread stops
 * wherever it is, with whatever lock it holds.
 *
 * Two threads never stop the world at once: callers hold the world lock, which
 * fork takes as well. New threads: the list of tasks is read again until two
 * readings in succession show nobody who has not answered.
 *
 * What a stop costs the program: some 20 us a thread, and EINTR from system
 * calls that the kernel never restarts after a handler (poll, nanosleep ...).
 *
 * Threads that are not waited for: dead ones (a main thread that has called
 * pthread_exit stays in the list), the kernel's own io_uring workers, and those
 * that stw_exempt was told about. The deadline is counted in slices of waiting,
 * so that a process that is stopped as a whole (debugger, SIGSTOP) does not
 * miss it. A thread that blocks the signal misses it and is named. */
#ifndef SPANGUARD_STOPTHEWORLD_H
#define SPANGUARD_STOPTHEWORLD_H

#include "../src/atomic.h"

#define STW_DEADLINE_NS ((uint64_t)1000000000)

/* Where a stopped thread is, and where its registers lie. */
struct stw_state {
	uintptr_t sp, tp;              /* stack pointer, thread pointer */
	uintptr_t regs, regs_end;      /* general registers, as the kernel saved them */
	uintptr_t vregs, vregs_end;    /* vector registers; 0, 0: within regs */
};

struct stw_thread {
	struct stw_state at;           /* a copy, once the world is stopped */
	/* asked: generation << 32 | tid. answered: the struct stw_state in the
	 * handler's frame, put there by compare-and-swap */
	atomic_u64 answer;
	int tid;
	bool asked;
	bool gone;
};

enum stw_outcome {
	STW_OK,
	STW_NO_PROC,          /* /proc/self/task cannot be read */
	STW_NO_SIGNAL,        /* no real-time signal without a handler of the program's */
	STW_NO_MEMORY,
	STW_LATE,             /* a thread did not answer in time */
};

struct stw_failure {
	enum stw_outcome what;
	int tid;              /* STW_LATE: who */
	int signal;
	bool blocks;          /* ... and it blocks the signal */
	uint64_t deadline_ns;
	char name[17];
};

/* At the start of the process: the signal that will be tried first stays deliverable
 * to threads that hold theirs back (sys_hold_signals) while they wait for a lock. */
void stw_init(void);

/* Stops every thread but the caller. Anything but STW_OK: all of them run, and
 * *why says what was wrong. The caller holds the world lock and has blocked its
 * own signals. */
enum stw_outcome stw_stop(uint64_t deadline_ns, struct stw_failure *why);
void stw_start(void);

/* Who has not answered after so long is looked for in /proc. Test builds may be more
 * patient: how soon a thread runs is the machine's. */
#if defined(SPANGUARD_TEST_BUILD)
extern uint64_t stw_first_slice_ns;
#else
enum { stw_first_slice_ns = 1000000 };
#endif

/* The stopped threads. Between stw_stop and stw_start. */
size_t stw_count(void);
const struct stw_thread *stw_thread(size_t i);

/* Never wait for this thread: it holds no pointer of the program's and changes
 * the heap only under a lock the stopper has. At most STW_EXEMPT_MAX. */
enum { STW_EXEMPT_MAX = 8 };
void stw_exempt(int tid);

/* Forgets all memory: test builds, whose metadata is made anew. */
void stw_reset(void);

/* In a forked child: the exempt threads stayed in the parent. */
void stw_after_fork_child(void);

/* The calling thread's own, where its TLS is. */
uintptr_t stw_thread_pointer(void);

/* One line on the log. */
void stw_warn(const struct stw_failure *why);

/* The signal in use; 0 before the first stop. */
int stw_signal(void);

/* Memory for a pass, from the system, zeroed; NULL: refused. What is between
 * alloc and free can be asked for, since none of it is ever a root. */
enum { STW_SCRATCH_MAX = 32 };
void *stw_scratch_alloc(size_t bytes);
void stw_scratch_free(void *p, size_t bytes);      /* p may be NULL */
/* Piece i < STW_SCRATCH_MAX; an empty one is 0, 0. The last one is this list
 * itself: a piece may end where the heap begins. */
void stw_scratch_piece(size_t i, uintptr_t *start, uintptr_t *end);

#endif
