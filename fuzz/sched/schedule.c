/* schedule.c - see schedule.h.
 *
 * A fiber begins by makecontext and is switched by _setjmp and _longjmp, which
 * make no system call. TLS that tiers have is swapped with the thread: the cache
 * (thread_state) and the locks held. A handler's fiber has its thread's TLS, and
 * while it runs that thread does not. */
#include "schedule.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "lock.h"
#include "sys.h"
#include "tls.h"

enum {
	STACK_BYTES = 512 * 1024,
	TABLE_SLOTS = 1 << 19,
	LOCKSET = 4,
	TLS_BYTES = 8192,            /* at least, each side of the thread pointer */
	MAIN_RELAX_LIMIT = 1000,
};

enum fiber_state { FIBER_NEW, FIBER_READY, FIBER_WAITS, FIBER_RELAXES, FIBER_DONE, FIBER_GONE };

struct thread_tls {
	struct thread_state state;
	struct held_locks held;
};

struct fiber {
	enum fiber_state state;
	unsigned thread;             /* whose TLS: itself, or the thread it interrupts */
	bool is_handler;
	const uint32_t *word;        /* FIBER_WAITS */
	uint64_t writes;             /* FIBER_RELAXES: of others, when it began */
	uint32_t points;
	jmp_buf at;
	ucontext_t start;
	void *stack;
};

/* What the fibers have done to a location, and locks that each of them held then:
 * some of the first access, less what others did not hold (as in Eraser, 1997). */
struct location {
	uintptr_t at;
	uint8_t readers, writers;
	uint8_t locks;
	bool shared;
	const struct mutex *lock[LOCKSET];
	/* of the run that order.run says */
	uint32_t run;
	uint8_t wrote;                    /* plain: the thread that wrote last */
	uint32_t write_clock;
	uint32_t read_clock[SCHED_THREADS];
	uint32_t released[SCHED_THREADS]; /* atomic: what an acquire learns */
	uintptr_t write_pc;
};

/* Vector clocks (Mattern 1988; Flanagan and Freund, FastTrack, 2009). */
static struct {
	uint32_t run;
	bool off;
	uint32_t of[SCHED_THREADS][SCHED_THREADS];    /* [t]: what t knows of the others */
} order;

static struct {
	const struct sched_program *program;
	struct sched_chooser *chooser;
	struct fiber fiber[SCHED_THREADS];
	struct fiber *current;       /* NULL: outside */
	unsigned tls_of;             /* whose TLS is in place */
	jmp_buf main;
	ucontext_t main_context;
	enum sched_end end;
	uint32_t steps, decisions;
	uint64_t writes;
	unsigned switches;
	struct sched_switch log[SCHED_SWITCHES];
	bool every_point;            /* as told */
	bool offer_all;              /* ... or for this program */
	bool handlers;
	bool alone;                  /* the others never run again */
	uintptr_t pc;
	struct thread_tls tls[SCHED_THREADS];
	struct thread_tls saved[SCHED_THREADS];
	jmp_buf *guard;
	unsigned relaxed;            /* outside, in succession */
	uint64_t outside;            /* points since sched_guard */
	const struct held_locks *held;
} run;

static struct location table[TABLE_SLOTS];
static uint32_t table_used[TABLE_SLOTS];
static uint32_t table_n;

bool sched_is_plain;
struct die_info sched_death;
char sched_failure[256];

/* ---- locations ---- */

static struct location *
location_of(uintptr_t at)
{
	uint32_t i = (uint32_t)((at >> 2) * 0x9e3779b97f4a7c15u >> 45) & (TABLE_SLOTS - 1);

	for (;; i = (i + 1) & (TABLE_SLOTS - 1)) {
		if (table[i].at == at)
			return &table[i];
		if (table[i].at == 0)
			break;
	}
	if (table_n == TABLE_SLOTS / 2) {
		fprintf(stderr, "sched: more locations than the table holds\n");
		abort();
	}
	table[i].at = at;
	table_used[table_n++] = i;
	return &table[i];
}

static void
lockset_begin(struct location *l)
{
	for (uint32_t i = 0; i < run.held->count && l->locks < LOCKSET; i++)
		l->lock[l->locks++] = run.held->lock[i];
}

static void
lockset_narrow(struct location *l)
{
	for (unsigned i = 0; i < l->locks; i++) {
		uint32_t k = 0;
		while (k < run.held->count && run.held->lock[k] != l->lock[i])
			k++;
		if (k == run.held->count)
			l->lock[i--] = l->lock[--l->locks];
	}
}

/* Between accesses under one lock no other thread can come, and a handler can. */
static void
note_access(struct location *l, uint8_t bit, bool write)
{
	if ((l->readers | l->writers) == 0 && !run.handlers)
		lockset_begin(l);
	else if (l->locks != 0)
		lockset_narrow(l);
	if (write)
		l->writers |= bit;
	else
		l->readers |= bit;
}

/* ---- what happens before what ---- */

static struct location *
ordered(struct location *l)
{
	if (l->run == order.run)
		return l;
	l->run = order.run;
	l->write_clock = 0;
	memset(l->read_clock, 0, sizeof(l->read_clock));
	memset(l->released, 0, sizeof(l->released));
	return l;
}

static void
clock_join(uint32_t *to, const uint32_t *from)
{
	for (unsigned i = 0; i < SCHED_THREADS; i++)
		if (from[i] > to[i])
			to[i] = from[i];
}

static void
order_atomic(struct location *l, unsigned t, enum sched_kind kind)
{
	uint32_t *mine = order.of[t];

	ordered(l);
	if (kind == SCHED_ACQUIRE || kind == SCHED_UPDATE)
		clock_join(mine, l->released);
	if (kind == SCHED_UPDATE)
		clock_join(l->released, mine);
	else if (kind == SCHED_RELEASE)
		memcpy(l->released, mine, sizeof(l->released));
	else if (kind == SCHED_WRITE)
		memset(l->released, 0, sizeof(l->released));
	if (kind == SCHED_RELEASE || kind == SCHED_UPDATE)
		mine[t]++;
}

static void
order_plain(struct location *l, unsigned t, bool write, uintptr_t pc)
{
	const uint32_t *mine = order.of[t];

	ordered(l);
	if (l->write_clock > mine[l->wrote] && l->wrote != t && !order.off)
		sched_fail("SCHED-RACE: %s at %#lx, written at %#lx, of %#lx",
		    write ? "write" : "read", (unsigned long)pc, (unsigned long)l->write_pc,
		    (unsigned long)l->at);
	for (unsigned i = 0; write && i < SCHED_THREADS; i++)
		if (l->read_clock[i] > mine[i] && i != t && !order.off)
			sched_fail("SCHED-RACE: write at %#lx, read before, of %#lx",
			    (unsigned long)pc, (unsigned long)l->at);
	if (!write) {
		l->read_clock[t] = mine[t];
		return;
	}
	l->wrote = (uint8_t)t;
	l->write_clock = mine[t];
	l->write_pc = pc;
}

void
sched_races(bool on)
{
	order.off = !on;
}

static void
order_begin(void)
{
	order.run++;
	memset(order.of, 0, sizeof(order.of));
	for (unsigned i = 0; i < SCHED_THREADS; i++)
		order.of[i][i] = 1;
}

/* ---- locations, again ---- */

void
sched_forget(void)
{
	for (uint32_t i = 0; i < table_n; i++)
		table[table_used[i]] = (struct location){ 0 };
	table_n = 0;
}

bool
sched_learn(void)
{
	bool more = false;

	for (uint32_t i = 0; i < table_n; i++) {
		struct location *l = &table[table_used[i]];
		unsigned all = l->readers | l->writers;
		bool shared = l->writers != 0 && (all & (all - 1)) != 0 && l->locks == 0;

		more |= shared && !l->shared;
		l->shared |= shared;
	}
	return more;
}

void
sched_every_point(bool on)
{
	run.every_point = on;
}

/* ---- TLS ---- */

static void
tls_to(unsigned thread)
{
	struct fiber *current = run.current;

	if (thread == run.tls_of)
		return;
	run.current = NULL;          /* none of this is the program's doing */
	run.tls[run.tls_of].state = thread_state;
	mutex_switch_thread(&run.tls[run.tls_of].held, &run.tls[thread].held);
	thread_state = run.tls[thread].state;
	run.tls_of = thread;
	run.current = current;
}

void
sched_be(unsigned thread)
{
	tls_to(thread);
}

void
sched_tls_reset(void)
{
	struct held_locks old;

	memset(run.tls, 0, sizeof(run.tls));
	mutex_switch_thread(&old, &run.tls[0].held);
	thread_state = (struct thread_state){ 0 };
	run.tls_of = 0;
}

void
sched_tls_save(void)
{
	tls_to(run.tls_of == 0 ? 1 : 0);    /* what is in place is kept, too */
	memcpy(run.saved, run.tls, sizeof(run.tls));
}

void
sched_tls_restore(void)
{
	struct held_locks old;

	memcpy(run.tls, run.saved, sizeof(run.tls));
	mutex_switch_thread(&old, &run.tls[0].held);
	thread_state = run.tls[0].state;
	run.tls_of = 0;
}

void
sched_tls_read(struct thread_state out[SCHED_THREADS])
{
	for (unsigned i = 0; i < SCHED_THREADS; i++)
		out[i] = i == run.tls_of ? thread_state : run.tls[i].state;
}

/* ---- fibers ---- */

static _Noreturn void
to_main(enum sched_end end)
{
	run.end = end;
	run.current = NULL;
	_longjmp(run.main, 1);
}

static void pass_on(struct fiber *f, char how);

static void
fiber_main(void)
{
	struct fiber *f = run.current;

	run.program->fn((unsigned)(f - run.fiber));
	f->state = FIBER_DONE;
	pass_on(f, '|');
	abort();
}

static bool
enabled(const struct fiber *f)
{
	const struct fiber *thread = &run.fiber[f->thread];

	switch (f->state) {
	case FIBER_NEW:
		/* a signal finds its thread at work */
		return !f->is_handler || thread->state == FIBER_READY ||
		    thread->state == FIBER_WAITS || thread->state == FIBER_RELAXES;
	case FIBER_READY:
		break;
	case FIBER_RELAXES:
		if (f->writes == run.writes)
			return false;
		break;
	default:
		return false;
	}
	if (f->is_handler || !run.handlers)
		return true;
	for (unsigned i = 0; i < run.program->threads; i++) {
		const struct fiber *h = &run.fiber[i];
		if (h->is_handler && h->thread == f->thread && h->state != FIBER_NEW &&
		    h->state < FIBER_DONE)
			return false;
	}
	return true;
}

static void
resume(struct fiber *f)
{
	bool begin = f->state == FIBER_NEW;

	tls_to(f->thread);
	f->state = FIBER_READY;
	run.current = f;
	if (begin)
		setcontext(&f->start);
	_longjmp(f->at, 1);
}

/* Leaves f (NULL: from outside) for `to`; returns when f is resumed. */
static void
switch_to(struct fiber *f, struct fiber *to)
{
	if (f == to)
		return;
	if (f == NULL || f->state == FIBER_DONE || _setjmp(f->at) == 0)
		resume(to);
}

static void
log_switch(const struct sched_decision *d, uint8_t to, char how)
{
	if (run.switches < SCHED_SWITCHES)
		run.log[run.switches++] = (struct sched_switch){ d->from, to, how, d->point, run.pc };
}

/* Who goes on? NULL: nobody can. */
static struct fiber *
decide(struct fiber *f, char how)
{
	struct sched_decision d = {
		.from = f == NULL ? SCHED_THREADS : (uint8_t)(f - run.fiber),
		.point = f == NULL ? 0 : f->points,
		.preempts = how == '>',
	};
	unsigned choice = 0;

	if (how == '>')
		d.options[d.n++] = d.from;
	for (unsigned i = 0; i < run.program->threads; i++)
		if (i != d.from && enabled(&run.fiber[i]))
			d.options[d.n++] = (uint8_t)i;
	if (d.n == 0)
		return NULL;
	if (d.n > 1) {
		run.decisions++;
		choice = run.chooser->choose(run.chooser, &d);
		if (choice != 0)
			log_switch(&d, d.options[choice], how);
	}
	return &run.fiber[d.options[choice]];
}

/* f cannot go on. */
static void
pass_on(struct fiber *f, char how)
{
	struct fiber *to = decide(f, how);

	if (to == NULL) {
		for (unsigned i = 0; i < run.program->threads; i++) {
			const struct fiber *g = &run.fiber[i];
			if (g->state == FIBER_RELAXES)
				to_main(SCHED_LIVELOCK);
			if (g->state < FIBER_DONE && !(g->is_handler && g->state == FIBER_NEW))
				to_main(SCHED_DEADLOCK);
		}
		to_main(SCHED_DONE);
	}
	switch_to(f, to);
}

static void
count_point(struct fiber *f)
{
	f->points++;
	if (++run.steps > SCHED_STEP_LIMIT)
		to_main(SCHED_LIVELOCK);
}

static void
offer(struct fiber *f, uintptr_t pc)
{
	run.pc = pc;
	switch_to(f, decide(f, '>'));
}

/* What is noted behind the switch is what now happens. */
void
sched_point(const volatile void *at, enum sched_kind kind)
{
	struct fiber *f = run.current;
	struct location *l;

	if (f == NULL && run.guard != NULL && ++run.outside > 100 * (uint64_t)SCHED_STEP_LIMIT)
		sched_fail("livelock when the threads are done");
	if (f == NULL || run.alone)
		return;
	count_point(f);
	if (kind == SCHED_FENCE) {
		if (run.handlers || run.offer_all)
			offer(f, (uintptr_t)__builtin_return_address(0));
		return;
	}
	bool write = kind == SCHED_WRITE || kind == SCHED_RELEASE || kind == SCHED_UPDATE;
	l = location_of((uintptr_t)at);
	note_access(l, (uint8_t)(1 << (f - run.fiber)), write);
	if (l->shared || run.offer_all)
		offer(f, (uintptr_t)__builtin_return_address(0));
	run.writes += write;
	order_atomic(l, f->thread, kind);
}

/* Its stack, or TLS, which is swapped with the thread. */
static bool
is_own(const struct fiber *f, uintptr_t at)
{
	uintptr_t tp = (uintptr_t)__builtin_thread_pointer();

	return at - (uintptr_t)f->stack < STACK_BYTES ||
	    at - (tp - TLS_BYTES) < 2 * TLS_BYTES;
}

void
sched_plain(uintptr_t at, size_t bytes, bool write, uintptr_t pc)
{
	struct fiber *f = run.current;

	if (f == NULL || run.alone || is_own(f, at))
		return;
	for (size_t k = 0; k == 0 || k + 8 <= bytes; k += 8) {
		struct location *l = location_of(at + k);
		count_point(f);
		note_access(l, (uint8_t)(1 << (f - run.fiber)), write);
		if (l->shared || run.offer_all)
			offer(f, pc);
		order_plain(l, f->thread, write, pc);
	}
}

void
sched_relax(void)
{
	struct fiber *f = run.current;

	if (f == NULL) {
		if (++run.relaxed > MAIN_RELAX_LIMIT)
			sched_fail("waits for ever for something that no thread will do");
		return;
	}
	if (++run.steps > SCHED_STEP_LIMIT)
		to_main(SCHED_LIVELOCK);
	f->state = FIBER_RELAXES;
	f->writes = run.writes;
	run.pc = (uintptr_t)__builtin_return_address(0);
	pass_on(f, '|');
}

bool
sys_futex_wait(const uint32_t *word, uint32_t value)
{
	struct fiber *f = run.current;

	if (*word != value)
		return false;
	if (f == NULL)
		sched_fail("a lock is still held when all threads are done");
	f->state = FIBER_WAITS;
	f->word = word;
	run.pc = (uintptr_t)__builtin_return_address(0);
	pass_on(f, '|');
	return false;
}

void
sys_futex_wake(const uint32_t *word, int count)
{
	for (unsigned i = 0; i < SCHED_THREADS && count > 0; i++) {
		struct fiber *f = &run.fiber[i];
		if (f->state == FIBER_WAITS && f->word == word) {
			f->state = FIBER_READY;
			count--;
		}
	}
}

unsigned
sched_self(void)
{
	return run.current == NULL ? SCHED_THREADS : (unsigned)(run.current - run.fiber);
}

unsigned
sched_kill_others(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < run.program->threads; i++) {
		struct fiber *f = &run.fiber[i];
		/* fork copies all that they have done */
		clock_join(order.of[run.current->thread], order.of[f->thread]);
		if (f == run.current || f->state == FIBER_DONE)
			continue;
		n += f->state != FIBER_NEW;
		f->state = FIBER_GONE;
	}
	run.alone = true;
	return n;
}

/* ---- runs ---- */

static void
fiber_prepare(struct fiber *f, unsigned i)
{
	const struct sched_program *p = run.program;

	f->state = FIBER_NEW;
	f->is_handler = p->handler_of[i] != 0;
	f->thread = f->is_handler ? p->handler_of[i] - 1u : i;
	f->points = 0;
	if (f->stack == NULL)
		f->stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (f->stack == MAP_FAILED || getcontext(&f->start) != 0)
		abort();
	f->start.uc_stack.ss_sp = f->stack;
	f->start.uc_stack.ss_size = STACK_BYTES;
	f->start.uc_link = NULL;
	makecontext(&f->start, fiber_main, 0);
}

enum sched_end
sched_run(const struct sched_program *p, struct sched_chooser *c)
{
	run.program = p;
	run.chooser = c;
	run.held = mutex_held();
	run.offer_all = run.every_point || p->forks;
	order_begin();
	run.steps = run.decisions = run.switches = 0;
	run.writes = 0;
	run.handlers = run.alone = false;
	sched_death = (struct die_info){ 0 };
	sched_failure[0] = '\0';
	for (unsigned i = 0; i < p->threads; i++) {
		fiber_prepare(&run.fiber[i], i);
		run.handlers |= run.fiber[i].is_handler;
	}
	for (unsigned i = p->threads; i < SCHED_THREADS; i++)
		run.fiber[i].state = FIBER_DONE;
	if (_setjmp(run.main) == 0)
		switch_to(NULL, decide(NULL, '+'));
	tls_to(0);
	return run.end;
}

uint32_t
sched_points(void)
{
	return run.steps;
}

uint32_t
sched_decisions(void)
{
	return run.decisions;
}

unsigned
sched_switches(const struct sched_switch **out)
{
	*out = run.log;
	return run.switches;
}

/* ---- the ways out ---- */

static _Noreturn void
leave(enum sched_end end)
{
	if (run.current != NULL)
		to_main(end);
	if (run.guard != NULL) {
		run.end = end;
		_longjmp(*run.guard, 1);
	}
	fprintf(stderr, "sched: outside of any run: %s, code %d, site %s, address %#lx\n",
	    sched_failure, (int)sched_death.code,
	    sched_death.site != NULL ? sched_death.site : "-", (unsigned long)sched_death.addr);
	abort();
}

void
sched_fail(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(sched_failure, sizeof(sched_failure), format, ap);
	va_end(ap);
	leave(SCHED_FAILED);
}

enum sched_end
sched_guard(void (*fn)(void *), void *arg)
{
	jmp_buf here;

	run.relaxed = 0;
	run.outside = 0;
	run.guard = &here;
	run.end = SCHED_DONE;
	if (_setjmp(here) == 0)
		fn(arg);
	run.guard = NULL;
	return run.end;
}

_Noreturn void
die(const struct die_info *info)
{
	sched_death = *info;
	leave(SCHED_DIED);
}

_Noreturn void
die_corruption(const char *tag, const void *where)
{
	die(&(struct die_info){ .code = DIE_CORRUPTION, .site = tag, .addr = (uintptr_t)where });
}

/* ---- text ---- */

void
sched_print(char out[SCHED_TEXT_BYTES])
{
	size_t n = 0;

	out[0] = '\0';
	for (unsigned i = 0; i < run.switches && n < SCHED_TEXT_BYTES - 32; i++) {
		const struct sched_switch *s = &run.log[i];
		const char *gap = i == 0 ? "" : " ";
		if (s->how == '+')
			n += (size_t)sprintf(out + n, "%s+%u", gap, s->to);
		else
			n += (size_t)sprintf(out + n, "%s%u@%u%c%u", gap, s->from, s->point,
			    s->how, s->to);
	}
}

bool
sched_parse(const char *text, struct sched_switch *out, unsigned *n)
{
	int len;

	for (*n = 0; *text != '\0' && *n < SCHED_SWITCHES; text += len, (*n)++) {
		struct sched_switch *s = &out[*n];
		unsigned from, to;

		len = 0;
		if (sscanf(text, " +%u%n", &to, &len) == 1 && len != 0) {
			*s = (struct sched_switch){ .from = SCHED_THREADS, .to = (uint8_t)to,
				.how = '+' };
		} else if (sscanf(text, " %u@%u%c%u%n", &from, &s->point, &s->how, &to, &len) == 4 &&
		    len != 0 && (s->how == '>' || s->how == '|')) {
			s->from = (uint8_t)from;
			s->to = (uint8_t)to;
		} else {
			return false;
		}
		while (text[len] == ' ')
			len++;
	}
	return *text == '\0';
}
