/* check.h - what the programs of this directory share: a check that cannot be
 * compiled out, memory with a key in it, and two figures of the process.
 *
 * Nothing here allocates with malloc or uses stdio buffers: the programs run in
 * states where that would hide what they test. */
#ifndef LIFE_CHECK_H
#define LIFE_CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define check(cond) check_at(cond, #cond, __FILE__, __LINE__)

static inline void
check_at(bool good, const char *cond, const char *file, int line)
{
	if (good)
		return;
	char text[512];
	int n = snprintf(text, sizeof text, "%s:%d: not so: %s (errno %d)\n", file, line, cond, errno);
	if (write(2, text, (size_t)n) != n)
		_exit(98);
	_exit(99);
}

/* Of the monotonic clock. */
static inline double
seconds_now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Keeps the compiler from seeing that a malloc and its free cancel out. */
static inline void *
opaque(void *p)
{
	void *q;
	__asm__ volatile("" : "=r"(q) : "0"(p) : "memory");
	return q;
}

/* Fills every byte of p with something that depends on p, n and key. */
static inline void
key_fill(void *p, size_t n, unsigned key)
{
	unsigned char *b = (unsigned char *)p;
	for (size_t i = 0; i < n; i++)
		b[i] = (unsigned char)(key * 31u + i * 7u + n);
}

static inline bool
key_holds(const void *p, size_t n, unsigned key)
{
	const unsigned char *b = (const unsigned char *)p;
	for (size_t i = 0; i < n; i++)
		if (b[i] != (unsigned char)(key * 31u + i * 7u + n))
			return false;
	return true;
}

/* Sizes 1 B .. 64 KiB, mostly small, from a generator the caller owns. */
static inline unsigned
next_random(unsigned *state)
{
	*state = *state * 1664525u + 1013904223u;
	return *state >> 8;
}

static inline size_t
next_size(unsigned *state)
{
	return 1 + (next_random(state) & ((1u << (next_random(state) % 17)) - 1));
}

/* n rounds of allocating, keying, checking and freeing: the heap is usable. */
static inline void
churn(unsigned seed, int rounds)
{
	enum { SLOTS = 64 };
	struct { unsigned char *p; size_t n; } slot[SLOTS];
	memset(slot, 0, sizeof slot);
	for (int i = 0; i < rounds; i++) {
		unsigned k = next_random(&seed) % SLOTS;
		check(slot[k].p == NULL || key_holds(slot[k].p, slot[k].n, k));
		free(slot[k].p);
		slot[k].n = next_size(&seed);
		slot[k].p = (unsigned char *)malloc(slot[k].n);
		check(slot[k].p != NULL);
		key_fill(slot[k].p, slot[k].n, k);
	}
	for (unsigned k = 0; k < SLOTS; k++) {
		check(slot[k].p == NULL || key_holds(slot[k].p, slot[k].n, k));
		free(slot[k].p);
	}
}

/* Resident set, from a file read without stdio. */
static inline size_t
rss_bytes(void)
{
	char text[128] = { 0 };
	int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	check(fd >= 0);
	check(read(fd, text, sizeof text - 1) > 0);
	close(fd);
	unsigned long total, resident;
	check(sscanf(text, "%lu %lu", &total, &resident) == 2);
	return resident * (size_t)sysconf(_SC_PAGESIZE);
}

/* Lines of /proc/self/maps. */
static inline unsigned
mapping_count(void)
{
	static char text[1 << 16];
	unsigned lines = 0;
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	check(fd >= 0);
	ssize_t n;
	while ((n = read(fd, text, sizeof text)) > 0)
		for (ssize_t i = 0; i < n; i++)
			lines += text[i] == '\n';
	close(fd);
	return lines;
}

static inline void
say(const char *text)
{
	size_t n = strlen(text);
	check(write(1, text, n) == (ssize_t)n);
}

#endif
