/* h17_cfi.c - H17: the unwinder. An input is the call frame instructions of a function
 * that is not there, behind headers that lead to them; some bytes of the headers may
 * be others, too. Whatever they say:
 *
 *   step     ends, touches only memory that can be read, gives the same twice
 *   simple   three numbers for the frame: where it has them, a step must arrive where
 *            they lead, and the outermost frame is the outermost for both
 *   chain    functions of this file call each other in the order of the input, with
 *            frames of several kinds, the last of them in a signal handler or not:
 *            unwind_here, and the way that reads no files, must give just the return
 *            addresses that the functions saw themselves
 *
 *   | hdr, table of one | CIE, instructions of the first third | FDE, the rest |
 *
 * CFI-RUN-1: what is read depends on the input alone. Lengths, offsets and expressions
 * of an input lead anywhere: header, stack and registers stand at fixed addresses, and
 * as far as 32 bits and a table reach from there is nothing that can be read.
 *
 * knob[3]: bit 0 a chain, bit 1 its last function in a handler, bit 2 that on a stack of
 * its own, bit 3 no _dl_find_object, bit 4 the program counts as our own code (of which
 * only the outermost frame is told), bit 5 each function looks, bit 6 while one looks.
 *
 * mode: bit 0 version 3, bit 1 a signal frame, bit 2 a personality and an LSDA, bit 3
 * changes the headers, bit 4 wide encodings. knob: alignments, and where the pc is. */
#define _GNU_SOURCE
#include "harness.h"

#include <alloca.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "callstack.h"
#include "cfi.h"
#include "sim.h"
#include "unwind.h"

enum { TABLE_BYTES = 8192, STACK_WORDS = 512, PC_AT = 16384, PC_BYTES = 4096, CHAIN = 12,
	FRAMES = 64, WAYS = 4, ALT_BYTES = 1 << 17, SP_WORD = 128, FP_WORD = 192 };

static const struct sgf_language language = { .op = { "bytes" },
	.knob = { "code alignment", "data alignment", "pc", "chain" } };

/* | 8 GiB nothing | table | 1 MiB nothing | stack | 8 GiB nothing | */
#define TABLE_AT 0x200000000000u
#define NOTHING_BYTES ((size_t)8 << 30)
enum { STACK_AT = 1 << 20, STACK_BYTES = STACK_WORDS * 8 };

static uint8_t *table;
static uint64_t *stack_words;

static void
make_room(void)
{
	char *base = (char *)TABLE_AT;
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;

	if (table != NULL)
		return;
	if (mmap(base - NOTHING_BYTES, 2 * NOTHING_BYTES, PROT_NONE, flags, -1, 0) !=
	        base - NOTHING_BYTES ||
	    mprotect(base, PC_AT + PC_BYTES, PROT_READ | PROT_WRITE) != 0 ||
	    mprotect(base + STACK_AT, STACK_BYTES, PROT_READ | PROT_WRITE) != 0)
		abort();
	table = (uint8_t *)base;
	stack_words = (uint64_t *)(void *)(base + STACK_AT);
}

struct writer {
	size_t at;
};

static void
put(struct writer *w, const void *p, size_t n)
{
	if (w->at + n > TABLE_BYTES)
		n = TABLE_BYTES - w->at;
	memcpy(table + w->at, p, n);
	w->at += n;
}

static void
put8(struct writer *w, unsigned v)
{
	put(w, &(uint8_t){ (uint8_t)v }, 1);
}

static void
put32(struct writer *w, size_t v)
{
	put(w, &(uint32_t){ (uint32_t)v }, 4);
}

/* An entry's length stands at its beginning. */
static void
close_entry(struct writer *w, size_t from)
{
	while (w->at % 8 != 4 && w->at < TABLE_BYTES)
		put8(w, 0);
	uint32_t bytes = (uint32_t)(w->at - from - 4);
	memcpy(table + from, &bytes, 4);
}

static void
build(const struct sgf_header *h, const uint8_t *code, size_t n)
{
	struct writer w = { 0 };
	size_t third = n / 3, cie, fde;
	bool more = (h->mode & 4) != 0;
	static const char *const augment[] = { "zR", "zRS", "zPLR", "zPLRS" };

	memset(table, 0, TABLE_BYTES);
	put(&w, (const uint8_t[]){ 1, 0x1b, 0x03, 0x3b }, 4);
	put32(&w, 20 - 4);
	put32(&w, 1);
	put32(&w, PC_AT);                      /* relative to the table's beginning */
	size_t entry = w.at;
	put32(&w, 0);
	cie = w.at;
	put32(&w, 0);
	put32(&w, 0);
	put8(&w, h->mode & 1 ? 3 : 1);
	const char *a = augment[(more ? 2 : 0) + (h->mode >> 1 & 1)];
	put(&w, a, strlen(a) + 1);
	put8(&w, h->knob[0] & 0x7f);
	put8(&w, h->knob[1] & 0x7f);
	put8(&w, CFI_RA);
	put8(&w, more ? 1 + 4 + 1 + 1 : 1);
	if (more)
		put(&w, (const uint8_t[]){ 0x1b, 0, 0, 0, 0, 0x1b }, 6);
	put8(&w, h->mode & 16 ? 0x1c : 0x1b);
	put(&w, code, third);
	close_entry(&w, cie);
	fde = w.at;
	memcpy(table + entry, &(uint32_t){ (uint32_t)fde }, 4);
	put32(&w, 0);
	put32(&w, w.at - cie);
	if (h->mode & 16) {
		put(&w, &(uint64_t){ PC_AT - w.at }, 8);
		put(&w, &(uint64_t){ PC_BYTES }, 8);
	} else {
		put32(&w, PC_AT - w.at);
		put32(&w, PC_BYTES);
	}
	put8(&w, more ? 4 : 0);
	if (more)
		put32(&w, 0);
	put(&w, code + third, n - third);
	close_entry(&w, fde);
}

static void
change(const struct sgf_header *h)
{
	uint64_t random = h->seed;

	for (unsigned i = 0; (h->mode & 8) != 0 && i < 1u + h->fault_mask % 8; i++)
		table[sg_random(&random) % 96] ^= (uint8_t)sg_random(&random);
}

static struct cfi_frame
frame_at(uintptr_t pc)
{
	struct cfi_frame f = { .pc = pc, .exact = true };

	for (unsigned i = 0; i < CFI_REGS; i++)
		f.reg[i] = (uintptr_t)&stack_words[i];
	f.reg[CFI_SP] = (uintptr_t)&stack_words[SP_WORD];
	f.reg[CFI_FP] = (uintptr_t)&stack_words[FP_WORD];
	return f;
}

static bool
in_stack(uintptr_t at)
{
	return at - (uintptr_t)stack_words <= STACK_BYTES - 8;
}

static uintptr_t
word_of(uintptr_t at)
{
	uintptr_t v;

	memcpy(&v, (const void *)at, sizeof(v));
	return v;
}

static void
compare(const struct cfi_simple *s, const struct cfi_frame *from, const struct cfi_frame *up)
{
	uintptr_t cfa = from->reg[s->by_fp ? CFI_FP : CFI_SP] + (uintptr_t)(intptr_t)s->cfa;
	uintptr_t fp_at = cfa + (uintptr_t)(intptr_t)s->fp, ra_at = cfa + (uintptr_t)(intptr_t)s->ra;

	SG_CHECK(UNWIND, up->reg[CFI_SP] == cfa, "three numbers and a step: sp %#lx, %#lx",
	    (unsigned long)cfa, (unsigned long)up->reg[CFI_SP]);
	if (s->fp == 0)
		SG_CHECK(UNWIND, up->reg[CFI_FP] == from->reg[CFI_FP], "the frame pointer changed");
	else if (in_stack(fp_at))
		SG_CHECK(UNWIND, up->reg[CFI_FP] == word_of(fp_at), "another frame pointer");
	if (in_stack(ra_at))
		SG_CHECK(UNWIND, up->reg[CFI_RA] == word_of(ra_at), "another return address");
}

static void
try_table(uintptr_t pc)
{
	struct peek k = { { 0 } };
	struct cfi_simple s = { .cfa = 0 };
	struct cfi_frame from = frame_at(pc), up = from, again = from;
	uintptr_t hdr = (uintptr_t)table;
	enum cfi_result step = cfi_step(&k, hdr, &up), simple;

	SG_CHECK(UNWIND, cfi_step(&k, hdr, &again) == step && memcmp(&again, &up, sizeof(up)) == 0,
	    "two steps from one frame differ");
	simple = cfi_simple(&k, hdr, pc, &s);
	SG_CHECK(UNWIND, (simple == CFI_OUTERMOST) == (step == CFI_OUTERMOST) &&
	    (simple != CFI_NO_INFO || step == CFI_NO_INFO), "a step gives %d, three numbers %d",
	    (int)step, (int)simple);
	if (simple == CFI_STEPPED && step == CFI_STEPPED)
		compare(&s, &from, &up);
	if (step == CFI_NO_INFO)
		SG_CHECK(UNWIND, memcmp(&up, &from, sizeof(up)) == 0, "no step, and the frame changed");
	sg_note(step + 8u * simple);
}

/* ---- a chain of calls ---- */

static struct {
	uint8_t order[CHAIN];
	unsigned n, at;
	uintptr_t seen[CHAIN + 1];     /* return addresses, outermost first */
	uintptr_t pcs[WAYS][FRAMES];
	size_t got[WAYS];
	bool by_signal, all_look, own;
	struct callstack_thread thread;
} chain;

static const char *const way_names[WAYS] = { "unwind_here", "unwind_here_quietly", "callstack by tables", "callstack" };

static void check_chain(const uintptr_t *pcs, size_t n, const char *by);

static void link_next(void);

static NOINLINE void
look(void)
{
	chain.got[0] = unwind_here(chain.pcs[0], FRAMES);
	chain.got[1] = unwind_here_quietly(chain.pcs[1], FRAMES);
	chain.got[2] = callstack(NULL, NULL, chain.pcs[2], FRAMES);
	chain.got[3] = callstack(&chain.thread, callstack_frame(), chain.pcs[3], FRAMES);
	for (unsigned way = 0; way < WAYS; way++)
		if (way < 2 || !chain.own)
			check_chain(chain.pcs[way], chain.got[way], way_names[way]);
	NO_TAIL_CALL();
}

/* Where all of the program is our own, the walk tells the last of the first frames that
 * are in it, and what is outside. */
static void
check_own(void)
{
	extern const char __ehdr_start[], _end[];
	size_t ours = 0;

	while (ours < chain.got[0] && chain.pcs[0][ours] - (uintptr_t)__ehdr_start < (uintptr_t)(_end - __ehdr_start))
		ours++;
	for (unsigned way = 2; way < WAYS; way++)
		SG_CHECK(UNWIND, ours == 0 || chain.got[way] == chain.got[0] - (ours - 1),
		    "%s: %zu frames of %zu, the first %zu our own", way_names[way], chain.got[way], chain.got[0], ours);
}

static void
on_signal(int sig)
{
	(void)sig;
	look();
	NO_TAIL_CALL();
}

#define SEE() do { \
	chain.seen[chain.at++] = (uintptr_t)__builtin_return_address(0); \
	if (chain.all_look) \
		look(); \
} while (0)

static NOINLINE void
link_plain(void)
{
	SEE();
	link_next();
	NO_TAIL_CALL();
}

static NOINLINE void
link_large(void)
{
	volatile char room[5000];

	SEE();
	room[4999] = room[0] = 1;
	link_next();
	NO_TAIL_CALL();
}

/* The frame is found by its frame pointer. */
static NOINLINE void
link_alloca(void)
{
	volatile char *room = alloca(16 + chain.order[0]);

	SEE();
	room[0] = 1;
	link_next();
	NO_TAIL_CALL();
}

/* ... and begins at a multiple of 64. */
static NOINLINE void
link_aligned(void)
{
	char room[64] ALIGNED(64);

	SEE();
	__asm__ volatile("" : : "r"(room) : "memory");
	link_next();
	NO_TAIL_CALL();
}

/* push %rbp; mov %rsp, %rbp; call *%rdi; pop %rbp; ret: in no table. */
static const uint8_t stub_code[] = { 0x55, 0x48, 0x89, 0xe5, 0xff, 0xd7, 0x5d, 0xc3 };
static void (*stub)(void (*fn)(void));

/* The frame of generated code is found by frame pointers. */
static NOINLINE void
link_generated(void)
{
	volatile char *room = alloca(16 + chain.order[0]);

	SEE();
	room[0] = 1;
	if (stub != NULL)
		stub(link_next);
	else
		link_next();
	NO_TAIL_CALL();
}

static void
link_next(void)
{
	static void (*const kind[])(void) = { link_plain, link_large, link_alloca, link_aligned, link_generated };

	if (chain.at < chain.n)
		kind[chain.order[chain.at] % 5]();
	else if (chain.by_signal)
		raise(SIGURG);
	else
		look();
	NO_TAIL_CALL();
}

/* All that the functions saw, innermost first, with nothing of theirs in between but
 * link_next. */
static void
check_chain(const uintptr_t *pcs, size_t n, const char *by)
{
	size_t at = 0;

	for (unsigned i = chain.at; i-- > 0;) {
		while (at < n && pcs[at] != chain.seen[i] - 1 && pcs[at] != chain.seen[i])
			at++;
		SG_CHECK(UNWIND, at < n, "%s: call %u of %u is not among %zu frames", by, i, chain.at, n);
	}
	SG_CHECK(UNWIND, n > chain.at, "%s: %zu frames of more than %u", by, n, chain.at);
}

/* Our own code is what the kernel has no program headers in. */
static void
take_for_own(bool own)
{
	sim_start();
	sim.auxval_phdr = own ? 0 : sim.auxval_phdr;
	callstack_init();
	sim_stop();
}

static void
prepare(void)
{
	static uint8_t stack[ALT_BYTES];
	const stack_t alt = { .ss_sp = stack, .ss_size = sizeof(stack) };
	uint8_t *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	sigaltstack(&alt, NULL);
	if (code == MAP_FAILED)
		return;
	memcpy(code, stub_code, sizeof(stub_code));
#if defined(__x86_64__)
	if (mprotect(code, 4096, PROT_READ | PROT_EXEC) == 0)
		memcpy(&stub, &(void *){ code }, sizeof(stub));
#endif
}

static NOINLINE void
try_chain(const uint8_t *data, size_t n, unsigned how)
{
	static bool prepared;
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = how & 4 ? SA_ONSTACK : 0 }, old;

	if (!prepared)
		prepare();
	prepared = true;
	memset(&chain, 0, sizeof(chain));
	chain.n = (unsigned)(n < CHAIN ? n : CHAIN);
	memcpy(chain.order, data, chain.n);
	chain.by_signal = how & 2;
	chain.all_look = how & 32;
	chain.own = how & 16;
	chain.thread.busy = how & 64;
	if (sigaction(SIGURG, &sa, &old) != 0)
		return;
	callstack_forget();
	sim_forget_objects(how & 8);
	take_for_own(chain.own);
	link_next();
	take_for_own(false);
	sim_forget_objects(false);
	sigaction(SIGURG, &old, NULL);
	if (chain.own)
		check_own();
}

static int
run(const uint8_t *data, size_t bytes)
{
	struct sgf_header h;
	const uint8_t *code = data + (bytes < SGF_HEADER_BYTES ? bytes : SGF_HEADER_BYTES);
	size_t n = (size_t)(data + bytes - code);

	sgf_read_header(data, bytes, &h);
	n = n < 2048 ? n : 2048;
	make_room();
	for (size_t i = 0; i < STACK_WORDS; i++)
		stack_words[i] = (uintptr_t)&stack_words[i * 7 % STACK_WORDS];
	build(&h, code, n);
	change(&h);
	for (unsigned i = 0; i < 4; i++)
		try_table((uintptr_t)table + PC_AT + (h.knob[2] * (i + 1)) % PC_BYTES);
	try_table((uintptr_t)table + PC_AT - 1);
	if (h.knob[3] & 1)
		try_chain(code, n, h.knob[3]);
	return 0;
}

const struct sg_harness sg_h_cfi = { "cfi", &language, run };
