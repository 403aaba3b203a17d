/* ifunc_lib.c - a shared library whose IFUNC resolver allocates. The dynamic
 * linker may run it before it has relocated a preloaded library. */
#include <stdlib.h>

int lib_answer(void);
extern void *lib_early;
void *lib_early;

static int
answer_is_42(void)
{
	return 42;
}

__attribute__((used)) static int (*resolve_answer(void))(void)
{
	char *p = malloc(100);
	for (int i = 0; p != NULL && i < 100; i++)
		p[i] = (char)i;
	lib_early = p;
	return answer_is_42;
}

int lib_answer(void) __attribute__((ifunc("resolve_answer")));
