/* remote.c - see remote.h. */
#define _GNU_SOURCE
#include "remote.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <gelf.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "../include/spanguard.h"

_Static_assert(SPANGUARD_LAYOUT != 0, "the Makefile says what ci/layout says");
const uint64_t remote_layout = SPANGUARD_LAYOUT;

/* ---- memory ------------------------------------------------------------- */

static bool
read_process(pid_t pid, uintptr_t addr, void *to, size_t bytes)
{
	struct iovec mine = { to, bytes }, its = { (void *)addr, bytes };
	return process_vm_readv(pid, &mine, 1, &its, 1, 0) == (ssize_t)bytes;
}

/* The part of [addr, addr + bytes) that one segment of the core file holds. */
static size_t
read_segment(const struct remote *r, uintptr_t addr, void *to, size_t bytes)
{
	size_t n;
	GElf_Phdr ph;
	if (elf_getphdrnum(r->core, &n) != 0)
		return 0;
	for (size_t i = 0; i < n; i++) {
		if (gelf_getphdr(r->core, (int)i, &ph) == NULL || ph.p_type != PT_LOAD ||
		    addr - ph.p_vaddr >= ph.p_filesz)
			continue;
		size_t off = addr - ph.p_vaddr, left = ph.p_filesz - off;
		size_t part = left < bytes ? left : bytes;
		ssize_t got = pread(r->core_fd, to, part, (off_t)(ph.p_offset + off));
		return got < 0 ? 0 : (size_t)got;
	}
	return 0;
}

bool
remote_read(const struct remote *r, uintptr_t addr, void *to, size_t bytes)
{
	char *at = to;
	if (r->core == NULL)
		return read_process(r->pid, addr, to, bytes);
	while (bytes > 0) {
		size_t part = read_segment(r, addr, at, bytes);
		if (part == 0)
			return false;
		at += part;
		addr += part;
		bytes -= part;
	}
	return true;
}

void *
remote_copy(const struct remote *r, uintptr_t addr, size_t bytes)
{
	void *p = malloc(bytes != 0 ? bytes : 1);
	if (p != NULL && remote_read(r, addr, p, bytes))
		return p;
	free(p);
	return NULL;
}

/* ---- open --------------------------------------------------------------- */

static bool
attach_process(struct remote *r, const char *what)
{
	static const Dwfl_Callbacks calls = { .find_elf = dwfl_linux_proc_find_elf,
		.find_debuginfo = dwfl_standard_find_debuginfo };
	r->pid = (pid_t)atoi(what);
	r->dwfl = dwfl_begin(&calls);
	int err = dwfl_linux_proc_report(r->dwfl, r->pid);
	if (err == 0 && dwfl_report_end(r->dwfl, NULL, NULL) == 0)
		return true;
	fprintf(stderr, "spanguard: process %s: %s\n", what, err > 0 ? strerror(err) :
	    dwfl_errmsg(-1));
	return false;
}

static bool
attach_core(struct remote *r, const char *what)
{
	static const Dwfl_Callbacks calls = { .find_elf = dwfl_build_id_find_elf,
		.find_debuginfo = dwfl_standard_find_debuginfo };
	r->core_fd = open(what, O_RDONLY | O_CLOEXEC);
	if (r->core_fd < 0) {
		fprintf(stderr, "spanguard: %s: %s\n", what, strerror(errno));
		return false;
	}
	elf_version(EV_CURRENT);
	r->core = elf_begin(r->core_fd, ELF_C_READ_MMAP, NULL);
	GElf_Ehdr header;
	r->dwfl = dwfl_begin(&calls);
	if (r->core != NULL && gelf_getehdr(r->core, &header) != NULL &&
	    header.e_type == ET_CORE && dwfl_core_file_report(r->dwfl, r->core, NULL) >= 0 &&
	    dwfl_report_end(r->dwfl, NULL, NULL) == 0)
		return true;
	fprintf(stderr, "spanguard: %s is neither a process id nor a core file\n", what);
	return false;
}

/* dwfl_getmodules: stops at the module that has the symbol. */
static int
look_for_root(Dwfl_Module *m, void **user, const char *name, Dwarf_Addr start, void *arg)
{
	uintptr_t *found = arg;
	GElf_Sym sym;
	int n = dwfl_module_getsymtab(m);
	(void)user;
	(void)name;
	(void)start;
	for (int i = 0; i < n; i++) {
		GElf_Addr at;
		const char *s = dwfl_module_getsym_info(m, i, &sym, &at, NULL, NULL, NULL);
		if (s == NULL || sym.st_shndx == SHN_UNDEF || strcmp(s, "spanguard_root") != 0)
			continue;
		*found = at;
		return DWARF_CB_ABORT;
	}
	return DWARF_CB_OK;
}

static bool
check_version(const struct spanguard_root *root, const char *what)
{
	static const char none[sizeof(root->magic)];
	if (memcmp(root->magic, none, sizeof(none)) == 0) {
		fprintf(stderr, "spanguard: %s has allocated nothing yet\n", what);
		return false;
	}
	bool readable = memcmp(root->magic, ROOT_MAGIC, sizeof(root->magic)) == 0;
	if (readable && root->layout == SPANGUARD_LAYOUT)
		return true;
	fprintf(stderr, "spanguard: cannot read the heap of %s: its library is version %.*s "
	    "(layout %016" PRIx64 "), this command is version " SPANGUARD_VERSION
	    " (layout %016" PRIx64 ")\n  Use the spanguard command that was built with that "
	    "library.\n", what, readable ? (int)sizeof(root->version) : 16,
	    readable ? root->version : "before 0.1.0", root->layout, (uint64_t)SPANGUARD_LAYOUT);
	return false;
}

static bool
find_root(struct remote *r, const char *what)
{
	uintptr_t at = 0;
	dwfl_getmodules(r->dwfl, look_for_root, &at, 0);
	if (at == 0) {
		fprintf(stderr, "spanguard: %s has no spanguard in it\n", what);
		return false;
	}
	if (!remote_read(r, at, &r->root, sizeof(r->root))) {
		fprintf(stderr, "spanguard: %s: its memory cannot be read: %s\n", what,
		    r->core != NULL ? "not in the core file" : strerror(errno));
		return false;
	}
	return check_version(&r->root, what);
}

/* gdb's generate-core-file stops at a guard that is a marker, and leaves zeros behind
 * it: a heap of no spans, it would seem. The metadata's own regions tell, which lie
 * between guards and begin with a record that is never zero. */
static bool
check_core(const struct remote *r, const char *what)
{
	struct persistent meta;
	struct persistent_region region = { .next = NULL };
	bool whole = remote_read(r, (uintptr_t)&r->root.heap->meta, &meta, sizeof(meta)) &&
	    meta.regions.v != NULL;
	for (uintptr_t at = whole ? (uintptr_t)meta.regions.v : 0; whole && at != 0;
	    at = (uintptr_t)region.next)
		whole = remote_read(r, at, &region, sizeof(region)) && region.base < region.end;
	if (!whole)
		fprintf(stderr, "spanguard: %s: what spanguard knows of the heap is not in the core "
		    "file: gdb's generate-core-file (gcore) leaves out memory behind guard pages\n"
		    "  Take the kernel's core file (ulimit -c unlimited; kill -ABRT PID), or start "
		    "the program with --guards=mprotect.\n", what);
	return whole;
}

bool
remote_open(struct remote *r, const char *what)
{
	size_t digits = 0;
	*r = (struct remote){ .core_fd = -1 };
	while (isdigit((unsigned char)what[digits]))
		digits++;
	bool is_pid = digits != 0 && what[digits] == 0;
	if ((is_pid ? attach_process(r, what) : attach_core(r, what)) && find_root(r, what) &&
	    (is_pid || check_core(r, what)))
		return true;
	remote_close(r);
	return false;
}

void
remote_close(struct remote *r)
{
	if (r->dwfl != NULL)
		dwfl_end(r->dwfl);
	if (r->core != NULL)
		elf_end(r->core);
	if (r->core_fd >= 0)
		close(r->core_fd);
}

/* ---- spans -------------------------------------------------------------- */

/* Read again with its bits; a process that runs may have made it another meanwhile,
 * and nelems must fit the bits that were read. */
static bool
read_whole_span(const struct remote *r, uintptr_t at, size_t room_words, struct mspan *out,
    size_t bytes)
{
	if (!remote_read(r, at, out, bytes) || out->room_words != room_words ||
	    out->nwords > room_words || mspan_words(out->nelems) > out->nwords)
		return false;
	out->avail = (uint64_t *)&out->bits[room_words];
	return true;
}

/* To be freed; NULL as for remote_copy. */
static struct mspan *
copy_span(const struct remote *r, uintptr_t at)
{
	uint16_t room_words;
	if (!remote_read(r, at + offsetof(struct mspan, room_words), &room_words,
	    sizeof(room_words)) || room_words == 0)
		return NULL;
	size_t bytes = align_up(offsetof(struct mspan, bits) +
	    room_words * (sizeof(struct slot_word) + sizeof(uint64_t)), CACHE_LINE);
	struct mspan *s = aligned_alloc(CACHE_LINE, bytes);
	if (s != NULL && read_whole_span(r, at, room_words, s, bytes))
		return s;
	free(s);
	return NULL;
}

static void
spans_of_arena(const struct remote *r, const struct heap_arena *a,
    void (*fn)(const struct mspan *s, void *arg), void *arg)
{
	for (size_t w = 0; w < ARENA_WORDS; w++)
		for (uint64_t bits = a->page_in_use[w].v; bits != 0; bits &= bits - 1) {
			uintptr_t at = (uintptr_t)a->spans[w * 64 + ctz64(bits)].v;
			struct mspan *s = at == 0 ? NULL : copy_span(r, at);
			if (s != NULL)
				fn(s, arg);
			free(s);
		}
}

void
remote_each_span(const struct remote *r, void (*fn)(const struct mspan *s, void *arg),
    void *arg)
{
	struct heap_arena *a = malloc(sizeof(*a));
	atomic_ptr head;
	if (a == NULL || !remote_read(r, (uintptr_t)&r->root.arenas->all, &head, sizeof(head)))
		head.v = NULL;
	for (uintptr_t at = (uintptr_t)head.v; at != 0; at = (uintptr_t)a->next) {
		if (!remote_read(r, at, a, sizeof(*a)))
			break;
		spans_of_arena(r, a, fn, arg);
	}
	free(a);
}

bool
remote_side(const struct remote *r, const struct mspan *s, size_t idx,
    struct side_record *out, bool *freed)
{
	struct side_span b;
	uint64_t word;
	uintptr_t at = (uintptr_t)s->side;
	if (at == 0 || !remote_read(r, at, &b, sizeof(b)) || idx >= b.nelems ||
	    !remote_read(r, at + sizeof(b) + idx / 64 * sizeof(word), &word, sizeof(word)) ||
	    !remote_read(r, (uintptr_t)&b.records[idx], out, sizeof(*out)))
		return false;
	*freed = (word >> (idx % 64) & 1) != 0;
	return side_serial(out) != 0;
}

/* ---- guarded objects ---------------------------------------------------- */

static void
guarded_of_region(const struct remote *r, const struct guard_directory *d,
    const struct guard_region *g,
    void (*fn)(const struct guard_record *rec, size_t slot_bytes, void *arg), void *arg)
{
	atomic_u32 *chunk = remote_copy(r, (uintptr_t)g->chunk, g->n_chunks * sizeof(*chunk));
	size_t bytes = GUARD_GRANULES * sizeof(struct guard_record);
	for (size_t i = 0; chunk != NULL && i < g->n_chunks; i++) {
		uint32_t word = chunk[i].v;
		if (!guard_is_run(word) && !guard_is_class(word))
			continue;
		struct guard_record *rec = remote_copy(r,
		    (uintptr_t)&g->record[i * GUARD_GRANULES], bytes);
		size_t n = guard_is_run(word) ? 1 : GUARD_GRANULES;
		for (size_t k = 0; rec != NULL && k < n; k++)
			if (rec[k].state.v != GUARD_UNUSED)
				fn(&rec[k], guard_slot_bytes(word, d->page_bytes), arg);
		free(rec);
	}
	free(chunk);
}

void
remote_each_guarded(const struct remote *r,
    void (*fn)(const struct guard_record *rec, size_t slot_bytes, void *arg), void *arg)
{
	struct guard_directory *d = NULL;
	if (r->root.guards != NULL)
		d = remote_copy(r, (uintptr_t)r->root.guards, sizeof(*d));
	for (uint32_t i = 0; d != NULL && i < d->n.v && i < GUARDSPACE_REGIONS; i++)
		guarded_of_region(r, d, &d->region[i], fn, arg);
	free(d);
}

/* ---- sampled objects ---------------------------------------------------- */

void
remote_each_sampled(const struct remote *r, void (*fn)(const struct sample_slot *s, void *arg),
    void *arg)
{
	struct sample_slot *s = remote_copy(r, (uintptr_t)r->root.samples,
	    SAMPLE_SLOTS * sizeof(*s));
	for (size_t i = 0; s != NULL && i < SAMPLE_SLOTS; i++)
		if (s[i].bytes != 0 && s[i].state.v != SAMPLE_UNUSED)
			fn(&s[i], arg);
	free(s);
}

/* ---- stacks ------------------------------------------------------------- */

static void
put_frame(const struct remote *r, size_t i, uintptr_t pc, FILE *out)
{
	const unsigned char *id;
	const char *file = NULL;
	GElf_Addr where;
	Dwarf_Addr bias = 0;
	fprintf(out, "    #%zu 0x%lx", i, (unsigned long)pc);
	Dwfl_Module *m = dwfl_addrmodule(r->dwfl, pc);
	if (m == NULL) {
		fputs(" (<unknown module>)\n", out);
		return;
	}
	dwfl_module_getelf(m, &bias);
	const char *name = dwfl_module_info(m, NULL, NULL, NULL, NULL, NULL, &file, NULL);
	fprintf(out, " (%s+0x%lx)", file != NULL ? file : name, (unsigned long)(pc - bias));
	int n = dwfl_module_build_id(m, &id, &where);
	if (n > 0) {
		fputs(" (BuildId: ", out);
		for (int k = 0; k < n; k++)
			fprintf(out, "%02x", id[k]);
		fputc(')', out);
	}
	fputc('\n', out);
}

static size_t
read_stack(const struct remote *r, uint32_t id, uintptr_t *pcs)
{
	atomic_ptr chunk;
	struct depot_entry e;
	if (id == 0 || !remote_read(r, (uintptr_t)&r->root.stacks[id / DEPOT_CHUNK_UNITS], &chunk,
	    sizeof(chunk)))
		return 0;
	uintptr_t at = (uintptr_t)chunk.v + (id % DEPOT_CHUNK_UNITS) * (uintptr_t)DEPOT_UNIT_BYTES;
	if (!remote_read(r, at, &e, sizeof(e)))
		return 0;
	size_t n = e.frames_hash >> DEPOT_HASH_BITS;
	if (n > DEPOT_FRAMES || !remote_read(r, at + sizeof(e), pcs, n * sizeof(pcs[0])))
		return 0;
	return n;
}

void
remote_put_stack(const struct remote *r, uint32_t id, FILE *out)
{
	uintptr_t pcs[DEPOT_FRAMES];
	remote_put_frames(r, pcs, read_stack(r, id, pcs), out);
}

void
remote_put_frames(const struct remote *r, const uintptr_t *pcs, size_t n, FILE *out)
{
	if (n == 0)
		fputs("    (the stack was not recorded)\n", out);
	for (size_t i = 0; i < n; i++)
		put_frame(r, i, pcs[i], out);
}
