/* cfree, that old binaries still import. */
#include "api.h"

int
main(void)
{
	void (*cfree_function)(void *);
	void *symbol = dlsym(RTLD_DEFAULT, "cfree");

	CHECK(symbol != NULL);
	memcpy(&cfree_function, &symbol, sizeof(symbol));
	cfree_function(NULL);
	for (size_t n = 0; n < (size_t)4 << 20; n = n * 2 + 1) {
		void *p = calloc(n, 1);
		CHECK(p != NULL);
		errno = 77;
		cfree_function(p);
		CHECK(errno == 77);
	}
	return 0;
}
