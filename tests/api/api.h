/* api.h - what every conformance program shares.
 *
 * A program checks one row of the malloc interface, prints nothing and exits 0;
 * the first check that fails is printed with its place, and ends it. Nothing
 * here allocates. Compiled without optimisation, so that no pair of malloc and
 * free is optimised away. */
#ifndef API_H
#define API_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What malloc promises for every request. */
#define MALLOC_ALIGNMENT ((size_t)16)

#define CHECK(cond) api_check(!!(cond), __FILE__, __LINE__, #cond)
#define COUNT_OF(a) (sizeof(a) / sizeof((a)[0]))

static inline void
api_check(int holds, const char *file, int line, const char *what)
{
	if (holds)
		return;
	dprintf(2, "%s:%d: does not hold: %s (errno %d)\n", file, line, what, errno);
	_exit(1);
}

static inline int
is_aligned(const void *p, size_t align)
{
	return (uintptr_t)p % align == 0;
}

/* Byte `i` of the pattern of `seed`. */
static inline unsigned char
pattern(size_t i, unsigned seed)
{
	return (unsigned char)(i * 31 + (i >> 8) * 17 + seed * 101 + 1);
}

static inline void
fill(void *p, size_t bytes, unsigned seed)
{
	for (size_t i = 0; i < bytes; i++)
		((unsigned char *)p)[i] = pattern(i, seed);
}

static inline int
is_filled(const void *p, size_t bytes, unsigned seed)
{
	for (size_t i = 0; i < bytes; i++)
		if (((const unsigned char *)p)[i] != pattern(i, seed))
			return 0;
	return 1;
}

static inline int
is_zero(const void *p, size_t bytes)
{
	const unsigned char *b = (const unsigned char *)p;

	return bytes == 0 || (b[0] == 0 && memcmp(b, b + 1, bytes - 1) == 0);
}

static inline unsigned
next_random(unsigned *state)
{
	*state = *state * 1664525u + 1013904223u;
	return *state >> 8;
}

/* A size the compiler cannot see through. */
static inline size_t
opaque(size_t n)
{
	volatile size_t v = n;

	return v;
}

/* Sizes no malloc can serve. */
static inline size_t
impossible(unsigned i)
{
	static const size_t sizes[] = {
		(size_t)PTRDIFF_MAX - 4096, (size_t)PTRDIFF_MAX - 15, (size_t)PTRDIFF_MAX,
		(size_t)PTRDIFF_MAX + 1, (size_t)PTRDIFF_MAX + 4096, SIZE_MAX / 2 + 8192,
		SIZE_MAX - 65536, SIZE_MAX - 8192, SIZE_MAX - 4096, SIZE_MAX - 4095,
		SIZE_MAX - 64, SIZE_MAX - 32, SIZE_MAX - 16, SIZE_MAX - 15, SIZE_MAX - 8,
		SIZE_MAX - 1, SIZE_MAX,
	};

	return i < COUNT_OF(sizes) ? sizes[i] : 0;
}

/* Is the program asked to run on another malloc than libc's? */
static inline int
is_preloaded(void)
{
	return getenv("API_LIBRARY") != NULL;
}

/* Where $API_LIBRARY is set, malloc has to come from that file: a preload that
 * did not bind must not pass for a success. */
__attribute__((constructor)) static void
api_check_bound(void)
{
	const char *want = getenv("API_LIBRARY");
	struct stat want_stat, is_stat;
	Dl_info info;

	if (want == NULL)
		return;
	CHECK(dladdr(dlsym(RTLD_DEFAULT, "malloc"), &info) != 0);
	CHECK(stat(want, &want_stat) == 0);
	CHECK(stat(info.dli_fname, &is_stat) == 0);
	CHECK(want_stat.st_dev == is_stat.st_dev && want_stat.st_ino == is_stat.st_ino);
}

#endif
