/* test_sys.c - src/sys_linux.c on the kernel at hand, both kinds of guard.
 *
 * What a kernel does not have is taken from it or given to it in a forked
 * child by a seccomp filter: no markers, markers that lie, no getrandom. */
#define _GNU_SOURCE
#include "fake_die.h"
#include "sys.h"

#include <stdarg.h>
#include <cmocka.h>

#include <errno.h>
#include <inttypes.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SHARE_PERCENT = 25, ADVICE_GUARD_INSTALL = 102, SYSCALL_MSEAL = 462 };

static enum sys_guard_kind marker_kind = SYS_GUARD_MARKER;
static enum sys_guard_kind mprotect_kind = SYS_GUARD_MPROTECT;

/* ---- tools ---- */

static sigjmp_buf segv_jmp;

static void
on_segv(int sig)
{
	siglongjmp(segv_jmp, sig);
}

/* Does a read (or write) at p end in SIGSEGV? */
static bool
touch_faults(volatile char *p, bool write)
{
	struct sigaction act = { .sa_handler = on_segv }, old;
	volatile bool faulted = true;

	sigaction(SIGSEGV, &act, &old);
	if (sigsetjmp(segv_jmp, 1) == 0) {
		char c = *p;

		if (write)
			*p = c;
		faulted = false;
	}
	sigaction(SIGSEGV, &old, NULL);
	return faulted;
}

/* Mappings that overlap [p, p + bytes); all there are for bytes = 0. With
 * `name`, only those that bear it. */
static unsigned
count_mappings(const void *p, size_t bytes, const char *name)
{
	uintptr_t at = (uintptr_t)p, end = at + bytes;
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512];
	unsigned n = 0;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f) != NULL) {
		unsigned long from, to;

		assert_int_equal(sscanf(line, "%lx-%lx", &from, &to), 2);
		n += (bytes == 0 || (from < end && to > at))
		    && (name == NULL || strstr(line, name) != NULL);
	}
	fclose(f);
	return n;
}

/* Pages of address space that the process has. */
static unsigned long
address_space_pages(void)
{
	FILE *f = fopen("/proc/self/statm", "re");
	unsigned long pages = 0;

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%lu", &pages), 1);
	fclose(f);
	return pages;
}

static bool
all_bytes(const void *p, size_t bytes, unsigned char value)
{
	const unsigned char *b = p;

	for (size_t i = 0; i < bytes; i++) {
		if (b[i] != value)
			return false;
	}
	return true;
}

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
	assert_true(sys_map(p, bytes));
	assert_true(sys_used(p, bytes));
	return p;
}

/* Exit status of fn in a child, or 1000 + the signal that ended it. */
static int
run_in_child(int (*fn)(void))
{
	pid_t pid = fork();
	int status = 0;

	assert_true(pid >= 0);
	if (pid == 0)
		_exit(fn());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

/* From now on the call (with that third argument, unless it is negative)
 * returns -error without being made; error 0: a lie. */
static bool
forbid(unsigned nr, int third, unsigned error)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)third, 0, third < 0 ? 0 : 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { .len = ARRAY_LEN(code), .filter = code };

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
	    && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == 0;
}

static int
setup(void **state)
{
	enum sys_guard_kind kind = *(enum sys_guard_kind *)*state;

	sys_init(kind, SHARE_PERCENT);
	return 0;
}

static int
setup_auto(void **state)
{
	(void)state;
	sys_init(SYS_GUARD_AUTO, SHARE_PERCENT);
	return 0;
}

/* No test leaves a guard, on the books or off. Where one frees a range of
 * mixed states at one stroke, bytes[] is no longer exact: tests compare it with
 * what it was at their start. */
static int
teardown(void **state)
{
	(void)state;
	return stats().guard_bytes == 0 ? 0 : -1;
}

static bool
kind_missing(void **state)
{
	return sys_guard_in_use() != *(enum sys_guard_kind *)*state;
}

/* ---- probe: first, before this process has asked its kernel ---- */

static int
child_without_markers(void)
{
	if (!forbid(SYS_madvise, ADVICE_GUARD_INSTALL, EINVAL))
		return 99;
	sys_init(SYS_GUARD_MARKER, SHARE_PERCENT);
	return sys_guard_in_use() == SYS_GUARD_MPROTECT && stats().guard_vma_budget > 0 ? 0 : 1;
}

static int
child_with_lying_markers(void)
{
	if (!forbid(SYS_madvise, ADVICE_GUARD_INSTALL, 0))
		return 99;
	sys_init(SYS_GUARD_AUTO, SHARE_PERCENT);
	return sys_guard_in_use() == SYS_GUARD_MPROTECT ? 0 : 1;
}

static void
test_probe(void **state)
{
	int rc = run_in_child(child_without_markers);

	(void)state;
	if (rc == 99)
		skip();
	assert_int_equal(rc, 0);
	assert_int_equal(run_in_child(child_with_lying_markers), 0);
}

/* ---- guards of both kinds ---- */

static void
test_guard_faults(void **state)
{
	size_t page = sys_page_bytes();
	char *p = ready_range(4 * page);
	uint64_t installed = stats().guards_installed;

	if (kind_missing(state))
		skip();
	memset(p, 'x', 4 * page);
	assert_false(touch_faults(p + page, true));
	assert_true(sys_fault(p + page, 2 * page));
	assert_int_equal(stats().guards_installed, installed + 1);
	assert_int_equal(stats().guard_bytes, 2 * page);
	for (size_t i = page; i < 3 * page; i += 512) {
		assert_true(touch_faults(p + i, false));
		assert_true(touch_faults(p + i, true));
	}
	assert_true(all_bytes(p, page, 'x'));
	assert_true(all_bytes(p + 3 * page, page, 'x'));

	assert_true(sys_unfault(p + page, page));
	assert_true(touch_faults(p + 2 * page, false));
	assert_true(sys_unfault(p + 2 * page, page));
	assert_true(sys_used(p + page, 2 * page));
	assert_false(touch_faults(p + page, true));
	assert_true(all_bytes(p + page, 2 * page, 0));
	assert_int_equal(stats().guard_bytes, 0);
	sys_free(p, 4 * page, SYS_READY);
	assert_true(touch_faults(p, false));
}

/* sys_map over a guard takes it off, as the state table allows. */
static void
test_map_over_guard(void **state)
{
	size_t page = sys_page_bytes();
	char *p = ready_range(page);

	if (kind_missing(state))
		skip();
	assert_true(sys_fault(p, page));
	assert_true(sys_map(p, page));
	assert_int_equal(stats().guard_bytes, 0);
	assert_true(sys_used(p, page));
	assert_false(touch_faults(p, true));
	sys_free(p, page, SYS_READY);
}

static void
assert_stats(const struct sys_stats *base, size_t reserved, size_t prepared, size_t ready,
    size_t guard)
{
	struct sys_stats s = stats();

	assert_int_equal(s.bytes[SYS_NONE], 0);
	assert_int_equal(s.bytes[SYS_RESERVED] - base->bytes[SYS_RESERVED], reserved);
	assert_int_equal(s.bytes[SYS_PREPARED] - base->bytes[SYS_PREPARED], prepared);
	assert_int_equal(s.bytes[SYS_READY] - base->bytes[SYS_READY], ready);
	assert_int_equal(s.guard_bytes - base->guard_bytes, guard);
}

static void
test_accounting(void **state)
{
	size_t page = sys_page_bytes(), n = 16 * page;
	char *warm = ready_range(page);    /* the guard map exists from here on */
	struct sys_stats base;
	char *p, *q;

	(void)state;
	assert_true(sys_fault(warm, page));
	sys_free(warm, page, SYS_RESERVED);
	p = sys_reserve(0, 2 * n, page, false);
	assert_true(sys_map(p, page) && sys_used(p, page) && sys_fault(p, page));
	sys_free(p, page, SYS_RESERVED);
	sys_free(p + page, 2 * n - page, SYS_RESERVED);
	base = stats();

	p = sys_reserve((uintptr_t)p, n, page, false);
	assert_non_null(p);
	assert_stats(&base, n, 0, 0, 0);
	assert_true(sys_map(p, 8 * page));
	assert_stats(&base, 8 * page, 8 * page, 0, 0);
	assert_true(sys_used(p, 4 * page));
	assert_stats(&base, 8 * page, 4 * page, 4 * page, 0);
	sys_unused(p, page);
	assert_stats(&base, 8 * page, 5 * page, 3 * page, 0);
	assert_true(sys_fault(p + page, 2 * page));
	assert_stats(&base, 10 * page, 5 * page, page, 2 * page);
	assert_true(sys_unfault(p + page, page));
	assert_stats(&base, 9 * page, 6 * page, page, page);
	sys_free(p + 2 * page, page, SYS_RESERVED);
	assert_stats(&base, 8 * page, 6 * page, page, 0);
	q = sys_alloc(3 * page);
	assert_non_null(q);
	assert_stats(&base, 8 * page, 6 * page, 4 * page, 0);
	assert_true(all_bytes(q, 3 * page, 0));
	sys_free(q, 3 * page, SYS_READY);
	sys_free(p, 2 * page, SYS_PREPARED);
	sys_free(p + 3 * page, page, SYS_READY);
	sys_free(p + 4 * page, 4 * page, SYS_PREPARED);
	sys_free(p + 8 * page, 8 * page, SYS_RESERVED);
	assert_stats(&base, 0, 0, 0, 0);
}

/* Guards of one word of the guard map, put and taken by four threads. */
struct guard_worker {
	char *p;
	size_t page;
	unsigned failures;
};

static void *
guard_work(void *arg)
{
	struct guard_worker *w = arg;

	for (unsigned i = 0; i < 300; i++) {
		w->failures += !sys_fault(w->p, w->page);
		w->failures += !sys_unfault(w->p, w->page);
		w->failures += !sys_used(w->p, w->page);
	}
	return NULL;
}

static void
test_guards_by_threads(void **state)
{
	size_t page = sys_page_bytes();
	char *p = ready_range(8 * page);
	struct guard_worker w[4];
	pthread_t t[4];

	if (kind_missing(state))
		skip();
	for (unsigned i = 0; i < 4; i++) {
		w[i] = (struct guard_worker){ p + 2 * i * page, page, 0 };
		assert_int_equal(pthread_create(&t[i], NULL, guard_work, &w[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(t[i], NULL);
		assert_int_equal(w[i].failures, 0);
	}
	assert_int_equal(stats().guard_bytes, 0);
	sys_free(p, 8 * page, SYS_READY);
}

/* ---- markers: no mapping, whatever the number ---- */

static void
test_markers_cost_no_mapping(void **state)
{
	enum { GUARDS = 10000 };
	size_t page = sys_page_bytes(), bytes = 2 * GUARDS * page;
	unsigned before;
	char *p;

	if (kind_missing(state))
		skip();
	p = ready_range(bytes);
	assert_true(sys_fault(p, page));    /* the guard map has its memory now */
	before = count_mappings(NULL, 0, NULL);
	for (size_t i = 1; i < GUARDS; i++)
		assert_true(sys_fault(p + 2 * i * page, page));
	assert_int_equal(count_mappings(NULL, 0, NULL), before);
	assert_int_equal(count_mappings(p, bytes, NULL), 1);
	assert_int_equal(stats().guard_bytes, GUARDS * page);
	assert_true(touch_faults(p + 2 * 7777 * page, false));
	assert_false(touch_faults(p + (2 * 7777 + 1) * page, true));
	sys_free(p, bytes, SYS_RESERVED);
	assert_int_equal(stats().guard_bytes, 0);
	assert_int_equal(stats().guard_vma_budget, 0);
}

/* ---- fallback: a budget ---- */

/* Faults every other page from `from` on until refused; the number of guards. */
static size_t
guard_until_refused(char *p, size_t from, size_t pages)
{
	size_t page = sys_page_bytes(), i = from;

	while (2 * i + 1 < pages && sys_fault(p + 2 * i * page, page))
		i++;
	return i - from;
}

static void
test_fallback_budget(void **state)
{
	size_t page = sys_page_bytes(), pages = 4000, n;
	char *p = ready_range(pages * page);
	struct sys_stats s;
	unsigned before;

	(void)state;
	sys_init(SYS_GUARD_MPROTECT, 2);
	s = stats();
	assert_in_range(s.guard_vma_budget, 100, pages / 2);
	assert_true(sys_fault(p, page) && sys_unfault(p, page) && sys_used(p, page));
	before = count_mappings(NULL, 0, NULL);
	n = guard_until_refused(p, 0, pages);
	assert_int_equal(n, s.guard_vma_budget / 2);
	assert_true(count_mappings(NULL, 0, NULL) <= before + s.guard_vma_budget);
	assert_int_equal(stats().guards_skipped, s.guards_skipped + 1);

	/* Refused is harmless: the page is what it was, and the next one too. */
	p[2 * n * page] = 'x';
	assert_false(sys_fault(p + 2 * n * page, page));
	assert_int_equal(stats().guards_skipped, s.guards_skipped + 2);
	assert_int_equal(p[2 * n * page], 'x');

	/* One guard off makes room for one. */
	assert_true(sys_unfault(p + 20 * page, page) && sys_used(p + 20 * page, page));
	assert_int_equal(guard_until_refused(p, n, pages), 1);

	/* sys_free gives the share of all guards in its range back. */
	sys_free(p, 1000 * page, SYS_RESERVED);
	assert_true(guard_until_refused(p, n + 1, pages) > 0);
	sys_free(p + 1000 * page, (pages - 1000) * page, SYS_READY);
	p = ready_range(pages * page);
	assert_int_equal(guard_until_refused(p, 0, pages), s.guard_vma_budget / 2);
	sys_free(p, pages * page, SYS_READY);
}

/* A guard cut in the middle is two, and both halves are paid for. */
static void
test_fallback_cut(void **state)
{
	size_t page = sys_page_bytes(), pages = 4000, budget, n;
	char *p = ready_range(pages * page), *q = ready_range(8 * page);

	(void)state;
	sys_init(SYS_GUARD_MPROTECT, 2);
	budget = stats().guard_vma_budget;
	assert_true(sys_fault(q, 8 * page));
	assert_true(sys_unfault(q + 3 * page, 2 * page) && sys_used(q + 3 * page, 2 * page));
	assert_true(touch_faults(q + 2 * page, false));
	assert_false(touch_faults(q + 3 * page, false));
	assert_true(touch_faults(q + 5 * page, false));
	n = guard_until_refused(p, 0, pages);
	assert_int_equal(n, budget / 2 - 2);
	assert_true(sys_unfault(q, 3 * page) && sys_unfault(q + 5 * page, 3 * page));
	assert_int_equal(guard_until_refused(p, n, pages), 2);
	sys_free(q, 8 * page, SYS_READY);
	sys_free(p, pages * page, SYS_READY);
}

static void
test_no_budget_at_all(void **state)
{
	size_t page = sys_page_bytes();
	char *p = ready_range(page);

	(void)state;
	sys_init(SYS_GUARD_MPROTECT, 0);
	assert_int_equal(stats().guard_vma_budget, 0);
	assert_false(sys_fault(p, page));
	assert_false(touch_faults(p, true));
	sys_free(p, page, SYS_READY);
}

/* Guards put before and after the kind was changed come off all the same. */
static void
test_kind_changed_with_guards(void **state)
{
	size_t page = sys_page_bytes();
	char *p = ready_range(4 * page);

	(void)state;
	sys_init(SYS_GUARD_MARKER, SHARE_PERCENT);
	assert_true(sys_fault(p, page));
	sys_init(SYS_GUARD_MPROTECT, SHARE_PERCENT);
	assert_true(sys_fault(p + 2 * page, page));
	sys_init(SYS_GUARD_AUTO, SHARE_PERCENT);
	assert_true(touch_faults(p, false) && touch_faults(p + 2 * page, false));
	assert_true(sys_unfault(p, page) && sys_unfault(p + 2 * page, page));
	assert_false(touch_faults(p, true) || touch_faults(p + 2 * page, true));
	sys_free(p, 4 * page, SYS_PREPARED);
}

/* ---- address space ---- */

static void
test_reserve_places(void **state)
{
	size_t page = sys_page_bytes(), gib = (size_t)1 << 30;
	unsigned long pages;
	char *p, *q;

	(void)state;
	address_space_pages();    /* stdio has its memory now */
	pages = address_space_pages();
	p = sys_reserve(0, gib, gib, false);
	assert_non_null(p);
	assert_in_range(address_space_pages() - pages, gib / page, gib / page + 64);
	assert_int_equal((uintptr_t)p & (gib - 1), 0);
	assert_true(touch_faults(p, false) && touch_faults(p + gib - 1, false));
	assert_null(sys_reserve((uintptr_t)p, page, page, true));
	assert_null(sys_reserve((uintptr_t)p + gib - page, 2 * page, page, true));
	q = sys_reserve((uintptr_t)p, page, page, false);
	assert_non_null(q);
	assert_true(q + page <= p || q >= p + gib);
	sys_free(q, page, SYS_RESERVED);
	sys_free(p, gib, SYS_RESERVED);

	assert_ptr_equal(sys_reserve((uintptr_t)p, ARENA_SIZE, ARENA_SIZE, true), p);
	sys_free(p, ARENA_SIZE, SYS_RESERVED);
	assert_null(sys_reserve((uintptr_t)p + page, ARENA_SIZE, ARENA_SIZE, true));
	q = sys_reserve((uintptr_t)p, ARENA_SIZE, ARENA_SIZE, false);
	assert_ptr_equal(q, p);
	sys_free(q, ARENA_SIZE, SYS_RESERVED);
	assert_null(sys_reserve(0, (size_t)1 << 62, page, false));
	assert_null(sys_reserve(0, SIZE_MAX - gib + 1, gib << 1, false));
	assert_null(sys_alloc((size_t)1 << 62));
}

static void
test_mapped_pieces_merge(void **state)
{
	size_t page = sys_page_bytes(), n = 64 * page;
	char *p = sys_reserve(0, n, page, false);

	(void)state;
	assert_non_null(p);
	for (size_t i = 0; i < 64; i += 4) {
		assert_true(sys_map(p + i * page, 4 * page) && sys_used(p + i * page, 4 * page));
		memset(p + i * page, 'x', 4 * page);
	}
	assert_int_equal(count_mappings(p, n, NULL), 1);
	sys_free(p, n, SYS_READY);
}

/* A refusal leaves the reservation, so that no other thread's memory gets in. */
static void
test_map_refused(void **state)
{
	size_t page = sys_page_bytes(), n = 16 * page;
	char *p = sys_reserve(0, n, page, false);
	struct rlimit old, none;
	struct sys_stats before = stats();
	bool mapped;

	(void)state;
	getrlimit(RLIMIT_DATA, &old);
	none = (struct rlimit){ page, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_DATA, &none), 0);
	mapped = sys_map(p, n);
	setrlimit(RLIMIT_DATA, &old);
	assert_false(mapped);
	assert_int_equal(stats().bytes[SYS_PREPARED], before.bytes[SYS_PREPARED]);
	assert_null(sys_reserve((uintptr_t)p, n, page, true));
	assert_true(touch_faults(p, false));
	assert_true(sys_map(p, n));
	sys_free(p, n, SYS_PREPARED);
}

/* ---- contents ---- */

static void
test_unused_reads_zero(void **state)
{
	size_t page = sys_page_bytes();
	char *p = ready_range(2 * page);

	(void)state;
	memset(p, 'x', 2 * page);
	sys_unused(p, page);
	assert_true(all_bytes(p, page, 0));
	assert_true(all_bytes(p + page, page, 'x'));
	assert_true(sys_used(p, page));
	if (mlock(p, page) == 0) {
		memset(p, 'y', page);
		sys_unused(p, page);
		assert_true(all_bytes(p, page, 0));
		assert_true(sys_used(p, page));
	}
	sys_free(p, 2 * page, SYS_READY);
}

static void
test_move(void **state)
{
	size_t page = sys_page_bytes(), n = 32 * page;
	char *arena = ready_range(4 * n), *from = arena + n, *to = arena + 3 * n;
	struct sys_stats before;

	(void)state;
	memset(arena, 'a', 4 * n);
	memset(from, 'x', n);
	before = stats();
	if (!sys_move(to, from, n)) {
		assert_true(all_bytes(from, n, 'x'));
		sys_free(arena, 4 * n, SYS_READY);
		skip();
	}
	assert_true(all_bytes(to, n, 'x'));
	assert_true(all_bytes(from, n, 0));
	assert_true(all_bytes(arena, n, 'a') && all_bytes(arena + 2 * n, n, 'a'));
	assert_memory_equal(before.bytes, stats().bytes, sizeof(before.bytes));
	memset(from, 'z', n);
	assert_true(all_bytes(to, n, 'x'));

	/* The place moved to is a mapping of its own until it is made afresh. */
	assert_true(count_mappings(arena, 4 * n, NULL) > 1);
	assert_true(sys_renew(to, n));
	assert_true(all_bytes(to, n, 0));
	assert_int_equal(count_mappings(arena, 4 * n, NULL), 1);
	assert_true(all_bytes(arena + 2 * n, n, 'a'));
	sys_free(arena, 4 * n, SYS_READY);
}

/* Of a range that is several mappings the kernel may refuse to move anything:
 * then nothing has happened. */
static void
test_move_of_patchwork(void **state)
{
	size_t page = sys_page_bytes(), n = 16 * page;
	char *arena = ready_range(8 * n), *to = arena + 6 * n;
	bool moved;

	(void)state;
	memset(arena, 'a', 8 * n);
	if (!sys_move(arena + n, arena + 3 * n, n)) {
		sys_free(arena, 8 * n, SYS_READY);
		skip();
	}
	memset(arena, 'b', 2 * n);
	assert_true(count_mappings(arena, 2 * n, NULL) > 1);
	moved = sys_move(to, arena, 2 * n);
	assert_true(all_bytes(to, 2 * n, moved ? 'b' : 'a'));
	assert_true(all_bytes(arena, 2 * n, moved ? 0 : 'b'));
	memset(arena, 'c', 2 * n);
	memset(to, 'd', 2 * n);
	sys_free(arena, 8 * n, SYS_READY);
}

static void
test_populate(void **state)
{
	size_t page = sys_page_bytes();
	char *p = ready_range(8 * page);
	unsigned char resident[8] = { 0 };

	(void)state;
	assert_int_equal(mincore(p, 8 * page, resident), 0);
	assert_int_equal(resident[3] & 1, 0);
	sys_populate(p, 8 * page);
	assert_int_equal(mincore(p, 8 * page, resident), 0);
	if (madvise(p, page, 23) == 0) {
		for (size_t i = 0; i < 8; i++)
			assert_int_equal(resident[i] & 1, 1);
	}
	assert_true(all_bytes(p, 8 * page, 0));
	sys_free(p, 8 * page, SYS_READY);
}

/* Flags of the mapping at p, as the kernel names them. */
static bool
mapping_has_flag(const void *p, const char *flag)
{
	char line[512];
	bool here = false, found = false;
	FILE *f = fopen("/proc/self/smaps", "r");

	assert_non_null(f);
	while (fgets(line, sizeof(line), f) != NULL) {
		uintptr_t from, to;
		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &from, &to) == 2)
			here = from <= (uintptr_t)p && (uintptr_t)p < to;
		else if (here && strncmp(line, "VmFlags:", 8) == 0)
			found = strstr(line, flag) != NULL;
	}
	fclose(f);
	return found;
}

static void
test_huge(void **state)
{
	size_t bytes = (size_t)4 << 20;
	char *p = ready_range(bytes);

	(void)state;
	if (access("/sys/kernel/mm/transparent_hugepage/enabled", R_OK) != 0)
		skip();
	assert_false(mapping_has_flag(p, " hg"));
	sys_huge(p, bytes);
	assert_true(mapping_has_flag(p, " hg"));
	assert_true(all_bytes(p, bytes, 0));
	sys_free(p, bytes, SYS_READY);
}

/* In a child, since what is sealed stays. */
static int
child_seals(void)
{
	size_t page = sys_page_bytes();
	char *p = sys_alloc(page);
	bool can_seal = syscall(SYSCALL_MSEAL, NULL, 0, 0) == 0;

	*p = 'x';
	sys_seal(p, page);
	if (touch_faults(p, false) || *p != 'x' || !touch_faults(p, true))
		return 1;
	return can_seal == (mprotect(p, page, PROT_READ | PROT_WRITE) != 0) ? 0 : 2;
}

/* Memory with a guard in it, of either kind. */
static int
child_keeps(void)
{
	size_t page = sys_page_bytes();
	char *p = sys_alloc(4 * page);
	bool can_seal = syscall(SYSCALL_MSEAL, NULL, 0, 0) == 0;

	if (!sys_fault(p + page, page))
		return 1;
	sys_keep(p, 4 * page);
	p[0] = p[3 * page] = 'x';
	if (!touch_faults(p + page, false))
		return 2;
	if (!can_seal)
		return 0;
	if (mprotect(p + page, page, PROT_READ | PROT_WRITE) == 0 || errno != EPERM)
		return 3;
	if (munmap(p + page, page) == 0 || errno != EPERM)
		return 4;
	if (mmap(p + page, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
	    MAP_FAILED || errno != EPERM)
		return 5;
	return p[0] == 'x' && touch_faults(p + page, true) ? 0 : 6;
}

static void
test_seal(void **state)
{
	(void)state;
	assert_int_equal(run_in_child(child_seals), 0);
	assert_int_equal(run_in_child(child_keeps), 0);
}

/* ---- the rest ---- */

static void
test_errno_kept(void **state)
{
	size_t page = sys_page_bytes();
	char *p = ready_range(page), buf[3];

	(void)state;
	errno = 77;
	assert_null(sys_alloc((size_t)1 << 62));
	assert_null(sys_reserve((uintptr_t)p, page, page, true));
	assert_false(sys_move(p, (void *)page, page));
	sys_free(p, page, SYS_READY);
	sys_init(SYS_GUARD_MPROTECT, 7);
	sys_random(buf, sizeof(buf));
	sys_now_ns();
	assert_int_equal(errno, 77);
}

static void
test_init_is_idempotent(void **state)
{
	uint64_t calls = stats().calls;
	enum sys_guard_kind kind = sys_guard_in_use();

	(void)state;
	assert_int_equal(sys_page_bytes(), sysconf(_SC_PAGESIZE));
	assert_int_not_equal(kind, SYS_GUARD_AUTO);
	sys_init(SYS_GUARD_AUTO, SHARE_PERCENT);
	assert_int_equal(stats().calls, calls);
	assert_int_equal(sys_guard_in_use(), kind);
	sys_init(SYS_GUARD_MPROTECT, SHARE_PERCENT);
	assert_int_equal(sys_guard_in_use(), SYS_GUARD_MPROTECT);
}

static int
random_is_sane(void)
{
	unsigned char a[64], b[64];

	memset(a, 0, sizeof(a));
	memset(b, 0, sizeof(b));
	for (size_t n = 0; n < 63; n++) {
		a[n] = 0xa5;
		sys_random(a, n);
		if (a[n] != 0xa5)
			return 1;
	}
	sys_random(a, sizeof(a));
	sys_random(b, sizeof(b));
	for (size_t i = 0; i + 8 <= sizeof(a); i += 8) {
		if (memcmp(a + i, b + i, 8) == 0 || all_bytes(a + i, 8, 0)
		    || (i > 0 && memcmp(a, a + i, 8) == 0))
			return 2;
	}
	return 0;
}

static int
child_random_forbidden(void)
{
	return forbid(SYS_getrandom, -1, EPERM) ? random_is_sane() : 99;
}

static void
test_random(void **state)
{
	int rc;

	(void)state;
	assert_int_equal(random_is_sane(), 0);
	rc = run_in_child(child_random_forbidden);
	if (rc != 99)
		assert_int_equal(rc, 0);
}

static void
test_clock_futex_tid(void **state)
{
	uint64_t t = sys_now_ns();
	uint32_t word = 5;

	(void)state;
	assert_true(t > 0);
	assert_true(sys_now_ns() >= t);
	sys_futex_wait(&word, 6);    /* another value: comes back at once */
	sys_futex_wake(&word, 1);
	assert_int_equal(sys_gettid(), getpid());
}

static volatile int signals_seen;

static void
count_signal(int sig)
{
	(void)sig;
	signals_seen++;
}

/* What comes meanwhile comes at the last release; faults come at once. */
static void
test_hold_signals(void **state)
{
	struct sigaction sa = { .sa_handler = count_signal }, old[3];
	const int sig[3] = { SIGUSR1, SIGSEGV, SIGUSR2 };

	(void)state;
	for (int i = 0; i < 3; i++)
		assert_int_equal(sigaction(sig[i], &sa, &old[i]), 0);
	signals_seen = 0;
	assert_false(sys_holds_signals());
	sys_hold_signals();
	sys_hold_signals();
	assert_true(sys_holds_signals());
	raise(SIGUSR1);
	assert_int_equal(signals_seen, 0);
	raise(SIGSEGV);
	assert_int_equal(signals_seen, 1);
	sys_release_signals();
	assert_true(sys_holds_signals());
	assert_int_equal(signals_seen, 1);
	sys_release_signals();
	assert_false(sys_holds_signals());
	assert_int_equal(signals_seen, 2);
	sys_never_hold(SIGUSR2);
	sys_hold_signals();
	raise(SIGUSR2);
	assert_int_equal(signals_seen, 3);
	sys_release_signals();
	for (int i = 0; i < 3; i++)
		assert_int_equal(sigaction(sig[i], &old[i], NULL), 0);
}

#define GUARD_TESTS(f) \
	cmocka_unit_test_prestate_setup_teardown(f, setup, teardown, &marker_kind), \
	cmocka_unit_test_prestate_setup_teardown(f, setup, teardown, &mprotect_kind)
#define AUTO_TEST(f) cmocka_unit_test_setup_teardown(f, setup_auto, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_probe),
		GUARD_TESTS(test_guard_faults),
		GUARD_TESTS(test_map_over_guard),
		GUARD_TESTS(test_accounting),
		GUARD_TESTS(test_guards_by_threads),
		cmocka_unit_test_prestate_setup_teardown(test_markers_cost_no_mapping, setup,
		    teardown, &marker_kind),
		AUTO_TEST(test_fallback_budget),
		AUTO_TEST(test_fallback_cut),
		AUTO_TEST(test_no_budget_at_all),
		AUTO_TEST(test_kind_changed_with_guards),
		AUTO_TEST(test_reserve_places),
		AUTO_TEST(test_mapped_pieces_merge),
		AUTO_TEST(test_map_refused),
		AUTO_TEST(test_unused_reads_zero),
		AUTO_TEST(test_move),
		AUTO_TEST(test_move_of_patchwork),
		AUTO_TEST(test_populate),
		AUTO_TEST(test_huge),
		AUTO_TEST(test_seal),
		AUTO_TEST(test_errno_kept),
		AUTO_TEST(test_init_is_idempotent),
		AUTO_TEST(test_random),
		AUTO_TEST(test_clock_futex_tid),
		AUTO_TEST(test_hold_signals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
