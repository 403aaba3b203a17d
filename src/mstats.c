/* mstats.c - see mstats.h. */
#include "mstats.h"

#include <string.h>

#include "log.h"
#include "marena.h"
#include "mcache.h"
#include "mheap.h"
#include "mspan.h"
#include "proc.h"
#include "sys.h"
#include "tls.h"
#include "../hardening/hooks.h"

void
mstats_each_span(void (*fn)(struct mspan *s, void *arg), void *arg)
{
	struct heap_arena *a = aptr_load_acquire(&arena_map.all);
	for (; a != NULL; a = a->next)
		for (size_t w = 0; w < ARENA_WORDS; w++) {
			uint64_t bits = a64_load_acquire(&a->page_in_use[w]);
			for (; bits != 0; bits &= bits - 1) {
				struct mspan *s = aptr_load_acquire(&a->spans[w * 64 + ctz64(bits)]);
				if (s != NULL)
					fn(s, arg);
			}
		}
}

static size_t
window_slots(const struct mspan *s)
{
	const struct mcache *c = aptr_load_acquire(&s->owner);
	if (c == &mcache_none || c == NULL)
		return 0;
	const struct mcache_alloc *a = &c->alloc[s->span_class];
	return a->span == s ? a->n : 0;
}

/* Of tiny objects, the first granule and those that continue it. */
static size_t
tiny_live_bytes(const struct mspan *s)
{
	size_t n = 0;
	for (size_t w = 0; w < s->nwords; w++) {
		uint64_t v = a64_load_relaxed(&s->bits[w].live) & ~a64_load_relaxed(&s->bits[w].remote);
		for (unsigned i = 1; i < TINY_BLOCK_GRANULES; i++)
			v |= v << 1 & s->cont[w];
		n += popcount64(v);
	}
	return n * TINY_GRANULE_BYTES;
}

static void
count_span(struct mspan *s, void *arg)
{
	struct spanguard_stats *out = arg;
	size_t live = mspan_live_count(s), waiting = hook_slots_freed(s);
	live -= waiting < live ? waiting : live;
	size_t live_bytes = mspan_is_tiny(s) ? tiny_live_bytes(s) : live * s->elem_bytes;
	size_t unit = mspan_is_tiny(s) ? TINY_BLOCK_BYTES : s->elem_bytes;
	size_t free_bytes = (s->avail_n + window_slots(s)) * unit;
	size_t all_bytes = s->nelems * s->elem_bytes;
	out->spans++;
	out->span_bytes += mspan_bytes(s);
	out->live_objects += live;
	out->live_bytes += live_bytes;
	out->free_slot_bytes += free_bytes;
	if (mspan_is_large(s)) {
		out->large_objects += live;
		out->large_bytes += live_bytes;
	}
	/* what a running thread changes meanwhile may make the two sums disagree */
	if (free_bytes + live_bytes < all_bytes)
		out->freed_bytes += all_bytes - live_bytes - free_bytes;
}

static void
count_caches(struct mheap *h, struct spanguard_stats *out)
{
	for (struct mcache *c = mcache_first(); c != NULL; c = c->next) {
		if (c->heap != h)
			continue;
		out->threads += c->in_use && c->tid != 0;
		out->small_allocs += c->handed_out;
		for (unsigned spc = 0; spc < SPAN_CLASSES_ALL; spc++)
			out->small_allocs -= c->alloc[spc].n;
		out->page_cache_bytes += (uint64_t)popcount64(c->pages.pages) << PAGE_SHIFT;
	}
}

/* So that spans neither come nor go and slots do not move between their counts. */
static void
lock_tiers(struct mheap *h)
{
	mcache_lock_all();
	mutex_lock(&h->lock);
}

static void
unlock_tiers(struct mheap *h)
{
	mutex_unlock(&h->lock);
	mcache_unlock_all();
}

static void
read_tiers(struct mheap *h, struct spanguard_stats *out)
{
	memset(out, 0, sizeof(*out));
	mstats_each_span(count_span, out);
	count_caches(h, out);
	out->free_page_bytes = (uint64_t)h->pages.free_pages << PAGE_SHIFT;
	out->returned_bytes = (uint64_t)h->pages.scavenged_pages << PAGE_SHIFT;
	out->parked_bytes = hook_quarantine_bytes();
	out->reserved_bytes = h->reserved_bytes;
}

static void
read_rest(struct mheap *h, struct spanguard_stats *out)
{
	struct sys_stats sys;
	sys_read_stats(&sys);
	out->metadata_bytes = persistent_bytes(&h->meta) + hook_metadata_bytes();
	out->guard_bytes = sys.guard_bytes;
	out->guards_installed = sys.guards_installed;
	out->guards_skipped = sys.guards_skipped;
	out->large_allocs = a64_load_relaxed(&h->large_allocs);
	out->scavenged_bytes = a64_load_relaxed(&h->scavenged_pages) << PAGE_SHIFT;
	out->system_calls = sys.calls;
}

void
mstats_read(struct mheap *h, struct spanguard_stats *out)
{
	lock_tiers(h);
	read_tiers(h, out);
	unlock_tiers(h);
	read_rest(h, out);
}

void
mstats_read_process(struct spanguard_stats *out)
{
	if (mcache_slow_interrupted()) {
		read_tiers(&mheap_, out);
		read_rest(&mheap_, out);
		return;
	}
	proc_world_lock();
	mstats_read(&mheap_, out);
	proc_world_unlock();
}

/* The fields of struct spanguard_stats by name; all are uint64_t. */
static const struct stats_field {
	char name[24];
	uint16_t offset;
} fields[] = {
#define FIELD(f) { #f, (uint16_t)offsetof(struct spanguard_stats, f) }
	FIELD(live_bytes), FIELD(live_objects), FIELD(freed_bytes), FIELD(free_slot_bytes),
	FIELD(span_bytes), FIELD(spans), FIELD(parked_bytes), FIELD(large_bytes), FIELD(large_objects),
	FIELD(page_cache_bytes), FIELD(free_page_bytes), FIELD(returned_bytes),
	FIELD(reserved_bytes), FIELD(metadata_bytes), FIELD(guard_bytes),
	FIELD(guards_installed), FIELD(guards_skipped), FIELD(small_allocs),
	FIELD(large_allocs), FIELD(scavenged_bytes), FIELD(system_calls), FIELD(threads),
#undef FIELD
};

_Static_assert(ARRAY_LEN(fields) * sizeof(uint64_t) == sizeof(struct spanguard_stats),
    "every field of the statistics has its row");

/* Every field as OPEN name MIDDLE value CLOSE. */
static void
print_fields(const struct spanguard_stats *s, struct print *out, const char *open,
    const char *middle, const char *close)
{
	for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
		uint64_t v;
		memcpy(&v, (const char *)s + fields[i].offset, sizeof(v));
		print_str(out, open);
		print_str(out, fields[i].name);
		print_str(out, middle);
		print_dec(out, v);
		print_str(out, i + 1 < ARRAY_LEN(fields) ? close : "");
	}
}

void
mstats_print_json(const struct spanguard_stats *s, struct print *out)
{
	print_str(out, "{");
	print_fields(s, out, "\"", "\":", ",");
	print_str(out, "}");
}

void
mstats_print_xml(const struct spanguard_stats *s, struct print *out)
{
	print_str(out, "<spanguard");
	print_fields(s, out, " ", "=\"", "\"");
	print_str(out, "\"/>");
}

void
mstats_log(void)
{
	static char buf[2048];
	struct spanguard_stats s;
	struct print out;
	mstats_read_process(&s);
	print_init(&out, buf, sizeof(buf));
	print_str(&out, "spanguard: statistics ");
	mstats_print_json(&s, &out);
	print_str(&out, "\n");
	log_write(&out);
}
