/* test_procmap.c - every kind of mapping made on purpose and recognised; module
 * facts against what the linker and dladdr say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "peek.h"
#include "procmap.h"

static char big_bss[1 << 20];
static char small_bss[64];
static int data = 42;
static const char rodata[] = "a constant";

static struct mapping m;
static struct module mod;

static NOINLINE uintptr_t
sp_now(void)
{
	return (uintptr_t)__builtin_frame_address(0);
}

static void
module_data(void **state)
{
	char exe[PROCMAP_PATH_BYTES];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	const struct { uintptr_t addr; enum region_kind kind; } want[] = {
		{ (uintptr_t)&module_data, REGION_CODE },
		{ (uintptr_t)rodata, REGION_RODATA },
		{ (uintptr_t)&data, REGION_DATA },
		{ (uintptr_t)big_bss, REGION_BSS },
		{ (uintptr_t)big_bss + sizeof(big_bss) - 1, REGION_BSS },
		{ (uintptr_t)small_bss, REGION_BSS },
	};
	(void)state;
	assert_true(n > 0);
	exe[n] = 0;
	for (size_t i = 0; i < ARRAY_LEN(want); i++) {
		procmap_classify(want[i].addr, sp_now(), &m);
		assert_int_equal(m.kind, want[i].kind);
		assert_string_equal(m.path, exe);
		assert_true(want[i].addr >= m.start && want[i].addr < m.end);
		assert_true(procmap_module(want[i].addr, &mod));
		assert_string_equal(mod.path, exe);
	}
}

static void
stacks(void **state)
{
	char local = 1;
	(void)state;
	procmap_classify((uintptr_t)&local, sp_now(), &m);
	assert_int_equal(m.kind, REGION_THIS_STACK);
	procmap_classify((uintptr_t)&local, 0, &m);
	assert_int_equal(m.kind, REGION_MAIN_STACK);
	/* Below the stack pointer is not "on the stack of this thread". */
	procmap_classify(sp_now() - 4096, sp_now(), &m);
	assert_int_not_equal(m.kind, REGION_THIS_STACK);
}

static void *
other_thread(void *main_local)
{
	static struct mapping t;
	char local = 2;
	procmap_classify((uintptr_t)&local, sp_now(), &t);
	assert_int_equal(t.kind, REGION_THIS_STACK);
	procmap_classify((uintptr_t)main_local, sp_now(), &t);
	assert_int_equal(t.kind, REGION_MAIN_STACK);
	procmap_classify((uintptr_t)&data, sp_now(), &t);
	assert_int_equal(t.kind, REGION_DATA);
	return NULL;
}

static void
thread_stacks(void **state)
{
	pthread_t t;
	char local = 3;
	(void)state;
	assert_int_equal(pthread_create(&t, NULL, other_thread, &local), 0);
	assert_int_equal(pthread_join(t, NULL), 0);
}

static void
mappings(void **state)
{
	(void)state;
	char *p = mmap(NULL, 3 * 65536, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(p != MAP_FAILED);
	assert_int_equal(mprotect(p + 65536, 65536, PROT_READ | PROT_WRITE), 0);
	procmap_classify((uintptr_t)p + 65536, sp_now(), &m);
	assert_int_equal(m.kind, REGION_ANON);
	assert_true(m.start == (uintptr_t)p + 65536 && m.end == (uintptr_t)p + 2 * 65536);
	assert_string_equal(m.perms, "rw-p");
	assert_string_equal(m.path, "");
	assert_int_equal(munmap(p, 3 * 65536), 0);
	procmap_classify((uintptr_t)p + 65536, sp_now(), &m);
	assert_int_equal(m.kind, REGION_NONE);

	procmap_classify((uintptr_t)0x4141414141414141, sp_now(), &m);
	assert_int_equal(m.kind, REGION_NONCANONICAL);
	procmap_classify(UINTPTR_MAX, sp_now(), &m);
	assert_int_equal(m.kind, REGION_NONCANONICAL);
	procmap_classify(0, sp_now(), &m);
	assert_int_equal(m.kind, REGION_NONE);
	procmap_classify(8, sp_now(), &m);
	assert_int_equal(m.kind, REGION_NONE);
}

static void
brk_and_file(void **state)
{
	char name[] = "/tmp/test_procmap.XXXXXX";
	int fd = mkstemp(name);
	char *brk = sbrk(64);
	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 65536), 0);
	char *p = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(p != MAP_FAILED);
	procmap_classify((uintptr_t)p + 100, sp_now(), &m);
	assert_int_equal(m.kind, REGION_FILE);
	assert_string_equal(m.path, name);
	unlink(name);
	/* A mapped copy of an ELF file is not a module at addresses it does not load. */
	munmap(p, 65536);
	close(fd);
	if (brk != (char *)-1) {
		procmap_classify((uintptr_t)brk, sp_now(), &m);
		assert_int_equal(m.kind, REGION_BRK);
	}
}

extern const char __ehdr_start[] __attribute__((visibility("hidden")));

static void
modules(void **state)
{
	char name[64];
	uintptr_t offset;
	(void)state;
	errno = EXDEV;
	assert_true(procmap_module((uintptr_t)&modules, &mod));
	assert_true(mod.start == (uintptr_t)__ehdr_start);
	assert_true(mod.build_id_bytes <= BUILD_ID_BYTES);

	assert_true(procmap_module((uintptr_t)&getppid, &mod));
	assert_non_null(strstr(mod.path, "/lib"));
	assert_true(mod.bias == mod.start);
	assert_int_equal(mod.build_id_bytes, 20);
	assert_true(procmap_symbol(&mod, (uintptr_t)&getppid, name, sizeof(name), &offset));
	assert_string_equal(name, "getppid");
	assert_int_equal(offset, 0);
	assert_true(procmap_symbol(&mod, (uintptr_t)&getppid + 1, name, sizeof(name), &offset));
	assert_int_equal(offset, 1);
	assert_false(procmap_symbol(&mod, mod.start, name, sizeof(name), &offset));
	assert_true(procmap_module((uintptr_t)&tzname, &mod));
	assert_true(procmap_symbol(&mod, (uintptr_t)&tzname + 8, name, sizeof(name), &offset));
	assert_int_equal(offset, 8);
	assert_int_equal(errno, EXDEV);

	assert_false(procmap_module((uintptr_t)&name, &mod));
	assert_false(procmap_module(0, &mod));
	assert_false(procmap_module(UINTPTR_MAX, &mod));
}

/* What the kernel says must agree with a second reader of the same file. */
static void
every_line(void **state)
{
	char buf[4096];
	unsigned lines = 0;
	FILE *f = fopen("/proc/self/maps", "r");
	(void)state;
	assert_non_null(f);
	setvbuf(f, NULL, _IOFBF, 1 << 16);
	while (fgets(buf, sizeof(buf), f) != NULL) {
		unsigned long start, end, off;
		char perms[5];
		if (sscanf(buf, "%lx-%lx %4s %lx", &start, &end, perms, &off) != 4 ||
		    strstr(buf, "[stack]") != NULL || start >> 47 != 0)
			continue;
		lines++;
		assert_true(procmap_find(end - 1, &m));
		assert_true(m.start == start && m.end == end && m.file_offset == off);
		assert_string_equal(m.perms, perms);
		if (m.path[0] != 0)
			assert_non_null(strstr(buf, m.path));
	}
	fclose(f);
	assert_true(lines > 10);
}

static void
peeks(void **state)
{
	struct peek k = { { 0 } };
	char got[8] = "-------";
	char *p = mmap(NULL, 65536 * 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	(void)state;
	assert_true(p != MAP_FAILED);
	assert_int_equal(mprotect(p + 65536, 65536, PROT_NONE), 0);
	memcpy(p + 65536 - 4, "abc", 4);
	assert_true(peek_read(&k, got, (uintptr_t)p + 65536 - 4, 4));
	assert_string_equal(got, "abc");
	assert_false(peek_read(&k, got, (uintptr_t)p + 65536 - 4, 5));
	assert_string_equal(got, "abc");
	assert_false(peek_ok(&k, (uintptr_t)p, 65537));
	assert_false(peek_ok(&k, 0, 1));
	assert_false(peek_ok(&k, UINTPTR_MAX - 3, 8));
	assert_false(peek_ok(&k, (uintptr_t)0x8000000000000000, 1));
	assert_true(peek_str(&k, got, sizeof(got), (uintptr_t)p + 65536 - 4));
	p[65535] = 'd';
	assert_false(peek_str(&k, got, sizeof(got), (uintptr_t)p + 65536 - 4));
	munmap(p, 65536 * 2);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(module_data),
		cmocka_unit_test(stacks),
		cmocka_unit_test(thread_stacks),
		cmocka_unit_test(mappings),
		cmocka_unit_test(brk_and_file),
		cmocka_unit_test(modules),
		cmocka_unit_test(every_line),
		cmocka_unit_test(peeks),
	};
	big_bss[0] = small_bss[0] = (char)data;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
