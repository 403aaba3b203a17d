/* lock.h - a mutex of four bytes on futex(2).
 *
 * States: 0 free, 1 held, 2 held and somebody may sleep (Drepper, "Futexes are
 * tricky", mutex 2). Zero-initialised memory is a free lock. Not recursive.
 * Fork: the child sets the locks it inherited to free with mutex_reset().
 * Cost, uncontended: one compare-and-swap and one exchange. */
#ifndef SPANGUARD_LOCK_H
#define SPANGUARD_LOCK_H

#include "atomic.h"
#include "lockrank.h"

struct mutex {
	atomic_u32 state;
	uint32_t rank;      /* enum lock_rank; 0 in a lock that has none yet */
};

#define MUTEX_INIT(r) { .state = { 0 }, .rank = (r) }

void mutex_lock(struct mutex *m);
bool mutex_trylock(struct mutex *m);
void mutex_unlock(struct mutex *m);

/* Makes m free whoever held it: only in a forked child, or in a reset heap. */
void mutex_reset(struct mutex *m);

/* Test builds (where lock_checks): frees whatever the calling thread holds, after
 * a death that came back to the test. */
void lock_forget_held(void);

/* Asked before a thread goes to sleep on a lock, or NULL: true says that the
 * holder does not exist (a child made without fork handlers) and that all locks
 * have been made free. */
extern bool (*mutex_orphaned)(void);

/* True where the build checks ranks and ownership. */
extern const bool lock_checks;

/* True where it also checks what handlers may meet. */
extern const bool lock_checks_handlers;

/* Asked, where lock_checks_handlers, before a lock is waited for, or NULL: false
 * says that a handler could come in while this thread has the lock, and wait for it
 * for ever. */
extern bool (*mutex_handlers_kept_out)(void);

/* What a thread holds, where lock_checks. */
enum { HELD_MAX = 64 };

struct held_locks {
	const struct mutex *lock[HELD_MAX];
	uint32_t count;              /* used entries of lock[] */
	uint32_t untracked;          /* held, but lock[] was full */
	uint32_t of_rank[LOCK_RANKS];
	uint32_t ranks;              /* bit r: some of rank r are held */
};

/* Test builds whose threads are fibers: keeps what the one holds, puts what the
 * other held. */
void mutex_switch_thread(struct held_locks *from, const struct held_locks *to);
const struct held_locks *mutex_held(void);

/* Asserts that the calling thread holds m (only where lock_checks). */
void mutex_assert_held(const struct mutex *m);

#endif
