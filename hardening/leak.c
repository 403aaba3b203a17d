/* leak.c - see leak.h.
 *
 *   leak_check -> mark_run
 *     begin    ignored objects that are there still become roots
 *     (world stopped)  on_unmarked: each lost object with its stack, into scratch
 *     end      sort, group, suppress, write, and remember what was found
 *
 * What the last check found is kept inverted, so that it is no pointer. */
#include "leak.h"

#include <string.h>

#include "leaklist.h"
#include "leaknames.h"
#include "leakpropose.h"
#include "leaksuppress.h"
#include "mark.h"
#include "roots.h"
#include "../src/facts.h"
#include "../src/log.h"
#include "../src/marena.h"
#include "../src/mcache.h"
#include "../src/mspan.h"
#include "../src/print.h"
#include "../src/proc.h"
#include "../src/report.h"
#include "../src/sys.h"
#include "../src/tls.h"

enum {
	LOST_FIRST = 4096,
	GROUPS_SHOWN = 1000,
	FLUSH_BYTES = 32 << 10,        /* of the reporter's 60 KiB, before the next group */
	IGNORED_FIRST = 256,
	RULE_CHARS = 65,
	WANTED = 1,
	WANTED_DELTA = 2,
};

struct ignored {
	uintptr_t base;                /* a root as long as it stands here */
	uint64_t serial;               /* of its record, 0: it has none */
};

static struct {
	struct leak_config config;
	struct ignored *ignored;
	size_t n_ignored, cap_ignored;
	uintptr_t *known;              /* lost at the last check, inverted, in order */
	size_t n_known, known_bytes;
	atomic_u64 wanted;             /* WANTED bits */
	atomic_u64 asker;              /* pid << 32 | descriptor, 0: nobody in particular */
} leak;

/* One check. */
struct check {
	bool delta;
	struct lost *lost;             /* in scratch memory */
	size_t n, cap;
	bool no_memory;
	struct mark_result marked;
	struct lost_group *groups;
	size_t n_groups, cap_groups;
	size_t reported_objects, reported_bytes;
	struct suppressions sup;       /* in scratch memory with this */
};

AT_ENDS void
leak_init(const struct leak_config *config)
{
	memset(&leak, 0, sizeof(leak));
	leak.config = *config;
}

/* ---- what is lost, with the world stopped ---- */

static bool
grow_lost(struct check *c)
{
	size_t cap = c->cap != 0 ? 2 * c->cap : LOST_FIRST;
	struct lost *more = stw_scratch_alloc(cap * sizeof(*more));
	if (more == NULL)
		return false;
	if (c->n != 0)
		memcpy(more, c->lost, c->n * sizeof(*more));
	stw_scratch_free(c->lost, c->cap * sizeof(*c->lost));
	c->lost = more;
	c->cap = cap;
	return true;
}

/* A room may hold back what the program has freed. */
static bool
is_freed(const struct mark_object *o)
{
	return o->span != NULL && hook_slot_freed(o->span, mspan_is_large(o->span) ? 0 :
	    (o->base - o->span->base) / o->span->elem_bytes);
}

static void
note_lost(const struct mark_object *o, void *arg)
{
	struct check *c = arg;
	struct room_object r;
	if (c->no_memory || is_freed(o))
		return;
	if (c->n == c->cap && !grow_lost(c)) {
		c->no_memory = true;
		return;
	}
	struct lost *l = &c->lost[c->n++];
	*l = (struct lost){ .base = o->base, .bytes = o->bytes, .indirect = o->indirect };
	if (!hook_object(o->base, &r) || r.base != o->base || r.kind == ROOM_HEAP)
		return;
	l->bytes = r.bytes;
	l->pcs = r.allocated.frames != 0 ? r.allocated.pcs : NULL;
	l->frames = r.allocated.frames;
	l->tid = r.allocated.tid;
}

/* ---- ignored objects ---- */

static uint64_t
serial_of(uintptr_t base)
{
	struct room_object r;
	return hook_object(base, &r) && r.base == base && r.live ? r.serial : 0;
}

static void
drop_stale_ignored(void)
{
	size_t n = 0;
	for (size_t i = 0; i < leak.n_ignored; i++)
		if (serial_of(leak.ignored[i].base) == leak.ignored[i].serial)
			leak.ignored[n++] = leak.ignored[i];
	for (size_t i = n; i < leak.n_ignored; i++)
		leak.ignored[i].base = 0;
	leak.n_ignored = n;
}

static bool
grow_ignored(void)
{
	size_t cap = leak.cap_ignored != 0 ? 2 * leak.cap_ignored : IGNORED_FIRST;
	size_t have = align_up(leak.cap_ignored * sizeof(*leak.ignored), sys_page_bytes());
	struct ignored *more = sys_alloc(align_up(cap * sizeof(*more), sys_page_bytes()));
	if (more == NULL)
		return false;
	if (have != 0) {
		memcpy(more, leak.ignored, leak.n_ignored * sizeof(*more));
		sys_free(leak.ignored, have, SYS_READY);
	}
	leak.ignored = more;
	leak.cap_ignored = cap;
	return true;
}

/* The first byte of the live object that p points into, 0: there is none. */
static uintptr_t
object_at(uintptr_t p)
{
	struct room_object r;
	const struct mspan *s = arena_of(p) != NULL ? arena_span_containing(p) : NULL;
	if (s == NULL)
		return hook_object(p, &r) && r.live && p - r.base < r.bytes ? r.base : 0;
	size_t idx = mspan_is_large(s) ? 0 : (p - s->base) / s->elem_bytes;
	while (mspan_is_tiny(s) && idx % TINY_BLOCK_GRANULES != 0 &&
	    (s->cont[idx / 64] >> (idx % 64) & 1) != 0)
		idx--;
	if (a32_load_acquire(&s->state) != SPAN_IN_USE || idx >= s->nelems ||
	    !mspan_slot_live(s, idx) || hook_slot_freed(s, idx))
		return 0;
	return mspan_is_large(s) ? s->base : s->base + idx * s->elem_bytes;
}

bool
leak_ignore(const void *p)
{
	uintptr_t base = object_at((uintptr_t)p);
	if (base == 0)
		return false;
	proc_world_lock();
	bool ok = leak.n_ignored < leak.cap_ignored || grow_ignored();
	if (ok)
		leak.ignored[leak.n_ignored++] = (struct ignored){ base, serial_of(base) };
	proc_world_unlock();
	return ok;
}

/* ---- what was known ---- */

static bool
is_known(uintptr_t base)
{
	size_t lo = 0, hi = leak.n_known;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (leak.known[mid] == ~base)
			return true;
		if (~leak.known[mid] < base)
			lo = mid + 1;
		else
			hi = mid;
	}
	return false;
}

/* l is in the order of addresses: all of one group. */
static void
remember(const struct lost *l, size_t n)
{
	size_t bytes = align_up((n + 1) * sizeof(*leak.known), sys_page_bytes());
	if (leak.known != NULL)
		sys_free(leak.known, leak.known_bytes, SYS_READY);
	leak.n_known = 0;
	leak.known_bytes = bytes;
	leak.known = sys_alloc(bytes);
	for (size_t i = 0; leak.known != NULL && i < n; i++)
		leak.known[leak.n_known++] = ~l[i].base;
}

/* Marks the old ones, remembers all, and, of a delta, keeps the new ones. */
static void
compare_with_known(struct check *c)
{
	size_t n = 0;
	for (size_t i = 0; i < c->n; i++)
		c->lost[i].old = is_known(c->lost[i].base);
	struct lost *plain = stw_scratch_alloc(c->n * sizeof(*plain));
	if (plain != NULL) {
		for (size_t i = 0; i < c->n; i++)
			plain[i] = (struct lost){ .base = c->lost[i].base };
		lost_sort(plain, c->n);
		remember(plain, c->n);
		stw_scratch_free(plain, c->n * sizeof(*plain));
	}
	for (size_t i = 0; c->delta && i < c->n; i++)
		if (!c->lost[i].old)
			c->lost[n++] = c->lost[i];
	if (c->delta)
		c->n = n;
}

/* ---- the report ---- */

static const struct lost *
sample_of(const struct check *c, const struct lost_group *g)
{
	return &c->lost[g->first];
}

/* The first that names this frame: its module, its function, as linked or as written. */
static struct suppression *
suppression_of_frame(struct check *c, uintptr_t pc)
{
	char plain[LEAKNAME_BYTES];
	const char *function, *module;
	if (!leaknames_look_up(pc, &function, &module))
		return NULL;
	struct suppression *s = suppress_find(&c->sup, function, module);
	if (s == NULL && function != NULL && leaknames_plain(function, plain, sizeof(plain)))
		s = suppress_find(&c->sup, plain, NULL);
	return s;
}

static struct suppression *
suppression_of(struct check *c, const struct lost_group *g)
{
	const struct lost *l = sample_of(c, g);
	struct suppression *s = NULL;
	for (uint32_t i = 0; c->sup.n != 0 && i < l->frames && s == NULL; i++)
		s = suppression_of_frame(c, l->pcs[i]);
	return s;
}

static void
judge_groups(struct check *c)
{
	for (size_t i = 0; i < c->n_groups; i++) {
		struct lost_group *g = &c->groups[i];
		struct suppression *s = suppression_of(c, g);
		g->suppressed = s != NULL;
		if (s != NULL) {
			s->objects += g->n;
			s->lost_bytes += g->bytes;
		} else {
			c->reported_objects += g->n;
			c->reported_bytes += g->bytes;
		}
	}
}

static void
put_group(struct print *p, const struct check *c, const struct lost_group *g)
{
	const struct lost *l = sample_of(c, g);
	print_str(p, g->indirect ? "Indirect leak of " : "Direct leak of ");
	print_dec(p, g->bytes);
	print_str(p, " byte(s) in ");
	print_dec(p, g->n);
	print_str(p, " object(s) allocated from:\n");
	if (l->pcs == NULL)
		print_str(p, "    (the stack was not recorded: set records=1)\n\n");
	else
		report_put_frames(p, l->pcs, l->frames);
	if (l->pcs != NULL) {
		p->len--;            /* the empty line comes behind this */
		print_str(p, "    suppression: ");
		leak_propose(p, c->lost, c->groups, c->n_groups, (size_t)(g - c->groups));
		print_str(p, "\n\n");
	}
}

static void
tell_json(const struct check *c, const struct lost_group *g)
{
	const struct lost *l = sample_of(c, g);
	const struct leak_facts facts = {
		.indirect = g->indirect, .bytes = g->bytes, .objects = g->n, .sample = l->base,
		.allocated = { .tid = l->tid, .frames = l->pcs != NULL ? l->frames : 0, .pcs = l->pcs },
	};
	report_leak_json(&facts);
}

static void
put_objects(struct print *p, const struct check *c)
{
	size_t shown = 0;
	print_str(p, "Objects leaked above:\n");
	for (size_t i = 0; i < c->n_groups; i++)
		for (size_t k = 0; !c->groups[i].suppressed && k < c->groups[i].n &&
		    shown < GROUPS_SHOWN; k++, shown++) {
			const struct lost *l = &c->lost[c->groups[i].first + k];
			print_hex(p, l->base);
			print_str(p, " (");
			print_dec(p, l->bytes);
			print_str(p, " bytes)\n");
			if (p->len > FLUSH_BYTES)
				log_write(p);
		}
	print_char(p, '\n');
}

static void
put_rule(struct print *p)
{
	for (size_t i = 0; i < RULE_CHARS; i++)
		print_char(p, '=');
	print_char(p, '\n');
}

static void
compose(struct print *p, void *arg)
{
	struct check *c = arg;
	size_t shown = 0;
	judge_groups(c);
	if (c->reported_objects == 0)
		return;
	put_rule(p);
	report_put_error(p);
	print_str(p, c->delta ? "detected memory leaks since the last check\n\n" :
	    "detected memory leaks\n\n");
	for (size_t i = 0; i < c->n_groups && shown < GROUPS_SHOWN; i++) {
		if (c->groups[i].suppressed)
			continue;
		put_group(p, c, &c->groups[i]);
		tell_json(c, &c->groups[i]);
		shown++;
		if (p->len > FLUSH_BYTES)
			log_write(p);
	}
	put_objects(p, c);
	suppress_put_used(p, &c->sup);
	print_str(p, "Still reachable: ");
	print_dec(p, c->marked.marked_bytes);
	print_str(p, " byte(s) in ");
	print_dec(p, c->marked.marked_objects);
	print_str(p, " allocation(s).\nSUMMARY: spanguard: ");
	print_dec(p, c->reported_bytes);
	print_str(p, " byte(s) leaked in ");
	print_dec(p, c->reported_objects);
	print_str(p, " allocation(s).\n");
}

/* ---- a check ---- */

static bool
begin(struct mark_request *req)
{
	(void)req;
	drop_stale_ignored();
	return true;
}

static void
report_lost(struct check *c)
{
	compare_with_known(c);
	lost_sort(c->lost, c->n);
	c->cap_groups = lost_count_groups(c->lost, c->n);
	c->groups = stw_scratch_alloc(c->cap_groups * sizeof(*c->groups));
	if (c->groups == NULL) {
		c->no_memory = true;
		return;
	}
	c->n_groups = lost_group(c->lost, c->n, c->groups, c->cap_groups);
	if (!suppress_load(&c->sup, leak.config.suppressions))
		report_warn("cannot read the file of leak_suppressions: ",
		    leak.config.suppressions, NULL);
	report_note(compose, c);
	suppress_drop(&c->sup);
	leaknames_forget();
	stw_scratch_free(c->groups, c->cap_groups * sizeof(*c->groups));
}

static void
end(struct mark_request *req, bool ok)
{
	struct check *c = req->arg;
	if (ok && !c->no_memory)
		report_lost(c);
	stw_scratch_free(c->lost, c->cap * sizeof(*c->lost));
}

static int
run(bool delta, bool no_wait)
{
	struct check c = { .delta = delta };
	struct mark_request req = { .no_wait = no_wait, .classify = true, .begin = begin,
		.end = end, .on_unmarked = note_lost, .arg = &c };
	if (!mark_run(&req, &c.marked))
		return -1;
	if (c.no_memory) {
		report_warn("a leak check was given up: no memory for its list", NULL);
		return -1;
	}
	return c.reported_objects < INT32_MAX ? (int)c.reported_objects : INT32_MAX;
}

int
leak_check(bool delta)
{
	return run(delta, false);
}

/* ---- on demand of a signal ---- */

bool
leak_wanted(void)
{
	return a64_load_relaxed(&leak.wanted) != 0;
}

/* Who asked gets a last line in any case. */
static void
answer(int lost)
{
	char text[128];
	struct print p;
	print_init(&p, text, sizeof(text));
	print_str(&p, "spanguard: leak check done: ");
	if (lost < 0)
		print_str(&p, "none was possible");
	else
		print_dec(&p, (uint64_t)lost);
	print_str(&p, lost < 0 ? "\n" : " object(s) lost\n");
	log_write(&p);
}

/* See pinned_pass for who may. */
void
leak_if_wanted(void)
{
	const struct mcache *c = mcache_self();
	if (c == NULL || c->busy != CACHE_IDLE)
		return;
	uint64_t wanted = a64_exchange(&leak.wanted, 0);
	if (wanted == 0)
		return;
	if (!proc_world_trylock()) {
		a64_fetch_or(&leak.wanted, wanted);
		return;
	}
	proc_world_unlock();
	uint64_t asker = a64_exchange(&leak.asker, 0);
	log_answer_to((int)(asker >> 32), (int)(asker & INT32_MAX));
	int lost = run((wanted & WANTED_DELTA) != 0, true);
	if (asker != 0)
		answer(lost);
	log_answer_to(0, 0);
}

void
leak_from_signal(bool delta, int pid, int fd)
{
	if (pid > 0 && fd >= 0)
		a64_store_release(&leak.asker, (uint64_t)pid << 32 | (uint64_t)fd);
	a64_fetch_or(&leak.wanted, delta ? WANTED | WANTED_DELTA : WANTED);
	leak_if_wanted();
}
