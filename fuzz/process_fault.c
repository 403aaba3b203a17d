/* process_fault.c - faults of H20: the handler of SIGSEGV is called as the kernel would
 * call it, for addresses of two rooms of ours, of nobody, and from our own code. The
 * model says whose the fault is, and what the one who was there before must see:
 * arguments, blocked signals, its disposition, errno. */
#define _GNU_SOURCE
#include "process.h"

#include <errno.h>
#include <setjmp.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "fake_die.h"
#include "lock.h"
#include "report.h"

#include "../hardening/fault.h"
#include "../src/report.h"

enum { SLOTS = 16, SLOT_BYTES = 64 };

/* Addresses by what our rooms say of them. */
enum slot { NOBODYS, DIES, DIES_OVERFLOW, STAYS, GOES_ON, SILENT, NESTED, N_SLOTS };

static char zone[SLOTS * SLOT_BYTES];

static struct {
	bool ours;                     /* our handler is there */
	struct sigaction earlier;
	bool own_code;                 /* faults at our code are ours */
	/* what was seen */
	unsigned handled, let_through, reports;
	int sig, got_errno;
	const void *info, *context;
	uint64_t mask;
	bool was_default, leaves, nested_chained;
	uintptr_t reported;
	jmp_buf out;
} g;

static enum slot
slot_of(uintptr_t addr)
{
	uintptr_t at = addr - (uintptr_t)zone;

	return at < sizeof(zone) ? (enum slot)(at / SLOT_BYTES % N_SLOTS) : NOBODYS;
}

static void call_handler(siginfo_t *info, ucontext_t *uc);

static bool
claim_and_die(uintptr_t addr, struct fault_claim *out)
{
	enum slot s = slot_of(addr);
	ucontext_t uc = { .uc_flags = 0 };
	siginfo_t info = { .si_signo = SIGSEGV, .si_code = SEGV_MAPERR };

	if (s == NESTED) {             /* the room itself faults */
		unsigned before = g.handled;
		info.si_addr = zone + DIES * SLOT_BYTES;
		call_handler(&info, &uc);
		g.nested_chained = g.handled != before;
		return false;
	}
	*out = (struct fault_claim){ s == DIES ? DIE_USE_AFTER_FREE : DIE_OVERFLOW, "room" };
	return s == DIES || s == DIES_OVERFLOW;
}

static bool
claim_and_ask(uintptr_t addr, struct fault_claim *out)
{
	enum slot s = slot_of(addr);

	*out = (struct fault_claim){ DIE_UNDERFLOW, "room" };
	return s == STAYS || s == GOES_ON || s == SILENT;
}

static bool
goes_on(uintptr_t addr, bool *silent)
{
	*silent = slot_of(addr) == SILENT;
	return slot_of(addr) != STAYS;
}

static void
let_through(uintptr_t addr)
{
	g.let_through += addr - (uintptr_t)zone < sizeof(zone);
}

static bool
claims_nothing(uintptr_t addr, struct fault_claim *out)
{
	(void)addr;
	(void)out;
	return false;
}

/* Of a fault; another error is a death. */
static void
hear(const struct die_info *info)
{
	if (info->access == NULL)
		die(info);
	g.reports++;
	g.reported = info->addr;
}

static const struct fault_room
    room_dies = { .claim = claim_and_die },
    room_asks = { .claim = claim_and_ask, .go_on = goes_on, .let_through = let_through };
static struct fault_room fill[FAULT_ROOMS];

static void
add_room(void *room)
{
	fault_add_room(room);
}

void
process_fault_start(void)
{
	memset(&g, 0, sizeof(g));
	sg_goes_on = hear;
}

bool
process_fault_ours(void)
{
	return g.ours;
}

/* ---- who was there before ---- */

static void
see(int sig, const void *info, const void *context)
{
	g.handled++;
	g.sig = sig;
	g.info = info;
	g.context = context;
	g.mask = sim.mask;
	g.was_default = sim.action[SIGSEGV].sa_handler == SIG_DFL;
	g.got_errno = errno;
	errno = 78;
	if (g.leaves)
		longjmp(g.out, 1);
}

static void
handler_with_info(int sig, siginfo_t *info, void *context)
{
	see(sig, info, context);
}

static void
handler_plain(int sig)
{
	see(sig, NULL, NULL);
}

static struct sigaction
disposition(const struct sgf_op *op)
{
	struct sigaction sa = { .sa_handler = SIG_DFL };
	static const int flags[] = { SA_NODEFER, (int)SA_RESETHAND, SA_ONSTACK, SA_RESTART };

	switch (op->a & 3) {
	case 1: sa.sa_handler = SIG_IGN; break;
	case 2: sa.sa_handler = handler_plain; break;
	case 3: sa.sa_sigaction = handler_with_info; break;
	default: break;
	}
	sa.sa_flags = (op->a & 3) == 3 ? SA_SIGINFO : 0;
	for (size_t i = 0; i < ARRAY_LEN(flags); i++)
		sa.sa_flags |= op->b >> i & 1 ? flags[i] : 0;
	if (op->b & 16)
		sigaddset(&sa.sa_mask, SIGUSR1);
	if (op->b & 32)
		sigaddset(&sa.sa_mask, SIGTERM);
	return sa;
}

/* With SA_SIGINFO and what the one before asked of stack and system calls; who ignores
 * signals is not to see one interrupt a call. */
static int
wanted_flags(const struct sigaction *earlier)
{
	bool plain = (earlier->sa_flags & SA_SIGINFO) == 0;
	int kept = earlier->sa_flags & (SA_ONSTACK | SA_RESTART);

	if (plain && earlier->sa_handler == SIG_DFL)
		kept = SA_ONSTACK;
	if (plain && earlier->sa_handler == SIG_IGN)
		kept = SA_ONSTACK | SA_RESTART;
	return SA_SIGINFO | SA_NODEFER | kept;
}

void
process_earlier(const struct sgf_op *op)
{
	struct sigaction before = disposition(op), now;
	unsigned warnings = sg_warnings;

	sim.action[SIGSEGV] = before;
	sim.no_get = (op->imm & 3) == 3;
	sim.no_set = (op->imm & 12) == 12;
	sim.auxval_phdr = op->imm & 16 ? 0 : getauxval(AT_PHDR);
	fault_start();
	g.ours = !sim.no_get && !sim.no_set;
	now = sim.action[SIGSEGV];
	if (!sim.no_get) {
		g.earlier = before;
		g.own_code = (op->imm & 16) != 0;
	}
	SG_CHECK(MODEL, sg_warnings - warnings == (!sim.no_get && sim.no_set), "%u warnings",
	    sg_warnings - warnings);
	sim.no_get = sim.no_set = false;
	if (!g.ours) {
		SG_CHECK(MODEL, memcmp(&now, &before, sizeof(now)) == 0, "refused, and changed");
		return;
	}
	SG_CHECK(MODEL, now.sa_sigaction != handler_with_info && now.sa_flags == wanted_flags(&before),
	    "flags %#x, not %#x", (unsigned)now.sa_flags, (unsigned)wanted_flags(&before));
	fault_start();
	SG_CHECK(MODEL, memcmp(&sim.action[SIGSEGV], &now, sizeof(now)) == 0, "started twice, it changed");
}

/* ---- a fault ---- */

struct fault {
	siginfo_t info;
	ucontext_t uc;
};

static void
call_handler(siginfo_t *info, ucontext_t *uc)
{
	sim_signal(SIGSEGV, info, uc);
}

static void
do_fault(void *arg)
{
	struct fault *f = arg;

	if (setjmp(g.out) == 0)
		call_handler(&f->info, &f->uc);
}

/* An instruction that reads 4 bytes, at the end of what can be read. */
static const uint8_t *g_code;

static void
make_code(void)
{
	uint8_t *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED || mprotect(p + 4096, 4096, PROT_NONE) != 0)
		sg_fail(ORACLE_MODEL, "no memory for an instruction");
	p[4094] = 0x8b;
	p[4095] = 0x07;
	g_code = p + 4094;
}

static struct mutex contended = MUTEX_INIT(LOCK_NONE);

static bool
give_up(void)
{
	mutex_reset(&contended);
	return true;
}

/* Before the first input, and behind fheap.c's: our rooms, and others until the table is
 * full; a lock that is waited for, which asks how many processors there are. */
__attribute__((constructor)) static void
warm_up(void)
{
	bool full = fake_die_caught(add_room, (void *)(uintptr_t)&room_dies) ||
	    fake_die_caught(add_room, (void *)(uintptr_t)&room_asks);

	SG_CHECK(MODEL, !full, "no place for two more rooms");
	for (size_t i = 0; i < ARRAY_LEN(fill) && !full; i++) {
		fill[i].claim = claims_nothing;
		full = fake_die_caught(add_room, &fill[i]);
	}
	make_code();
	mutex_orphaned = give_up;
	a32_store_relaxed(&contended.state, 1);
	mutex_lock(&contended);
	mutex_unlock(&contended);
	mutex_orphaned = NULL;
}

static void
make_fault(struct fault *f, const struct sgf_op *op)
{
	static const int codes[] = { SEGV_MAPERR, SEGV_ACCERR, SI_USER, SI_TKILL, SI_KERNEL, SI_QUEUE };
	const uint8_t *pc[] = { g_code, g_code + 2, (const uint8_t *)&process_fault, (const uint8_t *)1 };

	memset(f, 0, sizeof(*f));
	f->info.si_signo = SIGSEGV;
	f->info.si_code = codes[op->b % ARRAY_LEN(codes)];
	f->info.si_addr = zone + op->a % SLOTS * SLOT_BYTES + op->imm % SLOT_BYTES;
	f->uc.uc_mcontext.gregs[REG_RIP] = (greg_t)pc[op->imm >> 8 & 3];
	f->uc.uc_mcontext.gregs[REG_ERR] = op->imm & 2;
}

/* 0: the program's; else what it must die of, or DIE_CODES for a report and going on. */
static unsigned
whose(const struct fault *f)
{
	bool touch = f->info.si_code == SEGV_MAPERR || f->info.si_code == SEGV_ACCERR;
	bool own = g.own_code && f->uc.uc_mcontext.gregs[REG_RIP] == (greg_t)&process_fault;

	switch (touch ? slot_of((uintptr_t)f->info.si_addr) : NOBODYS) {
	case DIES: return DIE_USE_AFTER_FREE;
	case DIES_OVERFLOW: return DIE_OVERFLOW;
	case STAYS: return DIE_UNDERFLOW;
	case GOES_ON:
	case SILENT: return DIE_CODES;
	default: return own && f->info.si_code > 0 ? DIE_CORRUPTION : 0;
	}
}

/* The one before is called once, or the default action is prepared. */
static void
check_chained(const struct fault *f, uint64_t mask, unsigned times, bool ended)
{
	const struct sigaction *e = &g.earlier;
	bool info = (e->sa_flags & SA_SIGINFO) != 0, fault = f->info.si_code > 0;
	bool none = !info && (e->sa_handler == SIG_DFL || e->sa_handler == SIG_IGN);
	uint64_t blocked = mask | sim_bits(&e->sa_mask) |
	    (e->sa_flags & SA_NODEFER ? 0 : (uint64_t)1 << (SIGSEGV - 1));

	SG_CHECK(MODEL, !ended && g.handled == (none ? 0 : times), "called %u times", g.handled);
	if (none && e->sa_handler == SIG_IGN && !fault) {
		SG_CHECK(MODEL, sim.action[SIGSEGV].sa_handler != SIG_DFL && sim.n_queued == 0, "not ignored");
		return;
	}
	SG_CHECK(MODEL, (sim.action[SIGSEGV].sa_handler == SIG_DFL) == (none || (e->sa_flags & (int)SA_RESETHAND) != 0),
	    "the disposition afterwards");
	SG_CHECK(MODEL, sim.n_queued == (none && !fault), "sent again %u times", sim.n_queued);
	if (sim.n_queued != 0) {
		const struct sim_queued *q = &sim.queued[0];
		SG_CHECK(MODEL, q->pid == sim.pid && q->tid == sim.tid && q->sig == SIGSEGV &&
		    q->info.si_code == f->info.si_code, "another signal is sent");
	}
	if (none)
		return;
	SG_CHECK(MODEL, g.sig == SIGSEGV && g.info == (info ? &f->info : NULL) &&
	    g.context == (info ? &f->uc : NULL), "other arguments");
	SG_CHECK(MODEL, g.mask == blocked, "blocked %#lx, not %#lx", (unsigned long)g.mask,
	    (unsigned long)blocked);
	SG_CHECK(MODEL, g.was_default == ((e->sa_flags & (int)SA_RESETHAND) != 0), "reset, or not, before the call");
}

static void
check_ours(const struct fault *f, unsigned what, const struct die_info *d)
{
	uintptr_t addr = (uintptr_t)f->info.si_addr;

	SG_CHECK(MODEL, g.handled == 0 && sim.n_queued == 0, "ours, and the program's too");
	if (what == DIE_CODES) {
		bool silent = slot_of(addr) == SILENT;
		SG_CHECK(MODEL, d == NULL && g.let_through == 1 && g.reports == !silent &&
		    (silent || g.reported == addr), "reported %u times, let through %u", g.reports, g.let_through);
		return;
	}
	SG_CHECK(DETECT, d != NULL && d->code == what && d->addr == addr && d->access != NULL,
	    "code %d, not %u", d != NULL ? (int)d->code : -1, what);
	SG_CHECK(DETECT, d->access == NULL || (d->access->pc == (uintptr_t)f->uc.uc_mcontext.gregs[REG_RIP] &&
	    d->access->write == ((f->uc.uc_mcontext.gregs[REG_ERR] & 2) != 0)), "another access is told of");
	if (d->access != NULL && d->access->pc == (uintptr_t)g_code)
		SG_CHECK(DETECT, d->access->bytes == 4, "an access of %u bytes", d->access->bytes);
}

void
process_fault(const struct sgf_op *op)
{
	static struct fault f;
	uint64_t mask = op->imm >> 16 & 1 ? (uint64_t)1 << (SIGINT - 1) : 0;

	if (!g.ours)
		return;
	struct sigaction handler = sim.action[SIGSEGV];
	make_fault(&f, op);
	g.handled = g.let_through = g.reports = sim.n_queued = 0;
	g.leaves = (op->imm >> 17 & 3) == 3 && slot_of((uintptr_t)f.info.si_addr) != NESTED;
	sim.mask = mask;
	errno = 77;
	const struct die_info *d = sg_heap_try(do_fault, &f);
	sim.mask = 0;
	unsigned what = whose(&f);
	/* a room that faults while it is asked: the one before sees both */
	bool nested = slot_of((uintptr_t)f.info.si_addr) == NESTED && f.info.si_code <= SEGV_ACCERR &&
	    f.info.si_code > 0;
	if (what == 0)
		check_chained(&f, mask, nested ? 2 : 1, d != NULL);
	else if (!nested)
		check_ours(&f, what, d);
	else
		SG_CHECK(DETECT, d != NULL && d->code == DIE_CORRUPTION, "a fault in our own code was not reported");
	SG_CHECK(ERRNO, d != NULL || (g.leaves && g.handled != 0) || errno == 77, "errno is %d", errno);
	sg_note(what + 100 * g.handled);
	sim.action[SIGSEGV] = handler;
}
