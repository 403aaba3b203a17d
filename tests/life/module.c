/* module.c - a plugin: allocates when loaded, frees when unloaded, and hands
 * memory over in both directions. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void *module_alloc(size_t n);
void module_free(void *p);
void module_keep(void *p);

static void *loaded, *kept;

__attribute__((constructor)) static void
load(void)
{
	loaded = malloc(300);
	memset(loaded, 3, 300);
}

__attribute__((destructor)) static void
unload(void)
{
	free(loaded);
	if (kept != NULL && write(1, "module\n", 7) != 7)
		_exit(94);
	free(kept);
}

void *
module_alloc(size_t n)
{
	void *p = malloc(n);
	memset(p, 0x77, n);
	return p;
}

void
module_free(void *p)
{
	free(p);
}

void
module_keep(void *p)
{
	kept = p;
}
