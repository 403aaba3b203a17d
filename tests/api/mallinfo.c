/* mallinfo and mallinfo2 follow what the program allocates and frees. */
#include "api.h"

#include <malloc.h>

enum { N = 2000, SIZE = 5000, BIG = 30 };
static const size_t BIG_BYTES = (size_t)1 << 20;

static size_t
in_use(void)
{
	struct mallinfo2 info = mallinfo2();

	return info.uordblks + info.hblkhd;
}

int
main(void)
{
	static void *p[N], *big[BIG];
	size_t before = in_use(), slack = (size_t)N * SIZE / 5;

	for (int i = 0; i < N; i++)
		CHECK((p[i] = malloc(SIZE)) != NULL);
	size_t full = in_use();
	CHECK(full >= before + (size_t)N * SIZE);
	CHECK(full <= before + (size_t)N * SIZE + slack);

	struct mallinfo2 info = mallinfo2();
	CHECK(info.arena + info.hblkhd >= (size_t)N * SIZE);
	CHECK(info.uordblks <= info.arena + info.hblkhd);

	for (int i = 0; i < BIG; i++)
		CHECK((big[i] = malloc(BIG_BYTES)) != NULL);
	CHECK(in_use() >= full + BIG * BIG_BYTES);
	CHECK(in_use() <= full + BIG * BIG_BYTES + slack);
	for (int i = 0; i < BIG; i++)
		free(big[i]);
	CHECK(in_use() <= full + slack);

	/* the old one has ints, and the same figures as long as they fit */
	struct mallinfo old = mallinfo();
	info = mallinfo2();
	CHECK((unsigned)old.uordblks == (unsigned)info.uordblks);
	CHECK((unsigned)old.arena == (unsigned)info.arena);

	for (int i = 0; i < N; i++)
		free(p[i]);
	CHECK(in_use() <= before + slack);
	return 0;
}
