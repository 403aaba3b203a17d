/* audit.c - an LD_AUDIT library that allocates in every hook. It lives in a
 * link namespace of its own with a libc of its own; every symbol binding of
 * the main namespace comes by here while malloc is being bound and called. */
#define _GNU_SOURCE
#include <link.h>
#include <stdlib.h>
#include <string.h>

static void
allocate(void)
{
	void *p = malloc(200);
	if (p != NULL)
		memset(p, 1, 200);
	free(p);
}

unsigned int
la_version(unsigned int version)
{
	allocate();
	return version < LAV_CURRENT ? version : LAV_CURRENT;
}

unsigned int
la_objopen(struct link_map *map, Lmid_t lmid, uintptr_t *cookie)
{
	(void)map, (void)lmid, (void)cookie;
	allocate();
	return LA_FLG_BINDTO | LA_FLG_BINDFROM;
}

#if __ELF_NATIVE_CLASS == 64
uintptr_t
la_symbind64(Elf64_Sym *sym, unsigned int index, uintptr_t *from, uintptr_t *to,
             unsigned int *flags, const char *name)
{
	(void)index, (void)from, (void)to, (void)flags, (void)name;
	allocate();
	return sym->st_value;
}
#endif
