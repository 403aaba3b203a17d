/* guardspace.c - see guardspace.h.
 *
 *   guardspace_take
 *     take_locked      the oldest freed slot over the bound, one left over, or fresh
 *     prepare          outside of the lock: guards put, or pages opened
 *   guardspace_free    pages faulted, slot pushed to `inbox`
 *
 * Lengths of slots, in pages: 1 to 8, then four to each doubling up to 16; above
 * that whole chunks, of which the part that the object does not need faults. */
#include "guardspace.h"

#include <string.h>

#include "../src/die.h"
#include "../src/mcache.h"
#include "../src/sys.h"

enum {
	CHUNK_OS_PAGES = GUARD_CHUNK_PAGES,
	REGION_CHUNKS_MIN = 64,
	REGION_CHUNKS_MAX = 1 << 14,
	REGIONS = GUARDSPACE_REGIONS,
	SLOT_PAGES_MAX = 16,
	CLASSES = GUARD_CLASSES,
	GRANULES = GUARD_GRANULES,
};

struct record_list {
	struct guard_record *head, *tail;
};

struct guard_class {
	uintptr_t next;             /* the first slot never used, or 0 */
	uint32_t left;
	struct record_list again;   /* out of the quarantine, faulted */
	struct record_list bare;    /* never used, their guard was refused */
};

static struct {
	struct outer_mutex lock;
	struct guardspace_config config;
	size_t page, chunk_bytes;
	struct guard_class class[CLASSES];
	struct record_list quarantine;  /* the oldest first */
	size_t quarantined;         /* bytes */
	atomic_ptr inbox;           /* freed, by next, the latest first */
	atomic_u64 unguarded;
	struct guard_directory dir;
} space = { .lock = OUTER_MUTEX_INIT(LOCK_GUARDSPACE) };

/* ---- the lock ----------------------------------------------------------- */

/* false: a handler came in while this thread was about it already. */
static bool
lock_space(void)
{
	if (mcache_slow_interrupted())
		return false;
	outer_lock(&space.lock);
	return true;
}

/* ---- lists -------------------------------------------------------------- */

static void
list_push(struct record_list *l, struct guard_record *r)
{
	r->next = NULL;
	if (l->tail != NULL)
		l->tail->next = r;
	else
		l->head = r;
	l->tail = r;
}

static struct guard_record *
list_pop(struct record_list *l)
{
	struct guard_record *r = l->head;
	if (r == NULL)
		return NULL;
	l->head = r->next;
	if (l->head == NULL)
		l->tail = NULL;
	r->next = NULL;
	return r;
}

/* ---- geometry ----------------------------------------------------------- */

static size_t
pages_for(size_t bytes)
{
	return align_up(bytes, space.page) / space.page;
}

static size_t
class_for(size_t pages)
{
	size_t c = pages <= 8 ? (pages != 0 ? pages - 1 : 0) : 8;
	while (guard_class_pages[c] < pages)
		c++;
	return c;
}

static size_t
stride_of(size_t class)
{
	return guard_stride((uint32_t)(CHUNK_CLASS + class), space.page);
}

static struct guard_region *
region_of(uintptr_t addr)
{
	for (uint32_t i = a32_load_acquire(&space.dir.n); i-- > 0;)
		if (addr - space.dir.region[i].base < space.dir.region[i].bytes)
			return &space.dir.region[i];
	return NULL;
}

static struct guard_record *
record_at(const struct guard_region *g, uintptr_t data)
{
	return &g->record[guard_granule(g, space.page, data)];
}

static uint32_t
chunk_word(const struct guard_region *g, const struct guard_record *r)
{
	return a32_load_acquire(&g->chunk[(r->data - g->base) / space.chunk_bytes]);
}

size_t
guardspace_slot_bytes(const struct guard_record *r)
{
	return guard_slot_bytes(chunk_word(&space.dir.region[r->region], r), space.page);
}

/* With the guard behind it; what the quarantine counts. */
static size_t
whole_bytes(const struct guard_record *r)
{
	return guardspace_slot_bytes(r) + space.page;
}

uintptr_t
guardspace_open_start(const struct guard_record *r)
{
	return align_down(r->base, space.page);
}

uintptr_t
guardspace_open_end(const struct guard_record *r)
{
	return align_up(r->base + r->bytes, space.page);
}

bool
guardspace_sound(const struct guard_record *r)
{
	if (r->region >= a32_load_acquire(&space.dir.n) ||
	    region_of(r->data) != &space.dir.region[r->region])
		return false;
	uint32_t word = chunk_word(&space.dir.region[r->region], r);
	if (!guard_is_run(word) && !guard_is_class(word))
		return false;
	const struct guard_region *g = &space.dir.region[r->region];
	size_t slot = guard_slot_bytes(word, space.page);
	return slot + space.page <= g->base + g->bytes - r->data && record_at(g, r->data) == r &&
	    r->base - r->data <= slot && r->bytes <= slot - (r->base - r->data);
}

/* Against the guard behind the slot or the one before it. An alignment of more
 * than a page leaves pages over on either side. */
static void
place(struct guard_record *r, size_t bytes, size_t align)
{
	uintptr_t end = r->data + guardspace_slot_bytes(r);
	r->base = space.config.left ? align_up(r->data, align) : align_down(end - bytes, align);
	r->bytes = bytes;
}

/* ---- regions ------------------------------------------------------------ */

AT_ENDS void
guardspace_init(const struct guardspace_config *config)
{
	/* not *config: between its fields lies what the stack held, an address it may be */
	space.config.left = config->left;
	space.config.quarantine_bytes = config->quarantine_bytes;
	space.page = sys_page_bytes();
	space.dir.page_bytes = space.page;
	space.chunk_bytes = CHUNK_OS_PAGES * space.page;
	mutex_reset(&space.lock.lock);
	memset(space.class, 0, sizeof(space.class));
	space.quarantine = (struct record_list){ 0 };
	space.quarantined = 0;
	aptr_store_relaxed(&space.inbox, NULL);
	/* of a heap before this one (tests): roots are to have no addresses of it */
	memset(space.dir.region, 0, a32_load_relaxed(&space.dir.n) * sizeof(space.dir.region[0]));
	a32_store_relaxed(&space.dir.n, 0);
	a64_store_relaxed(&space.unguarded, 0);
}

/* Zeroed memory between pages that are never mapped; with its length, for the
 * way back. */
static void *
make_metadata(size_t bytes)
{
	size_t edge = space.page;
	char *p = sys_reserve(0, bytes + 2 * edge, edge, false);
	if (p == NULL)
		return NULL;
	if (!sys_map(p + edge, bytes)) {
		sys_free(p, bytes + 2 * edge, SYS_RESERVED);
		return NULL;
	}
	sys_used(p + edge, bytes);
	return p + edge;
}

static void
drop_metadata(void *p, size_t bytes)
{
	char *at = p;
	sys_free(at - space.page, space.page, SYS_RESERVED);
	sys_free(at, bytes, SYS_READY);
	sys_free(at + bytes, space.page, SYS_RESERVED);
}

/* Behind the last region, if that is free: the two are one mapping then. */
static char *
make_space(size_t bytes)
{
	uint32_t n = a32_load_relaxed(&space.dir.n);
	const struct guard_region *last = n != 0 ? &space.dir.region[n - 1] : NULL;
	uintptr_t hint = last != NULL ? last->base + last->bytes : 0;
	char *p = sys_reserve(hint, bytes, space.chunk_bytes, false);
	if (p == NULL)
		return NULL;
	if (!sys_map(p, bytes)) {
		sys_free(p, bytes, SYS_RESERVED);
		return NULL;
	}
	sys_used(p, bytes);
	return p;
}

/* Records and chunk words of a region. */
static size_t
meta_bytes_for(size_t n_chunks)
{
	return align_up(n_chunks * (GRANULES * sizeof(struct guard_record) + sizeof(atomic_u32)),
	    space.page);
}

static bool
add_region_of_locked(size_t n_chunks)
{
	uint32_t n = a32_load_relaxed(&space.dir.n);
	size_t records_bytes = n_chunks * GRANULES * sizeof(struct guard_record);
	size_t meta_bytes = meta_bytes_for(n_chunks);
	char *meta = make_metadata(meta_bytes);
	if (meta == NULL)
		return false;
	char *p = make_space(n_chunks * space.chunk_bytes);
	if (p == NULL) {
		drop_metadata(meta, meta_bytes);
		return false;
	}
	space.dir.region[n] = (struct guard_region){ .base = (uintptr_t)p,
		.bytes = n_chunks * space.chunk_bytes, .n_chunks = n_chunks,
		.record = (struct guard_record *)(void *)meta,
		.chunk = (atomic_u32 *)(void *)(meta + records_bytes) };
	a32_store_release(&space.dir.n, n + 1);
	return true;
}

/* As much as there is already, less where address space is short. */
static bool
add_region_locked(size_t chunks_needed)
{
	size_t have = 0;
	uint32_t n = a32_load_relaxed(&space.dir.n);
	if (n == REGIONS)
		return false;
	for (uint32_t i = 0; i < n; i++)
		have += space.dir.region[i].n_chunks;
	size_t want = have < REGION_CHUNKS_MAX ? have : REGION_CHUNKS_MAX;
	size_t least = chunks_needed > REGION_CHUNKS_MIN ?
	    align_up(chunks_needed, REGION_CHUNKS_MIN) : REGION_CHUNKS_MIN;
	for (want = align_down(want, REGION_CHUNKS_MIN); want > least; want /= 2)
		if (add_region_of_locked(want))
			return true;
	return add_region_of_locked(least);
}

/* ---- chunks ------------------------------------------------------------- */

static bool
is_free_chunk(const struct guard_region *g, size_t i)
{
	return a32_load_relaxed(&g->chunk[i]) <= CHUNK_FAULTED;
}

/* The first of n free chunks in a row, or n_chunks. */
static size_t
find_chunks(struct guard_region *g, size_t n)
{
	while (g->first_free < g->n_chunks && !is_free_chunk(g, g->first_free))
		g->first_free++;
	for (size_t i = g->first_free, run = 0; i < g->n_chunks; i++) {
		run = is_free_chunk(g, i) ? run + 1 : 0;
		if (run == n)
			return i + 1 - n;
	}
	return g->n_chunks;
}

static bool
open_chunk(const struct guard_region *g, size_t i)
{
	char *p = (char *)g->base + i * space.chunk_bytes;
	if (a32_load_relaxed(&g->chunk[i]) != CHUNK_FAULTED)
		return true;
	if (!sys_unfault(p, space.chunk_bytes))
		return false;
	sys_used(p, space.chunk_bytes);
	a32_store_release(&g->chunk[i], CHUNK_FREE);
	return true;
}

/* n free chunks, nothing of them faulted. */
static struct guard_region *
take_chunks_locked(size_t n, size_t *first)
{
	for (bool added = false;; added = true) {
		for (uint32_t k = 0; k < a32_load_relaxed(&space.dir.n); k++) {
			struct guard_region *g = &space.dir.region[k];
			*first = find_chunks(g, n);
			if (*first == g->n_chunks)
				continue;
			for (size_t i = 0; i < n; i++)
				if (!open_chunk(g, *first + i))
					return NULL;
			return g;
		}
		if (added || !add_region_locked(n))
			return NULL;
	}
}

static struct guard_record *
new_record(struct guard_region *g, uintptr_t data)
{
	struct guard_record *r = record_at(g, data);
	*r = (struct guard_record){ .data = data, .region = (uint8_t)(g - space.dir.region) };
	return r;
}

/* ---- take: slots of a class --------------------------------------------- */

static bool
cut_chunk_locked(size_t c)
{
	size_t i;
	struct guard_class *k = &space.class[c];
	struct guard_region *g = take_chunks_locked(1, &i);
	if (g == NULL)
		return false;
	uintptr_t chunk = g->base + i * space.chunk_bytes;
	if (!sys_fault((void *)chunk, space.page))
		return false;
	a32_store_release(&g->chunk[i], (uint32_t)(CHUNK_CLASS + c));
	k->next = chunk + space.page;
	k->left = (uint32_t)((space.chunk_bytes - space.page) / stride_of(c));
	return true;
}

/* GUARDSPACE-1: what a record says of its place is believed from here on. */
static void
must_be_sound(const struct guard_record *r)
{
	if (unlikely(!guardspace_sound(r)))
		die_corruption("GUARDSPACE-1", r);
}

/* Reports of faults may have taken a freed slot for good meanwhile. */
static struct guard_record *
pop_again_locked(struct record_list *l)
{
	struct guard_record *r;
	while ((r = list_pop(l)) != NULL) {
		uint32_t freed = GUARD_FREED;
		must_be_sound(r);
		if (a32_cas(&r->state, &freed, GUARD_BUSY))
			return r;
		if (freed != GUARD_REPORTED_FREED)
			die_corruption("GUARDSPACE-3", r);
	}
	return NULL;
}

static struct guard_record *
take_slot_locked(size_t pages, bool *fresh)
{
	size_t c = class_for(pages);
	struct guard_class *k = &space.class[c];
	struct guard_record *r = pop_again_locked(&k->again);
	*fresh = r == NULL;
	if (r != NULL)
		return r;
	r = list_pop(&k->bare);
	if (r != NULL)
		return r;
	if (k->left == 0 && !cut_chunk_locked(c))
		return NULL;
	r = new_record(region_of(k->next), k->next);
	k->next += stride_of(c);
	k->left--;
	a32_store_release(&r->state, GUARD_BUSY);
	return r;
}

/* ---- take: runs --------------------------------------------------------- */

static struct guard_record *
take_run_locked(size_t pages, bool *fresh)
{
	size_t i, n = align_up(pages + 2, CHUNK_OS_PAGES) / CHUNK_OS_PAGES;
	struct guard_region *g = take_chunks_locked(n, &i);
	*fresh = true;
	if (g == NULL)
		return NULL;
	struct guard_record *r = new_record(g, g->base + i * space.chunk_bytes + space.page);
	for (size_t k = 1; k < n; k++)
		a32_store_release(&g->chunk[i + k], (uint32_t)(CHUNK_BODY | k << 8));
	a32_store_release(&g->chunk[i], (uint32_t)(CHUNK_RUN | n << 8));
	a32_store_release(&r->state, GUARD_BUSY);
	return r;
}

static void
drop_run_locked(struct guard_record *r, enum guard_chunk kind)
{
	struct guard_region *g = &space.dir.region[r->region];
	size_t i = (r->data - g->base) / space.chunk_bytes;
	size_t n = chunk_word(g, r) >> 8;
	a32_store_release(&r->state, GUARD_UNUSED);
	for (size_t k = n; k-- > 0;)
		a32_store_release(&g->chunk[i + k], kind);
	if (i < g->first_free)
		g->first_free = i;
}

/* ---- quarantine --------------------------------------------------------- */

static void
empty_inbox_locked(void)
{
	struct guard_record *r = aptr_exchange(&space.inbox, NULL), *turned = NULL;
	while (r != NULL) {
		struct guard_record *next = r->next;
		r->next = turned;
		turned = r;
		r = next;
	}
	while (turned != NULL) {
		struct guard_record *next = turned->next;
		must_be_sound(turned);
		space.quarantined += whole_bytes(turned);
		list_push(&space.quarantine, turned);
		turned = next;
	}
}

/* Pages that the system would not fault at free are asked for once more. */
static bool
is_closed(struct guard_record *r)
{
	uintptr_t from = guardspace_open_start(r), end = guardspace_open_end(r);
	if ((r->flags & GUARD_OPEN) == 0)
		return true;
	if (!sys_fault((void *)from, end - from))
		return false;
	r->flags &= (uint8_t)~GUARD_OPEN;
	return true;
}

static void
release_locked(struct guard_record *r)
{
	const struct guard_region *g = &space.dir.region[r->region];
	uint32_t word = chunk_word(g, r), freed = GUARD_FREED;
	if (!guard_is_run(word))
		list_push(&space.class[(word & 0xff) - CHUNK_CLASS].again, r);
	else if (a32_cas(&r->state, &freed, GUARD_BUSY))
		drop_run_locked(r, CHUNK_FAULTED);
}

static void
release_oldest_locked(void)
{
	while (space.quarantined > space.config.quarantine_bytes) {
		struct guard_record *r = list_pop(&space.quarantine);
		if (r == NULL)
			return;
		must_be_sound(r);
		if (!is_closed(r)) {
			list_push(&space.quarantine, r);
			return;
		}
		space.quarantined -= whole_bytes(r);
		release_locked(r);
	}
}

/* ---- take --------------------------------------------------------------- */

static bool
fault_range(uintptr_t from, uintptr_t end)
{
	return from == end || sys_fault((void *)from, end - from);
}

static bool
open_range(uintptr_t from, uintptr_t end)
{
	if (from == end)
		return true;
	if (!sys_unfault((void *)from, end - from))
		return false;
	sys_used((void *)from, end - from);
	return true;
}

/* Everything of a fresh slot that is not the object's, with the guard behind it,
 * and of a run the one before. */
static bool
guard_fresh(struct guard_record *r, uintptr_t from, uintptr_t end)
{
	uintptr_t guard = r->data + guardspace_slot_bytes(r);
	bool run = guard_is_run(chunk_word(&space.dir.region[r->region], r));
	uintptr_t first = run ? r->data - space.page : r->data;
	if (!fault_range(first, from))
		return false;
	if (fault_range(end, guard + space.page))
		return true;
	if (!open_range(first, from))
		r->flags |= GUARD_STUCK;
	return false;
}

static bool
prepare(struct guard_record *r, bool fresh, uintptr_t from, uintptr_t end)
{
	return fresh ? guard_fresh(r, from, end) : open_range(from, end);
}

/* The slot waits for better times. One whose pages fault in part is never used: the
 * next object in it may lie elsewhere. */
static void
take_back_locked(struct guard_record *r, bool fresh)
{
	if ((r->flags & GUARD_STUCK) != 0)
		return;
	uint32_t word = chunk_word(&space.dir.region[r->region], r);
	struct guard_class *k = guard_is_run(word) ? NULL : &space.class[(word & 0xff) - CHUNK_CLASS];
	if (k == NULL) {
		drop_run_locked(r, CHUNK_FREE);
	} else if (fresh) {
		list_push(&k->bare, r);
	} else {
		a32_store_release(&r->state, GUARD_FREED);
		list_push(&k->again, r);
	}
}

static struct guard_record *
take_locked(size_t pages, bool *fresh)
{
	empty_inbox_locked();
	release_oldest_locked();
	return pages <= SLOT_PAGES_MAX ? take_slot_locked(pages, fresh) :
	    take_run_locked(pages, fresh);
}

struct guard_record *
guardspace_take(size_t bytes, size_t align)
{
	bool fresh;
	size_t pages = pages_for(bytes) + (align > space.page ? align / space.page : 0);
	if (!lock_space())
		return NULL;
	struct guard_record *r = take_locked(pages, &fresh);
	outer_unlock(&space.lock);
	if (r != NULL) {
		place(r, bytes, align);
		if (prepare(r, fresh, guardspace_open_start(r), guardspace_open_end(r)))
			return r;
		if (lock_space()) {
			take_back_locked(r, fresh);
			outer_unlock(&space.lock);
		}
	}
	a64_fetch_add(&space.unguarded, 1);
	return NULL;
}

/* ---- free --------------------------------------------------------------- */

void
guardspace_free(struct guard_record *r, bool faults)
{
	uintptr_t from = guardspace_open_start(r), end = guardspace_open_end(r);
	uint32_t freeing = GUARD_FREEING;
	void *head = aptr_load_relaxed(&space.inbox);
	r->flags &= (uint8_t)~GUARD_OPEN;
	if (!faults || !fault_range(from, end)) {
		r->flags |= GUARD_OPEN;
		sys_unused((void *)from, end - from);
		sys_used((void *)from, end - from);
	}
	if (!a32_cas(&r->state, &freeing, GUARD_FREED))
		return;                 /* given up */
	do {
		r->next = head;
	} while (!aptr_cas(&space.inbox, &head, r));
}

/* ---- find --------------------------------------------------------------- */

static struct guard_record *
used_record(const struct guard_region *g, uintptr_t data)
{
	struct guard_record *r = data != 0 ? record_at(g, data) : NULL;
	return r != NULL && a32_load_acquire(&r->state) != GUARD_UNUSED && r->data == data &&
	    r->region == g - space.dir.region ? r : NULL;
}

bool
guardspace_find(uintptr_t addr, struct guard_around *out)
{
	struct guard_region *g = region_of(addr);
	*out = (struct guard_around){ NULL, NULL, NULL };
	if (g == NULL)
		return false;
	size_t i = (addr - g->base) / space.chunk_bytes;
	uint32_t word = a32_load_acquire(&g->chunk[i]);
	if ((word & 0xff) == CHUNK_BODY && word >> 8 <= i) {
		i -= word >> 8;
		word = a32_load_acquire(&g->chunk[i]);
	}
	struct guard_slots s = guard_locate(word, g->base + i * space.chunk_bytes, space.page,
	    addr);
	out->in = used_record(g, s.in);
	out->before = used_record(g, s.before);
	out->behind = used_record(g, s.behind);
	return true;
}

const struct guard_directory *
guardspace_directory(void)
{
	return &space.dir;
}

void
guardspace_each(void (*fn)(struct guard_record *r, void *arg), void *arg)
{
	for (uint32_t k = 0; k < a32_load_acquire(&space.dir.n); k++) {
		const struct guard_region *g = &space.dir.region[k];
		for (size_t i = 0; i < g->n_chunks; i++) {
			uint32_t word = a32_load_acquire(&g->chunk[i]);
			bool run = guard_is_run(word);
			if (!run && !guard_is_class(word))
				continue;
			struct guard_record *r = &g->record[i * GRANULES];
			for (size_t n = run ? 1 : GRANULES; n > 0; n--, r++)
				if (a32_load_acquire(&r->state) != GUARD_UNUSED)
					fn(r, arg);
		}
	}
}

void
guardspace_bounds(uintptr_t *lo, uintptr_t *hi)
{
	*lo = ADDR_LIMIT;
	*hi = 0;
	for (uint32_t k = 0; k < a32_load_acquire(&space.dir.n); k++) {
		const struct guard_region *g = &space.dir.region[k];
		*lo = g->base < *lo ? g->base : *lo;
		*hi = g->base + g->bytes > *hi ? g->base + g->bytes : *hi;
	}
}

void
guardspace_each_range(void (*fn)(uintptr_t start, uintptr_t end, void *arg), void *arg)
{
	for (uint32_t k = 0; k < a32_load_acquire(&space.dir.n); k++) {
		const struct guard_region *g = &space.dir.region[k];
		size_t meta_bytes = meta_bytes_for(g->n_chunks);
		fn(g->base, g->base + g->bytes, arg);
		fn((uintptr_t)g->record, (uintptr_t)g->record + meta_bytes, arg);
	}
}

/* ---- giving up, fork, figures ------------------------------------------- */

/* The guard before a slot is the one behind the slot before it, if there is one. */
static void
open_guard_before_locked(struct guard_record *r)
{
	struct guard_around near;
	uintptr_t at = r->data - space.page;
	guardspace_find(at, &near);
	struct guard_record *owner = near.before != NULL ? near.before : r;
	uint8_t bit = near.before != NULL ? GUARD_BEHIND_OPENED : GUARD_BEFORE_OPENED;
	bool fresh = (owner->opened & bit) == 0;
	owner->opened |= bit;
	if (fresh)
		open_range(at, r->data);
}

static void
open_guard_behind_locked(struct guard_record *r, uintptr_t end)
{
	bool fresh = (r->opened & GUARD_BEHIND_OPENED) == 0;
	r->opened |= GUARD_BEHIND_OPENED;
	if (fresh)
		open_range(end, end + space.page);
}

static void
give_up_locked(struct guard_record *r)
{
	uint32_t state = a32_load_acquire(&r->state), to;
	uintptr_t end = r->data + guardspace_slot_bytes(r);
	do {
		if (state < GUARD_LIVE || state >= GUARD_REPORTED)
			return;
		to = state == GUARD_LIVE ? GUARD_REPORTED : GUARD_REPORTED_FREED;
	} while (!a32_cas(&r->state, &state, to));
	open_guard_before_locked(r);
	open_guard_behind_locked(r, end);
	if (state == GUARD_FREED && (r->flags & GUARD_OPEN) == 0) {
		open_range(r->data, end);
		return;
	}
	open_range(r->data, guardspace_open_start(r));
	open_range(guardspace_open_end(r), end);
}

bool
guardspace_give_up(struct guard_record *r)
{
	if (!lock_space())
		return false;
	give_up_locked(r);
	outer_unlock(&space.lock);
	return true;
}

void
guardspace_fork_prepare(void)
{
	mutex_lock(&space.lock.lock);
}

void
guardspace_fork_parent(void)
{
	mutex_unlock(&space.lock.lock);
}

void
guardspace_fork_child(void)
{
	mutex_reset(&space.lock.lock);
}

void
guardspace_read_stats(struct guardspace_stats *out)
{
	*out = (struct guardspace_stats){ .regions = a32_load_acquire(&space.dir.n),
		.unguarded = a64_load_relaxed(&space.unguarded),
		.quarantine_bytes = space.quarantined };
	for (size_t k = 0; k < out->regions; k++)
		out->bytes += space.dir.region[k].bytes;
}
