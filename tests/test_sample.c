/* test_sample.c - the pool of sampled objects: how many are taken, where they lie,
 * what a wrong pointer or a touched guard is judged to be, and going on after a
 * report. The room's source is included, so that its records can be planted. */
#include "hardening/sample.c"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>

#include "fake_die.h"
#include "peek.h"

static unsigned reports;
static struct die_info last_report;

/* In place of report.c. */
void
report_and_go_on(const struct die_info *info)
{
	reports++;
	last_report = *info;
}

static void
start(uint32_t one_in, bool on_we_go, uint64_t seed)
{
	const struct sample_config config = { .one_in = one_in, .go_on = on_we_go, .stack_depth = 32,
		.window_bytes = 128 << 10, .seed = seed };
	sys_init(SYS_GUARD_AUTO, 50);
	sample_start(&config);
	reports = 0;
}

static NOINLINE char *
get(size_t bytes)
{
	char *p = sample_maybe_alloc(bytes, 16, false, true);
	assert_non_null(p);
	return p;
}

static NOINLINE void
drop(void *p)
{
	assert_int_equal(sample_free(p, "free"), OUTSIDE_OK);
}

static enum outside_verdict
look(const void *p)
{
	size_t bytes;
	bool noscan;
	return sample_look(p, "malloc_usable_size", &bytes, &noscan);
}

static bool
readable(const void *p, size_t bytes)
{
	struct peek k = { { 0 } };
	return peek_ok(&k, (uintptr_t)p, bytes);
}

/* ---- how many ----------------------------------------------------------- */

static size_t
sampled_of(size_t calls, size_t bytes, bool refill)
{
	size_t n = 0;
	for (size_t i = 0; i < calls; i++) {
		void *p = sample_maybe_alloc(bytes, 16, false, refill);
		if (p != NULL) {
			n++;
			drop(p);
		}
	}
	return n;
}

/* The gaps are uniform: 2,000 of them have a mean within 4 % at five times the
 * standard deviation, N / sqrt(3) / sqrt(2000). */
static void
test_rate(void **state)
{
	(void)state;
	start(500, false, 1);
	assert_in_range(sampled_of(1000000, 100, false), 1920, 2080);
	start(5000, false, 2);
	assert_in_range(sampled_of(10000000 / 64, 100, true), 1920, 2080);
	start(5000, false, 3);      /* a window of 4 KiB slots is half as long */
	assert_in_range(sampled_of(10000000 / 32, 4096, true), 1920, 2080);
	start(500, false, 4);       /* a large object is no window */
	assert_int_equal(sampled_of(100000, 100000, true), 0);
	struct sample_stats s;
	sample_read_stats(&s);
	assert_in_range(s.declined, 150, 250);
}

static void
test_off(void **state)
{
	(void)state;
	start(0, false, 1);
	assert_int_equal(sampled_of(1000000, 100, true), 0);
	assert_int_equal(look(&state), OUTSIDE_FOREIGN);
	assert_int_equal(sample_free(&state, "free"), OUTSIDE_FOREIGN);
}

static void
test_not_for_all(void **state)
{
	(void)state;
	start(1, false, 1);
	assert_null(sample_maybe_alloc(0, 16, false, true));
	assert_null(sample_maybe_alloc(SAMPLE_DATA_BYTES + 1, 16, false, true));
	assert_null(sample_maybe_alloc(100, sys_page_bytes() * 2, false, true));
	drop(get(SAMPLE_DATA_BYTES));
	drop(get(1));
}

/* The pause is behind the object, as long as the factor says. */
static void
test_pause(void **state)
{
	const struct sample_config config = { .one_in = 1, .pause_factor = 100000000,
		.window_bytes = 128 << 10, .seed = 1 };
	struct sample_stats s;
	(void)state;
	sys_init(SYS_GUARD_AUTO, 50);
	a64_store_relaxed(&pool.not_before_ns, 0);
	sample_start(&config);
	drop(get(100));
	for (int i = 0; i < 1000; i++)
		assert_null(sample_maybe_alloc(100, 16, false, true));
	sample_read_stats(&s);
	assert_true(s.cost_ns > 0);
	assert_true(a64_load_relaxed(&pool.not_before_ns) > now_ns());
	a64_store_relaxed(&pool.not_before_ns, 0);
	drop(get(100));
	a64_store_relaxed(&pool.not_before_ns, 0);
}

/* ---- where -------------------------------------------------------------- */

static void
check_place(const char *p, size_t bytes, size_t align, size_t sides[2])
{
	size_t page = sys_page_bytes(), len;
	bool noscan, left = (uintptr_t)p % page == 0;
	uintptr_t end = (uintptr_t)p + bytes;
	assert_int_equal((uintptr_t)p % align, 0);
	assert_true(left || align_up(end, page) - end < align);
	for (size_t i = 0; i < bytes; i++)
		assert_int_equal(p[i], 0);
	assert_int_equal(sample_look(p, "", &len, &noscan), OUTSIDE_OK);
	assert_int_equal(len, bytes);
	/* what is behind the pages on that side faults */
	if (left)
		assert_false(readable(p - 1, 1));
	else
		assert_false(readable((char *)align_up(end, page), 1));
	sides[left]++;
}

static void
test_place(void **state)
{
	size_t sides[2] = { 0, 0 };
	(void)state;
	start(1, false, 5);
	for (size_t i = 0; i < 2000; i++) {
		size_t bytes = 1 + (i * 7919) % 16000, align = (size_t)16 << i % 9;
		char *p = sample_maybe_alloc(bytes, align, false, true);
		assert_non_null(p);
		check_place(p, bytes, align, sides);
		memset(p, 0xaa, bytes);
		drop(p);
		assert_false(readable(p, 1));
	}
	assert_true(sides[0] > 800 && sides[1] > 800);
}

static void
test_full_and_quarantine(void **state)
{
	char *p[SAMPLE_SLOTS];
	struct sample_stats s;
	(void)state;
	start(1, false, 6);
	for (size_t i = 0; i < SAMPLE_SLOTS; i++) {
		p[i] = get(100);
		memset(p[i], (int)i, 100);
	}
	assert_null(sample_maybe_alloc(100, 16, false, true));
	for (size_t i = 0; i < SAMPLE_SLOTS; i++)
		for (size_t k = 0; k < 100; k++)
			assert_int_equal(p[i][k], i);
	for (size_t i = 0; i < QUARANTINE_MIN; i++) {
		assert_null(sample_maybe_alloc(100, 16, false, true));
		drop(p[i]);
	}
	drop(get(100));
	sample_read_stats(&s);
	assert_int_equal(s.live, SAMPLE_SLOTS - QUARANTINE_MIN);
	assert_int_equal(s.freed, QUARANTINE_MIN);
}

/* Of eight freed slots, none is the next one more often than chance allows. */
static void
test_reuse_is_random(void **state)
{
	size_t hits[SAMPLE_SLOTS] = { 0 };
	(void)state;
	start(1, false, 7);
	for (size_t i = 0; i < SAMPLE_SLOTS; i++)
		drop(get(100));
	for (size_t i = 0; i < 6400; i++) {
		char *p = get(100);
		hits[slot_of((uintptr_t)p) - pool.slots]++;
		drop(p);
	}
	for (size_t i = 0; i < SAMPLE_SLOTS; i++)
		assert_in_range(hits[i], 50, 150);
}

/* ---- verdicts ----------------------------------------------------------- */

static void
test_verdicts(void **state)
{
	(void)state;
	start(1, false, 8);
	char *p = get(100);
	assert_int_equal(look(p), OUTSIDE_OK);
	assert_int_equal(look(p + 1), OUTSIDE_INTERIOR);
	assert_int_equal(look(p + 99), OUTSIDE_INTERIOR);
	assert_int_equal(look(p + 100), OUTSIDE_FOREIGN);
	assert_int_equal(look(p - 16), OUTSIDE_FOREIGN);
	assert_int_equal(look((char *)pool.base - 1), OUTSIDE_FOREIGN);
	assert_int_equal(look((char *)pool.base + pool.bytes), OUTSIDE_FOREIGN);
	assert_int_equal(look(NULL), OUTSIDE_FOREIGN);
	assert_int_equal(sample_free(p + 16, "free"), OUTSIDE_INTERIOR);
	drop(p);
	assert_int_equal(look(p), OUTSIDE_FREED);
	assert_int_equal(look(p + 16), OUTSIDE_INTERIOR);
	assert_int_equal(sample_free(p, "free"), OUTSIDE_FREED);
	for (uintptr_t at = pool.base - 64; at < pool.base + pool.bytes + 64; at += 8)
		if (at - (uintptr_t)p >= 100)
			assert_int_equal(look((void *)at), OUTSIDE_FOREIGN);
}

static enum die_code
claim_of(const void *p)
{
	struct fault_claim c;
	return sample_room.claim((uintptr_t)p, &c) ? c.code : (enum die_code)0;
}

static void
test_claims(void **state)
{
	struct room_object o;
	(void)state;
	start(1, false, 9);
	assert_int_equal(claim_of(&o), 0);
	assert_false(sample_room.object((uintptr_t)&o, &o));
	for (int i = 0; i < 50; i++) {
		char *p = get(3000);
		struct sample_slot *s = slot_of((uintptr_t)p);
		const char *data = (const char *)slot_data(s);
		assert_int_equal(claim_of(p - 1), DIE_UNDERFLOW);
		assert_int_equal(claim_of(p + 3000), DIE_OVERFLOW);
		assert_int_equal(claim_of(data + pool.data_bytes), DIE_OVERFLOW);
		assert_int_equal(claim_of(data - 1), DIE_UNDERFLOW);
		assert_true(sample_room.object((uintptr_t)data - 1, &o));
		assert_int_equal(o.base, (uintptr_t)p);
		assert_true(o.live && o.freed.tid == 0);
		drop(p);
		assert_int_equal(claim_of(p), DIE_USE_AFTER_FREE);
		assert_int_equal(claim_of(p - 1), DIE_USE_AFTER_FREE);
		assert_true(sample_room.object((uintptr_t)p + 5, &o));
		assert_true(!o.live && o.freed.tid != 0);
		assert_int_equal(o.bytes, 3000);
	}
}

/* The nearest slot that holds or held an object, and none at the ends. */
static void
test_beside(void **state)
{
	struct room_object o;
	char *at[SAMPLE_SLOTS] = { 0 };
	(void)state;
	assert_false(sample_room.beside((uintptr_t)&o, true, &o));
	start(1, false, 9);
	for (size_t n = 0; n < 20; n++) {
		char *p = get(100 + n);
		at[slot_of((uintptr_t)p) - pool.slots] = p;
	}
	for (size_t i = 0; i < SAMPLE_SLOTS; i += 3)
		if (at[i] != NULL)
			drop(at[i]);
	for (size_t i = 0; i < SAMPLE_SLOTS; i++) {
		size_t before = i, behind = i;
		if (at[i] == NULL)
			continue;
		do {
			before--;
		} while (before < SAMPLE_SLOTS && at[before] == NULL);
		do {
			behind++;
		} while (behind < SAMPLE_SLOTS && at[behind] == NULL);
		assert_int_equal(sample_room.beside((uintptr_t)at[i], false, &o), before < SAMPLE_SLOTS);
		if (before < SAMPLE_SLOTS) {
			assert_int_equal(o.base, (uintptr_t)at[before]);
			assert_int_equal(o.live, before % 3 != 0);
		}
		assert_int_equal(sample_room.beside((uintptr_t)at[i] + 1, true, &o), behind < SAMPLE_SLOTS);
		if (behind < SAMPLE_SLOTS)
			assert_int_equal(o.base, (uintptr_t)at[behind]);
	}
}

static bool
stack_has(const struct room_trace *s, uintptr_t f)
{
	for (size_t i = 0; i < s->frames; i++)
		if (s->pcs[i] - f < 512)
			return true;
	return false;
}

static void
test_stacks(void **state)
{
	struct room_object o;
	(void)state;
	start(1, false, 10);
	char *p = get(100);
	drop(p);
	assert_true(sample_room.object((uintptr_t)p, &o));
	assert_int_equal(o.allocated.tid, sys_gettid());
	assert_int_equal(o.freed.tid, sys_gettid());
	assert_true(stack_has(&o.allocated, (uintptr_t)&get));
	assert_true(stack_has(&o.allocated, (uintptr_t)&test_stacks));
	assert_true(stack_has(&o.freed, (uintptr_t)&drop));
	size_t n = o.allocated.frames < o.freed.frames ? o.allocated.frames : o.freed.frames;
	assert_memory_not_equal(o.allocated.pcs, o.freed.pcs, n * sizeof(uintptr_t));
}

/* ---- slack -------------------------------------------------------------- */

static void
call_free(void *p)
{
	sample_free(p, "free");
}

static void
test_slack(void **state)
{
	(void)state;
	start(1, false, 11);
	for (int i = 0; i < 20; i++) {
		char *p = get(40);       /* ends off alignment: slack on either side */
		bool behind = i % 2 == 0;
		char *at = behind ? p + 40 : p - 1;
		if (!readable(at, 1))
			continue;
		*at = 0;
		assert_true(fake_die_caught(call_free, p));
		assert_int_equal(fake_die_info.code, DIE_CANARY);
		assert_int_equal(fake_die_info.addr, (uintptr_t)p);
	}
}

static void
test_slack_diff(void **state)
{
	struct die_diff d;
	(void)state;
	start(1, false, 12);
	char *p = get(100);
	struct sample_slot *s = slot_of((uintptr_t)p);
	assert_false(slack_changed(s, &d));
	char *at = (char *)(s->base > s->pages + 50 ? s->base - 50 : s->base + s->bytes + 10);
	memset(at, 'x', 3);
	at[5] = 'y';
	assert_true(slack_changed(s, &d));
	assert_int_equal(d.base, (uintptr_t)at);
	assert_int_equal(d.changed, 4);
	assert_int_equal(d.found[0], 'x');
	assert_int_equal(d.found[3], s->fill);
	assert_int_equal(d.expected[5], s->fill);
	assert_int_equal(d.found[5], 'y');
}

/* ---- going on ----------------------------------------------------------- */

static void
test_go_on_after_a_touch(void **state)
{
	bool silent = true;
	(void)state;
	start(1, true, 13);
	char *p = get(100);
	char *guard = (char *)slot_data(slot_of((uintptr_t)p)) + pool.data_bytes;
	memset(p, 7, 100);
	assert_false(readable(guard, 1));
	assert_true(sample_room.go_on((uintptr_t)guard, &silent));
	assert_false(silent);
	sample_room.let_through((uintptr_t)guard);
	assert_true(readable(guard, 1));
	assert_true(sample_room.go_on((uintptr_t)guard, &silent));
	assert_true(silent);
	for (size_t i = 0; i < 100; i++)
		assert_int_equal(p[i], 7);
	drop(p);
	drop(p);
	assert_int_equal(look(p), OUTSIDE_OK);
	assert_int_equal(reports, 0);
	for (int i = 0; i < 200; i++) {          /* its slot is not used again */
		char *q = get(100);
		assert_true(slot_of((uintptr_t)q) != slot_of((uintptr_t)p));
		drop(q);
	}
	start(1, false, 13);
	assert_false(sample_room.go_on((uintptr_t)get(100), &silent));
}

static void
test_go_on_after_a_wrong_free(void **state)
{
	(void)state;
	start(1, true, 14);
	char *p = get(100), *q = get(100), *r = get(100);
	drop(p);
	drop(p);
	assert_int_equal(reports, 1);
	assert_int_equal(last_report.code, DIE_DOUBLE_FREE);
	assert_int_equal(last_report.addr, (uintptr_t)p);
	drop(p);
	assert_int_equal(reports, 1);
	drop(q + 16);
	assert_int_equal(reports, 2);
	assert_int_equal(last_report.code, DIE_INTERIOR_FREE);
	drop(q);
	drop(r);
	assert_int_equal(look(r), OUTSIDE_OK);
	assert_int_equal(reports, 3);
	assert_int_equal(last_report.code, DIE_STALE_POINTER);
	assert_string_equal(last_report.api, "malloc_usable_size");
	assert_true(readable(r, 100));           /* realloc is going to copy it */
	assert_int_equal(sample_free(r + 200, "free"), OUTSIDE_FOREIGN);
}

static void
test_go_on_after_changed_slack(void **state)
{
	(void)state;
	start(1, true, 15);
	char *p = get(100);
	char *at = readable(p + 100, 1) ? p + 100 : p - 1;
	*at = 0;
	drop(p);
	assert_int_equal(reports, 1);
	assert_int_equal(last_report.code, DIE_CANARY);
	drop(p);
	assert_int_equal(reports, 1);
}

/* ---- others ------------------------------------------------------------- */

/* A handler that came in while its thread held the lock. */
static void
test_lock_is_taken(void **state)
{
	struct room_object o;
	(void)state;
	start(1, false, 16);
	char *p = get(100);
	assert_true(mutex_trylock(&pool.lock));
	assert_null(sample_maybe_alloc(100, 16, false, true));
	sample_countdown_.left = 0;
	assert_null(sample_maybe_alloc(100, 16, false, true));
	drop(p);
	mutex_unlock(&pool.lock);
	assert_true(sample_room.object((uintptr_t)p, &o));
	assert_int_equal(o.freed.frames, 0);
	assert_int_equal(o.freed.tid, sys_gettid());
	sample_countdown_.left = 0;
	drop(get(100));
}

static void
test_fork_child(void **state)
{
	(void)state;
	start(1, false, 17);
	char *p = get(100), *q = get(100), *r = get(100);
	a32_store_relaxed(&slot_of((uintptr_t)p)->state, SAMPLE_FREEING);
	a32_store_relaxed(&slot_of((uintptr_t)q)->state, SAMPLE_BUSY);
	assert_true(mutex_trylock(&pool.lock));
	sample_after_fork_child();
	assert_int_equal(look(r), OUTSIDE_OK);
	drop(r);
	for (int i = 0; i < 200; i++) {
		char *s = get(100);
		assert_true(slot_of((uintptr_t)s) != slot_of((uintptr_t)p));
		assert_true(slot_of((uintptr_t)s) != slot_of((uintptr_t)q));
		drop(s);
	}
}

static void
count_live(uintptr_t base, size_t bytes, bool noscan, void *arg)
{
	size_t *n = arg;
	n[0]++;
	n[3] += noscan;
	n[1] += bytes;
	n[2] += look((void *)base) == OUTSIDE_OK;
}

static void
test_each_live(void **state)
{
	size_t n[4] = { 0 }, bytes;
	bool noscan;
	(void)state;
	start(1, false, 18);
	get(100);
	get(1000);
	drop(get(50));
	void *p = sample_maybe_alloc(10, 16, true, true);
	assert_int_equal(sample_look(p, "", &bytes, &noscan), OUTSIDE_OK);
	assert_true(noscan);
	sample_each_live(count_live, n);
	assert_int_equal(n[0], 3);
	assert_int_equal(n[1], 1110);
	assert_int_equal(n[2], 3);
	assert_int_equal(n[3], 1);
	uintptr_t from, end;
	sample_pool(&from, &end);
	assert_true((uintptr_t)p - from < end - from);
}

static void
test_planted(void **state)
{
	uintptr_t where;
	(void)state;
	start(1, false, 19);
	struct sample_slot *s = slot_of((uintptr_t)get(100));
	assert_null(sample_check(&where));
	s->base += 1;
	assert_string_equal(sample_check(&where), "SAMPLE-1");
	assert_int_equal(where, s->base);
	s->base -= 1;
	s->bytes += pool.data_bytes;
	assert_string_equal(sample_check(&where), "SAMPLE-1");
	s->bytes -= pool.data_bytes;
	assert_null(sample_check(&where));
}

enum { THREADS = 4, ROUNDS = 3000, HELD = 8 };

static atomic_u64 got_some;

static void *
churn(void *arg)
{
	unsigned char *p[HELD] = { NULL };
	unsigned char mark = (unsigned char)(uintptr_t)arg;
	for (size_t i = 0; i < ROUNDS; i++) {
		unsigned char **at = &p[i % HELD];
		for (size_t k = 0; *at != NULL && k < 200; k++)
			if ((*at)[k] != mark)
				abort();
		if (*at != NULL && sample_free(*at, "free") != OUTSIDE_OK)
			abort();
		*at = sample_maybe_alloc(200, 16, false, true);
		if (*at != NULL) {
			memset(*at, mark, 200);
			a64_fetch_add(&got_some, 1);
		}
	}
	for (size_t i = 0; i < HELD; i++)
		if (p[i] != NULL && sample_free(p[i], "free") != OUTSIDE_OK)
			abort();
	return NULL;
}

static void
test_threads(void **state)
{
	pthread_t t[THREADS];
	struct sample_stats s;
	uintptr_t where;
	(void)state;
	start(1, false, 0);
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, churn, (void *)(i + 1)), 0);
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	sample_read_stats(&s);
	assert_int_equal(s.live, 0);
	assert_true(a64_load_relaxed(&got_some) > 100);
	assert_null(sample_check(&where));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rate),
		cmocka_unit_test(test_off),
		cmocka_unit_test(test_not_for_all),
		cmocka_unit_test(test_pause),
		cmocka_unit_test(test_place),
		cmocka_unit_test(test_full_and_quarantine),
		cmocka_unit_test(test_reuse_is_random),
		cmocka_unit_test(test_verdicts),
		cmocka_unit_test(test_claims),
		cmocka_unit_test(test_beside),
		cmocka_unit_test(test_stacks),
		cmocka_unit_test(test_slack),
		cmocka_unit_test(test_slack_diff),
		cmocka_unit_test(test_go_on_after_a_touch),
		cmocka_unit_test(test_go_on_after_a_wrong_free),
		cmocka_unit_test(test_go_on_after_changed_slack),
		cmocka_unit_test(test_lock_is_taken),
		cmocka_unit_test(test_fork_child),
		cmocka_unit_test(test_each_live),
		cmocka_unit_test(test_planted),
		cmocka_unit_test(test_threads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
