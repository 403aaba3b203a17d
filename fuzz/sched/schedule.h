/* schedule.h - threads of the allocator as fibers of one thread: the harness
 * decides at every atomic, lock and wait who goes on.
 *
 *   tier code --atomic.h--> sched_point --chooser--> the same fiber, or another
 *   lock.c    --sys.h-----> sys_futex_wait: not enabled before somebody wakes it
 *   mspanset.c -> cpu_relax -> sched_relax: not enabled before somebody writes
 *
 * A schedule is where the default was not taken. The default: whoever runs goes
 * on; where it cannot, the enabled fiber with the lowest number. In text:
 *
 *   "+1 0@37>1 1@12|2"   begin with 1; before its 37th point thread 0 is left
 *                        for 1; blocked behind its 12th, 1 is left for 2
 *
 * Points are counted per fiber, so a text keeps its meaning in any mode.
 * Only accesses to locations that two fibers use, one of them writing, and not
 * always under the same lock, are offered to the chooser (sched_learn): the order
 * between others is nothing that anybody can see.
 *
 * Two builds. In h8, decisions are at atomics. In h8-plain the compiler marks plain
 * accesses, too (as it does for ThreadSanitizer); they are decisions under the same
 * rule, and a plain access that is not ordered with another thread's is reported:
 *
 *   SCHED-RACE  of two accesses to a plain location, one a write, by two threads, the
 *               earlier happens before the later, by acquire and release as written
 *
 * Memory itself is sequentially consistent here: a load never sees an old value, and
 * a wrong memory order shows as SCHED-RACE only. */
#ifndef SPANGUARD_FUZZ_SCHED_SCHEDULE_H
#define SPANGUARD_FUZZ_SCHED_SCHEDULE_H

#include "atomic.h"
#include "die.h"
#include "tls.h"

enum {
	SCHED_THREADS = 4,
	SCHED_STEP_LIMIT = 1000000,  /* points in one run; more is a livelock */
	SCHED_SWITCHES = 256,
	SCHED_TEXT_BYTES = 4096,
};

/* How a run ended. */
enum sched_end {
	SCHED_DONE,        /* every fiber returned */
	SCHED_DIED,        /* die(): see sched_death */
	SCHED_FAILED,      /* sched_fail(): see sched_failure */
	SCHED_DEADLOCK,    /* nobody is enabled */
	SCHED_LIVELOCK,
};

struct sched_program {
	unsigned threads;
	void (*fn)(unsigned thread);
	/* n: not a thread, but a signal handler that may come in on thread n - 1 */
	uint8_t handler_of[SCHED_THREADS];
	/* one of them forks: what others are about shows, shared or not */
	bool forks;
};

/* At a decision: options[0] is the default. */
struct sched_decision {
	unsigned n;
	uint8_t options[SCHED_THREADS];
	bool preempts;     /* options[0] could go on: another choice is a preemption */
	uint8_t from;      /* who runs; SCHED_THREADS at the start */
	uint32_t point;    /* its points so far */
};

struct sched_chooser {
	unsigned (*choose)(struct sched_chooser *c, const struct sched_decision *d);
};

struct sched_switch {
	uint8_t from, to;
	char how;          /* '+' at the start, '>' preempted, '|' blocked or at its end */
	uint32_t point;
	uintptr_t pc;      /* where `from` stands */
};

/* Runs the program once. Memory is the caller's to restore. */
enum sched_end sched_run(const struct sched_program *p, struct sched_chooser *c);

/* Forgets which locations are shared; and takes over what runs have shown since,
 * true if that is more than before: then decisions are other ones. */
void sched_forget(void);
bool sched_learn(void);
/* Whether SCHED-RACE is looked for. On from the start. */
void sched_races(bool on);
/* Every point is a decision, for replays. */
void sched_every_point(bool on);

/* Of the last run. */
extern struct die_info sched_death;
extern char sched_failure[256];
uint32_t sched_points(void);           /* of all fibers */
uint32_t sched_decisions(void);
unsigned sched_switches(const struct sched_switch **out);
void sched_print(char out[SCHED_TEXT_BYTES]);

/* false: not a schedule. */
bool sched_parse(const char *text, struct sched_switch *out, unsigned *n);

/* ---- for programs ---- */

/* Ends the run. Outside of fibers it goes to the innermost sched_guard. */
_Noreturn void sched_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A plain access, of the build that marks them. pc: where. */
void sched_plain(uintptr_t at, size_t bytes, bool write, uintptr_t pc);
/* Whether this is that build. */
extern bool sched_is_plain;

/* Runs fn outside of fibers; how it ended: SCHED_DONE, SCHED_DIED, SCHED_FAILED. */
enum sched_end sched_guard(void (*fn)(void *), void *arg);

/* The number of the fiber that runs; SCHED_THREADS outside. */
unsigned sched_self(void);

/* The others never run again: what fork does to the child. Returns how many
 * of them had begun and were not at their end. */
unsigned sched_kill_others(void);

/* The thread's own TLS, outside of runs; setting makes it that of the caller. */
void sched_be(unsigned thread);
/* All threads as new, the caller as thread 0. */
void sched_tls_reset(void);
/* Keeps and brings back what sched_be keeps for all threads. */
void sched_tls_save(void);
void sched_tls_restore(void);
/* The caches of all threads, for who compares states. */
void sched_tls_read(struct thread_state out[SCHED_THREADS]);

#endif
