/* process_life.c - the life of a process in H20, by src/proc.c itself: the constructor
 * reads the options and asks libc for what it needs; threads allocate, free and end; the
 * process forks, with handlers, by _Fork or by a bare clone, while a lock is held or not;
 * it sleeps in the scavenger's thread; it ends, with leaks or without.
 *
 * Objects hold bytes of their own, which must be there whatever happens to the process;
 * the heap is whole after each step, and no lock is held. */
#define _GNU_SOURCE
#include "process.h"

#include <errno.h>
#include <setjmp.h>
#include <string.h>
#include <valgrind/memcheck.h>

#include "api.h"
#include "lock.h"
#include "log.h"
#include "malloc.h"
#include "marena.h"
#include "mcache.h"
#include "mspan.h"
#include "proc.h"
#include "tls.h"
#include "../hardening/hooks.h"

enum { OBJECTS = 48, BYTES_MOST = 1 << 18, NAPS = 12, ROUNDS = 4, NAP_LEAST_NS = 2000000, WAIT_NS = 1000000000 };

void *sg_malloc(size_t bytes);
void sg_free(void *p);

struct thread {
	struct thread_state state;
	void *specific;
	bool there;
	bool lasting;             /* ended, and its cache is not told of it: no key */
};

static struct {
	struct fake_sys_config sys;
	bool booted, early, afresh, ended, valgrind;
	struct thread thread[SGF_THREADS];
	unsigned self;
	struct {
		uint8_t *p;
		size_t bytes;
	} object[OBJECTS];
	/* forks: what the bare fork finds, and returns */
	int returns, with_errno;
	bool locked_in_between;
	unsigned holder_yields;
	unsigned naps_bad, naps, naps_most;
	jmp_buf out;
} g;

/* ---- threads ---- */

static void
become(unsigned t)
{
	g.thread[g.self].state = thread_state;
	g.thread[g.self].specific = sim.specific;
	g.self = t;
	if (!g.thread[t].there)
		g.thread[t] = (struct thread){ .there = true };
	thread_state = g.thread[t].state;
	sim.specific = g.thread[t].specific;
	sim.tid = sim.pid + (int)t;
}

void
process_life_start(const struct sgf_header *h)
{
	struct sg_heap_config config;

	memset(&g, 0, sizeof(g));
	sg_heap_config(h, &config);
	g.sys = config.sys;
	g.sys.max_map_count = 0;
	g.sys.fail_mask = 0;
}

void
process_life_stop(void)
{
	if (!g.booted)
		return;
	struct sg_heap_config config;

	g.booted = false;
	/* the real process has an end of its own */
	sg_heap_config(&(struct sgf_header){ .mode = 0 }, &config);
	options = config.options;
	sg_heap_forget_calls();
	sg_heap_nobody();
	options_forget();
}

/* ---- Memcheck ---- */

enum { BLOCKS = 2 * OBJECTS, HIDDEN = 4096 };

static struct {
	struct {
		uintptr_t at;
		size_t bytes;
	} block[BLOCKS];
	uintptr_t hidden[HIDDEN];
	unsigned n_hidden, wrong;
	bool another_tool;
} memcheck;

static void
block_made(uintptr_t at, size_t bytes)
{
	size_t place = BLOCKS;

	for (size_t i = 0; i < BLOCKS; i++) {
		uintptr_t other = memcheck.block[i].at;
		if (other == 0)
			place = i;
		SG_CHECK(OVERLAP, other == 0 || other + memcheck.block[i].bytes <= at || at + bytes <= other,
		    "Memcheck is told of a block in another");
	}
	SG_CHECK(MODEL, place != BLOCKS, "blocks are never freed");
	memcheck.block[place % BLOCKS].at = at;
	memcheck.block[place % BLOCKS].bytes = bytes;
}

static bool
block_freed(uintptr_t at)
{
	for (size_t i = 0; i < BLOCKS; i++)
		if (memcheck.block[i].at == at) {
			memcheck.block[i].at = 0;
			return true;
		}
	return false;
}

static unsigned long
on_request(unsigned long fallback, const unsigned long request[6])
{
	switch (request[0]) {
	case VG_USERREQ__MAKE_MEM_DEFINED: return memcheck.another_tool ? 0 : (unsigned long)-1;
	case VG_USERREQ__MALLOCLIKE_BLOCK: block_made(request[1], request[2]); break;
	case VG_USERREQ__FREELIKE_BLOCK: memcheck.wrong += !block_freed(request[1]); break;
	case VG_USERREQ__MAKE_MEM_UNDEFINED:
		if (memcheck.n_hidden < HIDDEN)
			memcheck.hidden[memcheck.n_hidden++] = request[1];
		break;
	default: break;
	}
	return fallback;
}

/* Its blocks are the program's objects, to the byte. */
static void
check_blocks(void)
{
	size_t blocks = 0, objects = 0;

	for (size_t i = 0; i < BLOCKS; i++)
		blocks += memcheck.block[i].at != 0;
	for (size_t i = 0; i < OBJECTS; i++) {
		bool found = false;
		for (size_t k = 0; k < BLOCKS; k++)
			found |= memcheck.block[k].at == (uintptr_t)g.object[i].p && memcheck.block[k].bytes == g.object[i].bytes;
		SG_CHECK(MODEL, g.object[i].p == NULL || found, "Memcheck does not know an object of %zu bytes", g.object[i].bytes);
		objects += g.object[i].p != NULL;
	}
	SG_CHECK(MODEL, blocks == objects, "Memcheck has %zu blocks, the program %zu objects", blocks, objects);
}

/* At the end its leak check is not to find large objects by what the heap has of them. */
static void
check_hidden(void)
{
	for (size_t i = 0; i < OBJECTS; i++) {
		const struct mspan *s = span_of((uintptr_t)g.object[i].p);
		bool found = g.object[i].p == NULL || s == NULL || !mspan_is_large(s);
		for (unsigned k = 0; !found && k < memcheck.n_hidden; k++)
			found = memcheck.hidden[k] == (uintptr_t)&s->base;
		SG_CHECK(MODEL, found, "the base of a large object can be seen");
	}
}

/* ---- start ---- */

static char text[512];

static void
add(const char *name, unsigned v)
{
	size_t n = strlen(text);

	snprintf(text + n, sizeof(text) - n, "%s=%u:", name, v);
}

static void
compose_options(const struct sgf_op *op)
{
	static const char *const modes[] = { "plain", "hardened", "strict", "debug", "guard" };
	static const char *const scavenge[] = { "off", "slow", "background", "background" };
	static const char *const guards[] = { "auto", "marker", "mprotect", "auto" };

	snprintf(text, sizeof(text), "SPANGUARD_OPTIONS=mode=%s:scavenge=%s:guards=%s:log=life.log:sample=0:",
	    modes[op->a % ARRAY_LEN(modes)], scavenge[op->b & 3], guards[op->b >> 2 & 3]);
	add("seed", op->handle);
	add("verify_signal", op->imm & 1 ? SIGUSR1 : 0);
	add("leak_signal", op->imm & 2 ? SIGUSR2 : 0);
	add("profile_signal", op->imm & 4 ? SIGURG : 0);
	add("leak_check", op->imm >> 3 & 1);
	add("leak_exitcode", op->imm & 16 ? 23 : 0);
	add("stats_at_exit", op->imm >> 5 & 1);
	add("verify_at_exit", op->imm >> 6 & 1);
	add("scavenge_delay_ms", (op->b >> 4) * 10u);
}

static void
refuse(const struct sgf_op *op)
{
	sim.no_set = op->imm >> 8 & 1;
	sim.no_key = op->imm >> 9 & 1;
	sim.no_specific = op->imm >> 10 & 1;
	sim.no_thread = op->imm >> 11 & 1;
	sim.no_at_exit = op->imm >> 12 & 1;
	sim.no_wipe = op->imm >> 13 & 1;
	sim.mask = op->imm >> 14 & 1 ? 1 : 0;
}

static bool
has_handler(int sig, bool with_info)
{
	const struct sigaction *a = &sim.action[sig];

	return a->sa_handler != SIG_DFL && (a->sa_flags & SA_RESTART) != 0 &&
	    ((a->sa_flags & SA_SIGINFO) != 0) == with_info;
}

static void
check_start(const struct sgf_op *given, unsigned warnings)
{
	struct sgf_op under = *given, *op = &under;

	if (g.valgrind) {              /* which leaves little of the options */
		op->imm &= ~0x1fu;
		op->b = 0;
	}
	bool background = (op->b & 2) != 0, set = !sim.no_set;
	unsigned signals = (op->imm & 1) + (op->imm >> 1 & 1) + (op->imm >> 2 & 1);
	unsigned refused = (sim.no_set ? signals + !process_fault_ours() : 0) + (background && sim.no_thread);

	SG_CHECK(MODEL, has_handler(SIGUSR1, false) == (set && (op->imm & 1) != 0) &&
	    has_handler(SIGUSR2, true) == (set && (op->imm & 2) != 0) &&
	    has_handler(SIGURG, false) == (set && (op->imm & 4) != 0), "the handlers that were asked for");
	SG_CHECK(MODEL, sg_warnings - warnings == refused, "%u warnings, not %u", sg_warnings - warnings, refused);
	SG_CHECK(MODEL, (sim.thread != NULL) == (background && !sim.no_thread), "the scavenger's thread");
	SG_CHECK(MODEL, !background || sim.thread_mask == UINT64_MAX || (sim.thread_mask | 1ull << 31 | 1ull << 32) ==
	    UINT64_MAX, "the thread began with signals %#lx blocked", (unsigned long)sim.thread_mask);
	SG_CHECK(MODEL, sim.mask == (op->imm >> 14 & 1 ? 1 : 0), "the mask is %#lx now", (unsigned long)sim.mask);
	SG_CHECK(MODEL, sim.prepare != NULL && sim.parent != NULL && sim.child != NULL, "no handlers of fork");
	SG_CHECK(MODEL, (sim.at_exit != NULL) == ((op->imm & 8) != 0 && !sim.no_at_exit), "the last words");
	SG_CHECK(MODEL, (sim.key_destroyed != NULL) == !sim.no_key, "the key");
	SG_CHECK(MODEL, mheap_.config.scavenge_on_slow_path == ((op->b & 3) == 1 || (background && sim.no_thread)),
	    "who scavenges");
	SG_CHECK(MODEL, (sim.wiped != NULL) == !sim.no_wipe && (sim.wiped == NULL || *sim.wiped == 1), "no word that "
	    "a child finds 0");
}

static void
check_whole(void)
{
	SG_CHECK(MODEL, mutex_held()->count == 0 && mutex_held()->untracked == 0, "%u locks are held",
	    mutex_held()->count);
	sg_heap_verify();
	if (g.valgrind)
		check_blocks();
	for (size_t i = 0; i < OBJECTS; i++) {
		const uint8_t *p = g.object[i].p;
		for (size_t k = 0; p != NULL && k < g.object[i].bytes; k += k < 64 ? 1 : 997)
			SG_CHECK(CONTENT, p[k] == (uint8_t)(i + k), "object %zu, byte %zu", i, k);
	}
}

static void
make_object(size_t i, size_t bytes)
{
	g.object[i].p = sg_malloc(bytes);
	g.object[i].bytes = bytes;
	SG_CHECK(NULLNESS, g.object[i].p != NULL, "no memory");
	for (size_t k = 0; g.object[i].p != NULL && k < bytes; k++)
		g.object[i].p[k] = (uint8_t)(i + k);
}

/* The first malloc may come before the constructor, and TLS be laid out after it. */
static void
start(void)
{
	thread_state = (struct thread_state){ .gone = false };
	if (g.early)
		make_object(0, 100);
	if (g.afresh)
		thread_state = (struct thread_state){ .gone = false };
	proc_start();
}

/* Once: the constructor of the library does not run twice either. */
void
process_boot(const struct sgf_op *op)
{
	static char *env[2];

	if (g.booted)
		return;
	g.booted = true;
	compose_options(op);
	refuse(op);
	env[0] = text;
	sim_environ = env;
	sim_file("life.log", true);
	options_forget();
	proc_forget_start();
	sim.action[SIGUSR1] = sim.action[SIGUSR2] = sim.action[SIGURG] = (struct sigaction){ .sa_handler = SIG_DFL };
	sim.key_destroyed = NULL;
	sim.planned = SIM_PLAN;
	unsigned warnings = sg_warnings;
	sg_heap_nobody();
	memset(&memcheck, 0, sizeof(memcheck));
	memcheck.another_tool = op->imm >> 18 & 1;
	sim.valgrind = op->imm >> 17 & 1 ? on_request : NULL;
	g.valgrind = sim.valgrind != NULL && !memcheck.another_tool;
	g.early = op->imm >> 15 & 1;
	g.afresh = op->imm >> 16 & 1;
	sg_heap_boot(&g.sys, start);
	g.thread[0].there = true;
	check_start(op, warnings);
	sim.no_set = false;
	process_log_start();
	check_whole();
}

/* ---- what a thread does ---- */

/* As a thread of POSIX's ends: values are destroyed as long as there are any, four
 * rounds of it at most. In each another destructor may allocate. */
static void
end_thread(const struct sgf_op *op)
{
	struct mcache *c = mcache_self();
	bool told = sim.specific != NULL, gave_up = sim.no_specific;
	unsigned rounds = 0;

	SG_CHECK(MODEL, c == NULL || told == (!sim.no_key && !gave_up) || thread_state.gone, "the thread's end is %s",
	    told ? "told" : "not told");
	while (sim.specific != NULL && rounds++ < ROUNDS) {
		void *value = sim.specific;
		SG_CHECK(MODEL, value == c && mcache_self() == c, "the cache is gone in round %u", rounds);
		sim.specific = NULL;
		sim.key_destroyed(value);
		size_t i = (op->a + rounds) % OBJECTS;
		if (op->b & 4 && g.object[i].p == NULL)
			make_object(i, 1 + op->imm % 999);
	}
	SG_CHECK(MODEL, !told || (thread_state.gone && mcache_self() == NULL), "after %u rounds the cache is there",
	    rounds);
	if (op->b & 8 && g.object[op->a % OBJECTS].p == NULL && told)
		make_object(op->a % OBJECTS, 1 + op->imm % 999);     /* the shared cache's */
	if (told) {
		g.thread[g.self] = (struct thread){ .there = false };
		sim.specific = NULL;
		thread_state = (struct thread_state){ .gone = false };
	}
}

void
process_thread(const struct sgf_op *op)
{
	size_t i = op->handle % OBJECTS;

	if (!g.booted)
		return;
	become(op->thread);
	switch (op->a & 3) {
	case 0:
	case 1:
		if (g.object[i].p == NULL)
			make_object(i, op->b & 1 ? 1 + op->imm % 2000 : 1 + op->imm % BYTES_MOST);
		break;
	case 2:
		if (g.object[i].p == NULL && g.valgrind) {     /* Memcheck tells the program */
			sg_free(&g);
			SG_CHECK(DETECT, memcheck.wrong == 1, "a wrong free was told %u times", memcheck.wrong);
			memcheck.wrong = 0;
			break;
		}
		sg_free(g.object[i].p);
		g.object[i].p = NULL;
		break;
	default: end_thread(op); break;
	}
	check_whole();
	sg_note(g.object[i].p != NULL);
}

/* ---- fork ---- */

static bool
all_locked(void)
{
	bool heap = !mutex_trylock(&mheap_.lock), meta = !mutex_trylock(&mheap_.meta.lock);

	if (!heap)
		mutex_unlock(&mheap_.lock);
	if (!meta)
		mutex_unlock(&mheap_.meta.lock);
	return heap && meta && proc_shared_trylock() == NULL;
}

/* The other threads are not in the child. */
static void
only_this_thread(void)
{
	for (unsigned t = 0; t < SGF_THREADS; t++)
		if (t != g.self)
			g.thread[t] = (struct thread){ .there = false };
	sim.pid += 10;
	sim.tid = sim.pid;
}

static void
fork_by_handlers(bool child)
{
	struct mcache *c = mcache_self();
	bool inside = c != NULL && c->busy == CACHE_SLOW;

	sim.prepare();
	SG_CHECK(MODEL, inside || all_locked(), "the locks are not held while the process forks");
	SG_CHECK(MODEL, !inside || mutex_held()->count == 0, "locks of an interrupted call are taken");
	if (child)
		only_this_thread();
	(child ? sim.child : sim.parent)();
	SG_CHECK(MODEL, c == NULL || c->busy == (inside ? CACHE_SLOW : CACHE_IDLE), "busy is %u", c->busy);
}

static int
bare(void)
{
	g.locked_in_between = all_locked();
	if (g.returns == 0)
		only_this_thread();
	errno = g.with_errno;
	return g.returns;
}

/* Who holds the world lets it go after some yields of the others. */
static void
on_yield(void)
{
	if (sim.yields != g.holder_yields)
		return;
	unsigned self = g.self;
	become((self + 1) % SGF_THREADS);
	proc_world_unlock();
	become(self);
}

static void
fork_by_call(const struct sgf_op *op)
{
	static const int returns[] = { 0, 1234, -1, 0 };
	bool held = (op->b & 3) == 3, forever = (op->b & 15) == 15;
	struct mcache *c = mcache_self();
	bool soon = c != NULL && c->busy == CACHE_IDLE && !forever;
	unsigned self = g.self, other = (self + 1) % SGF_THREADS;

	g.returns = returns[op->imm & 3];
	g.with_errno = g.returns < 0 ? EAGAIN : 77;
	g.holder_yields = forever ? 2 * (WAIT_NS / 1000000) : 3;
	sim.yields = 0;
	if (held) {
		become(other);
		proc_world_lock();
		become(self);
		sim.on_nap = on_yield;
	}
	errno = 77;
	int pid = proc_fork(bare);
	SG_CHECK(MODEL, pid == g.returns && errno == g.with_errno, "_Fork returned %d, errno %d", pid, errno);
	SG_CHECK(MODEL, g.locked_in_between == soon, "forked with locks %s", soon ? "free" : "held");
	sim.on_nap = NULL;
	if (held && sim.yields < g.holder_yields) {    /* nobody waited so long */
		if (pid == 0)
			sg_heap_forget_calls();
		else
			g.holder_yields = (unsigned)sim.yields, on_yield();
	}
}

/* A clone without handlers, while others were in the middle of a call; this thread
 * finds out as soon as it would wait. */
static void
fork_by_clone(const struct sgf_op *op)
{
	size_t i = op->handle % OBJECTS;
	struct mcache *c = mcache_self();

	if (sim.wiped == NULL || options.guard_objects || (c != NULL && c->busy != CACHE_IDLE))
		return;
	if (g.object[i].p != NULL) {
		sg_free(g.object[i].p);
		g.object[i].p = NULL;
	}
	only_this_thread();
	*sim.wiped = 0;
	a32_store_relaxed(&mheap_.lock.state, op->b & 4 ? 2 : 1);
	make_object(i, BYTES_MOST);                    /* takes the heap's lock */
	SG_CHECK(MODEL, *sim.wiped == 1, "a child that nobody told did not find out");
}

void
process_fork(const struct sgf_op *op)
{
	struct mcache *c;

	if (!g.booted)
		return;
	become(op->thread);
	c = mcache_self();
	switch (op->a & 3) {
	case 0:
	case 1:
		if (c != NULL && (op->b & 7) == 7)
			c->busy = CACHE_SLOW;          /* from a handler, on the slow path */
		fork_by_handlers(op->a & 1);
		break;
	case 2:
		fork_by_call(op);
		break;
	default:
		fork_by_clone(op);
		break;
	}
	c = mcache_self();
	if (c != NULL)
		c->busy = CACHE_IDLE;
	check_whole();
	sg_note(op->a & 3);
}

/* ---- signals, the scavenger, the end ---- */

static void
on_nap(void)
{
	uint64_t delay_ns = (uint64_t)options.scavenge_delay_ms * 1000000, most = delay_ns;

	if (most < NAP_LEAST_NS)
		most = NAP_LEAST_NS;
	g.naps_bad += sim.nap_ns < NAP_LEAST_NS || sim.nap_ns > most || mutex_held()->count != 0;
	if (++g.naps == g.naps_most)
		longjmp(g.out, 1);
}

static void
sleep_in_thread(const struct sgf_op *op)
{
	unsigned self = g.self;

	if (sim.thread == NULL)
		return;
	g.thread[self].state = thread_state;
	thread_state = (struct thread_state){ .gone = true };
	g.naps = g.naps_bad = 0;
	g.naps_most = 1 + op->imm % NAPS;
	sim.on_nap = on_nap;
	if (setjmp(g.out) == 0)
		sim.thread(NULL);
	sim.on_nap = NULL;
	thread_state = g.thread[self].state;
	SG_CHECK(PACE, g.naps == g.naps_most && g.naps_bad == 0, "%u naps of %u too short, too long or with a lock",
	    g.naps_bad, g.naps);
}

static void
send_signals(const struct sgf_op *op)
{
	siginfo_t info = { .si_signo = SIGUSR2, .si_code = op->imm & 1 ? SI_QUEUE : SI_USER };
	struct mcache *c = mcache_self();

	info.si_pid = op->imm & 2 ? 99 : 0;
	info.si_value.sival_int = (int)(op->imm >> 8 & 255) | (op->imm & 4 ? 1 << 30 : 0);
	bool asked = (op->imm & 3) == 3;
	sim.leak_asked = 0;
	if (c != NULL && op->imm & 8)
		c->busy = CACHE_SLOW;
	if (sim.action[SIGUSR1].sa_handler != SIG_DFL)
		sim_signal(SIGUSR1, &info, NULL);
	if (sim.action[SIGURG].sa_handler != SIG_DFL)
		sim_signal(SIGURG, &info, NULL);
	if (c != NULL)
		c->busy = CACHE_IDLE;
	if (sim.action[SIGUSR2].sa_handler == SIG_DFL)
		return;
	sim_signal(SIGUSR2, &info, NULL);
	SG_CHECK(MODEL, sim.leak_asked == 1 && sim.asked_pid == (asked ? 99 : 0) &&
	    sim.asked_fd == (asked ? (int)(op->imm >> 8 & 255) : 0) && sim.asked_delta == (asked && (op->imm & 4) != 0),
	    "asked for leaks %u times, by %d, to %d", sim.leak_asked, sim.asked_pid, sim.asked_fd);
}

/* The functions of exit, last registered first; again if one calls exit again. */
static void
run_exit(int status, bool twice)
{
	jmp_buf end;
	void (*fn)(int status, void *arg) = sim.at_exit;

	sim.end = &end;
	sim.ended = 0;
	if (setjmp(end) == 0) {
		proc_end();
		if (fn != NULL)
			fn(status, sim.at_exit_arg);
		if (fn != NULL && twice)       /* by other libraries */
			fn(status, sim.at_exit_arg);
	}
	sim.end = NULL;
}

static void
end_process(const struct sgf_op *op)
{
	int status = op->imm & 1 ? 5 : 0;
	struct sim_file *f = sim_file("life.log", true);
	size_t at = f != NULL ? f->n : 0;

	if (g.ended)
		return;
	g.ended = true;
	sim.lost = (int)(op->imm >> 1 & 3) - 1;
	sim.leak_checks = 0;
	bool at_exit = sim.at_exit != NULL, at_once = !at_exit;
	bool check = options.leak_check;
	process_log_start();
	log_set_path("life.log");
	sim.planned = SIM_PLAN;
	sim.at_once = false;
	run_exit(status, false);
	SG_CHECK(MODEL, sim.leak_checks == check, "%u leak checks", sim.leak_checks);
	int code = check && sim.lost > 0 && (at_once || status == 0) && options.leak_exitcode != 0 ?
	    SIM_STATUS + (int)options.leak_exitcode : 0;
	SG_CHECK(MODEL, sim.ended == code && (code == 0 || sim.at_once == at_once), "ended by %d, not %d", sim.ended, code);
	SG_CHECK(WORDS, !options.stats_at_exit || (f != NULL && f->n > at), "no statistics at the end");
	SG_CHECK(WORDS, options.stats_at_exit || f == NULL || f->n == at, "something was said at the end");
	sg_note((unsigned)sim.ended);
	if (g.valgrind)
		check_hidden();
	process_log_start();
}

void
process_end(const struct sgf_op *op)
{
	if (!g.booted)
		return;
	become(op->thread);
	switch (op->a & 3) {
	case 0: sleep_in_thread(op); break;
	case 1: send_signals(op); break;
	default: end_process(op); break;
	}
	check_whole();
}
