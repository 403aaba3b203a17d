/* h21_parts.c - H21: what the tiers are made of, each part alone against a naive model:
 * sets of spans (a queue), objects of one size and metadata memory (intervals, zeroes,
 * content), locks (who holds what), bounded random numbers (by division). And each
 * check in them made to fire: the parts are used as they must not be, or a word of
 * theirs is changed, and the death must have the tag and the address of that check
 * (`site`), those of fuzz/h21_misuse.c among them. What is then wrong is put right, and
 * the program goes on.
 *
 *   knob 0, 1   sizes and alignments of the objects
 *   fault_mask, fault_flags, fault_nth   the system refuses, as in H7
 *
 * The other thread of the locks is made by mutex_switch_thread; a sleeper wakes when
 * `wait` says so. */
#define _GNU_SOURCE
#include "parts.h"

#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lock.h"
#include "mfixalloc.h"
#include "mspanset.h"
#include "persistentalloc.h"
#include "rand.h"

enum op { PUSH, POP, SET_CHECK, SET_RESET, SET_FORK, OBJECT, OBJECT_FREE, OBJECT_BREAK, MEMORY,
	CONTAINS, LOCK, TRYLOCK, UNLOCK, HOLD, LOCK_RESET, SWITCH, CROWD, BELOW, SETTLE, PAGES, SPANS };

static const struct sgf_language language = {
	.op = {
		"push", "push", "push", "push", "pop", "pop", "pop", "pop",
		"set_check", "set_check", "set_reset", "set_reset", "set_fork", "set_fork", "object", "object",
		"object", "object", "object", "object_free", "object_free", "object_free", "object_break", "object_break",
		"memory", "memory", "memory", "contains", "contains", "lock", "lock", "lock",
		"lock", "trylock", "trylock", "trylock", "unlock", "unlock", "unlock", "hold",
		"hold", "lock_reset", "lock_reset", "switch", "switch", "crowd", "below", "below",
		"settle", "settle", "pages", "pages", "pages", "pages", "pages", "pages",
		"pages", "pages", "spans", "spans", "spans", "spans", "spans", "spans",
	},
	.knob = { "size of objects", "alignment of objects" },
};

static const uint8_t op_of[SGF_CODES] = {
	[0 ... 3] = PUSH, [4 ... 7] = POP, [8 ... 9] = SET_CHECK, [10 ... 11] = SET_RESET,
	[12 ... 13] = SET_FORK, [14 ... 18] = OBJECT, [19 ... 21] = OBJECT_FREE,
	[22 ... 23] = OBJECT_BREAK, [24 ... 26] = MEMORY, [27 ... 28] = CONTAINS, [29 ... 32] = LOCK,
	[33 ... 35] = TRYLOCK, [36 ... 38] = UNLOCK, [39 ... 40] = HOLD, [41 ... 42] = LOCK_RESET,
	[43 ... 44] = SWITCH, [45] = CROWD, [46 ... 47] = BELOW, [48 ... 49] = SETTLE,
	[50 ... 57] = PAGES, [58 ... 63] = SPANS,
};

struct persistent sg_parts_meta;
bool sg_parts_refusing;

/* Locks that the harness holds stay held. */
void
sg_must_stop(void (*fn)(void *), void *arg, const char *site, uintptr_t addr)
{
	bool died = fake_die_caught(fn, arg);
	const struct die_info *d = &fake_die_info;

	SG_CHECK(SITE, died, "%s at %#lx did not fire", site, (unsigned long)addr);
	SG_CHECK(SITE, !died || (d->code == DIE_CORRUPTION && strcmp(d->site, site) == 0 &&
	    d->addr == addr), "code %d, %s at %#lx and not %s at %#lx", (int)d->code, d->site,
	    (unsigned long)d->addr, site, (unsigned long)addr);
	sg_note((uintptr_t)site[0]);
}

/* ---- sets of spans: two queues ---- */

enum { SETS = 2, QUEUE = 1 << 15 };

static struct span_set set[SETS];
static uint32_t queue[SETS][QUEUE];
static uint32_t q_head[SETS], q_tail[SETS], next_span;

/* Nobody looks into what is in a set. */
static struct mspan *
span_named(uint32_t n)
{
	return (struct mspan *)((uintptr_t)(n + 1) * CACHE_LINE);
}

static void
do_push(const struct sgf_op *op)
{
	unsigned k = op->handle % SETS;

	for (uint32_t n = op->imm % 1500 + 1; n > 0 && q_tail[k] - q_head[k] < QUEUE; n--) {
		bool ok = span_set_push(&set[k], &sg_parts_meta, span_named(next_span));
		SG_CHECK(NULLNESS, ok || sg_parts_refusing, "a push was refused");
		if (!ok)
			return;
		queue[k][q_tail[k]++ % QUEUE] = next_span++;
	}
}

static void
do_pop(const struct sgf_op *op)
{
	unsigned k = op->handle % SETS;

	for (uint32_t n = op->imm % 1500 + 1; n > 0; n--) {
		struct mspan *s = span_set_pop(&set[k]);
		bool none = q_head[k] == q_tail[k];
		SG_CHECK(MODEL, s == (none ? NULL : span_named(queue[k][q_head[k] % QUEUE])),
		    "set %u gave %p, which is not its first of %u", k, (void *)s, q_tail[k] - q_head[k]);
		if (none)
			return;
		q_head[k]++;
	}
}

static void
next_of_queue(struct mspan *s, void *arg)
{
	uint32_t *at = arg;
	unsigned k = at[0];

	SG_CHECK(MODEL, at[1] != q_tail[k] && s == span_named(queue[k][at[1] % QUEUE]),
	    "set %u has %p in place %u", k, (void *)s, at[1] - q_head[k]);
	at[1]++;
}

static void
check_sets(void)
{
	for (unsigned k = 0; k < SETS; k++) {
		const char *tag = span_set_check(&set[k]);
		uint32_t at[2] = { k, q_head[k] };
		SG_CHECK(VERIFY, tag == NULL, "%s of set %u", tag, k);
		SG_CHECK(MODEL, span_set_len(&set[k]) == q_tail[k] - q_head[k], "set %u has %zu, not %u",
		    k, span_set_len(&set[k]), q_tail[k] - q_head[k]);
		span_set_for_each(&set[k], next_of_queue, at);
		SG_CHECK(MODEL, at[1] == q_tail[k], "set %u has fewer than %u", k, q_tail[k] - q_head[k]);
	}
	const char *tag = span_set_check_pool();
	SG_CHECK(VERIFY, tag == NULL, "%s of the pool", tag);
}

static void
empty_queue(unsigned k)
{
	set[k] = (struct span_set){ .end = { 0 } };
	q_head[k] = q_tail[k] = 0;
}

/* The recount must find what does not fit: an end inside of a block, a place that is
 * not filled or filled and not counted, a pop that was not, a block of the pool in use. */
static void
break_set(const struct sgf_op *op)
{
	unsigned k = op->handle % SETS;
	uint64_t was = a64_load_relaxed(&set[k].index);
	uint32_t end = a32_load_relaxed(&set[k].end), head = (uint32_t)(was >> 32);
	bool some = (uint32_t)was != head, inside = head % SPAN_SET_BLOCK_SLOTS != 0;
	const char *want = NULL;

	if (op->a % 5 == 0) {
		a32_store_relaxed(&set[k].end, end + 1 + op->imm % 511);
		want = "SPANSET-1";
	} else if (op->a % 5 == 1) {
		a64_store_relaxed(&set[k].index, (was & ~(uint64_t)UINT32_MAX) | ((uint32_t)was + 1));
		want = (uint32_t)was == end ? "SPANSET-1" : "SPANSET-2";
	} else if (op->a % 5 == 2 && some && head % SPAN_SET_BLOCK_SLOTS != 511) {
		a64_store_relaxed(&set[k].index, was + ((uint64_t)1 << 32));
		want = "SPANSET-2";
	} else if (op->a % 5 == 3 && !some && inside) {
		a64_store_relaxed(&set[k].index, was - ((uint64_t)1 << 32) - 1);
		want = "SPANSET-3";
	} else if (op->a % 5 == 4 && some) {
		a64_store_relaxed(&set[k].index, was - (uint32_t)was + head);
		span_set_reset(&set[k]);
		const char *tag = span_set_check_pool();
		SG_CHECK(SELFTEST, tag != NULL && strcmp(tag, "SPANSET-4") == 0, "%s, not SPANSET-4",
		    tag != NULL ? tag : "nothing");
		span_set_pool_reset();
		empty_queue(k);
		return;
	}
	const char *tag = span_set_check(&set[k]);
	SG_CHECK(SELFTEST, want == NULL ? tag == NULL : tag != NULL && strcmp(tag, want) == 0,
	    "%s, not %s", tag != NULL ? tag : "nothing", want != NULL ? want : "nothing");
	a64_store_relaxed(&set[k].index, was);
	a32_store_relaxed(&set[k].end, end);
}

static void
reset_it(void *arg)
{
	span_set_reset(arg);
}

static void
do_set_reset(const struct sgf_op *op)
{
	unsigned k = op->handle % SETS;

	if (q_head[k] == q_tail[k])
		span_set_reset(&set[k]);
	else
		sg_must_stop(reset_it, &set[k], "SPANSET-reset", (uintptr_t)&set[k]);
}

/* Other threads have taken places at both ends and got no further, then we fork: what
 * is in a place that was taken to pop from is lost, one taken to push to is nobody's. */
static void
do_set_fork(const struct sgf_op *op)
{
	unsigned k = op->handle % SETS;
	uint64_t index = a64_load_relaxed(&set[k].index);

	if (op->a & 1 && q_head[k] != q_tail[k]) {
		index += (uint64_t)1 << 32;
		q_head[k]++;
	}
	if ((uint32_t)index != a32_load_relaxed(&set[k].end))
		index += op->b & 1;
	a64_store_relaxed(&set[k].index, index);
	span_set_lock_after_fork();
	span_set_after_fork(&set[k]);
	check_sets();
}

/* ---- memory: no two pieces overlap, all is zero, what is written stays ---- */

enum { KINDS = 3, PIECES = 512, WHOLE = 1 << 12 };

struct piece {
	unsigned char *p;
	size_t bytes;
	uint8_t kind;              /* of object; KINDS: memory */
	uint8_t fill;
};

static struct fixalloc kind[KINDS];
static struct piece piece[PIECES];
static size_t pieces, live[KINDS], memory_bytes;

/* Of a large piece both ends; returns a byte that is not `value`, from `at` on. */
static const unsigned char *
not_filled(const struct piece *a, size_t at, unsigned char value)
{
	for (size_t i = at; i < a->bytes; i++) {
		if (i == WHOLE && a->bytes > 2 * WHOLE)
			i = a->bytes - WHOLE;
		if (a->p[i] != value)
			return a->p + i;
	}
	return NULL;
}

static void
fill(struct piece *a, unsigned char value)
{
	size_t head = a->bytes < WHOLE ? a->bytes : WHOLE;

	a->fill = value;
	memset(a->p, value, head);
	memset(a->p + a->bytes - head, value, head);
}

static bool
add_piece(unsigned k, void *p, size_t bytes, size_t align, bool fresh)
{
	struct piece *a = &piece[pieces];

	SG_CHECK(NULLNESS, p != NULL || sg_parts_refusing || bytes > SIZE_MAX / 4, "no %zu bytes", bytes);
	if (p == NULL)
		return false;
	*a = (struct piece){ .p = p, .bytes = bytes, .kind = (uint8_t)k };
	SG_CHECK(ALIGN, ((uintptr_t)p & (align - 1)) == 0, "%p, asked for %zu", p, align);
	for (size_t i = 0; i < pieces; i++)
		SG_CHECK(OVERLAP, piece[i].p + piece[i].bytes <= a->p || a->p + bytes <= piece[i].p,
		    "%p and %p", p, (void *)piece[i].p);
	SG_CHECK(ZERO, !fresh || not_filled(a, 0, 0) == NULL, "%p", (void *)not_filled(a, 0, 0));
	fill(a, (unsigned char)(pieces * 7 + 1));
	pieces++;
	sg_note((uintptr_t)p - fake_sys_base());
	return true;
}

/* One that keeps what stands in it has the fill of another, or none yet, behind its
 * first word. */
static void
do_object(const struct sgf_op *op)
{
	unsigned k = op->handle % KINDS;
	struct fixalloc *f = &kind[k];
	bool again = f->list != NULL;

	if (pieces == PIECES)
		return;
	unsigned char *p = fixalloc_alloc(f);
	const struct piece old = { .p = p, .bytes = f->bytes };
	SG_CHECK(KEPT, !again || !f->keep || f->bytes <= 8 || not_filled(&old, 8, p[8]) == NULL,
	    "an object that is to keep its content has lost it at %p",
	    (const void *)not_filled(&old, 8, p[8]));
	if (add_piece(k, p, f->bytes, f->align, !again || !f->keep))
		live[k]++;
	SG_CHECK(MODEL, fixalloc_inuse(f) == live[k] && fixalloc_inuse_bytes(f) == live[k] * f->bytes,
	    "%zu in use, not %zu", fixalloc_inuse(f), live[k]);
}

static void
free_it(void *arg)
{
	struct piece *a = arg;

	fixalloc_free(&kind[a->kind], a->p);
}

static void
do_object_free(const struct sgf_op *op)
{
	static unsigned char nobodys[64];
	struct piece none = { .p = nobodys, .kind = op->handle % KINDS };
	size_t i = pieces != 0 ? op->imm % pieces : 0;

	if (live[none.kind] == 0)
		sg_must_stop(free_it, &none, "FIX-1", (uintptr_t)nobodys);
	if (pieces == 0 || piece[i].kind == KINDS)
		return;
	const unsigned char *other = not_filled(&piece[i], 0, piece[i].fill);
	SG_CHECK(CONTENT, other == NULL, "%p of %p", (const void *)other, (void *)piece[i].p);
	free_it(&piece[i]);
	live[piece[i].kind]--;
	piece[i] = piece[--pieces];
}

static void
alloc_it(void *arg)
{
	fixalloc_alloc(arg);
}

/* The list leads between two objects. */
static void
do_object_break(const struct sgf_op *op)
{
	struct fixalloc *f = &kind[op->handle % KINDS];
	struct fixalloc_link *list = f->list;

	if (list == NULL)
		return;
	f->list = (struct fixalloc_link *)((uintptr_t)list | 1u << op->b % 3u);
	sg_must_stop(alloc_it, f, "FIX-2", (uintptr_t)f->list);
	f->list = list;
}

static void
do_memory(const struct sgf_op *op)
{
	size_t bytes = 1 + op->imm % ((size_t)1 << op->a % 20u);
	size_t align = (size_t)1 << op->b % 18u;

	if (pieces == PIECES)
		return;
	if (op->handle >= 248)          /* more than there is, up to all */
		bytes = op->handle & 1 ? SIZE_MAX - op->imm : (size_t)1 << 62;
	else if (memory_bytes + bytes + align > (size_t)64 << 20)
		return;
	size_t before = persistent_bytes(&sg_parts_meta);
	if (add_piece(KINDS, persistent_alloc(&sg_parts_meta, bytes, align), bytes, align, true))
		memory_bytes += bytes + align;
	SG_CHECK(MODEL, persistent_bytes(&sg_parts_meta) >= before, "bytes taken went down");
}

/* Each byte handed out is ours, and so is a guard; others are not. */
static void
do_contains(const struct sgf_op *op)
{
	uintptr_t nowhere = fake_sys_base() - 1 - op->imm;

	if (pieces != 0) {
		const struct piece *a = &piece[op->imm % pieces];
		SG_CHECK(MODEL, persistent_contains(&sg_parts_meta, (uintptr_t)a->p) &&
		    persistent_contains(&sg_parts_meta, (uintptr_t)a->p + a->bytes - 1),
		    "%p is not metadata", (void *)a->p);
	}
	SG_CHECK(MODEL, !persistent_contains(&sg_parts_meta, nowhere) &&
	    !persistent_contains(&sg_parts_meta, 0), "%#lx is metadata", (unsigned long)nowhere);
}

/* ---- locks ---- */

enum { LOCKS = 96, TRACKED = HELD_MAX };

/* What a waiter meets. */
enum wait { ALONE, WOKEN, ORPHANED, GARBAGE, NO_HANDLERS, WAITS };

static struct mutex lock[LOCKS];
static struct {
	bool held[LOCKS], tracked[LOCKS];
	unsigned n;                /* of those tracked */
	unsigned untracked;
	unsigned of_rank[LOCK_RANKS];
} who[2];
static struct held_locks away;     /* what the other thread holds */
static unsigned self;
static enum wait wait;
static unsigned spurious;          /* that many times it is woken for nothing */
static bool waiting;

static bool
orphan_lock(void)
{
	if (!waiting || wait != ORPHANED)
		return false;
	for (size_t i = 0; i < LOCKS; i++)
		if (!who[self].held[i])
			a32_store_relaxed(&lock[i].state, 0);
	return true;
}

static bool
no_handler_comes(void)
{
	return !waiting || wait != NO_HANDLERS;
}

bool
sys_futex_wait(const uint32_t *word, uint32_t value)
{
	if (!waiting) {
		syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
		return false;
	}
	if (wait == WOKEN && spurious-- == 0)
		*(volatile uint32_t *)(uintptr_t)word = 0;
	return wait != WOKEN;
}

bool
sys_is_only_thread(void)
{
	return waiting;
}

static void
start_locks(void)
{
	static const uint32_t rank[8] = { LOCK_MCENTRAL, LOCK_MCACHE, LOCK_WORLD, LOCK_MHEAP,
		LOCK_NONE, LOCK_SPANSET, LOCK_PERSISTENT, LOCK_MCENTRAL };

	lock_forget_held();
	memset(lock, 0, sizeof(lock));
	for (size_t i = 0; i < LOCKS; i++)
		lock[i].rank = i < 16 ? rank[i % 8] : LOCK_MCENTRAL;
	lock[15].rank = LOCK_RANKS + 3;
	memset(who, 0, sizeof(who));
	memset(&away, 0, sizeof(away));
	self = 0;
}

static bool
may_repeat(uint32_t rank)
{
	return rank == LOCK_MCACHE || rank == LOCK_MCENTRAL || rank == LOCK_SPANSET;
}

static bool
out_of_order(uint32_t rank)
{
	for (uint32_t r = rank; r < LOCK_RANKS; r++)
		if (who[self].of_rank[r] != 0 && !(r == rank && may_repeat(rank)))
			return true;
	return false;
}

/* The check that must stop a lock of i, or NULL. */
static const char *
why_not(size_t i)
{
	if (who[self].tracked[i])
		return "LOCK-3";
	if (wait == NO_HANDLERS)
		return "LOCK-4";
	if (lock[i].rank >= LOCK_RANKS)
		return "LOCK-1";
	if (lock[i].rank != LOCK_NONE && out_of_order(lock[i].rank))
		return "LOCK-1";
	if (a32_load_relaxed(&lock[i].state) != 0 && (wait == ALONE || wait == GARBAGE))
		return "LOCK-5";
	return NULL;
}

static void
lock_it(void *arg)
{
	mutex_lock(arg);
}

static void
unlock_it(void *arg)
{
	mutex_unlock(arg);
}

static void
hold_it(void *arg)
{
	mutex_assert_held(arg);
}

/* As sg_must_stop, but that a death frees all that is held. */
static void
stop_and_begin_again(void (*fn)(void *), void *arg, const char *site)
{
	waiting = true;
	sg_must_stop(fn, arg, site, (uintptr_t)arg);
	waiting = false;
	start_locks();
}

static void
now_held(size_t i)
{
	bool room = who[self].n < TRACKED;

	who[self].held[i] = true;
	who[self].tracked[i] = room;
	who[self].n += room;
	who[self].untracked += !room;
	who[self].of_rank[lock[i].rank]++;
}

static void
no_longer_held(size_t i)
{
	if (who[self].tracked[i])
		who[self].n--;
	else
		who[self].untracked--;
	who[self].of_rank[lock[i].rank]--;
	who[self].held[i] = who[self].tracked[i] = false;
}

/* The other thread let go of i; or is no more, and of all it had. */
static void
other_gave(size_t i)
{
	uint32_t at = 0;

	if (wait == ORPHANED) {
		memset(&who[!self], 0, sizeof(who[0]));
		memset(&away, 0, sizeof(away));
		return;
	}
	if (--away.of_rank[lock[i].rank] == 0)
		away.ranks &= ~(1u << lock[i].rank);
	while (who[!self].tracked[i] && away.lock[at] != &lock[i])
		at++;
	if (who[!self].tracked[i])
		away.lock[at] = away.lock[--away.count];
	else
		away.untracked--;
	self = !self;
	no_longer_held(i);
	self = !self;
}

static void
do_lock(const struct sgf_op *op)
{
	size_t i = op->handle % LOCKS;

	wait = (enum wait)(op->b % WAITS);
	/* what is held and not on the list is waited for like anybody's */
	if (who[self].held[i] && !who[self].tracked[i])
		return;
	if (wait == GARBAGE && a32_load_relaxed(&lock[i].state) == 0)
		a32_store_relaxed(&lock[i].state, 3 + op->imm % 1000);
	const char *site = why_not(i);
	if (site != NULL) {
		stop_and_begin_again(lock_it, &lock[i], site);
		return;
	}
	bool others = who[!self].held[i];
	spurious = op->imm % 3;
	waiting = true;
	mutex_lock(&lock[i]);
	waiting = false;
	now_held(i);
	if (others)
		other_gave(i);
}

static void
do_trylock(const struct sgf_op *op)
{
	size_t i = op->handle % LOCKS;
	bool want = !who[0].held[i] && !who[1].held[i];

	if (lock[i].rank >= LOCK_RANKS)
		return;
	bool got = mutex_trylock(&lock[i]);
	SG_CHECK(MODEL, got == want, "lock %zu was %staken", i, got ? "" : "not ");
	if (got)
		now_held(i);
}

static void
do_unlock(const struct sgf_op *op, bool look_only)
{
	size_t i = op->handle % LOCKS;
	void (*fn)(void *) = look_only ? hold_it : unlock_it;

	if (!who[self].held[i]) {
		if (who[self].untracked == 0)
			stop_and_begin_again(fn, &lock[i], "LOCK-2");
		return;
	}
	fn(&lock[i]);
	if (look_only)
		return;
	SG_CHECK(MODEL, a32_load_relaxed(&lock[i].state) == 0, "lock %zu is not free", i);
	no_longer_held(i);
}

static void
do_lock_reset(const struct sgf_op *op)
{
	size_t i = op->handle % LOCKS;

	/* by rank it cannot tell whose an untracked one is */
	if (who[!self].held[i] || lock[i].rank >= LOCK_RANKS)
		return;
	mutex_reset(&lock[i]);
	SG_CHECK(MODEL, a32_load_relaxed(&lock[i].state) == 0, "lock %zu is not free", i);
	if (who[self].held[i])
		no_longer_held(i);
}

static void
check_held(void)
{
	const struct held_locks *h = mutex_held();

	SG_CHECK(MODEL, h->count == who[self].n && h->untracked == who[self].untracked,
	    "%u held, and %u more, not %u and %u", h->count, h->untracked, who[self].n,
	    who[self].untracked);
	for (uint32_t r = 0; r < LOCK_RANKS; r++)
		SG_CHECK(MODEL, h->of_rank[r] == who[self].of_rank[r], "%u held of rank %u, not %u",
		    h->of_rank[r], r, who[self].of_rank[r]);
}

static void
do_switch(void)
{
	struct held_locks mine;

	mutex_switch_thread(&mine, &away);
	away = mine;
	self = !self;
	check_held();
}

/* As many as fit on no list. */
static void
do_crowd(const struct sgf_op *op)
{
	struct sgf_op one = { .b = WOKEN };

	for (unsigned i = 0; i < 16 + op->imm % LOCKS && i < LOCKS; i++) {
		one.handle = (uint8_t)(16 + i % (LOCKS - 16));
		do_trylock(&one);
	}
}

/* ---- random numbers ---- */

static struct rand_stream stream, twin;

static void
do_below(const struct sgf_op *op)
{
	uint32_t n = op->a & 1 ? op->imm : op->imm >> (op->b & 31);

	for (unsigned i = 0; i < 8; i++) {
		uint32_t got = rand_below(&stream, n), raw = rand_u32(&twin);
		while (n != 0 && (uint32_t)((uint64_t)raw * n) < (uint32_t)(((uint64_t)1 << 32) % n))
			raw = rand_u32(&twin);
		SG_CHECK(RANDOM, got == (uint32_t)((uint64_t)raw * n >> 32), "%u below %u", got, n);
		sg_note(got);
	}
}

/* A word of which nothing is left is refused, unless the bases divide 2^58. */
static void
do_settle(const struct sgf_op *op)
{
	uint64_t n = 1 + op->imm % (RAND_PLACES - RAND_BATCH + 1), before = stream.left;
	uint8_t at[RAND_BATCH];

	rand_settle(&stream, 0, n, at);
	SG_CHECK(RANDOM, stream.left != before, "a word that must be refused was taken");
	for (unsigned i = 0; i < RAND_BATCH; i++)
		SG_CHECK(RANDOM, at[i] < n + i, "place %u of %llu", at[i], (unsigned long long)(n + i));
	stream = twin;
}

/* ---- all ---- */

static bool
is_of_locks(enum op k)
{
	return k >= LOCK && k <= CROWD;
}

static void
run_op(const struct sgf_op *op)
{
	switch ((enum op)op_of[op->code]) {
	case PUSH: do_push(op); break;
	case POP: do_pop(op); break;
	case SET_CHECK: check_sets(); break_set(op); break;
	case SET_RESET: do_set_reset(op); break;
	case SET_FORK: do_set_fork(op); break;
	case OBJECT: do_object(op); break;
	case OBJECT_FREE: do_object_free(op); break;
	case OBJECT_BREAK: do_object_break(op); break;
	case MEMORY: do_memory(op); break;
	case CONTAINS: do_contains(op); break;
	case LOCK: do_lock(op); break;
	case TRYLOCK: do_trylock(op); break;
	case UNLOCK: do_unlock(op, false); break;
	case HOLD: do_unlock(op, true); break;
	case LOCK_RESET: do_lock_reset(op); break;
	case SWITCH: do_switch(); break;
	case CROWD: do_crowd(op); break;
	case BELOW: do_below(op); break;
	case SETTLE: do_settle(op); break;
	case PAGES: sg_misuse_pages(op); break;
	case SPANS: sg_misuse_span(op); break;
	}
}

/* The locks that the other parts take know nothing of the harness's. */
static void
step(const struct sgf_op *op)
{
	struct held_locks mine, none = { .count = 0 };
	bool apart = !is_of_locks((enum op)op_of[op->code]);

	if (apart)
		mutex_switch_thread(&mine, &none);
	run_op(op);
	if (apart)
		mutex_switch_thread(&none, &mine);
	SG_CHECK(MODEL, !apart || none.count == 0, "a lock is still held");
	check_held();
}

static void
start(const struct sgf_header *h)
{
	static const size_t bytes[8] = { 0, 1, 24, 136, 1000, 5000, 20000, 40000 };
	const struct fake_sys_config sys = { .page_bytes = h->geometry & 1 ? 16384 : 4096,
		.seed = h->seed };

	fake_sys_reset(&sys);
	span_set_pool_reset();
	memset(set, 0, sizeof(set));
	memset(q_head, 0, sizeof(q_head));
	memset(q_tail, 0, sizeof(q_tail));
	next_span = 0;
	persistent_init(&sg_parts_meta);
	pieces = memory_bytes = 0;
	memset(live, 0, sizeof(live));
	for (unsigned k = 0; k < KINDS; k++)
		(k == 1 ? fixalloc_init_keep : fixalloc_init)(&kind[k], &sg_parts_meta,
		    bytes[(h->knob[0] + k) % 8u] + h->knob[2], (size_t)1 << (h->knob[1] + k) % 8u);
	start_locks();
	mutex_orphaned = orphan_lock;
	mutex_handlers_kept_out = no_handler_comes;
	rand_seed_fixed(&stream, h->seed, 1);
	twin = stream;
	sg_parts_refusing = h->fault_mask != 0;
	fake_sys_fail(sg_parts_refusing ? h->fault_mask & FAKE_SYS_CAN_FAIL : 0, h->fault_nth % 16u + 1u,
	    (h->fault_flags & 1) != 0);
	sg_misuse_start(h);
}

static void
check_pieces(void)
{
	for (size_t i = 0; i < pieces; i++)
		SG_CHECK(CONTENT, not_filled(&piece[i], 0, piece[i].fill) == NULL, "%p",
		    (const void *)not_filled(&piece[i], 0, piece[i].fill));
}

static int
run(const uint8_t *data, size_t bytes)
{
	bool (*orphaned)(void) = mutex_orphaned, (*kept_out)(void) = mutex_handlers_kept_out;
	struct sgf_header h;
	struct sgf_op op;

	sg_heap_forget();
	sgf_read_header(data, bytes, &h);
	start(&h);
	for (size_t i = 0; i < sgf_ops(bytes); i++) {
		sgf_read_op(data, bytes, i, &op);
		sg_at.op = (long)i;
		sg_at.op_name = language.op[op.code];
		step(&op);
	}
	sg_at.op = -1;
	start_locks();
	check_sets();
	check_pieces();
	sg_misuse_end();
	span_set_pool_reset();
	fake_sys_fail(0, 0, false);
	mutex_orphaned = orphaned;
	mutex_handlers_kept_out = kept_out;
	return 0;
}

const struct sg_harness sg_h_parts = { "parts", &language, run };
