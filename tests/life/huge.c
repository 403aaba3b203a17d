/* huge.c - very large objects. argv[1]: sizes (1, 5 and 20 GiB, only their ends
 * touched), align (alignments up to 1 GiB), realloc (64 MiB to 1 GiB and back,
 * in steps, contents checked), zero (calloc of recycled large memory). */
#include "check.h"
#include <malloc.h>

static const size_t MIB = (size_t)1 << 20, GIB = (size_t)1 << 30;

static void
sizes(void)
{
	const size_t gib[] = { 1, 5, 20 };
	unsigned char *p[3];
	for (int i = 0; i < 3; i++) {
		p[i] = malloc(gib[i] * GIB);
		check(p[i] != NULL);
		check((uintptr_t)p[i] % 16 == 0);
		check(malloc_usable_size(p[i]) >= gib[i] * GIB);
		p[i][0] = p[i][gib[i] * GIB / 2] = p[i][gib[i] * GIB - 1] = (unsigned char)(i + 1);
	}
	check(rss_bytes() < 64 * MIB);
	for (int i = 0; i < 3; i++) {
		check(p[i][0] == i + 1 && p[i][gib[i] * GIB - 1] == i + 1);
		free(p[i]);
	}
	unsigned char *zero = calloc(5, GIB);
	check(zero != NULL && zero[0] == 0 && zero[5 * GIB - 1] == 0 && zero[3 * GIB] == 0);
	check(rss_bytes() < 64 * MIB);
	free(zero);
	errno = 0;
	check(opaque(malloc(PTRDIFF_MAX - 4096)) == NULL && errno == ENOMEM);
}

static void
alignments(void)
{
	for (size_t align = 16; align <= GIB; align *= 4) {
		unsigned char *p[4];
		for (int i = 0; i < 4; i++) {
			p[i] = aligned_alloc(align, align * (size_t)(i < 2 ? 1 : i - 1));
			check(p[i] != NULL && (uintptr_t)p[i] % align == 0);
			p[i][0] = p[i][align - 1] = (unsigned char)i;
		}
		for (int i = 0; i < 4; i++) {
			check(p[i][0] == i && p[i][align - 1] == i);
			free(p[i]);
		}
		void *small = memalign(align, 1);
		check(small != NULL && (uintptr_t)small % align == 0);
		free(small);
	}
}

/* One word in every 4 KiB page says which page it is. */
static void
stamp(unsigned char *p, size_t from, size_t to)
{
	for (size_t at = (from + 4095) & ~(size_t)4095; at < to; at += 4096)
		*(size_t *)(void *)(p + at) = at ^ 0x5a5a5a5a;
}

static void
check_stamps(const unsigned char *p, size_t to)
{
	for (size_t at = 0; at < to; at += 4096)
		check(*(const size_t *)(const void *)(p + at) == (at ^ 0x5a5a5a5a));
}

static void
reallocs(void)
{
	size_t bytes = 64 * MIB;
	unsigned char *p = malloc(bytes);
	check(p != NULL);
	stamp(p, 0, bytes);
	while (bytes < GIB) {
		size_t more = bytes + bytes / 2;
		p = realloc(p, more);
		check(p != NULL);
		check_stamps(p, bytes);
		stamp(p, bytes, more);
		bytes = more;
	}
	while (bytes > 100) {
		bytes /= 3;
		p = realloc(p, bytes);
		check(p != NULL);
		check_stamps(p, bytes - bytes % 4096);
	}
	free(p);
	check(malloc_trim(0) >= 0);
	check(rss_bytes() < 64 * MIB);
}

static void
zeroes(void)
{
	for (size_t bytes = 64 << 10; bytes <= 64 * MIB; bytes *= 2)
		for (int round = 0; round < 4; round++) {
			unsigned char *p = malloc(bytes);
			check(p != NULL);
			memset(p, 0xff, bytes);
			free(p);
			p = calloc(1, bytes);
			check(p != NULL);
			for (size_t i = 0; i < bytes; i += 8)
				check(*(uint64_t *)(void *)(p + i) == 0);
			free(p);
		}
}

int
main(int argc, char **argv)
{
	check(argc == 2);
	if (strcmp(argv[1], "sizes") == 0)
		sizes();
	else if (strcmp(argv[1], "align") == 0)
		alignments();
	else if (strcmp(argv[1], "realloc") == 0)
		reallocs();
	else
		zeroes();
	say("huge\n");
	return 0;
}
