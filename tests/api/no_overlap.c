/* Two objects that live at the same time have no byte in common, and keep their
 * bytes, over a long random run of all functions. */
#include "api.h"

#include <malloc.h>

enum { SLOTS = 1500, OPS = 150000 };

struct object {
	void *p;
	size_t bytes;
	unsigned seed;
};

static struct object objects[SLOTS];
static unsigned rng = 12345;

static size_t
random_size(void)
{
	unsigned shift = next_random(&rng) % 100;

	if (shift < 80)
		return next_random(&rng) % 400;
	if (shift < 98)
		return next_random(&rng) % 9000;
	return next_random(&rng) % 150000;
}

static void *
allocate(size_t n)
{
	void *p = NULL;
	size_t align = (size_t)8 << next_random(&rng) % 10;

	switch (next_random(&rng) % 8) {
	case 0:
		p = calloc(1, n);
		CHECK(p != NULL && is_zero(p, n));
		return p;
	case 1:
		CHECK(posix_memalign(&p, align, n) == 0);
		return p;
	case 2:
		return memalign(align, n);
	case 3:
		return realloc(NULL, n);
	default:
		return malloc(n);
	}
}

static void
change(struct object *o)
{
	size_t n = random_size();

	if (o->p != NULL)
		CHECK(is_filled(o->p, o->bytes, o->seed));
	if (o->p == NULL) {
		o->p = allocate(n);
	} else if (next_random(&rng) % 4 == 0 && n > 0) {
		o->p = realloc(o->p, n);
		CHECK(o->p != NULL);
		CHECK(is_filled(o->p, n < o->bytes ? n : o->bytes, o->seed));
	} else {
		free(o->p);
		o->p = NULL;
		return;
	}
	CHECK(o->p != NULL);
	o->bytes = n;
	o->seed = next_random(&rng);
	fill(o->p, n, o->seed);
}

int
main(void)
{
	for (int i = 0; i < OPS; i++)
		change(&objects[next_random(&rng) % SLOTS]);
	for (size_t i = 0; i < SLOTS; i++) {
		if (objects[i].p != NULL)
			CHECK(is_filled(objects[i].p, objects[i].bytes, objects[i].seed));
		free(objects[i].p);
	}
	return 0;
}
