/* procmap.c - see procmap.h.
 *
 *   maps line by line -> struct mapping -> a run of lines with one path, whose
 *   first has offset 0 and an ELF header in memory, is a module; an anonymous
 *   line behind it that its PT_LOADs still cover is its .bss.
 *
 * Cost: one read of maps per question, some 10 us per 100 mappings. */
#include "procmap.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "peek.h"

/* ---- /proc/self/maps ---------------------------------------------------- */

struct maps {
	int fd;
	size_t at, len;
};

static char maps_buf[4096];

static bool
maps_open(struct maps *m)
{
	m->fd = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC);
	m->at = m->len = 0;
	return m->fd >= 0;
}

/* Next byte, or -1 at the end. */
static int
maps_byte(struct maps *m)
{
	if (m->at == m->len) {
		long n;
		do
			n = syscall(SYS_read, m->fd, maps_buf, sizeof(maps_buf));
		while (n < 0 && errno == EINTR);
		if (n <= 0)
			return -1;
		m->at = 0;
		m->len = (size_t)n;
	}
	return (unsigned char)maps_buf[m->at++];
}

/* Hexadecimal up to `stop`; -1 for anything else. */
static int
maps_hex(struct maps *m, uint64_t *v, int stop)
{
	int c;
	*v = 0;
	while ((c = maps_byte(m)) != stop) {
		unsigned lower = (unsigned)c | 0x20;
		if (c >= '0' && c <= '9')
			*v = *v << 4 | (unsigned)(c - '0');
		else if (lower >= 'a' && lower <= 'f')
			*v = *v << 4 | (lower - 'a' + 10);
		else
			return -1;
	}
	return 0;
}

/* The path is what follows the inode and its blanks, up to the newline. */
static void
maps_path(struct maps *m, char *path)
{
	size_t n = 0;
	int c = maps_byte(m);
	while (c == ' ')
		c = maps_byte(m);
	for (; c != '\n' && c >= 0; c = maps_byte(m)) {
		if (n < PROCMAP_PATH_BYTES - 1)
			path[n++] = (char)c;
	}
	path[n] = 0;
}

static bool
maps_next(struct maps *m, struct mapping *out)
{
	uint64_t start, end, offset;
	int c;
	memset(out->perms, 0, sizeof(out->perms));
	if (maps_hex(m, &start, '-') < 0 || maps_hex(m, &end, ' ') < 0)
		return false;
	for (size_t i = 0; (c = maps_byte(m)) != ' '; i++) {
		if (c < 0 || i == 4)
			return false;
		out->perms[i] = (char)c;
	}
	if (maps_hex(m, &offset, ' ') < 0)
		return false;
	while ((c = maps_byte(m)) != ' ')        /* device */
		if (c < 0)
			return false;
	while ((c = maps_byte(m)) >= '0' && c <= '9')   /* inode */
		;
	if (c == '\n')
		out->path[0] = 0;
	else
		maps_path(m, out->path);
	out->kind = out->path[0] == '/' ? REGION_FILE : REGION_ANON;
	out->start = (uintptr_t)start;
	out->end = (uintptr_t)end;
	out->file_offset = offset;
	return true;
}

static void
maps_close(struct maps *m)
{
	syscall(SYS_close, m->fd);
}

bool
procmap_find(uintptr_t addr, struct mapping *out)
{
	int saved = errno;
	struct maps m;
	bool found = false;
	if (maps_open(&m)) {
		while (!found && maps_next(&m, out))
			found = addr - out->start < out->end - out->start;
		maps_close(&m);
	}
	if (!found)
		memset(out, 0, sizeof(*out));
	errno = saved;
	return found;
}

/* ---- modules ------------------------------------------------------------ */

static struct peek headers;      /* reset at the start of each question */

static bool
phdr_read(const struct module *m, unsigned i, ElfW(Phdr) *out)
{
	return peek_read(&headers, out, m->phdr + i * sizeof(*out), sizeof(*out));
}

/* Fills *m from the ELF header at `at`; false if there is none. */
static bool
module_at(uintptr_t at, struct module *m)
{
	ElfW(Ehdr) eh;
	ElfW(Phdr) ph;
	bool biased = false;
	if (!peek_read(&headers, &eh, at, sizeof(eh)) ||
	    memcmp(eh.e_ident, ELFMAG, SELFMAG) != 0 || eh.e_phentsize != sizeof(ph))
		return false;
	m->phdr = at + eh.e_phoff;
	m->phnum = eh.e_phnum;
	m->start = at;
	m->end = at;
	for (unsigned i = 0; i < m->phnum && phdr_read(m, i, &ph); i++) {
		if (ph.p_type != PT_LOAD)
			continue;
		if (!biased) {
			m->bias = at - (ph.p_vaddr - ph.p_offset);
			biased = true;
		}
		uintptr_t end = m->bias + ph.p_vaddr + ph.p_memsz;
		if (end > m->end)
			m->end = end;
	}
	return biased;
}

/* The PT_LOAD that covers addr. */
static bool
module_load(const struct module *m, uintptr_t addr, ElfW(Phdr) *out)
{
	uintptr_t vaddr = addr - m->bias;
	for (unsigned i = 0; i < m->phnum && phdr_read(m, i, out); i++) {
		if (out->p_type == PT_LOAD && vaddr - out->p_vaddr < out->p_memsz)
			return true;
	}
	return false;
}

static void
build_id_in(struct module *m, uintptr_t at, size_t bytes)
{
	ElfW(Nhdr) nh;
	char name[4];
	while (bytes >= sizeof(nh) && peek_read(&headers, &nh, at, sizeof(nh))) {
		size_t name_bytes = align_up(nh.n_namesz, 4);
		size_t all = sizeof(nh) + name_bytes + align_up(nh.n_descsz, 4);
		if (nh.n_type == NT_GNU_BUILD_ID && nh.n_namesz == 4 &&
		    peek_read(&headers, name, at + sizeof(nh), 4) &&
		    memcmp(name, "GNU", 4) == 0 && nh.n_descsz <= BUILD_ID_BYTES &&
		    peek_read(&headers, m->build_id, at + sizeof(nh) + name_bytes, nh.n_descsz)) {
			m->build_id_bytes = nh.n_descsz;
			return;
		}
		if (all > bytes)
			return;
		at += all;
		bytes -= all;
	}
}

static void
module_build_id(struct module *m)
{
	ElfW(Phdr) ph;
	m->build_id_bytes = 0;
	for (unsigned i = 0; i < m->phnum && phdr_read(m, i, &ph); i++) {
		if (ph.p_type == PT_NOTE && m->build_id_bytes == 0)
			build_id_in(m, m->bias + ph.p_vaddr, ph.p_memsz);
	}
}

static struct mapping line;

/* The last mapping at or below addr that starts a file is the candidate; its
 * program headers decide. */
static bool
module_find(uintptr_t addr, struct module *out)
{
	struct maps m;
	ElfW(Phdr) ph;
	bool have = false;
	headers = (struct peek){ { 0 } };
	if (!maps_open(&m))
		return false;
	while (maps_next(&m, &line) && line.start <= addr) {
		bool vdso = strcmp(line.path, "[vdso]") == 0;
		if ((line.path[0] != '/' && !vdso) || line.file_offset != 0 ||
		    line.perms[0] != 'r')
			continue;
		/* A file's later mapping of offset 0 (a copy as data) must not
		 * hide the module that is being loaded around it. */
		if (have && strcmp(line.path, out->path) == 0 && line.start < out->end)
			continue;
		have = module_at(line.start, out);
		memcpy(out->path, line.path, sizeof(out->path));
	}
	line.start = line.end = 0;      /* a mark would take it for a pointer to what lies there */
	maps_close(&m);
	return have && module_load(out, addr, &ph);
}

bool
procmap_module(uintptr_t addr, struct module *out)
{
	int saved = errno;
	bool found = module_find(addr, out);
	if (found)
		module_build_id(out);
	errno = saved;
	return found;
}

static struct module scratch;

uintptr_t
procmap_eh_frame_hdr(uintptr_t pc)
{
	int saved = errno;
	ElfW(Phdr) ph;
	uintptr_t hdr = 0;
	if (module_find(pc, &scratch)) {
		for (unsigned i = 0; i < scratch.phnum && phdr_read(&scratch, i, &ph); i++) {
			if (ph.p_type == PT_GNU_EH_FRAME)
				hdr = scratch.bias + ph.p_vaddr;
		}
	}
	errno = saved;
	return hdr;
}

/* ---- kinds -------------------------------------------------------------- */

/* Where the thread control block lies: at the upper end of a thread's stack
 * in both glibc and musl. */
#if defined(__x86_64__)
static uintptr_t
thread_pointer(void)
{
	uintptr_t tp;
	__asm__("mov %%fs:0, %0" : "=r"(tp));
	return tp;
}
enum { CANONICAL_BITS = 47 };
#elif defined(__aarch64__)
static uintptr_t
thread_pointer(void)
{
	uintptr_t tp;
	__asm__("mrs %0, tpidr_el0" : "=r"(tp));
	return tp;
}
enum { CANONICAL_BITS = 48 };
#else
#error "spanguard knows x86-64 and arm64"
#endif

static bool
on_this_stack(const struct mapping *map, uintptr_t addr, uintptr_t sp)
{
	uintptr_t top = thread_pointer();
	if (sp < map->start || sp >= map->end || addr < align_down(sp, 256))
		return false;
	if (top < sp || top >= map->end)
		top = map->end;
	return addr < top;
}

static bool
module_kind(uintptr_t addr, struct mapping *map)
{
	ElfW(Phdr) ph;
	if (!module_find(addr, &scratch) || !module_load(&scratch, addr, &ph))
		return false;
	memcpy(map->path, scratch.path, sizeof(map->path));
	if (strcmp(map->path, "[vdso]") == 0)
		map->kind = REGION_VDSO;
	else if (addr - scratch.bias - ph.p_vaddr >= ph.p_filesz)
		map->kind = REGION_BSS;
	else if ((ph.p_flags & PF_X) != 0)
		map->kind = REGION_CODE;
	else
		map->kind = (ph.p_flags & PF_W) != 0 ? REGION_DATA : REGION_RODATA;
	return true;
}

static bool
starts_with(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

void
procmap_classify(uintptr_t addr, uintptr_t sp, struct mapping *out)
{
	int saved = errno;
	if (!procmap_find(addr, out)) {
		out->kind = addr >> CANONICAL_BITS != 0 ? REGION_NONCANONICAL : REGION_NONE;
	} else if (sp != 0 && on_this_stack(out, addr, sp)) {
		out->kind = REGION_THIS_STACK;
	} else if (starts_with(out->path, "[stack")) {
		out->kind = REGION_MAIN_STACK;
	} else if (starts_with(out->path, "[heap]")) {
		out->kind = REGION_BRK;
	} else if (!module_kind(addr, out) && starts_with(out->path, "[v")) {
		out->kind = REGION_VDSO;
	}
	errno = saved;
}

/* ---- dynamic symbols ---------------------------------------------------- */

struct symtab {
	uintptr_t syms, strs, gnu_hash, hash;
};

/* glibc rewrites the pointers of the dynamic section to addresses when it
 * loads a module, musl does not. */
static uintptr_t
dyn_addr(const struct module *m, uintptr_t v)
{
	return v >= m->start && v < m->end ? v : m->bias + v;
}

static bool
symtab_find(const struct module *m, struct symtab *t)
{
	ElfW(Phdr) ph;
	ElfW(Dyn) d;
	uintptr_t at = 0;
	*t = (struct symtab){ 0 };
	for (unsigned i = 0; i < m->phnum && phdr_read(m, i, &ph); i++) {
		if (ph.p_type == PT_DYNAMIC)
			at = m->bias + ph.p_vaddr;
	}
	for (; at != 0 && peek_read(&headers, &d, at, sizeof(d)); at += sizeof(d)) {
		uintptr_t v = dyn_addr(m, d.d_un.d_ptr);
		switch (d.d_tag) {
		case DT_NULL: return t->syms != 0 && t->strs != 0;
		case DT_SYMTAB: t->syms = v; break;
		case DT_STRTAB: t->strs = v; break;
		case DT_GNU_HASH: t->gnu_hash = v; break;
		case DT_HASH: t->hash = v; break;
		}
	}
	return false;
}

static uint32_t
word_at(uintptr_t at)
{
	uint32_t v = 0;
	peek_read(&headers, &v, at, sizeof(v));
	return v;
}

/* Neither table says how many symbols there are; DT_HASH has one chain link
 * per symbol, and the last chain of DT_GNU_HASH ends at the last symbol. */
static uint32_t
symtab_count(const struct symtab *t)
{
	if (t->hash != 0)
		return word_at(t->hash + 4);
	if (t->gnu_hash == 0)
		return 0;
	uint32_t nbuckets = word_at(t->gnu_hash);
	uint32_t first = word_at(t->gnu_hash + 4);
	uint32_t bloom_words = word_at(t->gnu_hash + 8);
	uintptr_t buckets = t->gnu_hash + 16 + bloom_words * sizeof(ElfW(Addr));
	uintptr_t chains = buckets + nbuckets * sizeof(uint32_t);
	uint32_t last = 0;
	for (uint32_t i = 0; i < nbuckets; i++) {
		uint32_t sym = word_at(buckets + i * sizeof(uint32_t));
		last = sym > last ? sym : last;
	}
	if (last < first)
		return 0;
	while (peek_ok(&headers, chains + (last - first) * sizeof(uint32_t), 4) &&
	    (word_at(chains + (last - first) * sizeof(uint32_t)) & 1) == 0)
		last++;
	return last + 1;
}

bool
procmap_symbol(const struct module *m, uintptr_t addr, char *name, size_t cap,
    uintptr_t *offset)
{
	struct symtab t;
	ElfW(Sym) s;
	ElfW(Sym) best = { 0 };
	uintptr_t vaddr = addr - m->bias;
	headers = (struct peek){ { 0 } };
	if (!symtab_find(m, &t))
		return false;
	uint32_t count = symtab_count(&t);
	for (uint32_t i = 1; i < count && best.st_name == 0; i++) {
		if (!peek_read(&headers, &s, t.syms + i * sizeof(s), sizeof(s)))
			break;
		unsigned type = ELF64_ST_TYPE(s.st_info);
		if ((type == STT_FUNC || type == STT_OBJECT) && s.st_shndx != SHN_UNDEF &&
		    vaddr - s.st_value < s.st_size)
			best = s;
	}
	if (best.st_name == 0 || !peek_str(&headers, name, cap, t.strs + best.st_name))
		return false;
	*offset = vaddr - best.st_value;
	return true;
}
