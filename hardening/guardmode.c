/* guardmode.c - see guardmode.h. */
#include "guardmode.h"

#include <sched.h>
#include <string.h>

#include "debug.h"
#include "guardspace.h"
#include "slack.h"
#include "../src/print.h"
#include "../src/report.h"
#include "../src/sys.h"
#include "../src/tls.h"

static struct {
	struct guardmode_config config;
	uint64_t key;
	atomic_u32 warned;
	atomic_ptr looked_at;   /* the record whose slack is being compared, or NULL */
} mode;

/* ---- slack -------------------------------------------------------------- */

/* Of this object: neither text nor zero. */
static uint8_t
fill_of(const struct guard_record *r)
{
	uint64_t z = (mode.key ^ r->data) * 0x9e3779b97f4a7c15u;
	return (uint8_t)(z >> 56 | 0x80);
}

static void
fill_slack(const struct guard_record *r)
{
	uintptr_t end = r->base + r->bytes, from = guardspace_open_start(r);
	memset((void *)from, fill_of(r), r->base - from);
	memset((void *)end, fill_of(r), guardspace_open_end(r) - end);
}

/* What the guards could not see, because it stayed in the object's own pages. Fills
 * in the code and the bytes. */
static bool
slack_changed(const struct guard_record *r, struct die_info *info, struct die_diff *d)
{
	uint8_t fill = fill_of(r);
	if (unlikely(slack_diff(r->base + r->bytes, guardspace_open_end(r), fill, d)))
		info->code = DIE_CANARY;
	else if (unlikely(slack_diff(guardspace_open_start(r), r->base, fill, d)))
		info->code = DIE_UNDERFLOW_SEEN;
	else
		return false;
	info->diff = d;
	return true;
}

static void
check_slack(const struct guard_record *r, enum malloc_api api)
{
	struct die_diff d;
	struct die_info info = { .api = malloc_api_name(api), .site = "slack", .addr = r->base };
	if (unlikely(slack_changed(r, &info, &d)))
		complain(&info);
}

/* The same for an object that another thread may be freeing: its pages stay until
 * mode.looked_at names another (GUARDMODE-1). */
static bool
live_slack_changed(struct guard_record *r, struct die_info *info, struct die_diff *d)
{
	void *nobody = NULL;
	uint32_t live = GUARD_LIVE;
	bool changed = false;
	thread_state.compares = true;
	compiler_fence();
	/* another pass may be at it */
	if (aptr_cas(&mode.looked_at, &nobody, r)) {
		/* an update, not a load: whoever frees it afterwards sees looked_at */
		if (a32_cas(&r->state, &live, GUARD_LIVE))
			changed = slack_changed(r, info, d);
		aptr_store_release(&mode.looked_at, NULL);
	}
	compiler_fence();
	thread_state.compares = false;
	return changed;
}

/* After the record has left GUARD_LIVE: waits until its pages may fault. false: never,
 * as this is a handler that interrupted the thread which looks. */
static bool
wait_until_not_looked_at(const struct guard_record *r)
{
	while (unlikely(aptr_load_acquire(&mode.looked_at) == r)) {
		if (thread_state.compares)
			return false;
		sched_yield();
	}
	return true;
}

/* ---- alloc -------------------------------------------------------------- */

AT_ENDS void
guardmode_init(const struct guardmode_config *config)
{
	const struct guardspace_config s = { .left = config->left,
		.quarantine_bytes = config->quarantine_bytes };
	mode.config = *config;
	mode.key = config->seed;
	a32_store_relaxed(&mode.warned, 0);
	aptr_store_relaxed(&mode.looked_at, NULL);
	guardspace_init(&s);           /* when off, too: a heap made anew has no regions */
	if (config->on && config->seed == 0)
		sys_random(&mode.key, sizeof(mode.key));
}

/* Once, when the first object goes without. */
static NOINLINE void
warn_unguarded(void)
{
	struct guardspace_stats s;
	guardspace_read_stats(&s);
	if (s.unguarded == 0 || a32_exchange(&mode.warned, 1) != 0)
		return;
	report_warn(sys_guard_in_use() == SYS_GUARD_MPROTECT ?
	    "no guard left for this object and others: guards are mappings here, and "
	    "guard_vma_percent of vm.max_map_count are in use" :
	    "no guard to be had for an object, for want of memory or address space", NULL);
}

/* Calls that name an alignment get at least the usual one, too. */
static bool
names_alignment(enum malloc_api api)
{
	return api == API_POSIX_MEMALIGN || api == API_ALIGNED_ALLOC || api == API_MEMALIGN ||
	    api == API_NEW_ALIGNED || api == API_NEW_ARRAY_ALIGNED;
}

void *
guardmode_alloc(size_t bytes, size_t align, bool noscan, enum malloc_api api)
{
	if (!mode.config.on || bytes > ADDR_LIMIT / 4 || align > ADDR_LIMIT / 4)
		return NULL;
	if (align <= MALLOC_ALIGN)
		align = names_alignment(api) ? MALLOC_ALIGN : mode.config.align;
	struct guard_record *r = guardspace_take(bytes, align);
	if (unlikely(r == NULL)) {
		warn_unguarded();
		return NULL;
	}
	r->flags = noscan ? GUARD_NOSCAN : 0;
	fill_slack(r);
	sidetable_write_alloc(&r->side, bytes, 0, align, api);
	a32_store_release(&r->state, GUARD_LIVE);
	return (void *)r->base;
}

/* ---- whose -------------------------------------------------------------- */

/* The record of the object that begins at p, or that p is inside of. */
static struct guard_record *
record_of(const void *p)
{
	struct guard_around near;
	if (!mode.config.on || !guardspace_find((uintptr_t)p, &near))
		return NULL;
	if (near.in != NULL)
		return near.in;
	return near.before != NULL && near.before->base == (uintptr_t)p ? near.before : NULL;
}

static uintptr_t
distance(const struct guard_record *r, uintptr_t addr)
{
	return addr < r->base ? r->base - addr : addr - (r->base + r->bytes);
}

/* The record to blame for a touch: of two beside a guard, the nearer object's. */
static struct guard_record *
record_near(uintptr_t addr)
{
	struct guard_around near;
	if (!mode.config.on || !guardspace_find(addr, &near))
		return NULL;
	if (near.in != NULL)
		return near.in;
	if (near.before == NULL || near.behind == NULL)
		return near.before != NULL ? near.before : near.behind;
	return distance(near.behind, addr) < distance(near.before, addr) ? near.behind :
	    near.before;
}

static bool
is_live(const struct guard_record *r)
{
	uint32_t state = a32_load_acquire(&r->state);
	return state == GUARD_LIVE || state == GUARD_FREEING || state == GUARD_REPORTED;
}

static enum outside_verdict
judge(const struct guard_record *r, uintptr_t addr)
{
	uint32_t state = a32_load_acquire(&r->state);
	if (state == GUARD_UNUSED || state == GUARD_BUSY)
		return OUTSIDE_FOREIGN;
	if (addr != r->base)
		return addr - r->base < r->bytes ? OUTSIDE_INTERIOR : OUTSIDE_FOREIGN;
	return state == GUARD_LIVE || state == GUARD_REPORTED ? OUTSIDE_OK : OUTSIDE_FREED;
}

enum outside_verdict
guardmode_look(const void *p, size_t *bytes, bool *noscan)
{
	const struct guard_record *r = record_of(p);
	if (r == NULL)
		return OUTSIDE_FOREIGN;
	enum outside_verdict v = judge(r, (uintptr_t)p);
	if (v == OUTSIDE_OK) {
		*bytes = r->bytes;
		*noscan = (r->flags & GUARD_NOSCAN) != 0;
	}
	return v;
}

/* ---- free --------------------------------------------------------------- */

enum outside_verdict
guardmode_free(void *p, enum malloc_api api)
{
	struct guard_record *r = record_of(p);
	uint32_t live = GUARD_LIVE, reported = GUARD_REPORTED;
	if (r == NULL)
		return OUTSIDE_FOREIGN;
	enum outside_verdict v = judge(r, (uintptr_t)p);
	if (v != OUTSIDE_OK)
		return v;
	if (a32_cas(&r->state, &live, GUARD_FREEING)) {
		if (unlikely(!guardspace_sound(r)))
			die_corruption("GUARDSPACE-1", r);
		if (mode.config.mismatch)
			debug_check_pair(&r->side, p, api);
		bool faults = wait_until_not_looked_at(r);
		check_slack(r, api);
		sidetable_write_free(&r->side, r->bytes, api);
		guardspace_free(r, faults);
		return OUTSIDE_OK;
	}
	/* of two at once, one wins; one that was reported goes without its pages */
	return a32_cas(&r->state, &reported, GUARD_REPORTED_FREED) ? OUTSIDE_OK : OUTSIDE_FREED;
}

/* ---- faults and reports ------------------------------------------------- */

static bool
claims(uintptr_t addr, struct fault_claim *out)
{
	struct guard_around near;
	if (!mode.config.on || !guardspace_find(addr, &near))
		return false;
	const struct guard_record *r = record_near(addr);
	out->site = "guard";
	if (r == NULL || !is_live(r))
		out->code = DIE_USE_AFTER_FREE;
	else if (r->bytes == 0)
		out->code = DIE_ZERO_SIZE;
	else
		out->code = addr < r->base ? DIE_UNDERFLOW : DIE_OVERFLOW;
	return true;
}

static bool
describe(const struct guard_record *r, struct room_object *out)
{
	if (r == NULL || a32_load_acquire(&r->state) == GUARD_BUSY)
		return false;
	sidetable_describe(&r->side, r->base, r->bytes, out);
	out->kind = ROOM_GUARDED;
	out->what = "a guarded object";
	out->live = is_live(r);
	return true;
}

static bool
object(uintptr_t addr, struct room_object *out)
{
	return describe(record_near(addr), out);
}

/* On the other side of the guard before or behind its slot. */
static bool
beside(uintptr_t addr, bool behind, struct room_object *out)
{
	struct guard_around near;
	const struct guard_record *r = record_near(addr);
	if (r == NULL)
		return false;
	uintptr_t guard = behind ? r->data + guardspace_slot_bytes(r) : r->data - 1;
	return guardspace_find(guard, &near) && describe(behind ? near.behind : near.before, out);
}

static bool
go_on(uintptr_t addr, bool *silent)
{
	*silent = false;
	return mode.config.go_on && record_near(addr) != NULL;
}

static void
let_through(uintptr_t addr)
{
	struct guard_record *r = record_near(addr);
	if (r != NULL)
		guardspace_give_up(r);
}

const struct fault_room guardmode_room = {
	.claim = claims, .object = object, .beside = beside, .go_on = go_on,
	.let_through = let_through,
};

/* ---- checks, figures ---------------------------------------------------- */

struct check {
	uintptr_t where;
	const char *tag;
};

/* Other threads run: what changed its state meanwhile does not count. */
static void
check_record(struct guard_record *r, void *arg)
{
	struct check *c = arg;
	if (c->tag != NULL || a32_load_acquire(&r->state) != GUARD_LIVE)
		return;
	uint64_t serial = side_serial(&r->side);
	uintptr_t base = r->base;
	struct die_info info = { .code = DIE_CANARY };
	struct die_diff d;
	const char *tag = !guardspace_sound(r) ? "GUARDSPACE-1" :
	    live_slack_changed(r, &info, &d) ? "slack" : NULL;
	if (tag == NULL || side_serial(&r->side) != serial || a32_load_acquire(&r->state) != GUARD_LIVE)
		return;
	c->where = base;
	c->tag = tag;
}

const char *
guardmode_check(uintptr_t *where)
{
	struct check c = { 0, NULL };
	if (mode.config.on)
		guardspace_each(check_record, &c);
	*where = c.where;
	return c.tag;
}

bool
guardmode_explain(uintptr_t where, const char *api)
{
	struct die_diff d;
	struct die_info info = { .api = api, .site = "slack", .addr = where };
	struct guard_record *r = record_of((const void *)where);
	if (r == NULL || r->base != where || !guardspace_sound(r) ||
	    !live_slack_changed(r, &info, &d) || a32_load_acquire(&r->state) != GUARD_LIVE)
		return false;
	complain(&info);
	return true;
}

void
guardmode_fork_child(void)
{
	aptr_store_relaxed(&mode.looked_at, NULL);
}

AT_ENDS void
guardmode_at_exit(void)
{
	char text[PRINT_MIN_BYTES];
	struct print p;
	struct guardspace_stats s;
	if (!mode.config.on)
		return;
	guardspace_read_stats(&s);
	if (s.unguarded == 0)
		return;
	print_init(&p, text, sizeof(text));
	print_grouped(&p, s.unguarded);
	report_warn(text, " objects went without a guard", NULL);
}
