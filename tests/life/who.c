/* who.c - a program to install set-user-ID: works its heap, then says whether
 * the system treats it as privileged and whether a preloaded library is there. */
#include "check.h"
#include <link.h>
#include <sys/auxv.h>

static int
seen(struct dl_phdr_info *info, size_t size, void *found)
{
	(void)size;
	if (strstr(info->dlpi_name, "spanguard") != NULL)
		*(bool *)found = true;
	return 0;
}

int
main(void)
{
	bool found = false;
	churn(13, 2000);
	dl_iterate_phdr(seen, &found);
	say(getauxval(AT_SECURE) != 0 ? "secure" : "ordinary");
	say(found ? " with\n" : " without\n");
	return 0;
}
