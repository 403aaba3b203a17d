/* print.c - see print.h.
 *
 * write(2) is called through syscall(2): libc's write is a cancellation point
 * and may be somebody's wrapper, and a report must not end half way. */
#include "print.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char truncated_mark[] = "\n...[truncated]\n";

enum { MARK_BYTES = sizeof(truncated_mark) - 1 };

_Static_assert(PRINT_MIN_BYTES > MARK_BYTES + 1, "the mark has to fit");

void
print_init(struct print *p, char *buf, size_t cap)
{
	p->buf = buf;
	p->cap = cap;
	p->len = 0;
	p->truncated = false;
	buf[0] = 0;
}

void
print_mem(struct print *p, const char *s, size_t bytes)
{
	if (p->truncated)
		return;
	size_t room = p->cap - 1 - MARK_BYTES - p->len;
	size_t n = bytes < room ? bytes : room;
	memcpy(p->buf + p->len, s, n);
	p->len += n;
	if (n < bytes) {
		memcpy(p->buf + p->len, truncated_mark, MARK_BYTES);
		p->len += MARK_BYTES;
		p->truncated = true;
	}
	p->buf[p->len] = 0;
}

void
print_str(struct print *p, const char *s)
{
	print_mem(p, s, strlen(s));
}

void
print_char(struct print *p, char c)
{
	print_mem(p, &c, 1);
}

/* Digits of v from the end of buf backwards; returns the first one. */
static char *
digits(char *end, uint64_t v, unsigned base)
{
	do {
		*--end = "0123456789abcdef"[v % base];
		v /= base;
	} while (v != 0);
	return end;
}

void
print_dec(struct print *p, uint64_t v)
{
	char buf[20];
	char *end = buf + sizeof(buf);
	char *s = digits(end, v, 10);
	print_mem(p, s, (size_t)(end - s));
}

void
print_sdec(struct print *p, int64_t v)
{
	uint64_t u = (uint64_t)v;
	if (v < 0) {
		print_char(p, '-');
		u = 0 - u;
	}
	print_dec(p, u);
}

void
print_grouped(struct print *p, uint64_t v)
{
	char buf[20];
	char *end = buf + sizeof(buf);
	char *s = digits(end, v, 10);
	for (; s < end; s++) {
		print_char(p, *s);
		size_t left = (size_t)(end - s) - 1;
		if (left != 0 && left % 3 == 0)
			print_char(p, ',');
	}
}

void
print_bytes(struct print *p, uint64_t bytes)
{
	print_grouped(p, bytes);
	print_str(p, bytes == 1 ? " byte" : " bytes");
}

void
print_hex(struct print *p, uint64_t v)
{
	char buf[16];
	char *end = buf + sizeof(buf);
	char *s = digits(end, v, 16);
	print_str(p, "0x");
	print_mem(p, s, (size_t)(end - s));
}

void
print_hex_bytes(struct print *p, const uint8_t *b, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		print_char(p, "0123456789abcdef"[b[i] >> 4]);
		print_char(p, "0123456789abcdef"[b[i] & 15]);
	}
}

void
print_size(struct print *p, uint64_t bytes)
{
	static const char units[] = "kmgt";
	unsigned unit = 0;
	while (bytes != 0 && bytes % 1024 == 0 && unit < 4) {
		bytes /= 1024;
		unit++;
	}
	print_dec(p, bytes);
	if (unit != 0)
		print_char(p, units[unit - 1]);
}

void
print_pad(struct print *p, size_t column)
{
	size_t bol = p->len;
	while (bol > 0 && p->buf[bol - 1] != '\n')
		bol--;
	while (p->len - bol < column && !p->truncated)
		print_char(p, ' ');
}

void
print_quoted(struct print *p, const char *s, size_t max_bytes)
{
	size_t i = 0;
	for (; s[i] != 0 && i < max_bytes; i++) {
		uint8_t c = (uint8_t)s[i];
		if (c >= ' ' && c != 0x7f) {
			print_char(p, s[i]);
			continue;
		}
		print_str(p, "\\x");
		print_hex_bytes(p, &c, 1);
	}
	if (s[i] != 0)
		print_str(p, "...");
}

bool
print_write(int fd, const char *s, size_t bytes)
{
	int saved = errno;
	bool ok = true;
	while (bytes != 0 && ok) {
		long n = syscall(SYS_write, fd, s, bytes);
		if (n > 0) {
			s += n;
			bytes -= (size_t)n;
		} else {
			ok = n < 0 && errno == EINTR;
		}
	}
	errno = saved;
	return ok;
}

bool
print_flush(struct print *p, int fd)
{
	bool ok = print_write(fd, p->buf, p->len);
	p->len = 0;
	p->truncated = false;
	p->buf[0] = 0;
	return ok;
}
