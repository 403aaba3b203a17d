/* report.c - die(): one whole report, then SIGABRT.
 *
 *   become_owner          one thread at a time
 *   facts_take            facts.c: everything the report says
 *   report_text, _json    in words, and as a line of JSON
 *   log_write, _json      out
 *   end_process           or back, where the program goes on
 *
 * REPORT-1: a report is composed in one static buffer by one thread and leaves
 *   in one piece. The first thread to come owns the buffer; others wait a few
 *   seconds for the process to end and then abort without a word.
 * REPORT-2: an error in the reporter itself (same thread again): while it asks the
 *   heap, the report is made without that (longjmp, also from the handler of the
 *   fault); else what was composed so far is sent off with one more line.
 *   When the program's SIGABRT handler left by longjmp and goes on, the next
 *   error is a new report, up to REPORTS_MAX of them.
 * REPORT-3: the owner is (process, thread): a child that was forked while
 *   another thread reported takes the buffer over.
 *
 * REPORT-4: with halt_on_error=0 an error that the program can live with is
 *   reported once for each place (kind and innermost frames), PLACES_MAX at most.
 *
 * Locks: only that owner word; no lock of the allocator, which may be held by
 * the very thread that reports. No malloc, no stdio; 1 KiB of stack besides the
 * unwinder's. Signals other than those of faults are blocked meanwhile. */
#include "report.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "atomic.h"
#include "callstack.h"
#include "facts.h"
#include "log.h"
#include "options.h"
#include "report_json.h"
#include "report_text.h"
#include "unwind.h"

enum {
	REPORT_BYTES = 65536 - 4096,   /* within what a datagram of the log may hold */
	WAIT_MS = 10,
	WAITS_MAX = 500,
	REPORTS_MAX = 8,
	PLACES_MAX = 1024,
	PLACE_FRAMES = 12,
};

char spanguard_report[REPORT_KEPT_BYTES];

/* Everything of a report in progress; written by the owner only. */
static struct {
	struct print out;
	struct print json;
	char buf[REPORT_BYTES];
	char json_buf[REPORT_BYTES];
	struct facts facts;
	jmp_buf without_heap;    /* back here when asking the heap fails */
	bool asks_heap;
	bool sent;               /* nothing is in progress any more */
	unsigned reports;
} rep;

static atomic_u64 owner;     /* pid << 32 | tid, 0: nobody */
static unsigned second_errors;
static atomic_u64 told[PLACES_MAX];     /* REPORT-4 */

void
report_forget(void)
{
	memset(&rep, 0, sizeof(rep));
	memset(told, 0, sizeof(told));
	second_errors = 0;
	a64_store_relaxed(&owner, 0);
}

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

static void
put_second_error(struct print *p, const struct die_info *info)
{
	print_str(p, "\nspanguard: another error while this was written");
	if (info->site != NULL) {
		print_str(p, ": ");
		print_str(p, info->site);
	}
	print_char(p, '\n');
}

/* What failed is not tried again: in the end the buffer begins anew, and goes to
 * descriptor 2 without a look at where the log is. */
static _Noreturn void
second_error(const struct die_info *info)
{
	if (rep.asks_heap) {
		rep.asks_heap = false;
		longjmp(rep.without_heap, 1);
	}
	if (second_errors++ == 0) {
		if (rep.out.buf == NULL)
			print_init(&rep.out, rep.buf, sizeof(rep.buf));
		put_second_error(&rep.out, info);
		log_write(&rep.out);
	} else if (second_errors == 2) {
		print_init(&rep.out, rep.buf, sizeof(rep.buf));
		put_second_error(&rep.out, info);
		print_write(2, rep.buf, rep.out.len);
	}
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

/* ---- the whole ---------------------------------------------------------- */

static void
keep(const struct print *p)
{
	size_t n = p->len < REPORT_KEPT_BYTES - 1 ? p->len : REPORT_KEPT_BYTES - 1;
	memcpy(spanguard_report, p->buf, n);
	spanguard_report[n] = 0;
}

/* Returns the signal mask that was there. */
static uint64_t
begin(const struct die_info *info)
{
	become_owner(info);
	uint64_t mask = block_signals();
	rep.sent = false;
	print_init(&rep.out, rep.buf, sizeof(rep.buf));
	facts_begin();
	return mask;
}

/* The text goes out before anything else can go wrong. */
static NOINLINE void
write_report(const struct die_info *info, uintptr_t caller, bool goes_on)
{
	facts_take(&rep.facts, info, caller, goes_on);
	if (_setjmp(rep.without_heap) == 0) {
		rep.asks_heap = true;
		facts_take_heap(&rep.facts);
	} else {
		facts_take(&rep.facts, info, caller, goes_on);
	}
	rep.asks_heap = false;
	report_text(&rep.out, &rep.facts);
	keep(&rep.out);
	log_write(&rep.out);
	if (log_wants_json()) {
		print_init(&rep.json, rep.json_buf, sizeof(rep.json_buf));
		report_json(&rep.json, &rep.facts);
		log_write_json(&rep.json);
	}
	facts_forget(&rep.facts);
	memset(&rep.without_heap, 0, sizeof(rep.without_heap));
	rep.sent = true;
	drop_sigpipe();
}

static void
set_mask(uint64_t mask)
{
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof(mask));
}

static struct die_info
complete(const struct die_info *given)
{
	struct die_info info = *given;
	if (info.api == NULL)
		info.api = "";
	return info;
}

static _Noreturn NOINLINE void
report_and_abort(const struct die_info *given, uintptr_t caller)
{
	struct die_info info = complete(given);
	uint64_t mask = begin(&info);
	write_report(&info, caller, false);
	rep.reports++;
	set_mask(mask);
	end_process(true);
}

/* REPORT-4. False when this place was reported before, or there are too many. Takes
 * no part in the ownership of the report: an error that comes again and again
 * costs a short walk of the stack. */
static bool
is_new_place(const struct die_info *info)
{
	uintptr_t pcs[PLACE_FRAMES];
	size_t n = callstack(NULL, NULL, pcs, PLACE_FRAMES);
	uint64_t h = info->code;
	for (size_t i = 0; i < n; i++)
		h = (h ^ pcs[i]) * 0x9e3779b97f4a7c15u;
	h |= 1;
	for (size_t i = 0; i < PLACES_MAX; i++) {
		uint64_t seen = 0;
		if (a64_cas(&told[(h / 2 + i) % PLACES_MAX], &seen, h))
			return true;
		if (seen == h)
			return false;
	}
	return false;           /* so many places: enough has been said */
}

static NOINLINE void
report_here(const struct die_info *given, uintptr_t caller)
{
	int saved = errno;
	struct die_info info = complete(given);
	uint64_t mask = begin(&info);
	write_report(&info, caller, true);
	a64_store_release(&owner, 0);
	set_mask(mask);
	errno = saved;
}

NOINLINE void
report_and_go_on(const struct die_info *info)
{
	if (options.halt_on_error || is_new_place(info))
		report_here(info, (uintptr_t)__builtin_return_address(0));
}

NOINLINE void
report_once(const struct die_info *info)
{
	if (is_new_place(info))
		report_here(info, (uintptr_t)__builtin_return_address(0));
}

NOINLINE void
complain(const struct die_info *info)
{
	uintptr_t caller = (uintptr_t)__builtin_return_address(0);
	if (options.halt_on_error)
		report_and_abort(info, caller);
	if (is_new_place(info))
		report_here(info, caller);
}

void
report_note(void (*compose_note)(struct print *p, void *arg), void *arg)
{
	static const struct die_info note = { .site = "a note" };
	int saved = errno;
	uint64_t mask = begin(&note);
	compose_note(&rep.out, arg);
	log_write(&rep.out);
	rep.sent = true;
	drop_sigpipe();
	a64_store_release(&owner, 0);
	set_mask(mask);
	errno = saved;
}

void
report_put_warning(struct print *p)
{
	print_str(p, "==");
	print_dec(p, own_pid());
	print_str(p, "==WARNING: spanguard: ");
}

void
report_put_error(struct print *p)
{
	print_str(p, "==");
	print_dec(p, own_pid());
	print_str(p, "==ERROR: spanguard: ");
}

void
report_put_address(struct print *p, uintptr_t addr)
{
	facts_take_address(&rep.facts, addr);
	report_text_address(p, &rep.facts);
	facts_forget(&rep.facts);
}

void
report_put_frames(struct print *p, const uintptr_t *pcs, size_t n)
{
	report_text_frames(p, pcs, n);
}

void
report_leak_json(const struct leak_facts *leak)
{
	if (!log_wants_json())
		return;
	facts_take_leak(&rep.facts, leak);
	print_init(&rep.json, rep.json_buf, sizeof(rep.json_buf));
	report_json(&rep.json, &rep.facts);
	log_write_json(&rep.json);
	facts_forget(&rep.facts);
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
