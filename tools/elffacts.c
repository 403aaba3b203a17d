/* elffacts.c - see elffacts.h. */
#define _GNU_SOURCE
#include "elffacts.h"

#include <fcntl.h>
#include <gelf.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../hardening/root.h"

static bool
begins_with_one_of(const char *s, const char *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strncmp(s, list[i], strlen(list[i])) == 0)
			return true;
	return false;
}

static void
look_at_needed(const char *s, struct elf_facts *f)
{
	static const char *const sanitizers[] = { "libasan.so", "libtsan.so", "libhwasan.so",
		"libclang_rt." };
	static const char *const allocators[] = { "libjemalloc", "libtcmalloc", "libmimalloc",
		"libtbbmalloc", "libhoard", "libsnmalloc", "librpmalloc", "libhardened_malloc" };
	f->needs_glibc |= strcmp(s, "libc.so.6") == 0;
	f->needs_musl |= strncmp(s, "libc.musl", 9) == 0 || strcmp(s, "libc.so") == 0;
	f->sanitized |= begins_with_one_of(s, sanitizers, ARRAY_LEN(sanitizers));
	if (begins_with_one_of(s, allocators, ARRAY_LEN(allocators)))
		snprintf(f->needs_allocator, sizeof(f->needs_allocator), "%s", s);
}

static void
read_needed(Elf *e, Elf_Scn *scn, const GElf_Shdr *sh, struct elf_facts *f)
{
	Elf_Data *d = elf_getdata(scn, NULL);
	GElf_Dyn dyn;
	for (int i = 0; d != NULL && gelf_getdyn(d, i, &dyn) != NULL; i++) {
		const char *s = dyn.d_tag == DT_NEEDED ?
		    elf_strptr(e, sh->sh_link, dyn.d_un.d_val) : NULL;
		if (s != NULL)
			look_at_needed(s, f);
	}
}

/* The allocation function of allocators that are linked in under other names. */
static bool
is_other_malloc(const char *s)
{
	static const char *const names[] = { "je_malloc", "_rjem_malloc", "_rjem_je_malloc_default",
		"tc_malloc", "mi_malloc", "rpmalloc", "scalable_malloc", "nedmalloc", "dlmalloc",
		"je_mallocx", "_rjem_mallocx" };
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (strcmp(s, names[i]) == 0)
			return true;
	return false;
}

static void
read_symbols(Elf *e, Elf_Scn *scn, const GElf_Shdr *sh, struct elf_facts *f)
{
	Elf_Data *d = elf_getdata(scn, NULL);
	GElf_Sym sym;
	bool dynamic = sh->sh_type == SHT_DYNSYM;
	for (int i = 0; d != NULL && gelf_getsym(d, i, &sym) != NULL; i++) {
		const char *s = elf_strptr(e, sh->sh_link, sym.st_name);
		if (sym.st_shndx == SHN_UNDEF || s == NULL)
			continue;
		f->own_malloc |= dynamic && strcmp(s, "malloc") == 0;
		f->sanitized |= strcmp(s, "__asan_init") == 0 || strcmp(s, "__tsan_init") == 0 ||
		    strcmp(s, "__msan_init") == 0 || strcmp(s, "__hwasan_init") == 0;
		if (is_other_malloc(s))
			snprintf(f->other_malloc, sizeof(f->other_malloc), "%s", s);
	}
}

static void
read_build_id(Elf_Scn *scn, struct elf_facts *f)
{
	Elf_Data *d = elf_getdata(scn, NULL);
	GElf_Nhdr n;
	size_t name, desc;
	size_t next = d != NULL ? gelf_getnote(d, 0, &n, &name, &desc) : 0;
	if (next == 0 || n.n_type != NT_GNU_BUILD_ID || n.n_namesz != 4)
		return;
	for (size_t i = 0; i < n.n_descsz && i < 32; i++)
		snprintf(f->build_id + 2 * i, 3, "%02x", ((unsigned char *)d->d_buf)[desc + i]);
}

/* hardening/root.h: version and layout of libspanguard.so. */
static void
read_note(Elf_Scn *scn, struct elf_facts *f)
{
	struct spanguard_note_desc desc;
	Elf_Data *d = elf_getdata(scn, NULL);
	GElf_Nhdr n;
	size_t name, at;
	if (d == NULL || gelf_getnote(d, 0, &n, &name, &at) == 0 || n.n_type != NOTE_BUILD ||
	    n.n_descsz != sizeof(desc))
		return;
	memcpy(&desc, (const char *)d->d_buf + at, sizeof(desc));
	snprintf(f->version, sizeof(f->version), "%.*s", (int)sizeof(desc.version), desc.version);
	f->layout = desc.layout;
}

static void
read_named(Elf_Scn *scn, const char *name, struct elf_facts *f)
{
	f->has_debug_info |= strcmp(name, ".debug_info") == 0 || strcmp(name, ".zdebug_info") == 0;
	if (strcmp(name, ".note.gnu.build-id") == 0)
		read_build_id(scn, f);
	if (strcmp(name, NOTE_SECTION) == 0)
		read_note(scn, f);
	if (strcmp(name, ".gnu_debuglink") == 0) {
		Elf_Data *d = elf_getdata(scn, NULL);
		if (d != NULL && d->d_size != 0)
			snprintf(f->debug_link, sizeof(f->debug_link), "%.*s", (int)d->d_size,
			    (const char *)d->d_buf);
	}
}

static void
read_sections(Elf *e, struct elf_facts *f)
{
	GElf_Shdr sh;
	size_t names;
	bool named = elf_getshdrstrndx(e, &names) == 0;
	for (Elf_Scn *scn = elf_nextscn(e, NULL); scn != NULL; scn = elf_nextscn(e, scn)) {
		if (gelf_getshdr(scn, &sh) == NULL)
			continue;
		const char *name = named ? elf_strptr(e, names, sh.sh_name) : NULL;
		if (sh.sh_type == SHT_DYNAMIC)
			read_needed(e, scn, &sh, f);
		if (sh.sh_type == SHT_DYNSYM || sh.sh_type == SHT_SYMTAB)
			read_symbols(e, scn, &sh, f);
		if (name != NULL)
			read_named(scn, name, f);
	}
}

static void
read_interpreter(Elf *e, int fd, struct elf_facts *f)
{
	GElf_Phdr ph;
	size_t n = 0;
	elf_getphdrnum(e, &n);
	for (int i = 0; i < (int)n && gelf_getphdr(e, i, &ph) != NULL; i++) {
		if (ph.p_type != PT_INTERP || ph.p_filesz >= sizeof(f->interp))
			continue;
		ssize_t got = pread(fd, f->interp, ph.p_filesz, (off_t)ph.p_offset);
		f->interp[got > 0 ? got : 0] = 0;
	}
}

struct elf_facts
elf_facts(const char *path)
{
	struct elf_facts f = { 0 };
	GElf_Ehdr eh;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	elf_version(EV_CURRENT);
	Elf *e = fd >= 0 ? elf_begin(fd, ELF_C_READ, NULL) : NULL;
	if (e != NULL && elf_kind(e) == ELF_K_ELF && gelf_getehdr(e, &eh) != NULL) {
		f.is_elf = true;
		f.class = eh.e_ident[EI_CLASS];
		f.machine = eh.e_machine;
		read_interpreter(e, fd, &f);
		read_sections(e, &f);
	}
	elf_end(e);
	if (fd >= 0)
		close(fd);
	return f;
}
