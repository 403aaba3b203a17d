/* heap.c - a heap of which gdb is to tell: 100 objects of 100 bytes, one of them freed,
 * and two large ones, one of them freed. The globals say where things are. With an
 * argument it ends by SIGABRT, for a core file. */
#include <stdlib.h>

enum { OBJECTS = 100 };

void *volatile live[OBJECTS];
void *volatile freed, *volatile inner, *volatile large, *volatile parked;

__attribute__((noinline)) static void *
make_one(size_t n)
{
	void *p = malloc(n);
	__asm__ volatile("" : "+r"(p));
	return p;
}

__attribute__((always_inline)) static inline void *
make_parked(void)
{
	return make_one(200000);
}

__attribute__((noinline)) static void
drop_one(void *p)
{
	free(p);
	__asm__ volatile("");
}

__attribute__((noinline)) void
stop_here(void)
{
	__asm__ volatile("");
}

int
main(int argc, char **argv)
{
	for (int i = 0; i < OBJECTS; i++)
		live[i] = make_one(100);
	freed = live[7];
	drop_one(freed);
	inner = (char *)live[9] + 40;
	large = make_one(300000);
	parked = make_parked();
	drop_one(parked);
	stop_here();
	if (argc > 1)
		abort();
	return argv == NULL;
}
