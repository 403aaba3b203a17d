/* unwind.c - see unwind.h.
 *
 *   for each frame, the first of these that works:
 *     the kernel's signal frame, known by the two instructions behind it
 *     .eh_frame of the module (_dl_find_object of glibc 2.35, else by maps)
 *     the frame pointer chain, if it leads upwards into executable memory
 *
 * UNWIND-1: but for signal frames, the stack pointer grows from frame to frame;
 * with the bound on frames this makes every walk end.
 * Cost: about 1 us per frame; meant for reports, not for every allocation. */
#include "unwind.h"

#include <string.h>

#include "cfi.h"
#include "procmap.h"

/* ---- what differs between machines -------------------------------------- */

#if defined(__x86_64__)

/* The registers that a caller may want back, the stack pointer and a pc, all
 * at one point of the calling function. */
#define CAPTURE(frame)                                                         \
	__asm__ volatile(                                                      \
	    "movq %%rbx, 24(%0)\n\tmovq %%rbp, 48(%0)\n\tmovq %%rsp, 56(%0)\n\t" \
	    "movq %%r12, 96(%0)\n\tmovq %%r13, 104(%0)\n\t"                    \
	    "movq %%r14, 112(%0)\n\tmovq %%r15, 120(%0)\n\t"                   \
	    "leaq 0(%%rip), %%rax\n\tmovq %%rax, 128(%0)"                      \
	    : : "r"((frame)->reg) : "rax", "memory")

enum { CAPTURED_PC = CFI_RA };

/* mov $15, %rax; syscall */
static const uint8_t sigreturn_code[] = { 0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05 };

/* Where the kernel puts the registers: uc_mcontext of the ucontext at sp. */
enum { SIGFRAME_BYTES = 40 + 17 * 8 };

static void
sigframe_regs(const uint8_t *ctx, struct cfi_frame *f)
{
	static const uint8_t order[] = { 8, 9, 10, 11, 12, 13, 14, 15, 5, 4, 6, 3, 1, 0, 2, 7, 16 };
	for (size_t i = 0; i < ARRAY_LEN(order); i++)
		memcpy(&f->reg[order[i]], ctx + 40 + i * 8, 8);
	f->pc = f->reg[CFI_RA];
}

#elif defined(__aarch64__)

#define CAPTURE(frame)                                                         \
	__asm__ volatile(                                                      \
	    "stp x19, x20, [%0, #152]\n\tstp x21, x22, [%0, #168]\n\t"         \
	    "stp x23, x24, [%0, #184]\n\tstp x25, x26, [%0, #200]\n\t"         \
	    "stp x27, x28, [%0, #216]\n\tstp x29, x30, [%0, #232]\n\t"         \
	    "mov x9, sp\n\tstr x9, [%0, #248]\n\t"                             \
	    "adr x9, .\n\tstr x9, [%0]"                                        \
	    : : "r"((frame)->reg) : "x9", "memory")

enum { CAPTURED_PC = 0 };

/* mov x8, #139; svc #0 */
static const uint8_t sigreturn_code[] = { 0x68, 0x11, 0x80, 0xd2, 0x01, 0, 0, 0xd4 };

/* siginfo (128 bytes), then uc_mcontext at 176 of the ucontext, its registers
 * behind the fault address. */
enum { SIGFRAME_BYTES = 128 + 176 + 8 + 33 * 8 };

static void
sigframe_regs(const uint8_t *ctx, struct cfi_frame *f)
{
	memcpy(f->reg, ctx + 128 + 176 + 8, sizeof(f->reg));
	memcpy(&f->pc, ctx + 128 + 176 + 8 + 32 * 8, 8);
}

#endif

/* ---- modules ------------------------------------------------------------ */

/* glibc's lock-free table of loaded objects; the layout is its ABI. */
struct loaded_object {
	uint64_t flags;
	void *map_start, *map_end;
	void *link_map;
	void *eh_frame;       /* the PT_GNU_EH_FRAME segment */
	uint64_t reserved[10];
};

extern int _dl_find_object(void *pc, struct loaded_object *out) __attribute__((weak));

bool
unwind_knows_modules(void)
{
	return _dl_find_object != NULL;
}

/* What one walk goes by. */
struct walk {
	struct peek k;
	bool maps;            /* may read /proc/self/maps */
};

static uintptr_t
eh_frame_hdr(const struct walk *w, uintptr_t pc)
{
	struct loaded_object o;
	if (unwind_knows_modules() && _dl_find_object((void *)pc, &o) == 0)
		return (uintptr_t)o.eh_frame;
	return w->maps ? procmap_eh_frame_hdr(pc) : 0;
}

/* Code that is in no module: only generated code, and only if it may run. */
static bool
is_code(struct walk *w, uintptr_t pc)
{
	static struct mapping map;
	if (!w->maps)
		return peek_ok(&w->k, pc, 1);
	return procmap_find(pc, &map) && map.perms[2] == 'x';
}

/* ---- steps -------------------------------------------------------------- */

/* A signal handler "returns" to the first byte of these instructions; nothing
 * ever called them, so the pc is taken as it is. */
static bool
at_sigreturn(struct peek *k, uintptr_t pc)
{
	uint8_t code[sizeof(sigreturn_code)];
	return peek_read(k, code, pc, sizeof(code)) &&
	    memcmp(code, sigreturn_code, sizeof(code)) == 0;
}

static bool
step_signal(struct peek *k, struct cfi_frame *f)
{
	uint8_t ctx[SIGFRAME_BYTES];
	if (!at_sigreturn(k, f->pc) || !peek_read(k, ctx, f->reg[CFI_SP], sizeof(ctx)))
		return false;
	sigframe_regs(ctx, f);
	f->exact = true;
	return true;
}

static bool
step_frame_pointer(struct walk *w, struct cfi_frame *f)
{
	uintptr_t fp = f->reg[CFI_FP];
	uintptr_t pair[2];
	if (fp % sizeof(uintptr_t) != 0 || fp < f->reg[CFI_SP] ||
	    fp - f->reg[CFI_SP] > (1u << 20) || !peek_read(&w->k, pair, fp, sizeof(pair)) ||
	    pair[0] <= fp || !is_code(w, pair[1]))
		return false;
	f->reg[CFI_FP] = pair[0];
	f->reg[CFI_SP] = fp + sizeof(pair);
	f->reg[CFI_RA] = pair[1];
	f->pc = pair[1];
	f->exact = false;
	return true;
}

static bool
step(struct walk *w, struct cfi_frame *f)
{
	struct cfi_frame up = *f;
	uintptr_t sp = f->reg[CFI_SP];
	bool was_exact = f->exact;
	if (step_signal(&w->k, f))
		return f->pc != 0;
	uintptr_t hdr = eh_frame_hdr(w, f->exact ? f->pc : f->pc - 1);
	enum cfi_result r = hdr != 0 ? cfi_step(&w->k, hdr, &up) : CFI_NO_INFO;
	if (r == CFI_OUTERMOST)
		return false;
	if (r == CFI_STEPPED) {
		/* A leaf of arm64 has no frame of its own: same sp, other pc. */
		bool leaf = was_exact && up.reg[CFI_SP] == sp && up.pc != f->pc;
		if (up.reg[CFI_SP] <= sp && !leaf && !up.exact)
			return false;
		*f = up;
		return f->pc > 4096;
	}
	return step_frame_pointer(w, f);
}

/* What to show for a frame; 0: its return address leads nowhere, and the walk
 * ends before it. */
static uintptr_t
shown_pc(struct walk *w, const struct cfi_frame *f)
{
	uintptr_t pc = f->exact || at_sigreturn(&w->k, f->pc) ? f->pc : f->pc - 1;
	return eh_frame_hdr(w, pc) != 0 || is_code(w, pc) ? pc : 0;
}

/* Out of line, so that its peek cache is not in the frame being captured. */
static NOINLINE size_t
walk(struct cfi_frame *f, uintptr_t *pcs, size_t max, bool maps)
{
	struct walk w = { .maps = maps };
	size_t n = 0;
	while (n < max && step(&w, f) && (pcs[n] = shown_pc(&w, f)) != 0)
		n++;
	return n;
}

NOINLINE size_t
unwind_here(uintptr_t *pcs, size_t max)
{
	struct cfi_frame f = { .exact = true };
	CAPTURE(&f);
	f.pc = f.reg[CAPTURED_PC];
	size_t n = walk(&f, pcs, max, true);
	/* Not a tail call: the frame captured above must still be there. */
	__asm__ volatile("" : : : "memory");
	return n;
}

NOINLINE size_t
unwind_here_quietly(uintptr_t *pcs, size_t max)
{
	struct cfi_frame f = { .exact = true };
	CAPTURE(&f);
	f.pc = f.reg[CAPTURED_PC];
	size_t n = walk(&f, pcs, max, !unwind_knows_modules());
	__asm__ volatile("" : : : "memory");
	return n;
}

size_t
unwind_trim(uintptr_t *pcs, size_t n, uintptr_t lo, uintptr_t hi)
{
	size_t ours = 0;
	while (ours < n && pcs[ours] - lo < hi - lo)
		ours++;
	if (ours < 2 || ours == n)
		return n;
	size_t drop = ours - 1;
	memmove(pcs, pcs + drop, (n - drop) * sizeof(*pcs));
	return n - drop;
}

bool
unwind_module(uintptr_t pc, struct unwind_module *out)
{
	struct loaded_object o;
	if (!unwind_knows_modules() || _dl_find_object((void *)pc, &o) != 0)
		return false;
	*out = (struct unwind_module){ (uintptr_t)o.map_start, (uintptr_t)o.map_end,
		(uintptr_t)o.eh_frame };
	return true;
}
