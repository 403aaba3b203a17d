/* takes_address.c - built with -no-pie, its own stub is the address of malloc. */
#include <stdlib.h>

int
main(void)
{
	void *(*volatile get)(size_t) = malloc;
	return get(3) == NULL;
}
