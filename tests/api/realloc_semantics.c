/* realloc(NULL, n) is malloc(n); realloc(p, 0) frees p and gives NULL; a shrunk
 * object can grow again; an object from any of the functions may be given. */
#include "api.h"

#include <malloc.h>

int
main(void)
{
	char *p = realloc(NULL, 40);

	CHECK(p != NULL);
	fill(p, 40, 1);
	p = realloc(p, 40);
	CHECK(p != NULL && is_filled(p, 40, 1));
	errno = 5555;
	CHECK(realloc(p, 0) == NULL);
	CHECK(errno == 5555);

	/* really freed: this would need 400 GiB */
	for (int i = 0; i < 100000; i++) {
		p = malloc((size_t)4 << 20);
		CHECK(p != NULL);
		p[0] = 1;
		CHECK(realloc(p, 0) == NULL);
		if (i > 2000)
			i += 500;
	}

	void *others[] = {
		calloc(10, 10), memalign(256, 100), aligned_alloc(4096, 8192), valloc(100),
		pvalloc(100), reallocarray(NULL, 10, 10), memalign(1 << 20, 100),
	};
	for (size_t i = 0; i < COUNT_OF(others); i++) {
		CHECK(others[i] != NULL);
		fill(others[i], 100, (unsigned)i);
		others[i] = realloc(others[i], 100000);
		CHECK(others[i] != NULL && is_filled(others[i], 100, (unsigned)i));
		others[i] = realloc(others[i], 50);
		CHECK(others[i] != NULL && is_filled(others[i], 50, (unsigned)i));
		free(others[i]);
	}

	/* up to what malloc_usable_size says, in place or not, nothing is lost */
	for (size_t n = 1; n < 100000; n = n * 5 / 4 + 1) {
		void *q = malloc(n);
		CHECK(q != NULL);
		size_t usable = malloc_usable_size(q);
		fill(q, n, 9);
		q = realloc(q, usable);
		CHECK(q != NULL && is_filled(q, n, 9));
		fill(q, usable, 10);
		q = realloc(q, usable + 1);
		CHECK(q != NULL && is_filled(q, usable, 10));
		free(q);
	}
	return 0;
}
