/* bug.c - the bugs of bug.h in C: malloc and free, free_sized and
 * free_aligned_sized (by dlsym: libc of today need not have them). */
#define _GNU_SOURCE
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>

static const char *zero_api(void);
static void *get(size_t n);
static void put(void *p);
static void *get_zero(void);
static void put_sized(void *p, size_t size, size_t align);

static size_t
align_16(size_t n)
{
	return n & ~(size_t)15;
}

#include "bug.h"

static void *
get(size_t n)
{
	return malloc(n);
}

static void
put(void *p)
{
	free(p);
}

static const char *
zero_api(void)
{
	return variant;
}

static void *
get_zero(void)
{
	if (strncmp(zero_api(), "calloc", 6) == 0)
		return calloc(0, 8);
	if (strncmp(zero_api(), "aligned", 7) == 0)
		return aligned_alloc(64, 0);
	if (strncmp(zero_api(), "realloc", 7) == 0)
		return realloc(NULL, 0);
	return malloc(0);
}

static void
put_sized(void *p, size_t size, size_t align)
{
	typedef void (*sized_fn)(void *, size_t);
	typedef void (*aligned_fn)(void *, size_t, size_t);
	void *f = dlsym(RTLD_DEFAULT, align != 0 ? "free_aligned_sized" : "free_sized");
	if (f == NULL)
		free(p);
	else if (align != 0)
		((aligned_fn)f)(p, align, size);
	else
		((sized_fn)f)(p, size);
}
