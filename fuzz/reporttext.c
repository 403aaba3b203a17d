/* reporttext.c - see reporttext.h. */
#include "reporttext.h"

#include <string.h>

#include "facts.h"
#include "fake_die.h"
#include "report.h"
#include "report_json.h"
#include "report_text.h"

enum { TEXT_BYTES = 61440, DEEPEST = 16, JSON_MOST_BYTES = 1 << 20 };

static struct facts facts;
static char text[TEXT_BYTES], json[TEXT_BYTES];
static size_t json_objects;
static bool note_whole;

/* ---- JSON, by the grammar of RFC 8259 ---- */

struct reader {
	const char *s, *end;
	unsigned depth;
};

static bool value(struct reader *r);

static bool
take(struct reader *r, char c)
{
	if (r->s == r->end || *r->s != c)
		return false;
	r->s++;
	return true;
}

static bool
is_hex(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool
escape(struct reader *r)
{
	if (r->s == r->end)
		return false;
	char c = *r->s++;
	if (c != 'u')
		return strchr("\"\\/bfnrt", c) != NULL && c != 0;
	for (int i = 0; i < 4; i++)
		if (r->s == r->end || !is_hex(*r->s++))
			return false;
	return true;
}

/* A sequence of UTF-8 of more than one byte, whose first is c. */
static bool
multibyte(struct reader *r, unsigned char c)
{
	static const uint32_t least[] = { 0, 0x80, 0x800, 0x10000 };
	unsigned more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
	uint32_t v = c & (0x3fu >> more);

	if (c < 0xc0 || c >= 0xf8)
		return false;
	for (unsigned i = 0; i < more; i++) {
		if (r->s == r->end || ((unsigned char)*r->s & 0xc0) != 0x80)
			return false;
		v = v << 6 | ((unsigned char)*r->s++ & 0x3f);
	}
	return v >= least[more] && v <= 0x10ffff && (v < 0xd800 || v > 0xdfff);
}

static bool
string(struct reader *r)
{
	if (!take(r, '"'))
		return false;
	while (r->s < r->end && *r->s != '"') {
		unsigned char c = (unsigned char)*r->s++;
		if (c < 0x20 || (c == '\\' && !escape(r)) || (c >= 0x80 && !multibyte(r, c)))
			return false;
	}
	return take(r, '"');
}

/* Integers are all there is. */
static bool
number(struct reader *r)
{
	const char *from;

	take(r, '-');
	from = r->s;
	while (r->s < r->end && *r->s >= '0' && *r->s <= '9')
		r->s++;
	return r->s != from && (*from != '0' || r->s == from + 1);
}

static bool
word(struct reader *r, const char *w)
{
	size_t n = strlen(w);

	if ((size_t)(r->end - r->s) < n || memcmp(r->s, w, n) != 0)
		return false;
	r->s += n;
	return true;
}

static bool
list(struct reader *r, char close, bool keys)
{
	if (take(r, close))
		return true;
	do {
		if (keys && (!string(r) || !take(r, ':')))
			return false;
		if (!value(r))
			return false;
	} while (take(r, ','));
	return take(r, close);
}

static bool
value(struct reader *r)
{
	bool ok;

	if (r->s == r->end || ++r->depth > DEEPEST)
		return false;
	switch (*r->s) {
	case '{':
	case '[':
		ok = *r->s++ == '{' ? list(r, '}', true) : list(r, ']', false);
		break;
	case '"': ok = string(r); break;
	case 't': ok = word(r, "true"); break;
	case 'f': ok = word(r, "false"); break;
	default: ok = number(r); break;
	}
	r->depth--;
	return ok;
}

bool
reporttext_is_json(const char *s, size_t n)
{
	struct reader r = { s, s + n, 0 };

	return n < JSON_MOST_BYTES && n != 0 && *s == '{' && value(&r) && take(&r, '\n') &&
	    r.s == r.end;
}

/* ---- a report ---- */

static void
must_say(const char *where, const char *what)
{
	SG_CHECK(WORDS, strstr(where, what) != NULL, "no '%s' in: %s", what, where);
}

static void
check_text(const struct die_info *info)
{
	char want[64];

	must_say(text, facts.title);
	must_say(text, "ERROR: spanguard: ");
	must_say(text, "SUMMARY: spanguard: ");
	snprintf(want, sizeof(want), "CODE: %s ", die_id(facts.info.code));
	must_say(text, want);
	if (info->addr != 0 && info->code != DIE_OUT_OF_MEMORY && info->code != DIE_BAD_REQUEST) {
		snprintf(want, sizeof(want), "0x%lx", (unsigned long)info->addr);
		must_say(text, want);
	}
}

static void
check_json(const struct die_info *info, size_t n)
{
	char want[96];

	SG_CHECK(WORDS, reporttext_is_json(json, n), "no JSON: %s", json);
	snprintf(want, sizeof(want), "\"class\":\"%s\"", die_word(facts.info.code, facts.info.api));
	must_say(json, want);
	snprintf(want, sizeof(want), "\"id\":\"%s\"", die_id(facts.info.code));
	must_say(json, want);
	snprintf(want, sizeof(want), "\"addr\":\"0x%lx\"", (unsigned long)info->addr);
	if (info->addr != 0)
		must_say(json, want);
}

const char *
reporttext_compose(const struct die_info *info, bool goes_on)
{
	struct die_info whole = *info;
	struct print p, j;

	if (whole.api == NULL)
		whole.api = "";
	print_init(&p, text, sizeof(text));
	facts_begin();
	facts_take(&facts, &whole, (uintptr_t)__builtin_return_address(0), goes_on);
	facts_take_heap(&facts);
	report_text(&p, &facts);
	text[p.len < sizeof(text) ? p.len : sizeof(text) - 1] = 0;
	print_init(&j, json, sizeof(json));
	report_json(&j, &facts);
	SG_CHECK(WORDS, !j.truncated && j.len < sizeof(json), "JSON of more than %zu bytes", sizeof(json));
	json[j.len] = 0;
	check_text(&whole);
	check_json(&whole, j.len);
	facts_forget(&facts);
	return json;
}

/* ---- in place of tests/fake_die.c's ---- */

void
report_note(void (*compose)(struct print *p, void *arg), void *arg)
{
	struct print p;

	facts_begin();
	print_init(&p, fake_note, sizeof(fake_note));
	compose(&p, arg);
	fake_note[p.len < sizeof(fake_note) ? p.len : sizeof(fake_note) - 1] = 0;
	note_whole = p.len != 0 && (fake_note[0] == '=');
	fake_notes++;
}

void
report_put_warning(struct print *p)
{
	print_str(p, "==1==WARNING: spanguard: ");
}

void
report_put_error(struct print *p)
{
	print_str(p, "==1==ERROR: spanguard: ");
}

void
report_put_address(struct print *p, uintptr_t addr)
{
	facts_take_address(&facts, addr);
	report_text_address(p, &facts);
	facts_forget(&facts);
}

void
report_put_frames(struct print *p, const uintptr_t *pcs, size_t n)
{
	report_text_frames(p, pcs, n);
}

void
report_leak_json(const struct leak_facts *l)
{
	struct print j;
	char want[96];

	facts_take_leak(&facts, l);
	print_init(&j, json, sizeof(json) - 1);
	report_json(&j, &facts);
	json[j.len] = 0;
	SG_CHECK(WORDS, reporttext_is_json(json, j.len), "no JSON: %s", json);
	snprintf(want, sizeof(want), "\"leak\":{\"kind\":\"%s\",\"bytes\":%zu,\"objects\":%zu}",
	    l->indirect ? "indirect" : "direct", l->bytes, l->objects);
	must_say(json, want);
	json_objects += l->objects;
	facts_forget(&facts);
}

void
reporttext_forget(void)
{
	json_objects = 0;
}

size_t
reporttext_json_objects(void)
{
	return json_objects;
}

bool
reporttext_whole(void)
{
	return note_whole;
}

__attribute__((visibility("default"))) NOINLINE void *
reporttext_hushed(void *(*fn)(size_t bytes), size_t bytes)
{
	void *p = fn(bytes);

	NO_TAIL_CALL();
	return p;
}
