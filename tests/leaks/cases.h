/* cases.h - leak programs in one: each case allocates, loses some of it, and says
 * how many objects are lost directly and indirectly by LeakSanitizer's rules.
 *
 * A case may leave copies of a lost pointer on the stack or in registers; so it runs
 * in a function of its own, and what its frames held is overwritten before the end.
 * Its pointers are kept where it says and nowhere else. */
#ifndef LEAK_CASES_H
#define LEAK_CASES_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct leak_case {
	const char *name;
	void (*run)(void);
	int direct, indirect;
};

#if defined(__clang__)
#define APART __attribute__((noinline, optnone))
#else
#define APART __attribute__((noinline, noclone))
#endif

static void *volatile global[16];

/* What the compiler may not see through, nor leave out. */
static APART void *
keep(void *p)
{
	__asm__ volatile("" : "+r"(p) : : "memory");
	return p;
}

/* Zeroed memory, so that no old pointer lies in it. */
static APART void *
get(size_t bytes)
{
	return keep(memset(malloc(bytes), 0, bytes));
}

static APART void
put(void *where, size_t i, void *p)
{
	((void *volatile *)where)[i] = p;
}

/* An object of `bytes` whose first word points to `to`. */
static APART void *
node(size_t bytes, void *to)
{
	void *p = get(bytes);
	put(p, 0, to);
	return p;
}

static APART void
scrub(void)
{
	volatile uintptr_t frame[4096];
	for (size_t i = 0; i < sizeof(frame) / sizeof(frame[0]); i++)
		frame[i] = 0;
}

static int
run_case(const struct leak_case *c, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++) {
		if (strcmp(c[i].name, name) != 0)
			continue;
		c[i].run();
		scrub();
		return 0;
	}
	return 2;
}

/* Without an argument: every case, and what it loses. */
static int
leak_main(const struct leak_case *c, size_t n, int argc, char **argv)
{
	if (argc > 1)
		return run_case(c, n, argv[1]);
	for (size_t i = 0; i < n; i++)
		printf("%s %d %d\n", c[i].name, c[i].direct, c[i].indirect);
	return 0;
}

#endif
