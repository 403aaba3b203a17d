/* leaksuppress.c - see leaksuppress.h. */
#include "leaksuppress.h"

#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "stoptheworld.h"
#include "../src/print.h"
#include "../src/report.h"

enum { FILE_MOST_BYTES = 1 << 20, KIND_BYTES = 5, COLUMN_COUNT = 7, COLUMN_BYTES = 11 };

extern const char *__lsan_default_suppressions(void) __attribute__((weak));

/* ---- patterns ---- */

/* Whether text begins with the piece of a pattern. */
static bool
begins(const char *text, const char *piece, size_t bytes)
{
	return strncmp(text, piece, bytes) == 0;
}

/* The place in text behind the first occurrence of the piece; NULL: it has none. */
static const char *
behind(const char *text, const char *piece, size_t bytes)
{
	for (;; text++) {
		if (begins(text, piece, bytes))
			return text + bytes;
		if (*text == 0)
			return NULL;
	}
}

static bool
ends(const char *from, const char *piece, size_t bytes)
{
	size_t len = strlen(from);
	return len >= bytes && begins(from + len - bytes, piece, bytes);
}

bool
suppress_matches(const char *pattern, size_t bytes, const char *text)
{
	bool tied = bytes != 0 && pattern[0] == '^';
	bool tied_at_end = bytes != 0 && pattern[bytes - 1] == '$';
	const char *p = pattern + tied, *end = pattern + bytes - tied_at_end;
	if (end < p)
		return false;
	for (;;) {
		const char *star = memchr(p, '*', (size_t)(end - p));
		size_t n = (size_t)((star != NULL ? star : end) - p);
		if (star == NULL && tied_at_end)
			return tied ? strlen(text) == n && begins(text, p, n) : ends(text, p, n);
		if (tied && !begins(text, p, n))
			return false;
		text = tied ? text + n : behind(text, p, n);
		if (text == NULL || star == NULL)
			return text != NULL;
		p = star + 1;
		tied = false;
	}
}

/* ---- the list ---- */

static void
add_line(struct suppressions *l, const char *line, size_t bytes)
{
	while (bytes != 0 && (*line == ' ' || *line == '\t'))
		line++, bytes--;
	while (bytes != 0 && (line[bytes - 1] == ' ' || line[bytes - 1] == '\t' ||
	    line[bytes - 1] == '\r'))
		bytes--;
	/* other tools' kinds may stand in the same file */
	if (bytes > KIND_BYTES && begins(line, "leak:", KIND_BYTES) && l->n < SUPPRESS_MAX)
		l->s[l->n++] = (struct suppression){ .text = line + KIND_BYTES,
			.bytes = bytes - KIND_BYTES };
}

static void
add_text(struct suppressions *l, const char *text)
{
	while (*text != 0) {
		size_t n = strcspn(text, "\n");
		add_line(l, text, n);
		text += n + (text[n] != 0);
	}
}

static bool
read_file(struct suppressions *l, const char *path)
{
	long fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	l->file_bytes = FILE_MOST_BYTES;
	l->file = stw_scratch_alloc(l->file_bytes);
	size_t len = 0;
	long got = -1;
	while (l->file != NULL && len < l->file_bytes - 1 &&
	    (got = syscall(SYS_read, fd, l->file + len, l->file_bytes - 1 - len)) > 0)
		len += (size_t)got;
	syscall(SYS_close, fd);
	return got == 0;
}

bool
suppress_load(struct suppressions *l, const char *path)
{
	memset(l, 0, sizeof(*l));
	bool ok = path[0] == 0 || read_file(l, path);
	if (l->file != NULL)
		add_text(l, l->file);
	const char *own = __lsan_default_suppressions != NULL ? __lsan_default_suppressions() : NULL;
	if (own != NULL)
		add_text(l, own);
	return ok;
}

void
suppress_drop(struct suppressions *l)
{
	stw_scratch_free(l->file, l->file_bytes);
	l->file = NULL;
	l->n = 0;
}

struct suppression *
suppress_find(struct suppressions *l, const char *function, const char *module)
{
	for (size_t i = 0; i < l->n; i++) {
		struct suppression *s = &l->s[i];
		if ((function != NULL && suppress_matches(s->text, s->bytes, function)) ||
		    (module != NULL && suppress_matches(s->text, s->bytes, module)))
			return s;
	}
	return NULL;
}

static size_t
digits(size_t v)
{
	size_t n = 1;
	for (; v >= 10; v /= 10)
		n++;
	return n;
}

static void
put_column(struct print *p, size_t v, size_t width)
{
	for (size_t n = digits(v); n < width; n++)
		print_char(p, ' ');
	print_dec(p, v);
}

void
suppress_put_used(struct print *p, const struct suppressions *l)
{
	static const char rule[] = "-----------------------------------------------------\n";
	bool any = false;
	for (size_t i = 0; i < l->n; i++)
		any |= l->s[i].objects != 0;
	if (!any)
		return;
	print_str(p, rule);
	print_str(p, "Suppressions used:\n  count      bytes template\n");
	for (size_t i = 0; i < l->n; i++) {
		if (l->s[i].objects == 0)
			continue;
		put_column(p, l->s[i].objects, COLUMN_COUNT);
		put_column(p, l->s[i].lost_bytes, COLUMN_BYTES);
		print_char(p, ' ');
		print_mem(p, l->s[i].text, l->s[i].bytes);
		print_char(p, '\n');
	}
	print_str(p, rule);
	print_char(p, '\n');
}
