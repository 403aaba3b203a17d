/* callstack.c - see callstack.h. Cost: about 8 ns a frame (bench/debug.py). */
#include "callstack.h"

#include <string.h>
#include <sys/auxv.h>

#include "atomic.h"
#include "cfi.h"
#include "unwind.h"

enum {
	RULES = 1 << 14,
	STACK_PAGE = 4096,              /* as peek.h's */
	STACK_PAGES_MAX = 8192,         /* looked at to find that a stack is in one piece */
	FP_REACH = 1 << 20,             /* a frame of generated code is not longer */
	LEAST_PC = 4096,
	INNER_FRAMES = 16,              /* of ours, at most, when tables are gone by */
	LOADER_FRAMES = 4,              /* inner frames in which the loader is looked for */
};

/* Return addresses are there, from the CFA; other places are too difficult. */
#define RA_AT (0 - sizeof(uintptr_t))

enum rule_kind {
	KIND_SP,                /* CFA = sp + cfa */
	KIND_FP,                /* CFA = fp + cfa */
	KIND_CHAIN,             /* no table: the frame pointer chain */
	KIND_OUTERMOST,
	KIND_DIFFICULT,
};

/* What is cached of a pc, in a word: kind << 56 | fp << 32 | cfa.
 *   cfa   32 bits, signed: see kind
 *   fp    16 bits, signed: the caller's is saved at CFA + fp; 0: it is unchanged */
typedef uint64_t rule;

struct cached {
	atomic_u64 check;       /* rule ^ key */
	atomic_u64 rule;
};

static struct cached cache[RULES];
static atomic_u64 generation;
static uintptr_t own_start, own_end;
static uintptr_t loader_start, loader_end;

/* The linker's: the first byte of this module, and the first behind it. */
extern const char __ehdr_start[] __attribute__((visibility("hidden")));
extern const char _end[] __attribute__((visibility("hidden")));

/* glibc: where the kernel's argument vector begins on the first thread's stack. */
extern void *__libc_stack_end __attribute__((weak));

void
callstack_init(void)
{
	uintptr_t start = (uintptr_t)__ehdr_start, end = (uintptr_t)_end;
	struct unwind_module m;
	/* where we are linked into the program there is no telling our frames apart */
	bool linked_in = (uintptr_t)getauxval(AT_PHDR) - start < end - start;
	own_start = linked_in ? 0 : start;
	own_end = linked_in ? 0 : end;
	loader_start = loader_end = 0;
	if (unwind_module((uintptr_t)getauxval(AT_BASE), &m)) {
		loader_start = m.start;
		loader_end = m.end;
	}
}

/* ---- rules -------------------------------------------------------------- */

static rule
pack(enum rule_kind kind, int32_t cfa, int16_t fp)
{
	return (uint64_t)kind << 56 | (uint64_t)(uint16_t)fp << 32 | (uint32_t)cfa;
}

static inline enum rule_kind
kind_of(rule r)
{
	return (enum rule_kind)(r >> 56);
}

static inline uintptr_t
cfa_of(rule r)
{
	return (uintptr_t)(intptr_t)(int32_t)r;
}

static inline intptr_t
fp_of(rule r)
{
	return (int16_t)(r >> 32);
}

/* pc is below 2^56; the generation may wrap around: then 256 dlcloses have gone by. */
static uint64_t
key_of(uintptr_t pc, uint64_t gen)
{
	return (uint64_t)pc | gen << 56;
}

static struct cached *
place_of(uint64_t key)
{
	return &cache[(key ^ key >> 13 ^ key >> 43) & (RULES - 1)];
}

static NOINLINE rule
make_rule(uintptr_t pc)
{
	struct peek k = { 0 };
	struct unwind_module m;
	struct cfi_simple s = { 0 };
	if (!unwind_module(pc, &m) || m.eh_frame_hdr == 0)
		return pack(KIND_CHAIN, 0, 0);
	switch (cfi_simple(&k, m.eh_frame_hdr, pc, &s)) {
	case CFI_STEPPED:
		if ((uintptr_t)(intptr_t)s.ra != RA_AT)
			break;
		return pack(s.by_fp ? KIND_FP : KIND_SP, s.cfa, s.fp);
	case CFI_OUTERMOST: return pack(KIND_OUTERMOST, 0, 0);
	case CFI_COMPLEX: break;
	case CFI_NO_INFO: return pack(KIND_CHAIN, 0, 0);
	}
	return pack(KIND_DIFFICULT, 0, 0);
}

static NOINLINE rule
remember_rule(struct cached *c, uint64_t key, uintptr_t pc)
{
	rule r = make_rule(pc);
	a64_store_relaxed(&c->rule, r);
	a64_store_relaxed(&c->check, r ^ key);
	return r;
}

static inline rule
rule_of(uintptr_t pc, uint64_t gen)
{
	uint64_t key = key_of(pc, gen);
	struct cached *c = place_of(key);
	rule r = a64_load_relaxed(&c->rule);
	return likely((a64_load_relaxed(&c->check) ^ r) == key) ? r : remember_rule(c, key, pc);
}

void
callstack_forget(void)
{
	memset(cache, 0, sizeof(cache));
}

/* ---- the thread's own stack --------------------------------------------- */

#if defined(__x86_64__)
static uintptr_t
thread_pointer(void)
{
	uintptr_t tp;
	__asm__("movq %%fs:0, %0" : "=r"(tp));
	return tp;
}
#else
static uintptr_t
thread_pointer(void)
{
	return 0;
}
#endif

/* Is every page from lo up to hi there? */
static bool
in_one_piece(uintptr_t lo, uintptr_t hi)
{
	struct peek k = { 0 };
	if (lo >= hi || (hi - lo) / STACK_PAGE > STACK_PAGES_MAX)
		return false;
	for (uintptr_t p = align_down(lo, STACK_PAGE); p < hi; p += STACK_PAGE)
		if (!peek_ok(&k, p, 1))
			return false;
	return true;
}

/* After it [sp, t->hi) can be read, or false. */
static NOINLINE bool
find_stack(struct callstack_thread *t, uintptr_t sp)
{
	uintptr_t first = &__libc_stack_end != NULL ? (uintptr_t)__libc_stack_end : 0;
	if (t->hi != 0 && sp < t->lo && in_one_piece(sp, t->lo)) {
		t->lo = align_down(sp, STACK_PAGE);
		return true;
	}
	if (t->hi != 0)
		return false;           /* on another stack */
	uintptr_t hi = in_one_piece(sp, thread_pointer()) ? thread_pointer() :
	    in_one_piece(sp, first) ? first : 0;
	if (hi == 0)
		return false;
	t->lo = align_down(sp, STACK_PAGE);
	t->hi = align_down(hi, sizeof(uintptr_t));
	return true;
}

static bool
on_own_stack(struct callstack_thread *t, uintptr_t sp)
{
	return likely(sp - t->lo < t->hi - t->lo) || find_stack(t, sp);
}

/* ---- the walk ----------------------------------------------------------- */

struct walk {
	uintptr_t pc, sp, fp;   /* of the frame at hand */
	uintptr_t reach;        /* bytes from sp on that may be read directly */
	struct peek *k;         /* for all others; NULL: there are none */
	uint64_t gen;
	intptr_t fp_at;         /* of the last step: see struct callstack_frame */
	uintptr_t *pcs;
	size_t n, max;
	bool ours;              /* only frames of our own so far */
	bool outermost, difficult;
};

/* Frames have redzones of AddressSanitizer's in them, and are read all the same. */
#define UNCHECKED __attribute__((no_sanitize("address", "thread")))

/* A word of the stack, above the stack pointer. */
UNCHECKED static inline bool
load(const struct walk *w, uintptr_t addr, uintptr_t *out)
{
	if (likely(addr - w->sp < w->reach)) {
		*out = *(const uintptr_t *)addr;
		return true;
	}
	return w->k != NULL && peek_read(w->k, out, addr, sizeof(*out));
}

UNCHECKED static inline bool
step_by(struct walk *w, uintptr_t cfa, intptr_t fp)
{
	uintptr_t pc, saved = w->fp;
	if (cfa <= w->sp || cfa % sizeof(uintptr_t) != 0 || !load(w, cfa + RA_AT, &pc) ||
	    (fp != 0 && !load(w, cfa + (uintptr_t)fp, &saved)))
		return false;
	w->reach -= w->k == NULL ? cfa - w->sp : 0;
	w->pc = pc;
	w->fp = saved;
	w->sp = cfa;
	w->fp_at = fp;
	return pc - LEAST_PC < ADDR_LIMIT - LEAST_PC;
}

/* The chain of frame pointers: where one is a multiple of 8 a little way up. */
UNCHECKED static NOINLINE bool
step_chain(struct walk *w)
{
	uintptr_t fp = w->fp, up;
	if (fp % sizeof(uintptr_t) != 0 || fp < w->sp || fp - w->sp > FP_REACH ||
	    !load(w, fp, &up) || up <= fp)
		return false;
	return step_by(w, fp + 2 * sizeof(uintptr_t), -2 * (intptr_t)sizeof(uintptr_t));
}

/* To the caller; false: there is none, or it cannot be found. */
static inline bool
step(struct walk *w)
{
	rule r = rule_of(w->pc - 1, w->gen);
	enum rule_kind kind = kind_of(r);
	if (likely(kind <= KIND_FP))
		return step_by(w, (kind == KIND_SP ? w->sp : w->fp) + cfa_of(r), fp_of(r));
	w->outermost = kind == KIND_OUTERMOST;
	w->difficult = kind == KIND_DIFFICULT;
	return kind == KIND_CHAIN && step_chain(w);
}

/* false: there is no room for more. */
static inline bool
put(struct walk *w, uintptr_t return_address)
{
	uintptr_t at = return_address - 1;
	w->ours = w->ours && at - own_start < own_end - own_start;
	if (w->ours)
		w->n = 0;
	w->pcs[w->n++] = at;
	return w->n < w->max;
}

/* By rules, to the end. */
static void
walk_on(struct walk *w)
{
	while (put(w, w->pc) && step(w))
		;
}

/* ---- the frames of the last walk ---------------------------------------- */

/* Goes outwards from kept frame j, which is the one at hand, as long as the words on
 * the stack are what they were. Returns the last frame that holds. */
UNCHECKED static uint32_t
follow_kept(struct walk *w, const struct callstack_thread *t, uint32_t j)
{
	const struct callstack_frame *f = &t->kept[j];
	if (!put(w, f->pc))
		return j;
	uintptr_t *out = w->pcs + w->n, *end = w->pcs + w->max;
	for (; j > 0 && out < end; j--, f--) {
		uintptr_t sp = f[-1].sp, pc = f[-1].pc;
		if (*(const uintptr_t *)(sp + RA_AT) != pc ||
		    (f->fp_at != 0 && *(const uintptr_t *)(sp + (uintptr_t)f->fp_at) != f[-1].fp))
			break;
		*out++ = pc - 1;
	}
	w->n = (size_t)(out - w->pcs);
	return j;
}

static void
keep(struct callstack_thread *t, uint32_t outer, const struct callstack_frame *inner,
    uint32_t n)
{
	if (outer + n > CALLSTACK_KEPT) {
		outer = 0;
		t->rooted = false;
	}
	t->n = outer + n;
	for (uint32_t i = 0; i < n; i++)
		t->kept[outer + n - 1 - i] = inner[i];
}

static inline bool
is_own(uintptr_t pc)
{
	return pc - own_start < own_end - own_start;
}

static inline bool
is_kept(const struct callstack_frame *f, const struct walk *w)
{
	return f->sp == w->sp && f->pc == w->pc && f->fp == w->fp;
}

/* The frames that are new go by rules and to inner[]; one that was there before ends
 * that, and what is outside of it is compared. */
static void
walk_kept(struct walk *w, struct callstack_thread *t)
{
	struct callstack_frame inner[CALLSTACK_KEPT];
	uint32_t n = 0, j = t->n;
	for (;;) {
		while (j > 0 && t->kept[j - 1].sp < w->sp)
			j--;
		/* not in our own code: follow_kept does not look for its end */
		if (j > 0 && !is_own(w->pc) && is_kept(&t->kept[j - 1], w))
			break;
		inner[n] = (struct callstack_frame){ .pc = w->pc, .sp = w->sp, .fp = w->fp };
		bool more = put(w, w->pc) && n + 1 < CALLSTACK_KEPT && step(w);
		inner[n++].fp_at = more ? w->fp_at : 0;
		if (!more) {
			t->rooted = w->outermost;
			keep(t, 0, inner, w->difficult ? 0 : n);
			return;
		}
	}
	uint32_t last = follow_kept(w, t, j - 1);
	keep(t, j, inner, n);
	if (w->n == w->max || (last == 0 && t->rooted))
		return;
	/* different from here on, or not known further: the rest by rules */
	const struct callstack_frame *f = &t->kept[last];
	w->pc = f->pc;
	w->sp = f->sp;
	w->fp = f->fp;
	w->reach = t->hi - f->sp;
	if (last != 0)
		t->n = 0;
	if (step(w))
		walk_on(w);
}

/* `from`: where the stack is to begin, if it is found near the inner end. */
static size_t
by_tables(uintptr_t from, uintptr_t *pcs, size_t max)
{
	size_t n = unwind_here_quietly(pcs, max), i = 0;
	while (i < n && i < INNER_FRAMES && pcs[i] != from)
		i++;
	if (i < n && i < INNER_FRAMES) {
		n -= i;
		memmove(pcs, pcs + i, n * sizeof(*pcs));
	}
	return own_end != 0 ? unwind_trim(pcs, n, own_start, own_end) : n;
}

/* The loader frees the records of a module that it has just unmapped. */
static void
look_for_loader(const uintptr_t *pcs, size_t n)
{
	for (size_t i = 0; i < n && i < LOADER_FRAMES; i++)
		if (pcs[i] - loader_start < loader_end - loader_start) {
			a64_fetch_add(&generation, 1);
			return;
		}
}

static void
walk_own_stack(struct walk *w, struct callstack_thread *t)
{
	w->reach = t->hi - w->sp;
	if (unlikely(t->busy)) {
		walk_on(w);
		return;
	}
	t->busy = true;
	compiler_fence();
	if (t->generation != w->gen) {
		t->generation = (uint8_t)w->gen;
		t->n = 0;
	}
	walk_kept(w, t);
	compiler_fence();
	t->busy = false;
}

size_t
callstack(struct callstack_thread *t, const void *frame, uintptr_t *pcs, size_t max)
{
	const uintptr_t *words = frame;
	if (t == NULL || frame == NULL || !unwind_knows_modules())
		return by_tables(0, pcs, max);
	struct walk w = { .fp = words[0], .pc = words[1], .sp = (uintptr_t)(words + 2),
		.gen = a64_load_relaxed(&generation) & 0xff, .pcs = pcs, .max = max,
		.ours = own_end != 0 };
	uintptr_t from = w.pc - 1;
	if (likely(on_own_stack(t, w.sp))) {
		walk_own_stack(&w, t);
	} else {
		struct peek k = { 0 };
		w.k = &k;
		walk_on(&w);
	}
	size_t n = likely(!w.difficult) ? w.n : by_tables(from, pcs, max);
	look_for_loader(pcs, n);
	return n;
}
