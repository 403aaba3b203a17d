/* checks.c - see checks.h. Each check leaves CHECK_FINE where all is well. */
#define _GNU_SOURCE
#include "checks.h"

#include <elf.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "../include/spanguard.h"
#include "../src/base.h"
#include "remote.h"

enum {
	MADV_GUARD = 102,            /* MADV_GUARD_INSTALL, Linux 6.13 */
	MAPPINGS_WANTED = 262144,
	VA_BITS_WANTED = 47,
};

static __attribute__((format(printf, 4, 5))) void
say(struct finding *f, enum verdict v, const char *fix, const char *found, ...)
{
	va_list ap;
	f->verdict = v;
	va_start(ap, found);
	vsnprintf(f->found, sizeof(f->found), found, ap);
	va_end(ap);
	snprintf(f->fix, sizeof(f->fix), "%s", fix);
}

/* The first line of a small file; "" if there is none. */
static const char *
first_line(const char *path)
{
	static char line[256];
	FILE *f = fopen(path, "re");
	line[0] = 0;
	if (f != NULL && fgets(line, sizeof(line), f) != NULL)
		line[strcspn(line, "\n")] = 0;
	if (f != NULL)
		fclose(f);
	return line;
}

/* ---- of the program ------------------------------------------------------ */

static void
look_static(const struct subject *s, struct finding *f)
{
	if (s->program.interp[0] == 0)
		say(f, CHECK_REFUSE, "Link it dynamically, or link libspanguard.a into it.",
		    "it is statically linked, so no library can be put before its malloc");
}

static void
look_privileges(const struct subject *s, struct finding *f)
{
	struct stat st;
	if (stat(s->path, &st) != 0)
		return;
	if (((st.st_mode & S_ISUID) != 0 && st.st_uid != getuid()) ||
	    ((st.st_mode & S_ISGID) != 0 && (st.st_mode & S_IXGRP) != 0 &&
	    st.st_gid != getgid()))
		say(f, CHECK_REFUSE,
		    "Run a copy without these bits, or list the library in /etc/ld.so.preload.",
		    "it is set-uid or set-gid, and the loader ignores LD_PRELOAD for such programs");
	else if (getuid() != 0 && getxattr(s->path, "security.capability", NULL, 0) > 0)
		say(f, CHECK_REFUSE,
		    "Run a copy without them (cp keeps none), or list the library in /etc/ld.so.preload.",
		    "it has file capabilities, and the loader ignores LD_PRELOAD for such programs");
}

static void
look_machine(const struct subject *s, struct finding *f)
{
	if (!s->lib.is_elf)
		say(f, CHECK_REFUSE, "Name libspanguard.so in SPANGUARD_LIB or with --lib=FILE.",
		    "the library is not a shared object: %s", s->library);
	else if (s->program.class != s->lib.class || s->program.machine != s->lib.machine)
		say(f, CHECK_REFUSE,
		    "Build spanguard for that machine and name it in SPANGUARD_LIB.",
		    "it is for another machine or word size than the library");
}

static void
look_libc(const struct subject *s, struct finding *f)
{
	bool musl = strstr(s->program.interp, "ld-musl") != NULL;
	if ((musl && s->lib.needs_glibc) || (!musl && s->lib.needs_musl))
		say(f, CHECK_REFUSE,
		    "Build spanguard with the compiler of that libc and name it in SPANGUARD_LIB.",
		    "%s", musl ? "it runs on musl, the library was built for glibc" :
		    "it runs on glibc, the library was built for musl");
}

static void
look_sanitizer(const struct subject *s, struct finding *f)
{
	if (s->program.sanitized)
		say(f, CHECK_REFUSE, "Use a build without -fsanitize=address, thread or memory.",
		    "it is built with a sanitizer, which brings its own allocator");
}

static void
look_own_malloc(const struct subject *s, struct finding *f)
{
	if (s->program.own_malloc)
		say(f, CHECK_PARTLY,
		    "Build it without its own malloc, or run it with --force to check what is left.",
		    "it defines malloc itself, and the loader prefers that to any library");
	else if (s->program.other_malloc[0] != 0)
		say(f, CHECK_PARTLY,
		    "Build it with libc's malloc (MALLOC=libc, --without-jemalloc), or run it with --force to check what is left.",
		    "it has an allocator of its own inside (%s); what that hands out is not seen",
		    s->program.other_malloc);
	else if (s->program.needs_allocator[0] != 0)
		say(f, CHECK_NOTE, "Nothing to do: spanguard comes before it.",
		    "it is linked to another allocator (%s)", s->program.needs_allocator);
}

static void
look_sandbox(const struct subject *s, struct finding *f)
{
	static const char *const places[] = { "/snap/", "/var/lib/snapd/", "/var/lib/flatpak/",
		"/app/" };
	const char *base = strrchr(s->path, '/');
	bool wrapper = base != NULL && (strcmp(base, "/flatpak") == 0 ||
	    strcmp(base, "/bwrap") == 0 || strcmp(base, "/snap") == 0 ||
	    strcmp(base, "/firejail") == 0);
	for (size_t i = 0; i < ARRAY_LEN(places); i++)
		wrapper |= strncmp(s->path, places[i], strlen(places[i])) == 0;
	if (wrapper)
		say(f, CHECK_PARTLY,
		    "Run spanguard inside the sandbox, or a build outside of it; --force tries it all the same.",
		    "it starts programs in a sandbox, where %s is not visible", s->library);
}

static bool
has_separate_debug_info(const struct elf_facts *e)
{
	char path[PATH_MAX];
	if (strlen(e->build_id) < 3)
		return false;
	snprintf(path, sizeof(path), "/usr/lib/debug/.build-id/%.2s/%s.debug", e->build_id,
	    e->build_id + 2);
	return access(path, R_OK) == 0;
}

static void
look_debug_info(const struct subject *s, struct finding *f)
{
	if (s->program.has_debug_info || has_separate_debug_info(&s->program))
		return;
	say(f, CHECK_NOTE,
	    "Compile with -g, install the -dbgsym package, or set DEBUGINFOD_URLS=https://debuginfod.debian.net.",
	    "it has no debug information: reports name functions at best, no files and lines%s",
	    getenv("DEBUGINFOD_URLS") != NULL ? " (debuginfod will be asked)" : "");
}

static void
look_pools(const struct subject *s, struct finding *f)
{
	const char *base = strrchr(s->path, '/');
	base = base != NULL ? base + 1 : s->path;
	if (strncmp(base, "python", 6) == 0)
		say(f, CHECK_NOTE, "Run it with --no-pools (PYTHONMALLOC=malloc).",
		    "Python cuts small objects out of larger ones by itself, where their ends are not seen");
}

/* ---- of the machine ------------------------------------------------------- */

static void
look_library(const struct subject *s, struct finding *f)
{
	struct statvfs v;
	if (s->library == NULL || s->library[0] == 0)
		say(f, CHECK_REFUSE, "Name it in SPANGUARD_LIB or with --lib=FILE.",
		    "libspanguard.so was not found");
	else if (statvfs(s->library, &v) == 0 && (v.f_flag & ST_NOEXEC) != 0)
		say(f, CHECK_REFUSE, "Install it on another file system.",
		    "%s is on a file system mounted noexec", s->library);
}

/* Options, reports and memory of another build are not those that this command knows. */
static void
look_version(const struct subject *s, struct finding *f)
{
	static const char fix[] = "Use the library that was built with this command (SPANGUARD_LIB, "
	    "--lib=FILE), or the command that was built with that library.";
	if (!s->lib.is_elf)
		return;
	if (s->lib.version[0] == 0)
		say(f, CHECK_REFUSE, fix, "the library %s does not say which spanguard it is, this "
		    "command is version " SPANGUARD_VERSION " (layout %016" PRIx64 ")", s->library,
		    remote_layout);
	else if (s->lib.layout != remote_layout || strcmp(s->lib.version, SPANGUARD_VERSION) != 0)
		say(f, CHECK_REFUSE, fix, "the library %s is version %s (layout %016" PRIx64
		    "), this command is version " SPANGUARD_VERSION " (layout %016" PRIx64 ")",
		    s->library, s->lib.version, s->lib.layout, remote_layout);
}

static void
look_preload(const struct subject *s, struct finding *f)
{
	const char *list = getenv("LD_PRELOAD");
	(void)s;
	if (list != NULL && strstr(list, "alloc") != NULL)
		say(f, CHECK_NOTE, "Nothing to do, or take it off the list.",
		    "LD_PRELOAD holds another allocator (%s); spanguard is put before it", list);
	else if (access("/etc/ld.so.preload", R_OK) == 0 && first_line("/etc/ld.so.preload")[0] != 0)
		say(f, CHECK_NOTE, "Nothing to do unless a malloc is listed there.",
		    "/etc/ld.so.preload puts libraries into every process");
}

static bool
has_guard_markers(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	void *p = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool ok = p != MAP_FAILED && madvise(p, page, MADV_GUARD) == 0;
	if (p != MAP_FAILED)
		munmap(p, page);
	return ok;
}

static void
look_guards(const struct subject *s, struct finding *f)
{
	long limit = atol(first_line("/proc/sys/vm/max_map_count"));
	(void)s;
	if (has_guard_markers())
		return;
	if (limit < MAPPINGS_WANTED)
		say(f, CHECK_NOTE, "sysctl -w vm.max_map_count=1048576, or Linux 6.13.",
		    "guard pages split mappings on this kernel, and vm.max_map_count is %ld: "
		    "some objects will go without", limit);
	else
		say(f, CHECK_NOTE, "Nothing to do; Linux 6.13 has cheaper ones.",
		    "guard pages split mappings on this kernel; vm.max_map_count is %ld", limit);
}

static void
look_address_space(const struct subject *s, struct finding *f)
{
	struct rlimit as;
	(void)s;
	if (getrlimit(RLIMIT_AS, &as) == 0 && as.rlim_cur != RLIM_INFINITY)
		say(f, CHECK_NOTE, "ulimit -v unlimited",
		    "address space is limited to %llu MiB: fewer objects are held back from reuse",
		    (unsigned long long)as.rlim_cur >> 20);
}

static void
look_cores(const struct subject *s, struct finding *f)
{
	struct rlimit core;
	(void)s;
	if (getrlimit(RLIMIT_CORE, &core) == 0 && core.rlim_cur == 0)
		say(f, CHECK_NOTE, "ulimit -c unlimited, if a core file is wanted.",
		    "core files are turned off");
}

static void
look_ptrace(const struct subject *s, struct finding *f)
{
	const char *scope = first_line("/proc/sys/kernel/yama/ptrace_scope");
	(void)s;
	if (scope[0] != 0 && scope[0] != '0' && getuid() != 0)
		say(f, CHECK_NOTE, "sysctl -w kernel.yama.ptrace_scope=0, or run these commands as root.",
		    "ptrace_scope is %s: commands that look into a running process need its parent's rights",
		    scope);
}

static void
look_overcommit(const struct subject *s, struct finding *f)
{
	(void)s;
	if (first_line("/proc/sys/vm/overcommit_memory")[0] == '2')
		say(f, CHECK_NOTE, "sysctl -w vm.overcommit_memory=0, if the program runs out of memory.",
		    "overcommit_memory is 2: reserved address space counts as used");
}

static void
look_addresses(const struct subject *s, struct finding *f)
{
	int here = 0;
	unsigned bits = 64 - (unsigned)__builtin_clzll((unsigned long long)(uintptr_t)&here);
	long page = sysconf(_SC_PAGESIZE);
	(void)s;
	if (bits < VA_BITS_WANTED)
		say(f, CHECK_NOTE, "Use a kernel with 48-bit addresses for large heaps.",
		    "addresses have %u bits: placement is less random and guards are fewer", bits);
	else if (page != 4096)
		say(f, CHECK_NOTE, "Nothing to do.",
		    "pages are of %ld bytes: each guard costs that much address space", page);
}

static bool
is_filtered(void)
{
	char line[128];
	bool found = false;
	FILE *f = fopen("/proc/self/status", "re");
	while (f != NULL && !found && fgets(line, sizeof(line), f) != NULL)
		found = strncmp(line, "Seccomp:\t2", 10) == 0;
	if (f != NULL)
		fclose(f);
	return found;
}

static void
look_seccomp(const struct subject *s, struct finding *f)
{
	(void)s;
	if (is_filtered())
		say(f, CHECK_NOTE, "Allow the calls that tests/life/sandbox.c allows, if the program dies of SIGSYS.",
		    "a seccomp filter is in force here");
}

static void
look_apparmor(const struct subject *s, struct finding *f)
{
	const char *mine = first_line("/proc/self/attr/current");
	bool confined = mine[0] != 0 && strncmp(mine, "unconfined", 10) != 0 &&
	    first_line("/sys/module/apparmor/parameters/enabled")[0] == 'Y';
	bool confined_library = s->library != NULL && strncmp(s->library, "/usr/lib/", 9) != 0 &&
	    strncmp(s->library, "/lib/", 5) != 0;
	mine = confined ? first_line("/proc/self/attr/current") : mine;
	if (confined && confined_library)
		say(f, CHECK_NOTE, "make install PREFIX=/usr, or add 'LIBRARY mr,' to the profile.",
		    "AppArmor confines this session (%s), and the library is not under /usr/lib", mine);
}

/* ---- the table ------------------------------------------------------------ */

const struct check checks[] = {
	{ "dynamic", true, "only a loader can put a library before the program's malloc", look_static },
	{ "privileges", true, "the loader ignores LD_PRELOAD for set-uid programs and file capabilities",
	    look_privileges },
	{ "machine", true, "a library is ignored by programs of another word size or machine",
	    look_machine },
	{ "libc", true, "a library for another libc fails or has no effect", look_libc },
	{ "sanitizer", true, "a sanitizer brings an allocator that must be the only one",
	    look_sanitizer },
	{ "own malloc", true, "what another allocator hands out is not seen", look_own_malloc },
	{ "sandbox", true, "the library must be visible to the program", look_sandbox },
	{ "pools", true, "objects that a program cuts out of larger ones have no ends of their own",
	    look_pools },
	{ "debug info", true, "with it reports name files and lines", look_debug_info },
	{ "library", false, "the library must exist and may be mapped as code", look_library },
	{ "version", false, "library and command must be of one build", look_version },
	{ "preload list", false, "of several allocators the first one counts", look_preload },
	{ "guard pages", false, "guards as page-table markers cost no mapping (Linux 6.13)",
	    look_guards },
	{ "address space", false, "quarantines and guards need address space (RLIMIT_AS)",
	    look_address_space },
	{ "core files", false, "a report ends in SIGABRT, which leaves a core file if wanted",
	    look_cores },
	{ "ptrace", false, "commands that inspect a running process read its memory", look_ptrace },
	{ "overcommit", false, "reserved address space should not count as memory", look_overcommit },
	{ "addresses", false, "random placement needs wide addresses and small pages", look_addresses },
	{ "seccomp", false, "a filter may forbid a call that spanguard makes", look_seccomp },
	{ "AppArmor", false, "a profile may forbid to map a library from an unusual place",
	    look_apparmor },
};

const size_t checks_n = ARRAY_LEN(checks);
