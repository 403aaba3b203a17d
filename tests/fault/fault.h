/* fault.h - what the programs of this directory share: a check that cannot be
 * compiled out, output without stdio buffers, and accesses that stay. */
#ifndef TESTS_FAULT_H
#define TESTS_FAULT_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define check(cond) ((cond) ? (void)0 : fail(#cond))
#define barrier() __asm__ volatile("" ::: "memory")

__attribute__((format(printf, 1, 2), unused)) static void
say(const char *format, ...)
{
	char text[512];
	va_list ap;
	va_start(ap, format);
	int n = vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	if (write(1, text, (size_t)n) != n)
		_exit(98);
}

__attribute__((noreturn, unused)) static void
fail(const char *why)
{
	say("not so: %s (errno %d)\n", why, errno);
	_exit(99);
}

/* Keeps the compiler from seeing that a malloc and its free cancel out. */
static inline void *
opaque(void *p)
{
	__asm__ volatile("" : "+r"(p) : : "memory");
	return p;
}

static inline void
keep_char(char c)
{
	__asm__ volatile("" : : "r"(c) : "memory");
}

#endif
