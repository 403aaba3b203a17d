/* dlopen_self.c - opens the allocator as a plugin, beside libc's malloc, uses it
 * through dlsym from several threads and closes it. What it gave out must stay
 * usable, and threads that used it must be able to end after the dlclose. */
#include "check.h"
#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>

enum { THREADS = 4, OBJECTS = 200 };

static void *(*its_malloc)(size_t);
static void (*its_free)(void *);
static sem_t closed, allocated;

static void *
worker(void *arg)
{
	unsigned char *p[OBJECTS];
	for (unsigned i = 0; i < OBJECTS; i++) {
		p[i] = its_malloc(16 + i);
		check(p[i] != NULL);
		key_fill(p[i], 16 + i, i);
	}
	sem_post(&allocated);
	sem_wait(&closed);
	for (unsigned i = 0; i < OBJECTS; i++) {
		check(key_holds(p[i], 16 + i, i));
		its_free(p[i]);
	}
	return arg;
}

int
main(int argc, char **argv)
{
	pthread_t thread[THREADS];
	check(argc == 2);
	void *dso = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
	if (dso == NULL)
		fprintf(stderr, "%s\n", dlerror());
	check(dso != NULL);
	its_malloc = (void *(*)(size_t))dlsym(dso, "malloc");
	its_free = (void (*)(void *))dlsym(dso, "free");
	check(its_malloc != NULL && its_free != NULL);
	check((void *)its_malloc != (void *)malloc);
	check(sem_init(&closed, 0, 0) == 0 && sem_init(&allocated, 0, 0) == 0);
	for (int i = 0; i < THREADS; i++)
		check(pthread_create(&thread[i], NULL, worker, NULL) == 0);
	for (int i = 0; i < THREADS; i++)
		sem_wait(&allocated);
	check(dlclose(dso) == 0);
	for (int i = 0; i < THREADS; i++)
		sem_post(&closed);
	for (int i = 0; i < THREADS; i++)
		check(pthread_join(thread[i], NULL) == 0);
	say("closed\n");
	return 0;
}
