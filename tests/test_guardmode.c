/* test_guardmode.c - guarded objects and their places, on the real system: what can be
 * touched and what cannot, the quarantine, runs of chunks, giving up, planted faults. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <string.h>

#include "fake_die.h"
#include "hardening/guardmode.h"
#include "hardening/guardspace.h"
#include "peek.h"
#include "sys.h"

enum { SLOTS = 200, THREADS = 4, ROUNDS = 3000 };

static bool
can_read(uintptr_t addr)
{
	struct peek k = { 0 };
	return peek_ok(&k, addr, 1);
}

static void
start(bool left, size_t align, size_t quarantine_bytes)
{
	const struct guardmode_config c = { .on = true, .left = left, .align = align,
		.quarantine_bytes = quarantine_bytes, .seed = 7 };
	sys_init(SYS_GUARD_AUTO, 50);
	guardmode_init(&c);
}

static char *
get(size_t bytes, size_t align)
{
	return guardmode_alloc(bytes, align, false, align > 16 ? API_MEMALIGN : API_MALLOC);
}

static struct guard_record *
record(const void *p)
{
	struct guard_around near;
	assert_true(guardspace_find((uintptr_t)p, &near));
	return near.in != NULL ? near.in : near.before;
}

static const size_t sizes[] = { 0, 1, 15, 16, 41, 4095, 4096, 4097, 20000, 65536, 65537, 200000,
	1048576, 5000000 };

/* ---- places ------------------------------------------------------------- */

static void
check_place(const char *p, size_t bytes, size_t align, bool left)
{
	uintptr_t base = (uintptr_t)p, end = base + bytes;
	size_t page = sys_page_bytes();
	assert_non_null(p);
	assert_int_equal(base % align, 0);
	assert_true(guardspace_sound(record(p)));
	for (uintptr_t at = base; at < end; at += page / 2)
		assert_true(can_read(at));
	assert_true(bytes == 0 || can_read(end - 1));
	assert_false(can_read(align_up(end, page)));
	assert_false(can_read(align_down(base, page) - 1));
	if (!left && align < page)
		assert_true(align_up(end, page) - end < align);
	if (left && align <= page)
		assert_int_equal(base % page, 0);
	for (size_t i = 0; i < bytes && i < 4096; i++)
		assert_int_equal(p[i], 0);
}

static void
places(void **state)
{
	static const size_t aligns[] = { 1, 16, 64, 4096, 65536 };
	size_t have;
	bool noscan;
	(void)state;
	for (int left = 0; left < 2; left++)
		for (size_t a = 0; a < ARRAY_LEN(aligns); a++) {
			start(left != 0, aligns[a] < 16 ? aligns[a] : 16, 1 << 30);
			for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
				size_t align = aligns[a] < 16 ? 16 : aligns[a];
				char *p = get(sizes[i], align);
				check_place(p, sizes[i], aligns[a], left != 0);
				assert_int_equal(guardmode_look(p, &have, &noscan), OUTSIDE_OK);
				assert_int_equal(have, sizes[i]);
				memset(p, 5, sizes[i]);
			}
		}
}

static void
freed_pages_fault(void **state)
{
	(void)state;
	start(false, 16, 1 << 30);
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		char *p = get(sizes[i], 16), *q = get(sizes[i], 16);
		assert_ptr_not_equal(p, q);
		assert_int_equal(guardmode_free(p, API_FREE), OUTSIDE_OK);
		assert_false(can_read((uintptr_t)p));
		assert_true(sizes[i] == 0 || can_read((uintptr_t)q));
		assert_int_equal(guardmode_free(p, API_FREE), OUTSIDE_FREED);
		if (sizes[i] > 1)
			assert_int_equal(guardmode_free(q + 1, API_FREE), OUTSIDE_INTERIOR);
	}
}

/* ---- quarantine --------------------------------------------------------- */

/* Slots of one page: the bound holds 10 of them, the oldest leaves first. */
static void
first_in_first_out(void **state)
{
	char *p[SLOTS];
	size_t page = sys_page_bytes();
	(void)state;
	start(false, 16, 10 * 2 * page);
	for (size_t i = 0; i < SLOTS; i++)
		p[i] = get(100, 16);
	for (size_t i = 0; i < 10; i++)
		guardmode_free(p[i], API_FREE);
	char *fresh = get(100, 16);
	for (size_t i = 0; i < SLOTS; i++)
		assert_ptr_not_equal(fresh, p[i]);
	for (size_t i = 10; i < SLOTS; i++) {
		memset(p[i], 1, 100);
		guardmode_free(p[i], API_FREE);
		char *again = get(100, 16);
		assert_ptr_equal(again, p[i - 10]);
		for (size_t k = 0; k < 100; k++)
			assert_int_equal(again[k], 0);
	}
}

static void
runs_come_back(void **state)
{
	struct guardspace_stats before, after;
	(void)state;
	start(false, 16, 0);
	char *p = get(3 << 20, 16);
	guardspace_read_stats(&before);
	for (size_t i = 0; i < 300; i++) {
		memset(p, 1, 4096);
		guardmode_free(p, API_FREE);
		size_t bytes = (1 + i % 7) * 700000;
		p = get(bytes, 16);
		check_place(p, bytes, 16, false);
	}
	guardspace_read_stats(&after);
	assert_int_equal(after.bytes, before.bytes);
	assert_int_equal(after.unguarded, 0);
}

/* ---- whose -------------------------------------------------------------- */

static enum die_code
code_at(const char *p)
{
	struct fault_claim c;
	return guardmode_room.claim((uintptr_t)p, &c) ? c.code : 0;
}

static void
claims(void **state)
{
	struct room_object o;
	int here;
	(void)state;
	start(false, 1, 1 << 30);
	char *p = get(41, 16), *q = get(41, 16);
	assert_int_equal(code_at(p + 41), DIE_OVERFLOW);
	assert_int_equal(code_at(q + 41 + 1000), DIE_OVERFLOW);
	assert_int_equal(code_at(p - 4096), DIE_UNDERFLOW);
	assert_int_equal(code_at((char *)&here), 0);
	assert_true(guardmode_room.object((uintptr_t)p + 43, &o));
	assert_true(o.base == (uintptr_t)p && o.bytes == 41 && o.live);
	guardmode_free(p, API_FREE);
	assert_int_equal(code_at(p + 3), DIE_USE_AFTER_FREE);
	assert_true(guardmode_room.object((uintptr_t)p + 3, &o) && !o.live);
	char *z = get(0, 16);
	assert_int_equal(code_at(z), DIE_ZERO_SIZE);
}

static void
given_up(void **state)
{
	(void)state;
	start(false, 1, 0);
	char *p = get(41, 16), *q = get(41, 16);
	assert_true(guardspace_give_up(record(p)));
	assert_true(guardspace_give_up(record(q)));
	assert_true(can_read((uintptr_t)p + 41) && can_read((uintptr_t)q + 41));
	assert_int_equal(guardmode_free(p, API_FREE), OUTSIDE_OK);
	assert_true(can_read((uintptr_t)p));
	assert_int_equal(guardmode_free(p, API_FREE), OUTSIDE_FREED);
	for (size_t i = 0; i < SLOTS; i++) {
		char *r = get(41, 16);
		assert_ptr_not_equal(r, p);
		guardmode_free(r, API_FREE);
	}
}

/* ---- slack, planted faults ---------------------------------------------- */

static void
free_it(void *p)
{
	guardmode_free(p, API_FREE);
}

static void
slack(void **state)
{
	(void)state;
	start(false, 16, 1 << 30);
	char *p = get(41, 16);
	p[41]++;
	assert_true(fake_die_caught(free_it, p));
	assert_int_equal(fake_die_info.code, DIE_CANARY);
	assert_int_equal(fake_die_info.addr, (uintptr_t)p);
	p = get(41, 16);
	p[-1]++;
	assert_true(fake_die_caught(free_it, p));
	assert_int_equal(fake_die_info.code, DIE_UNDERFLOW_SEEN);
}

static void
explain_it(void *p)
{
	guardmode_explain((uintptr_t)p, "verify");
}

/* Of live objects, on either side. */
static void
slack_of_live(void **state)
{
	static const struct { int at; enum die_code code; } touch[] = {
		{ 41, DIE_CANARY }, { -1, DIE_UNDERFLOW_SEEN },
	};
	uintptr_t where;
	(void)state;
	start(false, 16, 1 << 30);
	char *whole = get(41, 16);
	for (size_t i = 0; i < 2; i++) {
		char *p = get(41, 16);
		memset(p, 'x', 41);
		assert_null(guardmode_check(&where));
		assert_false(guardmode_explain((uintptr_t)p, "verify"));
		p[touch[i].at]++;
		assert_string_equal(guardmode_check(&where), "slack");
		assert_int_equal(where, (uintptr_t)p);
		assert_false(guardmode_explain((uintptr_t)whole, "verify"));
		assert_true(fake_die_caught(explain_it, p));
		assert_int_equal(fake_die_info.code, touch[i].code);
		assert_int_equal(fake_die_info.addr, (uintptr_t)p);
		p[touch[i].at]--;
		assert_null(guardmode_check(&where));
		free_it(p);
	}
	free_it(whole);
}

static void
planted(void **state)
{
	uintptr_t where;
	(void)state;
	start(false, 16, 1 << 30);
	char *p = get(100, 16);
	assert_null(guardmode_check(&where));
	record(p)->bytes = 5000;
	assert_string_equal(guardmode_check(&where), "GUARDSPACE-1");
	assert_int_equal(where, (uintptr_t)p);
	assert_true(fake_die_caught(free_it, p));
	assert_string_equal(fake_die_info.site, "GUARDSPACE-1");
}

static void
take_one(void *arg)
{
	*(char **)arg = get(100, 16);
}

static void
planted_on_the_list(void **state)
{
	char *p, *q;
	(void)state;
	start(false, 16, 0);
	p = get(100, 16);
	struct guard_record *r = record(p);
	free_it(p);
	a32_store_release(&r->state, GUARD_LIVE);
	assert_true(fake_die_caught(take_one, &q));
	assert_string_equal(fake_die_info.site, "GUARDSPACE-3");
}

/* ---- the fallback, threads ---------------------------------------------- */

/* A guard that adjoins another costs no mapping: a freed object is faulted even when
 * the budget is spent. */
static void
spent_budget(void **state)
{
	static char *p[40000];
	struct guardspace_stats s;
	size_t n = 0;
	(void)state;
	start(false, 16, 1 << 30);
	sys_init(SYS_GUARD_MPROTECT, 2);
	while (n < ARRAY_LEN(p) && (p[n] = get(64, 16)) != NULL)
		n++;
	assert_true(n > 100 && n < ARRAY_LEN(p));
	guardspace_read_stats(&s);
	assert_int_equal(s.unguarded, 1);
	for (size_t i = 0; i < n; i++) {
		free_it(p[i]);
		assert_false(can_read((uintptr_t)p[i]));
	}
	sys_init(SYS_GUARD_AUTO, 50);
}

static void *
churn(void *arg)
{
	char *held[8] = { NULL };
	for (size_t i = 0; i < ROUNDS; i++) {
		char **h = &held[i % 8];
		size_t bytes = 1 + (i * 37 + (uintptr_t)arg * 11) % (i % 64 == 0 ? 90000 : 5000);
		if (*h != NULL && guardmode_free(*h, API_FREE) != OUTSIDE_OK)
			return "free";
		*h = get(bytes, 16);
		if (*h == NULL || (*h)[0] != 0 || (*h)[bytes - 1] != 0)
			return "alloc";
		memset(*h, 1, bytes);
	}
	return NULL;
}

static void
threads(void **state)
{
	pthread_t t[THREADS];
	void *wrong;
	(void)state;
	start(false, 16, 64 * sys_page_bytes());
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, churn, (void *)i), 0);
	for (size_t i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_join(t[i], &wrong), 0);
		assert_null(wrong);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(places), cmocka_unit_test(freed_pages_fault),
		cmocka_unit_test(first_in_first_out), cmocka_unit_test(runs_come_back),
		cmocka_unit_test(claims), cmocka_unit_test(given_up), cmocka_unit_test(slack),
		cmocka_unit_test(slack_of_live),
		cmocka_unit_test(planted), cmocka_unit_test(planted_on_the_list),
		cmocka_unit_test(spent_budget), cmocka_unit_test(threads),
	};
	sys_init(SYS_GUARD_AUTO, 50);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
