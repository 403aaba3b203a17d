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

enum rule_kind {
	KIND_SP,                /* CFA = sp + cfa */
	KIND_FP,                /* CFA = fp + cfa */
	KIND_CHAIN,             /* no table: the frame pointer chain */
	KIND_OUTERMOST,
	KIND_DIFFICULT,
};

/* What is cached of a pc. */
struct rule {
	int32_t cfa;
	int16_t fp;             /* saved at CFA + fp; 0: unchanged */
	int8_t ra;              /* at CFA + ra */
	uint8_t kind;
};

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

static uint64_t
pack(const struct rule *r)
{
	uint64_t v;
	_Static_assert(sizeof(*r) == sizeof(v), "a rule is a word");
	memcpy(&v, r, sizeof(v));
	return v;
}

static struct rule
unpack(uint64_t v)
{
	struct rule r;
	memcpy(&r, &v, sizeof(r));
	return r;
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
	return &cache[key * 0x9e3779b97f4a7c15u >> 50 & (RULES - 1)];
}

static NOINLINE struct rule
make_rule(uintptr_t pc)
{
	struct peek k = { 0 };
	struct unwind_module m;
	struct cfi_simple s = { 0 };
	struct rule r = { .kind = KIND_CHAIN };
	if (!unwind_module(pc, &m) || m.eh_frame_hdr == 0)
		return r;
	switch (cfi_simple(&k, m.eh_frame_hdr, pc, &s)) {
	case CFI_STEPPED:
		r = (struct rule){ .cfa = s.cfa, .fp = s.fp, .ra = s.ra,
			.kind = s.by_fp ? KIND_FP : KIND_SP };
		break;
	case CFI_OUTERMOST: r.kind = KIND_OUTERMOST; break;
	case CFI_COMPLEX: r.kind = KIND_DIFFICULT; break;
	case CFI_NO_INFO: break;
	}
	return r;
}

static struct rule
rule_of(uintptr_t pc, uint64_t gen)
{
	uint64_t key = key_of(pc, gen);
	struct cached *c = place_of(key);
	uint64_t v = a64_load_relaxed(&c->rule);
	if (likely((a64_load_relaxed(&c->check) ^ v) == key))
		return unpack(v);
	struct rule r = make_rule(pc);
	v = pack(&r);
	a64_store_relaxed(&c->rule, v);
	a64_store_relaxed(&c->check, v ^ key);
	return r;
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

struct state {
	uintptr_t pc, sp, fp;
	uintptr_t end;          /* of what may be read directly; 0: all through peek */
	struct peek *k;
};

/* Frames have redzones of AddressSanitizer's in them, and are read all the same. */
#define UNCHECKED __attribute__((no_sanitize("address", "thread")))

UNCHECKED static inline bool
load(const struct state *s, uintptr_t addr, uintptr_t *out)
{
	if (likely(addr >= s->sp && addr < s->end)) {
		*out = *(const uintptr_t *)addr;
		return true;
	}
	return s->end == 0 && peek_read(s->k, out, addr, sizeof(*out));
}

/* CALLSTACK-1: the stack pointer grows from frame to frame. */
UNCHECKED static inline bool
step_by(struct state *s, uintptr_t cfa, int fp, int ra)
{
	uintptr_t pc, saved = s->fp;
	if (cfa <= s->sp || cfa % sizeof(uintptr_t) != 0 ||
	    !load(s, cfa + (uintptr_t)(intptr_t)ra, &pc))
		return false;
	if (fp != 0 && !load(s, cfa + (uintptr_t)(intptr_t)fp, &saved))
		return false;
	s->pc = pc;
	s->fp = saved;
	s->sp = cfa;
	return pc > LEAST_PC && pc < ADDR_LIMIT;
}

/* The chain of frame pointers: where one is a multiple of 8 a little way up. */
UNCHECKED static bool
step_chain(struct state *s)
{
	uintptr_t fp = s->fp, up;
	if (fp % sizeof(uintptr_t) != 0 || fp < s->sp || fp - s->sp > FP_REACH ||
	    !load(s, fp, &up) || up <= fp)
		return false;
	return step_by(s, fp + 2 * sizeof(uintptr_t), -2 * (int)sizeof(uintptr_t),
	    -(int)sizeof(uintptr_t));
}

enum { TOO_DIFFICULT = -1 };

/* Number of frames, or TOO_DIFFICULT. */
UNCHECKED static int
walk(struct state *s, uintptr_t *pcs, size_t max, uint64_t gen)
{
	size_t n = 0;
	bool ours = own_end != 0;
	for (;;) {
		uintptr_t at = s->pc - 1;
		ours = ours && at - own_start < own_end - own_start;
		if (ours)
			n = 0;
		pcs[n++] = at;
		if (n == max)
			return (int)n;
		struct rule r = rule_of(at, gen);
		bool up;
		switch ((enum rule_kind)r.kind) {
		case KIND_SP: up = step_by(s, s->sp + (uintptr_t)(intptr_t)r.cfa, r.fp, r.ra); break;
		case KIND_FP: up = step_by(s, s->fp + (uintptr_t)(intptr_t)r.cfa, r.fp, r.ra); break;
		case KIND_CHAIN: up = step_chain(s); break;
		case KIND_DIFFICULT: return TOO_DIFFICULT;
		default: up = false; break;
		}
		if (!up)
			return (int)n;
	}
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

size_t
callstack(struct callstack_thread *t, const void *frame, uintptr_t *pcs, size_t max)
{
	struct peek k;
	struct state s;
	if (t == NULL || frame == NULL || !unwind_knows_modules())
		return by_tables(0, pcs, max);
	memcpy(&s.fp, frame, sizeof(s.fp));
	memcpy(&s.pc, (const char *)frame + sizeof(s.fp), sizeof(s.pc));
	s.sp = (uintptr_t)frame + sizeof(s.fp) + sizeof(s.pc);
	s.k = &k;
	s.end = t->hi;
	if (unlikely(!on_own_stack(t, s.sp))) {
		s.end = 0;
		k = (struct peek){ 0 };
	}
	uintptr_t from = s.pc - 1;
	int n = walk(&s, pcs, max, a64_load_relaxed(&generation) & 0xff);
	size_t frames = n != TOO_DIFFICULT ? (size_t)n : by_tables(from, pcs, max);
	look_for_loader(pcs, frames);
	return frames;
}
