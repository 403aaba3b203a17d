/* plugin.c - opens module.c in one of the ways argv[1] names and moves objects
 * across: close (dlclose with objects left over), deep (RTLD_DEEPBIND: the
 * module's malloc is libc's), space (dlmopen: a second libc), spacefree (frees
 * the second libc's object here). Prints the address before a risky free. */
#include "check.h"
#include <dlfcn.h>

struct module {
	void *handle;
	void *(*alloc)(size_t);
	void (*free)(void *);
};

static struct module
opened(void *handle)
{
	if (handle == NULL)
		fprintf(stderr, "%s\n", dlerror());
	check(handle != NULL);
	struct module m = { .handle = handle };
	m.alloc = (void *(*)(size_t))dlsym(handle, "module_alloc");
	m.free = (void (*)(void *))dlsym(handle, "module_free");
	check(m.alloc != NULL && m.free != NULL);
	return m;
}

static void
check_and_free(unsigned char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		check(p[i] == 0x77);
	free(p);
}

static void
close_many(const char *path)
{
	for (size_t i = 0; i < 200; i++) {
		struct module m = opened(dlopen(path, RTLD_NOW | RTLD_LOCAL));
		void *left = m.alloc(40 + i * 50);
		m.free(malloc(100));
		check(dlclose(m.handle) == 0);
		check_and_free(left, 40 + i * 50);
	}
}

__attribute__((noinline)) static void
free_theirs(unsigned char *p)
{
	printf("ADDR %p\n", (void *)p);
	fflush(stdout);
	check_and_free(p, 2000);
}

int
main(int argc, char **argv)
{
	check(argc == 3);
	const char *how = argv[1], *path = argv[2];
	if (strcmp(how, "close") == 0) {
		close_many(path);
	} else if (strcmp(how, "deep") == 0) {
		struct module m = opened(dlopen(path, RTLD_NOW | RTLD_DEEPBIND));
		m.free(m.alloc(10));
		free_theirs(m.alloc(2000));
	} else {
		struct module m = opened(dlmopen(LM_ID_NEWLM, path, RTLD_NOW));
		unsigned char *p = m.alloc(2000);
		churn(4, 1000);
		if (strcmp(how, "spacefree") == 0)
			free_theirs(p);
		m.free(p);
		check(dlclose(m.handle) == 0);
	}
	say("plugged\n");
	return 0;
}
