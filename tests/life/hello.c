/* hello.c - the smallest program that uses the heap; prints "hello". */
#include "check.h"

int
main(void)
{
	churn(1, 2000);
	say("hello\n");
	return 0;
}
