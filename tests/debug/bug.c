/* bug.c - bug.h with malloc and free. */
#include "bug.h"

/* C23; in spanguard, not in this libc. */
extern void free_sized(void *p, size_t n) __attribute__((weak));
extern void free_aligned_sized(void *p, size_t align, size_t n) __attribute__((weak));

static char *
get(size_t n)
{
	return malloc(n);
}

static void
put(char *p, size_t n)
{
	(void)n;
	free(p);
}

static KEEP void
release_sized(char *p, size_t n)
{
	free_sized(p, n);               /* SIZED */
	__asm__ volatile("");
}

static KEEP void
write_nothing(size_t n, int ok)
{
	char *p = make_object(0);
	if (!ok)
		touch(p, (long)(n % 16));
	release_object(p, 0);
}

static int
mistake_of_language(const char *what, size_t n, int ok)
{
	if (strcmp(what, "sized") == 0)
		release_sized(make_object(n), ok ? n : n + 1);
	else if (strcmp(what, "zero-size") == 0)
		write_nothing(n, ok);
	else
		return 0;
	return 1;
}
