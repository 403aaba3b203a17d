/* bug.h - one mistake at one object, for bug.c and bug.cc.
 *
 *   bug KIND BYTES THREADS [ok]
 *
 *   over-read over-write      the byte behind the object
 *   under-read under-write    the byte before it
 *   after-read after-write    its middle byte, freed
 *   late                      the byte behind, where alignment leaves it: seen at free
 *   kept                      the same, and never freed: seen at exit
 *   twice                     freed, freed again
 *   inner                     a free of its second byte
 *   resize                    a realloc of the freed object
 *   wrong                     freed by the wrong function (C++)
 *   sized                     freed with another size
 *
 * "ADDR 0x.. BASE 0x.. BYTES n" goes to stdout before the mistake. THREADS - 1 others
 * allocate and free meanwhile. With "ok" the same steps are taken without the
 * mistake; the program says "fine" and exits 0. */
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int mistake = 1;
static volatile int stop;

/* Keeps the compiler from seeing that an allocation and its free cancel out. */
static inline char *
opaque(void *p)
{
	__asm__ volatile("" : "+r"(p) : : "memory");
	return (char *)p;
}

__attribute__((noinline)) static char *
make_object(size_t bytes)
{
	char *p = opaque(ALLOC(bytes));
	memset(p, 7, bytes);
	return opaque(p);
}

__attribute__((noinline)) static void
release_object(char *p, size_t bytes)
{
	RELEASE(p, bytes);
	__asm__ volatile("" ::: "memory");
}

__attribute__((noinline)) static void
offend_read(volatile char *p)
{
	char c = *p;
	__asm__ volatile("" : : "r"(c) : "memory");
}

__attribute__((noinline)) static void
offend_write(volatile char *p)
{
	*p = 1;
	__asm__ volatile("" ::: "memory");
}

__attribute__((noinline)) static void
offend_free(char *p, size_t bytes)
{
	RELEASE(p, bytes);
	__asm__ volatile("" ::: "memory");
}

__attribute__((noinline)) static void
offend_resize(char *p, size_t bytes)
{
	char *q = opaque(realloc(p, bytes * 2));
	free(q);
}

__attribute__((noinline)) static void
offend_wrong(char *p, size_t bytes)
{
	if (mistake)
		WRONG(p, bytes);
	else
		RELEASE(p, bytes);
	__asm__ volatile("" ::: "memory");
}

__attribute__((noinline)) static void
offend_sized(char *p, size_t bytes)
{
	SIZED(p, bytes + (size_t)mistake);
	__asm__ volatile("" ::: "memory");
}

static void
announce(const char *at, const char *base, size_t bytes)
{
	char text[128];
	int n = snprintf(text, sizeof text, "ADDR %p BASE %p BYTES %zu\n", (const void *)at,
	    (const void *)base, bytes);
	if (write(1, text, (size_t)n) != n)
		_exit(98);
}

static void
touch(const char *kind, char *at)
{
	if (strstr(kind, "read") != NULL)
		offend_read(at);
	else
		offend_write(at);
}

static void
beside(const char *kind, size_t bytes)
{
	char *p = make_object(bytes);
	char *at = kind[0] == 'u' ? p - 1 : p + bytes;
	announce(at, p, bytes);
	touch(kind, mistake ? at : p);
	if (strcmp(kind, "kept") != 0)
		release_object(p, bytes);
}

static void
after(const char *kind, size_t bytes)
{
	char *p = make_object(bytes), *q = make_object(bytes);
	char *at = p + bytes / 2;
	announce(at, p, bytes);
	release_object(p, bytes);
	touch(kind, mistake ? at : q);
	release_object(q, bytes);
}

static void
wrong_free(const char *kind, size_t bytes)
{
	char *p = make_object(bytes), *q = make_object(bytes);
	if (strcmp(kind, "inner") == 0) {
		announce(p + 1, p, bytes);
		offend_free(p + mistake, bytes);
	} else if (strcmp(kind, "twice") == 0) {
		announce(p, p, bytes);
		release_object(p, bytes);
		offend_free(mistake ? p : q, bytes);
		return;
	} else if (strcmp(kind, "wrong") == 0) {
		announce(p, p, bytes);
		offend_wrong(p, bytes);
	} else {
		announce(p, p, bytes);
		offend_sized(p, bytes);
	}
	release_object(q, bytes);
}

static void
resize(size_t bytes)
{
	char *p = opaque(malloc(bytes)), *q = opaque(malloc(bytes));
	announce(p, p, bytes);
	free(p);
	offend_resize(mistake ? p : q, bytes);
}

static void *
other(void *arg)
{
	char *held[16] = { NULL };
	for (size_t i = 0; !stop; i++) {
		if (held[i % 16] != NULL)
			release_object(held[i % 16], 1 + (i - 16) % 3000);
		held[i % 16] = make_object(1 + i % 3000);
		if (i % 64 == 0)
			usleep(200);
	}
	return arg;
}

static void
run(const char *kind, size_t bytes)
{
	if (strcmp(kind, "resize") == 0)
		resize(bytes);
	else if (strncmp(kind, "after", 5) == 0)
		after(kind, bytes);
	else if (strchr(kind, '-') != NULL || strcmp(kind, "late") == 0 ||
	    strcmp(kind, "kept") == 0)
		beside(kind, bytes);
	else
		wrong_free(kind, bytes);
}

int
main(int argc, char **argv)
{
	pthread_t t[64];
	int n = argc > 3 ? atoi(argv[3]) - 1 : 0;
	mistake = argc < 5;
	for (int i = 0; i < n; i++)
		if (pthread_create(&t[i], NULL, other, NULL) != 0)
			return 97;
	run(argv[1], strtoul(argv[2], NULL, 0));
	stop = 1;
	for (int i = 0; i < n; i++)
		pthread_join(t[i], NULL);
	puts("fine");
	return 0;
}
