/* mappings.c - how many mappings the heap owns with argv[1] MiB live in small
 * objects of 512 B .. 8 KiB, one in 64 of them touched. Prints the lines of
 * /proc/self/maps before the first object, at the full heap and after. */
#include "check.h"

int
main(int argc, char **argv)
{
	check(argc == 2);
	size_t want_bytes = (size_t)atol(argv[1]) << 20, live_bytes = 0, count = 0;
	size_t most = want_bytes / 512;
	void **p = mmap(NULL, most * sizeof *p, PROT_READ | PROT_WRITE,
	                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	check(p != MAP_FAILED);
	unsigned seed = 3, empty = mapping_count();
	while (live_bytes < want_bytes) {
		size_t n = (size_t)512 << (next_random(&seed) % 5);
		n = n < 8192 ? n + next_random(&seed) % n : n;
		p[count] = malloc(n);
		check(p[count] != NULL);
		if (count % 64 == 0)
			key_fill(p[count], n, (unsigned)count);
		live_bytes += n;
		count++;
	}
	unsigned full = mapping_count();
	for (size_t i = 0; i < count; i++)
		free(p[i]);
	printf("empty %u full %u freed %u\n", empty, full, mapping_count());
	return 0;
}
