/* fake_sys.c - see fake_sys.h.
 *
 * state[page] is a byte: enum sys_state, and the flags below. Touched blocks of
 * 4 MiB are remembered, so that a reset clears no more than was used; dirty[page]
 * says that the page was Ready since it was zero. Memory that is there is cleared by
 * hand and stays: to give it back and fault it in again costs ten times as much.
 * Of a long run, only what the kernel says is there.
 *
 *   FAKE-1  mappings = number of i with class(i) != 0 and class(i) != class(i-1)
 *   FAKE-2  bytes[s] = page_bytes * number of pages in state s
 *
 * Lock: one mutex, taken by every entry. */
#define _GNU_SOURCE
#include "fake_sys.h"

#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
	STATE_MASK = 3,
	MARKER = 4,           /* guarded, no mapping of its own */
	PROTECTED = 8,        /* guarded, PROT_NONE */
	SEALED = 16,
	BLOCK_SHIFT = 22,
	VMAS_PER_GUARD = 2,
	DEFAULT_MAX_MAPPINGS = 65530,
	CLEAR_BY_HAND_BYTES = 1 << 14,      /* without asking the kernel */
	CLEAR_AT_ONCE_BYTES = 1 << 22,      /* looked up by one call */
	CLEAR_RESIDENT_BYTES = 1 << 21,     /* more is given back */
};

#define WINDOW_MAX ((size_t)64 << 30)
#define WINDOW_MIN ((size_t)1 << 30)
#define WINDOW_ALIGN ((size_t)4 << 30)

static struct {
	pthread_mutex_t lock;
	uintptr_t base;
	size_t window_bytes;
	uint8_t *state;               /* one per page of 4 KiB or more, room for 4 KiB */
	uint8_t *touched;             /* one per block */
	uint8_t *dirty;               /* one per page */
	struct fake_sys_config config;
	unsigned page_shift;
	size_t pages;                 /* in the window */
	size_t reserve_next, alloc_end;    /* page numbers */
	size_t script_next;
	enum sys_guard_kind kind;
	uint64_t mappings, guard_runs;
	uint64_t calls[32];
	uint64_t fail_seen;
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

static uint8_t
state_at(size_t page)
{
	return page < fake.pages ? fake.state[page] : 0;
}

/* The first page behind `page` and before `end` in another state, or end. */
static size_t
run_end(size_t page, size_t end)
{
	uint64_t same = fake.state[page] * (uint64_t)0x0101010101010101u, here;
	size_t i = page;

	for (; i + 8 <= end; i += 8) {
		memcpy(&here, &fake.state[i], 8);
		if (here != same)
			break;
	}
	while (i < end && fake.state[i] == (uint8_t)same)
		i++;
	return i;
}

/* Runs that begin in [page, page + n], the page behind included, if [page,
 * page + n) had the state `as` (negative: what it has now). */
static uint64_t
runs_between(size_t page, size_t n, int as, unsigned (*class_of)(uint8_t))
{
	unsigned before = page > 0 ? class_of(fake.state[page - 1]) : 0;
	uint64_t runs = 0;

	for (size_t i = page; i <= page + n; i++) {
		uint8_t s = as >= 0 && i < page + n ? (uint8_t)as : state_at(i);
		unsigned c = class_of(s);

		runs += c != 0 && c != before;
		before = c;
		if (as >= 0 && i < page + n)
			i = page + n - 1;
		else if (i < page + n)
			i = run_end(i, page + n) - 1;
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

/* Sets n pages to one state; false, with nothing done, if the simulated kernel
 * has no mapping left for it. `forced`: the call cannot fail. */
static bool
change(size_t page, size_t n, uint8_t to, bool forced)
{
	size_t bytes = (size_t)1 << fake.page_shift;
	uint64_t mappings = fake.mappings - runs_between(page, n, -1, vma_class)
	    + runs_between(page, n, to, vma_class);

	if (!forced && fake.config.max_map_count != 0 && mappings > fake.config.max_map_count
	    && mappings > fake.mappings)
		return false;
	fake.mappings = mappings;
	fake.guard_runs += runs_between(page, n, to, guard_class)
	    - runs_between(page, n, -1, guard_class);
	for (size_t i = page, end; i < page + n; i = end) {
		uint8_t old = fake.state[i];

		end = run_end(i, page + n);
		fake.stats.bytes[old & STATE_MASK] -= (end - i) * bytes;
		fake.stats.guard_bytes -= old & (MARKER | PROTECTED) ? (end - i) * bytes : 0;
	}
	memset(&fake.state[page], to, n);
	if ((to & STATE_MASK) == SYS_READY)
		memset(&fake.dirty[page], 1, n);
	fake.stats.bytes[to & STATE_MASK] += n * bytes;
	fake.stats.guard_bytes += to & (MARKER | PROTECTED) ? n * bytes : 0;
	fake.stats.bytes[SYS_NONE] = 0;
	for (size_t b = page << fake.page_shift >> BLOCK_SHIFT;
	    b <= (((page + n) << fake.page_shift) - 1) >> BLOCK_SHIFT; b++)
		fake.touched[b] = 1;
	if (fake.config.real_faults)
		protect(page, n, to);
	return true;
}

/* Of most pages only some are touched by an input: to look costs a third of a store. */
static void
clear(char *p, size_t bytes)
{
	static const char zeroes[1 << 12];

	for (size_t i = 0; i < bytes; i += sizeof(zeroes))
		if (memcmp(p + i, zeroes, sizeof(zeroes)) != 0)
			memset(p + i, 0, sizeof(zeroes));
}

/* Clears what is resident of [p, p + bytes); false: too much is, or who knows. */
static bool
clear_resident(char *p, size_t bytes)
{
	static unsigned char there[CLEAR_AT_ONCE_BYTES >> 12];
	size_t n = bytes >> 12, resident = 0;

	if (n > sizeof(there) || mincore(p, bytes, there) != 0)
		return false;
	for (size_t i = 0; i < n; i++)
		resident += there[i] & 1;
	if (resident > CLEAR_RESIDENT_BYTES >> 12)
		return false;
	for (size_t i = 0; i < n; i++)
		if ((there[i] & 1) != 0)
			clear(p + (i << 12), (size_t)1 << 12);
	return true;
}

static void
forget(size_t page, size_t n)
{
	size_t bytes = n << fake.page_shift;

	if (!fake.config.real_faults && bytes <= CLEAR_BY_HAND_BYTES)
		clear(page_addr(page), bytes);
	else if (fake.config.real_faults || !clear_resident(page_addr(page), bytes))
		madvise(page_addr(page), bytes, MADV_DONTNEED);
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
	size_t page = range_page(call, p, bytes);

	size_t end = page + (bytes >> fake.page_shift);

	for (size_t i = page; i < end; i = run_end(i, end)) {
		if ((fake.state[i] & ~guards) != (uint8_t)want)
			fake_abort("%s(%p, %#zx): page %zu is %s, must be %s", call, p, bytes,
			    i - page, state_name(fake.state[i]), state_name((uint8_t)want));
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
	return fake.fail_seen == fake.config.fail_nth || fake.config.fail_onwards;
}

/* ---- window, reset ---- */

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
	fake.state = mmap(NULL, fake.window_bytes >> 12, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	fake.touched = mmap(NULL, fake.window_bytes >> BLOCK_SHIFT, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	fake.dirty = mmap(NULL, fake.window_bytes >> 12, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (fake.state == MAP_FAILED || fake.touched == MAP_FAILED || fake.dirty == MAP_FAILED)
		fake_abort("no memory for the state of the window");
}

/* Of the reset: real memory of the blocks [from, to) as it was at the start. */
static void
blocks_clear(size_t from, size_t to)
{
	size_t page = from << BLOCK_SHIFT >> fake.page_shift;
	size_t n = (to - from) << BLOCK_SHIFT >> fake.page_shift;

	memset(&fake.state[page], 0, n);
	memset(&fake.touched[from], 0, to - from);
	for (const uint8_t *hit; (hit = memchr(&fake.dirty[page], 1, n)) != NULL; ) {
		size_t run = (size_t)(hit - fake.dirty), i = run;

		while (i < page + n && fake.dirty[i])
			fake.dirty[i++] = 0;
		forget(run, i - run);
		n -= i - page;
		page = i;
	}
}

static void
window_clear(void)
{
	size_t blocks = fake.window_bytes >> BLOCK_SHIFT;
	size_t i = 0;

	while (i < blocks) {
		const uint8_t *hit = memchr(&fake.touched[i], 1, blocks - i);
		size_t from = hit != NULL ? (size_t)(hit - fake.touched) : blocks;

		for (i = from; i < blocks && fake.touched[i]; i++)
			continue;
		if (from < i)
			blocks_clear(from, i);
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
	fake.reserve_next = 0;
	fake.alloc_end = fake.pages;
	fake.script_next = 0;
	fake.mappings = fake.guard_runs = 0;
	memset(fake.calls, 0, sizeof(fake.calls));
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
	fn(fake.state, fake.window_bytes >> 12);
	fn(fake.touched, fake.window_bytes >> BLOCK_SHIFT);
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
		s = fake.state[(at - fake.base) >> fake.page_shift];
	leave();
	return s;
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
	size_t end = page + n, from = page;

	for (size_t i = page; i < end; i = run_end(i, end))
		if (fake.state[i] != 0)
			from = run_end(i, end);
	return from;
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
	forget(page, bytes >> fake.page_shift);
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

	if (!marker && runs * VMAS_PER_GUARD > fake.stats.guard_vma_budget)
		return false;
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
		forget(page, bytes >> fake.page_shift);
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
	size_t page = range_page("sys_unfault", p, bytes);
	for (size_t i = page; i < page + (bytes >> fake.page_shift); i++) {
		if ((fake.state[i] & (MARKER | PROTECTED)) == 0)
			fake_abort("sys_unfault(%p, %#zx): page %zu is %s, must be guarded", p,
			    bytes, i - page, state_name(fake.state[i]));
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
	forget(page, bytes >> fake.page_shift);
	change(page, bytes >> fake.page_shift, SYS_NONE, true);
	leave();
}

bool
sys_move(void *to, void *from, size_t bytes)
{
	bool ok;

	enter();
	range_in_state("sys_move (to)", to, bytes, SYS_READY, 0);
	size_t page = range_in_state("sys_move (from)", from, bytes, SYS_READY, 0);
	uintptr_t a = (uintptr_t)to, b = (uintptr_t)from;

	if (a - b < bytes || b - a < bytes)
		fake_abort("sys_move(%p, %p, %#zx): the ranges overlap", to, from, bytes);
	ok = !call_fails(FAKE_SYS_MOVE);
	if (ok) {
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
__attribute__((weak)) void
sys_futex_wait(const uint32_t *word, uint32_t value)
{
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
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
