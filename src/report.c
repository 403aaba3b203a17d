/* report.c - die(): one whole report, then SIGABRT.
 *
 *   ==PID==ERROR: spanguard: attempting double-free on 0x.. in thread T0 (..):
 *     the call was free()
 *     #0 0x.. in free (/usr/lib/libspanguard.so+0x..) (BuildId: ..)
 *     #1 0x.. in main (/usr/bin/prog+0x..) (BuildId: ..)
 *
 *   0x.. is located 0 bytes inside of 48-byte slot [0x..,0x..) (..)
 *   HINT: ..
 *   SUMMARY: spanguard: double-free (/usr/bin/prog+0x..) in main
 *
 * The grammar is AddressSanitizer's, so tools that read its reports read these.
 *
 * REPORT-1: a report is composed in one static buffer by one thread and leaves
 *   in one piece. The first thread to come owns the buffer; others wait a few
 *   seconds for the process to end and then abort without a word.
 * REPORT-2: an error in the reporter itself (same thread again) sends off what
 *   was composed so far with one more line, and aborts.
 *   When the program's SIGABRT handler left by longjmp and goes on, the next
 *   error is a new report, up to REPORTS_MAX of them.
 * REPORT-3: the owner is (process, thread): a child that was forked while
 *   another thread reported takes the buffer over.
 *
 * Of a fault (die_info.access) the stack begins where it happened, not in the
 * handler. What changed bytes look like (die_info.diff) is said as far as it can
 * be told: text, a pointer and into what, a small integer, a single bit.
 *
 * Locks: only that owner word; no lock of the allocator, which may be held by
 * the very thread that reports. No malloc, no stdio; 1 KiB of stack besides the
 * unwinder's. Signals other than those of faults are blocked meanwhile. */
#include "report.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "atomic.h"
#include "die.h"
#include "log.h"
#include "mlookup.h"
#include "options.h"
#include "print.h"
#include "procmap.h"
#include "unwind.h"
#include "../hardening/hooks.h"

enum {
	REPORT_BYTES = 65536 - 4096,   /* within what a datagram of the log may hold */
	FRAMES_MAX = 64,
	SYMBOL_BYTES = 256,
	TEXT_MIN_BYTES = 4,            /* printable bytes in a row that are taken for text */
	SMALL_INTEGER = 65536,
	WAIT_MS = 10,
	WAITS_MAX = 500,
	REPORTS_MAX = 8,
	TOLD_PLACES = 1024,            /* reported when the program goes on after errors */
	TOLD_FRAMES = 12,
};

char spanguard_report[REPORT_KEPT_BYTES];

/* Everything of a report in progress; written by the owner only. */
static struct {
	struct print out;
	char buf[REPORT_BYTES];
	uintptr_t pcs[FRAMES_MAX];
	size_t frames;
	struct addr_info addr;
	struct room_object object;
	bool has_object;         /* a hardening room knows more of the address */
	struct addr_info target; /* of a pointer found in changed bytes */
	struct mapping map;
	struct module module;
	char symbol[SYMBOL_BYTES];
	bool has_symbol;
	bool goes_on;            /* the process does, after this report */
	bool sent;               /* nothing is in progress any more */
	unsigned reports;
} rep;

static atomic_u64 owner;     /* pid << 32 | tid, 0: nobody */

static uint32_t
own_pid(void)
{
	return (uint32_t)syscall(SYS_getpid);
}

static uint32_t
own_tid(void)
{
	return (uint32_t)syscall(SYS_gettid);
}

/* ---- the end ------------------------------------------------------------ */

static void
raise_abort(void)
{
	uint64_t set = (uint64_t)1 << (SIGABRT - 1);
	syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &set, NULL, sizeof(set));
	syscall(SYS_tgkill, own_pid(), own_tid(), SIGABRT);
}

/* The program's own handler runs first and may leave by longjmp; a core dump
 * and the parent's view are those of abort(3). */
static _Noreturn void
end_process(bool ask_program)
{
	struct sigaction dfl;
	if (ask_program)
		raise_abort();
	memset(&dfl, 0, sizeof(dfl));
	dfl.sa_handler = SIG_DFL;
	sigaction(SIGABRT, &dfl, NULL);
	raise_abort();
	for (;;)
		syscall(SYS_exit_group, 134);
}

/* ---- one report at a time ----------------------------------------------- */

static _Noreturn void
second_error(const struct die_info *info)
{
	if (rep.out.buf == NULL)
		print_init(&rep.out, rep.buf, sizeof(rep.buf));
	print_str(&rep.out, "\nspanguard: another error while this was written");
	if (info->site != NULL) {
		print_str(&rep.out, ": ");
		print_str(&rep.out, info->site);
	}
	print_char(&rep.out, '\n');
	log_write(&rep.out);
	end_process(false);
}

static void
become_owner(const struct die_info *info)
{
	uint64_t me = (uint64_t)own_pid() << 32 | own_tid();
	struct timespec nap = { 0, WAIT_MS * 1000000L };
	for (unsigned waits = 0;; waits++) {
		uint64_t now = 0;
		if (a64_cas(&owner, &now, me))
			return;
		if (now == me && rep.sent && rep.reports < REPORTS_MAX)
			return;
		if (now == me)
			second_error(info);
		bool gone = now >> 32 != me >> 32 || (waits == WAITS_MAX && rep.sent);
		if (gone && a64_cas(&owner, &now, me))
			return;
		if (waits == WAITS_MAX)
			end_process(false);
		syscall(SYS_nanosleep, &nap, NULL);
	}
}

/* Leaves only what a fault in here would need: a blocked SIGSEGV kills without
 * the program's handler. */
static uint64_t
block_signals(void)
{
	uint64_t set = ~(uint64_t)0;
	uint64_t old = 0;
	static const int faults[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT };
	for (size_t i = 0; i < ARRAY_LEN(faults); i++)
		set &= ~((uint64_t)1 << (faults[i] - 1));
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &set, &old, sizeof(set));
	return old;
}

/* Writing to a pipe without a reader left this pending: the process is to end by
 * SIGABRT, not by it. */
static void
drop_sigpipe(void)
{
	uint64_t set = (uint64_t)1 << (SIGPIPE - 1);
	const struct timespec now = { 0, 0 };
	syscall(SYS_rt_sigtimedwait, &set, NULL, &now, sizeof(set));
}

/* ---- first lines -------------------------------------------------------- */

static bool
releases(const char *api)
{
	return strstr(api, "realloc") == NULL && strstr(api, "usable") == NULL;
}

static void
put_thread(struct print *p)
{
	char name[17] = "";
	uint32_t tid = own_tid();
	syscall(SYS_prctl, PR_GET_NAME, name, 0, 0, 0);
	print_str(p, " thread T");
	print_dec(p, tid == own_pid() ? 0 : tid);
	print_str(p, " (");
	print_quoted(p, name, sizeof(name));
	print_str(p, ", tid ");
	print_dec(p, tid);
	print_str(p, ")");
}

static void
put_tagged(struct print *p, const char *text, const struct die_info *info)
{
	print_str(p, text);
	print_str(p, " [");
	print_str(p, info->site != NULL ? info->site : "?");
	print_str(p, "] at ");
	print_hex(p, info->addr);
}

static uintptr_t
object_base(void)
{
	return rep.has_object ? rep.object.base : rep.addr.slot_base;
}

static void
put_not_malloced(struct print *p, const struct die_info *info)
{
	print_str(p, "attempting ");
	print_str(p, releases(info->api) ? "free" : info->api);
	print_str(p, " on address which was not malloc()-ed: ");
	print_hex(p, info->addr);
	if (info->code == DIE_INTERIOR_FREE) {
		print_str(p, ", ");
		print_bytes(p, info->addr - object_base());
		print_str(p, " inside of an object,");
	}
}

/* As AddressSanitizer says it, but for the size: the kernel does not tell it. */
static void
put_access(struct print *p, const struct die_info *info)
{
	const struct die_access *a = info->access;
	print_str(p, info->code == DIE_ZERO_SIZE ? "access to a zero-size object" :
	    die_word(info->code, info->api));
	print_str(p, " on address ");
	print_hex(p, info->addr);
	print_str(p, " at pc ");
	print_hex(p, a->pc);
	print_str(p, " bp ");
	print_hex(p, a->bp);
	print_str(p, " sp ");
	print_hex(p, a->sp);
	print_str(p, !a->known ? "\nACCESS at " : a->write ? "\nWRITE at " : "\nREAD at ");
	print_hex(p, info->addr);
}

/* Seen later: by which call. */
static void
put_late(struct print *p, const struct die_info *info)
{
	bool reuse = info->code == DIE_WRITE_AFTER_FREE && strstr(info->api, "alloc") != NULL;
	print_str(p, die_word(info->code, info->api));
	print_str(p, reuse ? " detected on reuse on address " : " detected at ");
	if (!reuse) {
		bool frees = releases(info->api) && (strstr(info->api, "free") != NULL ||
		    strstr(info->api, "delete") != NULL);
		print_str(p, frees ? "free" : info->api[0] != 0 ? info->api : "verify");
		print_str(p, " on address ");
	}
	print_hex(p, info->addr);
}

/* "operator new []", as AddressSanitizer spells it. */
static void
put_function(struct print *p, const char *api)
{
	for (; api != NULL && *api != 0; api++) {
		if (*api == '[')
			print_char(p, ' ');
		print_char(p, *api);
	}
}

static void
put_title(struct print *p, const struct die_info *info)
{
	if (info->access != NULL) {
		put_access(p, info);
		return;
	}
	switch (info->code) {
	case DIE_DOUBLE_FREE:
		print_str(p, "attempting double-free on ");
		print_hex(p, info->addr);
		break;
	case DIE_INVALID_FREE:
	case DIE_INTERIOR_FREE: put_not_malloced(p, info); break;
	case DIE_STALE_POINTER:
		print_str(p, "attempting ");
		print_str(p, info->api);
		print_str(p, " on freed pointer ");
		print_hex(p, info->addr);
		break;
	case DIE_CANARY:
	case DIE_UNDERFLOW_SEEN:
	case DIE_WRITE_AFTER_FREE: put_late(p, info); break;
	case DIE_API_MISMATCH:
		print_str(p, "alloc-dealloc-mismatch (");
		put_function(p, info->made_by);
		print_str(p, " vs ");
		put_function(p, info->api);
		print_str(p, ") on ");
		print_hex(p, info->addr);
		break;
	case DIE_CORRUPTION: put_tagged(p, "allocator metadata corrupted", info); break;
	case DIE_VERIFY: put_tagged(p, "heap verification failed", info); break;
	case DIE_OUT_OF_MEMORY:
		print_str(p, "out of memory: ");
		print_str(p, info->api);
		print_str(p, " of ");
		print_bytes(p, info->given);
		break;
	default:
		print_str(p, die_word(info->code, info->api));
		print_str(p, " on ");
		print_hex(p, info->addr);
		break;
	}
}

static void
put_head(struct print *p, const struct die_info *info)
{
	print_str(p, "=================================================================\n==");
	print_dec(p, own_pid());
	print_str(p, "==ERROR: spanguard: ");
	put_title(p, info);
	print_str(p, info->access != NULL ? "" : " in");
	put_thread(p);
	print_str(p, info->access != NULL ? "\n" : ":\n");
	if (info->api[0] != 0) {
		print_str(p, "  the call was ");
		print_str(p, info->api);
		if (info->site != NULL) {
			print_str(p, ", the check that fired ");
			print_str(p, info->site);
		}
		print_char(p, '\n');
	}
	if (info->code != DIE_SIZE_MISMATCH && info->code != DIE_ALIGN_MISMATCH)
		return;
	bool size = info->code == DIE_SIZE_MISMATCH;
	print_str(p, size ? "  size the program says:    " : "  alignment the program says:    ");
	print_bytes(p, info->given);
	print_str(p, size ? ";\n  size of what lies there:  " : ";\n  alignment of what lies there:  ");
	print_bytes(p, info->expected);
	print_str(p, ".\n");
}

/* ---- the stack ---------------------------------------------------------- */

/* Fills rep.module and rep.symbol. */
static bool
look_up_pc(uintptr_t pc)
{
	uintptr_t offset;
	rep.has_symbol = false;
	if (!procmap_module(pc, &rep.module))
		return false;
	rep.has_symbol = procmap_symbol(&rep.module, pc, rep.symbol, SYMBOL_BYTES, &offset);
	return true;
}

static void
put_place(struct print *p, uintptr_t pc)
{
	print_char(p, '(');
	print_quoted(p, rep.module.path, PROCMAP_PATH_BYTES);
	print_char(p, '+');
	print_hex(p, pc - rep.module.bias);
	print_char(p, ')');
}

static void
put_frame(struct print *p, size_t i, uintptr_t pc)
{
	print_str(p, "    #");
	print_dec(p, i);
	print_char(p, ' ');
	print_hex(p, pc);
	if (!look_up_pc(pc)) {
		print_str(p, " (<unknown module>)\n");
		return;
	}
	if (rep.has_symbol) {
		print_str(p, " in ");
		print_quoted(p, rep.symbol, SYMBOL_BYTES);
	}
	print_char(p, ' ');
	put_place(p, pc);
	if (rep.module.build_id_bytes != 0) {
		print_str(p, " (BuildId: ");
		print_hex_bytes(p, rep.module.build_id, rep.module.build_id_bytes);
		print_char(p, ')');
	}
	print_char(p, '\n');
}

/* The stack of a fault begins where the signal frame says it was; without that
 * frame, because the walk did not get so far, at least there. */
static void
take_stack_at(uintptr_t pc)
{
	size_t n = unwind_here(rep.pcs, FRAMES_MAX);
	size_t first = 0;
	while (first < n && rep.pcs[first] != pc)
		first++;
	rep.frames = n - first;
	memmove(rep.pcs, rep.pcs + first, rep.frames * sizeof(rep.pcs[0]));
	if (rep.frames == 0)
		rep.pcs[rep.frames++] = pc;
}

/* Leaves the entry point of ours as frame 0 where we are a library; where we
 * are linked into the program, only the reporter's own frames can be told. */
static void
take_stack(uintptr_t caller)
{
	size_t n = unwind_here(rep.pcs, FRAMES_MAX);
	size_t first = 0;
	while (first < n && rep.pcs[first] != caller - 1)
		first++;
	if (first != n) {
		n -= first;
		memmove(rep.pcs, rep.pcs + first, n * sizeof(rep.pcs[0]));
	}
	if (n == 0)
		rep.pcs[n++] = caller - 1;     /* no unwind tables: better than nothing */
	uintptr_t program = (uintptr_t)getauxval(AT_PHDR);
	if (procmap_module((uintptr_t)&take_stack, &rep.module) &&
	    program - rep.module.start >= rep.module.end - rep.module.start)
		n = unwind_trim(rep.pcs, n, rep.module.start, rep.module.end);
	rep.frames = n;
}

static void
put_frames(struct print *p, const uintptr_t *pcs, size_t n, size_t max)
{
	for (size_t i = 0; i < n; i++)
		put_frame(p, i, pcs[i]);
	if (n == max)
		print_str(p, "    ...\n");
	print_char(p, '\n');
}

/* ---- what the address is ------------------------------------------------ */

static const char *
state_name(enum slot_state s)
{
	switch (s) {
	case SLOT_FREE: return "free";
	case SLOT_LIVE: return "live";
	case SLOT_FREED: return "freed";
	case SLOT_TAIL: break;
	}
	return "no slot";
}

static void
put_range(struct print *p, uintptr_t start, uintptr_t end)
{
	print_str(p, " [");
	print_hex(p, start);
	print_char(p, ',');
	print_hex(p, end);
	print_char(p, ')');
}

static void
put_span(struct print *p, const struct addr_info *a)
{
	print_str(p, "span ");
	print_hex(p, a->span_base);
	print_str(p, " of ");
	print_dec(p, a->span_bytes);
	print_str(p, " bytes");
	if (a->size_class != 0) {
		print_str(p, ", class ");
		print_dec(p, a->elem_bytes);
	}
	print_str(p, a->noscan ? ", noscan" : ", scan");
	if (a->parked)
		print_str(p, ", in the quarantine");
	if (a->owner_tid != 0) {
		print_str(p, ", owner thread ");
		print_dec(p, (uint64_t)a->owner_tid);
	}
	print_str(p, ")\n");
}

/* Where addr is, seen from [base, base + bytes). */
static void
put_relation(struct print *p, uintptr_t addr, uintptr_t base, size_t bytes, const char *kind)
{
	uintptr_t end = base + bytes;
	bool inside = addr - base < bytes || addr == base;
	print_str(p, " is located ");
	print_bytes(p, addr < base ? base - addr : inside ? addr - base : addr - end);
	print_str(p, addr < base ? " before " : inside ? " inside of " : " after ");
	print_dec(p, bytes);
	print_str(p, kind);
	put_range(p, base, end);
}

static void
put_slot(struct print *p, uintptr_t addr, const struct addr_info *a)
{
	if (a->state == SLOT_TAIL) {
		print_str(p, " lies behind the last slot of its span (");
		put_span(p, a);
		return;
	}
	put_relation(p, addr, a->slot_base, a->elem_bytes,
	    a->kind == ADDR_LARGE ? "-byte object" : "-byte slot");
	print_str(p, " (");
	if (a->kind != ADDR_LARGE) {
		print_str(p, "slot ");
		print_dec(p, a->slot_idx);
		print_str(p, " of ");
		print_dec(p, a->nelems);
		print_str(p, ", ");
	}
	print_str(p, state_name(a->state));
	if (a->freed_by_other)
		print_str(p, " by a thread that is not the owner");
	print_str(p, "; ");
	put_span(p, a);
}

static void
put_released(struct print *p, const struct addr_info *a)
{
	print_str(p, " lies in the heap, in memory that is not in use now");
	if (a->elem_bytes != 0) {
		print_str(p, "; objects of ");
		print_bytes(p, a->elem_bytes);
		print_str(p, " lived here last");
	}
	print_char(p, '\n');
}

static const char *
kind_text(enum region_kind kind)
{
	switch (kind) {
	case REGION_NONE: return " is not mapped";
	case REGION_NONCANONICAL: return " is no address that a program can have (non-canonical)";
	case REGION_THIS_STACK: return " is on the stack of this thread";
	case REGION_MAIN_STACK: return " is on the stack of the main thread";
	case REGION_BRK: return " is in the brk segment [heap]";
	case REGION_CODE: return " is in the code of ";
	case REGION_RODATA: return " is in the read-only data of ";
	case REGION_DATA: return " is in the .data of ";
	case REGION_BSS: return " is in the .bss of ";
	case REGION_FILE: return " is in a mapping of the file ";
	case REGION_VDSO: return " is in the kernel's vdso";
	case REGION_ANON:
	case REGION_KINDS: break;
	}
	return " is in a foreign anonymous mapping";
}

static void
put_foreign(struct print *p, uintptr_t addr)
{
	procmap_classify(addr, (uintptr_t)__builtin_frame_address(0), &rep.map);
	enum region_kind kind = rep.map.kind;
	bool module = kind >= REGION_CODE && kind <= REGION_BSS;
	print_str(p, kind_text(kind));
	if (module || kind == REGION_FILE)
		print_quoted(p, rep.map.path, PROCMAP_PATH_BYTES);
	if (module && procmap_module(addr, &rep.module)) {
		print_str(p, " (offset ");
		print_hex(p, addr - rep.module.bias);
		print_char(p, ')');
	} else if (kind != REGION_NONE && kind != REGION_NONCANONICAL) {
		put_range(p, rep.map.start, rep.map.end);
	}
	if (kind == REGION_ANON && rep.map.path[0] != 0) {
		print_char(p, ' ');
		print_quoted(p, rep.map.path, PROCMAP_PATH_BYTES);
	}
	print_char(p, '\n');
}

/* An object that a hardening room keeps the record of. */
static void
put_object(struct print *p, uintptr_t addr)
{
	const struct room_object *o = &rep.object;
	put_relation(p, addr, o->base, o->bytes, "-byte region");
	print_str(p, " (");
	print_str(p, o->what != NULL ? o->what : o->api);
	if (o->serial != 0) {
		print_str(p, ", allocation ");
		print_dec(p, o->serial);
	}
	print_str(p, o->live ? ", live" : ", freed");
	if (o->kind == ROOM_RECORDED) {
		print_str(p, "; ");
		put_span(p, &rep.addr);
	} else {
		print_str(p, ")\n");
	}
}

static void
put_address(struct print *p, uintptr_t addr, const struct addr_info *a)
{
	print_hex(p, addr);
	switch (a->kind) {
	case ADDR_SMALL:
	case ADDR_TINY:
	case ADDR_LARGE: put_slot(p, addr, a); break;
	case ADDR_HEAP_RELEASED: put_released(p, a); break;
	case ADDR_HEAP_UNUSED:
		print_str(p, " lies in the heap, in memory that was never handed out\n");
		break;
	case ADDR_FOREIGN: put_foreign(p, addr); break;
	}
}

/* ---- who allocated and freed it ----------------------------------------- */

static void
put_history(struct print *p, const char *what, const struct room_trace *s)
{
	uint32_t tid = (uint32_t)s->tid;
	print_str(p, what);
	print_dec(p, tid == own_pid() ? 0 : tid);
	print_str(p, " (tid ");
	print_dec(p, tid);
	print_str(p, ") here:\n");
	if (s->frames == 0)
		print_str(p, "    (the stack was not recorded)\n");
	put_frames(p, s->pcs, s->frames, ROOM_FRAMES);
}

static void
put_histories(struct print *p)
{
	const struct room_object *o = &rep.object;
	bool freed = o->freed.tid != 0;
	if (freed)
		put_history(p, "freed by thread T", &o->freed);
	if (o->allocated.tid != 0)
		put_history(p, freed ? "previously allocated by thread T" :
		    "allocated by thread T", &o->allocated);
}

/* ---- changed bytes ------------------------------------------------------ */

static void
put_changed_byte(struct print *p, int64_t offset, uint8_t found, uint8_t expected)
{
	static const char digit[] = "0123456789abcdef";
	char text[] = ": 0x.. (expected 0x..)\n";
	text[4] = digit[found >> 4];
	text[5] = digit[found & 15];
	text[19] = digit[expected >> 4];
	text[20] = digit[expected & 15];
	print_str(p, "    offset ");
	print_sdec(p, offset);
	print_str(p, text);
}

/* The longest run of printable bytes that begins and ends with a changed one. */
static void
put_if_text(struct print *p, const struct die_diff *d)
{
	size_t best = 0, best_at = 0, run = 0;
	char text[DIE_DIFF_BYTES + 1] = "";
	for (size_t i = 0; i < d->n && i < DIE_DIFF_BYTES; i++) {
		bool changed = d->found[i] != d->expected[i];
		bool printable = d->found[i] >= 0x20 && d->found[i] < 0x7f;
		run = printable && (changed || run != 0) ? run + 1 : 0;
		if (changed && run > best) {
			best = run;
			best_at = i + 1 - run;
		}
	}
	if (best < TEXT_MIN_BYTES)
		return;
	print_str(p, "  they look like text: \"");
	memcpy(text, d->found + best_at, best);
	print_quoted(p, text, sizeof(text));
	print_str(p, "\"\n");
}

static void
put_if_one_bit(struct print *p, const struct die_diff *d)
{
	size_t at = 0, bits = 0;
	for (size_t i = 0; i < d->n; i++) {
		unsigned differ = d->found[i] ^ d->expected[i];
		bits += popcount64(differ);
		if (differ != 0)
			at = i;
	}
	if (bits != 1 || d->changed > 1)
		return;
	print_str(p, "  exactly one bit is flipped, bit ");
	print_dec(p, ctz64((uint64_t)(d->found[at] ^ d->expected[at])));
	print_str(p, ": a flag set through a stale pointer, or broken memory\n");
}

/* What the word would point to; false if to nothing. */
static bool
is_pointer(uint64_t word)
{
	if (word < 4096 || word >> ADDR_BITS != 0)
		return false;
	heap_describe((uintptr_t)word, &rep.target);
	if (rep.target.kind != ADDR_FOREIGN)
		return true;
	procmap_classify((uintptr_t)word, (uintptr_t)__builtin_frame_address(0), &rep.map);
	return rep.map.kind != REGION_NONE && rep.map.kind != REGION_NONCANONICAL;
}

static void
put_word(struct print *p, int64_t offset, uint64_t word)
{
	int64_t v = (int64_t)word;
	print_str(p, "  the 8 bytes at offset ");
	print_sdec(p, offset);
	if (is_pointer(word)) {
		print_str(p, " are a pointer: ");
		put_address(p, (uintptr_t)word, &rep.target);
	} else if (v > -SMALL_INTEGER && v < SMALL_INTEGER) {
		print_str(p, " are a small integer: ");
		print_sdec(p, v);
		print_char(p, '\n');
	} else {
		print_str(p, " are ");
		print_hex(p, word);
		print_char(p, '\n');
	}
}

/* The first word, as the machine sees words, with a changed byte in it. */
static void
put_first_word(struct print *p, const struct die_diff *d, uintptr_t origin)
{
	uint64_t word;
	size_t i = (size_t)(-d->base & 7);
	for (; i + sizeof(word) <= d->n; i += sizeof(word)) {
		memcpy(&word, d->found + i, sizeof(word));
		if (memcmp(d->found + i, d->expected + i, sizeof(word)) != 0) {
			put_word(p, (int64_t)(d->base + i - origin), word);
			return;
		}
	}
}

static void
put_diff(struct print *p, const struct die_info *info)
{
	const struct die_diff *d = info->diff;
	size_t shown = 0;
	uintptr_t origin = object_base() != 0 ? object_base() : info->addr;
	print_bytes(p, d->changed);
	print_str(p, d->changed == 1 ? " changed, by offset from " : " changed, by offsets from ");
	print_hex(p, origin);
	print_str(p, ":\n");
	for (size_t i = 0; i < d->n && i < DIE_DIFF_BYTES; i++)
		if (d->found[i] != d->expected[i]) {
			put_changed_byte(p, (int64_t)(d->base + i - origin), d->found[i], d->expected[i]);
			shown++;
		}
	if (shown < d->changed)
		print_str(p, "    ...\n");
	put_if_text(p, d);
	put_if_one_bit(p, d);
	put_first_word(p, d, origin);
}

/* ---- hints -------------------------------------------------------------- */

static const char *
hint_foreign(enum region_kind kind)
{
	switch (kind) {
	case REGION_THIS_STACK:
	case REGION_MAIN_STACK: return "a local variable or an array on the stack; only what malloc returned may be freed";
	case REGION_CODE: return "this is code, not data: was a function pointer or an overwritten variable passed?";
	case REGION_RODATA: return "a constant, perhaps a string literal; make a copy with strdup if it is to be freed";
	case REGION_DATA:
	case REGION_BSS: return "a global or static variable; only what malloc returned may be freed";
	case REGION_BRK: return "memory of another allocator: libc's malloc, called before spanguard was in place or through RTLD_DEEPBIND, or one that the program brings along";
	case REGION_ANON: return "memory from mmap or from another allocator that the program brings along; its own release function is to be called";
	case REGION_FILE: return "a mapped file is given back by munmap";
	case REGION_NONE: return "an uninitialised or overwritten pointer, or memory that was unmapped before";
	case REGION_NONCANONICAL: return "an uninitialised or overwritten pointer, or one with tag bits in it";
	case REGION_VDSO:
	case REGION_KINDS: break;
	}
	return NULL;
}

static const char *
hint_interior(uintptr_t offset)
{
	if (offset == 8)
		return "8 bytes into the object: new[] of a type with a destructor keeps its count there; use delete[]";
	if (offset == 16)
		return "16 bytes into the object: a header of 16 bytes in front of what the program uses, perhaps by a wrapper around malloc; its own release function is to be called";
	return "the pointer was moved after malloc returned it, or it points to a member; free wants the address that malloc returned";
}

/* Where stacks were kept they say it all. */
static const char *
hint_use_after_free(void)
{
	if (rep.has_object && rep.object.freed.tid != 0)
		return "the object was freed, by the first of the two stacks above, before this access";
	return "the object was freed before this access; SPANGUARD_OPTIONS=sample=100 keeps the stacks of malloc and free for one object in 100";
}

static const char *
hint_beyond(const struct die_info *info)
{
	if (rep.has_object && rep.object.allocated.tid != 0)
		return info->code == DIE_OVERFLOW ?
		    "an access behind the end of the object that the stack above allocated" :
		    "an access before the beginning of the object that the stack above allocated";
	return info->code == DIE_OVERFLOW ?
	    "an access behind the end of the object, or of one before it in the same span; SPANGUARD_OPTIONS=sample=100 puts one object in 100 next to a guard of its own" :
	    "an access before the beginning of the object: a negative index, or a pointer that was moved down too far";
}

static const char *
hint_of(const struct die_info *info)
{
	const struct addr_info *a = &rep.addr;
	switch (info->code) {
	case DIE_DOUBLE_FREE:
		return a->freed_by_other ?
		    "the first free came from a thread that does not own the object: two threads believe it is theirs" :
		    "two places believe they own the object; set the pointer to NULL where it is freed first, or look for a shallow copy";
	case DIE_INTERIOR_FREE: return hint_interior(info->addr - object_base());
	case DIE_INVALID_FREE:
		if (a->kind == ADDR_FOREIGN)
			return hint_foreign(rep.map.kind);
		return a->kind == ADDR_HEAP_RELEASED ?
		    "the object was freed long ago and its span has been given back" : NULL;
	case DIE_STALE_POINTER: return "the object was freed before this call; the pointer is out of date";
	case DIE_SIZE_MISMATCH:
		return "deleted through a pointer to another type, perhaps to a base class without a virtual destructor, or an incomplete type";
	case DIE_ALIGN_MISMATCH: return "allocated and released with different alignments";
	case DIE_USE_AFTER_FREE: return hint_use_after_free();
	case DIE_OVERFLOW:
	case DIE_UNDERFLOW: return hint_beyond(info);
	case DIE_ZERO_SIZE:
		return "malloc(0) returns a pointer that may be freed and nothing else; was a size computed as 0?";
	case DIE_API_MISMATCH:
		return "new[] goes with delete[], new with delete, malloc and its kin with free; mismatch=0 switches this check off";
	case DIE_UNDERFLOW_SEEN:
		return "the bytes before the object were written between its allocation and this call: a negative index, or a pointer that was moved down too far";
	case DIE_CANARY:
		return "the bytes behind the object were written between its allocation and this call; the offset says how far the write went";
	case DIE_WRITE_AFTER_FREE:
		return "the object that was here before was written to after its free; the offset names the member";
	case DIE_CORRUPTION:
	case DIE_VERIFY:
		return "metadata lies outside of the heap behind guards: a stray write through a wild pointer, broken memory, or a bug of spanguard";
	default: return NULL;
	}
}

/* ---- the whole ---------------------------------------------------------- */

/* A fault inside memcpy or strlen is the caller's. */
static bool
in_libc(uintptr_t pc)
{
	const char *name;
	if (!look_up_pc(pc))
		return false;
	name = strrchr(rep.module.path, '/');
	name = name != NULL ? name + 1 : rep.module.path;
	return strncmp(name, "libc.", 5) == 0 || strncmp(name, "libc-", 5) == 0 ||
	    strncmp(name, "ld-", 3) == 0;
}

/* The frame to group reports by: the caller of our function, or where the fault
 * was, but not in libc. */
static uintptr_t
summary_here(const struct die_info *info)
{
	size_t i = 0;
	if (rep.frames == 0)
		return 0;
	if (info->access == NULL)
		return rep.pcs[rep.frames > 1 ? 1 : 0];
	while (i < rep.frames && in_libc(rep.pcs[i]))
		i++;
	return rep.pcs[i < rep.frames ? i : 0];
}

/* What a check of freed memory or of the whole heap came upon is not the fault of
 * whoever made it run: that is named by who freed, or made, the object. */
static uintptr_t
summary_pc(const struct die_info *info)
{
	const struct room_trace *t = &rep.object.allocated;
	bool late = info->code == DIE_CANARY || info->code == DIE_UNDERFLOW_SEEN;
	bool by_free = strstr(info->api, "free") != NULL || strstr(info->api, "delete") != NULL ||
	    strstr(info->api, "realloc") != NULL;
	if (info->code == DIE_WRITE_AFTER_FREE)
		t = &rep.object.freed;
	else if (!late || by_free)
		return summary_here(info);
	if (!rep.has_object || t->frames == 0)
		return summary_here(info);
	return t->pcs[t->frames > 1 ? 1 : 0];
}

static void
put_summary(struct print *p, const struct die_info *info)
{
	uintptr_t pc = summary_pc(info);
	print_str(p, "SUMMARY: spanguard: ");
	print_str(p, die_word(info->code, info->api));
	if (pc != 0 && look_up_pc(pc)) {
		print_char(p, ' ');
		put_place(p, pc);
		if (rep.has_symbol) {
			print_str(p, " in ");
			print_quoted(p, rep.symbol, SYMBOL_BYTES);
		}
	}
	print_char(p, '\n');
}

static void
put_code(struct print *p, const struct die_info *info)
{
	print_str(p, "CODE: ");
	print_str(p, die_id(info->code));
	print_str(p, " (spanguard explain ");
	print_str(p, die_id(info->code));
	print_str(p, ")\n");
}

static void
put_what(struct print *p, uintptr_t addr)
{
	if (addr == 0)
		return;
	if (rep.has_object && (rep.object.what != NULL || rep.object.api != NULL)) {
		print_hex(p, addr);
		put_object(p, addr);
		put_histories(p);
	} else {
		put_address(p, addr, &rep.addr);
	}
}

static void
compose(const struct die_info *info)
{
	struct print *p = &rep.out;
	put_head(p, info);
	put_frames(p, rep.pcs, rep.frames, FRAMES_MAX);
	if (info->diff != NULL)
		put_diff(p, info);
	put_what(p, info->addr);
	const char *hint = hint_of(info);
	if (hint != NULL) {
		print_str(p, "HINT: ");
		print_str(p, hint);
		print_char(p, '\n');
	}
	put_code(p, info);
	put_summary(p, info);
	print_str(p, "==");
	print_dec(p, own_pid());
	print_str(p, rep.goes_on ? "==GOING ON\n" : "==ABORTING\n");
}

static void
keep(const struct print *p)
{
	size_t n = p->len < REPORT_KEPT_BYTES - 1 ? p->len : REPORT_KEPT_BYTES - 1;
	memcpy(spanguard_report, p->buf, n);
	spanguard_report[n] = 0;
}

/* What the address is, by the rooms or by the heap. */
static void
take_address(uintptr_t addr)
{
	rep.has_object = addr != 0 && hook_object(addr, &rep.object);
	rep.addr = (struct addr_info){ .kind = ADDR_FOREIGN };
	if (addr != 0)
		heap_describe(rep.has_object ? rep.object.base : addr, &rep.addr);
}

/* Returns the signal mask that was there. */
static NOINLINE uint64_t
write_report(const struct die_info *given, uintptr_t caller, bool goes_on)
{
	struct die_info info = *given;
	if (info.api == NULL)
		info.api = "";
	become_owner(&info);
	uint64_t mask = block_signals();
	rep.sent = false;
	rep.goes_on = goes_on;
	print_init(&rep.out, rep.buf, sizeof(rep.buf));
	if (info.access != NULL)
		take_stack_at(info.access->pc);
	else
		take_stack(caller);
	take_address(info.addr);
	compose(&info);
	keep(&rep.out);
	log_write(&rep.out);
	rep.sent = true;
	drop_sigpipe();
	return mask;
}

static _Noreturn NOINLINE void
report_and_abort(const struct die_info *info, uintptr_t caller)
{
	uint64_t mask = write_report(info, caller, false);
	rep.reports++;
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof(mask));
	end_process(true);
}

NOINLINE void
report_and_go_on(const struct die_info *info)
{
	int saved = errno;
	uint64_t mask = write_report(info, (uintptr_t)__builtin_return_address(0), true);
	a64_store_release(&owner, 0);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof(mask));
	errno = saved;
}

/* Places that were reported, by a hash of the error and the frames next to it. */
static bool
told_before(const struct die_info *info)
{
	static atomic_u64 told[TOLD_PLACES];
	uintptr_t pcs[TOLD_FRAMES];
	size_t n = unwind_calls(pcs, TOLD_FRAMES);
	uint64_t h = info->code;
	for (size_t i = 0; i < n; i++)
		h = (h ^ pcs[i]) * 0x9e3779b97f4a7c15u;
	h |= 1;
	for (size_t i = 0; i < TOLD_PLACES; i++) {
		uint64_t seen = 0;
		if (a64_cas(&told[(h / 2 + i) % TOLD_PLACES], &seen, h))
			return false;
		if (seen == h)
			return true;
	}
	return true;            /* so many places: enough has been said */
}

NOINLINE void
complain(const struct die_info *info)
{
	if (options.halt_on_error)
		report_and_abort(info, (uintptr_t)__builtin_return_address(0));
	if (!told_before(info))
		report_and_go_on(info);
}

void
report_note(void (*compose_note)(struct print *p, void *arg), void *arg)
{
	static const struct die_info note = { .site = "a note" };
	int saved = errno;
	become_owner(&note);
	uint64_t mask = block_signals();
	rep.sent = false;
	print_init(&rep.out, rep.buf, sizeof(rep.buf));
	compose_note(&rep.out, arg);
	log_write(&rep.out);
	rep.sent = true;
	drop_sigpipe();
	a64_store_release(&owner, 0);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof(mask));
	errno = saved;
}

void
report_put_warning(struct print *p)
{
	print_str(p, "==");
	print_dec(p, own_pid());
	print_str(p, "==WARNING: spanguard: ");
}

/* A variable's name, where its module exports it. */
static void
put_variable(struct print *p, uintptr_t addr)
{
	uintptr_t offset = 0;
	bool data = rep.addr.kind == ADDR_FOREIGN &&
	    (rep.map.kind == REGION_DATA || rep.map.kind == REGION_BSS);
	if (!data || !procmap_symbol(&rep.module, addr, rep.symbol, SYMBOL_BYTES, &offset))
		return;
	p->len--;                    /* the newline */
	print_str(p, ", ");
	print_quoted(p, rep.symbol, SYMBOL_BYTES);
	print_char(p, '+');
	print_hex(p, offset);
	print_char(p, '\n');
}

void
report_put_address(struct print *p, uintptr_t addr)
{
	take_address(addr);
	rep.map.kind = REGION_NONE;
	put_what(p, addr);
	put_variable(p, addr);
}

void
report_put_frames(struct print *p, const uintptr_t *pcs, size_t n)
{
	put_frames(p, pcs, n, ROOM_FRAMES);
}

void
report_cut_short(void)
{
	static const struct die_info fault = { .site = "a fault" };
	uint64_t me = (uint64_t)own_pid() << 32 | own_tid();
	if (a64_load_relaxed(&owner) == me && !rep.sent)
		second_error(&fault);
}

_Noreturn NOINLINE void
die(const struct die_info *info)
{
	report_and_abort(info, (uintptr_t)__builtin_return_address(0));
}

_Noreturn NOINLINE void
die_corruption(const char *tag, const void *where)
{
	struct die_info info = {
		.code = DIE_CORRUPTION, .api = "", .site = tag, .addr = (uintptr_t)where,
	};
	report_and_abort(&info, (uintptr_t)__builtin_return_address(0));
}

void
report_warn(const char *first, ...)
{
	char buf[512];
	struct print p;
	va_list ap;
	print_init(&p, buf, sizeof(buf));
	print_str(&p, "spanguard: warning: ");
	va_start(ap, first);
	for (const char *s = first; s != NULL; s = va_arg(ap, const char *))
		print_str(&p, s);
	va_end(ap);
	print_char(&p, '\n');
	log_write(&p);
}
