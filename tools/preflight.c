/* preflight.c - reasons why a preload cannot work, found before the start.
 *
 * A loader that ignores LD_PRELOAD does so silently, and then the program runs
 * unprotected. Each check here names the reason and the way out. Of a script
 * the interpreter is checked. */
#define _GNU_SOURCE
#include "tools.h"

#include <errno.h>
#include <fcntl.h>
#include <gelf.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { SCRIPT_DEPTH = 4 };

/* What an ELF file says about how it wants to be loaded. */
struct elf_facts {
	bool is_elf;
	int class;
	int machine;
	bool dynamic;            /* has a PT_DYNAMIC */
	char interp[256];        /* "" if it has none */
	bool needs_musl;         /* by a DT_NEEDED */
	bool needs_glibc;
	bool sanitized;          /* brings the allocator of a sanitizer */
	bool own_malloc;         /* defines malloc for everybody */
};

static int
refuse(const char *path, const char *why, const char *way_out)
{
	fprintf(stderr, "spanguard: cannot work with %s: %s\n  %s\n", path, why, way_out);
	return EXIT_CANNOT;
}

/* ---- ELF ---------------------------------------------------------------- */

static void
read_needed(Elf *e, Elf_Scn *scn, const GElf_Shdr *sh, struct elf_facts *f)
{
	Elf_Data *d = elf_getdata(scn, NULL);
	GElf_Dyn dyn;
	for (int i = 0; d != NULL && gelf_getdyn(d, i, &dyn) != NULL; i++) {
		if (dyn.d_tag != DT_NEEDED)
			continue;
		const char *s = elf_strptr(e, sh->sh_link, dyn.d_un.d_val);
		if (s == NULL)
			continue;
		f->needs_glibc |= strcmp(s, "libc.so.6") == 0;
		f->needs_musl |= strncmp(s, "libc.musl", 9) == 0 || strcmp(s, "libc.so") == 0;
		f->sanitized |= strncmp(s, "libasan.so", 10) == 0 ||
		    strncmp(s, "libtsan.so", 10) == 0 || strncmp(s, "libclang_rt.", 12) == 0;
	}
}

static void
read_symbols(Elf *e, Elf_Scn *scn, const GElf_Shdr *sh, struct elf_facts *f)
{
	Elf_Data *d = elf_getdata(scn, NULL);
	GElf_Sym sym;
	for (int i = 0; d != NULL && gelf_getsym(d, i, &sym) != NULL; i++) {
		const char *s = elf_strptr(e, sh->sh_link, sym.st_name);
		if (sym.st_shndx == SHN_UNDEF || s == NULL)
			continue;
		f->own_malloc |= strcmp(s, "malloc") == 0;
		f->sanitized |= strcmp(s, "__asan_init") == 0 || strcmp(s, "__tsan_init") == 0 ||
		    strcmp(s, "__msan_init") == 0;
	}
}

static void
read_sections(Elf *e, struct elf_facts *f)
{
	GElf_Shdr sh;
	for (Elf_Scn *scn = elf_nextscn(e, NULL); scn != NULL; scn = elf_nextscn(e, scn)) {
		if (gelf_getshdr(scn, &sh) == NULL)
			continue;
		if (sh.sh_type == SHT_DYNAMIC)
			read_needed(e, scn, &sh, f);
		if (sh.sh_type == SHT_DYNSYM)
			read_symbols(e, scn, &sh, f);
	}
}

static void
read_segments(Elf *e, int fd, struct elf_facts *f)
{
	GElf_Phdr ph;
	size_t n = 0;
	elf_getphdrnum(e, &n);
	for (int i = 0; i < (int)n && gelf_getphdr(e, i, &ph) != NULL; i++) {
		f->dynamic |= ph.p_type == PT_DYNAMIC;
		if (ph.p_type == PT_INTERP && ph.p_filesz < sizeof(f->interp))
			f->interp[pread(fd, f->interp, ph.p_filesz, (off_t)ph.p_offset) > 0 ?
			    ph.p_filesz : 0] = 0;
	}
}

static struct elf_facts
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
		read_segments(e, fd, &f);
		read_sections(e, &f);
	}
	elf_end(e);
	if (fd >= 0)
		close(fd);
	return f;
}

/* ---- checks ------------------------------------------------------------- */

/* Where the kernel would set AT_SECURE, the loader ignores LD_PRELOAD. */
static int
check_privileges(const char *path)
{
	struct stat st;
	bool root = getuid() == 0;
	if (stat(path, &st) != 0)
		return 0;
	if (((st.st_mode & S_ISUID) != 0 && st.st_uid != getuid()) ||
	    ((st.st_mode & S_ISGID) != 0 && (st.st_mode & S_IXGRP) != 0 &&
	    st.st_gid != getgid()))
		return refuse(path, "it is set-uid or set-gid, and the loader ignores LD_PRELOAD for such programs",
		    "Run a copy without these bits, or list the library in /etc/ld.so.preload.");
	if (!root && getxattr(path, "security.capability", NULL, 0) > 0)
		return refuse(path, "it has file capabilities, and the loader ignores LD_PRELOAD for such programs",
		    "Run a copy without them (cp keeps none), or list the library in /etc/ld.so.preload.");
	return 0;
}

static int
check_elf(const char *path, const struct elf_facts *prog, const char *library)
{
	struct elf_facts lib = elf_facts(library);
	if (!lib.is_elf)
		return refuse(path, "the library is not a shared object", library);
	if (prog->class != lib.class || prog->machine != lib.machine)
		return refuse(path, "it is for another machine or word size than the library",
		    "Build spanguard for that machine and name it in SPANGUARD_LIB.");
	if (prog->interp[0] == 0)
		return refuse(path, "it is statically linked, so no library can be put before its malloc",
		    "Link it dynamically, or link libspanguard.a into it.");
	bool musl = strstr(prog->interp, "ld-musl") != NULL;
	if ((musl && lib.needs_glibc) || (!musl && lib.needs_musl))
		return refuse(path, musl ? "it runs on musl, the library was built for glibc" :
		    "it runs on glibc, the library was built for musl",
		    "Build spanguard with the compiler of that libc and name it in SPANGUARD_LIB.");
	if (prog->sanitized)
		return refuse(path, "it is built with a sanitizer, which brings its own allocator",
		    "Use a build without -fsanitize=address, thread or memory.");
	if (prog->own_malloc)
		fprintf(stderr, "spanguard: warning: %s defines malloc itself; its own calls may "
		    "not reach spanguard\n", path);
	return 0;
}

static int check_file(const char *path, const char *library, int depth);

static int
check_script(const char *path, const char *library, int depth)
{
	char line[256];
	FILE *f = fopen(path, "re");
	if (f == NULL)
		return 0;          /* executable but not readable: nothing to see */
	char *s = fgets(line, sizeof(line), f);
	fclose(f);
	if (s == NULL || strncmp(s, "#!", 2) != 0)
		return 0;          /* the shell runs it */
	s += 2 + strspn(s + 2, " \t");
	s[strcspn(s, " \t\n")] = 0;
	if (depth == SCRIPT_DEPTH || access(s, X_OK) != 0) {
		fprintf(stderr, "spanguard: %s: its interpreter %s cannot be run: %s\n", path, s,
		    strerror(errno));
		return EXIT_NOT_EXECUTABLE;
	}
	return check_file(s, library, depth + 1);
}

static int
check_file(const char *path, const char *library, int depth)
{
	struct elf_facts f = elf_facts(path);
	if (!f.is_elf)
		return check_script(path, library, depth);
	int r = check_privileges(path);
	return r != 0 ? r : check_elf(path, &f, library);
}

/* ---- finding the program ------------------------------------------------ */

static bool
is_file(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

/* As execvp(3) does; false if there is none. Prefers one that may be run. */
static bool
find_program(const char *program, char *out)
{
	const char *dirs = getenv("PATH");
	char found[PATH_MAX] = "";
	if (strchr(program, '/') != NULL) {
		snprintf(out, PATH_MAX, "%s", program);
		return access(program, F_OK) == 0;
	}
	if (dirs == NULL)
		dirs = "/usr/local/bin:/usr/bin:/bin";
	for (;;) {
		size_t n = strcspn(dirs, ":");
		snprintf(out, PATH_MAX, "%.*s%s%s", (int)n, dirs, n != 0 ? "/" : "./", program);
		if (is_file(out) && access(out, X_OK) == 0)
			return true;
		if (is_file(out) && found[0] == 0)
			memcpy(found, out, PATH_MAX);
		if (dirs[n] == 0)
			break;
		dirs += n + 1;
	}
	memcpy(out, found, PATH_MAX);
	return found[0] != 0;
}

int
preflight(const char *program, const char *library, char *path_out)
{
	if (program[0] == 0 || !find_program(program, path_out)) {
		fprintf(stderr, "spanguard: %s: not found\n", program);
		return EXIT_NOT_FOUND;
	}
	if (!is_file(path_out) || access(path_out, X_OK) != 0) {
		fprintf(stderr, "spanguard: %s: not executable\n", path_out);
		return EXIT_NOT_EXECUTABLE;
	}
	return check_file(path_out, library, 0);
}
