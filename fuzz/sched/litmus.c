/* litmus.c - see litmus.h. */
#define _GNU_SOURCE
#include "litmus.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "boot.h"
#include "fake_sys.h"
#include "malloc.h"
#include "marena.h"
#include "mspanset.h"
#include "mstats.h"
#include "proc.h"
#include "snapshot.h"
#include "tls.h"
#include "verify.h"
#include "../../hardening/canary.h"
#include "../../hardening/debug.h"
#include "../../hardening/hooks.h"
#include "../../hardening/quarantine.h"
#include "../../hardening/redzone.h"
#include "../../hardening/sidetable.h"
#include "../../hardening/zero.h"

struct object {
	uintptr_t p;             /* 0: free entry */
	size_t bytes;
	uint64_t key;
};

static struct state {
	struct object object[LITMUS_OBJECTS];
	uintptr_t address[LITMUS_NAMES];
	atomic_u32 made[LITMUS_NAMES];
	bool mark[LITMUS_NAMES];
	uint64_t keys;
	unsigned in_call;        /* threads between a call and its entry in object[] */
	unsigned lost;           /* threads that fork left behind in a call */
} now, start;

/* ---- what proc.c registers with libc ----
 * fuzz/sched/sched.mk renames the three functions in the tiers' object. */

int tiers_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));
int tiers_key_create(pthread_key_t *key, void (*destructor)(void *));
int tiers_setspecific(pthread_key_t key, const void *value);

static struct {
	void (*prepare)(void), (*parent)(void), (*child)(void);
	void (*thread_exit)(void *);
} hooks;

int
tiers_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
	hooks.prepare = prepare;
	hooks.parent = parent;
	hooks.child = child;
	return 0;
}

int
tiers_key_create(pthread_key_t *key, void (*destructor)(void *))
{
	hooks.thread_exit = destructor;
	*key = 0;
	return 0;
}

int
tiers_setspecific(pthread_key_t key, const void *value)
{
	(void)key;
	(void)value;
	return 0;
}

int
sys_gettid(void)
{
	return 1 + (int)sched_self();
}

/* A call into the system shows, and is a point, as an atomic is. */
static atomic_u32 system_calls;

void point_sys_unused(void *p, size_t bytes);
bool point_sys_used(void *p, size_t bytes);
bool point_sys_move(void *to, void *from, size_t bytes);
bool point_sys_fault(void *p, size_t bytes);
bool point_sys_unfault(void *p, size_t bytes);

void
point_sys_unused(void *p, size_t bytes)
{
	sched_point(&system_calls, SCHED_WRITE);
	sys_unused(p, bytes);
}

bool
point_sys_used(void *p, size_t bytes)
{
	sched_point(&system_calls, SCHED_WRITE);
	return sys_used(p, bytes);
}

bool
point_sys_move(void *to, void *from, size_t bytes)
{
	sched_point(&system_calls, SCHED_WRITE);
	return sys_move(to, from, bytes);
}

bool
point_sys_fault(void *p, size_t bytes)
{
	sched_point(&system_calls, SCHED_WRITE);
	return sys_fault(p, bytes);
}

bool
point_sys_unfault(void *p, size_t bytes)
{
	sched_point(&system_calls, SCHED_WRITE);
	return sys_unfault(p, bytes);
}

/* ---- objects ---- */

/* The program's own accesses, of its two ends. */
static void
mark_ends(const struct object *o, bool write)
{
	if (!sched_is_plain)
		return;
	sched_plain(o->p, o->bytes < 8 ? o->bytes : 8, write, (uintptr_t)__builtin_return_address(0));
	if (o->bytes >= 16)
		sched_plain(o->p + o->bytes - 8, 8, write, (uintptr_t)__builtin_return_address(0));
}

static void
key_write(const struct object *o)
{
	uint64_t k = o->key;

	mark_ends(o, true);
	memcpy((void *)o->p, &k, o->bytes < 8 ? o->bytes : 8);
	if (o->bytes >= 16)
		memcpy((char *)o->p + o->bytes - 8, &k, 8);
}

static void
key_check(const struct object *o, const char *when)
{
	uint64_t k = o->key;

	mark_ends(o, false);
	if (memcmp((void *)o->p, &k, o->bytes < 8 ? o->bytes : 8) != 0 || (o->bytes >= 16 &&
	    memcmp((char *)o->p + o->bytes - 8, &k, 8) != 0))
		sched_fail("object of %zu bytes at %#lx has been written to, seen %s", o->bytes,
		    (unsigned long)o->p, when);
}

static struct object *
object_at(uintptr_t p)
{
	for (unsigned i = 0; i < LITMUS_OBJECTS; i++)
		if (now.object[i].p == p)
			return &now.object[i];
	return NULL;
}

static void
object_add(unsigned name, void *p, size_t bytes, size_t align)
{
	uintptr_t at = (uintptr_t)p;

	if (p == NULL)
		sched_fail("malloc(%zu) gave NULL", bytes);
	if ((at & (align - 1)) != 0)
		sched_fail("malloc(%zu) gave %p, not a multiple of %zu", bytes, p, align);
	for (unsigned i = 0; i < LITMUS_OBJECTS; i++) {
		const struct object *o = &now.object[i];
		if (o->p != 0 && at < o->p + o->bytes && o->p < at + bytes)
			sched_fail("malloc(%zu) gave %p, where the object of %zu bytes at %#lx lives",
			    bytes, p, o->bytes, (unsigned long)o->p);
	}
	/* written first: a fork may come in between */
	const struct object made = { at, bytes, ++now.keys * 0x9e3779b97f4a7c15u };
	key_write(&made);
	struct object *o = object_at(0);
	if (o == NULL)
		sched_fail("more objects than the litmus has room for");
	*o = made;
	now.address[name] = at;
	a32_store_release(&now.made[name], 1);
	sys_futex_wake(&now.made[name].v, SCHED_THREADS);
}

static void
object_take(unsigned name)
{
	struct object *o = object_at(now.address[name]);

	if (o == NULL || now.address[name] == 0)
		sched_fail("the litmus frees object %u, which is not there", name);
	key_check(o, "by free");
	o->p = 0;
	a32_store_relaxed(&now.made[name], 0);
}

void
litmus_alloc(unsigned name, size_t bytes)
{
	now.in_call++;
	void *p = mallocgc(bytes, API_MALLOC);
	object_add(name, p, bytes, MALLOC_ALIGN);
	now.in_call--;
}

void
litmus_alloc_noscan(unsigned name, size_t bytes)
{
	now.in_call++;
	void *p = mallocgc_noscan(bytes, API_NOSCAN);
	object_add(name, p, bytes, bytes >= MALLOC_ALIGN ? MALLOC_ALIGN : 4);
	now.in_call--;
}

void
litmus_aligned(unsigned name, size_t bytes, size_t align)
{
	now.in_call++;
	void *p = mallocgc_aligned(align, bytes, API_ALIGNED_ALLOC);
	object_add(name, p, bytes, align);
	now.in_call--;
}

void
litmus_free(unsigned name)
{
	now.in_call++;
	object_take(name);
	freegc((void *)now.address[name], API_FREE);
	now.in_call--;
}

void
litmus_free_again(unsigned name)
{
	now.in_call++;
	freegc((void *)now.address[name], API_FREE);
	now.in_call--;
}

void
litmus_realloc(unsigned name, size_t bytes)
{
	struct object *o = object_at(now.address[name]);
	uint64_t key = o->key;
	size_t kept = o->bytes < bytes ? o->bytes : bytes;

	now.in_call++;
	key_check(o, "by realloc");
	o->p = 0;
	void *q = reallocgc((void *)now.address[name], bytes, API_REALLOC);
	if (q != NULL && memcmp(q, &key, kept < 8 ? kept : 8) != 0)
		sched_fail("realloc to %zu bytes lost what stood in the object", bytes);
	object_add(name, q, bytes, MALLOC_ALIGN);
	now.in_call--;
}

void
litmus_await(unsigned name)
{
	while (a32_load_acquire(&now.made[name]) == 0)
		sys_futex_wait(&now.made[name].v, 0);
}

void *
litmus_address(unsigned name)
{
	return (void *)now.address[name];
}

bool
litmus_there(unsigned name)
{
	return now.address[name] != 0 && object_at(now.address[name]) != NULL;
}

/* ---- other calls ---- */

void
litmus_as(unsigned thread)
{
	sched_be(thread);
	if (mcache_self() == NULL && !thread_state.gone && mcache_attach() == NULL)
		sched_fail("no cache");
}

void
litmus_exit(void)
{
	now.in_call++;
	for (struct mcache *c; (c = mcache_self()) != NULL;)
		hooks.thread_exit(c);
	now.in_call--;
}

void
litmus_reborn(void)
{
	thread_state = (struct thread_state){ 0 };
}

void
litmus_trim(void)
{
	now.in_call++;
	malloc_trim_all();
	now.in_call--;
}

static void
verify(bool quiet)
{
	struct verify_failure f[VERIFY_MAX_FAILURES];

	proc_world_lock();
	size_t n = verify_heap(&mheap_, mcache_self(), quiet, f);
	proc_world_unlock();
	if (n != 0)
		sched_fail("verify%s: %s at %#lx and %zu more", quiet ? "" : " in between",
		    f[0].tag, (unsigned long)f[0].where, n - 1);
}

void
litmus_verify(void)
{
	now.in_call++;
	verify(false);
	now.in_call--;
}

void
litmus_stats(void)
{
	struct spanguard_stats s;

	now.in_call++;
	proc_world_lock();
	mstats_read(&mheap_, &s);
	proc_world_unlock();
	now.in_call--;
}

bool
litmus_fork(bool child)
{
	now.in_call++;
	hooks.prepare();
	if (child) {
		now.lost += now.in_call - 1;
		now.in_call = 1;
		sched_kill_others();
		hooks.child();
	} else {
		hooks.parent();
	}
	now.in_call--;
	return child;
}

void
litmus_mark(unsigned mark)
{
	now.mark[mark] = true;
}

bool
litmus_marked(unsigned mark)
{
	return now.mark[mark];
}

/* ---- the end ---- */

struct recount {
	size_t live, known, strange;
	uintptr_t example;
};

static void
recount_span(struct mspan *s, void *arg)
{
	struct recount *r = arg;

	if (a32_load_acquire(&s->state) != SPAN_IN_USE)
		return;
	for (size_t i = 0; i < s->nelems; i++) {
		if (!mspan_slot_live(s, i))
			continue;
		r->live++;
		uintptr_t at = s->base + i * s->elem_bytes;
		const struct object *o = object_at(at);
		if (o != NULL) {
			r->known++;
			if (!mspan_is_tiny(s) && s->elem_bytes < o->bytes)
				sched_fail("the slot at %#lx has %zu bytes, the object %zu",
				    (unsigned long)at, s->elem_bytes, o->bytes);
		} else {
			r->strange++;
			r->example = at;
		}
	}
	/* the owner looks at a span in time: frees of others only make it earlier */
	if (mspan_is_tiny(s) || mspan_is_large(s))
		return;
	if (s->list == LIST_FULL && s->budget < (int32_t)(s->sweep_at - mspan_freed_count(s)))
		sched_fail("span %#lx on the full list: budget %d", (unsigned long)s->base, s->budget);
	if (s->list == LIST_READY && s->budget < (int32_t)mspan_live_count(s))
		sched_fail("span %#lx on the ready list: budget %d, live %zu",
		    (unsigned long)s->base, s->budget, mspan_live_count(s));
}

static void
check_objects(void)
{
	struct recount r = { 0 };
	size_t objects = 0, bytes;

	for (unsigned i = 0; i < LITMUS_OBJECTS; i++) {
		if (now.object[i].p == 0)
			continue;
		objects++;
		key_check(&now.object[i], "at the end");
		/* a handler on the slow path is served by boot.c, outside of spans */
		r.known += boot_look((void *)now.object[i].p, &bytes) == BOOT_OK;
	}
	mstats_each_span(recount_span, &r);
	if (r.known != objects)
		sched_fail("%zu of %zu objects are in live slots", r.known, objects);
	if (r.strange > now.lost)
		sched_fail("%zu live slots are nobody's object, such as %#lx", r.strange,
		    (unsigned long)r.example);
}

static void
leftover(struct mspan *s, void *arg)
{
	struct recount *r = arg;

	for (size_t i = 0; i < s->nelems; i++)
		r->live += mspan_slot_live(s, i);
	r->known++;
	r->example = s->base;
}

/* Everything goes back: then there is no span, and every page is free. */
static void
check_recovered(void)
{
	struct recount r = { 0 };

	for (unsigned i = 0; i < LITMUS_OBJECTS; i++) {
		if (now.object[i].p == 0)
			continue;
		uintptr_t p = now.object[i].p;
		now.object[i].p = 0;
		freegc((void *)p, API_FREE);
	}
	litmus_exit();
	for (struct mcache *c = mcache_first(); c != NULL; c = c->next)
		if (c->in_use)
			mcache_release(c);
	malloc_trim_all();
	mheap_flush_quarantine(&mheap_);
	mstats_each_span(leftover, &r);
	if (r.known > now.lost || r.live > now.lost)
		sched_fail("%zu spans with %zu live slots are left, such as %#lx", r.known, r.live,
		    (unsigned long)r.example);
	verify(true);
	if (now.lost == 0 && mheap_.pages.free_pages != mheap_.pages.grown_pages)
		sched_fail("%zu pages of %zu are free when nothing is left",
		    (size_t)mheap_.pages.free_pages, (size_t)mheap_.pages.grown_pages);
	if (r.known == 0 && a64_load_relaxed(&mheap_.spans_in_use) != 0)
		sched_fail("spans_in_use is not 0 when nothing is left");
}

static void
at_the_end(void *arg)
{
	const struct litmus *l = arg;

	/* a double free that nobody has met yet is met when all is freed */
	if (l->deaths == 0) {
		verify(true);
		check_objects();
	}
	if (l->check != NULL)
		l->check();
	check_recovered();
}

/* ---- ends that have been seen ----
 * What is checked at the end depends on memory alone: each state once. */

enum { ENDS = 1 << 20 };

static uint64_t ends[ENDS];
static size_t ends_n;

static uint64_t
fold(uint64_t h, const void *p, size_t bytes)
{
	const uint64_t *v = p;

	for (size_t i = 0; i < bytes / 8; i++)
		h = ((h ^ v[i]) * 0x9e3779b97f4a7c15u) ^ (h >> 32);
	return h;
}

bool litmus_checks_each_end;

static bool
end_is_new(void)
{
	struct thread_state tls[SCHED_THREADS];
	uint64_t h;
	size_t i;

	memset(tls, 0, sizeof(tls));
	sched_tls_read(tls);
	h = fold(fold(snap_hash(), &now, sizeof(now)), tls, sizeof(tls)) | 1;
	for (i = h >> 40 & (ENDS - 1); ends[i] != 0; i = (i + 1) & (ENDS - 1))
		if (ends[i] == h)
			return false;
	if (ends_n < ENDS / 2) {
		ends[i] = h;
		ends_n++;
	}
	return true;
}

static void
ends_forget(void)
{
	if (ends_n != 0)
		memset(ends, 0, sizeof(ends));
	ends_n = 0;
}

/* ---- runs ---- */

static const struct litmus *running;

static void
thread_main(unsigned thread)
{
	running->thread[thread]();
}

static void
heap_new(const struct litmus *l)
{
	size_t tail = l->recorded ? REDZONE_BYTES : l->armed ? CANARY_BYTES : 0;
	struct mheap_config config = {
		.span = { .sweep_share_percent = 25, .window_bytes = (size_t)1 << 30,
			.tail = tail != 0 },
		.armed = tail != 0,
		.exact = l->recorded,
		.zeroed = l->armed,
		.tail_bytes = (uint32_t)tail,
		.scavenge_delay_ns = SCAVENGE_NEVER,
		.seed = 1,
	};
	const struct quarantine_config q = { .bytes = l->quarantine_bytes, .share_percent = 100,
		.zeroed = l->armed, .seed = 1 };
	const struct side_config side = { .on = l->recorded };
	const struct debug_config debug = { .redzone = l->recorded };

	hooks_reset();
	proc_reset();
	arena_reset();
	mcache_reset();
	span_set_pool_reset();
	mheap_reset(&mheap_);
	fake_sys_reset(NULL);
	sched_tls_reset();
	mallocinit();
	mheap_init(&mheap_, &config);
	quarantine_init(&q);
	canary_init(l->armed, 1);
	zero_init(l->armed);
	sidetable_init(&side);
	debug_init(&debug);
}

static void
set_up(void *arg)
{
	const struct litmus *l = arg;

	memset(&now, 0, sizeof(now));
	for (unsigned i = 0; i < l->threads; i++)
		if (l->handler_of[i] == 0)
			litmus_as(i);
	litmus_as(0);
	if (l->setup != NULL)
		l->setup();
	verify(true);
}

/* The tiers' own variables: fuzz/sched/sched.mk gives their sections these names. */
extern char __start_tierdata[], __stop_tierdata[], __start_tierbss[], __stop_tierbss[];

static void
stray(const void *at)
{
	sched_fail("SIGSEGV at %p", at);
}

static void
add_range(void *p, size_t bytes)
{
	snap_add(p, bytes);
}

bool
litmus_begin(const struct litmus *l)
{
	static bool ranges;

	heap_new(l);
	if (!ranges) {
		snap_add(__start_tierdata, (size_t)(__stop_tierdata - __start_tierdata));
		snap_add(__start_tierbss, (size_t)(__stop_tierbss - __start_tierbss));
		fake_sys_each_range(add_range);
		snap_stray = stray;
		ranges = true;
	}
	if (sched_guard(set_up, (void *)(uintptr_t)l) != SCHED_DONE) {
		fprintf(stderr, "litmus %s: setup: %s %s\n", l->name, sched_failure,
		    sched_death.site != NULL ? sched_death.site : "");
		return false;
	}
	sched_tls_save();
	sched_races(l->deaths == 0);    /* a wrong program races */
	start = now;
	ends_forget();
	snap_take();
	sched_forget();
	return true;
}

void
litmus_end(void)
{
	snap_back();    /* no lock is to stay held */
	snap_drop();
}

static const char *const end_text[] = {
	[SCHED_DONE] = "it ended well, and should have died", [SCHED_DIED] = "died",
	[SCHED_FAILED] = "failed", [SCHED_DEADLOCK] = "deadlock: every thread waits for another",
	[SCHED_LIVELOCK] = "livelock: threads run and get nowhere",
};

static void
explain(struct litmus_result *r)
{
	const char *site = sched_death.site != NULL ? sched_death.site : "-";

	if (r->end == SCHED_DIED)
		snprintf(r->what, sizeof(r->what), "died: code %d, site %s, address %#lx, api %s",
		    (int)sched_death.code, site, (unsigned long)sched_death.addr,
		    sched_death.api != NULL ? sched_death.api : "-");
	else
		snprintf(r->what, sizeof(r->what), "%s%s%s", end_text[r->end],
		    r->end == SCHED_FAILED ? ": " : "", r->end == SCHED_FAILED ? sched_failure : "");
}

bool
litmus_run(const struct litmus *l, struct sched_chooser *c, struct litmus_result *r)
{
	struct sched_program p = { .threads = l->threads, .fn = thread_main,
		.forks = l->forks };

	memcpy(p.handler_of, l->handler_of, sizeof(p.handler_of));
	snap_back();
	now = start;
	sched_tls_restore();
	running = l;
	r->gap = false;
	r->end = sched_run(&p, c);
	if (r->end == SCHED_DONE && l->deaths == 0 && !litmus_checks_each_end && !end_is_new())
		return true;
	if (r->end == SCHED_DONE)
		r->end = sched_guard(at_the_end, (void *)(uintptr_t)l);
	if (r->end == SCHED_DONE && l->deaths == 0)
		return true;
	if (r->end == SCHED_DIED && (l->deaths >> sched_death.code & 1) != 0)
		return true;
	explain(r);
	if (l->gap != NULL && (r->end == SCHED_DONE || r->end == SCHED_FAILED)) {
		r->gap = true;
		return true;
	}
	return false;
}

/* ---- the list ---- */

const struct litmus *
litmus_at(unsigned i)
{
	static const struct litmus *const lists[] = { litmus_small, litmus_pages };

	for (size_t k = 0; k < ARRAY_LEN(lists); k++)
		for (const struct litmus *l = lists[k]; l->name != NULL; l++)
			if (i-- == 0)
				return l;
	return NULL;
}

const struct litmus *
litmus_find(const char *name)
{
	const struct litmus *l;

	for (unsigned i = 0; (l = litmus_at(i)) != NULL; i++)
		if (strcmp(l->name, name) == 0)
			return l;
	return NULL;
}
