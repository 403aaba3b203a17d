/* closed_fds.c - started with descriptors 0, 1 and 2 closed: the first files the
 * program opens must get them, so the allocator holds none open down there. */
#include "check.h"

int
main(int argc, char **argv)
{
	check(argc == 2);
	churn(7, 2000);
	for (int want = 0; want < 3; want++)
		check(open(argv[1], O_RDWR | O_CREAT | O_APPEND, 0600) == want);
	churn(8, 2000);
	say("low\n");
	return 0;
}
