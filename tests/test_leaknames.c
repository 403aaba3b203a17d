/* test_leaknames.c - names of static functions, of this program's own file and of
 * copies of it that are cut off, changed, or another program's. */
#include "hardening/leaknames.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "rand.h"

static NOINLINE int
a_function_of_mine(int n)
{
	__asm__ volatile("" : "+r"(n));
	return n + 1;
}

static struct module self;
static char *whole;
static size_t whole_bytes;
static char copy[] = "/tmp/leaknames-XXXXXX";

static uintptr_t
place(void)
{
	return (uintptr_t)&a_function_of_mine + 3;
}

static int
setup(void **state)
{
	int fd = mkstemp(copy);
	(void)state;
	assert_true(fd >= 0 && close(fd) == 0);
	assert_int_equal(a_function_of_mine(1), 2);
	assert_true(procmap_module(place(), &self));
	FILE *f = fopen(self.path, "r");
	assert_non_null(f);
	assert_int_equal(fseek(f, 0, SEEK_END), 0);
	whole_bytes = (size_t)ftell(f);
	rewind(f);
	whole = malloc(whole_bytes);
	assert_int_equal(fread(whole, 1, whole_bytes, f), whole_bytes);
	fclose(f);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	free(whole);
	return unlink(copy);
}

static const char *
find_in_copy(size_t bytes)
{
	struct module m = self;
	FILE *f = fopen(copy, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(whole, 1, bytes, f), bytes);
	fclose(f);
	strcpy(m.path, copy);
	leaknames_forget();
	return leaknames_find(&m, place());
}

static void
test_own_functions(void **state)
{
	(void)state;
	leaknames_forget();
	for (int i = 0; i < 3; i++) {        /* the second time it is kept */
		const char *name = leaknames_find(&self, place());
		assert_non_null(name);
		assert_string_equal(name, "a_function_of_mine");
	}
	assert_string_equal(leaknames_find(&self, (uintptr_t)&test_own_functions), "test_own_functions");
	assert_null(leaknames_find(&self, (uintptr_t)&self));
	assert_null(leaknames_find(NULL, place()));
	assert_string_equal(find_in_copy(whole_bytes), "a_function_of_mine");
}

static void
test_no_file(void **state)
{
	struct module m = self;
	(void)state;
	leaknames_forget();
	strcpy(m.path, "[vdso]");
	assert_null(leaknames_find(&m, place()));
	strcpy(m.path, "/no/such/file");
	assert_null(leaknames_find(&m, place()));
	assert_null(find_in_copy(0));
}

/* Of another build: the sections are elsewhere. */
static void
test_another_file(void **state)
{
	ElfW(Ehdr) *h = (void *)whole;
	(void)state;
	h->e_shoff += 64;
	assert_null(find_in_copy(whole_bytes));
	h->e_shoff -= 64;
	assert_non_null(find_in_copy(whole_bytes));
}

static void
test_cut_off(void **state)
{
	struct rand_stream r;
	(void)state;
	rand_seed_fixed(&r, 7, 1);
	for (int i = 0; i < 200; i++) {
		const char *name = find_in_copy(rand_below(&r, (uint32_t)whole_bytes));
		assert_true(name == NULL || strcmp(name, "a_function_of_mine") == 0);
	}
}

/* The tables say anything: some name or none, and nothing outside of the file is read. */
static void
test_changed(void **state)
{
	const ElfW(Ehdr) *h = (const void *)whole;
	char *table = whole + h->e_shoff;
	size_t bytes = (size_t)h->e_shnum * h->e_shentsize;
	struct rand_stream r;
	char *before = malloc(bytes);
	(void)state;
	memcpy(before, table, bytes);
	rand_seed_fixed(&r, 8, 1);
	for (int i = 0; i < 500; i++) {
		for (uint32_t n = 1 + rand_below(&r, 8); n != 0; n--)
			table[rand_below(&r, (uint32_t)bytes)] = (char)rand_below(&r, 256);
		const char *name = find_in_copy(whole_bytes);
		assert_true(name == NULL || strlen(name) < LEAKNAME_BYTES);
		memcpy(table, before, bytes);
	}
	free(before);
}

static void
test_plain(void **state)
{
	static const struct { const char *linked, *plain; } t[] = {
		{ "_ZN1A1bEv", "A::b" }, { "_Z3runi", "run" }, { "_ZL6hiddenv", "hidden" },
		{ "_ZNK3net6socket4nameEv", "net::socket::name" }, { "_ZN1AIiE1bEv", NULL },
		{ "_ZNSt6vectorIiE4pushEv", NULL }, { "_ZN1AC2Ev", NULL }, { "main", NULL }, { "_Z", NULL },
		{ "_ZN", NULL }, { "_ZNE", NULL }, { "_ZN9A", NULL }, { "_ZN0E", NULL }, { "", NULL },
		{ "_ZN99999999999999999999999A", NULL }, { "_ZN1A", NULL },
	};
	char plain[LEAKNAME_BYTES], small[6];
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		bool found = leaknames_plain(t[i].linked, plain, sizeof(plain));
		if (found != (t[i].plain != NULL) || (found && strcmp(plain, t[i].plain) != 0))
			fail_msg("%s: %s", t[i].linked, found ? plain : "nothing");
	}
	assert_true(leaknames_plain("_ZN1A1bEv", small, sizeof(small)));
	assert_false(leaknames_plain("_ZN1A2bbEv", small, 5));
	assert_false(leaknames_plain("_ZN6letter1bEv", small, sizeof(small)));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_own_functions), cmocka_unit_test(test_no_file),
		cmocka_unit_test(test_another_file), cmocka_unit_test(test_cut_off),
		cmocka_unit_test(test_changed), cmocka_unit_test(test_plain),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
