/* give_back.c - argv[1] MiB in 64-byte objects, all touched, then freed; the
 * resident set must fall below 5 % of its peak.
 *
 * argv[2]: trim (malloc_trim(0), then at most 2 s) or idle (no call at all, at
 * most 10 s: the background scavenger's work). argv[3]: the order of the frees:
 * same, reverse, or random. The table of pointers is not on the heap and is
 * dropped before anything is measured. */
#include "check.h"
#include <malloc.h>
#include <time.h>

enum { OBJECT_BYTES = 64 };

static void
shuffle(void **p, size_t n)
{
	uint64_t state = 88172645463325252u;
	for (size_t i = n; i > 1; i--) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		size_t k = state % i;
		void *t = p[i - 1];
		p[i - 1] = p[k];
		p[k] = t;
	}
}

static bool
falls_below(size_t limit_bytes, int seconds)
{
	for (int i = 0; i <= seconds * 10; i++) {
		if (rss_bytes() < limit_bytes)
			return true;
		struct timespec pause = { 0, 100000000 };
		nanosleep(&pause, NULL);
	}
	return false;
}

int
main(int argc, char **argv)
{
	check(argc == 4);
	size_t n = ((size_t)atol(argv[1]) << 20) / OBJECT_BYTES;
	void **p = mmap(NULL, n * sizeof *p, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(p != MAP_FAILED);
	for (size_t i = 0; i < n; i++) {
		p[i] = malloc(OBJECT_BYTES);
		check(p[i] != NULL);
		memset(p[i], 1, OBJECT_BYTES);
	}
	if (strcmp(argv[3], "random") == 0)
		shuffle(p, n);
	/* Without the table: it goes away before anything is measured. */
	size_t table_bytes = n * sizeof *p;
	size_t peak_bytes = rss_bytes() - table_bytes;
	bool reverse = strcmp(argv[3], "reverse") == 0;
	for (size_t i = 0; i < n; i++)
		free(p[reverse ? n - 1 - i : i]);
	munmap(p, table_bytes);
	bool trim = strcmp(argv[2], "trim") == 0;
	if (trim)
		malloc_trim(0);
	bool good = falls_below(peak_bytes / 20, trim ? 2 : 10);
	printf("peak %zu MiB, now %zu MiB\n", peak_bytes >> 20, rss_bytes() >> 20);
	return !good;
}
