/* h11_opts.c - H11: any text as SPANGUARD_OPTIONS. What was understood, printed and
 * read again must be the same options; no complaint about what we print ourselves;
 * every value within the range its row says; nothing is written behind a buffer. */
#include "fheap.h"

#include <stdlib.h>
#include <string.h>

enum { TEXT_MAX = 4096, COMPLAINTS_MAX = 1 << 16 };

static const struct sgf_language language = { .op = { "text" } };

static char complaints[COMPLAINTS_MAX];

static uint64_t
number_of(const struct options *o, const struct option_row *row)
{
	const char *at = (const char *)o + row->offset;
	uint32_t v32;
	uint64_t v64;

	memcpy(&v32, at, sizeof(v32));
	memcpy(&v64, at, sizeof(v64));
	return row->kind == OPTION_UINT ? v32 : v64;
}

static void
check_ranges(const struct options *o)
{
	for (unsigned i = 0; i < OPTIONS_COUNT; i++) {
		const struct option_row *row = &options_table[i];
		bool number = row->kind == OPTION_UINT || row->kind == OPTION_U64 ||
		    row->kind == OPTION_SIZE;
		uint64_t v = number ? number_of(o, row) : 0;
		SG_CHECK(PARSE, !number || (v >= row->min && v <= row->max), "%s is %llu",
		    row->name, (unsigned long long)v);
	}
}

/* Alone on the heap, so that ASan sees what is written beyond it. */
static struct options *
parse(const char *text, unsigned *bad)
{
	struct options *o = aligned_alloc(4096, sizeof(*o));
	uint8_t origin[OPTIONS_COUNT];
	struct print out;

	memset(o, 0xa5, sizeof(*o));
	print_init(&out, complaints, sizeof(complaints));
	*bad = options_parse(o, origin, "fuzz", text, &out);
	for (unsigned i = 0; i < OPTIONS_COUNT; i++)
		SG_CHECK(PARSE, origin[i] <= ORIGIN_USER, "origin %u", origin[i]);
	SG_CHECK(PARSE, (*bad == 0) == (out.len == 0), "%u complaints, %zu bytes of them",
	    *bad, (size_t)out.len);
	check_ranges(o);
	return o;
}

/* Digit by digit, and one letter for a power of 1024. False: it does not fit. */
static bool
naive_number(const char *s, uint64_t *out)
{
	unsigned __int128 v = 0;
	unsigned shift = 0;

	for (; *s >= '0' && *s <= '9'; s++)
		v = v * 10 + (unsigned)(*s - '0');
	if (*s != '\0')
		shift = 10 * (unsigned)(strchr("kmgt", *s) - "kmgt" + 1);
	*out = (uint64_t)(v << shift);
	return v << shift >> 64 == 0;
}

/* A byte as a digit: itself, if it is one. */
static char
digit(uint8_t c)
{
	return c >= '0' && c <= '9' ? (char)c : (char)('0' + c % 10);
}

static char
unit(uint8_t c)
{
	return c != 0 && strchr("kmgt0123456789", c) != NULL ? (char)c : "kmgt0123"[c & 7];
}

/* Bytes of a number with a unit that the input begins with, or 0. */
static size_t
leading_number(const uint8_t *data, size_t bytes)
{
	size_t n = 0;

	while (n < bytes && data[n] >= '0' && data[n] <= '9')
		n++;
	return n > 0 && n < bytes && data[n] != 0 && strchr("kmgt", data[n]) != NULL ? n + 1 : 0;
}

/* The input's bytes as digits and a unit: a size must be what they say or, where
 * that is outside of the range, the default. */
static void
check_number(const uint8_t *data, size_t bytes)
{
	char text[64] = "span_quarantine_bytes=";
	size_t at = strlen(text), n = bytes < 21 ? bytes : 21;
	const struct option_row *row = options_find(text, at - 1);
	struct options *o, *none;
	unsigned bad;
	uint64_t want;

	if (n == 0)
		return;
	if (leading_number(data, n) != 0)
		n = leading_number(data, n);
	text[at] = digit(data[0]);
	for (size_t i = 1; i < n; i++)
		text[at + i] = i + 1 == n ? unit(data[i]) : digit(data[i]);
	o = parse(text, &bad);
	none = parse("", &bad);
	if (!naive_number(text + at, &want) || want > row->max)
		want = number_of(none, row);
	SG_CHECK(PARSE, number_of(o, row) == want, "%s gives %llu, not %llu", text,
	    (unsigned long long)number_of(o, row), (unsigned long long)want);
	free(o);
	free(none);
}

static int
run(const uint8_t *data, size_t bytes)
{
	char text[TEXT_MAX + 1], printed[1 << 14];
	struct options *first, *second;
	struct print out;
	unsigned bad;

	if (bytes > TEXT_MAX)
		bytes = TEXT_MAX;
	memcpy(text, data, bytes);
	text[bytes] = '\0';
	check_number(data, bytes);
	first = parse(text, &bad);
	sg_note(bad);
	print_init(&out, printed, sizeof(printed));
	options_print(first, &out);
	printed[out.len < sizeof(printed) ? out.len : sizeof(printed) - 1] = '\0';
	second = parse(printed, &bad);
	SG_CHECK(PARSE, bad == 0, "we do not understand what we print: %s", complaints);
	SG_CHECK(PARSE, memcmp(first, second, sizeof(*first)) == 0 ||
	    bad != 0, "printed and read again, the options differ: %s", printed);
	for (size_t i = 0; i < out.len; i++)
		sg_note((uint8_t)printed[i]);
	free(first);
	free(second);
	return 0;
}

const struct sg_harness sg_h_opts = { "opts", &language, run };
