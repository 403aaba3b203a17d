/* free keeps errno, whatever is freed and however the memory goes back. */
#include "api.h"

#include <malloc.h>
#include <pthread.h>

static void
check_free(void *p)
{
	CHECK(p != NULL);
	errno = 1234;
	free(p);
	CHECK(errno == 1234);
}

static void *
free_all(void *arg)
{
	void **p = arg;

	for (size_t i = 0; i < 200; i++)
		check_free(p[i]);
	return NULL;
}

int
main(void)
{
	static void *p[5000];
	pthread_t thread;

	errno = 1234;
	free(NULL);
	CHECK(errno == 1234);
	for (size_t n = 0; n <= (size_t)256 << 20; n = n * 5 / 4 + 1) {
		check_free(malloc(n));
		check_free(calloc(1, n < 1 << 20 ? n : 1 << 20));
		check_free(memalign(4096, n));
	}
	for (size_t i = 0; i < COUNT_OF(p); i++)
		p[i] = malloc(i);
	for (size_t i = 0; i < COUNT_OF(p); i++)
		check_free(p[i]);
	/* another thread's objects */
	for (size_t i = 0; i < 200; i++)
		p[i] = malloc(i * i * 8);
	CHECK(pthread_create(&thread, NULL, free_all, p) == 0);
	CHECK(pthread_join(thread, NULL) == 0);
	return 0;
}
