/* other_malloc.c - an allocator inside under a name of its own. */
#include <stdlib.h>

void *je_malloc(size_t n);

void *
je_malloc(size_t n)
{
	return malloc(n);
}

int
main(void)
{
	free(je_malloc(3));
	return 0;
}
