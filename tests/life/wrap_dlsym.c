/* wrap_dlsym.c - a preloaded library that wraps the malloc family by dlsym.
 *
 * The old trap: dlsym itself calls calloc, which is the wrapper, which calls
 * dlsym ... The wrapper hands out static memory while it is looking up; an
 * allocator behind it must not need dlsym, or anything else of the wrapper. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *(*next_calloc)(size_t, size_t);
static void *(*next_malloc)(size_t);
static void *(*next_realloc)(void *, size_t);
static void (*next_free)(void *);
static _Thread_local int looking_up;
static unsigned long calls;
static char early[1 << 16] __attribute__((aligned(16)));
static size_t early_used;

static void *
early_alloc(size_t n)
{
	size_t need = (n + 15) & ~(size_t)15;
	if (need > sizeof early - early_used)
		abort();
	void *p = early + early_used;
	early_used += need;
	return p;
}

static void
look_up(void)
{
	looking_up = 1;
	next_calloc = (void *(*)(size_t, size_t))dlsym(RTLD_NEXT, "calloc");
	next_malloc = (void *(*)(size_t))dlsym(RTLD_NEXT, "malloc");
	next_realloc = (void *(*)(void *, size_t))dlsym(RTLD_NEXT, "realloc");
	next_free = (void (*)(void *))dlsym(RTLD_NEXT, "free");
	/* An unknown name makes dlsym format an error, which allocates. */
	if (dlsym(RTLD_NEXT, "no_such_function_anywhere") != NULL)
		abort();
	looking_up = 0;
}

void *
calloc(size_t n, size_t size)
{
	__atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED);
	if (looking_up)
		return early_alloc(n * size);
	if (next_calloc == NULL)
		look_up();
	return next_calloc(n, size);
}

void *
malloc(size_t n)
{
	__atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED);
	if (looking_up)
		return early_alloc(n);
	if (next_malloc == NULL)
		look_up();
	return next_malloc(n);
}

void *
realloc(void *p, size_t n)
{
	if (next_realloc == NULL)
		look_up();
	return next_realloc(p, n);
}

void
free(void *p)
{
	if ((uintptr_t)p - (uintptr_t)early < sizeof early)
		return;
	if (next_free == NULL)
		look_up();
	next_free(p);
}

__attribute__((destructor)) static void
said(void)
{
	const char *text = calls > 1000 ? "wrapped\n" : "not wrapped\n";
	if (write(1, text, strlen(text)) < 0)
		_exit(97);
}
