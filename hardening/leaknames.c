/* leaknames.c - see leaknames.h. */
#define _GNU_SOURCE
#include "leaknames.h"

#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../src/facts.h"
#include "../src/peek.h"
#include "../src/report.h"

enum { KEPT = 1024 };

struct file {
	const char *data;
	size_t bytes;
};

/* Names are offsets into the string table of a file that is not mapped any more, so
 * the name itself is kept; most functions are asked for many times. */
static struct {
	uintptr_t addr;
	char name[64];               /* "": there is none */
} kept[KEPT];

/* ---- the file ----------------------------------------------------------- */

static bool
map_file(const char *path, struct file *out)
{
	int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
	long bytes = fd >= 0 ? syscall(SYS_lseek, fd, 0, SEEK_END) : -1;
	/* 0L: of an int on the stack the upper half is anything, which clang leaves so */
	long at = bytes > 0 ? syscall(SYS_mmap, NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0L) : -1;
	if (fd >= 0)
		syscall(SYS_close, fd);
	out->data = (const char *)at;
	out->bytes = (size_t)bytes;
	return at != -1;
}

/* `n` things of `size` bytes at an offset; NULL: not all of that is in the file. */
static const void *
part(const struct file *f, uint64_t offset, uint64_t n, size_t size)
{
	uint64_t bytes;
	if (__builtin_mul_overflow(n, size, &bytes) || bytes > f->bytes ||
	    offset > f->bytes - bytes || offset % sizeof(uint32_t) != 0)
		return NULL;
	return f->data + offset;
}

/* The header in memory says where the sections of its file are: another build's has
 * them elsewhere. */
static const ElfW(Ehdr) *
header_of(const struct file *f, const struct module *m)
{
	ElfW(Ehdr) loaded;
	const ElfW(Ehdr) *h = part(f, 0, 1, sizeof(*h));
	struct peek k = { 0 };
	bool same = h != NULL && peek_read(&k, &loaded, m->start, sizeof(loaded)) &&
	    memcmp(h, &loaded, sizeof(loaded)) == 0;
	return same && memcmp(h->e_ident, ELFMAG, SELFMAG) == 0 &&
	    h->e_shentsize == sizeof(ElfW(Shdr)) ? h : NULL;
}

static const ElfW(Shdr) *
symbol_section(const struct file *f, const ElfW(Ehdr) *h, const ElfW(Shdr) **strings)
{
	const ElfW(Shdr) *s = part(f, h->e_shoff, h->e_shnum, sizeof(*s));
	for (size_t i = 0; s != NULL && i < h->e_shnum; i++)
		if (s[i].sh_type == SHT_SYMTAB && s[i].sh_link < h->e_shnum) {
			*strings = &s[s[i].sh_link];
			return &s[i];
		}
	return NULL;
}

/* The string at a place in the table, if it ends in there. */
static const char *
string_at(const struct file *f, const ElfW(Shdr) *strings, size_t at)
{
	const char *all = strings->sh_offset <= f->bytes &&
	    strings->sh_size <= f->bytes - strings->sh_offset ? f->data + strings->sh_offset : NULL;
	return all != NULL && at < strings->sh_size &&
	    memchr(all + at, 0, strings->sh_size - at) != NULL ? all + at : NULL;
}

static void
look_up(const struct file *f, const struct module *m, uintptr_t addr, char *out, size_t cap)
{
	const ElfW(Shdr) *strings = NULL;
	const ElfW(Ehdr) *h = header_of(f, m);
	const ElfW(Shdr) *s = h != NULL ? symbol_section(f, h, &strings) : NULL;
	size_t n = s != NULL ? s->sh_size / sizeof(ElfW(Sym)) : 0;
	const ElfW(Sym) *sym = s != NULL ? part(f, s->sh_offset, n, sizeof(*sym)) : NULL;
	for (size_t i = 0; sym != NULL && i < n; i++) {
		if (ELF64_ST_TYPE(sym[i].st_info) != STT_FUNC || sym[i].st_shndx == SHN_UNDEF ||
		    addr - m->bias - sym[i].st_value >= sym[i].st_size)
			continue;
		const char *name = string_at(f, strings, sym[i].st_name);
		if (name != NULL)
			strncpy(out, name, cap - 1);
		return;
	}
}

const char *
leaknames_find(const struct module *m, uintptr_t addr)
{
	static char name[LEAKNAME_BYTES];
	struct file f;
	size_t slot = addr * 0x9e3779b97f4a7c15u >> 32 & (KEPT - 1);
	if (m == NULL || m->path[0] != '/')
		return NULL;
	if (kept[slot].addr == addr)
		return kept[slot].name[0] != 0 ? kept[slot].name : NULL;
	memset(name, 0, sizeof(name));
	if (map_file(m->path, &f)) {
		look_up(&f, m, addr, name, sizeof(name));
		syscall(SYS_munmap, f.data, f.bytes);
	}
	if (strlen(name) < sizeof(kept[slot].name)) {
		kept[slot].addr = addr;
		strcpy(kept[slot].name, name);
	}
	return name[0] != 0 ? name : NULL;
}

bool
leaknames_look_up(uintptr_t pc, const char **function, const char **module)
{
	if (!facts_look_up(pc, function, module))
		return false;
	if (*function == NULL)
		*function = leaknames_find(facts_frame(pc)->module, pc);
	return true;
}

void
leaknames_forget(void)
{
	memset(kept, 0, sizeof(kept));
}

/* ---- C++ ---------------------------------------------------------------- */

/* "3Foo": appends Foo, and "::" before it if it is not the first. */
static const char *
take_word(const char *s, char *plain, size_t *n, size_t cap)
{
	size_t bytes = 0;
	while (*s >= '0' && *s <= '9' && bytes < LEAKNAME_BYTES)
		bytes = bytes * 10 + (size_t)(*s++ - '0');
	if (bytes == 0 || strnlen(s, bytes) < bytes || *n + bytes + sizeof("::") > cap)
		return NULL;
	if (*n != 0) {
		memcpy(plain + *n, "::", 2);
		*n += 2;
	}
	memcpy(plain + *n, s, bytes);
	*n += bytes;
	return s + bytes;
}

bool
leaknames_plain(const char *linked, char *plain, size_t cap)
{
	size_t n = 0;
	bool nested = strncmp(linked, "_ZN", 3) == 0;
	const char *s = linked + (nested ? 3 : 2);
	if (strncmp(linked, "_Z", 2) != 0)
		return false;
	while (nested && (*s == 'K' || *s == 'V' || *s == 'R' || *s == 'O'))
		s++;                 /* const, volatile, & and && of a member function */
	if (!nested && *s == 'L')    /* internal linkage */
		s++;
	do {
		s = *s >= '1' && *s <= '9' ? take_word(s, plain, &n, cap) : NULL;
	} while (s != NULL && nested && *s != 'E');
	if (s == NULL)
		return false;
	plain[n] = 0;
	return true;
}
