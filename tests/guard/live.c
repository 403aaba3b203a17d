/* live.c - N live objects; says how many mappings and how much memory they cost, and
 * that each holds what was written to it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long
mappings(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	long n = 0;
	for (int c; (c = getc(f)) != EOF;)
		n += c == '\n';
	fclose(f);
	return n;
}

static long
resident_kib(void)
{
	char line[256];
	long kib = 0;
	FILE *f = fopen("/proc/self/status", "r");
	while (fgets(line, sizeof line, f) != NULL)
		if (sscanf(line, "VmRSS: %ld", &kib) == 1)
			break;
	fclose(f);
	return kib;
}

int
main(int argc, char **argv)
{
	size_t n = strtoul(argv[argc - 1], NULL, 0);
	unsigned char **p = calloc(n, sizeof *p);
	for (size_t i = 0; i < n; i++) {
		size_t bytes = 1 + i % 200;
		p[i] = malloc(bytes);
		if (p[i] == NULL)
			return 1;
		memset(p[i], (int)(i % 251), bytes);
	}
	printf("mappings %ld KiB %ld\n", mappings(), resident_kib());
	for (size_t i = 0; i < n; i++) {
		size_t bytes = 1 + i % 200;
		for (size_t k = 0; k < bytes; k++)
			if (p[i][k] != i % 251)
				return 2;
		free(p[i]);
	}
	free(p);
	printf("mappings %ld\n", mappings());
	return 0;
}
