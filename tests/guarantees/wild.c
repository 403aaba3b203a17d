/* wild.c - a wild write into the allocator's own metadata, planted from outside.
 *
 *   wild live-bit|count|geometry WHEN     change one field of a struct mspan;
 *                                         WHEN: verify, patrol, or none (ok)
 *   wild above|below                      run from there until something stops it
 *
 * The struct of a span is found the way an attacker with a read primitive would:
 * by looking through all anonymous memory for the span's address and slot size.
 * Its layout is the only thing taken from the sources. Reads go through the
 * kernel, which answers EFAULT where a guard is instead of a signal. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include <dlfcn.h>
#include <malloc.h>

#include "../../src/mspan.h"

enum { OBJECTS = 100, REFILLS = 400000, RUN_MAX = 256 << 20 };

static char maps[1 << 20];
static void *objects[OBJECTS];

static void
fail(const char *why)
{
	fprintf(stderr, "wild: %s\n", why);
	_exit(99);
}

static int
heap_verify(void)
{
	int (*f)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, "spanguard_verify");
	return f == NULL ? 0 : f();
}

static size_t
peek(uintptr_t addr, void *to, size_t n)
{
	struct iovec local = { to, n }, remote = { (void *)addr, n };
	ssize_t got = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
	return got < 0 ? 0 : (size_t)got;
}

static void
read_maps(void)
{
	int fd = open("/proc/self/maps", O_RDONLY);
	size_t n = 0;
	ssize_t got;
	while (fd >= 0 && (got = read(fd, maps + n, sizeof(maps) - 1 - n)) > 0)
		n += (size_t)got;
	close(fd);
}

/* Whether words look like the head of the span that holds p: it begins with the
 * span's address, and the slot size fits what malloc_usable_size says. */
static int
is_span_of(const struct mspan *s, uintptr_t p, size_t usable)
{
	return s->base <= p && p - s->base < s->npages << PAGE_SHIFT && s->npages <= 64 &&
	    s->elem_bytes >= usable && s->elem_bytes <= usable + 16 && s->avail != NULL &&
	    s->nelems != 0 && a32_load_relaxed(&s->state) == SPAN_IN_USE;
}

static struct mspan *
look_through(uintptr_t start, uintptr_t end, uintptr_t p, size_t usable)
{
	static char page[4096 + sizeof(struct mspan)];
	for (uintptr_t at = start; at < end; at += 4096) {
		size_t n = peek(at, page, sizeof(page));
		for (size_t i = 0; i < 4096 && i + sizeof(struct mspan) <= n; i += CACHE_LINE)
			if (is_span_of((struct mspan *)(page + i), p, usable))
				return (struct mspan *)(at + i);
	}
	return NULL;
}

static struct mspan *
find_span(uintptr_t p, size_t usable)
{
	read_maps();
	for (char *line = maps; line != NULL && *line != 0;) {
		unsigned long start, end, inode;
		char perm[8];
		char *next = strchr(line, '\n');
		if (sscanf(line, "%lx-%lx %7s %*s %*s %lu", &start, &end, perm, &inode) == 4 &&
		    inode == 0 && strncmp(perm, "rw", 2) == 0 && !(start <= p && p < end) &&
		    end - start < (size_t)1 << 30) {
			struct mspan *s = look_through(start, end, p, usable);
			if (s != NULL)
				return s;
		}
		line = next == NULL ? NULL : next + 1;
	}
	fail("the span's struct was not found");
	return NULL;
}

/* The mapping of the heap that p lies in: a run through metadata must not get there. */
static int
is_heap(uintptr_t at, uintptr_t p)
{
	return at >> ARENA_SHIFT == p >> ARENA_SHIFT;
}

static void
run_until_stopped(uintptr_t at, int step, uintptr_t p)
{
	for (size_t n = 0; n < RUN_MAX; n += 4096, at += (uintptr_t)(long)(step * 4096)) {
		char byte;
		if (is_heap(at, p))
			fail("ran into the heap");
		if (peek(at, &byte, 1) == 1)
			continue;
		printf("STOPPED %#lx AFTER %zu\n", (unsigned long)at, n);
		fflush(stdout);
		*(volatile char *)at = 1;
		fail("what the kernel may not write, the program could");
	}
	fail("nothing stopped it");
}

static void
plant(struct mspan *s, const char *what)
{
	if (strcmp(what, "live-bit") == 0) {
		for (size_t w = 0; w < s->nwords; w++)
			if (s->avail[w] != 0) {
				uint64_t bit = s->avail[w] & -s->avail[w];
				a64_store_relaxed(&s->bits[w].live, a64_load_relaxed(&s->bits[w].live) | bit);
				return;
			}
		fail("no free slot");
	} else if (strcmp(what, "count") == 0) {
		s->avail_n++;
	} else if (strcmp(what, "geometry") == 0) {
		s->npages++;
	}
}

int
main(int argc, char **argv)
{
	static char buffer[4096];
	setvbuf(stdout, buffer, _IOFBF, sizeof(buffer));
	if (argc < 2)
		fail("usage");
	for (int i = 0; i < OBJECTS; i++)
		objects[i] = malloc(100);
	uintptr_t p = (uintptr_t)objects[OBJECTS - 1];
	struct mspan *s = find_span(p, malloc_usable_size((void *)p));
	printf("ADDR %#lx USABLE %zu\n", (unsigned long)(uintptr_t)s, malloc_usable_size((void *)p));
	fflush(stdout);
	if (strcmp(argv[1], "above") == 0)
		run_until_stopped((uintptr_t)s & ~(uintptr_t)4095, 1, p);
	if (strcmp(argv[1], "below") == 0)
		run_until_stopped((uintptr_t)s & ~(uintptr_t)4095, -1, p);
	plant(s, argv[1]);
	if (argc > 2 && strcmp(argv[2], "patrol") == 0)
		for (int i = 0; i < REFILLS; i++) {
			int k = i % OBJECTS;
			free(objects[k]);
			objects[k] = malloc(100);
		}
	int n = heap_verify();
	printf("VERIFY %d\n", n);
	return 0;
}
