/* sidetable.c - see sidetable.h. */
#include "sidetable.h"

#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../src/lock.h"
#include "../src/mcache.h"
#include "../src/persistentalloc.h"
#include "../src/sys.h"
#include "../src/tls.h"
#include "depot.h"
#include "profile.h"

static struct {
	struct side_config config;
	struct mutex lock;
	struct persistent memory;
	struct side_span *pool[SPAN_CLASSES_ALL];    /* under lock */
	atomic_u64 serial ALIGNED(CACHE_LINE);
} side;

/* ---- start -------------------------------------------------------------- */

AT_ENDS void
sidetable_init(const struct side_config *config)
{
	memset(&side, 0, sizeof(side));
	side.config = *config;
	side.lock = (struct mutex)MUTEX_INIT(LOCK_SIDE);
	persistent_init(&side.memory);
	if (!config->on)
		return;
	callstack_init();
	depot_init(config->stack_depth != 0 ? config->depot_bytes : 0);
}

bool
sidetable_is_on(void)
{
	return side.config.on;
}

void
sidetable_after_fork_child(void)
{
	mutex_reset(&side.lock);
	mutex_reset(&side.memory.lock);
}

/* ---- blocks ------------------------------------------------------------- */

static size_t
head_bytes(size_t nwords)
{
	return align_up(sizeof(struct side_span) + nwords * sizeof(uint64_t), CACHE_LINE / 2);
}

static struct side_span *
take_block(unsigned span_class, size_t bytes)
{
	mutex_lock(&side.lock);
	struct side_span *b = side.pool[span_class];
	if (b != NULL)
		side.pool[span_class] = b->next_free;
	else
		b = persistent_alloc(&side.memory, bytes, CACHE_LINE);
	mutex_unlock(&side.lock);
	return b;
}

bool
sidetable_span_new(struct mspan *s)
{
	size_t records = s->nelems * sizeof(struct side_record);
	size_t head = head_bytes(s->nwords);
	s->side = NULL;
	if (!side.config.on || mspan_is_tiny(s))
		return true;
	struct side_span *b = take_block(s->span_class, head + records);
	if (b == NULL)
		return false;
	b->bytes = head + records;
	b->trimmed = false;
	b->nelems = s->nelems;
	b->nwords = s->nwords;
	b->records = (struct side_record *)((char *)b + head);
	memset(b->freed, 0, s->nwords * sizeof(uint64_t));
	memset(b->records, 0, records);
	s->side = b;
	return true;
}

void
sidetable_span_release(struct mspan *s)
{
	struct side_span *b = s->side;
	if (b == NULL)
		return;
	s->side = NULL;
	mutex_lock(&side.lock);
	b->next_free = side.pool[s->span_class];
	side.pool[s->span_class] = b;
	mutex_unlock(&side.lock);
}

/* Under the lock nobody takes one; the first page holds the link. */
void
sidetable_trim(void)
{
	size_t page = sys_page_bytes();
	mutex_lock(&side.lock);
	for (unsigned i = 0; i < SPAN_CLASSES_ALL; i++)
		for (struct side_span *b = side.pool[i]; b != NULL; b = b->next_free) {
			uintptr_t from = align_up((uintptr_t)(b + 1), page);
			uintptr_t to = align_down((uintptr_t)b + b->bytes, page);
			if (b->trimmed || to <= from)
				continue;
			b->trimmed = true;
			sys_unused((void *)from, to - from);
			sys_used((void *)from, to - from);
		}
	mutex_unlock(&side.lock);
}

size_t
sidetable_bytes(void)
{
	struct depot_stats d;
	if (!side.config.on)
		return 0;
	depot_read_stats(&d);
	return persistent_bytes(&side.memory) + (size_t)d.bytes;
}

/* ---- records ------------------------------------------------------------ */

struct side_record *
sidetable_record(const struct mspan *s, size_t idx)
{
	struct side_span *b = s->side;
	return b != NULL && idx < b->nelems ? &b->records[idx] : NULL;
}

bool
sidetable_freed(const struct mspan *s, size_t idx)
{
	const struct side_span *b = s->side;
	return b != NULL && idx < b->nelems &&
	    (a64_load_acquire(&b->freed[idx / 64]) >> (idx % 64) & 1) != 0;
}

uint64_t
sidetable_waiting_word(const struct mspan *s, size_t word)
{
	const struct side_span *b = s->side;
	return b == NULL || word >= b->nwords ? 0 : a64_load_acquire(&b->freed[word]) &
	    a64_load_acquire(&s->bits[word].live) & ~a64_load_acquire(&s->bits[word].remote);
}

size_t
sidetable_waiting(const struct mspan *s)
{
	size_t n = 0;
	for (size_t w = 0; s->side != NULL && w < s->nwords; w++)
		n += popcount64(sidetable_waiting_word(s, w));
	return n;
}

bool
sidetable_live(const struct mspan *s, size_t idx)
{
	const struct side_record *r = sidetable_record(s, idx);
	return r != NULL && mspan_slot_live(s, idx) && side_serial(r) != 0 &&
	    !sidetable_freed(s, idx);
}

uint32_t
sidetable_stack_here(void)
{
	uintptr_t pcs[DEPOT_FRAMES];
	unsigned depth = side.config.stack_depth;
	struct mcache *c = mcache_self();
	if (depth == 0)
		return 0;
	if (c == NULL)
		return depot_put(pcs, callstack(NULL, NULL, pcs, depth));
	if (unlikely(c->stack.tid != c->tid))
		c->stack = (struct callstack_thread){ .tid = c->tid };
	return depot_put(pcs, callstack(&c->stack, c->call_frame, pcs, depth));
}

uint64_t
sidetable_serial(void)
{
	return a64_load_relaxed(&side.serial);
}

int
sidetable_tid(void)
{
	const struct mcache *c = mcache_self();
	return c != NULL ? c->tid : sys_gettid();
}

static struct side_who
who(enum malloc_api api, size_t align)
{
	int tid = sidetable_tid();
	unsigned log = ctz64(align);
	return (struct side_who){ .tid = (uint32_t)tid & ((1u << 22) - 1), .api = api & 31u,
		.align = (log < 31 ? log : 31) & 31u };
}

/* For a debugger; without one the program ends here by SIGTRAP. */
static NOINLINE void
stop_here(void)
{
	syscall(SYS_tgkill, syscall(SYS_getpid), sys_gettid(), SIGTRAP);
}

void
sidetable_write_alloc(struct side_record *r, size_t bytes, size_t slack, size_t align,
    enum malloc_api api)
{
	r->alloc_stack = profile_takes(bytes) ? sidetable_stack_here() : 0;
	profile_alloc(r->alloc_stack, bytes);
	r->alloc = who(api, align);
	a64_store_relaxed(&r->free_serial, 0);
	uint64_t serial = a64_fetch_add(&side.serial, 1) + 1;
	a64_store_release(&r->serial_slack, serial << SIDE_SLACK_BITS | slack);
	if (unlikely(serial == side.config.break_on_alloc))
		stop_here();
}

void
sidetable_alloc(const struct mspan *s, size_t idx, size_t bytes, size_t align,
    enum malloc_api api)
{
	struct side_span *b = s->side;
	if (b == NULL)
		return;
	sidetable_write_alloc(&b->records[idx], bytes, s->elem_bytes - bytes, align, api);
	a64_fetch_and(&b->freed[idx / 64], ~((uint64_t)1 << (idx % 64)));
}

bool
sidetable_claim_free(const struct mspan *s, size_t idx)
{
	struct side_span *b = s->side;
	uint64_t bit = (uint64_t)1 << (idx % 64);
	return (a64_fetch_or(&b->freed[idx / 64], bit) & bit) == 0;
}

void
sidetable_write_free(struct side_record *r, size_t bytes, enum malloc_api api)
{
	r->free_stack = profile_takes_frees() ? sidetable_stack_here() : 0;
	profile_free(r->alloc_stack, bytes);
	r->freed = who(api, MALLOC_ALIGN);
	a64_store_release(&r->free_serial, sidetable_serial());
}

/* ---- for reports -------------------------------------------------------- */

static struct room_trace
trace_of(uint32_t tid, uint32_t stack)
{
	struct room_trace t = { .tid = (int)tid };
	t.pcs = depot_get(stack, &t.frames);
	return t;
}

void
sidetable_describe(const struct side_record *r, uintptr_t base, size_t elem_bytes,
    struct room_object *out)
{
	uint64_t free_serial = a64_load_acquire(&r->free_serial);
	*out = (struct room_object){ .kind = ROOM_RECORDED, .base = base,
		.bytes = side_bytes(r, elem_bytes), .live = free_serial == 0,
		.serial = side_serial(r), .free_serial = free_serial };
	out->api = malloc_api_name((enum malloc_api)r->alloc.api);
	out->allocated = trace_of(r->alloc.tid, r->alloc_stack);
	if (free_serial == 0)
		return;
	out->free_api = malloc_api_name((enum malloc_api)r->freed.api);
	out->freed = trace_of(r->freed.tid, r->free_stack);
}
