/* sites.c - allocates from three places: keeps 600,000 bytes from one, 200,000 from
 * another, and frees all of the 900,000 of a third. With an argument it sends itself
 * SIGUSR1 then, and ends without a function that runs at exit. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { OBJECTS = 2000 };

static char *a[OBJECTS], *b[OBJECTS];

__attribute__((noinline)) static char *
take_300(void)
{
	char *p = malloc(300);
	__asm__ volatile("" : "+r"(p) : : "memory");
	return p;
}

__attribute__((noinline)) static char *
take_100(void)
{
	char *p = malloc(100);
	__asm__ volatile("" : "+r"(p) : : "memory");
	return p;
}

__attribute__((noinline)) static void
come_and_go(void)
{
	char *p = malloc(450);
	__asm__ volatile("" : "+r"(p) : : "memory");
	free(p);
}

__attribute__((noinline)) static void
work(void)
{
	for (size_t i = 0; i < OBJECTS; i++) {
		a[i] = take_300();
		b[i] = take_100();
		come_and_go();
	}
}

int
main(int argc, char **argv)
{
	(void)argv;
	work();
	if (argc > 1) {
		raise(SIGUSR1);
		_exit(0);
	}
	return 0;
}
