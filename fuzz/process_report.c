/* process_report.c - reports of H20, by src/report.c itself: what must be said, once and
 * whole, and how the process then ends or goes on.
 *
 *   an error  ->  report  ->  SIGABRT: default, ignored, a handler that returns or leaves
 *      |             |
 *      |             +-- in its middle: another error of this thread, a fault, an error of
 *      |                 another thread, or of a child that was forked just then
 *      +-- which the program can live with: once for each place
 *
 * The log is one file that takes everything (where texts go is process_log.c's). */
#define _GNU_SOURCE
#include "process.h"

#include <errno.h>
#include <setjmp.h>
#include <string.h>

#include "facts.h"
#include "log.h"
#include "report.h"
#include "reporttext.h"
#include "simreport_api.h"

enum { ABORTS_MOST = 8, PLACES = 3, KINDS = 3, WAITS = 500 };

enum middle { NOTHING, ERROR_AGAIN, FAULT, OTHER_THREAD, CHILD };

static struct {
	/* what must have been remembered */
	unsigned aborts, extra;        /* deaths survived; errors while an error was told */
	bool owned;                    /* by a death that the handler of SIGABRT left */
	int owner, owner_pid;          /* its thread; a forked child's are others */
	bool told[DIE_CODES][PLACES][KINDS];
	/* what was seen */
	unsigned handled;
	uint64_t handler_mask, mask;
	bool leaves;
	jmp_buf out;
	enum middle middle;
	size_t log_at, json_at;
	struct sim_file *log, *json;
} g;

void
process_report_start(void)
{
	memset(&g, 0, sizeof(g));
	sim_report_forget();
}

static void
on_abort(int sig)
{
	(void)sig;
	g.handled++;
	g.handler_mask = sim.mask;
	if (g.leaves)
		longjmp(g.out, 1);
}

/* ---- in the middle of a report ---- */

static void
in_the_middle(void)
{
	static const struct die_info again = { .code = DIE_DOUBLE_FREE, .api = "free", .site = "again", .addr = 64 };

	switch (g.middle) {
	case ERROR_AGAIN: sim_die(&again);
	case FAULT: sim_report_cut_short(); break;
	case OTHER_THREAD:
		sim.tid += 7;
		sim_die(&again);
	case CHILD:
		sim.pid += 9;
		sim.tid = sim.pid;
		sim_die(&again);
	case NOTHING: break;
	}
}

/* ---- places ---- */

struct call {
	void (*fn)(const struct die_info *info);
	const struct die_info *info;
};

static NOINLINE void
at_place(unsigned place, const struct call *c)
{
	if (place > 0)
		at_place(place - 1, c);
	else
		c->fn(c->info);
	NO_TAIL_CALL();
}

static void
die_of(const struct die_info *info)
{
	if (info->code == DIE_CORRUPTION)
		sim_die_corruption(info->site, (const void *)info->addr);
	sim_die(info);
}

/* True: the program goes on behind the call. */
static bool
call_at(unsigned place, void (*fn)(const struct die_info *info), const struct die_info *info)
{
	jmp_buf end;
	const struct call c = { fn, info };

	sim.end = &end;
	sim.ended = 0;
	bool goes_on = false;
	if (setjmp(end) == 0 && setjmp(g.out) == 0) {
		at_place(place, &c);
		goes_on = true;
	}
	sim.end = NULL;
	sim.inject_at = 0;
	return goes_on;
}

/* ---- what was said ---- */

static char text[SIM_FILE_BYTES + 1];

static size_t
said(void)
{
	size_t n = g.log->n - g.log_at;

	memcpy(text, g.log->data + g.log_at, n);
	text[n] = 0;
	g.log_at = g.log->n;
	return n;
}

static void
check_whole(const struct die_info *info, int pid)
{
	char head[64], code[64];
	size_t n = said();

	snprintf(head, sizeof(head), "==%d==ERROR: spanguard: ", pid);
	const char *first = strchr(text, '\n');        /* behind a line of '=' */
	SG_CHECK(WORDS, first != NULL && strncmp(first + 1, head, strlen(head)) == 0 && text[n - 1] == '\n' &&
	    strstr(text, "\nSUMMARY: spanguard: ") != NULL, "no whole report: %.200s", text);
	SG_CHECK(WORDS, first == NULL || strstr(first + strlen(head), head) == NULL, "two reports: %s", text);
	snprintf(code, sizeof(code), "CODE: %s ", die_id(info->code));
	SG_CHECK(WORDS, info->code == DIE_INVALID_FREE || strstr(text, code) != NULL, "no '%s' in %s", code, text);
	SG_CHECK(WORDS, strncmp(text, spanguard_report, REPORT_KEPT_BYTES - 1) == 0, "another one is kept");
	if (g.json == NULL)
		return;
	SG_CHECK(WORDS, reporttext_is_json(g.json->data + g.json_at, g.json->n - g.json_at), "no JSON");
	g.json_at = g.json->n;
}

static void
check_nothing_said(void)
{
	SG_CHECK(WORDS, said() == 0, "said: %.200s", text);
}

/* ---- one error ---- */

static void
set_disposition(const struct sgf_op *op)
{
	struct sigaction sa = { .sa_handler = op->b & 2 ? on_abort : op->b & 1 ? SIG_IGN : SIG_DFL };

	g.leaves = (op->b & 3) == 3;
	g.handled = 0;
	sim.action[SIGABRT] = sa;
	sim.mask = op->b & 4 ? 1u << (SIGABRT - 1) | 1u << (SIGINT - 1) : 0;
	sim.pending = op->b & 8 ? 1u << (SIGPIPE - 1) : 0;
}

static void
check_ended(bool goes_on, uint64_t mask)
{
	bool handler = sim.action[SIGABRT].sa_handler == on_abort || g.handled != 0;

	SG_CHECK(MODEL, !goes_on, "the error was survived");
	SG_CHECK(MODEL, g.handled == 0 || g.handler_mask == (mask | 1u << (SIGABRT - 1)), "the handler's mask is %#lx",
	    (unsigned long)g.handler_mask);
	if (g.leaves && handler) {
		SG_CHECK(MODEL, g.handled == 1 && sim.ended == 0, "handled %u times, ended by %d", g.handled, sim.ended);
		return;
	}
	SG_CHECK(MODEL, sim.ended == SIGABRT && sim.action[SIGABRT].sa_handler == SIG_DFL, "ended by %d", sim.ended);
}

static void
new_process(void)
{
	process_report_start();
	sim.tid = sim.pid;
}

/* An error after which nothing can be said any more: only that it came. */
static bool
must_be_short(void)
{
	return g.owned && g.owner == sim.tid && g.aborts >= ABORTS_MOST;
}

static void
check_short(const struct die_info *info)
{
	size_t n = said();

	SG_CHECK(MODEL, sim.ended == SIGABRT && g.handled == 0, "ended by %d, handled %u times", sim.ended, g.handled);
	SG_CHECK(WORDS, n != 0 && strstr(text, "another error while this was written") != NULL &&
	    (info->site == NULL || strstr(text, info->site) != NULL), "too many errors, and said: %.200s", text);
}

static void
check_death(const struct die_info *info, bool goes_on)
{
	if (must_be_short()) {
		check_short(info);
		new_process();
		return;
	}
	check_whole(info, sim.pid);
	check_ended(goes_on, g.handler_mask & ~(uint64_t)(1u << (SIGABRT - 1)));
	SG_CHECK(MODEL, sim.pending == 0, "a SIGPIPE of the log's stays");
	if (sim.ended != 0) {
		new_process();
		return;
	}
	g.owned = true;
	g.owner = sim.tid;
	g.owner_pid = sim.pid;
	g.aborts++;
}

static void
die_once(const struct sgf_op *op, unsigned place, const struct die_info *info)
{
	set_disposition(op);
	check_death(info, call_at(place, die_of, info));
}

/* The program can live with it: said at each place once, with halt_on_error each time. */
static void
live_on(const struct sgf_op *op, unsigned place, unsigned kind, const struct die_info *info)
{
	static void (*const fn[KINDS])(const struct die_info *) = { sim_complain, sim_report_and_go_on,
		sim_report_once };
	bool halt = options.halt_on_error, *told = &g.told[info->code][place][kind];
	bool new = !*told, fatal = kind == 0 && halt, always = kind == 1 && halt;
	uint64_t mask;

	set_disposition(op);
	mask = sim.mask;
	errno = 77;
	bool goes_on = call_at(place, fn[kind], info);
	if (fatal) {
		check_death(info, goes_on);
		return;
	}
	*told |= !always;
	if (!new && !always) {
		check_nothing_said();
		SG_CHECK(MODEL, goes_on, "ended");
		return;
	}
	if (must_be_short()) {
		check_short(info);
		new_process();
		return;
	}
	check_whole(info, sim.pid);
	SG_CHECK(ERRNO, errno == 77, "errno is %d", errno);
	SG_CHECK(MODEL, goes_on && sim.mask == mask && sim.ended == 0 && sim.pending == 0, "mask %#lx, not %#lx",
	    (unsigned long)sim.mask, (unsigned long)mask);
	g.owned = false;
}

/* Another error, before the first is told: something whole is said all the same, or
 * what there is and that there was another; the process ends by SIGABRT. */
static void
interrupted(const struct sgf_op *op, unsigned place, const struct die_info *info)
{
	int pid = sim.pid;

	set_disposition(op);
	if (must_be_short())
		return;
	g.middle = (enum middle)(1 + op->handle % 4);
	uint64_t when = op->imm >> 12 & 63;
	sim.inject_at = when < 32 ? 1 + when : 32 + (when - 32) * (when - 32) * 4;
	sim.inject = in_the_middle;
	uint64_t naps = sim.naps;
	call_at(place, die_of, info);
	size_t n = said();
	bool whole = strstr(text, "\nSUMMARY: spanguard: ") != NULL;
	SG_CHECK(MODEL, sim.ended == SIGABRT || (g.leaves && g.handled != 0), "ended by %d", sim.ended);
	SG_CHECK(MODEL, g.handled <= 2, "handled %u times", g.handled);
	if (g.middle == OTHER_THREAD && sim.tid != pid) {
		SG_CHECK(MODEL, sim.naps - naps >= WAITS || n != 0, "the other thread waited %lu times, and nothing was said",
		    (unsigned long)(sim.naps - naps));
	} else {
		SG_CHECK(WORDS, whole || strstr(text, "another error while this was written") != NULL,
		    "an error in the middle of a report: %.300s", text);
	}
	sim.pid = pid;
	g.json_at = g.json != NULL ? g.json->n : 0;
	new_process();
}

static void
compose(struct print *p, void *arg)
{
	sim_report_put_warning(p);
	print_str(p, arg);
	print_char(p, '\n');
	sim_report_put_error(p);
	print_str(p, "no\n");
}

/* The parts that a note is made of: a place, frames, and functions by name. */
static void
compose_parts(struct print *p, void *arg)
{
	const uintptr_t pcs[] = { (uintptr_t)&compose_parts, 64 };
	const char *symbol, *module;

	sim_report_put_address(p, (uintptr_t)arg);
	sim_report_put_frames(p, pcs, ARRAY_LEN(pcs));
	if (facts_look_up(pcs[0], &symbol, &module))
		print_str(p, strstr(module, "/") != NULL ? "a module\n" : "?\n");
	if (!facts_look_up(pcs[1], &symbol, &module))
		print_str(p, "no module\n");
}

static void
parts(const struct sgf_op *op)
{
	struct leak_facts leak = { .indirect = op->b & 64, .bytes = op->imm, .objects = 3 };
	char want[128];

	if (must_be_short())
		return;
	sim_report_note(compose_parts, (void *)&g);
	g.owned = false;
	said();
	snprintf(want, sizeof(want), "0x%lx is in the .bss", (unsigned long)&g);
	SG_CHECK(WORDS, strncmp(text, want, strlen(want)) == 0 && strstr(text, "\n    #0 0x") != NULL &&
	    strstr(text, "\n    #1 0x") != NULL && strstr(text, "\na module\nno module\n") != NULL, "said: %s", text);
	sim_report_leak_json(&leak);
	if (g.json == NULL)
		return;
	snprintf(want, sizeof(want), "\"leak\":{\"kind\":\"%s\",\"bytes\":%u,\"objects\":3}",
	    leak.indirect ? "indirect" : "direct", op->imm);
	g.json->data[g.json->n < SIM_FILE_BYTES ? g.json->n : SIM_FILE_BYTES - 1] = 0;
	SG_CHECK(WORDS, reporttext_is_json(g.json->data + g.json_at, g.json->n - g.json_at) &&
	    strstr(g.json->data + g.json_at, want) != NULL, "no '%s'", want);
	g.json_at = g.json->n;
}

static void
note(const struct sgf_op *op)
{
	if (op->b & 32) {
		parts(op);
		return;
	}
	static char want[128];
	jmp_buf end;

	set_disposition(op);
	g.mask = sim.mask;
	errno = 77;
	sim.end = &end;
	sim.ended = 0;
	if (setjmp(end) == 0) {
		if (op->b & 16) {
			sim_report_warn("a", "bc", "", "d", NULL);
			snprintf(want, sizeof(want), "spanguard: warning: abcd\n");
		} else {
			sim_report_note(compose, (void *)(uintptr_t)"noted");
			snprintf(want, sizeof(want), "==%d==WARNING: spanguard: noted\n==%d==ERROR: spanguard: no\n",
			    sim.pid, sim.pid);
			g.owned = false;
		}
	}
	sim.end = NULL;
	if (sim.ended != 0) {
		SG_CHECK(MODEL, must_be_short(), "a note ended the process");
		said();
		new_process();
		return;
	}
	said();
	SG_CHECK(WORDS, strcmp(text, want) == 0, "said: %s, not %s", text, want);
	SG_CHECK(ERRNO, errno == 77, "errno is %d", errno);
	SG_CHECK(MODEL, sim.mask == g.mask, "mask %#lx, not %#lx", (unsigned long)sim.mask, (unsigned long)g.mask);
}

static bool
files_ready(bool json)
{
	sim.planned = sim.planned_reads = SIM_PLAN;
	g.log = sim_file("report.log", true);
	g.json = json ? sim_file("report.json", true) : NULL;
	if (g.log == NULL || (json && g.json == NULL) || g.log->n > SIM_FILE_BYTES / 2 ||
	    (json && g.json->n > SIM_FILE_BYTES / 2))
		return false;
	log_set_path("report.log");
	log_set_json_path(json ? "report.json" : NULL);
	log_set_channel(NULL);
	log_answer_to(0, 0);
	g.log_at = g.log->n;
	g.json_at = json ? g.json->n : 0;
	return true;
}

void
process_report(const struct sgf_op *op)
{
	static const char *const sites[] = { "MSPAN-3", "verify", NULL, "size" };
	struct die_info info = { .code = (enum die_code)(op->imm % DIE_CODES), .api = op->imm & 256 ? "free" : NULL,
		.site = sites[op->imm >> 9 & 3], .addr = (uintptr_t)op->imm >> 16, .given = op->imm, .expected = 7 };
	struct die_access access = { .known = true, .pc = (uintptr_t)&process_report, .sp = 1, .bp = 2 };
	int tid = sim.tid;
	unsigned place = op->imm >> 20 & 1 ? 0 : (op->imm >> 21) % PLACES;

	if (!files_ready(op->imm >> 24 & 1)) {
		process_log_start();
		return;
	}
	options.halt_on_error = op->imm >> 25 & 1;
	/* another thread waits until the one before seems to be gone */
	sim.tid = sim.pid + (op->b >> 7);
	bool waits = g.owned && g.owner != sim.tid && g.owner_pid == sim.pid && op->a % 8 < 2;
	uint64_t naps = sim.naps;
	info.access = info.code >= DIE_USE_AFTER_FREE && info.code <= DIE_ZERO_SIZE &&
	    info.code != DIE_UNDERFLOW_SEEN ? &access : NULL;
	switch (op->a % 8) {
	case 0:
	case 1: die_once(op, place, &info); break;
	case 2: interrupted(op, place, &info); break;
	case 3: note(op); break;
	default: live_on(op, place, op->a % 8 % KINDS, &info); break;
	}
	SG_CHECK(MODEL, !waits || sim.naps - naps == WAITS, "waited %lu times for another thread's report",
	    (unsigned long)(sim.naps - naps));
	sim.tid = tid;
	sim.mask = sim.pending = 0;
	sg_note(g.aborts + 16u * (unsigned)sim.ended);
	process_log_start();
}
