/* h16_report.c - H16: reports. A program runs; what it died of, and what the ops "bug"
 * and "overflow" make up, is put into words: the text and the line of JSON must be
 * whole, and say of kind, address and object what the model knows.
 *
 *   the program with its bug (H9)  ->  its death  ->  a report
 *   the program without            ->  at each "bug" a made-up error: a picks the kind,
 *                                      b the address, imm what surrounds it -> a report
 *
 * An "overflow" is a real bug after which the program goes on: a changed byte beside an
 * object of debug mode, a touch of a guard by way of the handler, a wrong pair of
 * functions; or the texts of the statistics.
 *
 * knob[3]: bits 0 and 1 a heap profile (of all objects, or sampled), bit 2 a ring of
 * calls, bit 3 the stack of each call. A profile of all must hold exactly the live
 * objects and their sizes as asked for. */
#define _GNU_SOURCE
#include "crime.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "api.h"
#include "../include/spanguard.h"
#include "fake_die.h"
#include "marena.h"
#include "mlookup.h"
#include "mspan.h"
#include "log.h"
#include "reporttext.h"
#include "../hardening/access.h"
#include "../hardening/debug.h"
#include "../hardening/fault.h"
#include "../hardening/hooks.h"
#include "../hardening/profile.h"
#include "../hardening/sidetable.h"

enum { REPORTS = 12, PROFILE_BYTES = 1 << 20, CODE_BYTES = 15 };

static struct sg_prog prog;
static struct sg_heap_config config;
static size_t made;
static char *anonymous;
static int profile_fd = -1;
static char profile_path[64];

static const char constant[] = "a constant";
static bool half_freed;              /* a free died in the middle: no more of this heap */
static uintptr_t stale[SGF_HANDLES];
static char zeroes[64];
static char data[64] = "data";

/* ---- what is made up ---- */

static uintptr_t
address_of(const struct sgf_op *op, const struct sg_object *o, const void *here)
{
	uintptr_t p = (uintptr_t)o->p, off = op->imm & 255;
	uintptr_t fixed[] = { p, p + off, p - 1 - off, p + o->usable + off, p + o->asked,
		fake_sys_base() + ((uintptr_t)op->imm << 8), (uintptr_t)here, (uintptr_t)zeroes + off % 64,
		(uintptr_t)data + off % 64, (uintptr_t)constant, (uintptr_t)&reporttext_compose + off,
		(uintptr_t)anonymous + off, (uintptr_t)op->imm, (uintptr_t)op->imm << 32,
		(uintptr_t)sbrk(0) - 16, 0, p + o->usable / 2, (uintptr_t)&getpid, (uintptr_t)stdin,
		(uintptr_t)op->imm << 12 };

	return fixed[op->b % (sizeof(fixed) / sizeof(fixed[0]))];
}

static void
fill_diff(struct die_diff *d, const struct sgf_op *op, uintptr_t at)
{
	static const char *const looks[] = { "", "hello, world", "\x01", "\xff\xff\xff\xff" };
	const char *s = looks[op->imm >> 8 & 3];
	uint64_t random = op->imm;

	*d = (struct die_diff){ .base = at - (op->imm & 31), .n = 1 + (op->imm >> 5) % DIE_DIFF_BYTES };
	for (size_t i = 0; i < d->n; i++)
		d->expected[i] = d->found[i] = (op->imm & 1) != 0 ? 0xdf : 0;
	if (s[0] == 0 && op->imm & 2)
		memcpy(d->found, &at, sizeof(at) < d->n ? sizeof(at) : d->n);
	for (size_t i = 0; i < strlen(s) && i < d->n; i++)
		d->found[i] = (uint8_t)s[i];
	if ((op->imm >> 10 & 3) == 1)
		for (size_t i = 0; i < d->n; i++)
			d->found[i] = (uint8_t)sg_random(&random);
	if ((op->imm >> 10 & 3) == 2)
		d->found[d->n / 2] ^= 16;
	for (size_t i = 0; i < d->n; i++)
		d->changed += d->found[i] != d->expected[i];
}

/* What a room keeps it by: a record, or a guard. */
static bool
size_is_kept(const struct sg_object *o)
{
	return (config.options.records || config.options.guard_objects) && !o->boot;
}

/* An address inside of a live object that is in no slot with others. */
static void
check_object(const char *json, const struct die_info *info, const struct sg_object *o)
{
	char want[160];
	uintptr_t off = info->addr - (uintptr_t)o->p;

	if (o->p == NULL || off >= o->asked || o->boot || (o->noscan && o->asked < 16) || o->align != 0)
		return;
	if (size_is_kept(o))
		snprintf(want, sizeof(want), "\"block\":{\"base\":\"%p\",\"bytes\":%zu,\"relation\":\"inside\","
		    "\"distance\":%zu,", (void *)o->p, o->asked, (size_t)off);
	else
		snprintf(want, sizeof(want), "\"block\":{\"base\":\"%p\",", (void *)o->p);
	SG_CHECK(WORDS, strstr(json, want) != NULL, "of a live object at %p, %zu bytes: no '%s' in %s",
	    (void *)o->p, o->asked, want, json);
	SG_CHECK(WORDS, strstr(json, "\"state\":\"live\"") != NULL, "a live object is not said to be: %s",
	    json);
}

static void
make_up(const struct sgf_op *op)
{
	static const char *const sites[] = { "MSPAN-3", "quarantine", "alignment", "size", NULL };
	static const char *const names[] = { "free", "operator delete(void*, size_t)", "realloc", "",
		"malloc_usable_size", "operator new[]", "verify", "patrol", "calloc", "free_sized" };
	const struct sg_object *o = &prog.object[op->handle];
	struct die_diff diff = { .n = 0 };
	struct die_info info = { .code = (enum die_code)(op->a % (DIE_CODES + 1)),
		.addr = address_of(op, o, &diff), .api = names[(op->imm >> 4) % 10],
		.site = sites[(op->imm >> 12) % 5], .given = op->imm, .expected = op->imm >> 16 };
	struct die_access access = { .write = op->imm & 1, .known = op->imm & 2,
		.bytes = (uint8_t)access_bytes((const uint8_t *)&op->imm, sizeof(op->imm)),
		.pc = (uintptr_t)(op->imm & 4 ? (uintptr_t)&reporttext_compose : op->imm), .sp = 1, .bp = 2 };

	if (info.code == DIE_API_MISMATCH)
		info.made_by = names[(op->imm >> 20) % 10];
	if (info.code >= DIE_USE_AFTER_FREE && info.code <= DIE_ZERO_SIZE && info.code != DIE_UNDERFLOW_SEEN)
		info.access = &access;
	if (info.code == DIE_CANARY || info.code == DIE_WRITE_AFTER_FREE) {
		fill_diff(&diff, op, info.addr);
		info.diff = &diff;
	}
	check_object(reporttext_compose(&info, op->imm >> 24 & 1), &info, o);
	made++;
}

/* ---- instructions ---- */

/* Of more bytes it does not say something else; it looks at no more than 15. */
static void
decode(const uint8_t *bytes, size_t n)
{
	for (size_t i = SGF_HEADER_BYTES; i + CODE_BYTES < n && i < 1024; i += SGF_OP_BYTES) {
		size_t all = access_bytes(bytes + i, CODE_BYTES);
		SG_CHECK(MODEL, all <= 64 && (all == 0 || (all & (all - 1)) == 0 || all == 10 || all % 2 == 0),
		    "an access of %zu bytes", all);
		for (size_t k = 1; k < CODE_BYTES; k++) {
			size_t some = access_bytes(bytes + i, k);
			SG_CHECK(MODEL, some == 0 || some == all, "%zu bytes read of %zu, then %zu", some, k, all);
		}
		sg_note(all);
	}
}

/* ---- bugs of debug and guard mode, one at a time; the program goes on ---- */

static jmp_buf outer;

/* fn may die: of what, or NULL. sg_prog_must_live waits for a death already. */
static const struct die_info *
dies(void (*fn)(void *), void *arg)
{
	memcpy(outer, fake_die_jmp, sizeof(outer));
	const struct die_info *d = sg_heap_try(fn, arg);
	memcpy(fake_die_jmp, outer, sizeof(outer));
	fake_die_armed = true;
	return d;
}

static void
do_free(void *p)
{
	sg_free(p);
}

static void
do_explain(void *p)
{
	hook_slot_explain((uintptr_t)p, "verify");
}

SG_UNCHECKED static void
flip(uintptr_t at, uint8_t bits)
{
	*(volatile uint8_t *)at ^= bits;
}

/* A byte behind a small object, or before it: its free names the object, the bytes
 * and who made it. */
static void
try_overflow(const struct sgf_op *op, const struct sg_object *o)
{
	bool before = op->a & 8;
	const struct mspan *s = span_of((uintptr_t)o->p);
	uintptr_t at = (uintptr_t)o->p + (before ? 0 - (uintptr_t)1 - op->b % 16 : o->asked + op->b % 16);

	if (!config.options.redzone || s == NULL || mspan_is_large(s) || mspan_is_tiny(s) ||
	    (before && (uintptr_t)o->p == s->base))
		return;
	flip(at, (uint8_t)(op->imm | 1));
	sg_unpoison(o->p, o->usable);
	const struct die_info *d = dies(op->a & 16 ? do_free : do_explain, o->p);
	flip(at, (uint8_t)(op->imm | 1));
	sg_poison(o->p, o->usable);
	half_freed = (op->a & 16) != 0;
	bool ok = d != NULL && (d->code == DIE_CANARY || (before && d->code == DIE_UNDERFLOW_SEEN));
	SG_CHECK(DETECT, ok, "a byte %s an object of %zu bytes was changed: code %d", before ? "before" :
	    "behind", o->asked, d != NULL ? (int)d->code : -1);
	if (!ok)
		return;
	SG_CHECK(DETECT, before || d->addr == (uintptr_t)o->p, "another object is named");
	SG_CHECK(DETECT, d->diff != NULL && at - d->diff->base < d->diff->n &&
	    d->diff->found[at - d->diff->base] != d->diff->expected[at - d->diff->base],
	    "the changed byte is not among those that are shown");
	check_object(reporttext_compose(d, true), d, before ? &prog.object[op->handle] : o);
}

/* Functions that make and release objects, with their family and whether they are
 * told an alignment. */
static const struct {
	uint8_t api, family;
	bool aligned;
} makers[] = { { API_MALLOC, 0, 0 }, { API_MEMALIGN, 0, 0 }, { API_NEW, 1, 0 },
	{ API_NEW_ALIGNED, 1, 1 }, { API_NEW_ARRAY, 2, 0 }, { API_NEW_ARRAY_ALIGNED, 2, 1 } },
  releasers[] = { { API_FREE, 0, 0 }, { API_REALLOC, 0, 0 }, { API_FREE_ALIGNED_SIZED, 0, 0 },
	{ API_DELETE, 1, 0 }, { API_DELETE_SIZED, 1, 0 }, { API_DELETE_ALIGNED, 1, 1 },
	{ API_DELETE_SIZED_ALIGNED, 1, 1 }, { API_DELETE_ARRAY, 2, 0 }, { API_DELETE_ARRAY_SIZED, 2, 0 },
	{ API_DELETE_ARRAY_ALIGNED, 2, 1 }, { API_DELETE_ARRAY_SIZED_ALIGNED, 2, 1 } };

struct pair {
	struct side_record r;
	enum malloc_api by;
};

static void
do_pair(void *arg)
{
	const struct pair *p = arg;

	debug_check_pair(&p->r, data, p->by);
}

static void
try_pair(const struct sgf_op *op)
{
	size_t m = op->imm % ARRAY_LEN(makers), f = op->b % ARRAY_LEN(releasers);
	struct pair p = { .by = (enum malloc_api)releasers[f].api };
	int want = makers[m].family != releasers[f].family ? DIE_API_MISMATCH :
	    makers[m].aligned != releasers[f].aligned ? DIE_ALIGN_MISMATCH : DIE_NONE;

	p.r.alloc.api = (uint32_t)makers[m].api & 31u;
	p.r.alloc.align = op->imm >> 8 & 15u;
	const struct die_info *d = dies(do_pair, &p);
	int got = d != NULL ? (int)d->code : DIE_NONE;
	SG_CHECK(DETECT, got == want, "%s and %s: code %d, not %d",
	    malloc_api_name((enum malloc_api)makers[m].api), malloc_api_name(p.by), got, want);
	if (d != NULL)
		reporttext_compose(d, true);
}

/* ---- touches: the handler of SIGSEGV as the kernel would call it ---- */

static struct sigaction handler;
static int chained;
static ucontext_t context;

static void
earlier(int sig, siginfo_t *info, void *uc)
{
	(void)sig;
	(void)info;
	(void)uc;
	chained++;
}

/* Ours, with `earlier` before it; whoever was there stays. */
static void
take_handler(void)
{
	struct sigaction mine = { .sa_sigaction = earlier, .sa_flags = SA_SIGINFO | SA_NODEFER }, was, now;

	sigaction(SIGSEGV, &mine, &was);
	fault_start();
	sigaction(SIGSEGV, NULL, &now);
	sigaction(SIGSEGV, &was, NULL);
	if (now.sa_sigaction != earlier)
		handler = now;
}

static void
do_touch(void *p)
{
	siginfo_t info = { .si_signo = SIGSEGV, .si_code = SEGV_ACCERR };

	info.si_addr = p;
	getcontext(&context);
	handler.sa_sigaction(SIGSEGV, &info, &context);
}

static bool
is_access(enum die_code c)
{
	return c == DIE_USE_AFTER_FREE || c == DIE_OVERFLOW || c == DIE_UNDERFLOW || c == DIE_ZERO_SIZE;
}

static void
try_touch(const struct sgf_op *op, const struct sg_object *o)
{
	uintptr_t at = address_of(op, o, fake_sys_base() != 0 ? (void *)stale[op->handle] : NULL);
	bool ours = fake_sys_state((void *)at) != SYS_NONE;

	if ((ours && fake_sys_state((void *)at) == SYS_READY && !fake_sys_guarded((void *)at)) || at == 0)
		return;
	take_handler();
	if (handler.sa_sigaction == NULL)
		return;
	chained = 0;
	const struct die_info *d = dies(do_touch, (void *)at);
	SG_CHECK(DETECT, (d != NULL) != (chained == 1), "a fault at %#lx was %s", (unsigned long)at,
	    d != NULL ? "reported, and the program's too" : "nobody's");
	SG_CHECK(DETECT, d == NULL || (is_access(d->code) && d->addr == at && d->access != NULL && ours),
	    "a fault at %#lx: code %d, address %#lx", (unsigned long)at, d != NULL ? (int)d->code : 0,
	    d != NULL ? (unsigned long)d->addr : 0);
	bool zero = o->p != NULL && o->asked == 0 && at == (uintptr_t)o->p && span_of(at) == NULL && !o->boot;
	SG_CHECK(DETECT, !zero || d != NULL, "an object of no bytes was touched, and nobody said so");
	if (d != NULL)
		reporttext_compose(d, false);
	sg_note(d != NULL ? d->code : 0);
}

/* ---- texts beside reports ---- */

static void
check_texts(void)
{
	static char text[4096];
	char small[8];
	struct spanguard_stats s;
	size_t n = spanguard_stats_json(text, sizeof(text));
	FILE *f = fopen("/dev/null", "w");

	SG_CHECK(WORDS, n < sizeof(text) && text[n] == 0, "statistics of %zu bytes", n);
	if (n > 0 && text[n - 1] != '\n')
		text[n++] = '\n';
	SG_CHECK(WORDS, reporttext_is_json(text, n), "statistics are no JSON: %s", text);
	SG_CHECK(WORDS, spanguard_stats_json(small, sizeof(small)) >= n - 1 && small[7] == 0, "cut short");
	spanguard_stats(&s);
	SG_CHECK(STATS, s.large_bytes <= s.live_bytes && s.returned_bytes <= s.free_page_bytes,
	    "a part is more than the whole");
	if (f != NULL) {
		SG_CHECK(ERRNO, sg_malloc_info(0, f) == 0, "malloc_info");
		fclose(f);
	}
	(void)sg_mallinfo();
	(void)sg_mallopt(1, 1);
}

static void
commit(const struct sgf_op *op)
{
	const struct sg_object *o = &prog.object[op->handle];

	switch (op->a & 7) {
	case 0:
	case 1: try_touch(op, o); break;
	case 2:
	case 3:
	case 4:
		if (o->p != NULL && !o->boot)
			try_overflow(op, o);
		break;
	case 5: try_pair(op); break;
	case 6: check_texts(); break;
	default: make_up(op); break;
	}
	made++;
}

/* ---- profile ---- */

static void
check_profile(void)
{
	static char text[PROFILE_BYTES];
	unsigned long objects, bytes, allocs, alloc_bytes, live = 0, live_bytes = 0;
	ssize_t n;

	if (!profile_is_on())
		return;
	profile_write();
	n = pread(profile_fd, text, sizeof(text) - 1, 0);
	text[n > 0 ? n : 0] = 0;
	SG_CHECK(PROFILE, sscanf(text, "heap profile: %lu: %lu [%lu: %lu] @ heap_v2/", &objects, &bytes,
	    &allocs, &alloc_bytes) == 4, "no first line: %.60s", text);
	SG_CHECK(PROFILE, strstr(text, "MAPPED_LIBRARIES:\n") != NULL, "no mappings");
	SG_CHECK(PROFILE, objects <= allocs && bytes <= alloc_bytes, "more is in use than was allocated");
	if (config.options.profile != 1 || config.options.stack_depth == 0)
		return;
	for (size_t i = 0; i < prog.nlive; i++) {
		const struct sg_object *o = &prog.object[prog.live[i]];
		live += !o->boot && o->asked != 0;
		live_bytes += o->boot ? 0 : o->asked;
	}
	/* objects of no bytes are counted or not, by mode */
	SG_CHECK(PROFILE, objects >= live && bytes == live_bytes,
	    "%lu bytes in %lu objects in use said, %lu in %lu are", bytes, objects, live_bytes, live);
	sg_note(bytes);
}

/* ---- the run ---- */

static void
body(void *arg)
{
	struct sg_prog *p = arg;
	struct sgf_op op;

	p->no_faults = true;
	for (size_t i = 0; i < p->nops && !half_freed; i++) {
		sgf_read_op(p->data, p->bytes, i, &op);
		enum sg_op what = sg_prog_op(&op);
		if (what != OP_BUG && what != OP_OVERFLOW) {
			const uint8_t *was = p->object[op.handle].p;
			sg_prog_step(p, i);
			if (was != NULL && p->object[op.handle].p == NULL)
				stale[op.handle] = (uintptr_t)was;
			continue;
		}
		sg_at.op = (long)i;
		sg_at.op_name = sg_prog_language.op[op.code];
		if (made < REPORTS && sg_heap_use(op.thread) != NULL)
			(what == OP_BUG ? make_up : commit)(&op);
	}
	if (half_freed)
		return;
	check_profile();
	sg_prog_end(p);
}

static void
report_of(const struct die_info *d)
{
	reporttext_compose(d, false);
}

static void
configure(struct sgf_header *h)
{
	h->geometry &= 31;
	if (h->knob[3] & 8)
		h->knob[3] |= 0xf0;        /* stacks, as all programs have it */
	sg_heap_config(h, &config);
	if ((h->knob[3] & 3) != 0 && config.options.records && !config.options.guard_objects) {
		config.options.profile = (h->knob[3] & 3) == 1 ? 1 : 100u << (h->knob[3] & 3);
		config.options.stack_depth = 8;
		strcpy(config.options.profile_file, profile_path);
	}
	config.options.ring = h->knob[3] & 4 ? 64 : 0;
}

static int
run(const uint8_t *bytes, size_t n)
{
	struct sgf_header h;

	if (anonymous == NULL) {
		anonymous = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		profile_fd = memfd_create("profile", MFD_CLOEXEC);
		snprintf(profile_path, sizeof(profile_path), "/proc/self/fd/%d", profile_fd);
		log_set_path("/dev/null");
	}
	decode(bytes, n);
	sg_crime_seen = report_of;
	sg_crime_run(bytes, n, false);
	sg_crime_seen = NULL;
	sgf_read_header(bytes, n, &h);
	configure(&h);
	made = 0;
	half_freed = false;
	memset(stale, 0, sizeof(stale));
	sg_prog_start_with(&prog, bytes, n, &config);
	sg_prog_must_live(&prog, body);
	if (half_freed)
		sg_prog_abandon(&prog);
	return 0;
}

const struct sg_harness sg_h_report = { "report", &sg_prog_language, run };
