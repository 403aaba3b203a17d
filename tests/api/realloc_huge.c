/* A huge object grows in steps to 768 MiB and shrinks back; its bytes are looked
 * at page by page, with a second huge object in the way. */
#include "api.h"

static const size_t STEP = (size_t)64 << 20;
static const size_t PAGE = 4096;

static void
mark(char *p, size_t from, size_t to)
{
	for (size_t i = from / PAGE; i < to / PAGE; i += 16)
		*(size_t *)(void *)(p + i * PAGE + 8 * (i % 500)) = i ^ 0x5eed;
}

static int
is_marked(const char *p, size_t to)
{
	for (size_t i = 0; i < to / PAGE; i += 16)
		if (*(const size_t *)(const void *)(p + i * PAGE + 8 * (i % 500)) != (i ^ 0x5eed))
			return 0;
	return 1;
}

int
main(void)
{
	char *p = malloc(STEP), *other = malloc(STEP);
	size_t n;

	CHECK(p != NULL && other != NULL);
	mark(p, 0, STEP);
	mark(other, 0, STEP);
	for (n = STEP; n < 12 * STEP; n += STEP) {
		p = realloc(p, n + STEP);
		CHECK(p != NULL);
		CHECK(is_marked(p, n));
		mark(p, n, n + STEP);
	}
	CHECK(is_marked(other, STEP));
	for (; n > STEP; n = n * 2 / 3) {
		p = realloc(p, n * 2 / 3);
		CHECK(p != NULL);
		CHECK(is_marked(p, (n * 2 / 3) / STEP * STEP));
	}
	p = realloc(p, 5 * PAGE);
	CHECK(p != NULL);
	CHECK(is_marked(p, 5 * PAGE));
	CHECK(is_marked(other, STEP));
	free(other);
	free(p);
	return 0;
}
