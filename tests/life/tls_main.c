/* tls_main.c - opens every module named on the command line while four threads
 * run, then touches each module's TLS from all of them: the dynamic linker
 * allocates TLS blocks by calling malloc inside __tls_get_addr. */
#include "check.h"
#include <dlfcn.h>
#include <pthread.h>

enum { THREADS = 4, MODULES = 64 };

static int (*touch[MODULES])(int);
static int modules;
static pthread_barrier_t opened;

static void *
worker(void *arg)
{
	int seed = 1 + (int)(intptr_t)arg;
	churn((unsigned)seed, 500);
	pthread_barrier_wait(&opened);
	for (int round = 1; round <= 20; round++)
		for (int i = 0; i < modules; i++)
			check(touch[i](seed) == seed * round);
	return NULL;
}

int
main(int argc, char **argv)
{
	pthread_t thread[THREADS];
	check(argc > 1 && argc <= MODULES);
	check(pthread_barrier_init(&opened, NULL, THREADS + 1) == 0);
	for (intptr_t i = 0; i < THREADS; i++)
		check(pthread_create(&thread[i], NULL, worker, (void *)i) == 0);
	for (int i = 1; i < argc; i++) {
		void *dso = dlopen(argv[i], RTLD_NOW | RTLD_LOCAL);
		if (dso == NULL)
			fprintf(stderr, "%s\n", dlerror());
		check(dso != NULL);
		touch[modules] = (int (*)(int))dlsym(dso, "dso_touch");
		check(touch[modules++] != NULL);
	}
	pthread_barrier_wait(&opened);
	for (int i = 0; i < THREADS; i++)
		check(pthread_join(thread[i], NULL) == 0);
	printf("modules %d\n", modules);
	return 0;
}
