/* peek.c - see peek.h. */
#include "peek.h"

#include <errno.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* The smallest page size there is: a finer grain than needed costs a few more
 * calls, a coarser one would be wrong. */
enum { PEEK_PAGE = 4096 };

enum {
	WAIT_PRIVATE = 128,             /* FUTEX_WAIT | FUTEX_PRIVATE_FLAG */
	UNLIKELY_WORD = 0x3bad7e57,     /* with any other one there, it returns at once */
};

static bool
page_readable(uintptr_t page)
{
	static const struct timespec at_once;
	int saved = errno;
	long r = syscall(SYS_futex, page, WAIT_PRIVATE, UNLIKELY_WORD, &at_once, NULL, 0);
	bool ok = r == 0 || errno == EAGAIN || errno == ETIMEDOUT || errno == EINTR;
	errno = saved;
	return ok;
}

static bool
page_known(struct peek *k, uintptr_t page)
{
	uintptr_t *slot = &k->good[page / PEEK_PAGE % PEEK_CACHE];
	if (*slot == page + 1)
		return true;
	if (!page_readable(page))
		return false;
	*slot = page + 1;
	return true;
}

bool
peek_ok(struct peek *k, uintptr_t addr, size_t bytes)
{
	uintptr_t last;
	if (bytes == 0)
		return true;
	if (__builtin_add_overflow(addr, bytes - 1, &last))
		return false;
	for (uintptr_t p = align_down(addr, PEEK_PAGE);; p += PEEK_PAGE) {
		if (!page_known(k, p))
			return false;
		if (p == align_down(last, PEEK_PAGE))
			return true;
	}
}

/* Byte by byte and unchecked by AddressSanitizer: a foreign stack frame has
 * redzones in it that may be read here. */
__attribute__((no_sanitize("address", "thread")))
static void
copy(char *dst, const volatile char *src, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		dst[i] = src[i];
}

bool
peek_read(struct peek *k, void *dst, uintptr_t addr, size_t bytes)
{
	if (!peek_ok(k, addr, bytes))
		return false;
	copy(dst, (const volatile char *)addr, bytes);
	return true;
}

bool
peek_str(struct peek *k, char *dst, size_t cap, uintptr_t addr)
{
	for (size_t i = 0; i < cap; i++) {
		if (!peek_read(k, dst + i, addr + i, 1))
			return false;
		if (dst[i] == 0)
			return true;
	}
	return false;
}
