/* A request for nothing gives a pointer of its own, not NULL, that can be freed. */
#include "api.h"

enum { N = 3000 };

int
main(void)
{
	static void *p[N];

	for (size_t i = 0; i < N; i++) {
		switch (i % 4) {
		case 0: p[i] = malloc(0); break;
		case 1: p[i] = calloc(0, opaque(i)); break;
		case 2: p[i] = calloc(opaque(i), 0); break;
		case 3: p[i] = realloc(NULL, 0); break;
		}
		CHECK(p[i] != NULL);
		CHECK(is_aligned(p[i], MALLOC_ALIGNMENT));
	}
	for (size_t i = 0; i < N; i++)
		for (size_t j = i + 1; j < N; j++)
			CHECK(p[i] != p[j]);
	for (size_t i = 0; i < N; i++)
		free(p[i]);
	free(NULL);
	return 0;
}
