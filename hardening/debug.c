/* debug.c - see debug.h. */
#include "debug.h"

#include <string.h>

#include "../src/atomic.h"
#include "../src/lock.h"
#include "../src/malloc.h"
#include "../src/marena.h"
#include "../src/mcache.h"
#include "../src/mheap.h"
#include "../src/mspan.h"
#include "../src/persistentalloc.h"
#include "../src/sys.h"
#include "../src/tls.h"
#include "guard.h"
#include "redzone.h"
#include "roots.h"
#include "sidetable.h"

enum {
	WAIT_FLOOR_BYTES = 1 << 20,
	WAIT_MEAN_SLOT_BYTES = 256,     /* for the length of the ring */
	LEAVE_AT_ONCE = 8,              /* slots that leave for one that comes, at most */
};

static struct debug_config config;

/* The queue of slots that wait: addresses of slots that are live to the tiers. */
static struct {
	struct outer_mutex lock;
	struct persistent memory;
	uint64_t *ring;                 /* entry_of; NULL: nothing waits */
	size_t places;                  /* a power of two */
	size_t head, tail;              /* ever taken out, put in; under lock */
	size_t bytes;
} wait;

static size_t
ring_places(size_t bytes)
{
	size_t n = 1024;
	while (n < bytes / WAIT_MEAN_SLOT_BYTES)
		n *= 2;
	return n;
}

AT_ENDS void
debug_init(const struct debug_config *c)
{
	config = *c;
	memset(&wait, 0, sizeof(wait));
	wait.lock = (struct outer_mutex)OUTER_MUTEX_INIT(LOCK_WAITING);
	persistent_init(&wait.memory);
	if (!c->redzone || c->wait_bytes == 0)
		return;
	wait.places = ring_places(c->wait_bytes);
	wait.ring = persistent_alloc(&wait.memory, wait.places * sizeof(*wait.ring), CACHE_LINE);
	if (wait.ring != NULL)          /* what waits here is not kept alive by it */
		roots_exclude(wait.ring, wait.places * sizeof(*wait.ring));
}

void
debug_fork_prepare(void)
{
	mutex_lock(&wait.lock.lock);
}

void
debug_fork_parent(void)
{
	mutex_unlock(&wait.lock.lock);
}

void
debug_after_fork_child(void)
{
	mutex_reset(&wait.lock.lock);
}

/* ---- zones -------------------------------------------------------------- */

static char *
slot_at(const struct mspan *s, size_t idx)
{
	return (char *)s->base + idx * s->elem_bytes;
}

/* The bytes of a small slot that are not the next one's left redzone. */
static size_t
body_bytes(const struct mspan *s)
{
	return s->elem_bytes - REDZONE_BYTES;
}

static void
complain_about(enum die_code code, const char *api, const char *site, const void *object,
    const void *zone, size_t n, uint8_t byte)
{
	struct die_diff diff;
	redzone_diff(zone, n, byte, &diff);
	complain(&(struct die_info){ .code = code, .api = api, .site = site,
	    .addr = (uintptr_t)object, .diff = &diff });
}

static bool
was_used(const struct mspan *s, size_t idx)
{
	const struct side_record *r = sidetable_record(s, idx);
	return r != NULL && side_serial(r) != 0;
}

/* The slot in front wrote too far, if its own redzone is damaged from its first
 * byte on; else whoever has this slot wrote before its beginning. */
static bool
front_overflowed(const struct mspan *s, size_t front, size_t *bytes)
{
	const char *p = slot_at(s, front);
	if (!was_used(s, front) || sidetable_freed(s, front))
		return false;
	*bytes = side_bytes(sidetable_record(s, front), s->elem_bytes);
	return *bytes < s->elem_bytes && (unsigned char)p[*bytes] != REDZONE_BYTE;
}

/* REDZONE-2, at the call `api` about slot idx. */
static void
check_front(const struct mspan *s, size_t idx, const char *api)
{
	size_t bytes;
	if (idx == 0 || mspan_is_large(s))
		return;
	char *zone = slot_at(s, idx) - REDZONE_BYTES;
	if (likely(redzone_intact(zone, REDZONE_BYTES, REDZONE_BYTE)))
		return;
	char *front = slot_at(s, idx - 1);
	if (front_overflowed(s, idx - 1, &bytes))
		complain_about(DIE_CANARY, api, "REDZONE-2", front, front + bytes,
		    s->elem_bytes - bytes, REDZONE_BYTE);
	else
		complain_about(DIE_UNDERFLOW_SEEN, api, "REDZONE-2", slot_at(s, idx), zone,
		    REDZONE_BYTES, REDZONE_BYTE);
	memset(zone, REDZONE_BYTE, REDZONE_BYTES);
}

/* REDZONE-1 */
static void
check_behind(const struct mspan *s, size_t idx, const char *api)
{
	char *p = slot_at(s, idx);
	size_t bytes = side_bytes(sidetable_record(s, idx), s->elem_bytes);
	size_t n = s->elem_bytes - bytes;
	if (likely(redzone_intact(p + bytes, n, REDZONE_BYTE)))
		return;
	complain_about(DIE_CANARY, api, "REDZONE-1", p, p + bytes, n, REDZONE_BYTE);
	memset(p + bytes, REDZONE_BYTE, n);
}

/* REDZONE-3 */
static void
check_freed(const struct mspan *s, size_t idx, const char *api)
{
	char *p = slot_at(s, idx);
	size_t n = body_bytes(s);
	if (likely(redzone_intact(p, n, config.fill_free)))
		return;
	complain_about(DIE_WRITE_AFTER_FREE, api, "REDZONE-3", p, p, n, config.fill_free);
	memset(p, config.fill_free, n);
}

/* ---- alloc -------------------------------------------------------------- */

/* Of the slot in front nothing but its end is set, and only if nobody had it yet:
 * afterwards a damaged one must stay damaged until somebody looks. The end of this one
 * may be the next one's left redzone already: debug_alloc looked. */
static void
set_redzones(const struct mspan *s, size_t idx, size_t bytes)
{
	char *p = slot_at(s, idx);
	memset(p + bytes, REDZONE_BYTE, s->elem_bytes - bytes);
	if (idx != 0 && !was_used(s, idx - 1))
		memset(p - REDZONE_BYTES, REDZONE_BYTE, REDZONE_BYTES);
}

/* calloc clears what is not fresh, after us: its bytes are exactly those. */
static bool
fill_new(void *p, size_t bytes, enum malloc_api api, bool fresh)
{
	if (api == API_CALLOC)
		return fresh;
	memset(p, config.fill_alloc, bytes < config.fill_max_bytes ? bytes : config.fill_max_bytes);
	return false;
}

/* The next slot of the window, its record and its redzones are far from all that was
 * used of late: by the next call they are there. */
static void
fetch_next(const struct mspan *s)
{
	const struct mcache *c = mcache_self();
	const struct mcache_alloc *a = c != NULL ? &c->alloc[s->span_class] : NULL;
	if (a == NULL || a->n == 0 || a->span != s)
		return;
	size_t idx = a->order[a->n - 1];
	const char *p = (const char *)s->base + idx * s->elem_bytes;
	__builtin_prefetch(sidetable_record(s, idx), 1);
	__builtin_prefetch(p - REDZONE_BYTES, 1);
	__builtin_prefetch(p, 1);
	__builtin_prefetch(p + CACHE_LINE, 1);
	__builtin_prefetch(p + s->elem_bytes - REDZONE_BYTES, 1);
}

bool
debug_alloc(const struct mspan *s, void *p, size_t bytes, size_t align, enum malloc_api api,
    bool fresh)
{
	size_t idx = 0;
	if (s == NULL || s->side == NULL)
		return fresh;
	if (!mspan_is_large(s))
		mspan_slot(s, (uintptr_t)p, &idx);
	if (config.redzone) {
		struct side_record *r = sidetable_record(s, idx);
		if (a64_load_acquire(&r->free_serial) != 0)
			check_freed(s, idx, malloc_api_name(api));
		if (was_used(s, idx + 1))
			check_front(s, idx + 1, malloc_api_name(api));
		/* from here on a verify pass does not look at what it holds */
		a64_exchange(&r->free_serial, 0);
		fresh = fill_new(p, bytes, api, fresh);
		set_redzones(s, idx, bytes);
		fetch_next(s);
	}
	sidetable_alloc(s, idx, bytes, align, api);
	return fresh;
}

/* ---- who may free what -------------------------------------------------- */

enum family { FAMILY_C, FAMILY_NEW, FAMILY_NEW_ARRAY };

static enum family
family_of(enum malloc_api api)
{
	switch (api) {
	case API_NEW:
	case API_NEW_ALIGNED:
	case API_DELETE:
	case API_DELETE_SIZED:
	case API_DELETE_ALIGNED:
	case API_DELETE_SIZED_ALIGNED:
		return FAMILY_NEW;
	case API_NEW_ARRAY:
	case API_NEW_ARRAY_ALIGNED:
	case API_DELETE_ARRAY:
	case API_DELETE_ARRAY_SIZED:
	case API_DELETE_ARRAY_ALIGNED:
	case API_DELETE_ARRAY_SIZED_ALIGNED:
		return FAMILY_NEW_ARRAY;
	default:
		return FAMILY_C;
	}
}

static bool
is_aligned_new(enum malloc_api api)
{
	return api == API_NEW_ALIGNED || api == API_NEW_ARRAY_ALIGNED;
}

static bool
is_aligned_delete(enum malloc_api api)
{
	return api == API_DELETE_ALIGNED || api == API_DELETE_ARRAY_ALIGNED ||
	    api == API_DELETE_SIZED_ALIGNED || api == API_DELETE_ARRAY_SIZED_ALIGNED;
}

void
debug_check_pair(const struct side_record *r, const void *p, enum malloc_api api)
{
	enum malloc_api by = (enum malloc_api)r->alloc.api;
	struct die_info d = { .api = malloc_api_name(api), .site = "mismatch",
		.addr = (uintptr_t)p, .made_by = malloc_api_name(by) };
	if (family_of(by) != family_of(api)) {
		d.code = DIE_API_MISMATCH;
		complain(&d);
	} else if (is_aligned_new(by) != is_aligned_delete(api) && family_of(by) != FAMILY_C) {
		d.code = DIE_ALIGN_MISMATCH;
		d.expected = is_aligned_new(by) ? (size_t)1 << r->alloc.align : 0;
		complain(&d);
	}
}

/* ---- the queue ---------------------------------------------------------- */

static size_t
wait_bound(void)
{
	size_t in_spans = (size_t)a64_load_relaxed(&mheap_.span_pages_in_use) << PAGE_SHIFT;
	size_t share = in_spans / 100 * config.wait_share;
	if (share < WAIT_FLOOR_BYTES)
		share = WAIT_FLOOR_BYTES;
	return share < config.wait_bytes ? share : config.wait_bytes;
}

/* false: a handler interrupted this very thread in here. */
static bool
wait_lock(void)
{
	if (mcache_slow_interrupted())
		return false;
	outer_lock(&wait.lock);
	return true;
}

/* A slot's address, and above it its length: who makes room does not look it up. */
enum { LENGTH_UNIT = 16 };

static uint64_t
entry_of(uintptr_t p, size_t bytes)
{
	return (uint64_t)p | (uint64_t)(bytes / LENGTH_UNIT) << ADDR_BITS;
}

/* What has to leave for the bound goes to out[]. Returns how many. */
static size_t
take_locked(size_t bound, uintptr_t *out)
{
	size_t n = 0;
	while (n < LEAVE_AT_ONCE && wait.head != wait.tail &&
	    (wait.bytes > bound || wait.tail - wait.head == wait.places)) {
		uint64_t e = wait.ring[wait.head++ & (wait.places - 1)];
		wait.bytes -= (size_t)(e >> ADDR_BITS) * LENGTH_UNIT;
		out[n++] = (uintptr_t)(e & (ADDR_LIMIT - 1));
	}
	return n;
}

static void
leave(uintptr_t p)
{
	struct mspan *s = span_of(p);
	size_t idx;
	mspan_slot(s, p, &idx);
	free_slot(s, idx);
}

/* false: there is no place for it. */
static bool
keep_waiting(const struct mspan *s, uintptr_t p)
{
	uintptr_t out[LEAVE_AT_ONCE];
	size_t bound = wait_bound();
	if (wait.ring == NULL || s->elem_bytes > bound || !wait_lock())
		return false;
	wait.ring[wait.tail++ & (wait.places - 1)] = entry_of(p, s->elem_bytes);
	wait.bytes += s->elem_bytes;
	size_t n = take_locked(bound, out);
	uintptr_t next = (uintptr_t)(wait.ring[wait.head & (wait.places - 1)] & (ADDR_LIMIT - 1));
	outer_unlock(&wait.lock);
	for (size_t i = 0; i < n; i++)
		leave(out[i]);
	__builtin_prefetch(span_of(next), 1);
	return true;
}

void
debug_flush(void)
{
	uintptr_t out[LEAVE_AT_ONCE];
	size_t n;
	do {
		if (wait.ring == NULL || !wait_lock())
			return;
		n = take_locked(0, out);
		outer_unlock(&wait.lock);
		for (size_t i = 0; i < n; i++)
			leave(out[i]);
	} while (n != 0);
}

/* ---- free --------------------------------------------------------------- */

enum free_verdict
debug_free(struct mspan *s, size_t idx, enum malloc_api api)
{
	struct side_record *r = sidetable_record(s, idx);
	const char *name = malloc_api_name(api);
	char *p = slot_at(s, idx);
	if (r == NULL)
		return FREE_NOW;
	if (!sidetable_claim_free(s, idx))
		return FREE_REFUSED;
	if (config.mismatch)
		debug_check_pair(r, p, api);
	if (config.redzone) {
		check_front(s, idx, name);
		check_behind(s, idx, name);
	}
	bool small = config.redzone && !mspan_is_large(s);
	if (small)
		memset(p, config.fill_free, body_bytes(s));
	sidetable_write_free(r, side_bytes(r, s->elem_bytes), api);
	return small && keep_waiting(s, (uintptr_t)p) ? FREE_LATER : FREE_NOW;
}

/* ---- verify ------------------------------------------------------------- */

/* The program's threads run on: what is found counts only if the slot is in the
 * same state afterwards. */
struct slot_look {
	uint64_t serial, free_serial;
	bool freed;
};

static struct slot_look
look(const struct mspan *s, size_t idx)
{
	const struct side_record *r = sidetable_record(s, idx);
	return (struct slot_look){ side_serial(r), a64_load_acquire(&r->free_serial),
		sidetable_freed(s, idx) };
}

static const char *
check_slot(const struct mspan *s, size_t idx)
{
	const struct slot_look a = look(s, idx);
	const char *p = slot_at(s, idx), *tag = NULL;
	if (a.serial == 0)
		return NULL;
	if (!a.freed) {
		size_t bytes = side_bytes(sidetable_record(s, idx), s->elem_bytes);
		if (!redzone_intact(p + bytes, s->elem_bytes - bytes, REDZONE_BYTE))
			tag = "REDZONE-1";
	} else if (a.free_serial != 0 && !mspan_is_large(s) &&
	    !redzone_intact(p, body_bytes(s), config.fill_free)) {
		tag = "REDZONE-3";
	}
	if (tag == NULL && idx != 0 && !mspan_is_large(s) &&
	    !redzone_intact(p - REDZONE_BYTES, REDZONE_BYTES, REDZONE_BYTE))
		tag = "REDZONE-2";
	const struct slot_look b = look(s, idx);
	bool same = a.serial == b.serial && a.free_serial == b.free_serial && a.freed == b.freed;
	return same ? tag : NULL;
}

const char *
debug_check(const struct mspan *s, uintptr_t *where)
{
	if (!config.redzone || s->side == NULL || a32_load_acquire(&s->state) != SPAN_IN_USE)
		return NULL;
	for (size_t i = 0; i < s->nelems; i++) {
		const char *tag = check_slot(s, i);
		*where = (uintptr_t)slot_at(s, i);
		if (tag != NULL)
			return tag;
	}
	*where = 0;
	return NULL;
}

bool
debug_explain(uintptr_t where, const char *api)
{
	size_t idx = 0;
	const struct mspan *s = span_of(where);
	if (!config.redzone || s == NULL || s->side == NULL)
		return false;
	if (!mspan_is_large(s) && !mspan_slot(s, where, &idx))
		return false;
	if (!was_used(s, idx))
		return false;
	if (sidetable_live(s, idx))
		check_behind(s, idx, api);
	else if (!mspan_is_large(s))
		check_freed(s, idx, api);
	check_front(s, idx, api);
	return true;
}

/* ---- for reports -------------------------------------------------------- */

static bool
claims_nothing(uintptr_t addr, struct fault_claim *out)
{
	(void)addr;
	(void)out;
	return false;
}

/* The slot an address lies in, or next to whose guard it does. */
static const struct mspan *
slot_near(uintptr_t addr, size_t *idx)
{
	const struct mspan *s = arena_of(addr) != NULL ? arena_span_containing(addr) : NULL;
	*idx = 0;
	if (s != NULL) {
		if (!mspan_is_large(s))
			*idx = (addr - s->base) / s->elem_bytes;
		return s;
	}
	enum guard_side side = arena_of(addr) != NULL ? guard_look(addr, &s) : GUARD_SIDE_NONE;
	if (side == GUARD_SIDE_NONE)
		return NULL;
	if (side == GUARD_SIDE_AFTER && !mspan_is_large(s))
		*idx = s->nelems - 1;
	return s;
}

static bool
object(uintptr_t addr, struct room_object *out)
{
	size_t idx;
	const struct mspan *s = slot_near(addr, &idx);
	if (s == NULL || !was_used(s, idx))
		return false;
	sidetable_describe(sidetable_record(s, idx), (uintptr_t)slot_at(s, idx), s->elem_bytes,
	    out);
	return true;
}

const struct fault_room debug_room = { .claim = claims_nothing, .object = object };
