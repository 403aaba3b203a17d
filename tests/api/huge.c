/* Objects of many GiB: served with every page usable, or refused with ENOMEM. */
#include "api.h"

int
main(void)
{
	int served = 0;

	for (unsigned shift = 27; shift <= 46; shift++) {
		size_t n = (size_t)1 << shift;
		errno = 0;
		char *p = malloc(n + 1);
		if (p == NULL) {
			CHECK(errno == ENOMEM);
			continue;
		}
		served++;
		for (size_t i = 0; i < n; i += n / 64)
			p[i] = (char)(i / (n / 64) + 1);
		p[n] = 77;
		for (size_t i = 0; i < n; i += n / 64)
			CHECK(p[i] == (char)(i / (n / 64) + 1));
		CHECK(p[n] == 77);
		free(p);
	}
	/* 128 MiB to 1 GiB are there on any machine that runs this */
	CHECK(served >= 4);
	return 0;
}
