/* ifunc_main.c - uses ifunc_lib.c and frees what its resolver allocated. */
#include "check.h"

int lib_answer(void);
extern char *lib_early;

int
main(void)
{
	check(lib_answer() == 42);
	check(lib_early != NULL);
	for (int i = 0; i < 100; i++)
		check(lib_early[i] == (char)i);
	free(lib_early);
	churn(3, 1000);
	say("ifunc\n");
	return 0;
}
