/* many_objects.c - argv[1] live objects of argv[2] bytes each, the first and the last
 * byte of each touched. Prints the lines of /proc/self/maps at the full heap beyond
 * those before it, and the MiB that were resident. */
#include "check.h"

int
main(int argc, char **argv)
{
	check(argc == 3);
	size_t n = strtoul(argv[1], NULL, 0), bytes = strtoul(argv[2], NULL, 0);
	char **p = mmap(NULL, n * sizeof *p, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(p != MAP_FAILED);
	unsigned empty = mapping_count();
	for (size_t i = 0; i < n; i++) {
		p[i] = malloc(bytes);
		check(p[i] != NULL);
		p[i][0] = p[i][bytes - 1] = 1;
	}
	unsigned full = mapping_count();
	size_t resident_mib = rss_bytes() >> 20;
	for (size_t i = 0; i < n; i++)
		free(p[i]);
	char text[64];
	snprintf(text, sizeof text, "mappings %u MiB %zu\n", full - empty, resident_mib);
	say(text);
	return 0;
}
