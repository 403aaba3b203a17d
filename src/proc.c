/* proc.c - see proc.h.
 *
 * Start: the first malloc may come before any constructor, before libc's own,
 * even before relocation (tls.h, boot.c). mallocinit reads the options and sets
 * the tiers up; what needs a living libc (fork handlers, the exit key, signal
 * handlers, a thread) waits for the constructor.
 *
 * The main thread's TLS block is laid out afresh after relocation: a cache that
 * an IFUNC resolver of the program made attach is found again as early_cache.
 *
 * Thread exit: a pthread key's destructor. It re-arms itself until the last
 * round, so that other keys' destructors still find a cache; what comes after
 * that (joining, TLS teardown in libc) is served by the shared cache and frees
 * remotely. The key is made by the constructor, early enough to be one of the
 * few whose values need no memory.
 *
 * Fork: prepare takes world, shared, every cache's and the heap's lock, in that
 * order; every other lock of ours is only ever taken under one of these. */
#include "proc.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "die.h"
#include "malloc.h"
#include "mcache.h"
#include "mheap.h"
#include "mspanset.h"
#include "mstats.h"
#include "options.h"
#include "report.h"
#include "sys.h"
#include "tls.h"
#include "verify.h"
#include "../hardening/hooks.h"

/* One less in builds under ThreadSanitizer, whose own hook ends the thread for
 * it in the last round, before ours. */
#ifndef SPANGUARD_EXIT_ROUNDS
#define SPANGUARD_EXIT_ROUNDS 3
#endif

enum {
	EXIT_ROUNDS = SPANGUARD_EXIT_ROUNDS,
	SCAVENGER_STACK_BYTES = 64 * 1024,
	SCAVENGER_NAP_NS = 2000000,     /* least time between two passes */
	FORK_WAIT_NS = 1000000000,      /* of _Fork, for the locks of a whole heap */
	LEAK_DELTA = 1 << 30,           /* in the value of a signal that asks for a leak check */
};

_Thread_local struct thread_state thread_state TLS_MODEL;

static struct mutex init_lock = MUTEX_INIT(LOCK_INIT);
static struct outer_mutex world = OUTER_MUTEX_INIT(LOCK_WORLD);
static struct outer_mutex shared_lock = OUTER_MUTEX_INIT(LOCK_SHARED);
static atomic_ptr shared_cache;    /* struct mcache *; written once, under shared_lock */
static struct mcache *early_cache;
static atomic_u32 initialised;
static atomic_u32 *fork_word;    /* see child_without_handlers */
static bool constructed;
static bool exit_key_made;
static pthread_key_t exit_key;

/* See say_last_words. */
static struct {
	unsigned expected, called;
	int status;
} last_words;

/* ---- start ---- */

static enum sys_guard_kind
guard_kind(void)
{
	switch (options.guards) {
	case OPT_GUARDS_MARKER:
		return SYS_GUARD_MARKER;
	case OPT_GUARDS_MPROTECT:
		return SYS_GUARD_MPROTECT;
	default:
		return SYS_GUARD_AUTO;
	}
}

void
proc_heap_config(struct mheap_config *out)
{
	*out = (struct mheap_config){
		.span = { options.sweep_share, options.window_bytes,
		    options.canary || options.records },
		.randomize = options.randomize,
		.armed = options.canary || options.zero_on_free || options.records ||
		    options.guard_objects || options.ring != 0,
		.exact = options.records,
		.tended = options.quarantine == OPT_QUARANTINE_MARK || options.leak_signal != 0 ||
		    options.verify_every != 0 || options.verify_signal != 0,
		.whole = options.quarantine == OPT_QUARANTINE_MARK,
		.zeroed = options.zero_on_free,
		.tail_bytes = hooks_tail_bytes(),
		.idle_share_percent = options.idle_share,
		.scavenge_delay_ns = (uint64_t)options.scavenge_delay_ms * 1000000,
		.scavenge_on_slow_path = options.scavenge == OPT_SCAVENGE_SLOW,
		.huge_pages = options.huge_pages,
		.seed = options.seed,
	};
}

static void
init_locked(void)
{
	struct mheap_config config;
	options_init();
	hook_options();
	sys_init(guard_kind(), options.guard_vma_percent);
	proc_heap_config(&config);
	mheap_init(&mheap_, &config);
	hooks_init(&mheap_);
	a32_store_release(&initialised, 1);
}

void
mallocinit(void)
{
	if (likely(a32_load_acquire(&initialised) != 0))
		return;
	mutex_lock(&init_lock);
	if (a32_load_relaxed(&initialised) == 0)
		init_locked();
	mutex_unlock(&init_lock);
}

/* ---- threads ---- */

static NOINLINE void
tls_set(struct mcache *c)
{
	thread_state.cache = c;
	thread_state.front = c != NULL && c->heap->config.armed ? &mcache_armed : c;
}

static void
thread_exit(void *arg)
{
	struct mcache *c = arg;
	if (c != mcache_self())
		return;
	if (c->exit_round++ < EXIT_ROUNDS && pthread_setspecific(exit_key, c) == 0)
		return;
	sys_hold_signals();
	thread_state.gone = true;
	tls_set(NULL);
	mcache_release(c);
	sys_release_signals();
}

/* May call calloc for a late key; the cache is in place by then. */
static void
arm_exit_hook(struct mcache *c)
{
	if (exit_key_made)
		c->dies_with_thread = pthread_setspecific(exit_key, c) == 0;
}

static struct mcache *
take_early_cache(void)
{
	struct mcache *c = early_cache;
	if (c == NULL || c->tid != sys_gettid())
		return NULL;
	early_cache = NULL;
	return c;
}

NOINLINE struct mcache *
mcache_attach(void)
{
	if (tls_offset() == 0 || thread_state.gone)
		return NULL;
	mallocinit();
	sys_hold_signals();     /* until a handler finds the cache, too */
	struct mcache *c = take_early_cache();
	if (c == NULL)
		c = mcache_acquire(&mheap_, sys_gettid());
	if (c != NULL)
		tls_set(c);
	sys_release_signals();
	if (c == NULL)
		return NULL;
	if (!constructed)
		early_cache = c;
	arm_exit_hook(c);
	return c;
}

static struct mcache *
shared_locked(void)
{
	struct mcache *c = aptr_load_relaxed(&shared_cache);
	if (c == NULL) {
		c = mcache_acquire(&mheap_, 0);
		aptr_store_relaxed(&shared_cache, c);
	}
	if (c == NULL)
		outer_unlock(&shared_lock);
	return c;
}

struct mcache *
proc_shared_lock(void)
{
	if (tls_offset() == 0)
		return NULL;
	mallocinit();
	outer_lock(&shared_lock);
	return shared_locked();
}

struct mcache *
proc_shared_trylock(void)
{
	return outer_trylock(&shared_lock) ? shared_locked() : NULL;
}

void
proc_shared_unlock(struct mcache *c)
{
	if (unlikely(c == aptr_load_relaxed(&shared_cache)))
		outer_unlock(&shared_lock);
}

/* ---- the whole heap ---- */

void
proc_world_lock(void)
{
	outer_lock(&world);
}

bool
proc_world_trylock(void)
{
	return outer_trylock(&world);
}

void
proc_world_unlock(void)
{
	outer_unlock(&world);
}

void
proc_reset(void)
{
	aptr_store_relaxed(&shared_cache, NULL);
	early_cache = NULL;
	fork_word = NULL;
	mutex_orphaned = NULL;
	thread_state.gone = false;
	tls_set(NULL);
}

void
proc_forget_start(void)
{
	a32_store_release(&initialised, 0);
	constructed = exit_key_made = false;
	memset(&last_words, 0, sizeof(last_words));
}

/* ---- fork ---- */

/* The locks without a cache that says whether this thread holds them. */
static bool
fork_try_begin(void)
{
	if (!outer_trylock(&world))
		return false;
	if (mutex_trylock(&shared_lock.lock))
		return true;
	outer_unlock(&world);
	return false;
}

static void
fork_lock_rest(void)
{
	mcache_lock_all();
	mutex_lock(&mheap_.lock);
	mutex_lock(&mheap_.meta.lock);
	hook_fork_prepare();
}

/* In a handler that interrupted our slow path the locks may be this thread's own:
 * then the child is one without handlers. */
static void
fork_prepare(void)
{
	thread_state.forks_bare = mcache_slow_interrupted();
	if (thread_state.forks_bare)
		return;
	outer_lock(&world);
	mutex_lock(&shared_lock.lock);
	fork_lock_rest();
}

static void
fork_parent(void)
{
	if (thread_state.forks_bare)
		return;
	hook_fork_parent();
	mutex_unlock(&mheap_.meta.lock);
	mutex_unlock(&mheap_.lock);
	mcache_unlock_all();
	mutex_unlock(&shared_lock.lock);
	outer_unlock(&world);
}

/* idle: the fork interrupted no call of ours. */
static void
make_whole_in_child(bool idle)
{
	if (fork_word != NULL)
		a32_store_relaxed(fork_word, 1);
	hook_fork_child();        /* the highest ranks first: others are taken below */
	mutex_reset(&mheap_.meta.lock);
	mutex_reset(&mheap_.lock);
	mutex_reset(&shared_lock.lock);
	mutex_reset(&world.lock);
	span_set_lock_after_fork();
	sys_after_fork_child();
	mcache_after_fork_child(mcache_self(), aptr_load_relaxed(&shared_cache), idle);
	hook_heap_after_fork_child();
	hook_mark_after_fork_child();
	/* the background thread stayed in the parent */
	if (options.scavenge == OPT_SCAVENGE_BACKGROUND)
		mheap_.config.scavenge_on_slow_path = true;
}

static void
fork_child(void)
{
	if (thread_state.forks_bare)
		return;
	make_whole_in_child(world.was == CACHE_IDLE);
	mcache_leave_to(world.holder, world.was);
}

static bool
fork_begin_soon(void)
{
	struct mcache *c = mcache_self();
	if (c == NULL || c->busy != CACHE_IDLE)
		return false;
	thread_state.forks_bare = false;
	uint64_t until_ns = sys_now_ns() + FORK_WAIT_NS;
	while (!fork_try_begin()) {
		if (sys_now_ns() > until_ns)
			return false;
		sched_yield();
	}
	fork_lock_rest();
	return true;
}

int
proc_fork(int (*bare)(void))
{
	if (!fork_begin_soon())
		return bare();
	int pid = bare();
	int saved_errno = errno;
	if (pid == 0)
		fork_child();
	else
		fork_parent();
	errno = saved_errno;
	return pid;
}

/* A bare clone, and what proc_fork lets pass, run no handlers. A word that the
 * kernel clears in any child tells; it is looked at only by a thread that would
 * otherwise wait for a lock, perhaps for a holder left behind in the parent. */
static bool
child_without_handlers(void)
{
	if (a32_load_relaxed(fork_word) != 0)
		return false;
	a32_store_relaxed(fork_word, 1);
	make_whole_in_child(false);
	return true;
}

static void
watch_for_forks(void)
{
	fork_word = sys_alloc(sys_page_bytes());
	if (fork_word == NULL || !sys_wipe_on_fork(fork_word, sys_page_bytes()))
		return;
	a32_store_relaxed(fork_word, 1);
	mutex_orphaned = child_without_handlers;
}

/* ---- the background scavenger ---- */

/* What dead and idle threads left lying about becomes free pages. */
static void
collect_empty_spans(void)
{
	proc_world_lock();
	mcache_trim_all(&mheap_, NULL);
	for (unsigned i = 0; i < SPAN_CLASSES_ALL; i++)
		mcentral_sweep_all(&mheap_, &mheap_.central[i]);
	proc_world_unlock();
}

static void
sleep_until(uint64_t next_ns, uint64_t longest_ns)
{
	uint64_t now = sys_now_ns();
	uint64_t ns = next_ns > now ? next_ns - now : 0;
	if (ns > longest_ns)
		ns = longest_ns;
	if (ns < SCAVENGER_NAP_NS)
		ns = SCAVENGER_NAP_NS;
	const struct timespec t = { .tv_sec = (time_t)(ns / 1000000000),
		.tv_nsec = (long)(ns % 1000000000) };
	nanosleep(&t, NULL);
}

static void *
background_scavenger(void *arg)
{
	uint64_t delay_ns = mheap_.config.scavenge_delay_ns;
	uint64_t collect_ns = 0;
	(void)arg;
	hook_thread_exempt(sys_gettid());
	sys_hold_signals();     /* for good */
	for (;;) {
		if (sys_now_ns() >= collect_ns) {
			collect_empty_spans();
			collect_ns = sys_now_ns() + delay_ns;
		}
		sleep_until(mheap_scavenge_tick(&mheap_), delay_ns);
	}
	return NULL;
}

static void
start_background_scavenger(void)
{
	pthread_t t;
	pthread_attr_t attr;
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, SCAVENGER_STACK_BYTES);
	if (pthread_create(&t, &attr, background_scavenger, NULL) != 0) {
		report_warn("cannot start the background scavenger, "
		    "idle pages go back on the slow path", NULL);
		mheap_.config.scavenge_on_slow_path = true;
	}
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* ---- constructor and the end ---- */

static bool
handlers_kept_out(void)
{
	const struct mcache *c = mcache_self();
	return sys_holds_signals() || (c != NULL && c->busy == CACHE_SLOW);
}

static void
on_verify_signal(int sig)
{
	(void)sig;
	verify_from_signal();
}

/* Who asks by sigqueue(3), as spanguard leaks does, sends the number of a descriptor
 * of its own that the answer is to go to; LEAK_DELTA asks for what is new. */
static void
on_leak_signal(int sig, siginfo_t *info, void *context)
{
	bool asked = info->si_code == SI_QUEUE && info->si_pid != 0;
	int value = asked ? info->si_value.sival_int : 0;
	(void)sig;
	(void)context;
	hook_leak_from_signal((value & LEAK_DELTA) != 0, asked ? info->si_pid : 0,
	    value & ~LEAK_DELTA);
}

static void
on_profile_signal(int sig)
{
	(void)sig;
	hook_profile();
}

static void
install_profile_signal(void)
{
	struct sigaction sa = { .sa_handler = on_profile_signal, .sa_flags = SA_RESTART };
	if (options.profile_signal != 0 &&
	    sigaction((int)options.profile_signal, &sa, NULL) != 0)
		report_warn("profile_signal: the kernel refuses a handler for this signal", NULL);
}

static void
install_leak_signal(void)
{
	struct sigaction sa = { .sa_sigaction = on_leak_signal,
		.sa_flags = SA_RESTART | SA_SIGINFO };
	if (options.leak_signal != 0 && sigaction((int)options.leak_signal, &sa, NULL) != 0)
		report_warn("leak_signal: the kernel refuses a handler for this signal", NULL);
}

static void
install_verify_signal(void)
{
	struct sigaction sa = { .sa_handler = on_verify_signal, .sa_flags = SA_RESTART };
	if (options.verify_signal != 0 &&
	    sigaction((int)options.verify_signal, &sa, NULL) != 0)
		report_warn("verify_signal: the kernel refuses a handler for this signal", NULL);
}

/* The leak report comes last of all: after the destructors, and after the functions
 * of atexit. What was registered first in the process runs last, so on_exit's
 * function is called behind our destructor, or, in a static program, before. It
 * knows the exit status, which only a second call of exit can change: glibc says
 * that the status of the last one counts, and still flushes the streams. */
int on_exit(void (*fn)(int status, void *arg), void *arg) __attribute__((weak));

static void
say_last_words(void)
{
	if (++last_words.called != last_words.expected)
		return;
	int lost = hook_leak_check(false);
	if (lost <= 0 || last_words.status != 0 || options.leak_exitcode == 0)
		return;
	if (last_words.expected == 1)
		_exit((int)options.leak_exitcode);
	exit((int)options.leak_exitcode);
}

static void
on_process_exit(int status, void *arg)
{
	(void)arg;
	last_words.status = status;
	say_last_words();
}

void
proc_start(void)
{
	mallocinit();
	exit_key_made = pthread_key_create(&exit_key, thread_exit) == 0;
	constructed = true;
	struct mcache *c = mcache_self();
	if (c != NULL) {
		early_cache = NULL;
		arm_exit_hook(c);
	}
	pthread_atfork(fork_prepare, fork_parent, fork_child);
	watch_for_forks();
	install_verify_signal();
	install_leak_signal();
	install_profile_signal();
	if (options.leak_check)
		last_words.expected = on_exit != NULL && on_exit(on_process_exit, NULL) == 0 ? 2 : 1;
	if (options.scavenge == OPT_SCAVENGE_BACKGROUND)
		start_background_scavenger();
	hooks_start();
	if (lock_checks_handlers)
		mutex_handlers_kept_out = handlers_kept_out;
}

/* Runs after the program's own atexit functions and destructors. */
void
proc_end(void)
{
	struct mcache *c = mcache_self();
	hooks_at_exit();
	/* a handler that interrupted the slow path may call exit: its locks are held */
	if (options.verify_at_exit && (c == NULL || c->busy != CACHE_SLOW))
		verify_or_die();
	if (options.stats_at_exit)
		mstats_log();
	hook_valgrind_end();
	if (options.leak_check)
		say_last_words();
}
