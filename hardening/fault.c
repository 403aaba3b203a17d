/* fault.c - see fault.h.
 *
 *   on_fault
 *     claimed by a room   die(), or report and go_on
 *     in our own code     die(): metadata is corrupted
 *     not ours            chain: the disposition that was there before us
 *
 * The handler is to be as good as invisible to who was there before: it runs on
 * the stack that one asked for, blocks what that one asked to have blocked, and
 * does not touch errno. For the default action the fault is left to happen
 * again, so that the core file shows it where it was. */
#define _GNU_SOURCE 1        /* REG_RIP and its kin */

#include "fault.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "../src/atomic.h"
#include "../src/marena.h"
#include "../src/mspan.h"
#include "../src/peek.h"
#include "../src/report.h"
#include "../src/sys.h"
#include "access.h"
#include "guard.h"

enum { INSN_BYTES = 15, OS_PAGE_LEAST_BYTES = 4096 };

/* Whom the handler asks and calls: read-only once it is in place (fault_seal). */
static struct {
	const struct fault_room *room[FAULT_ROOMS];
	size_t n;
	struct sigaction earlier;
	uintptr_t own_start;
	size_t own_bytes;
} ALIGNED(OS_PAGE_LEAST_BYTES) fixed;

/* By the linker: our first and last byte. */
extern const char __ehdr_start[] __attribute__((visibility("hidden")));
extern const char _end[] __attribute__((visibility("hidden")));

/* ---- the machine -------------------------------------------------------- */

/* The instruction at pc may cross into a page that cannot be read. */
static uint8_t
bytes_at(uintptr_t pc)
{
	uint8_t code[INSN_BYTES];
	size_t n = sizeof(code);
	struct peek k = { 0 };
	while (n > 0 && !peek_read(&k, code, pc, n))
		n--;
	return (uint8_t)access_bytes(code, n);
}

#if defined(__x86_64__)

/* Bit 1 of the page fault's error code (Intel SDM 3A, 4.7): a write. */
static void
read_access(const ucontext_t *uc, struct die_access *a)
{
	const greg_t *r = uc->uc_mcontext.gregs;
	*a = (struct die_access){
		.known = true, .write = (r[REG_ERR] & 2) != 0, .pc = (uintptr_t)r[REG_RIP],
		.sp = (uintptr_t)r[REG_RSP], .bp = (uintptr_t)r[REG_RBP],
		.bytes = bytes_at((uintptr_t)r[REG_RIP]),
	};
}

#elif defined(__aarch64__)

enum { ESR_RECORD = 0x45535201, ESR_DATA_ABORT = 0x24, ESR_WRITE = 1 << 6 };

/* The kernel puts records of { magic, bytes } behind the registers; the one of
 * the syndrome register says what kind of abort it was. */
static bool
read_syndrome(const ucontext_t *uc, uint64_t *esr)
{
	const unsigned char *r = (const unsigned char *)uc->uc_mcontext.__reserved;
	for (size_t at = 0; at + 16 <= sizeof(uc->uc_mcontext.__reserved);) {
		uint32_t head[2];
		memcpy(head, r + at, sizeof(head));
		memcpy(esr, r + at + sizeof(head), sizeof(*esr));
		if (head[0] == ESR_RECORD)
			return true;
		if (head[0] == 0 || head[1] < sizeof(head))
			return false;
		at += head[1];
	}
	return false;
}

static void
read_access(const ucontext_t *uc, struct die_access *a)
{
	uint64_t esr;
	*a = (struct die_access){ .pc = uc->uc_mcontext.pc, .sp = uc->uc_mcontext.sp,
		.bp = uc->uc_mcontext.regs[29] };
	if (!read_syndrome(uc, &esr) || (esr >> 26 & 0x3f) != ESR_DATA_ABORT)
		return;
	a->known = true;
	a->write = (esr & ESR_WRITE) != 0;
}

#endif

/* ---- whose it is -------------------------------------------------------- */

static bool
heap_claims(uintptr_t addr, struct fault_claim *out)
{
	const struct mspan *s = arena_span_containing(addr);
	if (s != NULL && a32_load_acquire(&s->state) == SPAN_PARKED) {
		*out = (struct fault_claim){ DIE_USE_AFTER_FREE, "quarantine" };
		return true;
	}
	switch (arena_of(addr) != NULL ? guard_look(addr, &s) : GUARD_SIDE_NONE) {
	case GUARD_SIDE_AFTER:
		*out = (struct fault_claim){ DIE_OVERFLOW, "guard" };
		return true;
	case GUARD_SIDE_BEFORE:
		*out = (struct fault_claim){ DIE_UNDERFLOW, "guard" };
		return true;
	case GUARD_SIDE_NONE:
		break;
	}
	return false;
}

/* The object next to the guard; a parked span describes itself. */
static bool
heap_object(uintptr_t addr, struct room_object *out)
{
	const struct mspan *s;
	enum guard_side side = arena_of(addr) != NULL ? guard_look(addr, &s) : GUARD_SIDE_NONE;
	if (side == GUARD_SIDE_NONE || arena_span_containing(addr) != NULL)
		return false;
	size_t last = side == GUARD_SIDE_AFTER && !mspan_is_large(s) ? s->nelems - 1 : 0;
	*out = (struct room_object){ .base = s->base + last * s->elem_bytes,
		.bytes = s->elem_bytes };
	return true;
}

const struct fault_room fault_heap = { .claim = heap_claims, .object = heap_object };

static const struct fault_room *
room_of(uintptr_t addr, struct fault_claim *out)
{
	for (size_t i = 0; i < fixed.n; i++)
		if (fixed.room[i]->claim(addr, out))
			return fixed.room[i];
	return NULL;
}

/* With corrupted metadata that may fault in turn, and then nobody is asked. */
static const struct fault_room *
ask_rooms(uintptr_t addr, struct fault_claim *out)
{
	static atomic_u32 asking;       /* the thread that does */
	uint32_t tid = (uint32_t)syscall(SYS_gettid);
	if (a32_load_relaxed(&asking) == tid)
		return NULL;
	a32_store_relaxed(&asking, tid);
	const struct fault_room *room = room_of(addr, out);
	a32_store_relaxed(&asking, 0);
	return room;
}

bool
hook_object(uintptr_t addr, struct room_object *out)
{
	for (size_t i = 0; i < fixed.n; i++)
		if (fixed.room[i]->object != NULL && fixed.room[i]->object(addr, out))
			return true;
	return false;
}

bool
hook_object_beside(uintptr_t addr, bool behind, struct room_object *out)
{
	for (size_t i = 0; i < fixed.n; i++)
		if (fixed.room[i]->beside != NULL && fixed.room[i]->beside(addr, behind, out))
			return true;
	return false;
}

/* ---- ours --------------------------------------------------------------- */

/* Returns only if the access may be made again: where a room can let it through. */
static void
report_access(const struct fault_room *room, const struct fault_claim *claim, uintptr_t addr,
    const ucontext_t *uc)
{
	struct die_access access;
	struct die_info info = { .code = claim->code, .site = claim->site, .addr = addr,
		.access = &access };
	bool silent = false;
	read_access(uc, &access);
	if (room->go_on == NULL || !room->go_on(addr, &silent))
		die(&info);
	if (!silent)
		report_and_go_on(&info);
	room->let_through(addr);
}

/* Our own code faulted: it followed metadata that somebody has written to. Linked
 * into the program there is no telling its code from ours. */
static bool
is_own_code(uintptr_t pc)
{
	return pc - fixed.own_start < fixed.own_bytes;
}

static void
find_own_code(void)
{
	uintptr_t start = (uintptr_t)__ehdr_start, bytes = (uintptr_t)(_end - __ehdr_start);
	bool linked_in = (uintptr_t)getauxval(AT_PHDR) - start < bytes;
	fixed.own_start = start;
	fixed.own_bytes = linked_in ? 0 : bytes;
}

static _Noreturn void
report_own_fault(uintptr_t addr, const ucontext_t *uc)
{
	struct die_access access;
	read_access(uc, &access);
	die(&(struct die_info){ .code = DIE_CORRUPTION, .site = "fault", .addr = addr,
	    .access = &access });
}

static uintptr_t
pc_of(const ucontext_t *uc)
{
	struct die_access access;
	read_access(uc, &access);
	return access.pc;
}

/* ---- the program's ------------------------------------------------------ */

static void
set_default(int sig)
{
	struct sigaction dfl;
	memset(&dfl, 0, sizeof(dfl));
	dfl.sa_handler = SIG_DFL;
	sigaction(sig, &dfl, NULL);
}

/* A fault comes again when the handler returns; a signal that somebody sent has
 * to be sent again. */
static void
take_default(int sig, siginfo_t *info, bool fault)
{
	set_default(sig);
	if (!fault)
		syscall(SYS_rt_tgsigqueueinfo, (long)syscall(SYS_getpid),
		    (long)syscall(SYS_gettid), sig, info);
}

static void
call_earlier(int sig, siginfo_t *info, void *context)
{
	struct sigaction old = fixed.earlier;
	sigset_t block = old.sa_mask;
	if ((old.sa_flags & SA_NODEFER) == 0)
		sigaddset(&block, sig);
	if ((old.sa_flags & (int)SA_RESETHAND) != 0)
		set_default(sig);
	pthread_sigmask(SIG_BLOCK, &block, NULL);    /* sigreturn takes it back */
	if ((old.sa_flags & SA_SIGINFO) != 0)
		old.sa_sigaction(sig, info, context);
	else
		old.sa_handler(sig);
}

/* A fault cannot be ignored: the kernel takes the default action for it. */
static void
chain(int sig, siginfo_t *info, void *context)
{
	bool fault = info->si_code > 0;
	bool plain = (fixed.earlier.sa_flags & SA_SIGINFO) == 0;
	if (plain && fixed.earlier.sa_handler == SIG_IGN && !fault)
		return;
	if (plain && (fixed.earlier.sa_handler == SIG_DFL || fixed.earlier.sa_handler == SIG_IGN))
		take_default(sig, info, fault);
	else
		call_earlier(sig, info, context);
}

static void
on_fault(int sig, siginfo_t *info, void *context)
{
	int saved = errno;
	uintptr_t addr = (uintptr_t)info->si_addr;
	struct fault_claim claim;
	bool touch = info->si_code == SEGV_MAPERR || info->si_code == SEGV_ACCERR;
	report_cut_short();      /* a fault in the reporter itself: no more than this */
	const struct fault_room *room = touch ? ask_rooms(addr, &claim) : NULL;
	if (room != NULL)
		report_access(room, &claim, addr, context);
	else if (info->si_code > 0 && is_own_code(pc_of(context)))
		report_own_fault(addr, context);
	else
		chain(sig, info, context);
	errno = saved;
}

/* ---- start -------------------------------------------------------------- */

AT_ENDS void
fault_add_room(const struct fault_room *room)
{
	for (size_t i = 0; i < fixed.n; i++)
		if (fixed.room[i] == room)
			return;
	if (fixed.n == FAULT_ROOMS)
		die_corruption("FAULT-1", room);
	fixed.room[fixed.n++] = room;
}

/* The stack and the restarting of system calls are the earlier handler's choice;
 * who ignores the signal is not to see it interrupt anything. */
static int
flags_like(const struct sigaction *old)
{
	bool plain = (old->sa_flags & SA_SIGINFO) == 0;
	if (plain && old->sa_handler == SIG_DFL)
		return SA_ONSTACK;
	if (plain && old->sa_handler == SIG_IGN)
		return SA_ONSTACK | SA_RESTART;
	return old->sa_flags & (SA_ONSTACK | SA_RESTART);
}

AT_ENDS void
fault_start(void)
{
	struct sigaction mine, old;
	if (fixed.n == 0 || sigaction(SIGSEGV, NULL, &old) != 0)
		return;
	if ((old.sa_flags & SA_SIGINFO) != 0 && old.sa_sigaction == on_fault)
		return;
	fixed.earlier = old;
	find_own_code();
	memset(&mine, 0, sizeof(mine));
	mine.sa_sigaction = on_fault;
	mine.sa_flags = SA_SIGINFO | SA_NODEFER | flags_like(&old);
	if (sigaction(SIGSEGV, &mine, NULL) != 0)
		report_warn("no handler for SIGSEGV can be set: guards stop what they should, "
		    "but unexplained", NULL);
}

/* Where an OS page is longer, what else lies on it is not ours to seal. */
AT_ENDS void
fault_seal(void)
{
	if (sys_page_bytes() == OS_PAGE_LEAST_BYTES)
		sys_seal(&fixed, sizeof(fixed));
}
