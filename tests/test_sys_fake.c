/* test_sys_fake.c - tests/fake_sys.c: what it allows, what it refuses, and that
 * an illegal transition is an abort with the right words. */
#define _GNU_SOURCE
#include "fake_die.h"
#include "fake_sys.h"

#include <stdarg.h>
#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct sys_stats
stats(void)
{
	struct sys_stats s;

	sys_read_stats(&s);
	return s;
}

static char *
ready_range(size_t bytes)
{
	char *p = sys_reserve(0, bytes, sys_page_bytes(), false);

	assert_non_null(p);
	assert_true(sys_map(p, bytes) && sys_used(p, bytes));
	return p;
}

/* What fn says on stderr before SIGABRT; fails if it does not die of that. */
static const char *
abort_message(void (*fn)(char *), char *p)
{
	static char text[512];
	int fd[2], status = 0;
	ssize_t n, total = 0;
	pid_t pid;

	assert_int_equal(pipe(fd), 0);
	pid = fork();
	if (pid == 0) {
		signal(SIGABRT, SIG_DFL);
		dup2(fd[1], STDERR_FILENO);
		fn(p);
		_exit(0);
	}
	close(fd[1]);
	while ((n = read(fd[0], text + total, sizeof(text) - 1 - (size_t)total)) > 0)
		total += n;
	text[total] = '\0';
	close(fd[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
	return text;
}

/* ---- illegal transitions; p is 4 Reserved, 4 Prepared, 4 Ready, 4 guarded pages ---- */

enum { PG = 4096 };

static void map_prepared(char *p) { sys_map(p + 4 * PG, PG); }
static void used_reserved(char *p) { sys_used(p, PG); }
static void used_twice(char *p) { sys_used(p + 6 * PG, 4 * PG); }
static void unused_prepared(char *p) { sys_unused(p + 4 * PG, PG); }
static void fault_reserved(char *p) { sys_fault(p, PG); }
static void fault_guarded(char *p) { sys_fault(p + 11 * PG, 2 * PG); }
static void unfault_reserved(char *p) { sys_unfault(p + 3 * PG, PG); }
static void unfault_ready(char *p) { sys_unfault(p + 8 * PG, PG); }
static void free_wrong_state(char *p) { sys_free(p + 8 * PG, PG, SYS_PREPARED); }
static void free_mixed(char *p) { sys_free(p, 8 * PG, SYS_RESERVED); }
static void free_none(char *p) { sys_free(p, PG, SYS_NONE); }
static void free_twice(char *p) { sys_free(p, PG, SYS_RESERVED); sys_free(p, PG, SYS_RESERVED); }
static void move_prepared(char *p) { sys_move(p + 4 * PG, p + 8 * PG, PG); }
static void move_overlap(char *p) { sys_move(p + 8 * PG, p + 9 * PG, 2 * PG); }
static void renew_guarded(char *p) { sys_renew(p + 12 * PG, PG); }
static void populate_prepared(char *p) { sys_populate(p + 4 * PG, PG); }
static void huge_ready(char *p) { sys_huge(p + 7 * PG, 2 * PG); }
static void unaligned(char *p) { sys_unused(p + 8 * PG + 16, PG); }
static void part_of_page(char *p) { sys_unused(p + 8 * PG, PG / 2); }
static void outside(char *p) { sys_unused(p + fake_sys_window_bytes(), PG); }
static void across_the_end(char *p) { sys_map(p, fake_sys_window_bytes() + PG); }
static void seal_and_free(char *p) { sys_seal(p + 8 * PG, PG); sys_free(p + 8 * PG, PG, SYS_READY); }

static void
test_illegal_transitions(void **state)
{
	static const struct {
		void (*fn)(char *);
		const char *text;
	} row[] = {
		{ map_prepared, "page 0 is Prepared, must be Reserved" },
		{ used_reserved, "page 0 is Reserved, must be Prepared" },
		{ used_twice, "page 2 is Ready, must be Prepared" },
		{ unused_prepared, "page 0 is Prepared, must be Ready" },
		{ fault_reserved, "page 0 is Reserved, must be Ready" },
		{ fault_guarded, "page 1 is guarded, must be Ready" },
		{ unfault_reserved, "page 0 is Reserved, must be guarded" },
		{ unfault_ready, "page 0 is Ready, must be guarded" },
		{ free_wrong_state, "page 0 is Ready, must be Prepared" },
		{ free_mixed, "page 4 is Prepared, must be Reserved" },
		{ free_none, "from None" },
		{ free_twice, "page 0 is None, must be Reserved" },
		{ move_prepared, "page 0 is Prepared, must be Ready" },
		{ move_overlap, "the ranges overlap" },
		{ renew_guarded, "page 0 is guarded, must be Ready" },
		{ populate_prepared, "page 0 is Prepared, must be Ready" },
		{ huge_ready, "page 1 is Ready, must be Prepared" },
		{ unaligned, "not a multiple of the OS page" },
		{ part_of_page, "not a multiple of the OS page" },
		{ outside, "outside of the window" },
		{ across_the_end, "outside of the window" },
		{ seal_and_free, "page 0 is sealed, must be Ready" },
	};
	char *p;

	(void)state;
	fake_sys_reset(NULL);
	p = sys_reserve(0, 16 * PG, PG, false);
	assert_true(sys_map(p + 4 * PG, 12 * PG) && sys_used(p + 8 * PG, 8 * PG));
	assert_true(sys_fault(p + 12 * PG, 4 * PG));
	for (size_t i = 0; i < ARRAY_LEN(row); i++) {
		const char *text = abort_message(row[i].fn, p);

		if (strstr(text, row[i].text) == NULL || strncmp(text, "fake_sys: sys_", 14) != 0)
			fail_msg("row %zu: \"%s\" lacks \"%s\"", i, text, row[i].text);
	}
}

/* ---- legal ones ---- */

static void
test_states_and_bytes(void **state)
{
	static const size_t page_bytes[] = { 4096, 16384, 65536 };

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		size_t pg = page_bytes[i];
		char *p, *q;

		fake_sys_reset(&(struct fake_sys_config){ .page_bytes = pg });
		assert_int_equal(sys_page_bytes(), pg);
		p = sys_reserve(0, 8 * pg, pg, false);
		assert_int_equal(fake_sys_state(p), SYS_RESERVED);
		assert_true(sys_map(p, 4 * pg) && sys_used(p + pg, 3 * pg));
		assert_true(sys_fault(p + 3 * pg, pg));
		assert_int_equal(fake_sys_state(p + pg - 1), SYS_PREPARED);
		assert_int_equal(fake_sys_state(p + pg), SYS_READY);
		assert_int_equal(fake_sys_state(p + 3 * pg), SYS_RESERVED);
		assert_true(fake_sys_guarded(p + 3 * pg) && !fake_sys_guarded(p + 4 * pg));
		q = sys_alloc(2 * pg);
		assert_int_equal(fake_sys_state(q), SYS_READY);
		assert_int_equal(stats().bytes[SYS_RESERVED], 5 * pg);
		assert_int_equal(stats().bytes[SYS_PREPARED], pg);
		assert_int_equal(stats().bytes[SYS_READY], 4 * pg);
		assert_int_equal(stats().guard_bytes, pg);
		sys_free(q, 2 * pg, SYS_READY);
		sys_free(p + 3 * pg, 5 * pg, SYS_RESERVED);
		assert_int_equal(fake_sys_state(p + 3 * pg), SYS_NONE);
		assert_int_equal(stats().guard_bytes, 0);
	}
}

static bool
all_bytes(const char *p, size_t bytes, char value)
{
	for (size_t i = 0; i < bytes; i++) {
		if (p[i] != value)
			return false;
	}
	return true;
}

static void
test_contents(void **state)
{
	char *p, *q;

	(void)state;
	fake_sys_reset(NULL);
	p = ready_range(8 * PG);
	memset(p, 'x', 8 * PG);
	sys_unused(p, PG);
	assert_true(sys_used(p, PG));
	assert_true(all_bytes(p, PG, 0) && all_bytes(p + PG, PG, 'x'));
	assert_true(sys_fault(p + PG, PG) && sys_unfault(p + PG, PG) && sys_used(p + PG, PG));
	assert_true(all_bytes(p + PG, PG, 0) && all_bytes(p + 2 * PG, PG, 'x'));
	assert_true(sys_move(p, p + 2 * PG, 2 * PG));
	assert_true(all_bytes(p, 2 * PG, 'x') && all_bytes(p + 2 * PG, 2 * PG, 0));
	assert_true(sys_renew(p, PG));
	assert_true(all_bytes(p, PG, 0) && all_bytes(p + PG, PG, 'x'));
	sys_free(p, 8 * PG, SYS_READY);
	q = sys_reserve((uintptr_t)p, 8 * PG, PG, true);
	assert_ptr_equal(p, q);
	assert_true(sys_map(q, 8 * PG) && sys_used(q, 8 * PG));
	assert_true(all_bytes(q, 8 * PG, 0));
	q[0] = 'y';
	fake_sys_reset(NULL);
	assert_int_equal(fake_sys_state(p), SYS_NONE);
	assert_ptr_equal(ready_range(8 * PG), p);
	assert_true(all_bytes(p, 8 * PG, 0));
}

static void
write_byte(char *p)
{
	*(volatile char *)p = 'x';
	fprintf(stderr, "written");
	abort();
}

/* The child dies of SIGSEGV, not of the abort that follows the write. */
static bool
write_faults(char *p)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		signal(SIGSEGV, SIG_DFL);
		write_byte(p);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	return WTERMSIG(status) == SIGSEGV;
}

static void
test_real_faults(void **state)
{
	char *p;

	(void)state;
	fake_sys_reset(&(struct fake_sys_config){ .real_faults = true });
	p = sys_reserve(0, 4 * PG, PG, false);
	assert_true(write_faults(p));
	assert_true(sys_map(p, 4 * PG) && sys_used(p, 4 * PG));
	assert_string_equal(abort_message(write_byte, p), "written");
	assert_true(sys_fault(p, PG));
	assert_true(write_faults(p));
	assert_string_equal(abort_message(write_byte, p + PG), "written");
	sys_seal(p + PG, PG);
	assert_true(write_faults(p + PG));
	fake_sys_reset(NULL);
	p = sys_reserve(0, 4 * PG, PG, false);
	assert_string_equal(abort_message(write_byte, p), "written");
}

/* ---- failures ---- */

static void
test_failure_at_call_n(void **state)
{
	char *p;

	(void)state;
	fake_sys_reset(&(struct fake_sys_config){ .fail_mask = FAKE_SYS_RESERVE, .fail_nth = 2 });
	p = sys_reserve(0, 8 * PG, PG, false);
	assert_non_null(p);
	assert_null(sys_reserve(0, PG, PG, false));
	assert_non_null(sys_reserve(0, PG, PG, false));
	assert_int_equal(fake_sys_calls(FAKE_SYS_RESERVE), 3);

	fake_sys_fail(FAKE_SYS_MAP | FAKE_SYS_USED, 2, true);
	assert_true(sys_map(p, PG));
	assert_false(sys_used(p, PG));
	assert_false(sys_map(p + PG, PG));
	assert_int_equal(fake_sys_state(p), SYS_PREPARED);
	assert_int_equal(fake_sys_state(p + PG), SYS_RESERVED);
	fake_sys_fail(0, 0, false);
	assert_true(sys_map(p + PG, 7 * PG) && sys_used(p, 8 * PG));
	memset(p, 'x', 8 * PG);

	fake_sys_fail(FAKE_SYS_FAULT | FAKE_SYS_MOVE | FAKE_SYS_RENEW | FAKE_SYS_ALLOC, 1, true);
	assert_false(sys_fault(p, PG));
	assert_int_equal(stats().guards_skipped, 1);
	assert_false(sys_move(p, p + 4 * PG, PG));
	assert_false(sys_renew(p, PG));
	assert_null(sys_alloc(PG));
	assert_true(all_bytes(p, 8 * PG, 'x'));
	fake_sys_fail(FAKE_SYS_UNFAULT, 1, false);
	assert_true(sys_fault(p, PG));
	assert_false(sys_unfault(p, PG));
	assert_true(fake_sys_guarded(p));
	assert_true(sys_unfault(p, PG));

	/* The void functions are counted and never fail. */
	fake_sys_fail(FAKE_SYS_ALL, 1, true);
	sys_unused(p + PG, PG);
	assert_int_equal(fake_sys_state(p + PG), SYS_PREPARED);
	assert_int_equal(fake_sys_calls(FAKE_SYS_UNUSED), 1);
}

/* The number of mappings, counted from the states. */
static void
test_mappings_are_counted(void **state)
{
	char *p;

	(void)state;
	fake_sys_reset(NULL);
	assert_int_equal(fake_sys_mappings(), 0);
	p = sys_reserve(0, 16 * PG, PG, false);
	assert_int_equal(fake_sys_mappings(), 1);
	assert_true(sys_map(p + 4 * PG, 4 * PG));
	assert_int_equal(fake_sys_mappings(), 3);
	assert_true(sys_map(p + 8 * PG, 4 * PG));
	assert_int_equal(fake_sys_mappings(), 3);
	assert_true(sys_used(p + 5 * PG, 4 * PG));
	assert_int_equal(fake_sys_mappings(), 3);
	assert_true(sys_fault(p + 6 * PG, PG));
	assert_int_equal(fake_sys_mappings(), 3);
	sys_init(SYS_GUARD_MPROTECT, 50);
	assert_true(sys_fault(p + 8 * PG, PG));
	assert_int_equal(fake_sys_mappings(), 5);
	assert_true(sys_unfault(p + 8 * PG, PG));
	assert_int_equal(fake_sys_mappings(), 3);
	sys_free(p + 2 * PG, PG, SYS_RESERVED);
	assert_int_equal(fake_sys_mappings(), 4);
	assert_true(sys_map(p, 2 * PG));
	assert_int_equal(fake_sys_mappings(), 4);
	assert_ptr_equal(sys_reserve((uintptr_t)p + 2 * PG, PG, PG, true), p + 2 * PG);
	assert_int_equal(fake_sys_mappings(), 4);
	assert_non_null(sys_alloc(PG));
	assert_int_equal(fake_sys_mappings(), 5);
}

static void
test_max_map_count(void **state)
{
	char *p;

	(void)state;
	fake_sys_reset(&(struct fake_sys_config){ .max_map_count = 3 });
	p = sys_reserve(0, 16 * PG, PG, false);
	assert_non_null(p);
	assert_true(sys_map(p + 4 * PG, PG));
	assert_false(sys_map(p + 6 * PG, PG));
	assert_int_equal(fake_sys_state(p + 6 * PG), SYS_RESERVED);
	assert_int_equal(fake_sys_mappings(), 3);
	assert_null(sys_alloc(PG));
	assert_true(sys_map(p + 5 * PG, PG));
	assert_true(sys_used(p + 4 * PG, 2 * PG));
	assert_true(sys_fault(p + 5 * PG, PG));     /* a marker needs no mapping */
}

static void
test_guard_budget(void **state)
{
	size_t guards = 0;
	char *p;

	(void)state;
	fake_sys_reset(&(struct fake_sys_config){ .max_map_count = 100, .no_markers = true });
	sys_init(SYS_GUARD_AUTO, 50);
	assert_int_equal(sys_guard_in_use(), SYS_GUARD_MPROTECT);
	assert_int_equal(stats().guard_vma_budget, 50);
	p = ready_range(256 * PG);
	while (sys_fault(p + 2 * guards * PG, PG))
		guards++;
	assert_int_equal(guards, 25);
	assert_int_equal(stats().guards_skipped, 1);
	assert_int_equal(stats().guards_installed, 25);
	assert_true(fake_sys_mappings() <= 51);
	assert_true(sys_fault(p + PG, PG));         /* fills a gap: costs nothing */
	assert_true(sys_unfault(p, 3 * PG) && sys_used(p, 3 * PG));
	assert_true(sys_fault(p, PG));
	fake_sys_reset(NULL);
	assert_int_equal(sys_guard_in_use(), SYS_GUARD_MARKER);
	assert_int_equal(stats().guard_vma_budget, 0);
}

/* ---- places ---- */

static void
test_places(void **state)
{
	static const size_t script[] = { 3 * ARENA_SIZE, ARENA_SIZE };
	char *base, *a, *b, *c;

	(void)state;
	fake_sys_reset(NULL);
	base = (char *)fake_sys_base();
	a = sys_reserve(0, ARENA_SIZE, ARENA_SIZE, false);
	b = sys_reserve(0x100000, ARENA_SIZE, ARENA_SIZE, false);
	assert_ptr_equal(a, base);
	assert_ptr_equal(b, base + ARENA_SIZE);
	assert_null(sys_reserve((uintptr_t)a, ARENA_SIZE, ARENA_SIZE, true));
	assert_null(sys_reserve(0x100000, ARENA_SIZE, ARENA_SIZE, true));
	assert_null(sys_reserve((uintptr_t)base + 4 * ARENA_SIZE + PG, PG, ARENA_SIZE, true));
	c = sys_reserve((uintptr_t)base + 5 * ARENA_SIZE, ARENA_SIZE, ARENA_SIZE, true);
	assert_ptr_equal(c, base + 5 * ARENA_SIZE);
	assert_ptr_equal(sys_reserve(0, PG, PG, false), c + ARENA_SIZE);
	assert_ptr_equal(sys_reserve(0, PG, ARENA_SIZE, false), c + 2 * ARENA_SIZE);
	assert_true(sys_alloc(PG) > (void *)(base + fake_sys_window_bytes() / 2));
	assert_null(sys_reserve(0, 2 * fake_sys_window_bytes(), PG, false));
	assert_null(sys_alloc(2 * fake_sys_window_bytes()));

	fake_sys_reset(&(struct fake_sys_config){ .place = FAKE_SYS_SCRIPT,
	    .script_bytes = script, .script_len = 2 });
	assert_ptr_equal(sys_reserve(0, ARENA_SIZE, ARENA_SIZE, false), base + 3 * ARENA_SIZE);
	assert_ptr_equal(sys_reserve(0, ARENA_SIZE, ARENA_SIZE, false), base + ARENA_SIZE);
	assert_ptr_equal(sys_reserve(0, ARENA_SIZE, ARENA_SIZE, false), base + 2 * ARENA_SIZE);
	assert_ptr_equal(sys_reserve(0, ARENA_SIZE, ARENA_SIZE, false), base + 4 * ARENA_SIZE);
}

static void
test_gaps_by_seed(void **state)
{
	struct fake_sys_config config = { .place = FAKE_SYS_GAPS, .seed = 1 };
	char *p[8], *q[8];

	(void)state;
	fake_sys_reset(&config);
	for (size_t i = 0; i < 8; i++) {
		p[i] = sys_reserve(0, ARENA_SIZE, ARENA_SIZE, false);
		if (i > 0)
			assert_true(p[i] >= p[i - 1] + 2 * ARENA_SIZE);
	}
	fake_sys_reset(&config);
	for (size_t i = 0; i < 8; i++)
		assert_ptr_equal(sys_reserve(0, ARENA_SIZE, ARENA_SIZE, false), p[i]);
	config.seed = 2;
	fake_sys_reset(&config);
	for (size_t i = 0; i < 8; i++)
		q[i] = sys_reserve(0, ARENA_SIZE, ARENA_SIZE, false);
	assert_memory_not_equal(p, q, sizeof(p));
}

static void
test_clock_and_random(void **state)
{
	uint64_t a[3], b[3];

	(void)state;
	fake_sys_reset(&(struct fake_sys_config){ .now_ns = 5, .seed = 9 });
	assert_int_equal(sys_now_ns(), 5);
	fake_sys_advance(7);
	assert_int_equal(sys_now_ns(), 12);
	fake_sys_set_now(1);
	assert_int_equal(sys_now_ns(), 1);
	sys_random(a, sizeof(a));
	sys_random(b, sizeof(b));
	assert_memory_not_equal(a, b, sizeof(a));
	fake_sys_reset(&(struct fake_sys_config){ .seed = 9 });
	sys_random(b, sizeof(b));
	assert_memory_equal(a, b, sizeof(a));
	assert_int_equal(sys_gettid(), getpid());
}

/* Four threads at once: nothing lost, nothing handed out twice. */
static void *
work(void *arg)
{
	for (size_t i = 0; i < 200; i++) {
		char *p = sys_reserve(0, 4 * PG, PG, false);

		if (p == NULL || !sys_map(p, 4 * PG) || !sys_used(p, 4 * PG) || !sys_fault(p, PG))
			return NULL;
		p[PG] = 'x';
		sys_free(p, PG, SYS_RESERVED);
		sys_free(p + PG, 3 * PG, SYS_READY);
	}
	return arg;
}

static void
test_threads(void **state)
{
	pthread_t t[4];
	void *ok;

	(void)state;
	fake_sys_reset(NULL);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, work, t), 0);
	for (size_t i = 0; i < 4; i++) {
		pthread_join(t[i], &ok);
		assert_ptr_equal(ok, t);
	}
	assert_int_equal(stats().bytes[SYS_READY] + stats().bytes[SYS_RESERVED], 0);
	assert_int_equal(fake_sys_mappings(), 0);
	assert_int_equal(fake_sys_calls(FAKE_SYS_ALL), 4 * 200 * 6);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_illegal_transitions),
		cmocka_unit_test(test_states_and_bytes),
		cmocka_unit_test(test_contents),
		cmocka_unit_test(test_real_faults),
		cmocka_unit_test(test_failure_at_call_n),
		cmocka_unit_test(test_mappings_are_counted),
		cmocka_unit_test(test_max_map_count),
		cmocka_unit_test(test_guard_budget),
		cmocka_unit_test(test_places),
		cmocka_unit_test(test_gaps_by_seed),
		cmocka_unit_test(test_clock_and_random),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
