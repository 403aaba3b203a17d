/* h19_pass.c - H19: mark passes that cannot be, and mark passes that lie.
 *
 *   new, link, root, free    a graph of objects; the model keeps every address
 *                            inverted and knows what the roots surely reach
 *   pass                     a mark while something is in its way: no memory, no
 *                            descriptor, no signal, a thread that does not answer,
 *                            the world locked by another, a call that goes on, a
 *                            begin that does not want it, or nothing at all
 *   forget                   a pass that forgets every so many marks (mark_fault)
 *   range, unrange           ranges of a shared mapping as roots, any number
 *   park, due                freed large memory under quarantine=mark, and its passes
 *
 * Demanded: a pass that says no has left nothing behind, says nothing of any object,
 * and keeps what is parked; one that says yes has marked all that is reached; one that
 * forgot and was checked dies of CHECKMARK-1. Either way the other thread runs on and
 * the heap is whole. Which objects are lost is H15's part: here nothing is demanded of
 * what the model does not reach. */
#define _GNU_SOURCE
#include "fheap.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "../hardening/hooks.h"
#include "../hardening/mark.h"
#include "../hardening/pinned.h"
#include "../hardening/roots.h"
#include "../hardening/stoptheworld.h"
#include "fake_die.h"
#include "malloc.h"
#include "mcache.h"
#include "marena.h"
#include "proc.h"

#define OPS(OP) \
	OP(NEW, "new", 0, 15) OP(LINK, "link", 16, 27) OP(ROOT, "root", 28, 35) \
	OP(FREE, "free", 36, 39) OP(PASS, "pass", 40, 45) OP(FORGET, "forget", 46, 48) \
	OP(RANGE, "range", 49, 53) OP(UNRANGE, "unrange", 54, 55) OP(PARK, "park", 56, 59) \
	OP(DUE, "due", 60, 63)

enum op { OPS(SGF_ENUM) };

static const uint8_t op_of[SGF_CODES] = { OPS(SGF_CODE) };
static const struct sgf_language language = {
	.op = { OPS(SGF_NAME) },
	.knob = { "quarantine=mark" },
};

/* What is in a pass's way. */
enum obstacle { NOTHING, NO_MEMORY, NO_DESCRIPTOR, NO_SIGNAL, DEAF, LOCKED, IN_A_CALL, UNWANTED,
	OBSTACLES, EXEMPT };                /* EXEMPT: deaf, and nobody is to wait for it */

enum { ROOTS = 16, LINKS = 4, RANGES = 512, RANGE_BYTES = 64, PASSES_MAX = 12,
	SHARED_BYTES = RANGES * RANGE_BYTES, DEAF_NS = 2000000, RETRY_SECONDS = 30 };

#define PATIENT_NS ((uint64_t)60 * 1000000000)      /* a machine may be busy */

struct node {
	uintptr_t hidden;                  /* ~address */
	size_t bytes;
	bool live, noscan;
	uintptr_t link[LINKS];             /* ~value; 0: none */
};

static struct {
	struct node node[SGF_HANDLES];
	uintptr_t root[ROOTS];
	uintptr_t in_range[RANGES];        /* ~value in the range's first word */
	uint8_t added[RANGES];             /* how often that range was added */
	bool reached[SGF_HANDLES];
	size_t n_reached;
	bool mark_mode;
	unsigned passes, begins, ends;
	bool ended_well;
	size_t wrong;                      /* 1 + handle: reached and said to be lost */
	size_t said;
} g;

static void *volatile roots_here[ROOTS];
static char *shared;

/* ---- the other thread ---- */

enum order { RUN, BE_DEAF, HOLD_WORLD };

static struct {
	pthread_t thread;
	int tid;
	int order, done;                   /* enum order */
	unsigned turns;
	bool was_stopped;
} other;

static void
obey(int order)
{
	static sigset_t all, before;

	if (other.done == HOLD_WORLD)
		proc_world_unlock();
	if (other.done == BE_DEAF)
		pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (order == BE_DEAF) {
		sigfillset(&all);
		pthread_sigmask(SIG_SETMASK, &all, &before);
	}
	if (order == HOLD_WORLD)
		proc_world_lock();
	__atomic_store_n(&other.done, order, __ATOMIC_RELEASE);
}

static void *
other_main(void *arg)
{
	(void)arg;
	__atomic_store_n(&other.tid, gettid(), __ATOMIC_RELEASE);
	for (;;) {
		int order = __atomic_load_n(&other.order, __ATOMIC_ACQUIRE);
		if (order != other.done)
			obey(order);
		__atomic_add_fetch(&other.turns, 1, __ATOMIC_RELEASE);
		usleep(order == RUN ? 2000 : 100);
	}
	return NULL;
}

static void
tell(enum order order)
{
	__atomic_store_n(&other.order, (int)order, __ATOMIC_RELEASE);
	while (__atomic_load_n(&other.done, __ATOMIC_ACQUIRE) != (int)order)
		usleep(50);
}

/* Once in a process. */
static void
start_other(void)
{
	if (shared != NULL)
		return;
	shared = mmap(NULL, SHARED_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED || pthread_create(&other.thread, NULL, other_main, NULL) != 0)
		abort();
	while (__atomic_load_n(&other.tid, __ATOMIC_ACQUIRE) == 0)
		usleep(50);
	stw_first_slice_ns = PATIENT_NS;
}

/* ---- the graph ---- */

static void
do_new(const struct sgf_op *op)
{
	static const size_t most[4] = { 8, 128, 2048, 1 << 17 };
	struct node *n = &g.node[op->handle];
	size_t bytes = 1 + op->imm % most[op->a & 3];
	bool noscan = (op->a & 4) != 0;

	if (n->live)
		return;
	void *p = noscan ? mallocgc_noscan(bytes, API_NOSCAN) : mallocgc(bytes, API_MALLOC);
	if (p == NULL)
		return;
	memset(p, 0, bytes);
	*n = (struct node){ .hidden = ~(uintptr_t)p, .bytes = bytes, .live = true, .noscan = noscan };
}

/* A pointer to some byte of object h, inverted. */
static uintptr_t
into(uint8_t h, uint32_t imm)
{
	const struct node *n = &g.node[h];

	return n->live ? ~(~n->hidden + imm % n->bytes) : 0;
}

static void
do_link(const struct sgf_op *op)
{
	struct node *n = &g.node[op->handle];
	size_t i = op->b % LINKS;

	if (!n->live || n->bytes < LINKS * sizeof(uintptr_t))
		return;
	n->link[i] = into(op->a, op->imm);
	((volatile uintptr_t *)~n->hidden)[i] = n->link[i] != 0 ? ~n->link[i] : 0;
}

static void
do_root(const struct sgf_op *op)
{
	size_t i = op->b % ROOTS;

	g.root[i] = into(op->a, op->imm);
	roots_here[i] = g.root[i] != 0 ? (void *)~g.root[i] : NULL;
}

static void
do_free(const struct sgf_op *op)
{
	struct node *n = &g.node[op->handle];

	if (!n->live)
		return;
	n->live = false;
	freegc((void *)~n->hidden, API_FREE);
}

static void
reach(uintptr_t hidden)
{
	int stack[SGF_HANDLES];
	size_t n = 0;

	for (;;) {
		for (int h = 0; h < SGF_HANDLES && hidden != 0; h++) {
			const struct node *x = &g.node[h];
			if (!x->live || g.reached[h] || ~hidden - ~x->hidden >= x->bytes)
				continue;
			g.reached[h] = true;
			g.n_reached++;
			for (size_t i = 0; i < LINKS && !x->noscan; i++)
				if (x->link[i] != 0 && n < SGF_HANDLES)
					stack[n++] = h * LINKS + (int)i;
		}
		if (n == 0)
			return;
		n--;
		hidden = g.node[stack[n] / LINKS].link[stack[n] % LINKS];
	}
}

static void
compute_reached(void)
{
	memset(g.reached, 0, sizeof(g.reached));
	g.n_reached = 0;
	for (size_t i = 0; i < ROOTS; i++)
		reach(g.root[i]);
	for (size_t i = 0; i < RANGES; i++)
		if (g.added[i] != 0)
			reach(g.in_range[i]);
}

/* ---- ranges ---- */

static void
do_range(const struct sgf_op *op)
{
	/* a row of them now and then: the table of ranges has to grow */
	size_t n = op->b >= 250 ? RANGES : 1 + op->b % 4u;

	for (size_t k = 0; k < n; k++) {
		size_t i = (op->imm + k) % RANGES;
		if (g.added[i] >= 3)
			continue;
		SG_CHECK(PASS, hook_root_add(shared + i * RANGE_BYTES, k % 8 != 7 ? RANGE_BYTES : 8) == 0,
		    "a range was refused");
		if (k % 8 == 7) {
			SG_CHECK(PASS, hook_root_remove(shared + i * RANGE_BYTES, 8) == 0,
			    "a range that was added is not known");
			continue;
		}
		g.added[i]++;
		g.in_range[i] = into(op->a, op->imm);
		*(volatile uintptr_t *)(void *)(shared + i * RANGE_BYTES) =
		    g.in_range[i] != 0 ? ~g.in_range[i] : 0;
	}
}

static void
do_unrange(const struct sgf_op *op)
{
	size_t i = op->imm % RANGES;
	char *p = shared + i * RANGE_BYTES;

	SG_CHECK(PASS, hook_root_remove(p + 16, 8) == ENOENT, "a range that nobody added was removed");
	SG_CHECK(PASS, hook_root_add(p, 0) == 0 && hook_root_remove(p, 0) == 0, "nothing was refused");
	int want = g.added[i] != 0 ? 0 : ENOENT;
	SG_CHECK(PASS, hook_root_remove(p, RANGE_BYTES) == want,
	    "a range that was added %d times was not treated so", (int)g.added[i]);
	if (want == 0)
		g.added[i]--;
}

/* ---- passes ---- */

static bool
begin(struct mark_request *req)
{
	(void)req;
	g.begins++;
	return true;
}

static bool
begin_not(struct mark_request *req)
{
	(void)req;
	g.begins++;
	return false;
}

static void
end(struct mark_request *req, bool ok)
{
	(void)req;
	g.ends++;
	g.ended_well = ok;
}

static void
note_unmarked(const struct mark_object *o, void *arg)
{
	(void)arg;
	g.said++;
	for (size_t h = 0; h < SGF_HANDLES; h++)
		if (g.reached[h] && g.node[h].live && ~g.node[h].hidden == o->base)
			g.wrong = 1 + h;
}

/* SIGRTMIN - 2 and -1 are libc's; ours is among them, and comes back. */
static void
fill_signals(bool full)
{
	static struct sigaction before[_NSIG];
	const struct sigaction ignored = { .sa_handler = SIG_IGN };

	for (int sig = SIGRTMIN; sig <= SIGRTMAX; sig++)
		if (full)
			sigaction(sig, &ignored, &before[sig]);
		else
			sigaction(sig, &before[sig], NULL);
}

static void
descriptors(bool none)
{
	static struct rlimit before;
	struct rlimit now;

	if (none) {
		getrlimit(RLIMIT_NOFILE, &before);
		now = before;
		now.rlim_cur = 0;
		setrlimit(RLIMIT_NOFILE, &now);
	} else {
		setrlimit(RLIMIT_NOFILE, &before);
	}
}

static void
put_in_the_way(enum obstacle what, const struct sgf_op *op)
{
	switch (what) {
	case NO_MEMORY: fake_sys_fail(FAKE_SYS_ALLOC, 1 + op->imm % 20, (op->imm & 0x100) != 0); break;
	case NO_DESCRIPTOR: descriptors(true); break;
	case NO_SIGNAL: fill_signals(true); break;
	case EXEMPT: stw_exempt(other.tid); tell(BE_DEAF); break;
	case DEAF: tell(BE_DEAF); break;
	case LOCKED: tell(HOLD_WORLD); break;
	case IN_A_CALL: sg_heap_cache(0)->busy = CACHE_SLOW; break;
	default: break;
	}
}

static void
take_away(enum obstacle what)
{
	switch (what) {
	case NO_MEMORY: fake_sys_fail(0, 0, false); break;
	case NO_DESCRIPTOR: descriptors(false); break;
	case NO_SIGNAL: fill_signals(false); break;
	case EXEMPT: stw_after_fork_child(); tell(RUN); break;
	case DEAF:
	case LOCKED: tell(RUN); break;
	case IN_A_CALL: sg_heap_cache(0)->busy = CACHE_IDLE; break;
	default: break;
	}
}

static size_t
scratch_pieces(void)
{
	size_t n = 0;
	uintptr_t from, to;

	for (size_t i = 0; i + 1 < STW_SCRATCH_MAX; i++) {
		stw_scratch_piece(i, &from, &to);
		n += from != 0;
	}
	return n;
}

/* Both ways: it said no, or yes. */
static void
check_outcome(enum obstacle what, bool ok, const struct mark_result *r)
{
	bool can = what == NOTHING || what == EXEMPT, cannot = !can && what != NO_MEMORY;

	SG_CHECK(PASS, ok || !can, "no mark was possible, and nothing was in its way");
	SG_CHECK(PASS, !ok || !cannot, "a mark with obstacle %d in its way", (int)what);
	SG_CHECK(PASS, ok || (r->marked_objects == 0 && r->leaked_objects == 0 && r->root_bytes == 0),
	    "a mark that was not possible has marked %zu objects and lost %zu", r->marked_objects,
	    r->leaked_objects);
	SG_CHECK(PASS, !ok || r->leaked_objects == g.said, "%zu objects lost, and %zu named",
	    r->leaked_objects, g.said);
	SG_CHECK(PASS, !ok || r->marked_objects >= g.n_reached, "%zu objects marked, %zu are reached",
	    r->marked_objects, g.n_reached);
	SG_CHECK(PASS, ok || g.said == 0, "a mark that was not possible named %zu objects", g.said);
	SG_CHECK(PASS, g.wrong == 0, "object %zu is reached, and named as lost", g.wrong - 1);
	SG_CHECK(PASS, g.begins == g.ends && (g.ends == 0 || g.ended_well == ok),
	    "begun %u times, ended %u times", g.begins, g.ends);
}

static struct mark_request
request(const struct sgf_op *op)
{
	g.said = g.wrong = g.begins = g.ends = 0;
	compute_reached();
	return (struct mark_request){ .begin = begin, .end = end, .on_unmarked = note_unmarked,
		.check = op->a & 1, .classify = op->a >> 1 & 1,
		.stack_objects = op->a & 4 ? 1 + op->a / 8 : 0, .deadline_ns = PATIENT_NS };
}

static void
do_pass(const struct sgf_op *op)
{
	enum obstacle what = op->b % OBSTACLES;
	struct mark_request req = request(op);
	struct mark_result r;
	unsigned turns = __atomic_load_n(&other.turns, __ATOMIC_ACQUIRE);

	req.no_wait = what == LOCKED;
	if (what == DEAF && op->a >= 128)
		what = EXEMPT;
	req.deadline_ns = what == DEAF ? DEAF_NS : PATIENT_NS;
	if (what == UNWANTED)
		req.begin = begin_not;
	/* the other ways look at each page of ASan's shadow: seconds */
	if (!sg_with_asan && op->b >= 128)
		roots_way = op->b < 240 ? ROOTS_WAY_PAGEMAP : ROOTS_WAY_PEEK;
	put_in_the_way(what, op);
	bool ok = mark_run(&req, &r);
	take_away(what);
	roots_way = ROOTS_WAY_SCAN;
	check_outcome(what, ok, &r);
	/* the table of threads is kept */
	SG_CHECK(PASS, scratch_pieces() <= 1, "%zu pieces of memory are left", scratch_pieces() - 1);
	for (int i = 0; i < 2000 && __atomic_load_n(&other.turns, __ATOMIC_ACQUIRE) == turns; i++)
		usleep(1000);
	SG_CHECK(PASS, __atomic_load_n(&other.turns, __ATOMIC_ACQUIRE) != turns,
	    "the other thread does not run on");
	sg_note(what == NO_MEMORY ? 0 : ok);
}

static void
check_now(void *arg)
{
	struct mark_result r;

	mark_run(arg, &r);
}

/* With every mark forgotten a reached object cannot go unnoticed; else what was not
 * noticed must not be wrong. */
static void
do_forget(const struct sgf_op *op)
{
	struct mark_request req = request(op);
	static jmp_buf outer;

	req.check = true;
	mark_fault = op->b & 1 ? 1 : 1 + op->b % 16u;
	bool every = mark_fault == 1;
	/* this is within sg_heap_try */
	memcpy(&outer, &fake_die_jmp, sizeof(outer));
	bool died = fake_die_caught(check_now, &req);
	memcpy(&fake_die_jmp, &outer, sizeof(outer));
	fake_die_armed = true;
	mark_fault = 0;
	SG_CHECK(LIE, !died || (fake_die_info.code == DIE_VERIFY &&
	    strcmp(fake_die_info.site, "CHECKMARK-1") == 0), "it died of code %d, site %s",
	    (int)fake_die_info.code, fake_die_info.site != NULL ? fake_die_info.site : "-");
	SG_CHECK(LIE, died || !every || g.n_reached == 0, "%zu objects are reached, none was marked, "
	    "and the check passed", g.n_reached);
	SG_CHECK(LIE, died || g.wrong == 0, "object %zu is reached and was not marked, and the check "
	    "passed", g.wrong - 1);
	fake_die_info = (struct die_info){ 0 };
}

/* ---- quarantine=mark ---- */

/* Frees a large object: how many bytes may be parked for it. */
static size_t
park(uint32_t imm)
{
	void *p = mallocgc(65536 + imm % 131072, API_MALLOC);

	if (p == NULL)
		return 0;
	const struct mspan *s = span_of((uintptr_t)p);
	size_t bytes = s != NULL && g.mark_mode ? mspan_bytes(s) : 0;
	freegc(p, API_FREE);
	return bytes;
}

static void
check_parked(const struct pinned_stats *before, const struct pinned_stats *after, size_t bytes)
{
	uint64_t left = after->released_bytes - before->released_bytes +
	    after->unmarked_bytes - before->unmarked_bytes;

	SG_CHECK(PASS, after->bytes + left == before->bytes + bytes,
	    "%zu bytes were parked and %zu more, %zu are, and %zu left", before->bytes, bytes,
	    after->bytes, (size_t)left);
	SG_CHECK(PASS, after->passes != before->passes ||
	    after->released_spans == before->released_spans, "%zu spans left without a pass",
	    (size_t)(after->released_spans - before->released_spans));
}

/* A pass of the quarantine's that fails keeps all, and the next one waits. */
static void
do_due(const struct sgf_op *op)
{
	static const enum obstacle in_the_way[4] = { NOTHING, NO_DESCRIPTOR, NO_MEMORY, NOTHING };
	enum obstacle what = in_the_way[op->b & 3];
	struct pinned_stats before, after, again;

	fake_sys_advance((uint64_t)RETRY_SECONDS * (op->a & 7) * 1000000000);
	pinned_read_stats(&before);
	size_t bytes = park(op->imm);
	put_in_the_way(what, op);
	sg_scrub_stack();
	mheap_release_unmarked(&mheap_);
	take_away(what);
	pinned_read_stats(&after);
	check_parked(&before, &after, bytes);
	if (after.failed == before.failed)
		return;
	mheap_release_unmarked(&mheap_);   /* too early */
	pinned_read_stats(&again);
	SG_CHECK(PASS, again.failed == after.failed && again.passes == after.passes,
	    "a pass right after one that failed");
}

/* ---- the run ---- */

static void
step(const struct sgf_op *op)
{
	enum op what = op_of[op->code];
	bool costly = what == PASS || what == FORGET || what == PARK || what == DUE;

	if (sg_heap_use(0) == NULL || (costly && ++g.passes > PASSES_MAX))
		return;
	if (costly)
		sg_scrub_stack();
	switch (what) {
	case NEW: do_new(op); break;
	case LINK: do_link(op); break;
	case ROOT: do_root(op); break;
	case FREE: do_free(op); break;
	case PASS: do_pass(op); break;
	case FORGET: do_forget(op); break;
	case RANGE: do_range(op); break;
	case UNRANGE: do_unrange(op); break;
	case PARK: park(op->imm); break;
	case DUE: do_due(op); break;
	}
}

static void
body(void *arg)
{
	const struct { const uint8_t *data; size_t bytes; } *in = arg;

	if (!other.was_stopped)        /* the first stop of a process takes a signal */
		check_now(&(struct mark_request){ .deadline_ns = PATIENT_NS });
	other.was_stopped = true;
	sg_each_op(in->data, in->bytes, &language, step, NULL);
	sg_heap_verify();
}

static int
run(const uint8_t *data, size_t bytes)
{
	struct { const uint8_t *data; size_t bytes; } in = { data, bytes };
	/* four pages, most of them padding: on the stack old words would stay there */
	static struct sg_heap_config config;
	struct sgf_header h;

	memset(&g, 0, sizeof(g));
	for (size_t i = 0; i < ROOTS; i++)
		roots_here[i] = NULL;
	start_other();
	memset(shared, 0, SHARED_BYTES);
	sgf_read_header(data, bytes, &h);
	h.geometry &= 16;
	sg_heap_config(&h, &config);
	config.sys.real_faults = true;     /* what was given back is no root */
	g.mark_mode = (h.knob[0] & 1) != 0 && h.mode < 128 && !config.options.guard_objects;
	if (g.mark_mode) {
		config.options.quarantine = OPT_QUARANTINE_MARK;
		config.options.mark_pass_spans = 2 + h.knob[1] % 4u;
		config.options.mark_report = (h.knob[0] & 4) != 0;
		config.options.mark_most_bytes = h.knob[0] & 2 ? 1 << 20 : (uint64_t)1 << 30;
	}
	sg_heap_start(&config);
	const struct die_info *d = sg_heap_try(body, &in);
	SG_CHECK(DEATH, d == NULL, "code %d at %s, address %#lx", (int)d->code,
	    d->site != NULL ? d->site : "-", (unsigned long)d->addr);
	return 0;
}

const struct sg_harness sg_h_pass = { "pass", &language, run };
