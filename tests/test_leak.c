/* test_leak.c - the leak check's parts: groups, suppression patterns, and what is
 * told of a heap of the test's own. Verdicts on whole programs: tests/leaks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_die.h"
#include "heap_support.h"
#include "hidden.h"

#include "hardening/hooks.h"
#include "hardening/leak.h"
#include "hardening/leaklist.h"
#include "hardening/leaksuppress.h"
#include "hardening/sample.h"
#include "proc.h"
#include "tls.h"

static void *volatile global;
static void *volatile first;             /* see test_mark.c: nothing of interest lies there */

static int
setup(void **state)
{
	(void)state;
	heap_stop();
	heap_start(NULL);
	heap_cache();
	first = mallocgc_noscan((size_t)16 << 20, API_NOSCAN);
	assert_non_null(first);
	leak_init(&(struct leak_config){ .suppressions = "" });
	global = NULL;
	fake_notes = 0;
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	heap_stop();
	return 0;
}

/* ---- lists ---- */

static const uintptr_t stack_a[] = { 1, 2, 3 }, stack_a2[] = { 1, 2, 3 }, stack_b[] = { 1, 2, 4 };

static void
test_groups(void **state)
{
	struct lost l[] = {
		{ .base = 10, .bytes = 1, .pcs = stack_b, .frames = 3, .indirect = true },
		{ .base = 20, .bytes = 2, .pcs = stack_a, .frames = 3 },
		{ .base = 30, .bytes = 4, .pcs = stack_b, .frames = 3 },
		{ .base = 40, .bytes = 8 },
		{ .base = 50, .bytes = 16, .pcs = stack_a2, .frames = 3 },
		{ .base = 60, .bytes = 32, .pcs = stack_a, .frames = 2 },
		{ .base = 70, .bytes = 64 },
	};
	struct lost_group g[8];

	(void)state;
	lost_sort(l, ARRAY_LEN(l));
	assert_int_equal(lost_count_groups(l, ARRAY_LEN(l)), 5);
	assert_int_equal(lost_group(l, ARRAY_LEN(l), g, 8), 5);
	static const size_t bytes[] = { 72, 32, 18, 4, 1 }, n[] = { 2, 1, 2, 1, 1 };
	for (size_t i = 0; i < 5; i++) {
		assert_int_equal(g[i].bytes, bytes[i]);
		assert_int_equal(g[i].n, n[i]);
		assert_int_equal(g[i].indirect, i == 4);
		for (size_t k = 1; k < g[i].n; k++)
			assert_true(l[g[i].first + k - 1].base < l[g[i].first + k].base);
	}
	assert_int_equal(lost_group(l, ARRAY_LEN(l), g, 2), 2);
	assert_int_equal(lost_count_groups(l, 0), 0);
	assert_int_equal(lost_group(l, 0, g, 8), 0);
}

static void
test_sort_of_many(void **state)
{
	enum { N = 20000 };
	static struct lost l[N];
	uint64_t random = 7;
	size_t sum = 0, after = 0;

	(void)state;
	for (size_t i = 0; i < N; i++) {
		l[i] = (struct lost){ .base = heap_rand(&random) % 5000, .bytes = i,
			.pcs = i % 3 == 0 ? stack_a : stack_b, .frames = 1 + (uint32_t)(i % 3),
			.indirect = heap_rand(&random) % 2 != 0 };
		sum += i;
	}
	lost_sort(l, N);
	for (size_t i = 0; i < N; i++) {
		after += l[i].bytes;
		assert_true(i == 0 || l[i - 1].indirect <= l[i].indirect);
	}
	assert_int_equal(after, sum);
	struct lost_group *g = malloc(N * sizeof(*g));
	size_t groups = lost_group(l, N, g, N), total = 0;
	for (size_t i = 0; i < groups; i++) {
		total += g[i].bytes;
		assert_true(i == 0 || g[i - 1].indirect < g[i].indirect || g[i - 1].bytes >= g[i].bytes);
	}
	assert_int_equal(groups, 6);
	assert_int_equal(total, sum);
	free(g);
}

/* ---- suppressions ---- */

static bool
matches(const char *pattern, const char *text)
{
	return suppress_matches(pattern, strlen(pattern), text);
}

static void
test_patterns(void **state)
{
	static const struct { const char *pattern, *text; bool yes; } t[] = {
		{ "foo", "foo", true }, { "foo", "a_foo_b", true }, { "foo", "fo", false },
		{ "^foo", "foobar", true }, { "^foo", "afoo", false }, { "foo$", "afoo", true },
		{ "foo$", "foob", false }, { "^foo$", "foo", true }, { "^foo$", "foofoo", false },
		{ "a*c", "xabcx", true }, { "a*c", "ca", false }, { "^a*c$", "abbc", true },
		{ "^a*c$", "abbcd", false }, { "a*b*c", "1a2b3c4", true }, { "a*b*c", "1a2c3b4", false },
		{ "*", "", true }, { "*foo", "foo", true }, { "foo*", "foo", true }, { "^*foo", "xfoo", true },
		{ "foo$", "foofoo", true }, { "^a*a$", "a", false }, { "^a*a$", "aa", true },
		{ "**", "x", true }, { "/libx.so", "/usr/lib/libx.so.1", true }, { "$", "abc", true },
		{ "^", "abc", true }, { "^$", "", true }, { "^$", "a", false }, { "aab", "aaab", true },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(t); i++)
		if (matches(t[i].pattern, t[i].text) != t[i].yes)
			fail_msg("%s against %s", t[i].pattern, t[i].text);
	assert_true(suppress_matches("foobar", 3, "xfoox"));
}

static void
test_list_of_a_file(void **state)
{
	char path[] = "/tmp/suppressions-XXXXXX";
	static const char text[] = "# comment\n\nleak:foo\n  leak:b*r$  \r\nrace:foo\nleak:\nleak:last";
	static struct suppressions l;
	int fd = mkstemp(path);

	(void)state;
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
	proc_world_lock();
	assert_true(suppress_load(&l, path));
	assert_int_equal(l.n, 3);
	assert_ptr_equal(suppress_find(&l, "a_foo", NULL), &l.s[0]);
	assert_ptr_equal(suppress_find(&l, NULL, "/lib/bar"), &l.s[1]);
	assert_ptr_equal(suppress_find(&l, "at", "/lib/at-last"), &l.s[2]);
	assert_null(suppress_find(&l, "at", "/lib/bars"));
	assert_null(suppress_find(&l, NULL, NULL));
	suppress_drop(&l);
	assert_false(suppress_load(&l, "/no/such/file"));
	assert_int_equal(l.n, 0);
	suppress_drop(&l);
	assert_true(suppress_load(&l, ""));
	suppress_drop(&l);
	proc_world_unlock();
	unlink(path);
}

/* ---- a check ---- */

static NOINLINE int
check(bool delta)
{
	fake_note[0] = 0;
	return leak_check(delta);
}

/* check's frame lies where scrub's was. */
static NOINLINE int
lost_now(bool delta)
{
	scrub();
	int n = check(delta);
	NO_TAIL_CALL();
	return n;
}

/* An instrumented frame may keep what the source has let go of. */
#define assert_lost_now(delta, n) \
	assert_true(lost_now(delta) == (n) || FRAMES_KEEP_COPIES)
#define assert_said(text) \
	assert_true(strstr(fake_note, text) != NULL || FRAMES_KEEP_COPIES)

static void
test_direct_and_indirect(void **state)
{
	uintptr_t a = hidden_new(48, false), b = hidden_new(64, false), large = hidden_new(1 << 20, false);

	(void)state;
	assert_lost_now(false, 3);
	assert_said("Direct leak of 1048688 byte(s) in 3 object(s)");
	assert_null(strstr(fake_note, "Indirect"));
	hidden_link(a, 0, b, 60);
	hidden_link(a, 1, large, 1000000);
	assert_lost_now(false, 3);
	assert_said("Direct leak of 48 byte(s) in 1 object(s)");
	assert_said("Indirect leak of 1048640 byte(s) in 2 object(s)");
	assert_said("SUMMARY: spanguard: 1048688 byte(s) leaked in 3 allocation(s).\n");
	hidden_link(b, 0, a, 0);               /* a cycle */
	hidden_link(large, 5, large, 8);       /* to itself does not count */
	assert_lost_now(false, 3);
	assert_said("Indirect leak of 1048688 byte(s) in 3 object(s)");
	hidden_store(&global, b, 0);
	assert_lost_now(false, 0);
	assert_true(fake_note[0] == 0 || FRAMES_KEEP_COPIES);
}

static void
test_tiny_objects(void **state)
{
	uintptr_t a = hidden_new(5, true), b = hidden_new(8, true), holder = hidden_new(48, false);

	(void)state;
	hidden_link(holder, 0, a, 4);
	assert_lost_now(false, 3);
	assert_said("Indirect leak of 8 byte(s) in 1 object(s)");
	hidden_store(&global, b, 7);
	assert_lost_now(false, 2);
}

static void
test_delta(void **state)
{
	uintptr_t a = hidden_new(48, false);

	(void)state;
	assert_lost_now(true, 1);
	assert_lost_now(true, 0);
	hidden_new(64, false);
	assert_lost_now(true, 1);
	assert_said("detected memory leaks since the last check");
	assert_said("of 64 byte(s)");
	assert_lost_now(false, 2);
	hidden_free(a);
	assert_lost_now(true, 0);
	assert_lost_now(false, 1);
}

static NOINLINE bool
ignore(uintptr_t h, size_t off)
{
	return leak_ignore((char *)~h + off);
}

static void
test_ignored(void **state)
{
	uintptr_t a = hidden_new(48, false), b = hidden_new(64, false), large = hidden_new(1 << 20, false);

	(void)state;
	hidden_link(a, 2, b, 0);
	assert_lost_now(false, 3);
	assert_true(ignore(a, 47));
	assert_lost_now(false, 1);
	assert_true(ignore(large, 500000));
	assert_lost_now(false, 0);
	hidden_free(large);
	assert_false(ignore(large, 0));
	assert_false(leak_ignore((void *)&global));
	for (int i = 0; i < 1000; i++)
		assert_true(ignore(hidden_new(32, false), 0));
	assert_lost_now(false, 0);
}

static void
test_sampled(void **state)
{
	(void)state;
	sample_start(&(struct sample_config){ .one_in = 1, .window_bytes = 1 << 17, .seed = 1 });
	uintptr_t a = ~(uintptr_t)sample_maybe_alloc(100, 16, false, true);
	uintptr_t b = hidden_new(64, false);
	assert_lost_now(false, 2);
	hidden_link(a, 3, b, 0);
	assert_lost_now(false, 2);
	assert_said("Direct leak of 100 byte(s) in 1 object(s)");
	assert_said("Indirect leak of 64 byte(s) in 1 object(s)");
	hidden_link(a, 3, 0, 0);
	hidden_link(b, 1, a, 99);
	assert_lost_now(false, 2);
	assert_said("Indirect leak of 100 byte(s) in 1 object(s)");
	assert_true(ignore(a, 5));
	assert_lost_now(false, 1);
	sample_start(&(struct sample_config){ 0 });
}

static void
test_wanted_by_a_signal(void **state)
{
	struct mcache *c = mcache_self();

	(void)state;
	hidden_new(48, false);
	assert_false(leak_wanted());
	c->busy = CACHE_SLOW;
	leak_from_signal(false, 0, 0);
	assert_true(leak_wanted());
	leak_if_wanted();
	c->busy = CACHE_IDLE;
	proc_world_lock();
	leak_if_wanted();
	proc_world_unlock();
	assert_int_equal(fake_notes, 0);
	assert_true(leak_wanted());
	scrub();
	leak_if_wanted();
	assert_int_equal(fake_notes, 1);
	assert_false(leak_wanted());
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_groups),
		cmocka_unit_test(test_sort_of_many),
		cmocka_unit_test(test_patterns),
		TEST(test_list_of_a_file),
		TEST(test_direct_and_indirect),
		TEST(test_tiny_objects),
		TEST(test_delta),
		TEST(test_ignored),
		TEST(test_sampled),
		TEST(test_wanted_by_a_signal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
