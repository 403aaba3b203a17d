/* sample.c - see sample.h. */
#include "sample.h"

#include <errno.h>
#include <string.h>
#include <sys/auxv.h>
#include <time.h>

#include "../src/lock.h"
#include "../src/mcache.h"
#include "../src/msize.h"
#include "../src/rand.h"
#include "../src/report.h"
#include "../src/sizeclasses.h"
#include "../src/sys.h"
#include "../src/tls.h"
#include "../src/unwind.h"
#include "roots.h"
#include "slack.h"

enum {
	QUARANTINE_MIN = 8,         /* freed slots before any of them is reused */
	RETRY_AFTER = 1000,         /* allocations, while nothing is sampled (yet) */
	STACK_TRIES = 2000,         /* for the lock, where only a stack is at stake */
	WINDOW_SLOTS_MIN = 8,       /* mspan.h */
	WINDOW_SLOTS_MAX = 64,
};

/* The linker's: the first byte of this module, and the first behind it. */
extern const char __ehdr_start[] __attribute__((visibility("hidden")));
extern const char _end[] __attribute__((visibility("hidden")));

static struct {
	struct mutex lock;          /* no rank: only tried, and nothing is locked under it */
	struct sample_config config;
	bool on;
	uintptr_t base;             /* of the first guard */
	size_t bytes;
	size_t edge_bytes;          /* a guard */
	size_t data_bytes;
	uintptr_t own_start;        /* our code, where it is a module of its own */
	uintptr_t own_end;
	struct rand_stream rng;     /* under lock */
	atomic_u64 not_before_ns;   /* end of the pause */
	atomic_u64 sampled, declined, cost_ns;
	atomic_u32 guard_open[SAMPLE_SLOTS + 1];
	struct sample_slot slots[SAMPLE_SLOTS];
} pool;

_Thread_local struct sample_countdown sample_countdown_ TLS_MODEL;

static uintptr_t
slot_data(const struct sample_slot *s)
{
	size_t i = (size_t)(s - pool.slots);
	return pool.base + pool.edge_bytes + i * (pool.data_bytes + pool.edge_bytes);
}

/* ---- time --------------------------------------------------------------- */

static uint64_t
now_ns(void)
{
	struct timespec t = { 0, 0 };
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static bool
pausing(void)
{
	return pool.config.pause_factor != 0 &&
	    now_ns() < a64_load_relaxed(&pool.not_before_ns);
}

/* Makes up for what was spent since `begin`, behind any pause that is on. */
static void
pause_for(uint64_t begin)
{
	uint64_t now = now_ns(), cost = now - begin;
	uint64_t end = a64_load_relaxed(&pool.not_before_ns), later;
	a64_fetch_add(&pool.cost_ns, cost);
	do {
		later = (end > now ? end : now) + cost * pool.config.pause_factor;
	} while (!a64_cas(&pool.not_before_ns, &end, later));
}

/* ---- stacks ------------------------------------------------------------- */

/* Under the lock: for generated code the unwinder has static buffers. */
static void
take_stack_locked(struct sample_stack *s)
{
	size_t n = pool.config.stack_depth != 0 ?
	    unwind_here_quietly(s->pcs, SAMPLE_FRAMES) : 0;
	if (pool.own_end != 0)
		n = unwind_trim(s->pcs, n, pool.own_start, pool.own_end);
	s->frames = n < pool.config.stack_depth ? (uint32_t)n : pool.config.stack_depth;
	s->tid = sys_gettid();
}

/* Somebody else holds the lock for tens of microseconds, or we interrupted it. */
static void
take_stack(struct sample_stack *s)
{
	s->frames = 0;
	s->tid = sys_gettid();
	for (int i = 0; i < STACK_TRIES; i++) {
		if (mutex_trylock(&pool.lock)) {
			take_stack_locked(s);
			mutex_unlock(&pool.lock);
			return;
		}
		cpu_relax();
	}
}

/* ---- start -------------------------------------------------------------- */

/* Where we are linked into the program there is no telling our frames apart. */
static void
find_own_code(void)
{
	uintptr_t start = (uintptr_t)__ehdr_start, end = (uintptr_t)_end;
	uintptr_t program = (uintptr_t)getauxval(AT_PHDR);
	bool linked_in = program - start < end - start;
	pool.own_start = linked_in ? 0 : start;
	pool.own_end = linked_in ? 0 : end;
}

static bool
make_pool(void)
{
	size_t page = sys_page_bytes();
	pool.edge_bytes = page;
	pool.data_bytes = align_up(SAMPLE_DATA_BYTES, page);
	size_t bytes = page + SAMPLE_SLOTS * (pool.data_bytes + page);
	void *p = sys_reserve(0, bytes, page, false);
	if (p == NULL)
		return false;
	if (!sys_map(p, bytes)) {
		sys_free(p, bytes, SYS_RESERVED);
		return false;
	}
	sys_used(p, bytes);
	if (!sys_fault(p, bytes)) {
		sys_free(p, bytes, SYS_READY);
		return false;
	}
	pool.base = (uintptr_t)p;
	pool.bytes = bytes;
	return true;
}

void
sample_start(const struct sample_config *config)
{
	pool.config = *config;
	if (pool.on) {          /* else nothing of it is touched */
		memset(pool.slots, 0, sizeof(pool.slots));
		memset(pool.guard_open, 0, sizeof(pool.guard_open));
	}
	pool.on = false;
	pool.base = pool.bytes = 0;
	a64_store_relaxed(&pool.sampled, 0);
	a64_store_relaxed(&pool.declined, 0);
	a64_store_relaxed(&pool.cost_ns, 0);
	a64_store_relaxed(&pool.not_before_ns, 0);
	if (config->one_in == 0)
		return;
	if (config->seed != 0)
		rand_seed_fixed(&pool.rng, config->seed, 2);
	else
		rand_seed_os(&pool.rng);
	sample_countdown_.left = 0;
	sample_countdown_.drawn = false;
	find_own_code();
	pool.on = make_pool();
	roots_exclude(&pool, sizeof(pool));     /* where an object is keeps it not alive */
}

/* ---- which -------------------------------------------------------------- */

/* How many allocations a refill for this size stands for: the window that is used up. */
int32_t
sample_window_of(size_t bytes, bool noscan)
{
	const struct mcache *c = mcache_self();
	unsigned size_class = size_class_of(bytes);
	if (c != NULL && size_class != 0) {
		uint8_t drawn = c->alloc[size_class + (noscan ? SPAN_NOSCAN : 0)].drawn;
		return drawn != 0 ? drawn : 1;
	}
	size_t n = pool.config.window_bytes / (bytes != 0 ? bytes : 1);
	if (bytes > SMALL_MAX_BYTES)
		return 1;
	return n < WINDOW_SLOTS_MIN ? WINDOW_SLOTS_MIN :
	    n > WINDOW_SLOTS_MAX ? WINDOW_SLOTS_MAX : (int32_t)n;
}

/* Uniform from 1 to 2 N - 1, which is N on the average and no rhythm. */
static int32_t
draw_countdown_locked(void)
{
	uint32_t n = pool.config.one_in < INT32_MAX / 2 ? pool.config.one_in : INT32_MAX / 2;
	return (int32_t)(1 + rand_below(&pool.rng, 2 * n - 1));
}

static struct sample_slot *
nth_in_state(enum sample_state state, uint32_t n)
{
	for (size_t i = 0; i < SAMPLE_SLOTS; i++)
		if (a32_load_acquire(&pool.slots[i].state) == state && n-- == 0)
			return &pool.slots[i];
	return NULL;
}

/* A slot never used, else, if enough wait, one of the freed. All are taken from
 * under the lock, so none of these two states is left by anybody else, but for
 * the report of a fault. */
static struct sample_slot *
take_slot_locked(void)
{
	static const enum sample_state from[] = { SAMPLE_UNUSED, SAMPLE_FREED };
	for (size_t k = 0; k < ARRAY_LEN(from); k++) {
		uint32_t n = 0, state = from[k];
		while (nth_in_state(state, n) != NULL)
			n++;
		if (n < (state == SAMPLE_FREED ? QUARANTINE_MIN : 1))
			continue;
		struct sample_slot *s = nth_in_state(state, rand_below(&pool.rng, n));
		if (s != NULL && a32_cas(&s->state, &state, SAMPLE_BUSY))
			return s;
	}
	return NULL;
}

/* ---- alloc -------------------------------------------------------------- */

/* Left: a touch before the object faults. Right: one behind it does, but for the
 * bytes that alignment leaves. */
static void
place_locked(struct sample_slot *s, size_t bytes, size_t align)
{
	size_t page = sys_page_bytes();
	uintptr_t data = slot_data(s);
	bool right = (rand_u16(&pool.rng) & 1) != 0;
	s->pages_bytes = align_up(bytes, page);
	s->pages = right ? data + pool.data_bytes - s->pages_bytes : data;
	s->base = right ? align_down(s->pages + s->pages_bytes - bytes, align) : s->pages;
	s->bytes = bytes;
	s->align = align;
	s->fill = (uint8_t)(rand_u16(&pool.rng) | 0x80);    /* neither text nor zero */
}

static bool
open_pages(struct sample_slot *s)
{
	if (!s->open) {
		if (!sys_unfault((void *)s->pages, s->pages_bytes))
			return false;
		sys_used((void *)s->pages, s->pages_bytes);
		s->open = true;
	}
	return true;
}

/* Pages that could not be faulted at free stand open still, over all their range. */
static bool
close_pages(struct sample_slot *s)
{
	if (s->open && sys_fault((void *)s->pages, s->pages_bytes))
		s->open = false;
	return !s->open;
}

static void
fill_slack(const struct sample_slot *s)
{
	uintptr_t end = s->base + s->bytes;
	memset((void *)s->pages, s->fill, s->base - s->pages);
	memset((void *)end, s->fill, s->pages + s->pages_bytes - end);
}

static void *
alloc_locked(size_t bytes, size_t align, bool noscan)
{
	struct sample_slot *s = take_slot_locked();
	if (s == NULL)
		return NULL;
	a64_fetch_add(&pool.sampled, 1);        /* before the fields change */
	bool ready = close_pages(s);
	if (ready) {
		place_locked(s, bytes, align);
		ready = open_pages(s);
	}
	if (!ready) {
		a64_fetch_sub(&pool.sampled, 1);
		/* closed, it has new fields, of an object that never was */
		a32_store_release(&s->state, s->open ? SAMPLE_FREED : SAMPLE_UNUSED);
		return NULL;
	}
	fill_slack(s);
	s->noscan = noscan;
	take_stack_locked(&s->allocated);
	a32_store_release(&s->state, SAMPLE_LIVE);
	return (void *)s->base;
}

/* Kept out of the one branch that nearly every refill takes. */
NOINLINE void *
sample_due(size_t bytes, size_t align, bool noscan, int32_t weight)
{
	int saved = errno;
	void *p = NULL;
	bool first = !sample_countdown_.drawn;
	sample_countdown_.left = RETRY_AFTER;
	if (!pool.on || !mutex_trylock(&pool.lock))
		return NULL;
	sample_countdown_.left = draw_countdown_locked();
	sample_countdown_.drawn = true;
	if (first && (sample_countdown_.left -= weight) > 0) {    /* the thread's first call */
		mutex_unlock(&pool.lock);
		return NULL;
	}
	if (sample_countdown_.left <= 0)
		sample_countdown_.left = 1;
	bool fits = bytes != 0 && bytes <= SAMPLE_DATA_BYTES && align <= sys_page_bytes();
	if (fits && !pausing()) {
		uint64_t begin = now_ns();
		p = alloc_locked(bytes, align < MALLOC_ALIGN ? MALLOC_ALIGN : align, noscan);
		pause_for(begin);
	}
	if (p == NULL)
		a64_fetch_add(&pool.declined, 1);
	mutex_unlock(&pool.lock);
	errno = saved;
	return p;
}

/* ---- whose -------------------------------------------------------------- */

static struct sample_slot *
slot_at(size_t i)
{
	return i < SAMPLE_SLOTS ? &pool.slots[i] : NULL;
}

/* The slot whose object an address belongs to: its data, or the nearer one of the
 * two beside a guard that ever held an object. */
static struct sample_slot *
slot_of(uintptr_t addr)
{
	size_t stride = pool.data_bytes + pool.edge_bytes;
	if (addr - pool.base >= pool.bytes || pool.bytes == 0 || stride == 0)
		return NULL;
	size_t i = (addr - pool.base) / stride, off = (addr - pool.base) % stride;
	if (off >= pool.edge_bytes)
		return slot_at(i);
	struct sample_slot *before = i > 0 ? slot_at(i - 1) : NULL, *behind = slot_at(i);
	bool nearer = off < pool.edge_bytes / 2;
	struct sample_slot *s = nearer ? before : behind, *other = nearer ? behind : before;
	if (s != NULL && s->bytes != 0)
		return s;
	return other != NULL && other->bytes != 0 ? other : s != NULL ? s : other;
}

static bool
is_live(const struct sample_slot *s)
{
	uint32_t state = a32_load_acquire(&s->state);
	return state == SAMPLE_LIVE || state == SAMPLE_FREEING;
}

/* ---- reports of a program that goes on ---------------------------------- */

static void
open_range(uintptr_t at, uintptr_t end)
{
	if (at < end && sys_unfault((void *)at, end - at))
		sys_used((void *)at, end - at);
}

/* Guard i stands before slot i; two slots share it. */
static void
open_guard(size_t i)
{
	uintptr_t at = pool.base + i * (pool.data_bytes + pool.edge_bytes);
	if (a32_exchange(&pool.guard_open[i], 1) == 0)
		open_range(at, at + pool.edge_bytes);
}

/* The slot is given up: what is faulted of it, and the guards beside it, are
 * opened, so that whatever comes next passes. */
static void
give_up(struct sample_slot *s)
{
	uint32_t state = a32_load_acquire(&s->state);
	uintptr_t from = slot_data(s), end = from + pool.data_bytes;
	do {
		if (state == SAMPLE_REPORTED)
			return;
	} while (!a32_cas(&s->state, &state, SAMPLE_REPORTED));
	open_guard((size_t)(s - pool.slots));
	open_guard((size_t)(s - pool.slots) + 1);
	open_range(from, s->open ? s->pages : end);
	if (s->open)
		open_range(s->pages + s->pages_bytes, end);
}

/* A wrong pointer in a program that goes on. */
static void
report_pointer(struct sample_slot *s, enum die_code code, uintptr_t addr, const char *api)
{
	struct die_info info = { .code = code, .api = api, .site = "sample", .addr = addr };
	if (a32_exchange(&s->told, 1) != 0)
		return;
	report_and_go_on(&info);
	give_up(s);
}

/* ---- look and free ------------------------------------------------------ */

static enum outside_verdict
judge(const struct sample_slot *s, uintptr_t addr)
{
	uint32_t state = a32_load_acquire(&s->state);
	if (state == SAMPLE_UNUSED || state == SAMPLE_BUSY)
		return OUTSIDE_FOREIGN;
	if (addr != s->base)
		return addr - s->base < s->bytes ? OUTSIDE_INTERIOR : OUTSIDE_FOREIGN;
	return state == SAMPLE_LIVE ? OUTSIDE_OK : OUTSIDE_FREED;
}

enum outside_verdict
sample_look(const void *p, const char *api, size_t *bytes, bool *noscan)
{
	struct sample_slot *s = slot_of((uintptr_t)p);
	*bytes = 0;
	*noscan = false;
	if (s == NULL)
		return OUTSIDE_FOREIGN;
	enum outside_verdict v = judge(s, (uintptr_t)p);
	if (v == OUTSIDE_FREED && pool.config.go_on) {
		report_pointer(s, DIE_STALE_POINTER, (uintptr_t)p, api);
		v = OUTSIDE_OK;
	}
	if (v == OUTSIDE_OK) {
		*bytes = s->bytes;
		*noscan = s->noscan;
	}
	return v;
}

/* Of the slack before or behind: what changed, if anything. */
static bool
slack_changed(const struct sample_slot *s, struct die_diff *d)
{
	uintptr_t end = s->base + s->bytes;
	return slack_diff(end, s->pages + s->pages_bytes, s->fill, d) ||
	    slack_diff(s->pages, s->base, s->fill, d);
}

/* What the guards could not see, because it stayed in the object's own pages. */
static void
check_slack(struct sample_slot *s, const char *api)
{
	struct die_diff d;
	struct die_info info = { .code = DIE_CANARY, .api = api, .site = "sample",
		.addr = s->base, .diff = &d };
	if (likely(!slack_changed(s, &d)))
		return;
	if (!pool.config.go_on)
		die(&info);
	if (a32_exchange(&s->told, 1) == 0)
		report_and_go_on(&info);
}

static enum outside_verdict
refuse(struct sample_slot *s, enum outside_verdict v, uintptr_t addr, const char *api)
{
	if (!pool.config.go_on || v == OUTSIDE_FOREIGN)
		return v;
	report_pointer(s, v == OUTSIDE_FREED ? DIE_DOUBLE_FREE : DIE_INTERIOR_FREE, addr, api);
	return OUTSIDE_OK;
}

enum outside_verdict
sample_free(void *p, const char *api)
{
	struct sample_slot *s = slot_of((uintptr_t)p);
	uint32_t live = SAMPLE_LIVE, freeing = SAMPLE_FREEING;
	if (s == NULL)
		return OUTSIDE_FOREIGN;
	enum outside_verdict v = judge(s, (uintptr_t)p);
	if (v != OUTSIDE_OK)
		return refuse(s, v, (uintptr_t)p, api);
	if (!a32_cas(&s->state, &live, SAMPLE_FREEING))    /* of two at once, one wins */
		return refuse(s, OUTSIDE_FREED, (uintptr_t)p, api);
	int saved = errno;
	uint64_t begin = now_ns();
	check_slack(s, api);
	take_stack(&s->freed);
	if (a32_load_relaxed(&s->told) != 0)
		give_up(s);
	else
		close_pages(s);
	a32_cas(&s->state, &freeing, SAMPLE_FREED);        /* not if it was given up */
	pause_for(begin);
	errno = saved;
	return OUTSIDE_OK;
}

/* ---- faults and reports ------------------------------------------------- */

static bool
claims(uintptr_t addr, struct fault_claim *out)
{
	const struct sample_slot *s = slot_of(addr);
	if (s == NULL)
		return false;
	bool live = is_live(s) || a32_load_acquire(&s->state) == SAMPLE_REPORTED;
	out->site = "sample";
	if (s->bytes == 0)
		out->code = DIE_OVERFLOW;       /* never used: a wild pointer */
	else if (!live)
		out->code = DIE_USE_AFTER_FREE;
	else
		out->code = addr < s->base ? DIE_UNDERFLOW : DIE_OVERFLOW;
	return true;
}

static struct room_trace
trace_of(const struct sample_stack *s)
{
	return (struct room_trace){ .tid = s->tid, .frames = s->frames, .pcs = s->pcs };
}

static bool
describe(const struct sample_slot *s, struct room_object *out)
{
	if (s == NULL || s->bytes == 0)
		return false;
	bool live = is_live(s);
	*out = (struct room_object){
		.kind = ROOM_SAMPLED, .what = "a sampled object", .base = s->base,
		.bytes = s->bytes, .live = live, .allocated = trace_of(&s->allocated),
	};
	if (!live)
		out->freed = trace_of(&s->freed);
	return true;
}

static bool
object(uintptr_t addr, struct room_object *out)
{
	return describe(slot_of(addr), out);
}

/* The nearest that holds or held one: between them are only pages that fault. */
static bool
beside(uintptr_t addr, bool behind, struct room_object *out)
{
	const struct sample_slot *s = slot_of(addr);
	if (s == NULL)
		return false;
	for (size_t i = (size_t)(s - pool.slots); behind ? ++i < SAMPLE_SLOTS : i-- > 0;)
		if (describe(slot_at(i), out))
			return true;
	return false;
}

static bool
go_on(uintptr_t addr, bool *silent)
{
	struct sample_slot *s = slot_of(addr);
	if (!pool.config.go_on || s == NULL)
		return false;
	*silent = a32_exchange(&s->told, 1) != 0;
	return true;
}

static void
let_through(uintptr_t addr)
{
	struct sample_slot *s = slot_of(addr);
	if (s != NULL)
		give_up(s);
}

const struct fault_room sample_room = {
	.claim = claims, .object = object, .beside = beside, .go_on = go_on,
	.let_through = let_through,
};

/* ---- checks, fork, figures ---------------------------------------------- */

void
sample_each_live(void (*fn)(uintptr_t base, size_t bytes, bool noscan, void *arg),
    void *arg)
{
	for (size_t i = 0; i < SAMPLE_SLOTS; i++) {
		const struct sample_slot *s = &pool.slots[i];
		if (a32_load_acquire(&s->state) == SAMPLE_LIVE)
			fn(s->base, s->bytes, s->noscan, arg);
	}
}

void
sample_pool(uintptr_t *start, uintptr_t *end)
{
	*start = pool.base;
	*end = pool.base + pool.bytes;
}

const struct sample_slot *
sample_records(void)
{
	return pool.slots;
}

static bool
is_sound(const struct sample_slot *s)
{
	uintptr_t base = s->base, end = base + s->bytes;
	return s->align != 0 && base % s->align == 0 && base >= slot_data(s) && end > base &&
	    end <= slot_data(s) + pool.data_bytes;
}

/* Other threads run on: a slot that may have been reused while it was looked at
 * does not count, and nothing is read that a free could be closing. */
const char *
sample_check(uintptr_t *where)
{
	for (size_t i = 0; i < SAMPLE_SLOTS; i++) {
		const struct sample_slot *s = &pool.slots[i];
		uint64_t before = a64_load_acquire(&pool.sampled);
		bool live = a32_load_acquire(&s->state) == SAMPLE_LIVE;
		*where = s->base;
		if (live && !is_sound(s) && a32_load_acquire(&s->state) == SAMPLE_LIVE &&
		    a64_load_acquire(&pool.sampled) == before)
			return "SAMPLE-1";
	}
	*where = 0;
	return NULL;
}

/* A slot that another thread was at work on is nobody's now. */
void
sample_after_fork_child(void)
{
	mutex_reset(&pool.lock);
	if (!pool.on)
		return;
	if (pool.config.seed == 0)
		rand_seed_os(&pool.rng);
	for (size_t i = 0; i < SAMPLE_SLOTS; i++) {
		struct sample_slot *s = &pool.slots[i];
		uint32_t state = a32_load_relaxed(&s->state);
		if (state != SAMPLE_BUSY && state != SAMPLE_FREEING)
			continue;
		a32_store_release(&s->state, SAMPLE_REPORTED);
	}
}

void
sample_read_stats(struct sample_stats *out)
{
	*out = (struct sample_stats){ .sampled = a64_load_relaxed(&pool.sampled),
		.declined = a64_load_relaxed(&pool.declined),
		.cost_ns = a64_load_relaxed(&pool.cost_ns) };
	for (size_t i = 0; i < SAMPLE_SLOTS; i++) {
		out->live += is_live(&pool.slots[i]);
		out->freed += a32_load_relaxed(&pool.slots[i].state) == SAMPLE_FREED;
	}
}
