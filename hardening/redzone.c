/* redzone.c - see redzone.h. */
#include "redzone.h"

#include <string.h>

typedef uint64_t vec __attribute__((vector_size(16), aligned(1), may_alias));

static bool
is_zero(vec v)
{
	return (v[0] | v[1]) == 0;
}

bool
redzone_intact(const void *start, size_t n, uint8_t byte)
{
	const unsigned char *p = start;
	uint64_t word = byte * 0x0101010101010101u, w;
	const vec want = { word, word };
	size_t i = 0;
	for (; i + 64 <= n; i += 64) {
		const vec *v = (const vec *)(p + i);
		if (!is_zero((v[0] ^ want) | (v[1] ^ want) | (v[2] ^ want) | (v[3] ^ want)))
			return false;
	}
	for (; i + 8 <= n; i += 8) {
		memcpy(&w, p + i, sizeof(w));
		if (w != word)
			return false;
	}
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
