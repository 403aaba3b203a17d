/* fake_sys.c - see fake_sys.h.
 *
 * The state of a page is a byte: enum sys_state, and the flags below; it is kept as
 * runs of equal pages, so that a gigabyte costs no more than a page. `dirty` says
 * which pages were Ready since the reset: no more than these are cleared, and not
 * before they are Ready again. Memory that is there is cleared by hand and stays: to
 * give it back and fault it in again costs ten times as much. Of a long run, only what
 * the kernel says was written to.
 *
 *   FAKE-1  mappings = number of i with class(i) != 0 and class(i) != class(i-1)
 *   FAKE-2  bytes[s] = page_bytes * number of pages in state s
 *
 * Lock: one mutex, taken by every entry. */
#define _GNU_SOURCE
#include "fake_sys.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "page_runs.h"

enum {
	STATE_MASK = 3,
	MARKER = 4,           /* guarded, no mapping of its own */
	PROTECTED = 8,        /* guarded, PROT_NONE */
	SEALED = 16,
	DIRTY = 1,            /* may have content */
	DIRTY_STALE = 2,      /* ... which nobody may see any more */
	VMAS_PER_GUARD = 2,
	DEFAULT_MAX_MAPPINGS = 65530,
	CLEAR_BY_HAND_BYTES = 1 << 14,      /* without asking the kernel */
	SCAN_RUNS = 256,                    /* asked for at a time */
	CLEAR_GAP_BYTES = 1 << 27,
	CLEAR_AT_ONCE_BYTES = 1 << 26,      /* looked up by one call, on older kernels */
	CLEAR_RESIDENT_BYTES = 1 << 23,     /* more is given back */
	IN_VAIN_MAX = 24,
	OS_PAGE_MIN = 1 << 12,
	LOOK_WORDS = 64,
};

#define WINDOW_MAX ((size_t)64 << 30)
#define WINDOW_MIN ((size_t)1 << 30)
#define WINDOW_ALIGN ((size_t)4 << 30)

static struct {
	pthread_mutex_t lock;
	uintptr_t base;
	size_t window_bytes;
	struct page_runs state;       /* of OS pages, room for those of 4 KiB */
	struct page_runs dirty;
	uint8_t *in_vain;             /* of pages of 4 KiB: how often it was zero in a row */
	int pagemap;                  /* /proc/self/pagemap of the process pagemap_of */
	pid_t pagemap_of;
	struct fake_sys_config config;
	unsigned page_shift;
	size_t pages;                 /* in the window */
	size_t reserve_next, alloc_end;    /* page numbers */
	size_t script_next;
	enum sys_guard_kind kind;
	uint64_t mappings, guard_runs;
	uint64_t calls[32];
	uint64_t fail_seen;
	uint64_t refusals;
	uint64_t random;
	struct sys_stats stats;
} fake = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* ---- helpers; all with the lock held ---- */

static _Noreturn void __attribute__((format(printf, 1, 2)))
fake_abort(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	fputs("fake_sys: ", stderr);
	vfprintf(stderr, format, ap);
	fputc('\n', stderr);
	va_end(ap);
	abort();
}

static const char *
state_name(uint8_t s)
{
	static const char *const name[] = { "None", "Reserved", "Prepared", "Ready" };

	if (s & SEALED)
		return "sealed";
	if (s & (MARKER | PROTECTED))
		return "guarded";
	return name[s & STATE_MASK];
}

/* What the kernel tells apart: 0 nothing, 1 PROT_NONE, 2 read-write, 3 read-only. */
static unsigned
vma_class(uint8_t s)
{
	if ((s & STATE_MASK) == SYS_NONE)
		return 0;
	if (s & SEALED)
		return 3;
	return (s & STATE_MASK) == SYS_RESERVED && !(s & MARKER) ? 1 : 2;
}

static unsigned
guard_class(uint8_t s)
{
	return (s & PROTECTED) != 0;
}

static uint64_t
random_next(void)
{
	uint64_t z = fake.random += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static void *
page_addr(size_t page)
{
	return (void *)(fake.base + (page << fake.page_shift));
}

/* Runs that begin in [page, page + n], the page behind included, if [page,
 * page + n) had the state `as` (negative: what it has now). */
static uint64_t
runs_between(size_t page, size_t n, int as, unsigned (*class_of)(uint8_t))
{
	const struct page_runs *r = &fake.state;
	size_t i = page_runs_find(&fake.state, page), end = page + n;
	unsigned before = page == 0 ? 0 : class_of(r->at[i].page < page ? r->at[i].state :
	    r->at[i - 1].state);
	uint64_t runs = 0;

	if (as >= 0) {
		unsigned c = class_of((uint8_t)as);
		runs += c != 0 && c != before;
		before = c;
		i = page_runs_find(&fake.state, end - 1);
		i += page_runs_end(r, i) == end;
	}
	for (; i < r->n && r->at[i].page <= end; i++) {
		unsigned c = class_of(r->at[i].state);
		runs += c != 0 && c != before;
		before = c;
	}
	return runs;
}

static void
protect(size_t page, size_t n, uint8_t to)
{
	int prot = PROT_NONE;

	if (to & SEALED)
		prot = PROT_READ;
	else if ((to & STATE_MASK) >= SYS_PREPARED)
		prot = PROT_READ | PROT_WRITE;
	if (mprotect(page_addr(page), n << fake.page_shift, prot) != 0)
		fake_abort("mprotect refused: more real guards than this machine has mappings");
}

/* Not memcmp: libFuzzer has one of its own that remembers what was compared, and that
 * is a root like all data. */
__attribute__((no_sanitize("address"))) static bool
is_zero(const char *page)
{
	const uint64_t *w = (const uint64_t *)(const void *)page;
	uint64_t any = 0;

	for (size_t i = 0; i < OS_PAGE_MIN / sizeof(*w) && any == 0; i += LOOK_WORDS)
		for (size_t k = 0; k < LOOK_WORDS; k++)
			any |= w[i + k];
	return any == 0;
}

/* Of most pages only some are touched by an input: to look costs a third of a store.
 * A page that was zero each of the last times goes back. */
static void
clear(char *p, size_t bytes)
{
	size_t first = (size_t)(p - (char *)fake.base) / OS_PAGE_MIN, drop = 0, n = bytes / OS_PAGE_MIN;

	for (size_t i = 0; i < n; i++) {
		char *page = p + i * OS_PAGE_MIN;

		if (!is_zero(page)) {
			memset(page, 0, OS_PAGE_MIN);
			fake.in_vain[first + i] = 0;
		} else if (++fake.in_vain[first + i] == IN_VAIN_MAX) {
			fake.in_vain[first + i] = 0;
			drop++;
			continue;
		}
		if (drop != 0)
			madvise(page - drop * OS_PAGE_MIN, drop * OS_PAGE_MIN, MADV_DONTNEED);
		drop = 0;
	}
	if (drop != 0)
		madvise(p + bytes - drop * OS_PAGE_MIN, drop * OS_PAGE_MIN, MADV_DONTNEED);
}

/* linux/fs.h has them from Linux 6.7 on. */
struct scan_run {
	uint64_t start, end, categories;
};

struct scan_arg {
	uint64_t bytes, flags, start, end, walk_end, runs, max_runs, max_pages;
	uint64_t inverted, all_of, any_of, returned;
};

enum { SCAN_PRESENT = 1 << 3, SCAN_SWAPPED = 1 << 4, SCAN_ZERO_PAGE = 1 << 5 };

static void
pagemap_open(void)
{
	if (fake.pagemap > 0)
		close(fake.pagemap);
	fake.pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	fake.pagemap_of = getpid();
}

/* fn for each run of pages of [p, p + bytes) that have memory of their own: of what
 * was read alone, each is the kernel's page of zeroes. false: this kernel cannot tell. */
static bool
each_written(char *p, size_t bytes, void (*fn)(char *p, size_t bytes, ptrdiff_t arg), ptrdiff_t arg)
{
	static struct scan_run run[SCAN_RUNS];
	struct scan_arg a = { .bytes = sizeof(a), .walk_end = (uintptr_t)p,
		.end = (uintptr_t)p + bytes, .runs = (uintptr_t)run, .max_runs = SCAN_RUNS,
		.inverted = SCAN_ZERO_PAGE, .all_of = SCAN_ZERO_PAGE,
		.any_of = SCAN_PRESENT | SCAN_SWAPPED, .returned = SCAN_PRESENT };
	long n;

	if (fake.pagemap_of != getpid())        /* after fork it would be the parent's */
		pagemap_open();
	while (a.walk_end < a.end) {
		a.start = a.walk_end;
		n = ioctl(fake.pagemap, _IOWR('f', 16, struct scan_arg), &a);
		if (n < 0)
			return false;
		for (long i = 0; i < n; i++)
			fn((char *)(uintptr_t)run[i].start, run[i].end - run[i].start, arg);
	}
	return true;
}

static void
clear_run(char *p, size_t bytes, ptrdiff_t unused)
{
	(void)unused;
	clear(p, bytes);
}

/* As far as an older kernel can tell; false: too much is there, or who knows. */
static bool
clear_resident(char *p, size_t bytes)
{
	static unsigned char there[CLEAR_AT_ONCE_BYTES / OS_PAGE_MIN];
	size_t n = bytes / OS_PAGE_MIN, resident = 0;

	if (n > sizeof(there) || mincore(p, bytes, there) != 0)
		return false;
	for (size_t i = 0; i < n; i++)
		resident += there[i] & 1;
	if (resident > CLEAR_RESIDENT_BYTES / OS_PAGE_MIN)
		return false;
	for (size_t i = 0; i < n; i++)
		if ((there[i] & 1) != 0)
			clear(p + i * OS_PAGE_MIN, OS_PAGE_MIN);
	return true;
}

static void
forget(size_t page, size_t n)
{
	size_t bytes = n << fake.page_shift;
	char *p = page_addr(page);

	if (fake.config.real_faults)
		madvise(p, bytes, MADV_DONTNEED);
	else if (bytes <= CLEAR_BY_HAND_BYTES)
		clear(p, bytes);
	else if (!each_written(p, bytes, clear_run, 0) && !clear_resident(p, bytes))
		madvise(p, bytes, MADV_DONTNEED);
}

/* The same for pages that leave Ready: much of it is not used again before the reset.
 * What a tier reads there until then is what it should not have read. */
static void
forget_later(size_t page, size_t n)
{
	if (fake.config.real_faults || n << fake.page_shift <= CLEAR_BY_HAND_BYTES)
		forget(page, n);
	else
		page_runs_set(&fake.dirty, page, n, DIRTY_STALE);
}

/* [page, page + n) becomes Ready. */
static void
forget_stale(size_t page, size_t n)
{
	const struct page_runs *r = &fake.dirty;

	for (size_t at = page, end, i = page_runs_find(&fake.dirty, page); at < page + n; i++) {
		end = page_runs_end(r, i) < page + n ? page_runs_end(r, i) : page + n;
		if (r->at[i].state == DIRTY_STALE)
			forget(at, end - at);
		at = end;
	}
	page_runs_set(&fake.dirty, page, n, DIRTY);
}

/* The bytes of [page, page + n) leave the states they are in. */
static void
account_leaves(size_t page, size_t n)
{
	const struct page_runs *r = &fake.state;

	for (size_t i = page_runs_find(&fake.state, page), at = page; at < page + n; i++) {
		size_t end = page_runs_end(r, i) < page + n ? page_runs_end(r, i) : page + n;
		uint64_t bytes = (uint64_t)(end - at) << fake.page_shift;

		fake.stats.bytes[r->at[i].state & STATE_MASK] -= bytes;
		fake.stats.guard_bytes -= r->at[i].state & (MARKER | PROTECTED) ? bytes : 0;
		at = end;
	}
}

/* Sets n pages to one state; false, with nothing done, if the simulated kernel
 * has no mapping left for it. `forced`: the call cannot fail. */
static bool
change(size_t page, size_t n, uint8_t to, bool forced)
{
	size_t bytes = (size_t)1 << fake.page_shift;
	uint64_t mappings = fake.mappings - runs_between(page, n, -1, vma_class)
	    + runs_between(page, n, to, vma_class);

	if (!forced && fake.config.max_map_count != 0 && mappings > fake.config.max_map_count
	    && mappings > fake.mappings) {
		fake.refusals++;
		return false;
	}
	fake.mappings = mappings;
	fake.guard_runs += runs_between(page, n, to, guard_class)
	    - runs_between(page, n, -1, guard_class);
	account_leaves(page, n);
	page_runs_set(&fake.state, page, n, to);
	if (to == SYS_READY)
		forget_stale(page, n);
	fake.stats.bytes[to & STATE_MASK] += n * bytes;
	fake.stats.guard_bytes += to & (MARKER | PROTECTED) ? n * bytes : 0;
	fake.stats.bytes[SYS_NONE] = 0;
	if (fake.config.real_faults)
		protect(page, n, to);
	return true;
}

/* The pages of a legal range; aborts if it is not one. */
static size_t
range_page(const char *call, const void *p, size_t bytes)
{
	uintptr_t at = (uintptr_t)p;
	size_t mask = ((size_t)1 << fake.page_shift) - 1;

	if (bytes == 0 || (at & mask) != 0 || (bytes & mask) != 0)
		fake_abort("%s(%p, %#zx): not a multiple of the OS page %#zx", call, p, bytes,
		    mask + 1);
	if (at < fake.base || bytes > fake.window_bytes
	    || at - fake.base > fake.window_bytes - bytes)
		fake_abort("%s(%p, %#zx): outside of the window", call, p, bytes);
	return (at - fake.base) >> fake.page_shift;
}

/* ... and all in state `want`, which names the state with its flags; `guards`
 * are the flags that may be set besides. */
static size_t
range_in_state(const char *call, const void *p, size_t bytes, enum sys_state want, uint8_t guards)
{
	const struct page_runs *r = &fake.state;
	size_t page = range_page(call, p, bytes), end = page + (bytes >> fake.page_shift);

	for (size_t i = page_runs_find(&fake.state, page); i < r->n && r->at[i].page < end; i++) {
		if ((r->at[i].state & ~guards) != (uint8_t)want)
			fake_abort("%s(%p, %#zx): page %zu is %s, must be %s", call, p, bytes,
			    r->at[i].page > page ? r->at[i].page - page : 0,
			    state_name(r->at[i].state), state_name((uint8_t)want));
	}
	return page;
}

static void
fail_arm(uint32_t mask, uint64_t nth, bool onwards)
{
	fake.config.fail_mask = mask;
	fake.config.fail_nth = nth;
	fake.config.fail_onwards = onwards;
	fake.fail_seen = 0;
}

/* Counts the call; true if it is to fail. */
static bool
call_fails(enum fake_sys_call call)
{
	fake.calls[ctz64((uint64_t)call)]++;
	fake.stats.calls++;
	if ((fake.config.fail_mask & FAKE_SYS_CAN_FAIL & (uint32_t)call) == 0)
		return false;
	fake.fail_seen++;
	if (fake.config.fail_nth == 0 || fake.fail_seen < fake.config.fail_nth)
		return false;
	bool fails = fake.fail_seen == fake.config.fail_nth || fake.config.fail_onwards;
	fake.refusals += fails;
	return fails;
}

/* ---- window, reset ---- */

static size_t
runs_bytes(void)
{
	return ((fake.window_bytes >> 12) + 1) * sizeof(struct page_run);
}

static void *
anonymous(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		fake_abort("no memory for the state of the window");
	return p;
}

static void
window_open(void)
{
	char *p = MAP_FAILED;

	for (size_t n = WINDOW_MAX; n >= WINDOW_MIN && p == MAP_FAILED; n >>= 1) {
		fake.window_bytes = n;
		p = mmap(NULL, n + WINDOW_ALIGN, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	}
	if (p == MAP_FAILED)
		fake_abort("no address space for a window");
	fake.base = align_up((uintptr_t)p, WINDOW_ALIGN);
	fake.state.at = anonymous(runs_bytes());
	fake.dirty.at = anonymous(runs_bytes());
	fake.in_vain = anonymous(fake.window_bytes / OS_PAGE_MIN);
	pagemap_open();
}

/* Of the reset: real memory as it was at the start. Runs that lie near each other are
 * looked up together. */
static void
window_clear(void)
{
	const struct page_runs *r = &fake.dirty;

	for (size_t i = 0; i < r->n; i++) {
		size_t from = r->at[i].page, near = CLEAR_GAP_BYTES >> fake.page_shift;

		if (r->at[i].state == 0)
			continue;
		while (i + 1 < r->n && (r->at[i + 1].state != 0 || (i + 2 < r->n &&
		    page_runs_end(r, i + 1) - page_runs_end(r, i) <= near)))
			i++;
		forget(from, page_runs_end(r, i) - from);
	}
}

static void
init_locked(enum sys_guard_kind guards, unsigned share_percent)
{
	uint64_t max = fake.config.max_map_count != 0 ? fake.config.max_map_count
	    : DEFAULT_MAX_MAPPINGS;
	uint64_t other = fake.mappings - fake.guard_runs * VMAS_PER_GUARD;

	fake.kind = guards == SYS_GUARD_MPROTECT || fake.config.no_markers
	    ? SYS_GUARD_MPROTECT : SYS_GUARD_MARKER;
	max = max * share_percent / 100;
	fake.stats.guard_vma_budget = fake.kind == SYS_GUARD_MARKER || max < other ? 0 : max - other;
}

static void
reset_locked(const struct fake_sys_config *config)
{
	bool first = fake.base == 0;
	bool was_real = fake.config.real_faults;

	if (first)
		window_open();
	else
		window_clear();
	fake.config = config != NULL ? *config : (struct fake_sys_config){ 0 };
	if (fake.config.page_bytes == 0)
		fake.config.page_bytes = 4096;
	if (!is_pow2(fake.config.page_bytes) || fake.config.page_bytes < 4096)
		fake_abort("page_bytes %zu", fake.config.page_bytes);
	fake.page_shift = ctz64(fake.config.page_bytes);
	fake.pages = fake.window_bytes >> fake.page_shift;
	page_runs_clear(&fake.state, fake.pages);
	page_runs_clear(&fake.dirty, fake.pages);
	fake.reserve_next = 0;
	fake.alloc_end = fake.pages;
	fake.script_next = 0;
	fake.mappings = fake.guard_runs = 0;
	memset(fake.calls, 0, sizeof(fake.calls));
	fake.refusals = 0;
	memset(&fake.stats, 0, sizeof(fake.stats));
	fake.random = fake.config.seed;
	fail_arm(fake.config.fail_mask, fake.config.fail_nth, fake.config.fail_onwards);
	if (fake.config.real_faults)
		mprotect((void *)fake.base, fake.window_bytes, PROT_NONE);
	else if (first || was_real)
		mprotect((void *)fake.base, fake.window_bytes, PROT_READ | PROT_WRITE);
	init_locked(SYS_GUARD_AUTO, 50);
}

/* Every entry begins with this. Who never resets gets a kernel with defaults. */
static void
enter(void)
{
	pthread_mutex_lock(&fake.lock);
	if (fake.base == 0)
		reset_locked(NULL);
}

static void
leave(void)
{
	pthread_mutex_unlock(&fake.lock);
}

void
fake_sys_reset(const struct fake_sys_config *config)
{
	pthread_mutex_lock(&fake.lock);
	reset_locked(config);
	leave();
}

void
fake_sys_fail(uint32_t mask, uint64_t nth, bool onwards)
{
	enter();
	fail_arm(mask, nth, onwards);
	leave();
}

void
fake_sys_each_range(void (*fn)(void *p, size_t bytes))
{
	enter();
	leave();
	fn((void *)fake.base, fake.window_bytes);
	fn(fake.state.at, runs_bytes());
	fn(fake.dirty.at, runs_bytes());
}

uint64_t
fake_sys_calls(uint32_t mask)
{
	uint64_t n = 0;

	enter();
	for (unsigned i = 0; i < ARRAY_LEN(fake.calls); i++)
		n += mask >> i & 1 ? fake.calls[i] : 0;
	leave();
	return n;
}

uint64_t
fake_sys_refusals(void)
{
	enter();
	uint64_t n = fake.refusals;
	leave();
	return n;
}

void
fake_sys_set_now(uint64_t now_ns)
{
	enter();
	fake.config.now_ns = now_ns;
	leave();
}

void
fake_sys_advance(uint64_t ns)
{
	enter();
	fake.config.now_ns += ns;
	leave();
}

uintptr_t
fake_sys_base(void)
{
	enter();
	leave();
	return fake.base;
}

size_t
fake_sys_window_bytes(void)
{
	enter();
	leave();
	return fake.window_bytes;
}

uint64_t
fake_sys_mappings(void)
{
	uint64_t n;

	enter();
	n = fake.mappings;
	leave();
	return n;
}

static uint8_t
state_of(const void *p)
{
	uintptr_t at = (uintptr_t)p;
	uint8_t s = 0;

	enter();
	if (at >= fake.base && at - fake.base < fake.window_bytes)
		s = page_runs_get(&fake.state, (at - fake.base) >> fake.page_shift);
	leave();
	return s;
}

size_t
fake_sys_run(const void *p, enum sys_state *state, bool *guarded)
{
	size_t page = ((uintptr_t)p - fake.base) >> fake.page_shift;
	uint8_t s = state_of(p);

	*state = (enum sys_state)(s & STATE_MASK);
	*guarded = (s & (MARKER | PROTECTED)) != 0;
	return (page_runs_end(&fake.state, page_runs_find(&fake.state, page)) - page) <<
	    fake.page_shift;
}

enum sys_state
fake_sys_state(const void *p)
{
	return (enum sys_state)(state_of(p) & STATE_MASK);
}

bool
fake_sys_guarded(const void *p)
{
	return (state_of(p) & (MARKER | PROTECTED)) != 0;
}

/* ---- sys.h ---- */

void
sys_init(enum sys_guard_kind guards, unsigned vma_share_percent)
{
	enter();
	init_locked(guards, vma_share_percent);
	leave();
}

size_t
sys_page_bytes(void)
{
	enter();
	leave();
	return (size_t)1 << fake.page_shift;
}

enum sys_guard_kind
sys_guard_in_use(void)
{
	enter();
	leave();
	return fake.kind;
}

/* Where all of [page, page + n) is None: page, or else the first page behind
 * what is in the way. */
static size_t
none_from(size_t page, size_t n)
{
	const struct page_runs *r = &fake.state;
	size_t end = page + n, i = page_runs_find(&fake.state, end - 1);

	if (r->at[i].state == 0 && r->at[i].page <= page)
		return page;
	if (r->at[i].state == 0)        /* neighbours differ: the one before is not None */
		return r->at[i].page;
	return page_runs_end(r, i) < end ? page_runs_end(r, i) : end;
}

/* First fit at or after `from`, or fake.pages. Alignment is of addresses; the
 * base is aligned to more than anybody asks for, or it is of the base. */
static size_t
place_from(size_t from, size_t n, size_t align_pages)
{
	size_t page = align_up(from, align_pages);

	while (page <= fake.pages - n && page < fake.pages) {
		size_t next = none_from(page, n);

		if (next == page)
			return page;
		page = align_up(next, align_pages);
	}
	return fake.pages;
}

static size_t
place_next(size_t n, size_t align_pages)
{
	size_t page;

	if (n > fake.pages)
		return fake.pages;
	if (fake.config.place == FAKE_SYS_SCRIPT && fake.script_next < fake.config.script_len) {
		page = fake.config.script_bytes[fake.script_next++] >> fake.page_shift;
		if ((page & (align_pages - 1)) != 0 || page > fake.pages - n
		    || none_from(page, n) != page)
			fake_abort("script entry %zu: misaligned, outside or taken",
			    fake.script_next - 1);
		fake.reserve_next = page + n;
		return page;
	}
	if (fake.config.place == FAKE_SYS_GAPS)
		fake.reserve_next += align_pages * (1 + random_next() % 8);
	page = place_from(fake.reserve_next, n, align_pages);
	if (page == fake.pages)
		page = place_from(0, n, align_pages);
	if (page != fake.pages)
		fake.reserve_next = page + n;
	return page;
}

static bool
hint_is_free(uintptr_t hint, size_t bytes, size_t align)
{
	if (hint < fake.base || bytes > fake.window_bytes || (hint & (align - 1)) != 0
	    || hint - fake.base > fake.window_bytes - bytes)
		return false;
	return none_from((hint - fake.base) >> fake.page_shift, bytes >> fake.page_shift)
	    == (hint - fake.base) >> fake.page_shift;
}

static void *
reserve_locked(uintptr_t hint, size_t bytes, size_t align, bool exact)
{
	size_t n = bytes >> fake.page_shift, page;

	if (bytes == 0 || (bytes & (fake.config.page_bytes - 1)) != 0 || !is_pow2(align))
		fake_abort("sys_reserve(%#zx, align %#zx): not a multiple of the OS page %#zx",
		    bytes, align, fake.config.page_bytes);
	if (align < fake.config.page_bytes)
		align = fake.config.page_bytes;
	if (call_fails(FAKE_SYS_RESERVE))
		return NULL;
	if (hint != 0 && hint_is_free(hint, bytes, align)) {
		page = (hint - fake.base) >> fake.page_shift;
		fake.reserve_next = page + n;
	} else if (exact || align > WINDOW_ALIGN) {
		return NULL;
	} else {
		page = place_next(n, align >> fake.page_shift);
	}
	if (page >= fake.pages || !change(page, n, SYS_RESERVED, false))
		return NULL;
	return page_addr(page);
}

void *
sys_reserve(uintptr_t hint, size_t bytes, size_t align, bool exact)
{
	void *p;

	enter();
	p = reserve_locked(hint, bytes, align, exact);
	leave();
	return p;
}

static void *
alloc_locked(size_t bytes)
{
	size_t n = bytes >> fake.page_shift, page;

	if (bytes == 0 || (bytes & (fake.config.page_bytes - 1)) != 0)
		fake_abort("sys_alloc(%#zx): not a multiple of the OS page %#zx", bytes,
		    fake.config.page_bytes);
	if (call_fails(FAKE_SYS_ALLOC) || n > fake.alloc_end)
		return NULL;
	page = fake.alloc_end - n;
	if (none_from(page, n) != page) {
		page = place_from(0, n, 1);
		if (page == fake.pages)
			return NULL;
	}
	if (!change(page, n, SYS_READY, false))
		return NULL;
	if (page + n == fake.alloc_end)
		fake.alloc_end = page;
	return page_addr(page);
}

void *
sys_alloc(size_t bytes)
{
	void *p;

	enter();
	p = alloc_locked(bytes);
	leave();
	return p;
}

bool
sys_map(void *p, size_t bytes)
{
	bool ok;

	enter();
	size_t page = range_in_state("sys_map", p, bytes, SYS_RESERVED, MARKER | PROTECTED);
	ok = !call_fails(FAKE_SYS_MAP)
	    && change(page, bytes >> fake.page_shift, SYS_PREPARED, false);
	leave();
	return ok;
}

bool
sys_used(void *p, size_t bytes)
{
	bool ok;

	enter();
	size_t page = range_in_state("sys_used", p, bytes, SYS_PREPARED, 0);
	ok = !call_fails(FAKE_SYS_USED)
	    && change(page, bytes >> fake.page_shift, SYS_READY, false);
	leave();
	return ok;
}

void
sys_unused(void *p, size_t bytes)
{
	enter();
	size_t page = range_in_state("sys_unused", p, bytes, SYS_READY, 0);
	call_fails(FAKE_SYS_UNUSED);
	forget_later(page, bytes >> fake.page_shift);
	change(page, bytes >> fake.page_shift, SYS_PREPARED, true);
	leave();
}

static bool
fault_locked(size_t page, size_t n)
{
	bool marker = fake.kind == SYS_GUARD_MARKER;
	uint8_t to = (uint8_t)(SYS_RESERVED | (marker ? MARKER : PROTECTED));
	uint64_t runs = fake.guard_runs - runs_between(page, n, -1, guard_class)
	    + runs_between(page, n, to, guard_class);

	if (!marker && runs * VMAS_PER_GUARD > fake.stats.guard_vma_budget) {
		fake.refusals++;
		return false;
	}
	return change(page, n, to, false);
}

bool
sys_fault(void *p, size_t bytes)
{
	bool ok;

	enter();
	size_t page = range_in_state("sys_fault", p, bytes, SYS_READY, 0);
	ok = !call_fails(FAKE_SYS_FAULT) && fault_locked(page, bytes >> fake.page_shift);
	if (ok) {
		forget_later(page, bytes >> fake.page_shift);
		fake.stats.guards_installed++;
	} else {
		fake.stats.guards_skipped++;
	}
	leave();
	return ok;
}

bool
sys_unfault(void *p, size_t bytes)
{
	bool ok;

	enter();
	size_t page = range_page("sys_unfault", p, bytes), end = page + (bytes >> fake.page_shift);
	for (size_t i = page; i < end; i = page_runs_end(&fake.state, page_runs_find(&fake.state, i))) {
		uint8_t s = page_runs_get(&fake.state, i);
		if ((s & (MARKER | PROTECTED)) == 0)
			fake_abort("sys_unfault(%p, %#zx): page %zu is %s, must be guarded", p,
			    bytes, i - page, state_name(s));
	}
	ok = !call_fails(FAKE_SYS_UNFAULT)
	    && change(page, bytes >> fake.page_shift, SYS_PREPARED, false);
	leave();
	return ok;
}

void
sys_free(void *p, size_t bytes, enum sys_state from)
{
	enter();
	if (from == SYS_NONE)
		fake_abort("sys_free(%p, %#zx): from None", p, bytes);
	size_t page = range_in_state("sys_free", p, bytes, from, MARKER | PROTECTED);
	call_fails(FAKE_SYS_FREE);
	forget_later(page, bytes >> fake.page_shift);
	change(page, bytes >> fake.page_shift, SYS_NONE, true);
	leave();
}

static void
copy_run(char *p, size_t bytes, ptrdiff_t to)
{
	memcpy(p + to, p, bytes);
}

bool
sys_move(void *to, void *from, size_t bytes)
{
	bool ok;

	enter();
	size_t page_to = range_in_state("sys_move (to)", to, bytes, SYS_READY, 0);
	size_t page = range_in_state("sys_move (from)", from, bytes, SYS_READY, 0);
	uintptr_t a = (uintptr_t)to, b = (uintptr_t)from;

	if (a - b < bytes || b - a < bytes)
		fake_abort("sys_move(%p, %p, %#zx): the ranges overlap", to, from, bytes);
	ok = !call_fails(FAKE_SYS_MOVE);
	if (ok) {
		forget(page_to, bytes >> fake.page_shift);
		if (fake.config.real_faults || !each_written(from, bytes, copy_run, (char *)to - (char *)from))
			memcpy(to, from, bytes);
		forget(page, bytes >> fake.page_shift);
	}
	leave();
	return ok;
}

bool
sys_renew(void *p, size_t bytes)
{
	bool ok;

	enter();
	size_t page = range_in_state("sys_renew", p, bytes, SYS_READY, 0);
	ok = !call_fails(FAKE_SYS_RENEW);
	if (ok)
		forget(page, bytes >> fake.page_shift);
	leave();
	return ok;
}

void
sys_populate(void *p, size_t bytes)
{
	enter();
	range_in_state("sys_populate", p, bytes, SYS_READY, 0);
	call_fails(FAKE_SYS_POPULATE);
	leave();
}

void
sys_huge(void *p, size_t bytes)
{
	enter();
	range_in_state("sys_huge", p, bytes, SYS_PREPARED, 0);
	call_fails(FAKE_SYS_HUGE);
	leave();
}

bool
sys_wipe_on_fork(void *p, size_t bytes)
{
	(void)p;
	(void)bytes;
	return false;
}

void
sys_seal(void *p, size_t bytes)
{
	/* the options are static data of the library: not ours to seal */
	if ((uintptr_t)p - fake.base >= fake.window_bytes)
		return;
	enter();
	size_t page = range_in_state("sys_seal", p, bytes, SYS_READY, 0);
	call_fails(FAKE_SYS_SEAL);
	change(page, bytes >> fake.page_shift, SYS_READY | SEALED, true);
	leave();
}

/* The window is reused by the next reset. */
void
sys_keep(void *p, size_t bytes)
{
	(void)p;
	(void)bytes;
}

void
sys_read_stats(struct sys_stats *out)
{
	enter();
	*out = fake.stats;
	leave();
}

uint64_t
sys_now_ns(void)
{
	uint64_t now;

	enter();
	now = fake.config.now_ns;
	leave();
	return now;
}

void
sys_random(void *p, size_t bytes)
{
	unsigned char *at = p;

	enter();
	for (size_t i = 0; i < bytes; i += 8) {
		uint64_t v = random_next();

		memcpy(at + i, &v, bytes - i < 8 ? bytes - i : 8);
	}
	leave();
}

/* Weak: harnesses whose threads are fibers have their own. */
__attribute__((weak)) bool
sys_futex_wait(const uint32_t *word, uint32_t value)
{
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
	return false;
}

__attribute__((weak)) void
sys_after_fork_child(void)
{
}

__attribute__((weak)) bool
sys_is_only_thread(void)
{
	return false;
}

__attribute__((weak)) void
sys_futex_wake(const uint32_t *word, int count)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

__attribute__((weak)) int
sys_gettid(void)
{
	return (int)syscall(SYS_gettid);
}

__attribute__((weak)) void
sys_never_hold(int sig)
{
	(void)sig;
}

__attribute__((weak)) void
sys_hold_signals(void)
{
}

__attribute__((weak)) void
sys_release_signals(void)
{
}

__attribute__((weak)) bool
sys_holds_signals(void)
{
	return true;
}
