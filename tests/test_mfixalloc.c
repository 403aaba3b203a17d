/* test_mfixalloc.c - src/mfixalloc.c against a table of what is in use. */
#define _GNU_SOURCE
#include "fake_die.h"
#include "mfixalloc.h"
#include "sys.h"

#include <stdarg.h>
#include <cmocka.h>

#include <string.h>
#include <sys/resource.h>

static struct persistent meta = PERSISTENT_INIT;

static int
setup(void **state)
{
	(void)state;
	sys_init(SYS_GUARD_AUTO, 50);
	return 0;
}

static bool
all_bytes(const unsigned char *p, size_t bytes, unsigned char value)
{
	for (size_t i = 0; i < bytes; i++) {
		if (p[i] != value)
			return false;
	}
	return true;
}

/* Random allocs and frees of one size: zeroed, aligned, nobody's byte changed. */
static void
churn(size_t bytes, size_t align)
{
	enum { MAX = 300 };
	unsigned char *live[MAX];
	struct fixalloc f;
	size_t n = 0;
	uint32_t seed = 1;

	fixalloc_init(&f, &meta, bytes, align);
	for (unsigned i = 0; i < 5000; i++) {
		seed = seed * 1664525 + 1013904223;
		if (n < MAX && (n == 0 || seed >> 31 != 0)) {
			live[n] = fixalloc_alloc(&f);
			assert_non_null(live[n]);
			assert_int_equal((uintptr_t)live[n] & (align - 1), 0);
			assert_true(all_bytes(live[n], bytes, 0));
			memset(live[n], (int)((uintptr_t)live[n] >> 3 & 0xff) | 1, bytes);
			n++;
		} else {
			size_t k = (seed >> 8) % n;
			unsigned char want = (unsigned char)(((uintptr_t)live[k] >> 3 & 0xff) | 1);

			assert_true(all_bytes(live[k], bytes, want));
			fixalloc_free(&f, live[k]);
			live[k] = live[--n];
		}
		assert_int_equal(fixalloc_inuse(&f), n);
	}
	assert_true(fixalloc_inuse_bytes(&f) >= n * bytes);
	assert_true(a64_load_relaxed(&f.total) <= MAX);
}

static void
test_churn(void **state)
{
	(void)state;
	churn(1, 1);
	churn(24, 8);
	churn(100, 64);
	churn(8000, 8);
	churn(20000, 4096);
}

/* Type-stable: what was freed comes back, last first, and no memory is taken. */
static void
test_reuse(void **state)
{
	struct fixalloc f;
	void *p[64];
	size_t taken;

	(void)state;
	fixalloc_init(&f, &meta, 48, 16);
	for (size_t i = 0; i < 64; i++)
		p[i] = fixalloc_alloc(&f);
	taken = persistent_bytes(&meta);
	for (unsigned round = 0; round < 100; round++) {
		for (size_t i = 0; i < 64; i++)
			fixalloc_free(&f, p[i]);
		for (size_t i = 64; i-- > 0;)
			assert_ptr_equal(fixalloc_alloc(&f), p[i]);
	}
	assert_int_equal(a64_load_relaxed(&f.total), 64);
	assert_int_equal(fixalloc_inuse(&f), 64);
	assert_int_equal(persistent_bytes(&meta), taken);
}

static void
test_refused(void **state)
{
	struct persistent empty = PERSISTENT_INIT;
	struct rlimit old, none;
	struct fixalloc f;
	void *p;

	(void)state;
	fixalloc_init(&f, &empty, 64, 8);
	getrlimit(RLIMIT_AS, &old);
	none = (struct rlimit){ 4096, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_AS, &none), 0);
	p = fixalloc_alloc(&f);
	setrlimit(RLIMIT_AS, &old);
	assert_null(p);
	assert_int_equal(fixalloc_inuse(&f), 0);
	assert_non_null(fixalloc_alloc(&f));
	assert_int_equal(fixalloc_inuse(&f), 1);
}

static struct fixalloc planted;

static void
free_it(void *object)
{
	fixalloc_free(&planted, object);
}

static void
alloc_one(void *unused)
{
	(void)unused;
	fixalloc_alloc(&planted);
}

static void
test_planted_corruption(void **state)
{
	void *p, *q;

	(void)state;
	fixalloc_init(&planted, &meta, 64, 64);
	p = fixalloc_alloc(&planted);
	fixalloc_free(&planted, p);
	assert_true(fake_die_caught(free_it, p));
	assert_string_equal(fake_die_info.site, "FIX-1");
	assert_int_equal(fake_die_info.addr, (uintptr_t)p);

	p = fixalloc_alloc(&planted);
	q = fixalloc_alloc(&planted);
	fixalloc_free(&planted, p);
	fixalloc_free(&planted, q);
	((struct fixalloc_link *)q)->next = (void *)((char *)p + 8);
	assert_ptr_equal(fixalloc_alloc(&planted), q);
	assert_true(fake_die_caught(alloc_one, NULL));
	assert_string_equal(fake_die_info.site, "FIX-2");
}

#define TEST(f) cmocka_unit_test_setup(f, setup)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_churn),
		TEST(test_reuse),
		TEST(test_refused),
		TEST(test_planted_corruption),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
