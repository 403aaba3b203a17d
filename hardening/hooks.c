/* hooks.c - sets the rooms up from the options, and is the one place from which
 * the rooms that work on slots are called. */
#include "hooks.h"

#include <errno.h>

#include "../src/marena.h"
#include "../src/mheap.h"
#include "../src/mspan.h"
#include "../src/options.h"
#include "../src/sys.h"
#include "canary.h"
#include "debug.h"
#include "fault.h"
#include "guard.h"
#include "guardmode.h"
#include "guardspace.h"
#include "leak.h"
#include "patrol.h"
#include "pinned.h"
#include "profile.h"
#include "quarantine.h"
#include "redzone.h"
#include "ring.h"
#include "root.h"
#include "roots.h"
#include "sample.h"
#include "seal.h"
#include "sidetable.h"
#include "stoptheworld.h"
#include "valgrind.h"
#include "zero.h"
#include "zerosize.h"

/* No room wants more of a call than strict's: no records, no ring, no object that
 * has its own place, no Valgrind. */
static bool only_strict;

uint32_t
hooks_tail_bytes(void)
{
	if (valgrind_is_on())
		return VALGRIND_TAIL_BYTES;
	return options.records && options.redzone ? REDZONE_BYTES : options.canary ? CANARY_BYTES : 0;
}

static void
records_init(void)
{
	const struct side_config side = {
		.on = options.records,
		.stack_depth = options.stack_depth,
		.depot_bytes = options.depot_bytes,
		.break_on_alloc = options.break_on_alloc,
	};
	const struct debug_config debug = {
		.redzone = options.records && options.redzone,
		.mismatch = options.mismatch,
		.fill_alloc = (uint8_t)options.fill_alloc,
		.fill_free = (uint8_t)options.fill_free,
		.fill_max_bytes = options.fill_max_bytes,
		.wait_bytes = options.slot_quarantine_bytes,
		.wait_share = options.slot_quarantine_share,
	};
	const struct profile_config profile = {
		.every_bytes = options.records ? options.profile : 0,
		.file = options.profile_file,
	};
	sidetable_init(&side);
	profile_init(&profile);
	debug_init(&debug);
}

static void
init_guardmode(void)
{
	const struct guardmode_config g = {
		.on = options.guard_objects,
		.left = options.guard_side == OPT_GUARD_LEFT,
		.go_on = !options.halt_on_error,
		.mismatch = options.mismatch,
		.align = options.guard_align,
		.quarantine_bytes = options.guard_quarantine_bytes,
		.seed = options.seed,
	};
	guardmode_init(&g);
}

void
hooks_init(struct mheap *h)
{
	struct quarantine_config q = {
		.bytes = options.span_quarantine_bytes,
		.share_percent = options.span_quarantine_share,
		.fault = options.span_quarantine_fault,
		.take_over = true,
		.zeroed = options.zero_on_free,
		.seed = options.seed,
	};
	quarantine_init(&q);
	const struct pinned_config pinned = {
		.on = options.quarantine == OPT_QUARANTINE_MARK,
		.fault = options.span_quarantine_fault,
		.report = options.mark_report,
		.resident_bytes = options.span_quarantine_bytes,
		.most_bytes = options.mark_most_bytes,
		.pass_bytes = options.mark_pass_bytes,
		.pass_percent = options.mark_pass_percent,
		.pass_spans = options.mark_pass_spans,
	};
	pinned_init(&pinned);
	leak_init(&(struct leak_config){ .suppressions = options.leak_suppressions });
	guard_init(h, options.span_guards, options.large_guards, options.large_guards_both,
	    options.seed);
	guard_spans_both(options.span_guards_both);
	canary_init(options.canary, options.seed);
	zero_init(options.zero_on_free);
	patrol_init(options.patrol);
	ring_init(options.ring);
	records_init();
	if (options.records)
		fault_add_room(&debug_room);
	zerosize_init(options.zero_size_faults, options.seed);
	init_guardmode();
	if (options.guard_objects)
		fault_add_room(&guardmode_room);
	if (options.span_guards != 0 || options.large_guards != 0 || options.span_quarantine_fault ||
	    pinned.on)
		fault_add_room(&fault_heap);
	if (options.zero_size_faults)
		fault_add_room(&zerosize_room);
	if (options.sample != 0)
		fault_add_room(&sample_room);
	root_publish(options.guard_objects);
	only_strict = !options.records && !options.guard_objects && options.ring == 0 &&
	    !valgrind_is_on();
}

void
hooks_reset(void)
{
	only_strict = false;
	const struct quarantine_config none = { .seed = 1 };
	quarantine_init(&none);
	pinned_init(&(struct pinned_config){ .on = false });
	guard_off();
	canary_init(false, 1);
	zero_init(false);
	patrol_init(0);
	ring_init(0);
	zerosize_init(false, 1);
	sidetable_init(&(struct side_config){ 0 });
	profile_init(&(struct profile_config){ 0 });
	debug_init(&(struct debug_config){ 0 });
	guardmode_init(&(struct guardmode_config){ .on = false });
	sample_start(&(struct sample_config){ 0 });
	valgrind_reset();
	roots_reset();
	stw_reset();
}

void
hook_heap_after_fork_child(void)
{
	guard_after_fork_child();
	sidetable_after_fork_child();
	quarantine_after_fork_child();
}

/* Options do not change any more. */
void
hooks_start_sampling(void)
{
	const struct sample_config s = {
		.one_in = profile_is_on() ? 0 : options.sample,    /* they have no record */
		.go_on = options.sample_recover || !options.halt_on_error,
		.pause_factor = options.sample < SAMPLE_UNPACED ? 0 : SAMPLE_PAUSE_FACTOR,
		.stack_depth = options.stack_depth,
		.window_bytes = options.window_bytes,
		.seed = options.seed,
	};
	sample_start(&s);
}

void
hooks_start(void)
{
	hooks_start_sampling();
	stw_init();
	fault_start();
	if (!valgrind_is_on())          /* which knows no mseal */
		seal_start();
}

void
hooks_at_exit(void)
{
	guardmode_at_exit();
	profile_write();
}

void
hook_profile(void)
{
	profile_write();
}

bool
hook_span_new(struct mspan *s)
{
	if (unlikely(valgrind_is_on()))
		valgrind_new_span(s);
	return sidetable_span_new(s);
}

void
hook_span_release(struct mspan *s)
{
	sidetable_span_release(s);
}

INLINE bool
strict_alloc(const struct mspan *s, void *p, bool fresh)
{
	if (mspan_is_large(s))
		return fresh;
	if (fresh)
		zero_bring_in(s, p);
	if (unlikely(!zero_holds(s, p)))
		zero_check(s, p, "malloc");
	canary_write(s, p);
	return fresh || zero_is_on();
}

INLINE enum free_verdict
strict_free(struct mspan *s, void *p, enum malloc_api api)
{
	if (mspan_is_large(s))
		return FREE_NOW;
	if (unlikely(!canary_intact(s, p)))
		canary_report(s, p, malloc_api_name(api));
	zero_slot(s, p);
	return FREE_NOW;
}

static NOINLINE bool
noted_alloc(const struct mspan *s, void *p, size_t bytes, size_t align, enum malloc_api api,
    bool fresh)
{
	if (valgrind_is_on())
		valgrind_alloc(p, bytes, api);
	ring_note(p, bytes, api);
	if (sidetable_is_on())
		return debug_alloc(s, p, bytes, align, api, fresh);
	return strict_alloc(s, p, fresh);
}

bool
hook_slot_alloc(const struct mspan *s, void *p, size_t bytes, size_t align, enum malloc_api api,
    bool fresh)
{
	return only_strict ? strict_alloc(s, p, fresh) : noted_alloc(s, p, bytes, align, api, fresh);
}

static NOINLINE enum free_verdict
noted_free(struct mspan *s, size_t idx, void *p, enum malloc_api api)
{
	ring_note(p, 0, api);
	if (!sidetable_is_on())
		return strict_free(s, p, api);
	enum free_verdict v = debug_free(s, idx, api);
	if (unlikely(valgrind_is_on()) && v == FREE_NOW)
		valgrind_free(p);
	return v;
}

enum free_verdict
hook_slot_free(struct mspan *s, size_t idx, enum malloc_api api)
{
	void *p = (void *)(s->base + idx * s->elem_bytes);
	return only_strict ? strict_free(s, p, api) : noted_free(s, idx, p, api);
}

bool
hook_slot_freed(const struct mspan *s, size_t idx)
{
	return sidetable_freed(s, idx);
}

size_t
hook_slots_freed(const struct mspan *s)
{
	return sidetable_waiting(s);
}

void
hook_trim_begin(void)
{
	debug_flush();
}

void
hook_trim_end(void)
{
	sidetable_trim();
}

size_t
hook_metadata_bytes(void)
{
	return sidetable_bytes();
}

size_t
hook_slot_bytes(const struct mspan *s, size_t idx, size_t otherwise)
{
	const struct side_record *r = sidetable_record(s, idx);
	return r != NULL && side_serial(r) != 0 ? side_bytes(r, s->elem_bytes) : otherwise;
}

/* Slots in a window are free, like all that are not live. A live slot whose
 * canary is zero is on its way: cleared by a free whose remote bit is still to
 * come, or handed out and not yet written. Where freed memory is not cleared such
 * a one cannot be told from a changed one, so only free looks at canaries. */
const char *
hook_slot_check(const struct mspan *s, uintptr_t *where)
{
	if (sidetable_is_on())
		return debug_check(s, where);
	if (!(canary_is_on() || zero_is_on()) || mspan_is_large(s) || mspan_is_tiny(s) ||
	    a32_load_acquire(&s->state) != SPAN_IN_USE)
		return NULL;
	if (zero_is_on() && mspan_is_empty(s) && zero_span_holds(s))
		return NULL;
	for (size_t i = 0; i < s->nelems; i++) {
		const void *p = (const void *)(s->base + i * s->elem_bytes);
		*where = (uintptr_t)p;
		bool live = mspan_slot_live(s, i);
		if (live && zero_is_on() && !canary_intact(s, p) && !canary_absent(s, p))
			return "CANARY-1";
		if (!live && !zero_holds(s, p))
			return "ZERO-1";
	}
	*where = zero_tail_changed(s);
	return *where != 0 ? "ZERO-2" : NULL;
}

bool
hook_slot_explain(uintptr_t where, const char *api)
{
	size_t idx;
	const struct mspan *s = span_of(where);
	if (guardmode_explain(where, api) || debug_explain(where, api))
		return true;
	if (s == NULL || mspan_is_large(s))
		return false;
	if (where >= s->base + s->nelems * s->elem_bytes)
		return zero_tail_check(s, api);
	if (!mspan_slot(s, where, &idx) || idx >= s->nelems)
		return false;
	return mspan_slot_live(s, idx) ? canary_check(s, (const void *)where, api) :
	    zero_check(s, (const void *)where, api);
}

void *
hook_outside_alloc(size_t bytes, size_t align, bool noscan, bool refill, enum malloc_api api)
{
	if (only_strict && bytes != 0)
		return sample_maybe_alloc(bytes, align, noscan, refill);
	void *p = guardmode_alloc(bytes, align, noscan, api);
	if (p == NULL && unlikely(bytes == 0))
		p = zerosize_alloc(align);
	else if (p == NULL)
		p = sample_maybe_alloc(bytes, align, noscan, refill);
	if (unlikely(p != NULL))
		ring_note(p, bytes, api);
	return p;
}

enum outside_verdict
hook_outside_look(const void *p, enum malloc_api api, size_t *bytes, bool *noscan)
{
	enum outside_verdict v = guardmode_look(p, bytes, noscan);
	if (v == OUTSIDE_FOREIGN)
		v = sample_look(p, malloc_api_name(api), bytes, noscan);
	return v != OUTSIDE_FOREIGN ? v : zerosize_look(p);
}

enum outside_verdict
hook_outside_free(void *p, enum malloc_api api)
{
	enum outside_verdict v = guardmode_free(p, api);
	if (v == OUTSIDE_FOREIGN)
		v = sample_free(p, malloc_api_name(api));
	if (v == OUTSIDE_FOREIGN)
		v = zerosize_free(p);
	if (v == OUTSIDE_OK)
		ring_note(p, 0, api);
	return v;
}

void
hook_fork_child(void)
{
	guardspace_fork_child();
	debug_after_fork_child();
	guardmode_fork_child();
	sample_after_fork_child();
	zerosize_after_fork_child();
}

const char *
hook_outside_check(uintptr_t *where)
{
	const char *tag = guardmode_check(where);
	if (tag == NULL)
		tag = sample_check(where);
	return tag != NULL ? tag : zerosize_check();
}

void
hook_fork_prepare(void)
{
	debug_fork_prepare();
	guardspace_fork_prepare();
}

void
hook_fork_parent(void)
{
	guardspace_fork_parent();
	debug_fork_parent();
}

int
hook_leak_check(bool delta)
{
	return leak_check(delta);
}

int
hook_leak_ignore(const void *p)
{
	return leak_ignore(p) ? 0 : EINVAL;
}

void
hook_leak_from_signal(bool delta, int pid, int fd)
{
	leak_from_signal(delta, pid, fd);
}

void
hook_leak_if_wanted(void)
{
	if (leak_wanted())
		leak_if_wanted();
}
