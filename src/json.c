/* json.c - see json.h. */
#include "json.h"

#include <string.h>

static void
separate(struct print *p)
{
	char last = p->len != 0 ? p->buf[p->len - 1] : '{';
	if (last != '{' && last != '[' && last != ':' && last != '\n')
		print_char(p, ',');
}

static void
put_key(struct print *p, const char *key)
{
	separate(p);
	if (key == NULL)
		return;
	print_char(p, '"');
	print_str(p, key);
	print_str(p, "\":");
}

/* Bytes of the UTF-8 sequence at s (n bytes left), 0 if there is none: RFC 3629,
 * so nothing overlong, no surrogates, nothing above U+10FFFF. */
static size_t
sequence(const unsigned char *s, size_t n)
{
	unsigned char c = s[0];
	size_t len = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 :
	    c >= 0xf0 && c < 0xf5 ? 4 : 0;
	if (len == 0 || len > n)
		return 0;
	for (size_t i = 1; i < len; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	if ((c == 0xe0 && s[1] < 0xa0) || (c == 0xed && s[1] >= 0xa0) ||
	    (c == 0xf0 && s[1] < 0x90) || (c == 0xf4 && s[1] >= 0x90))
		return 0;
	return len;
}

static void
put_control(struct print *p, unsigned char c)
{
	static const char digit[] = "0123456789abcdef";
	char text[] = "\\u00..";
	text[4] = digit[c >> 4];
	text[5] = digit[c & 15];
	print_str(p, text);
}

void
json_str(struct print *p, const char *key, const char *value, size_t max_bytes)
{
	size_t n = strnlen(value, max_bytes);
	put_key(p, key);
	print_char(p, '"');
	for (size_t i = 0; i < n;) {
		const unsigned char *s = (const unsigned char *)value + i;
		size_t len = sequence(s, n - i);
		if (len == 0) {
			print_str(p, "\\ufffd");
		} else if (len == 1 && (*s < 0x20 || *s == 0x7f)) {
			put_control(p, *s);
		} else {
			if (*s == '"' || *s == '\\')
				print_char(p, '\\');
			print_mem(p, (const char *)s, len);
		}
		i += len != 0 ? len : 1;
	}
	print_char(p, '"');
}

void
json_open(struct print *p, const char *key, char bracket)
{
	put_key(p, key);
	print_char(p, bracket);
}

void
json_close(struct print *p, char bracket)
{
	print_char(p, bracket);
}

void
json_uint(struct print *p, const char *key, uint64_t value)
{
	if (value > INT64_MAX) {
		json_addr(p, key, value);
		return;
	}
	put_key(p, key);
	print_dec(p, value);
}

void
json_int(struct print *p, const char *key, int64_t value)
{
	put_key(p, key);
	print_sdec(p, value);
}

void
json_bool(struct print *p, const char *key, bool value)
{
	put_key(p, key);
	print_str(p, value ? "true" : "false");
}

void
json_addr(struct print *p, const char *key, uint64_t value)
{
	put_key(p, key);
	print_char(p, '"');
	print_hex(p, value);
	print_char(p, '"');
}
