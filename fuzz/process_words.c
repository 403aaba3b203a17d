/* process_words.c - texts of H20 that are made of bytes of others: JSON, numbers, the
 * options of the environment, and functions that are looked up in made-up modules. */
#define _GNU_SOURCE
#include "process.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>

#include "dynsym.h"
#include "json.h"
#include "log.h"
#include "options.h"
#include "reporttext.h"

enum { VALUE_BYTES = 7 };

/* Seven bytes that an op carries. */
static void
bytes_of(const struct sgf_op *op, char out[VALUE_BYTES + 1])
{
	memcpy(out, &op->imm, 4);
	out[4] = (char)op->a;
	out[5] = (char)op->b;
	out[6] = (char)op->handle;
	out[7] = 0;
}

/* ---- JSON ---- */

/* Bytes of the character that begins at s, by putting it into bytes again: only the
 * shortest form of a code point that is no surrogate comes back. */
static size_t
naive_character(const unsigned char *s, size_t n)
{
	for (size_t len = 2; len <= 4 && len <= n; len++) {
		uint32_t v = s[0] & (0x7fu >> len);
		unsigned char again[4];
		size_t least = v;
		for (size_t i = 1; i < len; i++)
			v = v << 6 | (s[i] & 0x3f);
		least = v < 0x80 ? 1 : v < 0x800 ? 2 : v < 0x10000 ? 3 : 4;
		again[0] = (unsigned char)(0xf00u >> len | v >> 6 * (len - 1));
		for (size_t i = 1; i < len; i++)
			again[i] = (unsigned char)(0x80 | (v >> 6 * (len - 1 - i) & 0x3f));
		if (least == len && v <= 0x10ffff && v >> 11 != 0x1b && memcmp(again, s, len) == 0)
			return len;
	}
	return s[0] < 0x80 ? 1 : 0;
}

static void
naive_string(const char *value, size_t n, char *out)
{
	for (size_t i = 0; i < n;) {
		const unsigned char *s = (const unsigned char *)value + i;
		size_t len = naive_character(s, n - i);
		if (len == 0)
			out += sprintf(out, "\\ufffd");
		else if (len == 1 && (*s < ' ' || *s == 0x7f))
			out += sprintf(out, "\\u%04x", *s);
		else
			out += sprintf(out, "%s%.*s", *s == '"' || *s == '\\' ? "\\" : "", (int)len, (const char *)s);
		i += len != 0 ? len : 1;
	}
	*out = 0;
}

void
process_json(const struct sgf_op *op)
{
	char value[VALUE_BYTES + 1], string[64], want[512], buf[512], number[32];
	uint64_t n = op->imm >> 31 ? UINT64_MAX - op->imm : op->imm;
	int64_t sign = (int64_t)(op->imm & 1 ? 0 - n : n);
	size_t most = op->thread == 3 ? 3 : 16;
	struct print p;

	bytes_of(op, value);
	print_init(&p, buf, sizeof(buf));
	json_open(&p, NULL, '{');
	json_str(&p, "a", value, most);
	json_open(&p, "b", '[');
	json_str(&p, NULL, value, most);
	json_uint(&p, NULL, n);
	json_close(&p, ']');
	json_int(&p, "c", sign);
	json_bool(&p, "d", op->a & 1);
	json_addr(&p, "e", n);
	json_close(&p, '}');
	print_char(&p, '\n');
	naive_string(value, strnlen(value, most), string);
	snprintf(number, sizeof(number), n > INT64_MAX ? "\"0x%" PRIx64 "\"" : "%" PRIu64, n);
	snprintf(want, sizeof(want), "{\"a\":\"%s\",\"b\":[\"%s\",%s],\"c\":%" PRId64 ",\"d\":%s,\"e\":\"0x%"
	    PRIx64 "\"}\n", string, string, number, sign, op->a & 1 ? "true" : "false", n);
	SG_CHECK(WORDS, strcmp(buf, want) == 0, "JSON %s, not %s", buf, want);
	SG_CHECK(WORDS, reporttext_is_json(buf, p.len), "no JSON: %s", buf);
	sg_note(p.len);
}

/* ---- numbers ---- */

static void
naive_grouped(uint64_t v, char *out)
{
	char digits[32];
	size_t n = (size_t)snprintf(digits, sizeof(digits), "%" PRIu64, v);

	for (size_t i = 0; i < n; i++) {
		*out++ = digits[i];
		if (n - i > 1 && (n - i) % 3 == 1)
			*out++ = ',';
	}
	*out = 0;
}

static void
naive_size(uint64_t v, char *out)
{
	static const char units[] = " kmgt";
	unsigned u = 0;

	for (uint64_t one = (uint64_t)1 << 40, i = 4; i > 0 && u == 0; i--, one >>= 10)
		if (v != 0 && v % one == 0)
			u = (unsigned)i;
	out += sprintf(out, "%" PRIu64, v >> 10 * u);
	if (u != 0)
		sprintf(out, "%c", units[u]);
}

static void
naive_quoted(const char *s, size_t most, char *out)
{
	for (size_t i = 0; i < most && s[i] != 0; i++)
		out += (unsigned char)s[i] < ' ' || s[i] == 0x7f ? sprintf(out, "\\x%02x", (unsigned char)s[i]) :
		    sprintf(out, "%c", s[i]);
	sprintf(out, "%s", strlen(s) > most ? "..." : "");
}

void
process_print(const struct sgf_op *op)
{
	char value[VALUE_BYTES + 1], grouped[40], size[40], quoted[64], buf[512], want[512];
	uint64_t v = (uint64_t)op->imm << op->a % 64 | op->b;
	size_t most = op->handle % 9, column = op->handle % 64;
	struct print p;

	bytes_of(op, value);
	naive_grouped(v, grouped);
	naive_size(v, size);
	naive_quoted(value, most, quoted);
	print_init(&p, buf, sizeof(buf));
	print_dec(&p, v);
	print_char(&p, ' ');
	print_sdec(&p, (int64_t)v);
	print_char(&p, '\n');
	print_size(&p, v);
	print_pad(&p, column);
	print_bytes(&p, v);
	print_char(&p, ' ');
	print_quoted(&p, value, most);
	print_char(&p, ' ');
	print_hex_bytes(&p, (const uint8_t *)&v, 2);
	snprintf(want, sizeof(want), "%" PRIu64 " %" PRId64 "\n%-*s%s byte%s %s %02x%02x", v, (int64_t)v,
	    (int)column, size, grouped, v == 1 ? "" : "s", quoted, (unsigned)(v & 255), (unsigned)(v >> 8 & 255));
	SG_CHECK(WORDS, strcmp(buf, want) == 0, "printed %s, not %s", buf, want);
	sg_note(p.len);
}

/* ---- functions by name ---- */

enum { MODULES = 3, SYMBOLS = 7, NAMES = 6, BUCKETS = 3 };

/* What the loader has of a module: the sections lie behind each other. */
static struct module_image {
	ElfW(Dyn) dynamic[6];
	ElfW(Sym) symbol[SYMBOLS + 1];
	char names[16 * (SYMBOLS + 1)];
	uint32_t gnu[4 + 2 + BUCKETS + SYMBOLS];
	ElfW(Word) sysv[3];
	ElfW(Phdr) phdr[2];
} image[MODULES];

static const char *const function_names[NAMES] = { "malloc", "free", "f", "operator new", "_Znwm", "x" };

struct naive_module {
	bool findable;
	struct {
		const char *name;
		uintptr_t at;
		bool function;
		uint32_t bucket;
	} symbol[SYMBOLS];
	unsigned n;
};

static uint32_t
naive_hash(const char *s)
{
	uint32_t h = 5381;

	while (*s != 0)
		h = (h << 5) + h + (unsigned char)*s++;
	return h;
}

/* Symbols in the order of their buckets, those that are undefined first, as a linker
 * puts them. */
static void
draw_symbols(struct naive_module *n, uint64_t *random, uint32_t buckets)
{
	n->n = 0;
	for (uint32_t b = 0; b < buckets; b++)
		for (unsigned i = 0; i < NAMES; i++) {
			uint64_t r = sg_random(random);
			if (naive_hash(function_names[i]) % buckets != b || (r & 1) != 0 || n->n == SYMBOLS - 1)
				continue;
			n->symbol[n->n].name = function_names[i];
			n->symbol[n->n].at = 0x1000 + (r >> 8 & 0xff) * 16;
			n->symbol[n->n].function = (r & 6) != 0;
			n->symbol[n->n++].bucket = b;
		}
}

static void
fill_tables(struct module_image *m, const struct naive_module *n, uint32_t buckets, bool empty)
{
	memset(m, 0, sizeof(*m));
	/* 0 is nobody's, 1 is undefined here */
	strcpy(m->names + 16, "malloc");
	m->symbol[1] = (ElfW(Sym)){ .st_name = 16, .st_info = STT_FUNC, .st_shndx = SHN_UNDEF };
	m->gnu[0] = empty ? 0 : buckets;
	m->gnu[1] = 2;
	m->gnu[2] = 1;
	for (unsigned i = 0; i < n->n && i + 2 <= SYMBOLS; i++) {
		uint32_t *bucket = &m->gnu[4 + 2 + n->symbol[i].bucket];
		bool last = i + 1 == n->n || n->symbol[i + 1].bucket != n->symbol[i].bucket;
		strcpy(m->names + 16 * (i + 2), n->symbol[i].name);
		m->symbol[i + 2] = (ElfW(Sym)){ .st_name = 16 * (i + 2), .st_shndx = 5, .st_value = n->symbol[i].at,
			.st_info = n->symbol[i].function ? STT_FUNC : STT_OBJECT };
		*bucket = *bucket == 0 ? i + 2 : *bucket;
		m->gnu[4 + 2 + buckets + i] = (naive_hash(n->symbol[i].name) & ~1u) | last;
	}
	m->sysv[0] = 1;
	m->sysv[1] = n->n + 2;
}

static void
make_module(struct dl_phdr_info *info, struct naive_module *n, unsigned which, uint64_t *random)
{
	struct module_image *m = &image[which];
	uint64_t r = sg_random(random);
	uint32_t buckets = 1 + (uint32_t)(r & 255) % BUCKETS;
	bool gnu = (r >> 8 & 3) != 0, sysv = (r >> 10 & 1) != 0, empty = (r >> 11 & 15) == 0;
	uintptr_t load = (uintptr_t)m, add = r >> 15 & 1 ? load : 0;     /* relocated, or not */
	size_t at = 0;

	draw_symbols(n, random, buckets);
	fill_tables(m, n, buckets, empty);
	ElfW(Dyn) all[] = { { DT_STRTAB, { offsetof(struct module_image, names) + add } },
		{ DT_SYMTAB, { offsetof(struct module_image, symbol) + add } },
		{ DT_GNU_HASH, { offsetof(struct module_image, gnu) + add } },
		{ DT_HASH, { offsetof(struct module_image, sysv) + add } } };
	bool there[] = { (r >> 16 & 7) != 0, (r >> 19 & 7) != 0, gnu, sysv };
	for (size_t i = 0; i < ARRAY_LEN(all); i++)
		if (there[i])
			m->dynamic[at++] = all[i];
	m->dynamic[at].d_tag = DT_NULL;
	bool dynamic = (r >> 22 & 7) != 0;
	m->phdr[0].p_type = PT_LOAD;
	m->phdr[1].p_type = dynamic ? PT_DYNAMIC : PT_NOTE;
	m->phdr[1].p_vaddr = offsetof(struct module_image, dynamic);
	n->findable = dynamic && there[0] && there[1] && (gnu ? !empty : sysv);
	*info = (struct dl_phdr_info){ .dlpi_addr = load, .dlpi_phdr = m->phdr, .dlpi_phnum = 2 };
}

static void *
naive_symbol(const struct naive_module *n, unsigned which, const char *name)
{
	for (unsigned i = 0; n->findable && i < n->n; i++)
		if (n->symbol[i].function && strcmp(n->symbol[i].name, name) == 0)
			return (void *)((uintptr_t)&image[which] + n->symbol[i].at);
	return NULL;
}

void
process_symbols(const struct sgf_op *op)
{
	static struct dl_phdr_info info[MODULES];
	static struct naive_module naive[MODULES];
	uint64_t random = op->imm;
	const char *name = function_names[op->a % NAMES];
	const char *beside = op->b % 8 < NAMES ? function_names[op->b % 8] : NULL;
	void *want = NULL, *ours = NULL;

	for (unsigned i = 0; i < MODULES; i++)
		make_module(&info[i], &naive[i], i, &random);
	if (op->b & 16)
		ours = naive_symbol(&naive[0], 0, name);
	for (unsigned i = 0; i < MODULES && want == NULL; i++) {
		want = naive_symbol(&naive[i], i, name);
		if (want == ours || (beside != NULL && naive_symbol(&naive[i], i, beside) == NULL))
			want = NULL;
	}
	sim.modules = info;
	sim.n_modules = MODULES;
	void *got = dynsym_function(name, beside, ours);
	SG_CHECK(MODEL, got == want, "%s beside %s is at %p, not %p", name, beside != NULL ? beside : "-",
	    got, want);
	sg_note(got != NULL);
}

/* ---- the environment ---- */

enum { STRINGS = 8, ENV_MOST = 4095, ENV_BYTES = 1 << 16 };

static char env_block[ENV_BYTES], long_value[6000];

static const char *
string_of(unsigned i)
{
	static const char *const strings[16] = { "PATH=/bin", "SPANGUARD_OPTIONS=mode=strict",
		"SPANGUARD_OPTIONS=help=1:mode=plain:log=log", "SPANGUARD_OPTIONS=bogus=1:seed=5",
		"SPANGUARD_STRICT_OPTIONS=1", "SPANGUARD_STRICT_OPTIONS=0", "SPANGUARD_REPORT_FD=9:2:3",
		"SPANGUARD_OPTION=mode=guard", "SPANGUARD_OPTIONSX=mode=guard", "SPANGUARD_OPTIONS", long_value,
		"", "XSPANGUARD_OPTIONS=mode=guard", "SPANGUARD_OPTIONS=log=log.%p:json=dir/log", "SPANGUARD_OPTIONS=",
		"SPANGUARD_=1" };

	return strings[i % 16];
}

/* The first string with that name. */
static const char *
naive_getenv(char *const *env, const char *name)
{
	size_t n = strlen(name);

	for (; *env != NULL; env++)
		if (strncmp(*env, name, n) == 0 && (*env)[n] == '=')
			return *env + n + 1;
	return "";
}

static void
do_init(void)
{
	jmp_buf end;

	sim.end = &end;
	if (setjmp(end) == 0)
		options_init();
	sim.end = NULL;
}

/* What options_init has to say, after it set the log. */
static void
check_env(char *const *env)
{
	static char text[1 << 15], value[ENV_MOST + 1];
	struct options want;
	uint8_t origin[OPTIONS_COUNT];
	struct print p;
	const char *all = naive_getenv(env, "SPANGUARD_OPTIONS");

	print_init(&p, text, sizeof(text));
	want = options;                /* what is between the fields */
	snprintf(value, sizeof(value), "%s", all);
	unsigned bad = options_parse(&want, origin, "spanguard: warning: SPANGUARD_OPTIONS", value, &p);
	if (strlen(all) > ENV_MOST) {
		print_str(&p, "spanguard: warning: SPANGUARD_OPTIONS: longer than 4095 bytes, the rest is ignored\n");
		bad++;
	}
	SG_CHECK(PARSE, memcmp(&want, &options, sizeof(want)) == 0, "other options than '%.60s'", value);
	if (want.help)
		options_print_help(&want, origin, &p);
	for (unsigned i = 0; want.help && i < OPTIONS_COUNT; i++) {
		char line[64];
		snprintf(line, sizeof(line), "\n  %.40s=", options_table[i].name);
		SG_CHECK(PARSE, strstr(text, line) != NULL, "no '%s' in the help", options_table[i].name);
	}
	bool strict = bad != 0 && strcmp(naive_getenv(env, "SPANGUARD_STRICT_OPTIONS"), "1") == 0;
	SG_CHECK(PARSE, sim.ended == (strict ? SIM_STATUS + 2 : 0), "ended by %d", sim.ended);
	process_log_is(options.log, options.json, naive_getenv(env, "SPANGUARD_REPORT_FD"));
	if (p.len != 0)
		process_wrote(text, p.len);
	sg_note(bad + 16 * p.len);
}

/* The strings come from libc, or where it has none yet, from a file in pieces. */
void
process_env(const struct sgf_op *op)
{
	static struct options saved;
	char *env[STRINGS + 1] = { NULL }, *nothing[1] = { NULL };
	struct sim_file *f = sim_file("/proc/self/environ", true);
	size_t at = 0;

	if (f == NULL)
		return;
	memset(long_value, 'y', sizeof(long_value) - 1);
	memcpy(long_value, "SPANGUARD_OPTIONS=mode=guard:seed=", 34);
	for (unsigned i = 0; i < STRINGS; i++) {
		env[i] = env_block + at;
		strcpy(env[i], string_of(op->imm >> 4 * i & 15));
		at += strlen(env[i]) + 1;
	}
	memcpy(f->data, env_block, at);
	f->n = at;
	f->open_errno = op->a & 1 ? EACCES : 0;
	sim.auxval_secure = (op->a & 6) == 6;
	sim_environ = op->a & 8 ? NULL : env;
	sim.ended = 0;
	saved = options;
	options_forget();
	do_init();
	f->n = 0;
	check_env((op->a & 9) == 9 || sim.auxval_secure ? nothing : env);
	sim_environ = env;
	options_init();                /* the second call does nothing */
	options_forget();
	options = saved;
	sim.auxval_secure = 0;
	process_log_start();
}
