/* bugs.c - one heap bug per run, for a comparison of allocators that are preloaded:
 *     bugs NAME          makes the mistake
 *     bugs NAME clean    the same steps without it
 *     bugs               the names
 * Around the steps it writes marks: "at" before the wrong access, "past" after it, "end"
 * when everything has been freed. Where a run stopped shows by the last mark. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool wrong;

static void
mark(const char *text)
{
	if (write(STDOUT_FILENO, text, strlen(text)) < 0)
		_exit(3);
}

/* What the optimiser must not see through. */
static char *
hidden(char *p)
{
	__asm__ volatile("" : "+r"(p) : : "memory");
	return p;
}

static void
put(char *p, ptrdiff_t at)
{
	mark("at ");
	*(volatile char *)(hidden(p) + at) = 'x';
	mark("past ");
}

static void
take(const char *p, ptrdiff_t at)
{
	mark("at ");
	(void)*(const volatile char *)(hidden((char *)(uintptr_t)p) + at);
	mark("past ");
}

static char *
filled(size_t bytes)
{
	char *p = malloc(bytes);
	if (p == NULL)
		_exit(3);
	memset(p, 'a', bytes);
	return p;
}

static void
free_at(char *p)
{
	mark("at ");
	free(hidden(p));
	mark("past ");
}

static void
touch(size_t bytes, ptrdiff_t good, ptrdiff_t bad, bool writes)
{
	char *p = filled(bytes);
	if (writes)
		put(p, wrong ? bad : good);
	else
		take(p, wrong ? bad : good);
	free(p);
}

static void
stale(size_t bytes, bool writes, bool reused)
{
	char *p = filled(bytes), *q = NULL;
	if (wrong)
		free(hidden(p));
	if (reused)
		q = filled(bytes);
	if (writes)
		put(p, 8);
	else
		take(p, 8);
	free(q);
	if (!wrong)
		free(p);
}

static void over_write_1(void) { touch(37, 36, 37, true); }
static void over_read_1(void) { touch(37, 36, 37, false); }
static void over_write_16(void) { touch(32, 31, 47, true); }
static void over_read_16(void) { touch(32, 31, 47, false); }
static void under_write_1(void) { touch(64, 0, -1, true); }
static void under_read_1(void) { touch(64, 0, -1, false); }
static void over_write_large(void) { touch(100000, 99999, 100000, true); }
static void over_read_large(void) { touch(100000, 99999, 104000, false); }
static void uaf_write(void) { stale(48, true, false); }
static void uaf_read(void) { stale(48, false, false); }
static void uaf_write_reused(void) { stale(48, true, true); }
static void uaf_read_large(void) { stale(100000, false, false); }

static void
double_free(void)
{
	char *p = filled(48), *other = filled(48);
	free(hidden(p));
	free(other);
	if (wrong)
		free_at(p);
}

static void
double_free_later(void)
{
	char *p = filled(48), *kept[100];
	free(hidden(p));
	for (size_t i = 0; i < 100; i++)
		kept[i] = filled(200);
	if (wrong)
		free_at(p);
	for (size_t i = 0; i < 100; i++)
		free(kept[i]);
}

static void
interior_free(void)
{
	char *p = filled(64);
	if (wrong)
		free_at(p + 16);
	free(p);
}

static void
stack_free(void)
{
	_Alignas(16) char local[64];
	memset(local, 0, sizeof(local));
	if (wrong)
		free_at(hidden(local));
}

static void
stale_realloc(void)
{
	char *p = filled(48), *old = hidden(p);
	char *q = realloc(p, 4000);
	put(wrong ? old : q, 8);
	free(q);
}

static const struct {
	const char *name;
	void (*run)(void);
} bugs[] = {
	{ "overflow-write-1", over_write_1 }, { "overflow-read-1", over_read_1 },
	{ "overflow-write-16", over_write_16 }, { "overflow-read-16", over_read_16 },
	{ "underflow-write-1", under_write_1 }, { "underflow-read-1", under_read_1 },
	{ "overflow-write-large", over_write_large }, { "overflow-read-large", over_read_large },
	{ "uaf-write", uaf_write }, { "uaf-read", uaf_read },
	{ "uaf-write-reused", uaf_write_reused }, { "uaf-read-large", uaf_read_large },
	{ "uaf-after-realloc", stale_realloc },
	{ "double-free", double_free }, { "double-free-later", double_free_later },
	{ "interior-free", interior_free }, { "stack-free", stack_free },
};

int
main(int argc, char **argv)
{
	size_t n = sizeof(bugs) / sizeof(bugs[0]);
	for (size_t i = 0; i < n; i++) {
		if (argc < 2) {
			puts(bugs[i].name);
		} else if (strcmp(argv[1], bugs[i].name) == 0) {
			wrong = argc == 2;
			bugs[i].run();
			mark("end");
			return 0;
		}
	}
	return argc < 2 ? 0 : 2;
}
