/* h18_lost.c - H18: which leaks are named: any text as a file of suppressions, and
 * lists of lost objects that are sorted and grouped.
 *
 *   text ops   append to the file; find loads it and looks names up: the first line
 *              that names them must be the naive reader's (hush)
 *   lost ops   append to the list; group sorts and groups it: every object in one
 *              group, with those of its stack, and the groups in order (groups)
 *
 * The model of a pattern is the table of all pairs of a piece of the pattern and a
 * piece of the name; that of a group, a search of all objects. */
#define _GNU_SOURCE
#include "fheap.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../hardening/leaklist.h"
#include "../hardening/leaksuppress.h"
#include "../src/print.h"

#define OPS(OP) \
	OP(LEAK, "leak", 0, 7) OP(OTHER, "other", 8, 9) OP(LETTER, "letter", 10, 23) \
	OP(STAR, "star", 24, 29) OP(TIE, "tie", 30, 31) OP(END, "end", 32, 33) \
	OP(SPACE, "space", 34, 35) OP(NEWLINE, "newline", 36, 42) OP(RAW, "raw", 43, 43) \
	OP(LINES, "lines", 44, 44) OP(FIND, "find", 45, 51) OP(LOST, "lost", 52, 61) \
	OP(GROUP, "group", 62, 63)

enum op { OPS(SGF_ENUM) };

static const uint8_t op_of[SGF_CODES] = { OPS(SGF_CODE) };
static const struct sgf_language language = {
	.op = { OPS(SGF_NAME) },
	.knob = { "file: 1 missing, 2 directory, 3 no memory, 4 long" },
};

enum { TEXT_MAX = 16384, NAME_MAX_BYTES = 12, PATTERN_MAX = 2 * TEXT_MAX, LOST_MAX = 512,
	FILE_MOST = 1 << 20, STACKS = 8, LOOKS_MAX = 32, PRINTED_MAX = 1 << 16 };

enum file_state { FILE_READ, FILE_MISSING, FILE_DIRECTORY, FILE_NO_MEMORY, FILE_LONG, FILE_STATES };

extern const char *__lsan_default_suppressions(void) __attribute__((weak));

static struct {
	char text[TEXT_MAX];
	size_t n;
	enum file_state file;
	struct lost lost[LOST_MAX];
	size_t n_lost;
	unsigned looks;
} g;

static struct suppressions loaded;

/* ---- the naive reader ---- */

struct rule {
	const char *at;
	size_t bytes;
};

static struct rule rules[SUPPRESS_MAX];
static size_t n_rules;

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static void
read_rules(const char *text, size_t bytes)
{
	const char *zero = memchr(text, 0, bytes), *end = zero != NULL ? zero : text + bytes;

	for (const char *line = text; line < end && n_rules < SUPPRESS_MAX;) {
		const char *newline = memchr(line, '\n', (size_t)(end - line));
		const char *stop = newline != NULL ? newline : end, *next = stop + 1;
		for (; line < stop && is_blank(line[0]); line++)
			;
		for (; stop > line && (is_blank(stop[-1]) || stop[-1] == '\r'); stop--)
			;
		if (stop - line > 5 && memcmp(line, "leak:", 5) == 0)
			rules[n_rules++] = (struct rule){ line + 5, (size_t)(stop - line) - 5 };
		line = next;
	}
}

static void
read_all_rules(void)
{
	const char *own = __lsan_default_suppressions != NULL ? __lsan_default_suppressions() : NULL;

	n_rules = 0;
	if (g.file == FILE_READ || g.file == FILE_LONG)
		read_rules(g.text, g.n);
	if (own != NULL)
		read_rules(own, strlen(own));
}

/* Row i + 1, for one more character of the pattern: which beginnings of the name it
 * and what is before it match. */
static void
next_row(bool row[NAME_MAX_BYTES + 1], char c, const char *name, size_t n)
{
	bool next[NAME_MAX_BYTES + 1];

	next[0] = c == '*' && row[0];
	for (size_t j = 1; j <= n; j++)
		next[j] = c == '*' ? row[j] || next[j - 1] : row[j - 1] && name[j - 1] == c;
	memcpy(row, next, sizeof(next));
}

static bool
naive_matches(const struct rule *r, const char *name)
{
	bool row[NAME_MAX_BYTES + 1] = { true };
	size_t n = strlen(name);
	size_t from = r->at[0] == '^', to = r->bytes - (r->at[r->bytes - 1] == '$');

	if (from == 0)
		next_row(row, '*', name, n);
	for (size_t i = from; i < to; i++)
		next_row(row, r->at[i], name, n);
	if (to == r->bytes)
		next_row(row, '*', name, n);
	return row[n];
}

static size_t
naive_find(const char *function, const char *module)
{
	for (size_t i = 0; i < n_rules; i++)
		if ((function != NULL && naive_matches(&rules[i], function)) ||
		    (module != NULL && naive_matches(&rules[i], module)))
			return i;
	return n_rules;
}

/* ---- suppressions ---- */

static int
text_file(void)
{
	static int fd = -1;

	if (fd < 0)
		fd = memfd_create("suppressions", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, 0) != 0 || pwrite(fd, g.text, g.n, 0) != (ssize_t)g.n ||
	    (g.file == FILE_LONG && ftruncate(fd, FILE_MOST) != 0))
		abort();
	return fd;
}

static bool
load(void)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", text_file());
	if (g.file == FILE_NO_MEMORY)
		fake_sys_fail(FAKE_SYS_ALLOC, 1, true);
	bool ok = suppress_load(&loaded, g.file == FILE_MISSING ? "/nowhere/at/all" :
	    g.file == FILE_DIRECTORY ? "/proc/self" : path);
	fake_sys_fail(0, 0, false);
	return ok;
}

/* Letters by the digits of v; NULL for one number in eight. */
static const char *
make_name(char out[NAME_MAX_BYTES + 1], uint32_t v, uint8_t bytes)
{
	size_t n = bytes % (NAME_MAX_BYTES + 1u);

	for (size_t i = 0; i < n; i++, v >>= 2)
		out[i] = "ab/c"[v & 3];
	out[n] = 0;
	return bytes >= 224 ? NULL : out;
}

/* What is said of those that were used, to the letter. */
static void
check_used(size_t used, size_t bytes)
{
	static const char rule[] = "-----------------------------------------------------\n";
	static char said[PRINTED_MAX], want[PRINTED_MAX];
	struct print p;
	int n = 0;

	print_init(&p, said, sizeof(said));
	suppress_put_used(&p, &loaded);
	if (used < n_rules)
		n = snprintf(want, sizeof(want), "%sSuppressions used:\n  count      bytes template\n"
		    "%7zu%11zu %.*s\n%s\n", rule, (size_t)1, bytes, (int)rules[used].bytes,
		    rules[used].at, rule);
	SG_CHECK(HUSH, p.len == (size_t)n && memcmp(said, want, (size_t)n) == 0,
	    "of the one that was used %zu bytes are said, not %d", (size_t)p.len, n);
}

static void
do_find(const struct sgf_op *op)
{
	char function[NAME_MAX_BYTES + 1], module[NAME_MAX_BYTES + 1];
	const char *f = make_name(function, op->imm, op->a), *m = make_name(module, op->imm >> 16, op->b);
	bool ok = load();

	SG_CHECK(HUSH, ok == (g.file == FILE_READ), "a file that is in state %d was read: %d",
	    (int)g.file, ok);
	read_all_rules();
	SG_CHECK(HUSH, loaded.n == n_rules, "%zu suppressions, the naive reader has %zu", loaded.n,
	    n_rules);
	for (size_t i = 0; i < n_rules && i < loaded.n; i++)
		SG_CHECK(HUSH, loaded.s[i].bytes == rules[i].bytes &&
		    memcmp(loaded.s[i].text, rules[i].at, rules[i].bytes) == 0,
		    "suppression %zu is another", i);
	struct suppression *s = suppress_find(&loaded, f, m);
	size_t got = s != NULL ? (size_t)(s - loaded.s) : n_rules, want = naive_find(f, m);
	SG_CHECK(HUSH, got == want, "'%s' and '%s' are named by %zu, not by %zu of %zu",
	    f != NULL ? f : "-", m != NULL ? m : "-", got, want, n_rules);
	if (s != NULL) {
		s->objects = 1;
		s->lost_bytes = op->imm;
	}
	check_used(got, op->imm);
	sg_note(got);
	suppress_drop(&loaded);
}

static void
add(const char *s, size_t bytes)
{
	for (size_t i = 0; i < bytes && g.n < TEXT_MAX; i++)
		g.text[g.n++] = s[i];
}

static void
do_text(const struct sgf_op *op, enum op what)
{
	char raw = (char)op->a;

	switch (what) {
	case LEAK: add("leak:", 5); break;
	case OTHER: add(&"race:#leak leak"[op->a % 3u * 5], 5); break;
	case LETTER: add(&"ab/c"[op->a & 3], 1); break;
	case STAR: add("*", 1); break;
	case TIE: add("^", 1); break;
	case END: add("$", 1); break;
	case SPACE: add(&" \t\r"[op->a % 3u], 1); break;
	case RAW: add(&raw, 1); break;
	case LINES:
		for (uint32_t n = op->imm % 300; n > 0; n--)
			add("leak:c/c/c\n", 11);
		break;
	default: add("\n", 1); break;
	}
}

/* ---- groups ---- */

/* Two of them are equal, at two places; the last is none at all. */
static const uintptr_t stacks[STACKS][4] = { { 1, 2, 3 }, { 1, 2, 4 }, { 1, 2, 3 }, { 1 }, { 2 },
	{ 1, 2, 3, 4 }, { 1, 2 } };
static const uint32_t depths[STACKS] = { 3, 3, 3, 1, 1, 4, 2, 0 };

static void
do_lost(const struct sgf_op *op)
{
	unsigned k = op->handle % STACKS;

	if (g.n_lost == LOST_MAX)
		return;
	g.lost[g.n_lost] = (struct lost){ .base = ((op->imm & 0xff) << 12) + 16 * g.n_lost,
		.bytes = op->imm >> 8 & 0xfff, .pcs = depths[k] != 0 ? stacks[k] : NULL,
		.frames = depths[k], .indirect = op->a & 1, .old = op->a >> 1 & 1 };
	g.n_lost++;
}

static bool
of_one_group(const struct lost *a, const struct lost *b)
{
	if (a->indirect != b->indirect || a->frames != b->frames)
		return false;
	for (uint32_t i = 0; i < a->frames; i++)
		if (a->pcs[i] != b->pcs[i])
			return false;
	return true;
}

static void
check_group(const struct lost_group *x, const struct lost *before)
{
	const struct lost *first = &g.lost[x->first];
	size_t n = 0, bytes = 0;

	for (size_t i = 0; i < g.n_lost; i++)
		if (of_one_group(&before[i], first)) {
			n++;
			bytes += before[i].bytes;
		}
	SG_CHECK(GROUPS, n == x->n && bytes == x->bytes && x->indirect == first->indirect,
	    "a group of %zu objects and %zu bytes; there are %zu and %zu", x->n, x->bytes, n, bytes);
	for (size_t i = 0; i < x->n && x->first + i < g.n_lost; i++)
		SG_CHECK(GROUPS, of_one_group(&first[i], first), "a group has one of another in it");
}

static size_t
naive_groups(const struct lost *l, size_t n)
{
	size_t groups = 0;

	for (size_t i = 0; i < n; i++) {
		size_t j = 0;
		while (j < i && !of_one_group(&l[i], &l[j]))
			j++;
		groups += j == i;
	}
	return groups;
}

/* Each object still there, whole, once. */
static void
check_kept(const struct lost *before)
{
	for (size_t i = 0; i < g.n_lost; i++) {
		size_t j = 0;
		while (j < g.n_lost && before[j].base != g.lost[i].base)
			j++;
		SG_CHECK(GROUPS, j < g.n_lost && memcmp(&before[j], &g.lost[i], sizeof(before[j])) == 0,
		    "sorting changed object %zu", i);
		for (j = 0; j < i; j++)
			SG_CHECK(GROUPS, g.lost[j].base != g.lost[i].base, "sorting doubled object %zu", i);
	}
}

static void
do_group(const struct sgf_op *op)
{
	static struct lost before[LOST_MAX];
	static struct lost_group group[LOST_MAX];
	size_t most = op->a & 1 ? op->b % 8u : LOST_MAX;

	memcpy(before, g.lost, sizeof(before));
	lost_sort(g.lost, g.n_lost);
	check_kept(before);
	size_t want = naive_groups(before, g.n_lost), n = lost_group(g.lost, g.n_lost, group, most);
	SG_CHECK(GROUPS, lost_count_groups(g.lost, g.n_lost) == want && n == (want < most ? want : most),
	    "%zu groups, %zu of them listed; there are %zu", lost_count_groups(g.lost, g.n_lost), n, want);
	for (size_t i = 0; i < n; i++) {
		check_group(&group[i], before);
		SG_CHECK(GROUPS, i == 0 || group[i - 1].indirect < group[i].indirect ||
		    (group[i - 1].indirect == group[i].indirect && group[i - 1].bytes >= group[i].bytes),
		    "group %zu is out of order", i);
		sg_note(group[i].bytes);
	}
}

/* ---- the run ---- */

static void
step(const struct sgf_op *op)
{
	enum op what = op_of[op->code];

	if (what < FIND)
		do_text(op, what);
	else if (what == LOST)
		do_lost(op);
	else if (++g.looks <= LOOKS_MAX && what == FIND)
		do_find(op);
	else if (g.looks <= LOOKS_MAX)
		do_group(op);
}

static void
body(void *arg)
{
	const struct { const uint8_t *data; size_t bytes; } *in = arg;

	sg_each_op(in->data, in->bytes, &language, step, NULL);
	do_find(&(struct sgf_op){ .a = 5, .b = 4, .imm = 0x1b2d4e });
	do_group(&(struct sgf_op){ 0 });
}

static int
run(const uint8_t *data, size_t bytes)
{
	struct { const uint8_t *data; size_t bytes; } in = { data, bytes };
	struct sg_heap_config config;
	struct sgf_header h;

	memset(&g, 0, sizeof(g));
	sgf_read_header(data, bytes, &h);
	g.file = h.knob[0] % FILE_STATES;
	sg_heap_config(&(struct sgf_header){ .seed = h.seed }, &config);
	sg_heap_start(&config);
	const struct die_info *d = sg_heap_try(body, &in);
	SG_CHECK(DEATH, d == NULL, "code %d at %s", (int)d->code, d->site != NULL ? d->site : "-");
	return 0;
}

const struct sg_harness sg_h_lost = { "lost", &language, run };
