/* malloc_trim says 0 or 1, gives idle memory back, and leaves what lives alone. */
#include "api.h"

#include <malloc.h>

enum { N = 60000, SIZE = 2000, KEEP = 1000 };

static size_t
resident_bytes(void)
{
	char text[256];
	FILE *f = fopen("/proc/self/statm", "r");
	size_t total, resident;

	CHECK(f != NULL);
	CHECK(fgets(text, sizeof(text), f) != NULL);
	fclose(f);
	CHECK(sscanf(text, "%zu %zu", &total, &resident) == 2);
	return resident * (size_t)sysconf(_SC_PAGESIZE);
}

int
main(void)
{
	static char *p[N];

	CHECK(malloc_trim(0) == 0 || malloc_trim(0) == 1);
	for (int i = 0; i < N; i++) {
		CHECK((p[i] = malloc(SIZE)) != NULL);
		fill(p[i], SIZE, (unsigned)i);
	}
	size_t peak = resident_bytes();
	CHECK(peak >= (size_t)N * SIZE);
	for (int i = 0; i < N; i++)
		if (i % KEEP != 0)
			free(p[i]);
	int done = malloc_trim(0);
	CHECK(done == 0 || done == 1);
	CHECK(resident_bytes() < peak / 3);
	CHECK(malloc_trim(1 << 20) >= 0);
	CHECK(malloc_trim(SIZE_MAX) >= 0);
	for (int i = 0; i < N; i += KEEP) {
		CHECK(is_filled(p[i], SIZE, (unsigned)i));
		free(p[i]);
	}
	return 0;
}
