/* redzone.c - see redzone.h. */
#include "redzone.h"

#include <string.h>

/* All are the first one if each is the one before it: libc's memcmp has the widest
 * vectors there are. */
bool
redzone_intact(const void *start, size_t n, uint8_t byte)
{
	const unsigned char *p = start;
	return n == 0 || (p[0] == byte && memcmp(p, p + 1, n - 1) == 0);
}

void
redzone_diff(const void *start, size_t n, uint8_t byte, struct die_diff *out)
{
	const unsigned char *p = start;
	size_t first = 0;
	*out = (struct die_diff){ 0 };
	while (first < n && p[first] == byte)
		first++;
	out->base = (uintptr_t)p + first;
	out->n = n - first < DIE_DIFF_BYTES ? n - first : DIE_DIFF_BYTES;
	memcpy(out->found, p + first, out->n);
	memset(out->expected, byte, out->n);
	for (size_t i = first; i < n; i++)
		out->changed += p[i] != byte;
}
