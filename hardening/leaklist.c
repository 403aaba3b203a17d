/* leaklist.c - see leaklist.h. Heapsort: no recursion, no memory, and no bad case. */
#include "leaklist.h"

#include <string.h>

static int
order_of(uintptr_t a, uintptr_t b)
{
	return a < b ? -1 : a > b;
}

/* By stack: the same frames may lie at two places. */
static int
compare_stacks(const struct lost *a, const struct lost *b)
{
	if (a->frames != b->frames)
		return order_of(a->frames, b->frames);
	if (a->pcs == b->pcs || a->pcs == NULL || b->pcs == NULL)
		return order_of(a->pcs != NULL, b->pcs != NULL);
	return memcmp(a->pcs, b->pcs, a->frames * sizeof(a->pcs[0]));
}

static int
compare_lost(const void *x, const void *y)
{
	const struct lost *a = x, *b = y;
	if (a->indirect != b->indirect)
		return a->indirect ? 1 : -1;
	int stacks = compare_stacks(a, b);
	return stacks != 0 ? stacks : order_of(a->base, b->base);
}

static int
compare_groups(const void *x, const void *y)
{
	const struct lost_group *a = x, *b = y;
	if (a->indirect != b->indirect)
		return a->indirect ? 1 : -1;
	if (a->bytes != b->bytes)
		return a->bytes > b->bytes ? -1 : 1;
	return order_of(a->first, b->first);
}

struct sorting {
	char *base;
	size_t size;
	int (*compare)(const void *, const void *);
};

static void
swap(char *a, char *b, size_t size)
{
	char t[64];
	memcpy(t, a, size);
	memcpy(a, b, size);
	memcpy(b, t, size);
}

static void
sift_down(const struct sorting *s, size_t i, size_t n)
{
	for (;;) {
		size_t kid = 2 * i + 1;
		if (kid >= n)
			return;
		char *k = s->base + kid * s->size, *p = s->base + i * s->size;
		if (kid + 1 < n && s->compare(k, k + s->size) < 0) {
			kid++;
			k += s->size;
		}
		if (s->compare(p, k) >= 0)
			return;
		swap(p, k, s->size);
		i = kid;
	}
}

static void
heap_sort(const struct sorting *s, size_t n)
{
	for (size_t i = n / 2; i-- > 0;)
		sift_down(s, i, n);
	while (n > 1) {
		n--;
		swap(s->base, s->base + n * s->size, s->size);
		sift_down(s, 0, n);
	}
}

_Static_assert(sizeof(struct lost) <= 64 && sizeof(struct lost_group) <= 64, "swap");

void
lost_sort(struct lost *l, size_t n)
{
	heap_sort(&(struct sorting){ (char *)l, sizeof(*l), compare_lost }, n);
}

static bool
same_group(const struct lost *a, const struct lost *b)
{
	return a->indirect == b->indirect && compare_stacks(a, b) == 0;
}

size_t
lost_count_groups(const struct lost *l, size_t n)
{
	size_t groups = n != 0;
	for (size_t i = 1; i < n; i++)
		groups += !same_group(&l[i - 1], &l[i]);
	return groups;
}

size_t
lost_group(const struct lost *l, size_t n, struct lost_group *g, size_t most)
{
	size_t groups = 0;
	for (size_t i = 0; i < n; i++) {
		if (i == 0 || !same_group(&l[i - 1], &l[i])) {
			if (groups == most)
				break;
			g[groups++] = (struct lost_group){ .first = i, .indirect = l[i].indirect };
		}
		g[groups - 1].n++;
		g[groups - 1].bytes += l[i].bytes;
	}
	heap_sort(&(struct sorting){ (char *)g, sizeof(*g), compare_groups }, groups);
	return groups;
}
