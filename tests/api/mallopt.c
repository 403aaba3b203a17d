/* mallopt takes every parameter of glibc, says 0 or 1, and malloc goes on working. */
#include "api.h"

#include <malloc.h>

static void
exercise(void)
{
	static void *p[200];

	for (size_t i = 0; i < COUNT_OF(p); i++) {
		p[i] = malloc(i * i * 10);
		CHECK(p[i] != NULL);
		fill(p[i], i * i * 10, (unsigned)i);
	}
	for (size_t i = 0; i < COUNT_OF(p); i++) {
		CHECK(is_filled(p[i], i * i * 10, (unsigned)i));
		free(p[i]);
	}
}

int
main(void)
{
	static const int params[][2] = {
		{ M_MXFAST, 64 }, { M_TRIM_THRESHOLD, 1 << 20 }, { M_TOP_PAD, 1 << 16 },
		{ M_MMAP_THRESHOLD, 1 << 18 }, { M_MMAP_MAX, 1000 }, { M_CHECK_ACTION, 1 },
		{ M_PERTURB, 0 }, { M_ARENA_TEST, 2 }, { M_ARENA_MAX, 2 }, { M_MXFAST, 0 },
		{ M_TRIM_THRESHOLD, -1 },
	};

	for (size_t i = 0; i < COUNT_OF(params); i++) {
		int done = mallopt(params[i][0], params[i][1]);
		CHECK(done == 0 || done == 1);
		exercise();
	}
	int done = mallopt(123456, 1);
	CHECK(done == 0 || done == 1);
	/* what programs set and rely on being accepted */
	CHECK(mallopt(M_TRIM_THRESHOLD, 1 << 20) == 1);
	CHECK(mallopt(M_MMAP_THRESHOLD, 1 << 20) == 1);
	exercise();
	return 0;
}
