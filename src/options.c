/* options.c - see options.h. Input is
 *
 *     text  = [item] {sep [item]}        sep = ':' ',' blank tab newline
 *     item  = name '=' value
 *     value = {byte but sep} | '"' {byte but '"'} '"' | "'" {byte but "'"} "'"
 *
 * OPTIONS-1: parsing what options_print printed gives the same struct.
 * OPTIONS-2: a value that is refused leaves its field as it was.
 *
 * The first malloc may come before libc has set `environ`; then the strings
 * are read from /proc/self/environ with raw calls. */
#include "options.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "log.h"

extern char **environ;

const struct option_row options_table[OPTIONS_COUNT] = {
#define OPTION(n, k, d, lo, hi, h)                                             \
	{ .name = #n, .def = d, .help = h, .kind = OPTION_##k,                 \
	  .offset = offsetof(struct options, n), .min = lo, .max = hi },
#include "options.def"
};

struct choice {
	uint8_t option;
	uint8_t value;
	char text[14];
};

static const struct choice choices[] = {
#define CHOICE(option, constant, value, text) { OPTION_##option, value, text },
#include "options.def"
};

struct preset {
	char mode[14];
	uint8_t option;
	char text[13];
};

static const struct preset presets[] = {
#define PRESET(mode, option, text) { #mode, OPTION_##option, text },
#include "options.def"
};

struct options options;

static uint8_t origins[OPTIONS_COUNT];

struct slice {
	const char *s;
	size_t n;
};

static bool
slice_is(struct slice a, const char *s)
{
	return strlen(s) == a.n && memcmp(a.s, s, a.n) == 0;
}

static uint8_t
row_id(const struct option_row *row)
{
	return (uint8_t)(row - options_table);
}

/* ---- one value ---------------------------------------------------------- */

static unsigned
digit_of(char c)
{
	if (c >= '0' && c <= '9')
		return (unsigned)(c - '0');
	char l = (char)(c | 0x20);
	return l >= 'a' && l <= 'f' ? (unsigned)(l - 'a') + 10 : 99;
}

/* The shift of a size suffix, 0 for none of them. */
static unsigned
suffix_shift(char c)
{
	switch (c | 0x20) {
	case 'k': return 10;
	case 'm': return 20;
	case 'g': return 30;
	case 't': return 40;
	}
	return 0;
}

static bool
parse_number(struct slice v, bool suffix, uint64_t *out)
{
	uint64_t sum = 0;
	unsigned shift = suffix && v.n > 1 ? suffix_shift(v.s[v.n - 1]) : 0;
	unsigned base = 10;
	if (shift != 0)
		v.n--;
	if (v.n > 2 && v.s[0] == '0' && (v.s[1] | 0x20) == 'x') {
		base = 16;
		v.s += 2;
		v.n -= 2;
	}
	if (v.n == 0)
		return false;
	for (size_t i = 0; i < v.n; i++) {
		unsigned d = digit_of(v.s[i]);
		if (d >= base || __builtin_mul_overflow(sum, base, &sum) ||
		    __builtin_add_overflow(sum, d, &sum))
			return false;
	}
	return !__builtin_mul_overflow(sum, (uint64_t)1 << shift, out);
}

static bool
parse_bool(struct slice v, uint64_t *out)
{
	static const char words[][6] = { "0", "1", "no", "yes", "off", "on", "false", "true" };
	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		if (slice_is(v, words[i])) {
			*out = i & 1;
			return true;
		}
	}
	return false;
}

static bool
parse_choice(const struct option_row *row, struct slice v, uint64_t *out)
{
	for (size_t i = 0; i < ARRAY_LEN(choices); i++) {
		if (choices[i].option == row_id(row) && slice_is(v, choices[i].text)) {
			*out = choices[i].value;
			return true;
		}
	}
	return false;
}

static bool
parse_value(const struct option_row *row, struct slice v, uint64_t *out)
{
	switch (row->kind) {
	case OPTION_BOOL: return parse_bool(v, out);
	case OPTION_ENUM: return parse_choice(row, v, out);
	case OPTION_STRING:
		*out = v.n;
		return memchr(v.s, 0, v.n) == NULL;
	}
	return parse_number(v, row->kind == OPTION_SIZE, out);
}

static void
store(struct options *o, const struct option_row *row, uint64_t v, struct slice text)
{
	char *field = (char *)o + row->offset;
	uint32_t v32 = (uint32_t)v;
	size_t size = (size_t)v;
	switch (row->kind) {
	case OPTION_BOOL: *(bool *)field = v != 0; break;
	case OPTION_UINT:
	case OPTION_ENUM: memcpy(field, &v32, sizeof(v32)); break;
	case OPTION_U64: memcpy(field, &v, sizeof(v)); break;
	case OPTION_SIZE: memcpy(field, &size, sizeof(size)); break;
	case OPTION_STRING:
		memcpy(field, text.s, text.n);
		memset(field + text.n, 0, OPTION_STRING_BYTES - text.n);
		break;
	}
}

static uint64_t
load(const struct options *o, const struct option_row *row)
{
	const char *field = (const char *)o + row->offset;
	uint32_t v32 = 0;
	uint64_t v = 0;
	size_t size = 0;
	switch (row->kind) {
	case OPTION_BOOL: v = *(const bool *)field; break;
	case OPTION_UINT:
	case OPTION_ENUM:
		memcpy(&v32, field, sizeof(v32));
		v = v32;
		break;
	case OPTION_U64: memcpy(&v, field, sizeof(v)); break;
	case OPTION_SIZE:
		memcpy(&size, field, sizeof(size));
		v = size;
		break;
	}
	return v;
}

/* ---- names and complaints ----------------------------------------------- */

/* Edit distance (Levenshtein), two rows of the table at a time. */
static unsigned
distance(struct slice a, const char *b)
{
	uint8_t row[32];
	size_t bn = strlen(b);
	if (a.n >= sizeof(row) || bn >= sizeof(row))
		return sizeof(row);
	for (size_t j = 0; j <= bn; j++)
		row[j] = (uint8_t)j;
	for (size_t i = 1; i <= a.n; i++) {
		uint8_t diagonal = row[0];
		row[0] = (uint8_t)i;
		for (size_t j = 1; j <= bn; j++) {
			uint8_t above = row[j];
			uint8_t best = above < row[j - 1] ? above : row[j - 1];
			uint8_t swap = (uint8_t)(diagonal + (a.s[i - 1] != b[j - 1]));
			row[j] = swap <= best ? swap : (uint8_t)(best + 1);
			diagonal = above;
		}
	}
	return row[bn];
}

/* Further away than this, a suggestion would be a guess. */
static unsigned
near_limit(size_t bytes)
{
	return bytes < 4 ? 1 : bytes < 6 ? 2 : (unsigned)bytes / 3;
}

const struct option_row *
options_find(const char *name, size_t bytes)
{
	struct slice n = { name, bytes };
	for (size_t i = 0; i < OPTIONS_COUNT; i++) {
		if (slice_is(n, options_table[i].name))
			return &options_table[i];
	}
	return NULL;
}

const struct option_row *
options_nearest(const char *name, size_t bytes)
{
	const struct option_row *best = NULL;
	unsigned best_distance = near_limit(bytes) + 1;
	for (size_t i = 0; i < OPTIONS_COUNT; i++) {
		unsigned d = distance((struct slice){ name, bytes }, options_table[i].name);
		if (d < best_distance) {
			best_distance = d;
			best = &options_table[i];
		}
	}
	return best;
}

static const struct choice *
nearest_choice(const struct option_row *row, struct slice v)
{
	const struct choice *best = NULL;
	unsigned best_distance = near_limit(v.n) + 1;
	for (size_t i = 0; i < ARRAY_LEN(choices); i++) {
		unsigned d = distance(v, choices[i].text);
		if (choices[i].option == row_id(row) && d < best_distance) {
			best_distance = d;
			best = &choices[i];
		}
	}
	return best;
}

static void
print_slice(struct print *out, struct slice v)
{
	char shown[64];
	size_t n = v.n < sizeof(shown) - 1 ? v.n : sizeof(shown) - 1;
	memcpy(shown, v.s, n);
	shown[n] = 0;
	print_char(out, '\'');
	print_quoted(out, shown, n);
	print_str(out, v.n > n ? "...'" : "'");
}

static void
complain_name(struct print *out, const char *source, struct slice name)
{
	const struct option_row *near = options_nearest(name.s, name.n);
	print_str(out, source);
	print_str(out, ": unknown option ");
	print_slice(out, name);
	if (near != NULL) {
		print_str(out, ", the nearest is '");
		print_str(out, near->name);
		print_str(out, "'\n");
	} else {
		print_str(out, ", help=1 lists all\n");
	}
}

static void
complain_value(struct print *out, const struct options *o, const char *source,
    const struct option_row *row, struct slice v)
{
	const struct choice *near = row->kind == OPTION_ENUM ? nearest_choice(row, v) : NULL;
	print_str(out, source);
	print_str(out, ": bad value ");
	print_slice(out, v);
	print_str(out, " for ");
	print_str(out, row->name);
	print_str(out, ", expected ");
	options_print_range(row, out);
	if (near != NULL) {
		print_str(out, " (the nearest is '");
		print_str(out, near->text);
		print_str(out, "')");
	}
	print_str(out, "; it stays ");
	options_print_value(o, row, out);
	print_char(out, '\n');
}

/* ---- a whole text ------------------------------------------------------- */

bool
options_set(struct options *o, const char *source, const char *name,
    size_t name_bytes, const char *value, size_t value_bytes, struct print *out)
{
	const struct option_row *row = options_find(name, name_bytes);
	struct slice v = { value, value_bytes };
	uint64_t number = 0;
	if (row == NULL) {
		complain_name(out, source, (struct slice){ name, name_bytes });
		return false;
	}
	bool ok = parse_value(row, v, &number);
	bool ranged = row->kind != OPTION_BOOL && row->kind != OPTION_ENUM;
	if (!ok || (ranged && (number < row->min || number > row->max))) {
		complain_value(out, o, source, row, v);
		return false;
	}
	store(o, row, number, v);
	return true;
}

static bool
is_sep(char c)
{
	return c == ':' || c == ',' || c == ' ' || c == '\t' || c == '\n';
}

struct item {
	struct slice all, name, value;
	bool well_formed;
};

/* Takes the next item off *text; false at the end. */
static bool
next_item(const char **text, struct item *it)
{
	const char *s = *text;
	while (is_sep(*s))
		s++;
	if (*s == 0)
		return false;
	it->all.s = it->name.s = s;
	while (*s != 0 && *s != '=' && !is_sep(*s))
		s++;
	it->name.n = (size_t)(s - it->name.s);
	it->well_formed = *s == '=' && it->name.n != 0;
	if (*s == '=')
		s++;
	char quote = *s == '"' || *s == '\'' ? *s : 0;
	if (quote != 0) {
		it->value.s = ++s;
		while (*s != 0 && *s != quote)
			s++;
		it->value.n = (size_t)(s - it->value.s);
		s += *s != 0;
		it->well_formed &= s[-1] == quote && s - 1 == it->value.s + it->value.n &&
		    (*s == 0 || is_sep(*s));
	} else {
		it->value.s = s;
	}
	while (*s != 0 && !is_sep(*s))
		s++;
	if (quote == 0)
		it->value.n = (size_t)(s - it->value.s);
	it->all.n = (size_t)(s - it->all.s);
	*text = s;
	return true;
}

static void
set_text(struct options *o, uint8_t *origin, enum option_origin from,
    const struct option_row *row, const char *text)
{
	uint64_t number = 0;
	struct slice v = { text, strlen(text) };
	if (parse_value(row, v, &number))
		store(o, row, number, v);
	if (origin != NULL)
		origin[row_id(row)] = (uint8_t)from;
}

const char *
options_preset(const char *mode, const struct option_row *row)
{
	for (size_t i = 0; i < ARRAY_LEN(presets); i++) {
		if (presets[i].option == row_id(row) && strcmp(presets[i].mode, mode) == 0)
			return presets[i].text;
	}
	return NULL;
}

static const char *
choice_text(const struct option_row *row, uint64_t value)
{
	for (size_t i = 0; i < ARRAY_LEN(choices); i++) {
		if (choices[i].option == row_id(row) && choices[i].value == value)
			return choices[i].text;
	}
	return "?";
}

static void
apply_preset(struct options *o, uint8_t *origin)
{
	const char *mode = choice_text(&options_table[OPTION_mode], o->mode);
	for (size_t i = 0; i < OPTIONS_COUNT; i++) {
		const char *text = options_preset(mode, &options_table[i]);
		if (text != NULL)
			set_text(o, origin, ORIGIN_MODE, &options_table[i], text);
	}
}

/* One walk over the text, for the option mode or for all others. */
static unsigned
apply_items(struct options *o, uint8_t *origin, const char *source,
    const char *text, bool mode, struct print *out)
{
	struct item it;
	unsigned bad = 0;
	while (next_item(&text, &it)) {
		if (slice_is(it.name, "mode") != mode)
			continue;
		if (!it.well_formed) {
			print_str(out, source);
			print_str(out, ": expected name=value, found ");
			print_slice(out, it.all);
			print_char(out, '\n');
			bad++;
		} else if (!options_set(o, source, it.name.s, it.name.n, it.value.s,
		    it.value.n, out)) {
			bad++;
		} else if (origin != NULL) {
			origin[row_id(options_find(it.name.s, it.name.n))] = ORIGIN_USER;
		}
	}
	return bad;
}

unsigned
options_parse(struct options *o, uint8_t *origin, const char *source,
    const char *text, struct print *out)
{
	for (size_t i = 0; i < OPTIONS_COUNT; i++)
		set_text(o, origin, ORIGIN_DEFAULT, &options_table[i], options_table[i].def);
	unsigned bad = apply_items(o, origin, source, text, true, out);
	apply_preset(o, origin);
	return bad + apply_items(o, origin, source, text, false, out);
}

/* ---- printing ----------------------------------------------------------- */

static void
print_string_value(const char *s, struct print *out)
{
	bool quote = s[0] == '"' || s[0] == '\'';
	for (const char *c = s; *c != 0; c++)
		quote |= is_sep(*c);
	const char *mark = !quote ? "" : strchr(s, '"') == NULL ? "\"" : "'";
	print_str(out, mark);
	print_str(out, s);
	print_str(out, mark);
}

void
options_print_value(const struct options *o, const struct option_row *row,
    struct print *out)
{
	switch (row->kind) {
	case OPTION_STRING:
		print_string_value((const char *)o + row->offset, out);
		break;
	case OPTION_ENUM: print_str(out, choice_text(row, load(o, row))); break;
	case OPTION_SIZE: print_size(out, load(o, row)); break;
	default: print_dec(out, load(o, row)); break;
	}
}

void
options_print(const struct options *o, struct print *out)
{
	for (size_t i = 0; i < OPTIONS_COUNT; i++) {
		if (i != 0)
			print_char(out, ':');
		print_str(out, options_table[i].name);
		print_char(out, '=');
		options_print_value(o, &options_table[i], out);
	}
}

void
options_print_range(const struct option_row *row, struct print *out)
{
	const char *between = "";
	switch (row->kind) {
	case OPTION_BOOL: print_str(out, "0|1"); return;
	case OPTION_STRING: print_str(out, "1 to "); print_dec(out, row->max);
		print_str(out, " bytes"); return;
	case OPTION_SIZE:
		print_size(out, row->min);
		print_str(out, "..");
		print_size(out, row->max);
		return;
	case OPTION_ENUM:
		for (size_t i = 0; i < ARRAY_LEN(choices); i++) {
			if (choices[i].option != row_id(row))
				continue;
			print_str(out, between);
			print_str(out, choices[i].text);
			between = "|";
		}
		return;
	}
	print_dec(out, row->min);
	print_str(out, "..");
	if (row->max == UINT64_MAX)
		print_str(out, "2^64-1");
	else if (row->max == UINT32_MAX)
		print_str(out, "2^32-1");
	else
		print_dec(out, row->max);
}

void
options_print_help(const struct options *o, const uint8_t *origin, struct print *out)
{
	static const char names[][24] = { "default", "from the mode", "SPANGUARD_OPTIONS" };
	print_str(out, "spanguard: options (SPANGUARD_OPTIONS=\"name=value:name=value\")\n");
	for (size_t i = 0; i < OPTIONS_COUNT; i++) {
		const struct option_row *row = &options_table[i];
		print_str(out, "  ");
		print_str(out, row->name);
		print_char(out, '=');
		options_print_value(o, row, out);
		print_char(out, ' ');
		print_pad(out, 36);
		print_str(out, names[origin[i]]);
		print_str(out, ", takes ");
		options_print_range(row, out);
		print_str(out, ", default ");
		print_str(out, row->def);
		print_str(out, "\n      ");
		print_str(out, row->help);
		print_char(out, '\n');
	}
}

/* ---- the environment ---------------------------------------------------- */

enum { ENV_BYTES = 4096 };

struct env_var {
	char name[28];
	char value[ENV_BYTES];
	bool found;
	bool too_long;
};

/* Static: there may be 64 KiB of stack and no heap yet. */
static struct env_var env_vars[] = {
	{ .name = "SPANGUARD_OPTIONS" },
	{ .name = "SPANGUARD_STRICT_OPTIONS" },
	{ .name = "SPANGUARD_REPORT_FD" },
};

static char complaints[16384];
static char chunk[4096];

static void
env_append(struct env_var *v, size_t at, char c)
{
	if (at < ENV_BYTES - 1)
		v->value[at] = c;
	else
		v->too_long = true;
}

/* Feeds the bytes of an environment block one by one. */
struct env_scan {
	size_t at;                    /* in the current string */
	size_t value_at;              /* of the value, once `hit` is set */
	struct env_var *hit;
	uint8_t alive;                /* bit i: env_vars[i].name fits so far */
};

static void
env_feed(struct env_scan *e, char c)
{
	if (c == 0) {
		*e = (struct env_scan){ .alive = 7 };
		return;
	}
	if (e->hit != NULL) {
		env_append(e->hit, e->value_at++, c);
		return;
	}
	for (size_t i = 0; i < ARRAY_LEN(env_vars); i++) {
		struct env_var *v = &env_vars[i];
		size_t n = strlen(v->name);
		if ((e->alive >> i & 1) == 0)
			continue;
		if (e->at == n && c == '=' && !v->found) {
			v->found = true;
			e->hit = v;
			return;
		}
		if (e->at >= n || v->name[e->at] != c)
			e->alive &= (uint8_t)~(1u << i);
	}
	e->at++;
}

static void
env_from_proc(void)
{
	struct env_scan scan = { .alive = 7 };
	int fd = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/environ", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	for (;;) {
		long n = syscall(SYS_read, fd, chunk, sizeof(chunk));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		for (long i = 0; i < n; i++)
			env_feed(&scan, chunk[i]);
	}
	syscall(SYS_close, fd);
}

static void
env_read(void)
{
	struct env_scan scan = { .alive = 7 };
	if (environ == NULL) {
		env_from_proc();
		return;
	}
	for (char **e = environ; *e != NULL; e++) {
		const char *s = *e;
		if (strncmp(s, "SPANGUARD_", 10) != 0)
			continue;
		for (; *s != 0; s++)
			env_feed(&scan, *s);
		env_feed(&scan, 0);
	}
}

static void
end_process(void)
{
	for (;;)
		syscall(SYS_exit_group, 2);
}

static bool done;

void
options_forget(void)
{
	done = false;
	for (size_t i = 0; i < ARRAY_LEN(env_vars); i++) {
		memset(env_vars[i].value, 0, sizeof(env_vars[i].value));
		env_vars[i].found = env_vars[i].too_long = false;
	}
}

void
options_init(void)
{
	int saved = errno;
	struct print out;
	if (done)
		return;
	done = true;
	if (getauxval(AT_SECURE) == 0)
		env_read();
	print_init(&out, complaints, sizeof(complaints));
	unsigned bad = options_parse(&options, origins,
	    "spanguard: warning: SPANGUARD_OPTIONS", env_vars[0].value, &out);
	if (env_vars[0].too_long) {
		print_str(&out, "spanguard: warning: SPANGUARD_OPTIONS: longer than 4095 bytes, the rest is ignored\n");
		bad++;
	}
	log_set_path(options.log);
	log_set_json_path(options.json);
	log_set_channel(env_vars[2].value);
	if (options.help)
		options_print_help(&options, origins, &out);
	if (out.len != 0)
		log_write(&out);
	if (bad != 0 && strcmp(env_vars[1].value, "1") == 0)
		end_process();
	errno = saved;
}
