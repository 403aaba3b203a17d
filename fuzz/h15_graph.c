/* h15_graph.c - H15: a graph of objects, and what mark and leak check say of it.
 *
 *   global, TLS, stack, mapping, another thread's stack, a registered range
 *        |  (a word, or a packed one that must not count)
 *        v
 *   object --link: a word at some offset, to some byte--> object --> ...
 *
 * The model keeps every address inverted, so that nothing but the words above is a
 * pointer, and computes by itself what they reach: noscan objects lead nowhere,
 * freed ones neither, an address anywhere inside of a live object counts. An address
 * in the rest of an object's memory behind what was asked for may count or not.
 *
 *   mark    each reachable object is marked, each other one is not; their numbers;
 *           indirect as LeakSanitizer has it; both passes agree
 *   leak    number, direct and indirect, bytes where records keep them; JSON besides
 *   watch   words into what was freed, and the text that says where one stands
 *   many    lists that grow, and what is refused (graph_many.c)
 *   mode quarantine=mark: freed memory that a word points into is not handed out
 *
 * The world that is stopped and its maps are the real ones; the heap lies in the
 * simulated system. Built with a sanitizer, frames keep copies of what they once
 * held: there an object that should be lost may be found. */
#define _GNU_SOURCE
#include "fheap.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../include/spanguard.h"
#include "../hardening/hooks.h"
#include "../hardening/leak.h"
#include "../hardening/mark.h"
#include "../hardening/markreport.h"
#include "../hardening/roots.h"
#include "../hardening/stoptheworld.h"
#include "api.h"
#include "fake_die.h"
#include "graph_many.h"
#include "log.h"
#include "mcache.h"
#include "mheap.h"
#include "reporttext.h"

enum {
	LINKS = 6,
	SLOTS = 4,                     /* words of each place */
	DEAD = 8,
	MAP_BYTES = 1 << 20,
	SHARED_BYTES = 1 << 14,
	SHIELD_BYTES = 16 << 20,
	UNMARKED_MAX = 1024,
	TRIES = 4,
	LARGE_BYTES = 1 << 16,         /* surely a span of its own */
	HIDDEN_NOTHING = 0,
};

#define PATIENT_NS ((uint64_t)60 * 1000000000)      /* a machine may be busy */

enum place { PLACE_GLOBAL, PLACE_TLS, PLACE_STACK, PLACE_MAPPING, PLACE_THREAD, PLACE_USER,
	PLACE_PACKED, PLACES };

enum op { OP_NEW, OP_NEW_NOSCAN, OP_NEW_LARGE, OP_NEW_HUSH, OP_LINK, OP_UNLINK, OP_ROOT,
	OP_UNROOT, OP_FREE, OP_MARK, OP_LEAK, OP_DELTA, OP_IGNORE, OP_CHECK, OP_WATCH,
	OP_SIGNAL, OP_ROOT_ADD, OP_ROOT_REMOVE, OP_TRIM, OP_VERIFY, OP_MANY, OPS };

static const char *const op_names[OPS] = { "new", "new_noscan", "new_large", "new_hush", "link",
	"unlink", "root", "unroot", "free", "mark", "leak", "delta", "ignore", "markcheck", "watch",
	"leak_signal", "root_add", "root_remove", "trim", "verify", "many" };

static const struct sgf_language language = {
	.op = { "new", "new_noscan", "new_large", "new_hush", "link", "unlink", "root", "unroot",
	    "free", "mark", "leak", "delta", "ignore", "markcheck", "watch", "leak_signal",
	    "root_add", "root_remove", "trim", "verify",
	    "new", "new", "new", "new_noscan", "link", "link", "link", "link", "root", "root",
	    "root", "unroot", "free", "free", "mark", "leak", "new_large", "link", "root", "free", "many" },
	.knob = { "quarantine=mark", "span quarantine", "guards", "stacks, report" },
};

struct link {
	uintptr_t hidden;              /* ~value; 0: none */
	size_t word;
};

struct node {
	uintptr_t hidden;              /* ~address */
	size_t asked, usable;
	uint64_t born;
	bool live, noscan, hush;
	struct link link[LINKS];
};

/* What was freed, quarantine=mark being on, and has had a pointer to it since. */
struct dead {
	uintptr_t hidden;
	size_t bytes;
};

struct ignored {
	uintptr_t hidden;
	uint64_t born;
};

static struct {
	struct sgf_header header;
	const struct sgf_op *op;
	struct node node[SGF_HANDLES];
	uintptr_t root[PLACES][SLOTS];         /* ~value; 0: none */
	bool user_added;
	struct dead dead[DEAD];
	size_t n_dead, n_freed;
	struct dead freed[DEAD];               /* large ones, for watch */
	struct ignored ignored[SGF_HANDLES];
	size_t n_ignored;
	uint64_t born;
	bool mark_mode, records, guarded, sampled;
	uint8_t must[SGF_HANDLES], may[SGF_HANDLES];
	uintptr_t unmarked[UNMARKED_MAX];      /* ~base */
	bool unmarked_indirect[UNMARKED_MAX];
	size_t n_unmarked;
	size_t said;
} g;

/* ---- where pointers stand ---- */

static void *volatile global_slots[SLOTS];
static _Thread_local void *volatile tls_slots[SLOTS];
static void *volatile *stack_slots, *volatile *thread_slots;
static char *mapping, *shared;
static char packed[SLOTS * 16 + 16];

static pthread_t helper;
static volatile bool helper_ready;

static void *
helper_main(void *arg)
{
	void *volatile here[SLOTS] = { NULL };

	(void)arg;
	thread_slots = here;
	__atomic_store_n(&helper_ready, true, __ATOMIC_RELEASE);
	for (;;)
		pause();
	return (void *)here[0];
}

/* Once in a process. */
static void
places_start(void)
{
	if (mapping != NULL)
		return;
	mapping = mmap(NULL, MAP_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	shared = mmap(NULL, SHARED_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (mapping == MAP_FAILED || shared == MAP_FAILED ||
	    pthread_create(&helper, NULL, helper_main, NULL) != 0)
		abort();
	while (!__atomic_load_n(&helper_ready, __ATOMIC_ACQUIRE))
		usleep(100);
	log_set_path("/dev/null");
	stw_first_slice_ns = PATIENT_NS;
}

static void *volatile *
place_at(enum place place, size_t i)
{
	switch (place) {
	case PLACE_GLOBAL: return &global_slots[i];
	case PLACE_TLS: return &tls_slots[i];
	case PLACE_STACK: return &stack_slots[i];
	case PLACE_MAPPING: return (void *volatile *)(void *)(mapping + 5 * 4096 * i + 72);
	case PLACE_THREAD: return &thread_slots[i];
	case PLACE_USER: return (void *volatile *)(void *)(shared + 2048 * i + 8);
	default: return NULL;
	}
}

SG_UNCHECKED static NOINLINE void
root_store(enum place place, size_t i, uintptr_t hidden)
{
	uintptr_t value = hidden != 0 ? ~hidden : 0;

	g.root[place][i] = hidden;
	if (place == PLACE_PACKED)
		memcpy(packed + 16 * i + 3, &value, sizeof(value));
	else
		*place_at(place, i) = (void *)value;
	value = 0;
	__asm__ volatile("" : : "r"(&value) : "memory");
}

/* ---- objects ---- */

static void
fail_if_pinned(uintptr_t base, size_t bytes)
{
	for (size_t i = 0; i < g.n_dead; i++) {
		uintptr_t lo = ~g.dead[i].hidden, hi = lo + g.dead[i].bytes;
		SG_CHECK(PINNED, base >= hi || base + bytes <= lo,
		    "an object of %zu bytes where a pointer to a freed one of %zu still leads", bytes,
		    g.dead[i].bytes);
	}
}

static NOINLINE void
admit(struct node *n, void *p, size_t bytes, bool noscan)
{
	if (p == NULL)
		return;
	*n = (struct node){ .hidden = ~(uintptr_t)p, .asked = bytes, .noscan = noscan, .live = true,
		.usable = sg_malloc_usable_size(p), .born = ++g.born };
	fail_if_pinned((uintptr_t)p, bytes);
	memset(p, 0, n->usable);
}

/* Leaks of this function are not reported. */
static NOINLINE void *
graph_hushed_malloc(size_t bytes)
{
	void *p = sg_malloc(bytes);

	NO_TAIL_CALL();
	return p;
}

__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void);
const char *
__lsan_default_suppressions(void)
{
	return "# of H15\nleak:no_such_function\nleak:^reporttext_hush*ed$\n";
}

static NOINLINE void
op_new(const struct sgf_op *op, enum op what)
{
	struct node *n = &g.node[op->handle];
	size_t bytes = 1 + op->imm % (op->a & 1 ? 256 : op->a & 2 ? 4096 : 32768);

	if (n->live)
		return;
	if (what == OP_NEW_LARGE)
		bytes = LARGE_BYTES + op->imm % (1 << 20);
	if (what == OP_NEW_NOSCAN && (op->a & 4))
		bytes = 1 + bytes % 16;
	if (what == OP_NEW_HUSH)
		admit(n, reporttext_hushed(graph_hushed_malloc, bytes), bytes, false);
	else if (what == OP_NEW_NOSCAN)
		admit(n, spanguard_malloc_noscan(bytes), bytes, true);
	else
		admit(n, sg_malloc(bytes), bytes, false);
	n->hush = what == OP_NEW_HUSH;
}

/* The value, inverted, of a pointer to byte imm % asked of object h. */
static uintptr_t
hidden_into(size_t h, uint32_t imm)
{
	const struct node *n = &g.node[h];

	return n->live ? ~(~n->hidden + (imm & 1 ? imm % n->asked : 0)) : 0;
}

SG_UNCHECKED static NOINLINE void
link_store(struct node *n, size_t word, uintptr_t hidden)
{
	((volatile uintptr_t *)~n->hidden)[word] = hidden != 0 ? ~hidden : 0;
}

static void
op_link(const struct sgf_op *op, bool unlink)
{
	struct node *n = &g.node[op->handle];
	size_t words = n->asked / sizeof(uintptr_t), i = op->b % LINKS;

	if (!n->live || words == 0)
		return;
	size_t word = op->b * (words - 1) / 255;
	uintptr_t hidden = unlink ? 0 : hidden_into(op->a, op->imm);
	for (size_t k = 0; k < LINKS; k++)
		if (n->link[k].word == word)
			n->link[k].hidden = 0;
	if (n->link[i].hidden != 0)
		link_store(n, n->link[i].word, 0);
	n->link[i] = (struct link){ hidden, word };
	link_store(n, word, hidden);
}

static NOINLINE void
op_free(const struct sgf_op *op)
{
	struct node *n = &g.node[op->handle];

	if (!n->live)
		return;
	n->live = false;
	struct dead d = { n->hidden, n->asked };
	sg_free((void *)~n->hidden);
	if (d.bytes < LARGE_BYTES || g.header.mode >= 128)
		return;
	g.freed[g.n_freed++ % DEAD] = d;
	if (g.mark_mode && g.n_dead < DEAD)
		g.dead[g.n_dead++] = d;
}

/* ---- the model ---- */

/* The live object that the address is in: its handle, else -1. sure: within what was
 * asked for; else close behind it, and nobody can tell from outside. */
static int
find(uintptr_t value, bool *sure)
{
	int close = -1;

	for (int h = 0; h < SGF_HANDLES; h++) {
		const struct node *n = &g.node[h];
		uintptr_t off = value - ~n->hidden;
		if (!n->live)
			continue;
		*sure = off < n->asked;
		if (*sure)
			return h;
		if (off < n->asked + n->asked / 2 + 128 || (n->asked > 16384 && off < n->asked + 16384))
			close = h;
	}
	*sure = false;
	return close;
}

struct walk {
	uint8_t *seen;
	int stack[SGF_HANDLES];
	int n;
	bool maybe;                    /* doubtful words count */
};

static void
visit(struct walk *w, uintptr_t hidden)
{
	bool sure;
	int h = hidden != 0 ? find(~hidden, &sure) : -1;

	if (h < 0 || (!sure && !w->maybe) || w->seen[h])
		return;
	w->seen[h] = 1;
	w->stack[w->n++] = h;
}

static void
visit_roots(struct walk *w)
{
	for (int p = 0; p < PLACE_PACKED; p++)
		for (int i = 0; i < SLOTS; i++)
			if (p != PLACE_USER || g.user_added)
				visit(w, g.root[p][i]);
	for (size_t i = 0; i < g.n_ignored; i++) {
		bool sure;
		int h = find(~g.ignored[i].hidden, &sure);
		if (h >= 0 && (w->maybe || (sure && g.node[h].born == g.ignored[i].born)))
			visit(w, g.ignored[i].hidden);
	}
}

static void
reach(uint8_t *seen, bool maybe)
{
	struct walk w = { .seen = seen, .maybe = maybe };

	memset(seen, 0, SGF_HANDLES);
	visit_roots(&w);
	while (w.n > 0) {
		const struct node *n = &g.node[w.stack[--w.n]];
		for (int i = 0; i < LINKS && !n->noscan; i++)
			visit(&w, n->link[i].hidden);
	}
}

/* Does another lost object point to h? 1 yes, 0 no, -1 nobody can tell. */
static int
is_indirect(int h)
{
	int answer = 0;

	for (int k = 0; k < SGF_HANDLES; k++) {
		const struct node *n = &g.node[k];
		for (int i = 0; i < LINKS && n->live && !n->noscan && k != h && !g.must[k]; i++) {
			bool sure;
			if (n->link[i].hidden == 0 || find(~n->link[i].hidden, &sure) != h)
				continue;
			if (sure && !g.may[k])
				return 1;
			answer = -1;
		}
	}
	return answer;
}

/* Words that lead into [lo, hi): of roots and of objects that are scanned. */
static size_t
words_into(uintptr_t lo, uintptr_t hi)
{
	size_t n = 0;

	for (int p = 0; p < PLACE_PACKED; p++)
		for (int i = 0; i < SLOTS; i++)
			n += g.root[p][i] != 0 && ~g.root[p][i] - lo < hi - lo &&
			    (p != PLACE_USER || g.user_added);
	for (int h = 0; h < SGF_HANDLES; h++)
		for (int i = 0; i < LINKS && g.node[h].live && !g.node[h].noscan; i++)
			n += g.node[h].link[i].hidden != 0 && ~g.node[h].link[i].hidden - lo < hi - lo;
	return n;
}

/* Once no word leads there it may be handed out, whatever comes later. */
static void
forget_unpinned(void)
{
	size_t n = 0;

	for (size_t i = 0; i < g.n_dead; i++)
		if (words_into(~g.dead[i].hidden, ~g.dead[i].hidden + g.dead[i].bytes) != 0)
			g.dead[n++] = g.dead[i];
	g.n_dead = n;
}

/* ---- mark ---- */

static void
note_unmarked(const struct mark_object *o, void *arg)
{
	(void)arg;
	if (o->span != NULL && hook_slot_freed(o->span, mspan_is_large(o->span) ? 0 :
	    (o->base - o->span->base) / o->span->elem_bytes))
		return;
	if (g.n_unmarked < UNMARKED_MAX) {
		g.unmarked_indirect[g.n_unmarked] = o->indirect;
		g.unmarked[g.n_unmarked++] = ~o->base;
	}
}

static int
unmarked_index(uintptr_t hidden)
{
	for (size_t i = 0; i < g.n_unmarked; i++)
		if (g.unmarked[i] == hidden)
			return (int)i;
	return -1;
}

static NOINLINE bool
mark_once(struct mark_request *req, struct mark_result *r)
{
	g.n_unmarked = 0;
	g.said = 0;
	return mark_run(req, r);
}

static NOINLINE bool
mark_scrubbed(struct mark_request *req, struct mark_result *r)
{
	sg_scrub_stack();
	bool ok = mark_once(req, r);
	NO_TAIL_CALL();
	return ok;
}

static void
say_reference(const struct mark_reference *r, void *arg)
{
	(void)arg;
	fprintf(stderr, "a pointer to it: %#lx at %#lx (global_slots%+ld), place %d, thread %d, object %#lx\n",
	    (unsigned long)r->value, (unsigned long)r->at, (long)(r->at - (uintptr_t)global_slots), (int)r->place, r->tid,
	    (unsigned long)r->object);
}

/* For who has to find out why. */
static void
say_who_has(int h)
{
	static struct mark_watch w;
	struct mark_request req = { .watch = &w, .n_watch = 1, .on_reference = say_reference };
	struct mark_result r;

	w = (struct mark_watch){ .base = ~g.node[h].hidden & ~(uintptr_t)4095,
	    .end = ~g.node[h].hidden + g.node[h].asked + 4096 };
	fprintf(stderr, "object at %#lx, %zu usable\n", (unsigned long)~g.node[h].hidden,
	    g.node[h].usable);
	mark_run(&req, &r);
}

/* The first object that is marked although nothing leads to it; -1: none. */
static int
first_kept(void)
{
	for (int h = 0; h < SGF_HANDLES; h++)
		if (g.node[h].live && !g.may[h] && unmarked_index(g.node[h].hidden) < 0)
			return h;
	return -1;
}

static void
check_marked(void)
{
	for (int h = 0; h < SGF_HANDLES; h++) {
		const struct node *n = &g.node[h];
		int at = n->live ? unmarked_index(n->hidden) : -1;
		SG_CHECK(GRAPH, at < 0 || !g.must[h], "object %d of %zu bytes is reached and not marked",
		    h, n->asked);
		int indirect = at >= 0 ? is_indirect(h) : -1;
		SG_CHECK(GRAPH, indirect < 0 || sg_with_asan || g.unmarked_indirect[at] == indirect,
		    "object %d of %zu bytes is lost, and taken for %s", h, n->asked,
		    indirect ? "direct" : "indirect");
		sg_note(g.must[h]);
	}
}

static NOINLINE void
op_mark(const struct sgf_op *op)
{
	struct mark_request req = { .classify = true, .check = op->a & 1,
		.on_unmarked = note_unmarked, .stack_objects = op->b & 1 ? 2 + op->b % 8 : 0 };
	struct mark_result r;
	int kept = -1;

	roots_way = (enum roots_way)(op->imm % 8 < 2 ? op->imm % 8 : ROOTS_WAY_SCAN);
	reach(g.must, false);
	reach(g.may, true);
	for (int i = 0; i == 0 || (kept >= 0 && i < TRIES); i++) {
		if (!mark_scrubbed(&req, &r))
			sg_fail(ORACLE_GRAPH, "no mark was possible");
		kept = first_kept();
	}
	if (kept >= 0 && !sg_with_asan)
		say_who_has(kept);
	SG_CHECK(GRAPH, kept < 0 || sg_with_asan, "object %d of %zu bytes is marked, nothing leads to it",
	    kept, kept >= 0 ? g.node[kept].asked : 0);
	check_marked();
	SG_CHECK(GRAPH, r.threads >= 1 && r.root_bytes > 0, "%zu threads, %zu bytes of roots", r.threads,
	    r.root_bytes);
	roots_way = ROOTS_WAY_SCAN;
}

/* ---- what points to freed memory ---- */

static struct mark_reference first_reference;

static void
note_reference(const struct mark_reference *r, void *arg)
{
	(void)arg;
	if (g.said++ == 0 || r->place != MARK_IN_STACK) {
		first_reference = *r;
		first_reference.at = ~r->at;
		first_reference.value = ~r->value;
		first_reference.object = ~r->object;
	}
}

static bool
is_unused(const struct dead *d)
{
	for (int h = 0; h < SGF_HANDLES; h++)
		if (g.node[h].live && ~g.node[h].hidden < ~d->hidden + d->bytes &&
		    ~d->hidden < ~g.node[h].hidden + g.node[h].asked)
			return false;
	return d->bytes != 0;
}

static NOINLINE void
report_reference(size_t n)
{
	char text[32];
	struct mark_reference r = first_reference;

	r.at = ~r.at;
	r.value = ~r.value;
	r.object = ~r.object;
	mark_report_reference(&r, n);
	snprintf(text, sizeof(text), "stands at 0x%lx", (unsigned long)r.at);
	SG_CHECK(WORDS, strstr(fake_note, text) != NULL && strstr(fake_note, "SUMMARY: ") != NULL,
	    "no '%s' in: %s", text, fake_note);
	memset(&r, 0, sizeof(r));
	__asm__ volatile("" : : "r"(&r) : "memory");
}

/* The caller has no address of it in a register. */
static NOINLINE void
watch(struct mark_watch *w, const struct dead *d)
{
	uintptr_t lo = ~d->hidden & ~(uintptr_t)(PAGE_SIZE - 1);

	*w = (struct mark_watch){ .base = lo, .end = lo + LARGE_BYTES };
}

/* *most: with what leak_ignore keeps, which may be found or not. */
static NOINLINE size_t
words_into_freed(const struct dead *d, size_t *most)
{
	struct mark_watch w;

	watch(&w, d);
	size_t n = words_into(w.base, w.end);
	*most = n;
	for (size_t i = 0; i < g.n_ignored; i++)
		*most += ~g.ignored[i].hidden - w.base < w.end - w.base;
	memset(&w, 0, sizeof(w));
	__asm__ volatile("" : : "r"(&w) : "memory");
	return n;
}

static NOINLINE void
op_watch(const struct sgf_op *op)
{
	static struct mark_watch w;
	const struct dead *d = &g.freed[op->b % DEAD];
	struct mark_request req = { .watch = &w, .n_watch = 1, .on_reference = note_reference,
		.check = op->a & 1 };
	struct mark_result r;

	if (!is_unused(d) || fake_sys_state((void *)~d->hidden) == SYS_NONE || g.guarded)
		return;
	size_t most, want = words_into_freed(d, &most);
	for (int i = 0; i < TRIES; i++) {
		watch(&w, d);
		if (!mark_scrubbed(&req, &r))
			sg_fail(ORACLE_GRAPH, "no mark was possible");
		if (w.references <= most)
			break;
	}
	SG_CHECK(GRAPH, w.references >= want && (sg_with_asan || w.references <= most),
	    "%zu words lead to what was freed, and %zu were found", want, w.references);
	size_t n = w.references;
	memset(&w, 0, sizeof(w));
	if (n != 0 && g.said != 0)
		report_reference(n);
	sg_note(want);
}

/* ---- leaks ---- */

struct counts {
	size_t objects, bytes, direct, indirect;       /* that surely are */
	size_t most;                                   /* that may be */
	bool direct_known;
};

static void
count_lost(struct counts *c)
{
	*c = (struct counts){ .direct_known = true };
	for (int h = 0; h < SGF_HANDLES; h++) {
		const struct node *n = &g.node[h];
		if (!n->live || g.must[h] || (n->hush && g.records))
			continue;
		c->most++;
		if (g.may[h] || (n->hush && g.sampled))   /* a sampled one has its stack */
			continue;
		int indirect = is_indirect(h);
		c->direct_known &= indirect >= 0;
		c->objects++;
		c->bytes += n->asked;
		*(indirect == 1 ? &c->indirect : &c->direct) += 1;
	}
}

/* Sums what the lines say: "Direct leak of N byte(s) in M object(s)". */
static void
read_lines(const char *word, size_t *bytes, size_t *objects)
{
	*objects = 0;
	for (const char *at = fake_note; (at = strstr(at, word)) != NULL; at++) {
		unsigned long b, n;
		if (sscanf(at + strlen(word), " leak of %lu byte(s) in %lu", &b, &n) != 2)
			sg_fail(ORACLE_WORDS, "no numbers behind '%s'", word);
		*bytes += b;
		*objects += n;
	}
}

static NOINLINE int
leak_once(bool delta)
{
	fake_note[0] = 0;
	reporttext_forget();
	int n = hook_leak_check(delta);
	NO_TAIL_CALL();
	return n;
}

static NOINLINE int
leak_scrubbed(bool delta)
{
	sg_scrub_stack();
	int n = leak_once(delta);
	NO_TAIL_CALL();
	return n;
}

static void
check_leak_text(const struct counts *c, int n, bool delta)
{
	size_t bytes = 0, direct, indirect;

	read_lines("Direct", &bytes, &direct);
	read_lines("Indirect", &bytes, &indirect);
	SG_CHECK(WORDS, (int)(direct + indirect) == n, "%d objects lost, and %zu direct, %zu indirect ones",
	    n, direct, indirect);
	SG_CHECK(WORDS, reporttext_json_objects() == (size_t)n,
	    "%d objects lost, and %zu in the lines of JSON", n, reporttext_json_objects());
	if (delta || sg_with_asan || c->objects != c->most)
		return;
	SG_CHECK(GRAPH, !c->direct_known || direct == c->direct,
	    "%zu direct leaks said, there are %zu", direct, c->direct);
	SG_CHECK(GRAPH, !g.records || bytes == c->bytes, "%zu bytes lost said, there are %zu", bytes,
	    c->bytes);
}

static NOINLINE void
op_leak(bool delta)
{
	struct counts c;
	int n = -1;

	op_mark(&(struct sgf_op){ .a = 0 });
	reach(g.must, false);
	reach(g.may, true);
	count_lost(&c);
	for (int i = 0; i < TRIES; i++) {
		n = leak_scrubbed(delta);
		if (delta || (size_t)n >= c.objects)
			break;
	}
	SG_CHECK(GRAPH, n >= 0 && (size_t)n <= c.most, "%d objects lost, of %zu", n, c.most);
	SG_CHECK(GRAPH, delta || sg_with_asan || (size_t)n >= c.objects, "%d objects lost, not %zu", n,
	    c.objects);
	if (n > 0 && fake_note[0] != 0 && reporttext_whole())
		check_leak_text(&c, n, delta);
	sg_note(delta ? 0 : c.objects);
}

static NOINLINE void
op_ignore(const struct sgf_op *op)
{
	const struct node *n = &g.node[op->handle];

	if (!n->live) {
		SG_CHECK(GRAPH, spanguard_leak_ignore(packed) == -1 && errno != 0,
		    "what is no object was ignored");
		return;
	}
	if (g.n_ignored == SGF_HANDLES)
		return;
	SG_CHECK(GRAPH, spanguard_leak_ignore((void *)(~n->hidden + op->imm % n->asked)) == 0,
	    "a live object of %zu bytes cannot be ignored", n->asked);
	g.ignored[g.n_ignored++] = (struct ignored){ n->hidden, n->born };
}

static void
op_signal(const struct sgf_op *op)
{
	if (sg_heap_cache(0) == NULL)
		return;
	struct mcache *c = sg_heap_cache(0);
	uint8_t was = c->busy;

	if (op->a & 4)                  /* in the middle of a call: not now */
		c->busy = CACHE_SLOW;
	hook_leak_from_signal(op->a & 1, op->a & 2 ? (int)getpid() : 0, op->a & 2 ? 2047 : 0);
	SG_CHECK(GRAPH, (op->a & 4) == 0 || leak_wanted(), "a leak check was made within a call");
	c->busy = was;
	hook_leak_if_wanted();
	SG_CHECK(GRAPH, !leak_wanted(), "a leak check that was asked for did not happen");
}

/* ---- the run ---- */

static void
op_user_root(bool add)
{
	if (add == g.user_added)
		return;
	SG_CHECK(GRAPH, (add ? spanguard_root_add : spanguard_root_remove)(shared, SHARED_BYTES) == 0,
	    "a range was refused");
	SG_CHECK(GRAPH, spanguard_root_remove(shared + 8, 8) == -1 && errno == ENOENT,
	    "a range that was not added is removed");
	g.user_added = add;
}

static NOINLINE void
look_around(const struct sgf_op *op, enum op what)
{
	switch (what) {
	case OP_MARK: op_mark(op); break;
	case OP_LEAK: op_leak(false); break;
	case OP_DELTA: op_leak(true); break;
	case OP_CHECK: SG_CHECK(GRAPH, spanguard_mark_check() == 0, "no mark was possible"); break;
	case OP_WATCH: op_watch(op); break;
	case OP_SIGNAL: op_signal(op); break;
	case OP_VERIFY: sg_heap_verify(); break;
	case OP_MANY: sg_graph_many(op, shared); break;
	default: break;
	}
}

static NOINLINE void
step(const struct sgf_op *op, enum op what)
{
	switch (what) {
	case OP_NEW:
	case OP_NEW_NOSCAN:
	case OP_NEW_LARGE:
	case OP_NEW_HUSH: op_new(op, what); break;
	case OP_LINK:
	case OP_UNLINK: op_link(op, what == OP_UNLINK); break;
	case OP_ROOT: root_store(op->b % PLACES, op->b / PLACES % SLOTS, hidden_into(op->a, op->imm)); break;
	case OP_UNROOT: root_store(op->b % PLACES, op->b / PLACES % SLOTS, 0); break;
	case OP_FREE: op_free(op); break;
	case OP_IGNORE: op_ignore(op); break;
	case OP_ROOT_ADD:
	case OP_ROOT_REMOVE: op_user_root(what == OP_ROOT_ADD); break;
	case OP_TRIM: sg_malloc_trim(0); break;
	default: look_around(op, what); break;
	}
	forget_unpinned();
}

/* Before the first input, while no pointer is about: libFuzzer has a strcmp that remembers
 * what was compared, and with it what is on the stack there. */
static uint8_t op_of[SGF_CODES];

__attribute__((constructor)) static void
make_ops(void)
{
	for (int code = 0; code < SGF_CODES; code++)
		for (int i = 0; i < OPS; i++)
			if (language.op[code] != NULL && strcmp(op_names[i], language.op[code]) == 0)
				op_of[code] = (uint8_t)i;
}

struct input {
	const uint8_t *data;
	size_t bytes;
};

static void
body(void *arg)
{
	const struct input *in = arg;
	void *volatile here[SLOTS] = { NULL };
	struct sgf_op op;
	size_t looks = 0;

	stack_slots = here;
	/* half a stale pointer above a small number makes one to the heap's first pages:
	 * nothing of interest is to be there; and this one is nobody's leak */
	void *shield = spanguard_malloc_noscan(SHIELD_BYTES);
	hook_leak_ignore(shield);
	for (size_t i = 0; i < sgf_ops(in->bytes); i++) {
		sgf_read_op(in->data, in->bytes, i, &op);
		enum op what = (enum op)op_of[op.code];
		sg_at.op = (long)i;
		sg_at.op_name = op_names[what];
		/* each costs as much as a thousand of the others */
		if (what >= OP_MARK && what <= OP_SIGNAL && what != OP_IGNORE && ++looks > 24)
			continue;
		if (what == OP_MANY && (looks += 8) > 24)
			continue;
		sg_scrub_stack();             /* frames have parts that nobody writes */
		if (sg_heap_use(0) != NULL)
			step(&op, what);
	}
	sg_at.op = -1;
	sg_scrub_stack();
	if (sg_heap_use(0) != NULL)
		look_around(&(struct sgf_op){ .a = 1 }, OP_MARK);
	sg_heap_verify();
	for (int p = 0; p < PLACES; p++)
		for (size_t i = 0; i < SLOTS; i++)
			root_store((enum place)p, i, 0);
	op_user_root(false);
}

static void
configure(struct sg_heap_config *c)
{
	const struct sgf_header *h = &g.header;

	c->sys.max_map_count = 0;
	c->sys.real_faults = true;     /* what is freed is no root */
	g.records = c->options.records;
	g.sampled = c->options.sample != 0;
	g.guarded = c->options.guard_objects;
	g.mark_mode = (h->knob[0] & 1) != 0 && h->mode < 128 && !c->options.guard_objects;
	if (c->options.records)
		c->options.stack_depth = 24;
	if (g.mark_mode) {
		c->options.quarantine = OPT_QUARANTINE_MARK;
		c->options.mark_pass_bytes = 65536;
		c->options.mark_pass_percent = 0;
		c->options.mark_pass_spans = 16;
		c->options.mark_report = (h->knob[3] & 2) != 0;
	}
}

static int
run(const uint8_t *data, size_t bytes)
{
	/* four pages, most of them padding: on the stack old words would stay there */
	static struct sg_heap_config config;
	struct input in = { data, bytes };

	memset(&g, 0, sizeof(g));
	sgf_read_header(data, bytes, &g.header);
	g.header.geometry &= 0xf0;
	roots_way = (enum roots_way)(g.header.knob[0] >> 1 & 3);
	if (roots_way > ROOTS_WAY_PEEK)
		roots_way = ROOTS_WAY_SCAN;
	g.header.knob[0] &= 1;
	places_start();
	sg_heap_config(&g.header, &config);
	configure(&config);
	sg_heap_start(&config);
	sg_scrub_stack();             /* the frame of body, too */
	const struct die_info *d = sg_heap_try(body, &in);
	SG_CHECK(DEATH, d == NULL, "code %d at %s, address %#lx", (int)d->code,
	    d->site != NULL ? d->site : "-", (unsigned long)d->addr);
	sg_heap_idle();
	roots_way = ROOTS_WAY_SCAN;
	return 0;
}

const struct sg_harness sg_h_graph = { "graph", &language, run };
