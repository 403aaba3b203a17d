/* test_mark.c - what a mark reaches and what it does not: one test for each place
 * where a pointer can stand. A pointer that must not count is kept inverted. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_die.h"
#include "heap_support.h"
#include "hidden.h"
#include "marena.h"
#include "sys.h"

#include "hardening/guardmode.h"
#include "hardening/hooks.h"
#include "hardening/mark.h"
#include "hardening/roots.h"
#include "hardening/sample.h"

enum { ELEM = 256, MIB = 1 << 20 };

static void *volatile global;
static _Thread_local void *volatile in_tls;

static int
setup(void **state)
{
	(void)state;
	heap_stop();
	heap_start(NULL);
	heap_cache();
	/* A heap at a multiple of 4 GiB: half a stale pointer above a small number
	 * makes a pointer to its first pages. Nothing of interest is to be there. */
	assert_non_null(mallocgc_noscan(16 * MIB, API_NOSCAN));
	global = NULL;
	in_tls = NULL;
	roots_way = ROOTS_WAY_SCAN;
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	heap_stop();
	return 0;
}

/* ---- helpers ---- */

struct search {
	uintptr_t hidden;
	bool unmarked;
};

static void
note_unmarked(const struct mark_object *o, void *arg)
{
	struct search *s = arg;

	s->unmarked |= o->base == ~s->hidden;
}

static NOINLINE bool
search(uintptr_t hidden)
{
	struct search s = { .hidden = hidden };
	struct mark_request req = { .on_unmarked = note_unmarked, .arg = &s, .check = true };
	struct mark_result r;

	assert_true(mark_run(&req, &r));
	assert_true(r.root_bytes > 0 && r.stopped_ns > 0);
	return s.unmarked;
}

/* search's frame lies where scrub's was. */
static NOINLINE bool
is_lost(uintptr_t hidden)
{
	scrub();
	bool lost = search(hidden);
	NO_TAIL_CALL();
	return lost;
}

static uintptr_t said_object;      /* inverted */

static void
say_reference(const struct mark_reference *r, void *arg)
{
	(void)arg;
	dprintf(2, "%#lx found at %#lx, place %d of thread %d, object %#lx\n",
	    (unsigned long)r->value, (unsigned long)r->at, (int)r->place, r->tid,
	    (unsigned long)r->object);
	said_object = ~r->object;
}

/* For an object that should be lost and is not: who has a pointer to it, and who
 * to that one. */
static NOINLINE void
say_who_has(uintptr_t hidden)
{
	static struct mark_watch w;
	struct mark_request req = { .watch = &w, .n_watch = 1, .on_reference = say_reference };
	struct mark_result r;

	for (int depth = 0; depth < 4 && ~hidden != 0; depth++) {
		w.base = ~hidden;
		w.end = w.base + ELEM;
		said_object = ~(uintptr_t)0;
		assert_true(mark_run(&req, &r));
		hidden = said_object;
	}
}

/* An instrumented frame may keep a pointer that the source has let go of: there,
 * only the pass itself is tested. */
static void
assert_lost_at(uintptr_t hidden, int line)
{
	if (is_lost(hidden) || FRAMES_KEEP_COPIES)
		return;
	say_who_has(hidden);
	fail_msg("line %d: something has a pointer to it; %s", line,
	    is_lost(hidden) ? "had" : "still");
}

#define assert_lost(hidden) assert_lost_at(hidden, __LINE__)

/* ---- one place each ---- */

static void
test_lost_when_nowhere(void **state)
{
	uintptr_t small = hidden_new(ELEM, false), large = hidden_new(MIB, false);
	uintptr_t tiny = hidden_new(5, true);

	(void)state;
	assert_lost(small);
	assert_lost(large);
	assert_lost(tiny);
}

static void
test_global(void **state)
{
	uintptr_t h = hidden_new(ELEM, false);

	(void)state;
	hidden_store(&global, h, 0);
	assert_false(is_lost(h));
	hidden_store(&global, 0, 0);
	assert_lost(h);
}

static void
test_interior(void **state)
{
	uintptr_t h = hidden_new(ELEM, false), large = hidden_new(8 * MIB, false);
	uintptr_t tiny = hidden_new(7, true);

	(void)state;
	hidden_store(&global, h, 1);
	assert_false(is_lost(h));
	hidden_store(&global, h, ELEM - 1);
	assert_false(is_lost(h));
	hidden_store(&global, h, ELEM);
	assert_lost(h);
	hidden_store(&global, large, 5 * MIB + 12345);
	assert_false(is_lost(large));
	hidden_store(&global, large, 8 * MIB - 1);
	assert_false(is_lost(large));
	hidden_store(&global, tiny, 6);
	assert_false(is_lost(tiny));
	assert_lost(large);
}

/* The slot of the last byte of the largest classes cannot be had by multiplication alone. */
static void
test_last_byte(void **state)
{
	enum { SLOTS = 24, BYTES = 30720, TAIL = 16 };     /* of a slot; a canary fits in */
	uintptr_t h[SLOTS];

	(void)state;
	for (int i = 0; i < SLOTS; i++)
		h[i] = hidden_new(BYTES - TAIL, false);
	for (int i = 0; i < SLOTS; i++) {
		hidden_store(&global, h[i], BYTES - 1);
		assert_false(is_lost(h[i]));
	}
	hidden_store(&global, 0, 0);
}

static void
test_tls(void **state)
{
	uintptr_t h = hidden_new(ELEM, false);

	(void)state;
	hidden_store(&in_tls, h, 8);
	assert_false(is_lost(h));
	hidden_store(&in_tls, 0, 0);
	assert_lost(h);
}

static void
test_stack(void **state)
{
	uintptr_t h = hidden_new(ELEM, false);
	void *volatile here[1];

	(void)state;
	hidden_store(&here[0], h, 16);
	assert_false(is_lost(h));
	hidden_store(&here[0], 0, 0);
	assert_lost(h);
}

static void
test_misaligned_word_does_not_count(void **state)
{
	static char packed[24];
	uintptr_t h = hidden_new(ELEM, false), p;

	(void)state;
	p = ~h;
	memcpy(packed + 3, &p, sizeof(p));
	p = 0;
	__asm__ volatile("" : : "r"(&p) : "memory");
	assert_lost(h);
	memset(packed, 0, sizeof(packed));
}

static void
test_heap_and_noscan(void **state)
{
	uintptr_t h = hidden_new(ELEM, false), via = hidden_new(ELEM, false);
	uintptr_t large = hidden_new(MIB, false), dumb = hidden_new(ELEM, true);

	(void)state;
	hidden_link(via, 31, h, 8);
	assert_lost(h);
	hidden_store(&global, via, 0);
	assert_false(is_lost(h));
	hidden_link(via, 31, 0, 0);
	hidden_link(large, MIB / 8 - 1, h, 0);
	hidden_store(&global, large, 0);
	assert_false(is_lost(h));
	hidden_link(large, MIB / 8 - 1, 0, 0);
	hidden_link(dumb, 0, h, 0);
	hidden_store(&global, dumb, 0);
	assert_lost(h);
	assert_false(is_lost(dumb));
}

static void
test_freed_is_not_counted(void **state)
{
	uintptr_t h = hidden_new(ELEM, false), via = hidden_new(ELEM, false);

	(void)state;
	hidden_link(via, 0, h, 0);
	hidden_store(&global, via, 0);
	assert_false(is_lost(h));
	hidden_free(via);
	assert_lost(h);
	assert_false(is_lost(via));
}

static void
test_cycles(void **state)
{
	uintptr_t a = hidden_new(ELEM, false), b = hidden_new(48, false);
	uintptr_t self = hidden_new(MIB, false);

	(void)state;
	hidden_link(a, 0, b, 0);
	hidden_link(b, 0, a, 0);
	hidden_link(self, 7, self, 64);
	assert_lost(a);
	assert_lost(b);
	assert_lost(self);
	hidden_store(&global, b, 0);
	hidden_link(b, 1, self, 100);
	assert_false(is_lost(a));
	assert_false(is_lost(b));
	assert_false(is_lost(self));
}

static void
test_user_root(void **state)
{
	uintptr_t h = hidden_new(ELEM, false);
	void *volatile *shared = mmap(NULL, 65536, PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	(void)state;
	assert_true(shared != MAP_FAILED);
	hidden_store(&shared[776], h, 0);
	assert_lost(h);
	assert_int_equal(hook_root_add((void *)shared, 65536), 0);
	assert_false(is_lost(h));
	assert_int_equal(hook_root_remove((void *)shared, 4096), ENOENT);
	assert_int_equal(hook_root_remove((void *)shared, 65536), 0);
	assert_lost(h);
	for (size_t i = 0; i < 1000; i++)
		assert_int_equal(hook_root_add((char *)shared + 64 * i, 8), 0);
	assert_false(is_lost(h));
	for (size_t i = 0; i < 1000; i++)
		assert_int_equal(hook_root_remove((char *)shared + 64 * i, 8), 0);
	assert_lost(h);
	munmap((void *)shared, 65536);
}

static void
test_mapping(void **state)
{
	uintptr_t h = hidden_new(ELEM, false);
	void *volatile *m = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
	    -1, 0);

	(void)state;
	assert_true(m != MAP_FAILED);
	for (int way = ROOTS_WAY_SCAN; way <= ROOTS_WAY_PEEK; way++) {
		roots_way = (enum roots_way)way;
		hidden_store(&m[MIB / 16 + 3], h, 0);
		assert_false(is_lost(h));
		hidden_store(&m[MIB / 16 + 3], 0, 0);
		assert_lost(h);
	}
	munmap((void *)m, MIB);
}

/* A reservation that nobody wrote to is not faulted in; a hole in it is no matter. */
static void
test_untouched_memory_stays_so(void **state)
{
	size_t bytes = (size_t)1 << 30, page = sys_page_bytes();
	unsigned char vec[64];
	char *m = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uintptr_t h = hidden_new(ELEM, false);

	(void)state;
	assert_true(m != MAP_FAILED);
	m[40 * page] = 1;
	sys_fault(m + 10 * page, page);
	hidden_store((void *volatile *)(void *)(m + 50 * page), h, 0);
	for (int way = ROOTS_WAY_SCAN; way <= ROOTS_WAY_PAGEMAP; way++) {
		roots_way = (enum roots_way)way;
		assert_false(is_lost(h));
		assert_int_equal(mincore(m, sizeof(vec) * page, vec), 0);
		assert_int_equal(vec[0] & 1, 0);
		assert_int_equal(vec[50] & 1, 1);
		assert_int_equal(vec[60] & 1, 0);
	}
	munmap(m, bytes);
}

/* ---- threads ---- */

static uintptr_t result;               /* hidden */

static void *
leave_pointers(void *arg)
{
	void *volatile here[4];

	hidden_store(&in_tls, (uintptr_t)arg, 0);
	hidden_store(&here[2], (uintptr_t)arg, 8);
	return result != 0 && here[2] != NULL ? (void *)~result : NULL;
}

/* Its stack and TLS are kept by libc for the next thread, and are dead. */
static void
test_ended_thread(void **state)
{
	uintptr_t h = hidden_new(ELEM, false);
	pthread_t t;

	(void)state;
	result = hidden_new(ELEM, false);
	assert_int_equal(pthread_create(&t, NULL, leave_pointers, (void *)h), 0);
	usleep(50000);
	assert_lost(h);
	assert_false(is_lost(result));         /* somebody may join yet */
	pthread_join(t, NULL);
	result = 0;
	assert_lost(h);
}


enum { IN_STACK, IN_TLS, IN_REGISTER, IN_VECTOR };

struct other {
	pthread_t thread;
	int in[2], out[2];
	uintptr_t hidden;
	int where;
	atomic_u32 spinning, stop;
};

static NOINLINE void
spin_with_register(struct other *o)
{
	uintptr_t p = ~o->hidden;

	a32_store_release(&o->spinning, 1);
	while (a32_load_acquire(&o->stop) == 0)
		__asm__ volatile("" : "+r"(p));
}

#if defined(__x86_64__)
#define VECTOR_KEEPS(v) __asm__ volatile("" : "+x"(v))
#else
#define VECTOR_KEEPS(v) __asm__ volatile("" : "+w"(v))
#endif

typedef uint64_t __attribute__((vector_size(16))) vector_t;

static NOINLINE void
spin_with_vector(struct other *o)
{
	vector_t v = { 1, ~o->hidden };

	a32_store_release(&o->spinning, 1);
	while (a32_load_acquire(&o->stop) == 0)
		VECTOR_KEEPS(v);
}

static void *
other_main(void *arg)
{
	struct other *o = arg;
	void *volatile here[1] = { NULL };
	char c;

	if (o->where == IN_STACK)
		hidden_store(&here[0], o->hidden, 3);
	if (o->where == IN_TLS)
		hidden_store(&in_tls, o->hidden, 3);
	assert_int_equal(write(o->out[1], "r", 1), 1);
	if (o->where == IN_REGISTER)
		spin_with_register(o);
	else if (o->where == IN_VECTOR)
		spin_with_vector(o);
	while (read(o->in[0], &c, 1) < 0 && errno == EINTR)
		;
	return NULL;
}

static void
other_start(struct other *o)
{
	char c;

	assert_int_equal(pipe(o->in) | pipe(o->out), 0);
	a32_store_release(&o->stop, 0);
	a32_store_release(&o->spinning, 0);
	assert_int_equal(pthread_create(&o->thread, NULL, other_main, o), 0);
	assert_int_equal(read(o->out[0], &c, 1), 1);
	while (o->where >= IN_REGISTER && a32_load_acquire(&o->spinning) == 0)
		cpu_relax();
}

static void
other_end(struct other *o)
{
	a32_store_release(&o->stop, 1);
	assert_int_equal(write(o->in[1], "x", 1), 1);
	pthread_join(o->thread, NULL);
	for (int i = 0; i < 2; i++) {
		close(o->in[i]);
		close(o->out[i]);
	}
}

static void
test_other_thread(void **state)
{
	static struct other o;

	(void)state;
	for (int where = IN_STACK; where <= IN_VECTOR; where++) {
		o.where = where;
		o.hidden = hidden_new(ELEM, false);
		other_start(&o);
		if (is_lost(o.hidden))
			fail_msg("lost although thread has it in place %d", where);
		other_end(&o);
		o.hidden = hidden_new(ELEM, false);
	}
}

static void *
block_all(void *arg)
{
	struct other *o = arg;
	sigset_t all;
	char c;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	pthread_setname_np(pthread_self(), "deaf");
	a32_store_release(&o->spinning, (uint32_t)sys_gettid());
	assert_int_equal(read(o->in[0], &c, 1), 1);
	return NULL;
}

static void
test_deaf_thread_is_named(void **state)
{
	static struct other o;
	struct stw_failure why;
	struct mark_result r;
	struct mark_request req = { .deadline_ns = 30000000 };

	(void)state;
	assert_int_equal(pipe(o.in), 0);
	a32_store_release(&o.spinning, 0);
	assert_int_equal(pthread_create(&o.thread, NULL, block_all, &o), 0);
	while (a32_load_acquire(&o.spinning) == 0)
		cpu_relax();
	int tid = (int)a32_load_acquire(&o.spinning);
	assert_int_equal(stw_stop(30000000, &why), STW_LATE);
	assert_int_equal(why.tid, tid);
	assert_string_equal(why.name, "deaf");
	assert_true(why.blocks);
	assert_int_equal(why.signal, stw_signal());
	assert_false(mark_run(&req, &r));
	assert_int_equal(r.marked_objects, 0);
	stw_exempt(tid);
	assert_true(mark_run(&req, &r));
	assert_int_equal(write(o.in[1], "x", 1), 1);
	pthread_join(o.thread, NULL);
	stw_after_fork_child();
	assert_true(mark_run(&req, &r));
	close(o.in[0]);
	close(o.in[1]);
	heap_assert_sound();
}

/* ---- eight threads at work ---- */

enum { WORKERS = 8, NODES = 64, PASSES = 12 };

struct node {
	struct node *next;
	uint64_t number;
};

static atomic_u32 workers_stop, workers_ready;

static void
node_walk(const struct node *n, uint64_t seed)
{
	for (uint64_t i = 0; n != NULL; n = n->next, i++)
		assert_int_equal(n->number, seed + i);
}

static void *
worker_main(void *arg)
{
	uint64_t seed = (uintptr_t)arg * 1000000;

	a32_fetch_add(&workers_ready, 1);
	while (a32_load_acquire(&workers_stop) == 0) {
		struct node *head = NULL;
		for (uint64_t i = NODES; i-- > 0;) {
			struct node *n = mallocgc(sizeof(*n) + (i * 37 + seed) % 900, API_MALLOC);
			n->number = seed + i;
			n->next = head;
			head = n;
		}
		void *big = mallocgc(100000, API_MALLOC);
		node_walk(head, seed);
		freegc(big, API_FREE);
		while (head != NULL) {
			struct node *n = head;
			head = n->next;
			freegc(n, API_FREE);
		}
	}
	return NULL;
}

/* The second pass must agree every time, wherever the threads are caught. */
static void
test_eight_threads(void **state)
{
	pthread_t t[WORKERS];
	struct mark_result r;
	struct mark_request req = { .check = true };

	(void)state;
	a32_store_release(&workers_stop, 0);
	a32_store_release(&workers_ready, 0);
	for (uintptr_t i = 0; i < WORKERS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, worker_main, (void *)(i + 1)), 0);
	while (a32_load_acquire(&workers_ready) != WORKERS)
		cpu_relax();
	for (int i = 0; i < PASSES; i++) {
		assert_true(mark_run(&req, &r));
		assert_int_equal(r.threads, WORKERS);
	}
	a32_store_release(&workers_stop, 1);
	for (int i = 0; i < WORKERS; i++)
		pthread_join(t[i], NULL);
	heap_assert_sound();
}

static void *
nothing(void *arg)
{
	return arg;
}

static void *
spawn_main(void *arg)
{
	pthread_t t;

	while (a32_load_acquire(&workers_stop) == 0) {
		assert_int_equal(pthread_create(&t, NULL, nothing, arg), 0);
		pthread_join(t, NULL);
	}
	return NULL;
}

static void
test_threads_that_come_and_go(void **state)
{
	pthread_t t[3];
	struct mark_result r;
	struct mark_request req = { .check = true };

	(void)state;
	a32_store_release(&workers_stop, 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&t[i], NULL, spawn_main, NULL), 0);
	for (int i = 0; i < PASSES; i++)
		assert_true(mark_run(&req, &r));
	a32_store_release(&workers_stop, 1);
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
}

static void
test_in_a_forked_child(void **state)
{
	uintptr_t h = hidden_new(ELEM, false);
	int status;

	(void)state;
	hidden_store(&global, h, 0);
	assert_false(is_lost(h));
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(is_lost(h) ? 1 : 42);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 42);
}

/* The program takes the signal over: another one is found. */
static void
test_signal_taken_over(void **state)
{
	struct mark_result r;
	struct mark_request req = { 0 };

	(void)state;
	assert_true(mark_run(&req, &r));
	int sig = stw_signal();
	assert_true(sig >= SIGRTMIN && sig <= SIGRTMAX);
	signal(sig, SIG_IGN);
	assert_true(mark_run(&req, &r));
	assert_int_not_equal(stw_signal(), sig);
	signal(sig, SIG_DFL);
}

/* ---- the worklist ---- */

/* A tree with a fan-out of 200: 1 + 200 + 200 * 20 objects. */
static NOINLINE size_t
plant_tree(void)
{
	void ***root = mallocgc(200 * sizeof(void *), API_MALLOC);
	size_t n = 1;

	for (int i = 0; i < 200; i++) {
		root[i] = mallocgc(20 * sizeof(void *), API_MALLOC);
		n++;
		for (int j = 0; j < 20; j++, n++)
			memset(root[i][j] = mallocgc(64, API_MALLOC), 0, 64);
	}
	global = root;
	return n;
}

static void
test_worklist_runs_over(void **state)
{
	struct mark_result all, few;
	struct mark_request req = { .check = true };
	size_t n = plant_tree();

	(void)state;
	scrub();
	assert_true(mark_run(&req, &all));
	assert_true(all.marked_objects >= n && all.rescans == 0);
	req.stack_objects = 3;
	assert_true(mark_run(&req, &few));
	assert_true(few.rescans > 0);
	assert_int_equal(few.marked_objects, all.marked_objects);
	assert_int_equal(few.marked_bytes, all.marked_bytes);
}

/* ---- watched ranges ---- */

struct seen {
	size_t n;
	struct mark_reference last;
};

static void
note_reference(const struct mark_reference *r, void *arg)
{
	struct seen *s = arg;

	s->n++;
	s->last = *r;
	s->last.value = ~r->value;
}

static NOINLINE void
watch_freed_span(struct mark_watch *w)
{
	void *p = mallocgc(MIB, API_MALLOC);

	w->base = (uintptr_t)p;
	w->end = w->base + MIB;
	freegc(p, API_FREE);
}

static void
test_watch(void **state)
{
	static struct mark_watch w;
	static struct seen s;
	struct mark_request req = { .watch = &w, .n_watch = 1, .on_reference = note_reference,
		.arg = &s };
	struct mark_result r;
	uintptr_t holder = hidden_new(ELEM, false);

	(void)state;
	mallocgc(2 * MIB, API_MALLOC);
	watch_freed_span(&w);
	scrub();
	assert_true(mark_run(&req, &r));
	assert_int_equal(w.references, 0);
	global = (void *)(w.base + 100);
	memset(&s, 0, sizeof(s));
	assert_true(mark_run(&req, &r));
	assert_int_equal(w.references, 1);
	assert_int_equal(s.n, 1);
	assert_int_equal(s.last.place, MARK_IN_DATA);
	assert_int_equal(s.last.at, (uintptr_t)&global);
	assert_true(~s.last.value == w.base + 100);
	global = (void *)w.end;
	assert_true(mark_run(&req, &r));
	assert_int_equal(w.references, 0);
	hidden_link(holder, 3, ~w.base, 0);
	memset(&s, 0, sizeof(s));
	hidden_store(&global, holder, 0);
	scrub();
	assert_true(mark_run(&req, &r));
	assert_int_equal(w.references, 1);
	assert_int_equal(w.from_unreached, 0);
	assert_int_equal(s.last.place, MARK_IN_OBJECT);
	assert_true(is_hidden(s.last.object, holder, 0) && is_hidden(s.last.at, holder, 24));
	memset(&s, 0, sizeof(s));
	global = NULL;
	scrub();
	assert_true(mark_run(&req, &r));
	assert_int_equal(w.references, 1);
	assert_int_equal(w.from_unreached, 1);
	assert_true(s.last.unreached);
}

/* ---- sampled objects ---- */

static void
check_dies(void *arg)
{
	(void)arg;
	mark_check();
}

static NOINLINE uintptr_t
hidden_sample(size_t bytes, bool noscan)
{
	void *p = sample_maybe_alloc(bytes, 16, noscan, true);

	assert_non_null(p);
	return ~(uintptr_t)p;
}

static void
test_sampled_objects(void **state)
{
	struct mark_request few_slots = { .check = true, .stack_objects = 1 };
	struct mark_result r;
	uintptr_t h = hidden_new(ELEM, false);

	(void)state;
	sample_start(&(struct sample_config){ .one_in = 1, .window_bytes = 1 << 17, .seed = 1 });
	uintptr_t a = hidden_sample(100, false), b = hidden_sample(5000, false);
	uintptr_t dumb = hidden_sample(64, true);
	assert_lost(a);
	hidden_store(&global, a, 99);
	assert_false(is_lost(a));
	hidden_store(&global, a, 100);
	assert_lost(a);
	hidden_link(b, 600, h, 3);             /* heap <- sampled <- sampled <- root */
	hidden_link(a, 11, b, 4999);
	hidden_store(&global, a, 0);
	assert_false(is_lost(b));
	assert_false(is_lost(h));
	assert_true(mark_run(&few_slots, &r));
	hidden_link(h, 5, dumb, 0);
	hidden_link(dumb, 0, a, 0);
	assert_false(is_lost(dumb));
	hidden_store(&global, dumb, 0);        /* it promised to hold none */
	assert_lost(a);
	assert_lost(h);
	hidden_link(h, 6, h, 0);
	mark_fault = 1;
	few_slots.check = true;
	hidden_store(&global, a, 0);
	assert_true(fake_die_caught(check_dies, NULL));
	assert_string_equal(fake_die_info.site, "CHECKMARK-1");
	mark_fault = 0;
	sample_start(&(struct sample_config){ 0 });
}

/* ---- guarded objects ---- */

static NOINLINE uintptr_t
hidden_guarded(size_t bytes, bool noscan)
{
	void *p = guardmode_alloc(bytes, 16, noscan, API_MALLOC);

	assert_non_null(p);
	return ~(uintptr_t)p;
}

static NOINLINE void
hidden_guarded_free(uintptr_t h)
{
	assert_int_equal(guardmode_free((void *)~h, API_FREE), OUTSIDE_OK);
}

/* The words of an object at an odd address are counted from its first byte. */
static NOINLINE void
hidden_link_odd(uintptr_t in, size_t i, uintptr_t to)
{
	uintptr_t p = to != 0 ? ~to : 0;
	memcpy((char *)~in + i * sizeof(p), &p, sizeof(p));
}

static void
test_guarded_objects(void **state)
{
	static const size_t aligns[] = { 16, 1 };
	struct mark_request few_slots = { .check = true, .stack_objects = 1 };
	struct mark_result r;

	(void)state;
	for (size_t k = 0; k < ARRAY_LEN(aligns); k++) {
		guardmode_init(&(struct guardmode_config){ .on = true, .align = aligns[k],
		    .quarantine_bytes = MIB, .seed = 1 });
		uintptr_t h = hidden_new(ELEM, false);
		uintptr_t a = hidden_guarded(101, false), b = hidden_guarded(5000, false);
		uintptr_t large = hidden_guarded(3 * MIB, false), dumb = hidden_guarded(64, true);
		assert_lost(a);
		hidden_store(&global, a, 100);
		assert_false(is_lost(a));
		hidden_store(&global, a, 101);     /* its end is exact */
		assert_lost(a);
		hidden_link_odd(large, 3 * MIB / 8 - 1, h);
		hidden_link_odd(b, 0, large);
		hidden_link_odd(a, 11, b);         /* 88 to 96 of 101 bytes */
		hidden_store(&global, a, 0);
		assert_false(is_lost(b));
		assert_false(is_lost(large));
		assert_false(is_lost(h));
		assert_true(mark_run(&few_slots, &r));
		assert_lost(dumb);
		hidden_link(h, 5, dumb, 63);
		assert_false(is_lost(dumb));
		hidden_link(dumb, 0, b, 0);
		hidden_link_odd(a, 11, 0);         /* dumb promised to hold none */
		assert_lost(b);
		hidden_store(&global, b, 0);
		assert_false(is_lost(b));
		hidden_guarded_free(b);
		assert_lost(large);
		assert_false(is_lost(b));          /* freed, so not lost */
		hidden_store(&global, a, 0);
		mark_fault = 1;
		assert_true(fake_die_caught(check_dies, NULL));
		assert_string_equal(fake_die_info.site, "CHECKMARK-1");
		mark_fault = 0;
		heap_unlock_all();
		guardmode_init(&(struct guardmode_config){ .on = false });
		hidden_store(&global, 0, 0);
	}
}

/* ---- how long it takes ---- */

/* A tree of 64-byte nodes: MARK_MIB of them (16 by default), time printed. */
static NOINLINE void
grow_tree(size_t nodes)
{
	struct tree { struct tree *kid[4]; uint64_t pad[4]; } **all;

	all = mmap(NULL, nodes * sizeof(*all), PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(all != MAP_FAILED);
	for (size_t i = 0; i < nodes; i++) {
		all[i] = mallocgc(sizeof(struct tree), API_MALLOC);
		memset(all[i], 0, sizeof(struct tree));
		if (i != 0)
			all[(i - 1) / 4]->kid[(i - 1) % 4] = all[i];
	}
	global = all[0];
	munmap(all, nodes * sizeof(*all));
}

static void
test_time_of_a_tree(void **state)
{
	const char *mib = getenv("MARK_MIB");
	size_t nodes = (mib != NULL ? strtoul(mib, NULL, 10) : 16) * (MIB / 64);
	struct heap_setup random = { .randomize = true };
	struct mark_result r;
	struct mark_request req = { 0 };

	(void)state;
	heap_stop();
	heap_start(&random);
	heap_cache();
	grow_tree(nodes);
	scrub();
	for (int i = 0; i < 2; i++) {
		assert_true(mark_run(&req, &r));
		assert_true(r.marked_objects >= nodes);
		print_message("marked %zu objects, %zu MiB, in %.1f ms with the world stopped\n",
		    r.marked_objects, r.marked_bytes >> 20, (double)r.stopped_ns / 1e6);
	}
	req.check = true;
	assert_true(mark_run(&req, &r));
	assert_true(r.checked_objects >= nodes);
	print_message("with the second pass: %.1f ms\n", (double)r.stopped_ns / 1e6);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_lost_when_nowhere, setup, teardown),
		cmocka_unit_test_setup_teardown(test_global, setup, teardown),
		cmocka_unit_test_setup_teardown(test_interior, setup, teardown),
		cmocka_unit_test_setup_teardown(test_last_byte, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tls, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stack, setup, teardown),
		cmocka_unit_test_setup_teardown(test_misaligned_word_does_not_count, setup, teardown),
		cmocka_unit_test_setup_teardown(test_heap_and_noscan, setup, teardown),
		cmocka_unit_test_setup_teardown(test_freed_is_not_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cycles, setup, teardown),
		cmocka_unit_test_setup_teardown(test_user_root, setup, teardown),
		cmocka_unit_test_setup_teardown(test_mapping, setup, teardown),
		cmocka_unit_test_setup_teardown(test_untouched_memory_stays_so, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ended_thread, setup, teardown),
		cmocka_unit_test_setup_teardown(test_other_thread, setup, teardown),
		cmocka_unit_test_setup_teardown(test_deaf_thread_is_named, setup, teardown),
		cmocka_unit_test_setup_teardown(test_eight_threads, setup, teardown),
		cmocka_unit_test_setup_teardown(test_threads_that_come_and_go, setup, teardown),
		cmocka_unit_test_setup_teardown(test_in_a_forked_child, setup, teardown),
		cmocka_unit_test_setup_teardown(test_signal_taken_over, setup, teardown),
		cmocka_unit_test_setup_teardown(test_worklist_runs_over, setup, teardown),
		cmocka_unit_test_setup_teardown(test_watch, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sampled_objects, setup, teardown),
		cmocka_unit_test_setup_teardown(test_guarded_objects, setup, teardown),
		cmocka_unit_test_setup_teardown(test_time_of_a_tree, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
