/* redzone.c - see redzone.h. */
#include "redzone.h"

#include <string.h>

static uint64_t
word_at(const unsigned char *p)
{
	uint64_t w;
	memcpy(&w, p, sizeof(w));
	return w;
}

bool
redzone_intact(const void *start, size_t n, uint8_t byte)
{
	const unsigned char *p = start;
	uint64_t want = byte * 0x0101010101010101u;
	size_t i = 0;
	for (; i + 32 <= n; i += 32)
		if (((word_at(p + i) ^ want) | (word_at(p + i + 8) ^ want) |
		    (word_at(p + i + 16) ^ want) | (word_at(p + i + 24) ^ want)) != 0)
			return false;
	for (; i + 8 <= n; i += 8)
		if (word_at(p + i) != want)
			return false;
	for (; i < n; i++)
		if (p[i] != byte)
			return false;
	return true;
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
