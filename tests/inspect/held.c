/* held.c - holds one live and one freed object, says where they are, and waits for a
 * line on stdin; with an argument it aborts instead. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *kept, *dropped;

__attribute__((noinline)) static void
make_kept(void)
{
	kept = malloc(41);
	memset(kept, 1, 41);
}

__attribute__((noinline)) static void
make_dropped(void)
{
	dropped = malloc(300);
	memset(dropped, 1, 300);
}

__attribute__((noinline)) static void
drop(void)
{
	char *volatile p = dropped;
	free(p);
	__asm__ volatile("" ::: "memory");
}

int
main(int argc, char **argv)
{
	char line[8];
	(void)argv;
	make_kept();
	make_dropped();
	drop();
	setvbuf(stdin, NULL, _IOFBF, 0);        /* its buffer is there before anybody looks */
	printf("%p %p\n", (void *)kept, (void *)dropped);
	fflush(stdout);
	if (argc > 1)
		abort();
	return fgets(line, sizeof line, stdin) == NULL;
}
