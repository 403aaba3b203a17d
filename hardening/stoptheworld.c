/* stoptheworld.c - see stoptheworld.h.
 *
 *   caller                               thread
 *   generation: even -> odd
 *   record {tid}, tgkill(tid)  ------->  on_stop: registers into its own frame,
 *   wait on answers  <-----------------  answer = address of that, answers + 1
 *   ... all answered, nobody new ...     wait while generation is the same
 *   generation: odd -> even, wake ---->  return from the handler
 *
 * A signal that comes late (its stop was given up) finds an even generation or
 * no record, and returns; one that overlaps the next stop does a compare-and-swap
 * that names its own, older generation, and fails. So nothing has to wait for
 * handlers to leave, and the records are never unmapped, only outgrown. */
#define _GNU_SOURCE
#include "stoptheworld.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "../src/print.h"
#include "../src/report.h"
#include "../src/sys.h"

enum {
	FIRST_RECORDS = 256,
	SLICE_NS = 10000000,
	SIGNAL_FROM_TOP = 3,         /* debuggers and runtimes like the very last ones */
	FUTEX_WAIT_PRIVATE_OP = 128,
	TASK_IO_WORKER = 0x10,       /* PF_IO_WORKER in field 9 of stat */
	FXSAVE_BYTES = 512,
	XSTATE_MAGIC_AT = 464,
};

static struct {
	atomic_u32 generation;       /* the futex that stopped threads wait on */
	atomic_u32 answers;          /* the futex that the stopper waits on */
	atomic_ptr records;          /* struct stw_thread[], by the stopper */
	atomic_u32 n;
	size_t cap;
	atomic_u32 signal;
	atomic_u32 exempt[STW_EXEMPT_MAX];
	struct scratch { uintptr_t start, end; } scratch[STW_SCRATCH_MAX];
} stw;

#if defined(SPANGUARD_TEST_BUILD)
uint64_t stw_first_slice_ns = 1000000;
#endif

/* ---- memory of a pass ---- */

void *
stw_scratch_alloc(size_t bytes)
{
	bytes = align_up(bytes != 0 ? bytes : 1, sys_page_bytes());
	for (size_t i = 0; i < STW_SCRATCH_MAX - 1; i++) {
		if (stw.scratch[i].start != 0)
			continue;
		void *p = sys_alloc(bytes);
		if (p != NULL) {
			stw.scratch[i].start = (uintptr_t)p;
			stw.scratch[i].end = (uintptr_t)p + bytes;
		}
		return p;
	}
	return NULL;
}

void
stw_scratch_free(void *p, size_t bytes)
{
	if (p == NULL)
		return;
	for (size_t i = 0; i < STW_SCRATCH_MAX - 1; i++)
		if (stw.scratch[i].start == (uintptr_t)p)
			stw.scratch[i] = (struct scratch){ 0, 0 };
	sys_free(p, align_up(bytes != 0 ? bytes : 1, sys_page_bytes()), SYS_READY);
}

void
stw_scratch_piece(size_t i, uintptr_t *start, uintptr_t *end)
{
	bool own = i == STW_SCRATCH_MAX - 1;
	*start = own ? (uintptr_t)&stw : stw.scratch[i].start;
	*end = own ? (uintptr_t)(&stw + 1) : stw.scratch[i].end;
}

void
stw_reset(void)
{
	aptr_store_release(&stw.records, NULL);
	a32_store_release(&stw.n, 0);
	stw.cap = 0;
	memset(stw.scratch, 0, sizeof(stw.scratch));
}

/* ---- the handler ---- */

#if defined(__x86_64__)

uintptr_t
stw_thread_pointer(void)
{
	uintptr_t tp;
	__asm__("movq %%fs:0, %0" : "=r"(tp));
	return tp;
}

static void
note_registers(struct stw_state *t, const ucontext_t *uc)
{
	const char *fp = (const char *)uc->uc_mcontext.fpregs;
	uint32_t sw[2];
	t->sp = (uintptr_t)uc->uc_mcontext.gregs[REG_RSP];
	t->vregs = (uintptr_t)fp;
	t->vregs_end = 0;
	if (fp == NULL)
		return;
	memcpy(sw, fp + XSTATE_MAGIC_AT, sizeof(sw));
	size_t bytes = sw[0] == 0x46505853 ? sw[1] : FXSAVE_BYTES;
	t->vregs_end = t->vregs + bytes;
}

#elif defined(__aarch64__)

uintptr_t
stw_thread_pointer(void)
{
	uintptr_t tp;
	__asm__("mrs %0, tpidr_el0" : "=r"(tp));
	return tp;
}

/* The vector registers are inside the ucontext. */
static void
note_registers(struct stw_state *t, const ucontext_t *uc)
{
	t->sp = (uintptr_t)uc->uc_mcontext.sp;
	t->vregs = t->vregs_end = 0;
}

#else
#error "registers are known on x86-64 and arm64 only"
#endif

static struct stw_thread *
record_of(int tid)
{
	struct stw_thread *t = aptr_load_acquire(&stw.records);
	uint32_t n = a32_load_acquire(&stw.n);
	for (uint32_t i = 0; t != NULL && i < n; i++)
		if (t[i].tid == tid)
			return &t[i];
	return NULL;
}

/* No user address looks like this: the top bit is set. */
static uint64_t
unanswered(uint32_t generation, int tid)
{
	return (uint64_t)(generation | 0x80000000u) << 32 | (uint32_t)tid;
}

static bool
has_answered(const struct stw_thread *t, uint32_t generation)
{
	return a64_load_acquire(&t->answer) != unanswered(generation, t->tid);
}

/* Waits while *word is `value`, at most ns (0: for ever). */
static void
wait_on(const atomic_u32 *word, uint32_t value, uint64_t ns)
{
	struct timespec t = { (time_t)(ns / 1000000000), (long)(ns % 1000000000) };
	syscall(SYS_futex, &word->v, FUTEX_WAIT_PRIVATE_OP, value, ns != 0 ? &t : NULL, NULL, 0);
}

static void
on_stop(int sig, siginfo_t *info, void *context)
{
	int saved = errno;
	uint32_t generation = a32_load_acquire(&stw.generation);
	int tid = sys_gettid();
	struct stw_thread *t = generation % 2 != 0 ? record_of(tid) : NULL;
	uint64_t want = unanswered(generation, tid);
	struct stw_state here = { .tp = stw_thread_pointer(), .regs = (uintptr_t)context,
		.regs_end = (uintptr_t)context + sizeof(ucontext_t) };
	(void)sig;
	(void)info;
	note_registers(&here, context);
	if (t != NULL && a64_cas(&t->answer, &want, (uintptr_t)&here)) {
		a32_fetch_add(&stw.answers, 1);
		sys_futex_wake(&stw.answers.v, 1);
		while (a32_load_acquire(&stw.generation) == generation)
			wait_on(&stw.generation, generation, 0);
	}
	errno = saved;
}

/* ---- the signal ---- */

static bool
has_our_handler(int sig)
{
	struct sigaction sa;
	return sig != 0 && sigaction(sig, NULL, &sa) == 0 &&
	    (sa.sa_flags & SA_SIGINFO) != 0 && sa.sa_sigaction == on_stop;
}

/* The one of the last stop, unless the program has taken it over since. */
static bool
take_signal(void)
{
	struct sigaction old, sa = { .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK };
	if (has_our_handler((int)a32_load_acquire(&stw.signal)))
		return true;
	sa.sa_sigaction = on_stop;
	sigfillset(&sa.sa_mask);
	for (int sig = SIGRTMAX - SIGNAL_FROM_TOP; sig >= SIGRTMIN; sig--)
		if (sigaction(sig, NULL, &old) == 0 && (old.sa_flags & SA_SIGINFO) == 0 &&
		    old.sa_handler == SIG_DFL && sigaction(sig, &sa, NULL) == 0) {
			a32_store_release(&stw.signal, (uint32_t)sig);
			sys_never_hold(sig);
			return true;
		}
	return false;
}

AT_ENDS void
stw_init(void)
{
	sys_never_hold(SIGRTMAX - SIGNAL_FROM_TOP);
}

int
stw_signal(void)
{
	return (int)a32_load_acquire(&stw.signal);
}

/* ---- what /proc says of a task ---- */

static int
open_file(const char *path, int flags)
{
	return (int)syscall(SYS_openat, AT_FDCWD, path, flags | O_RDONLY | O_CLOEXEC);
}

/* /proc/self/task/TID/name, at most cap - 1 bytes of it; 0: cannot be read. */
static size_t
read_task_file(int tid, const char *name, char *buf, size_t cap)
{
	char path[64];
	struct print p;
	size_t n = 0;
	long got;
	print_init(&p, path, sizeof(path));
	print_str(&p, "/proc/self/task/");
	print_dec(&p, (uint64_t)tid);
	print_str(&p, "/");
	print_str(&p, name);
	int fd = open_file(path, 0);
	if (fd < 0)
		return 0;
	while (n < cap - 1 && (got = syscall(SYS_read, fd, buf + n, cap - 1 - n)) > 0)
		n += (size_t)got;
	syscall(SYS_close, fd);
	buf[n] = '\0';
	return n;
}

static const char *
skip_fields(const char *s, int n)
{
	while (n > 0 && s != NULL) {
		s = strchr(s, ' ');
		s = s != NULL ? s + 1 : NULL;
		n--;
	}
	return s;
}

static uint64_t
read_number(const char *s, unsigned base)
{
	uint64_t v = 0;
	for (;; s++) {
		unsigned d = *s >= '0' && *s <= '9' ? (unsigned)(*s - '0') :
		    *s >= 'a' && *s <= 'f' ? (unsigned)(*s - 'a') + 10 : 16;
		if (d >= base)
			return v;
		v = v * base + d;
	}
}

/* Has no more code of the program's to run, or never had any. */
static bool
task_is_gone(int tid)
{
	char buf[512];
	if (syscall(SYS_tgkill, getpid(), tid, 0) != 0 && errno == ESRCH)
		return true;
	if (read_task_file(tid, "stat", buf, sizeof(buf)) == 0)
		return false;
	const char *name = strchr(buf, '('), *s = strrchr(buf, ')');
	if (name == NULL || s == NULL || s[1] == '\0')
		return false;
	s += 2;
	if (*s == 'Z' || *s == 'X' || *s == 'x')
		return true;
	s = skip_fields(s, 6);
	return s != NULL && strncmp(name, "(iou-", 5) == 0 &&
	    (read_number(s, 10) & TASK_IO_WORKER) != 0;
}

static void
describe_late(struct stw_failure *why, int tid)
{
	char buf[2048];
	why->tid = tid;
	size_t n = read_task_file(tid, "comm", buf, sizeof(why->name));
	if (n != 0 && buf[n - 1] == '\n')
		buf[--n] = '\0';
	memcpy(why->name, buf, n);
	why->name[n] = '\0';
	if (read_task_file(tid, "status", buf, sizeof(buf)) == 0)
		return;
	const char *blocked = strstr(buf, "\nSigBlk:\t");
	if (blocked != NULL)
		why->blocks = (read_number(blocked + 9, 16) >> (why->signal - 1) & 1) != 0;
}

/* ---- stopping ---- */

struct stop {
	uint32_t generation;
	int pid, self;
	uint64_t left_ns;
	bool table_full;
};

static bool
is_exempt(int tid)
{
	for (size_t i = 0; i < STW_EXEMPT_MAX; i++)
		if (a32_load_acquire(&stw.exempt[i]) == (uint32_t)tid)
			return true;
	return false;
}

void
stw_exempt(int tid)
{
	for (size_t i = 0; i < STW_EXEMPT_MAX; i++) {
		uint32_t zero = 0;
		if (a32_cas(&stw.exempt[i], &zero, (uint32_t)tid) || zero == (uint32_t)tid)
			return;
	}
}

/* EAGAIN: the user's limit of queued signals; it is asked again. */
static void
ask(const struct stop *s, struct stw_thread *t)
{
	if (syscall(SYS_tgkill, s->pid, t->tid, stw_signal()) == 0)
		t->asked = true;
	else if (errno == ESRCH)
		t->gone = true;
}

/* True: this task was not known yet. */
static bool
meet_task(struct stop *s, int tid)
{
	if (tid == s->self || is_exempt(tid) || record_of(tid) != NULL)
		return false;
	uint32_t n = a32_load_relaxed(&stw.n);
	if (n == stw.cap) {
		s->table_full = true;
		return true;
	}
	struct stw_thread *t = (struct stw_thread *)aptr_load_relaxed(&stw.records) + n;
	memset(t, 0, sizeof(*t));
	t->tid = tid;
	a64_store_relaxed(&t->answer, unanswered(s->generation, tid));
	a32_store_release(&stw.n, n + 1);
	ask(s, t);
	return true;
}

struct dirent_head {
	uint64_t ino;
	int64_t off;
	uint16_t reclen;
	uint8_t type;
	char name[];
};

/* Returns how many new tasks there are, -1 when the list cannot be read. */
static int
read_tasks(struct stop *s)
{
	char buf[4096] ALIGNED(8);
	int fresh = 0;
	long n;
	int fd = open_file("/proc/self/task", O_DIRECTORY);
	if (fd < 0)
		return -1;
	while ((n = syscall(SYS_getdents64, fd, buf, sizeof(buf))) > 0)
		for (long at = 0; at < n;) {
			const struct dirent_head *d = (const void *)(buf + at);
			int tid = (int)read_number(d->name, 10);
			if (tid != 0)
				fresh += meet_task(s, tid);
			at += d->reclen;
		}
	syscall(SYS_close, fd);
	return n < 0 ? -1 : fresh;
}

/* Somebody who has still to answer, or NULL. */
static struct stw_thread *
missing(const struct stop *s)
{
	struct stw_thread *t = aptr_load_relaxed(&stw.records);
	uint32_t n = a32_load_relaxed(&stw.n);
	for (uint32_t i = 0; i < n; i++)
		if (!t[i].gone && !has_answered(&t[i], s->generation))
			return &t[i];
	return NULL;
}

static void
look_after_missing(const struct stop *s)
{
	struct stw_thread *t = aptr_load_relaxed(&stw.records);
	uint32_t n = a32_load_relaxed(&stw.n);
	for (uint32_t i = 0; i < n; i++) {
		if (t[i].gone || has_answered(&t[i], s->generation))
			continue;
		if (!t[i].asked)
			ask(s, &t[i]);
		else
			t[i].gone = task_is_gone(t[i].tid);
	}
}

/* NULL: all have answered; else one that has not. */
static const struct stw_thread *
wait_for_answers(struct stop *s)
{
	uint64_t slice_ns = stw_first_slice_ns;
	for (;;) {
		uint32_t seen = a32_load_acquire(&stw.answers);
		const struct stw_thread *t = missing(s);
		if (t == NULL || s->left_ns == 0)
			return t;
		if (slice_ns > s->left_ns)
			slice_ns = s->left_ns;
		struct timespec before, now;
		clock_gettime(CLOCK_MONOTONIC, &before);
		wait_on(&stw.answers, seen, slice_ns);
		if (a32_load_acquire(&stw.answers) == seen) {
			look_after_missing(s);
			s->left_ns -= slice_ns;
			slice_ns = SLICE_NS;
			continue;
		}
		clock_gettime(CLOCK_MONOTONIC, &now);
		uint64_t ns = (uint64_t)(now.tv_sec - before.tv_sec) * 1000000000 +
		    (uint64_t)now.tv_nsec - (uint64_t)before.tv_nsec;
		ns = ns < slice_ns ? ns : slice_ns;
		s->left_ns -= ns;
	}
}

static enum stw_outcome
stop_all(struct stop *s, struct stw_failure *why)
{
	for (int quiet = 0; quiet < 2;) {
		int fresh = read_tasks(s);
		if (fresh < 0)
			return STW_NO_PROC;
		if (s->table_full)
			return STW_NO_MEMORY;
		const struct stw_thread *late = wait_for_answers(s);
		if (late != NULL) {
			describe_late(why, late->tid);
			return STW_LATE;
		}
		quiet = fresh == 0 ? quiet + 1 : 0;
	}
	return STW_OK;
}

static void
copy_states(uint32_t generation)
{
	struct stw_thread *t = aptr_load_relaxed(&stw.records);
	uint32_t n = a32_load_relaxed(&stw.n);
	for (uint32_t i = 0; i < n; i++)
		if (has_answered(&t[i], generation))
			t[i].at = *(const struct stw_state *)a64_load_acquire(&t[i].answer);
}

/* The old table stays mapped: a late handler may be reading it. It stays on the
 * list of scratch memory too, so it is never a root. */
static bool
grow_table(size_t cap)
{
	void *p = stw_scratch_alloc(cap * sizeof(struct stw_thread));
	if (p == NULL)
		return false;
	a32_store_release(&stw.n, 0);
	aptr_store_release(&stw.records, p);
	stw.cap = cap;
	return true;
}

static void
release_world(void)
{
	uint32_t even = a32_load_relaxed(&stw.generation) + 1;
	a32_store_release(&stw.generation, even);
	sys_futex_wake(&stw.generation.v, INT_MAX);
}

static enum stw_outcome
try_stop(uint64_t deadline_ns, struct stw_failure *why, bool *table_full)
{
	struct stop s = { .pid = getpid(), .self = sys_gettid(), .left_ns = deadline_ns };
	a32_store_release(&stw.n, 0);
	s.generation = a32_load_relaxed(&stw.generation) + 1;
	a32_store_release(&stw.generation, s.generation);
	enum stw_outcome what = stop_all(&s, why);
	*table_full = s.table_full;
	if (what == STW_OK)
		copy_states(s.generation);
	else
		release_world();
	return what;
}

enum stw_outcome
stw_stop(uint64_t deadline_ns, struct stw_failure *why)
{
	int saved = errno;
	bool full = true;
	memset(why, 0, sizeof(*why));
	why->deadline_ns = deadline_ns != 0 ? deadline_ns : STW_DEADLINE_NS;
	why->what = take_signal() ? STW_OK : STW_NO_SIGNAL;
	why->signal = stw_signal();
	if (why->what == STW_OK && stw.cap == 0 && !grow_table(FIRST_RECORDS))
		why->what = STW_NO_MEMORY;
	while (why->what == STW_OK && full) {
		why->what = try_stop(why->deadline_ns, why, &full);
		if (full)
			why->what = grow_table(2 * stw.cap) ? STW_OK : STW_NO_MEMORY;
	}
	errno = saved;
	return why->what;
}

void
stw_start(void)
{
	release_world();
}

/* ---- the stopped ---- */

size_t
stw_count(void)
{
	return a32_load_relaxed(&stw.n);
}

const struct stw_thread *
stw_thread(size_t i)
{
	return (const struct stw_thread *)aptr_load_relaxed(&stw.records) + i;
}

void
stw_after_fork_child(void)
{
	for (size_t i = 0; i < STW_EXEMPT_MAX; i++)
		a32_store_relaxed(&stw.exempt[i], 0);
}

/* ---- the message ---- */

static const char *
number(char *buf, size_t cap, uint64_t v)
{
	struct print p;
	print_init(&p, buf, cap);
	print_dec(&p, v);
	return buf;
}

void
stw_warn(const struct stw_failure *why)
{
	char tid[PRINT_MIN_BYTES], sig[PRINT_MIN_BYTES], ms[PRINT_MIN_BYTES];
	switch (why->what) {
	case STW_OK:
		break;
	case STW_NO_PROC:
		report_warn("cannot stop the other threads: /proc/self/task cannot be read", NULL);
		break;
	case STW_NO_SIGNAL:
		report_warn("cannot stop the other threads: the program handles every "
		    "real-time signal itself", NULL);
		break;
	case STW_NO_MEMORY:
		report_warn("cannot stop the other threads: no memory to list them", NULL);
		break;
	case STW_LATE:
		report_warn("cannot stop the other threads: thread ",
		    number(tid, sizeof(tid), (uint64_t)why->tid), " (", why->name,
		    ") does not answer signal ", number(sig, sizeof(sig), (uint64_t)why->signal),
		    " within ", number(ms, sizeof(ms), why->deadline_ns / 1000000), " ms",
		    why->blocks ? "; it blocks that signal" : "", NULL);
		break;
	}
}
