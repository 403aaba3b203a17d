/* process_modules.c - what is mapped where, in H20: a made-up /proc/self/maps over pages
 * of ours, with images of modules in some, read in pieces; addresses are looked up, and
 * the model, which drew the lines, knows what each is.
 *
 *   | file | module: text | data | .bss (without a name) | [heap] | ...      a page each,
 *                                                                 with gaps between */
#define _GNU_SOURCE
#include "process.h"

#include <elf.h>
#include <errno.h>
#include <link.h>
#include <string.h>
#include <sys/mman.h>

#include "fake_die.h"
#include "print.h"
#include "procmap.h"
#include "report.h"
#include "../hardening/mark.h"
#include "../hardening/markreport.h"

enum { PAGES = 24, PAGE_BYTES = 4096, LINES = PAGES, ID_BYTES = 20, FILE_PART = 2048, SYMBOLS = 4,
	MODULE_BYTES = 3 * PAGE_BYTES, QUERIES = 6 };

enum what { ANON, NAMED, HEAP, STACK, VVAR, A_FILE, MODULE, VDSO, KINDS };

/* A page with the headers of a module. */
struct image {
	ElfW(Ehdr) eh;
	ElfW(Phdr) ph[5];
	ElfW(Nhdr) other, note;
	char name[4];
	uint8_t id[ID_BYTES];
	ElfW(Dyn) dynamic[5];
	ElfW(Sym) symbol[SYMBOLS + 1];
	char names[64];
	uint32_t gnu[4 + 2 + 1 + SYMBOLS], sysv[3];
};

static char land[PAGES][PAGE_BYTES] ALIGNED(PAGE_BYTES);

struct naive_line {
	uintptr_t start, end;
	enum what what;
	const char *path;
};

static struct naive_line lines[LINES];
static unsigned n_lines;

struct naive_module {
	uintptr_t at, vaddr;
	const char *path;
	bool vdso, has_id, bad_id, has_frames, gnu, sysv, no_symbols;
};

static struct naive_module modules[PAGES / 3];
static unsigned n_modules;

/* ---- the images ---- */

static void
make_image(const struct naive_module *m, uint64_t r)
{
	struct image *i = (struct image *)m->at;
	uintptr_t v = m->vaddr, add = r & 1 ? m->at : v;       /* relocated pointers, or not */

	memset(i, 0, PAGE_BYTES);
	memcpy(i->eh.e_ident, ELFMAG, SELFMAG);
	i->eh.e_phoff = offsetof(struct image, ph);
	i->eh.e_phentsize = sizeof(i->ph[0]);
	i->eh.e_phnum = ARRAY_LEN(i->ph);
	i->ph[0] = (ElfW(Phdr)){ .p_type = m->has_id || m->bad_id ? PT_NOTE : PT_NULL, .p_vaddr = v + offsetof(struct image, other),
		.p_memsz = 2 * sizeof(i->note) + 4 + ID_BYTES };
	i->ph[1] = (ElfW(Phdr)){ .p_type = PT_LOAD, .p_flags = PF_R | PF_X, .p_vaddr = v, .p_filesz = PAGE_BYTES,
		.p_memsz = PAGE_BYTES };
	i->ph[2] = (ElfW(Phdr)){ .p_type = PT_LOAD, .p_flags = PF_R | (r & 2 ? PF_W : 0), .p_vaddr = v + PAGE_BYTES,
		.p_offset = PAGE_BYTES, .p_filesz = FILE_PART, .p_memsz = 2 * PAGE_BYTES };
	i->ph[3] = (ElfW(Phdr)){ .p_type = m->has_frames ? PT_GNU_EH_FRAME : PT_NULL, .p_vaddr = v + 0x800 };
	i->ph[4] = (ElfW(Phdr)){ .p_type = PT_DYNAMIC, .p_vaddr = v + offsetof(struct image, dynamic) };
	i->other = (ElfW(Nhdr)){ .n_type = 5 };
	i->note = (ElfW(Nhdr)){ .n_namesz = 4, .n_descsz = m->bad_id ? 2 * ID_BYTES : ID_BYTES, .n_type = NT_GNU_BUILD_ID };
	memcpy(i->name, "GNU", 4);
	memset(i->id, (int)(r >> 8 & 255), ID_BYTES);
	i->dynamic[0] = (ElfW(Dyn)){ DT_SYMTAB, { offsetof(struct image, symbol) + add } };
	if (m->no_symbols)
		i->dynamic[0].d_tag = DT_DEBUG;
	i->dynamic[1] = (ElfW(Dyn)){ DT_STRTAB, { offsetof(struct image, names) + add } };
	size_t at = 2;
	if (m->gnu)
		i->dynamic[at++] = (ElfW(Dyn)){ DT_GNU_HASH, { offsetof(struct image, gnu) + add } };
	if (m->sysv)
		i->dynamic[at++] = (ElfW(Dyn)){ DT_HASH, { offsetof(struct image, sysv) + add } };
	strcpy(i->names + 1, "text");
	strcpy(i->names + 8, "data");
	strcpy(i->names + 16, "zero");
	i->symbol[1] = (ElfW(Sym)){ .st_name = 1, .st_info = STT_FUNC, .st_shndx = SHN_UNDEF, .st_value = v, .st_size = 9999 };
	i->symbol[2] = (ElfW(Sym)){ .st_name = 1, .st_info = STT_FUNC, .st_shndx = 1, .st_value = v + 0x100, .st_size = 0x200 };
	i->symbol[3] = (ElfW(Sym)){ .st_name = 8, .st_info = STT_OBJECT, .st_shndx = 2, .st_value = v + PAGE_BYTES,
		.st_size = 0x400 };
	i->symbol[4] = (ElfW(Sym)){ .st_name = 16, .st_info = STT_OBJECT, .st_shndx = 3,
		.st_value = v + 2 * PAGE_BYTES, .st_size = 0x800 };
	memcpy(i->gnu, (uint32_t[]){ 1, 2, 1, 0, 0, 0, 2, 2, 2, 3 }, 10 * sizeof(uint32_t));
	if (r >> 26 & 1)                       /* no name has a symbol */
		i->gnu[6] = 0;
	memcpy(i->sysv, (uint32_t[]){ 1, SYMBOLS + 1 }, 2 * sizeof(uint32_t));
}

/* ---- the lines ---- */

static const char *const paths[KINDS] = { "", "[anon:x]", "[heap]", "[stack]", "[vvar]", "/file", "/lib/m", "[vdso]" };

static void
put_line(struct sim_file *f, uintptr_t at, const char *perms, unsigned offset, enum what what, bool own)
{
	struct naive_line *l = &lines[n_lines++];

	*l = (struct naive_line){ at, at + PAGE_BYTES, what, own ? paths[what] : "" };
	f->n += (size_t)sprintf(f->data + f->n, "%lx-%lx %s %08x 08:01 %u%s%s\n", (unsigned long)l->start,
	    (unsigned long)l->end, perms, offset, offset + 7, *l->path != 0 ? "          " : "", l->path);
}

static void
put_module(struct sim_file *f, uintptr_t at, enum what what, uint64_t r)
{
	struct naive_module *m = &modules[n_modules++];

	*m = (struct naive_module){ at, r >> 16 & 1 ? 0x10000 : 0, paths[what], .vdso = what == VDSO,
		.has_id = (r >> 23 & 3) == 1, .bad_id = (r >> 23 & 3) == 2, .has_frames = r >> 18 & 1, .gnu = r >> 19 & 1,
		.sysv = r >> 20 & 1, .no_symbols = (r >> 27 & 7) == 1 };
	make_image(m, r);
	put_line(f, at, "r-xp", 0, what, true);
	put_line(f, at + PAGE_BYTES, "rw-p", PAGE_BYTES, what, true);
	/* its .bss has no name; or the file is mapped there once more, as data */
	put_line(f, at + 2 * PAGE_BYTES, "rw-p", 0, what, (r >> 21 & 3) == 0 && what == MODULE);
}

static void
draw_lines(struct sim_file *f, uint64_t *random)
{
	n_lines = n_modules = 0;
	f->n = 0;
	for (unsigned page = 0; page + 3 < PAGES;) {
		uint64_t r = sg_random(random);
		enum what what = (enum what)(r >> 32 & 7);
		uintptr_t at = (uintptr_t)land[page];
		if (what >= MODULE) {
			put_module(f, at, what, r);
			page += 3;
		} else {
			memset((void *)at, 0, PAGE_BYTES);
			put_line(f, at, r >> 22 & 1 ? "rw-p" : "---p", 0, what, true);
			page++;
		}
		page += (r >> 40 & 3) == 0;                    /* a gap */
	}
}

/* A line that is none ends what is read. */
static void
spoil(struct sim_file *f, const struct sgf_op *op)
{
	static const char *const bad[] = { "zz", "1000-2g00 r--p 0 0 0\n", "1000-2000 r--pp 0 0 0\n", "1000-2000 r-", "1-2 r--p x ",
		"1-2 r--p 0", "1-2 r--p 0 08:01", "1" };

	if (op->b & 1)
		f->n += (size_t)sprintf(f->data + f->n, "%s", bad[op->b >> 1 & 7]);
}

/* ---- the answers ---- */

static const struct naive_line *
naive_find(uintptr_t addr)
{
	for (unsigned i = 0; i < n_lines; i++)
		if (addr >= lines[i].start && addr < lines[i].end)
			return &lines[i];
	return NULL;
}

static const struct naive_module *
naive_module(uintptr_t addr)
{
	for (unsigned i = 0; i < n_modules; i++)
		if (addr - modules[i].at < MODULE_BYTES)
			return &modules[i];
	return NULL;
}

static enum region_kind
naive_kind(uintptr_t addr, uintptr_t sp)
{
	const struct naive_line *l = naive_find(addr);
	const struct naive_module *m = naive_module(addr);

	if (l == NULL)
		return addr >> 47 != 0 ? REGION_NONCANONICAL : REGION_NONE;
	if (sp - l->start < PAGE_BYTES && sp != 0 && addr >= (sp & ~(uintptr_t)255))
		return REGION_THIS_STACK;
	switch (l->what) {
	case STACK: return REGION_MAIN_STACK;
	case HEAP: return REGION_BRK;
	case VVAR: return REGION_VDSO;
	case A_FILE: return REGION_FILE;
	case MODULE:
	case VDSO: break;
	default: return REGION_ANON;
	}
	if (m->vdso)
		return REGION_VDSO;
	if (addr - m->at >= PAGE_BYTES + FILE_PART)
		return REGION_BSS;
	if (addr - m->at < PAGE_BYTES)
		return REGION_CODE;
	return ((const struct image *)m->at)->ph[2].p_flags & PF_W ? REGION_DATA : REGION_RODATA;
}

static void
check_symbol(const struct naive_module *m, const struct module *got, uintptr_t addr)
{
	char name[16] = "";
	uintptr_t offset = 0, at = addr - m->at;
	bool found = procmap_symbol(got, addr, name, sizeof(name), &offset);
	const char *want = at - 0x100 < 0x200 ? "text" : at - PAGE_BYTES < 0x400 ? "data" :
	    at - 2 * PAGE_BYTES < 0x800 ? "zero" : NULL;
	uintptr_t from = want == NULL ? 0 : *want == 't' ? 0x100 : *want == 'd' ? PAGE_BYTES : 2 * PAGE_BYTES;

	bool listed = m->sysv || (m->gnu && ((const struct image *)m->at)->gnu[6] != 0);
	if (!listed || m->no_symbols)
		want = NULL;                   /* nobody says how many symbols there are */
	SG_CHECK(MODEL, found == (want != NULL) && (!found || (strcmp(name, want) == 0 && offset == at - from)),
	    "at %#lx of a module is %s+%#lx, not %s", (unsigned long)at, found ? name : "nothing",
	    (unsigned long)offset, want != NULL ? want : "nothing");
}

static void
ask(uintptr_t addr, uintptr_t sp, bool unreadable)
{
	static struct mapping map;
	static struct module got;
	const struct naive_line *l = unreadable ? NULL : naive_find(addr);
	const struct naive_module *m = unreadable ? NULL : naive_module(addr);

	errno = 77;
	bool found = procmap_find(addr, &map);
	SG_CHECK(MODEL, found == (l != NULL) && (!found || (map.start == l->start && map.end == l->end &&
	    strcmp(map.path, l->path) == 0)), "line of %#lx: %#lx %s", (unsigned long)addr, (unsigned long)map.start, map.path);
	procmap_classify(addr, sp, &map);
	enum region_kind want = unreadable ? addr >> 47 != 0 ? REGION_NONCANONICAL : REGION_NONE : naive_kind(addr, sp);
	SG_CHECK(MODEL, map.kind == want, "%#lx is of kind %d, not %d", (unsigned long)addr, (int)map.kind, (int)want);
	found = procmap_module(addr, &got);
	SG_CHECK(MODEL, found == (m != NULL), "%#lx is in %s module", (unsigned long)addr, found ? "a" : "no");
	uintptr_t frames = m != NULL && m->has_frames ? m->at + 0x800 : 0;
	SG_CHECK(MODEL, procmap_eh_frame_hdr(addr) == frames, "frames of %#lx", (unsigned long)addr);
	SG_CHECK(ERRNO, errno == 77, "errno is %d", errno);
	SG_CHECK(MODEL, sim_open_fds() == 0, "a descriptor stays open");
	sg_note((unsigned)want);
	if (!found || m == NULL)
		return;
	SG_CHECK(MODEL, got.start == m->at && got.end == m->at + MODULE_BYTES && got.bias == m->at - m->vaddr &&
	    strcmp(got.path, m->path) == 0 && got.build_id_bytes == (m->has_id ? ID_BYTES : 0) &&
	    memcmp(got.build_id, ((const struct image *)m->at)->id, got.build_id_bytes) == 0, "another module: %s", got.path);
	check_symbol(m, &got, addr);
}

void
process_maps(const struct sgf_op *op)
{
	struct sim_file *f = sim_file("/proc/self/maps", true);
	uint64_t random = op->imm;

	if (f == NULL)
		return;
	draw_lines(f, &random);
	spoil(f, op);
	f->open_errno = (op->b & 0x70) == 0x70 ? EACCES : 0;
	for (unsigned i = 0; i < QUERIES; i++) {
		uint64_t r = sg_random(&random);
		uintptr_t addr = (uintptr_t)land + r % sizeof(land), sp = r >> 32 & 3 ? 0 : addr + (r >> 40 & 1023) - 512;
		if ((r >> 34 & 15) == 0)
			addr = (r >> 35 & 1) != 0 ? (uintptr_t)1 << 63 | addr : 16;
		ask(addr, sp, f->open_errno != 0);
	}
	/* other parts ask about the real process */
	f->n = 0;
	f->path[0] = 0;
	process_log_start();
}

/* ---- words into freed memory ---- */

void
process_stale(const struct sgf_op *op)
{
	static const char *const wheres[] = { "is on the stack, in a register or in the thread-local storage of thread ",
		"", "is in a range that was given to spanguard_root_add\n", "" };
	struct mark_reference r = { .at = (uintptr_t)land + op->a, .value = (uintptr_t)0x5000 + op->b,
		.place = (enum mark_place)(op->imm & 3), .tid = (int)(op->imm >> 2 & 3) + 1, .unreached = op->imm >> 4 & 1 };
	char path[64], want[128];
	size_t words = op->imm >> 8 & 3;
	struct sim_file *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/comm", r.tid);
	f = sim_file(path, true);
	if (f == NULL)
		return;
	f->open_errno = op->imm >> 5 & 1 ? ENOENT : 0;
	f->n = (size_t)sprintf(f->data, "%s", op->imm >> 6 & 1 ? "" : "thr\033ead\n");
	sim.planned_reads = SIM_PLAN;
	mark_report_reference(&r, words);
	snprintf(want, sizeof(want), "==1==WARNING: spanguard: stale-pointer to %#lx stands at %#lx\n",
	    (unsigned long)r.value, (unsigned long)r.at);
	SG_CHECK(WORDS, strncmp(fake_note, want, strlen(want)) == 0, "no '%s' in %s", want, fake_note);
	SG_CHECK(WORDS, strstr(fake_note, wheres[r.place]) != NULL, "no '%s' in %s", wheres[r.place], fake_note);
	snprintf(want, sizeof(want), "thread %d%s\n", r.tid, f->open_errno == 0 && f->n != 0 ? " (thr\\x1bead)" : "");
	SG_CHECK(WORDS, r.place != MARK_IN_STACK || strstr(fake_note, want) != NULL, "no '%s' in %s", want, fake_note);
	bool lost = strstr(fake_note, "nobody points to the object it is in") != NULL;
	SG_CHECK(WORDS, lost == (r.unreached && (r.place == MARK_IN_DATA || r.place == MARK_IN_OBJECT)), "lost, or not: %s",
	    fake_note);
	snprintf(want, sizeof(want), "SUMMARY: spanguard: stale-pointer, %zu word%s into what was freed\n", words,
	    words == 1 ? " points" : "s point");
	SG_CHECK(WORDS, strstr(fake_note, want) != NULL, "no '%s' in %s", want, fake_note);
	f->n = 0;
	process_log_start();
}
