/* own_malloc.c - a program that brings its own malloc, for everybody (-rdynamic). */
#include <stddef.h>
#include <string.h>

static char arena[1 << 20] __attribute__((aligned(16)));
static size_t used;

void *
malloc(size_t n)
{
	void *p = arena + used;
	used += (n + 31) & ~(size_t)15;
	return used <= sizeof(arena) ? p : NULL;
}

void
free(void *p)
{
	(void)p;
}

void *
calloc(size_t n, size_t size)
{
	return malloc(n * size);
}

void *
realloc(void *p, size_t n)
{
	void *q = malloc(n);
	if (p != NULL && q != NULL)
		memcpy(q, p, n);
	return q;
}

int
main(void)
{
	return malloc(3) == NULL;
}
