/* dynsym.c - see dynsym.h. The tables are those of the ELF gABI and of the GNU
 * hash section, as the loader left them in memory. */
#define _GNU_SOURCE 1    /* dl_iterate_phdr */
#include "dynsym.h"

#include <elf.h>
#include <link.h>
#include <string.h>

struct module {
	uintptr_t load;
	const ElfW(Sym) *symbols;
	const char *names;
	const uint32_t *gnu_hash;
	const ElfW(Word) *sysv_hash;
};

/* glibc adds the load address to the pointers of a dynamic section, musl and
 * the vdso do not. */
static const void *
module_ptr(const struct module *m, uintptr_t value)
{
	return (const void *)(value < m->load ? value + m->load : value);
}

static bool
module_open(struct module *m, const struct dl_phdr_info *info)
{
	const ElfW(Dyn) *dyn = NULL;

	*m = (struct module){ .load = info->dlpi_addr };
	for (int i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
			dyn = (const void *)(m->load + info->dlpi_phdr[i].p_vaddr);
	for (; dyn != NULL && dyn->d_tag != DT_NULL; dyn++) {
		if (dyn->d_tag == DT_SYMTAB)
			m->symbols = module_ptr(m, dyn->d_un.d_ptr);
		else if (dyn->d_tag == DT_STRTAB)
			m->names = module_ptr(m, dyn->d_un.d_ptr);
		else if (dyn->d_tag == DT_GNU_HASH)
			m->gnu_hash = module_ptr(m, dyn->d_un.d_ptr);
		else if (dyn->d_tag == DT_HASH)
			m->sysv_hash = module_ptr(m, dyn->d_un.d_ptr);
	}
	return m->symbols != NULL && m->names != NULL;
}

static void *
module_function(const struct module *m, uint32_t idx, const char *name)
{
	const ElfW(Sym) *sym = &m->symbols[idx];

	if (sym->st_shndx == SHN_UNDEF || (sym->st_info & 0xf) != STT_FUNC ||
	    strcmp(m->names + sym->st_name, name) != 0)
		return NULL;
	return (void *)(m->load + sym->st_value);
}

static uint32_t
gnu_hash(const char *name)
{
	uint32_t h = 5381;

	for (; *name != '\0'; name++)
		h = h * 33 + (unsigned char)*name;
	return h;
}

/* Table: nbuckets, first symbol, filter words, filter shift, filter, buckets,
 * then one hash per symbol whose low bit ends a chain. */
static void *
module_find_gnu(const struct module *m, const char *name)
{
	uint32_t nbuckets = m->gnu_hash[0];
	uint32_t first = m->gnu_hash[1];
	size_t filter_words = m->gnu_hash[2] * sizeof(ElfW(Addr)) / sizeof(uint32_t);
	const uint32_t *buckets = m->gnu_hash + 4 + filter_words;
	const uint32_t *hashes = buckets + nbuckets;
	uint32_t h = gnu_hash(name);

	if (nbuckets == 0)
		return NULL;
	uint32_t idx = buckets[h % nbuckets];
	if (idx < first)
		return NULL;
	for (;; idx++) {
		void *p = (hashes[idx - first] | 1) == (h | 1) ? module_function(m, idx, name) : NULL;
		if (p != NULL || (hashes[idx - first] & 1) != 0)
			return p;
	}
}

static void *
module_find(const struct module *m, const char *name)
{
	void *p = NULL;

	if (m->gnu_hash != NULL)
		return module_find_gnu(m, name);
	/* [1] is the number of symbols */
	for (ElfW(Word) i = 0; m->sysv_hash != NULL && p == NULL && i < m->sysv_hash[1]; i++)
		p = module_function(m, i, name);
	return p;
}

struct search {
	const char *name;
	const char *beside;    /* only in a module that defines this too, or NULL */
	const void *ours;      /* not this one */
	void *found;
};

static int
search_module(struct dl_phdr_info *info, size_t bytes, void *arg)
{
	struct search *s = arg;
	struct module m;
	void *p;

	(void)bytes;
	if (!module_open(&m, info))
		return 0;
	p = module_find(&m, s->name);
	if (p == NULL || p == s->ours)
		return 0;
	if (s->beside != NULL && module_find(&m, s->beside) == NULL)
		return 0;
	s->found = p;
	return 1;
}

void *
dynsym_function(const char *name, const char *beside, const void *ours)
{
	struct search s = { .name = name, .beside = beside, .ours = ours };

	dl_iterate_phdr(search_module, &s);
	return s.found;
}
