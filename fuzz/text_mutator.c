/* text_mutator.c - mutations of the text of options (H11): names, choices and bounds
 * from the table of options, numbers at powers of two with and without a unit, and
 * pieces of what is there. */
#include "mutator.h"

#include <stdio.h>
#include <string.h>

#include "harness.h"
#include "options.h"

enum { TOKEN_MAX = 160 };

static size_t
below(uint64_t *s, size_t n)
{
	return n > 1 ? (size_t)(sg_random(s) % n) : 0;
}

/* A power of two, or next to one, or few digits; and perhaps a unit. */
static size_t
number(char *out, uint64_t *s)
{
	uint64_t v = ((uint64_t)1 << below(s, 64)) + below(s, 3) - 1;
	const char *unit[] = { "", "", "k", "m", "g", "t" };

	if (below(s, 3) == 0)
		v = below(s, 200);
	return (size_t)snprintf(out, TOKEN_MAX, "%llu%s", (unsigned long long)v, unit[below(s, 6)]);
}

/* A choice or a bound of the row. */
static size_t
value(char *out, const struct option_row *row, uint64_t *s)
{
	char range[TOKEN_MAX];
	struct print p;
	size_t n = 0, from = 0, words = 1;

	print_init(&p, range, sizeof(range));
	options_print_range(row, &p);
	n = p.len < sizeof(range) ? p.len : sizeof(range) - 1;
	for (size_t i = 0; i < n; i++)
		words += range[i] == '|' || range[i] == '.';
	for (size_t skip = below(s, words); skip > 0 && from < n; from++)
		skip -= range[from] == '|' || range[from] == '.';
	size_t end = from + strcspn(range + from, "|.");
	memcpy(out, range + from, end < n ? end - from : n - from);
	return end < n ? end - from : n - from;
}

static size_t
token(char *out, uint64_t *s)
{
	const struct option_row *row = &options_table[below(s, OPTIONS_COUNT)];
	size_t n;

	switch (below(s, 4)) {
	case 0:
		return number(out, s);
	case 1:
		return value(out, row, s);
	default:
		n = (size_t)snprintf(out, TOKEN_MAX, ":%s=", row->name);
		return n + (below(s, 2) ? value(out + n, row, s) : number(out + n, s));
	}
}

static size_t
change(uint8_t *data, size_t n, size_t max, uint64_t *s)
{
	char text[TOKEN_MAX];
	size_t at = below(s, n + 1), len = below(s, 24);

	if (len > n - at)
		len = n - at;
	switch (below(s, 6)) {
	case 0:                         /* cut */
		memmove(data + at, data + at + len, n - at - len);
		return n - len;
	case 1:                         /* again, elsewhere */
		memcpy(text, data + at, len);
		return sg_insert(data, n, max, below(s, n + 1), text, len);
	case 2:
		if (at < n)
			data[at] = (uint8_t)(below(s, 2) ? sg_random(s) : 32 + below(s, 95));
		return n;
	case 3:                         /* in place of what is at the start */
		return sg_insert(data, n, max, 0, text, number(text, s));
	default:
		return sg_insert(data, n, max, at, text, token(text, s));
	}
}

size_t
sg_mutate_text(uint8_t *data, size_t bytes, size_t max, uint64_t *random)
{
	if (bytes > max)
		bytes = max;
	for (size_t k = (size_t)1 << below(random, 3); k > 0; k--)
		bytes = change(data, bytes, max, random);
	return bytes;
}
