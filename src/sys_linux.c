/* sys_linux.c - sys.h on Linux: the only file that makes memory system calls.
 *
 * All calls are made by sys_call6, a few lines of assembly: no errno, no libc,
 * so they work before libc is up, in signal handlers and after thread exit.
 *
 *   Reserved   PROT_NONE: not charged before sys_map
 *   Prepared   read-write; Ready is the same mapping, counted differently
 *   guard      Reserved again: a marker in the page table, or PROT_NONE
 *
 * sys_map turns a reservation on with mprotect and not with a mapping over it:
 * the pieces merge to one mapping in the same way, and a refusal leaves the
 * reservation where it was (a refused MAP_FIXED can leave a hole behind).
 *
 * Guard map: which OS pages are under a guard, in a three-level table
 * (11 + 11 bits, then a leaf for 64 MiB with two bits per page):
 *
 *   guard_map[addr >> 37] -> guard_dir.leaf[addr >> 26 & 2047] -> word[] { guard, first }
 *
 * With markers a guard costs no mapping. In the fallback it splits one, which
 * costs two, so a fixed budget of mappings is spent: a sys_fault pays for the
 * first page of its range (bit `first`), taking the bit away pays back.
 * A marker that the kernel refuses (mlocked memory before Linux 6.15) is
 * skipped and counted like a guard outside the budget.
 *
 *   SYS-1  bytes[s] = bytes of all ranges in state s
 *   SYS-2  guard_bytes = page_bytes * popcount(all guard words) <= bytes[Reserved]
 *   SYS-3  vma_used = 2 * popcount(all first words) <= vma_budget, but for
 *          guards cut in two by sys_unfault, which cannot be refused for it
 *   SYS-4  page_bytes = 1 << page_shift: a walk over the guard words goes on
 * A guard that adjoins another makes that one's mapping longer and pays nothing.
 *
 * Locks: none, so a child may be forked at any time; two threads never change
 * the state of one page at the same time. Fields of `os` without an atomic
 * type are written by sys_init alone, before there is a second thread.
 * Cost: one system call per transition (none for sys_used), two for sys_fault
 * in the fallback and for sys_move, plus one to name a new mapping. */
#include "sys.h"
#include "atomic.h"
#include "die.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

/* Kernel constants younger than the oldest headers we build with. */
enum {
	MAP_KEEP = 0x100000,          /* MAP_FIXED_NOREPLACE, 4.17 */
	MOVE_MAY = 1, MOVE_FIXED = 2, /* MREMAP_MAYMOVE, _FIXED */
	MOVE_KEEP_SOURCE = 4,         /* MREMAP_DONTUNMAP, 5.7 */
	ADV_DROP = 4,                 /* MADV_DONTNEED, by the kernel's number */
	ADV_HUGEPAGE = 14,
	ADV_WIPEONFORK = 18,
	ADV_POPULATE_WRITE = 23,      /* 5.14 */
	ADV_DROP_LOCKED = 24,         /* MADV_DONTNEED_LOCKED, 5.18 */
	ADV_GUARD_INSTALL = 102,      /* 6.13 */
	ADV_GUARD_REMOVE = 103,
	SYSCALL_MSEAL = 462,          /* 6.10 */
	RANDOM_NONBLOCK = 1, RANDOM_INSECURE = 4,
	FUTEX_WAIT_OURS = 128, FUTEX_WAKE_OURS = 129, /* FUTEX_PRIVATE_FLAG is 128 */
	FUTEX_WAIT_S = 4,             /* before anybody asks whether it is in vain */
	ERR_INTR = -4, ERR_AGAIN = -11, ERR_FAULT = -14, ERR_TIMEDOUT = -110,
};

enum {
	MAP_OURS = MAP_PRIVATE | MAP_ANONYMOUS,
	PROT_RW = PROT_READ | PROT_WRITE,
	DEFAULT_MAX_MAPPINGS = 65530, /* vm.max_map_count as the kernel ships it */
	VMAS_PER_GUARD = 2,
	GUARD_DIR_SHIFT = ARENA_SHIFT + 11,
	GUARD_DIR_LEN = 1 << 11,
	GUARD_LEAF_WORDS = 1 << (ARENA_SHIFT - 12 - 6),
	GUARD_POOL_BYTES = 1 << 20,
};

struct guard_word {
	atomic_u64 guard;    /* this page is under a guard */
	atomic_u64 first;    /* this page paid for its guard out of the budget */
};

struct guard_leaf {
	struct guard_word word[GUARD_LEAF_WORDS];
};

struct guard_dir {
	atomic_ptr leaf[GUARD_DIR_LEN];
};

/* Where directories and leaves come from; stands at the start of its memory. */
struct guard_pool {
	atomic_u64 used_bytes;
};

static struct {
	size_t page_bytes;
	unsigned page_shift;
	bool markers;                 /* the kernel has them, and they work */
	bool initialised;
	bool mixed;                   /* there may be guards of both kinds */
	enum sys_guard_kind asked, kind;
	unsigned vma_share_percent;
	uint64_t vma_budget;
	long pid;                     /* of the process whose memory this is; 0: not known */
	atomic_u64 bytes[SYS_STATES];
	atomic_u64 guard_bytes;
	atomic_u64 guards_installed, guards_skipped;
	atomic_u64 vma_used;
	atomic_u64 calls;
	atomic_ptr pool;              /* struct guard_pool */
	atomic_ptr guard_map[(size_t)1 << (ADDR_BITS - GUARD_DIR_SHIFT)];
} os;

/* ---- system calls ---- */

#if defined(__x86_64__)
static inline long
sys_call6(long nr, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long ret;

	__asm__ volatile("syscall" : "=a"(ret)
	    : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
	    : "rcx", "r11", "memory");
	return ret;
}
#elif defined(__aarch64__)
static inline long
sys_call6(long nr, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = nr;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;

	__asm__ volatile("svc 0" : "+r"(x0)
	    : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
}
#else
#error "spanguard makes its own system calls and knows x86-64 and arm64 only"
#endif

static inline bool
is_error(long ret)
{
	return (unsigned long)ret >= -4095UL;
}

/* A system call about memory: the ones that `calls` counts. */
static long
mem_call(long nr, uintptr_t p, size_t bytes, long c, long d, long e)
{
	a64_fetch_add(&os.calls, 1);
	return sys_call6(nr, (long)p, (long)bytes, c, d, e, 0);
}

static long
os_mmap(uintptr_t p, size_t bytes, int prot, int flags)
{
	return mem_call(SYS_mmap, p, bytes, prot, flags, -1);
}

static bool
os_munmap(uintptr_t p, size_t bytes)
{
	return !is_error(mem_call(SYS_munmap, p, bytes, 0, 0, 0));
}

static bool
os_mprotect(uintptr_t p, size_t bytes, int prot)
{
	return !is_error(mem_call(SYS_mprotect, p, bytes, prot, 0, 0));
}

/* The guard advices may ask to be called again when a fault got in between. */
static bool
os_madvise(uintptr_t p, size_t bytes, int advice)
{
	long ret = ERR_AGAIN;

	for (int i = 0; i < 16 && (ret == ERR_AGAIN || ret == ERR_INTR); i++)
		ret = mem_call(SYS_madvise, p, bytes, advice, 0, 0);
	return !is_error(ret);
}

static void
account(enum sys_state from, enum sys_state to, size_t bytes)
{
	if (from != SYS_NONE)
		a64_fetch_sub(&os.bytes[from], bytes);
	if (to != SYS_NONE)
		a64_fetch_add(&os.bytes[to], bytes);
}

/* ---- guard map ---- */

static struct guard_pool *
guard_pool_new(void)
{
	size_t edge = os.page_bytes;
	char *p = sys_reserve(0, GUARD_POOL_BYTES + 2 * edge, edge, false);
	struct guard_pool *pool;

	if (p == NULL)
		return NULL;
	if (!sys_map(p + edge, GUARD_POOL_BYTES)) {
		sys_free(p, GUARD_POOL_BYTES + 2 * edge, SYS_RESERVED);
		return NULL;
	}
	sys_used(p + edge, GUARD_POOL_BYTES);
	pool = (struct guard_pool *)(void *)(p + edge);
	a64_store_relaxed(&pool->used_bytes, CACHE_LINE);
	return pool;
}

static void
guard_pool_delete(struct guard_pool *pool)
{
	size_t edge = os.page_bytes;

	sys_free((char *)pool - edge, edge, SYS_RESERVED);
	sys_free(pool, GUARD_POOL_BYTES, SYS_READY);
	sys_free((char *)pool + GUARD_POOL_BYTES, edge, SYS_RESERVED);
}

/* Zeroed memory for the map, or NULL. Whoever finds the pool empty brings a
 * new one; of two who do so at once, one takes its own back. */
static void *
guard_pool_alloc(size_t bytes)
{
	for (;;) {
		void *pool = aptr_load_acquire(&os.pool);
		struct guard_pool *fresh;

		if (pool != NULL) {
			struct guard_pool *pl = pool;
			uint64_t at = a64_fetch_add(&pl->used_bytes, bytes);

			if (at + bytes <= GUARD_POOL_BYTES)
				return (char *)pool + at;
		}
		fresh = guard_pool_new();
		if (fresh == NULL)
			return NULL;
		if (!aptr_cas(&os.pool, &pool, fresh))
			guard_pool_delete(fresh);
	}
}

/* What *slot points to; with `create`, made if it is not there (then NULL
 * means: no memory). */
static void *
guard_node(atomic_ptr *slot, size_t bytes, bool create)
{
	void *node = aptr_load_acquire(slot);
	void *fresh;

	if (node != NULL || !create)
		return node;
	fresh = guard_pool_alloc(bytes);
	if (fresh == NULL)
		return NULL;
	return aptr_cas(slot, &node, fresh) ? fresh : node;
}

static struct guard_leaf *
guard_leaf(uintptr_t addr, bool create)
{
	struct guard_dir *dir;

	if (addr >= ADDR_LIMIT)
		return NULL;
	dir = guard_node(&os.guard_map[addr >> GUARD_DIR_SHIFT], sizeof(*dir), create);
	if (dir == NULL)
		return NULL;
	return guard_node(&dir->leaf[(addr >> ARENA_SHIFT) & (GUARD_DIR_LEN - 1)],
	    sizeof(struct guard_leaf), create);
}

/* The part of [at, end) that lies in one word of the map. */
struct guard_part {
	struct guard_word *word;    /* NULL: no guards up to next */
	uint64_t mask;
	uintptr_t next;
};

static struct guard_part
guard_part(uintptr_t at, uintptr_t end)
{
	struct guard_leaf *leaf = guard_leaf(at, false);
	uintptr_t leaf_end = align_down(at, ARENA_SIZE) + ARENA_SIZE;
	struct guard_part part = { NULL, 0, leaf_end < end ? leaf_end : end };
	size_t page = (at & (ARENA_SIZE - 1)) >> os.page_shift;
	unsigned bit = page & 63;
	size_t pages;

	if (leaf == NULL)
		return part;
	pages = (part.next - at) >> os.page_shift;
	if (unlikely(pages == 0))
		die_corruption("SYS-4", &os);     /* no step at all would go on for ever */
	if (pages > 64 - bit)
		pages = 64 - bit;
	part.word = &leaf->word[page >> 6];
	part.mask = (~(uint64_t)0 >> (64 - pages)) << bit;
	part.next = at + (pages << os.page_shift);
	return part;
}

/* Makes sure that guard_set will find its leaves. */
static bool
guard_prepare(uintptr_t p, size_t bytes)
{
	if (p >= ADDR_LIMIT || bytes > ADDR_LIMIT - p)
		return false;
	for (uintptr_t at = align_down(p, ARENA_SIZE); at < p + bytes; at += ARENA_SIZE) {
		if (guard_leaf(at, true) == NULL)
			return false;
	}
	return true;
}

static void
guard_set(uintptr_t p, size_t bytes)
{
	struct guard_part part;
	uint64_t pages = 0;

	for (uintptr_t at = p; at < p + bytes; at = part.next) {
		part = guard_part(at, p + bytes);
		pages += popcount64(part.mask & ~a64_fetch_or(&part.word->guard, part.mask));
	}
	a64_fetch_add(&os.guard_bytes, pages << os.page_shift);
	a64_fetch_add(&os.guards_installed, 1);
}

static bool
guard_any(uintptr_t p, size_t bytes)
{
	struct guard_part part;

	for (uintptr_t at = p; at < p + bytes; at = part.next) {
		part = guard_part(at, p + bytes);
		if (part.word != NULL && (a64_load_relaxed(&part.word->guard) & part.mask) != 0)
			return true;
	}
	return false;
}

/* Lets the page at p pay for its guard; false if the budget is spent. */
static bool
guard_charge(uintptr_t p, bool forced)
{
	struct guard_part part = guard_part(p, p + os.page_bytes);
	uint64_t before = a64_fetch_add(&os.vma_used, VMAS_PER_GUARD);

	if (!forced && before + VMAS_PER_GUARD > os.vma_budget) {
		a64_fetch_sub(&os.vma_used, VMAS_PER_GUARD);
		return false;
	}
	if ((a64_fetch_or(&part.word->first, part.mask) & part.mask) != 0)
		a64_fetch_sub(&os.vma_used, VMAS_PER_GUARD);
	return true;
}

static void
guard_clear(uintptr_t p, size_t bytes)
{
	uintptr_t end = p + bytes;
	uint64_t pages = 0, paid = 0;
	struct guard_part part;

	for (uintptr_t at = p; at < end; at = part.next) {
		part = guard_part(at, end);
		if (part.word == NULL)
			continue;
		pages += popcount64(part.mask & a64_fetch_and(&part.word->guard, ~part.mask));
		paid += popcount64(part.mask & a64_fetch_and(&part.word->first, ~part.mask));
	}
	a64_fetch_sub(&os.guard_bytes, pages << os.page_shift);
	a64_fetch_sub(&os.vma_used, paid * VMAS_PER_GUARD);
	/* The rear part of a guard cut in two is a mapping of its own now. */
	if (pages != 0 && os.kind == SYS_GUARD_MPROTECT && guard_any(end, os.page_bytes))
		guard_charge(end, true);
}

/* ---- set-up ---- */

/* Reads a small file in /proc; the number of bytes, 0 if that is not allowed. */
static size_t
read_file(const char *path, char *buf, size_t bytes, uint64_t *lines)
{
	long fd = sys_call6(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC, 0, 0, 0);
	size_t total = 0;
	long n;

	if (is_error(fd))
		return 0;
	while ((n = sys_call6(SYS_read, fd, (long)buf, (long)bytes, 0, 0, 0)) > 0 || n == ERR_INTR) {
		for (long i = 0; i < n; i++)
			*lines += buf[i] == '\n';
		total += n > 0 ? (size_t)n : 0;
	}
	sys_call6(SYS_close, fd, 0, 0, 0, 0, 0);
	return total;
}

static uint64_t
max_mappings(void)
{
	char buf[32];
	uint64_t lines = 0, max = 0;
	size_t n = read_file("/proc/sys/vm/max_map_count", buf, sizeof(buf), &lines);

	for (size_t i = 0; i < n && i < sizeof(buf) && buf[i] >= '0' && buf[i] <= '9'; i++)
		max = max * 10 + (uint64_t)(buf[i] - '0');
	return max != 0 ? max : DEFAULT_MAX_MAPPINGS;
}

static uint64_t
fallback_budget(unsigned share_percent)
{
	char buf[2048];
	uint64_t mappings = 0, own = a64_load_relaxed(&os.vma_used);
	uint64_t share = max_mappings() * (share_percent > 100 ? 100 : share_percent) / 100;

	read_file("/proc/self/maps", buf, sizeof(buf), &mappings);
	mappings -= own < mappings ? own : mappings;
	return share > mappings ? share - mappings : 0;
}

/* Emulators are known to answer "done" to an advice they do not know, so the
 * marker is seen at work: the kernel must fail to write to the page. */
static bool
probe_markers(void)
{
	long p = os_mmap(0, os.page_bytes, PROT_RW, MAP_OURS);
	uintptr_t page = (uintptr_t)p;
	bool works;

	if (is_error(p))
		return false;
	works = os_madvise(page, os.page_bytes, ADV_GUARD_INSTALL)
	    && sys_call6(SYS_clock_gettime, CLOCK_MONOTONIC, p, 0, 0, 0, 0) == ERR_FAULT
	    && os_madvise(page, os.page_bytes, ADV_GUARD_REMOVE)
	    && sys_call6(SYS_clock_gettime, CLOCK_MONOTONIC, p, 0, 0, 0, 0) == 0;
	os_munmap(page, os.page_bytes);
	return works;
}

/* A second call with other arguments decides again; guards there are stay, and
 * are taken off in whichever way they were put. */
void
sys_init(enum sys_guard_kind guards, unsigned vma_share_percent)
{
	enum sys_guard_kind kind;

	if (os.initialised && guards == os.asked && vma_share_percent == os.vma_share_percent)
		return;
	if (os.page_bytes == 0) {
		size_t page = (size_t)getauxval(AT_PAGESZ);

		os.page_bytes = is_pow2(page) && page >= 4096 ? page : 4096;
		os.page_shift = ctz64(os.page_bytes);
		os.pid = sys_call6(SYS_getpid, 0, 0, 0, 0, 0, 0);
		os.markers = probe_markers();
	}
	kind = guards != SYS_GUARD_MPROTECT && os.markers ? SYS_GUARD_MARKER : SYS_GUARD_MPROTECT;
	if (os.initialised && kind != os.kind && a64_load_relaxed(&os.guard_bytes) != 0)
		os.mixed = true;
	os.asked = guards;
	os.vma_share_percent = vma_share_percent;
	os.kind = kind;
	os.vma_budget = kind == SYS_GUARD_MPROTECT ? fallback_budget(vma_share_percent) : 0;
	os.initialised = true;
}

size_t
sys_page_bytes(void)
{
	return os.page_bytes;
}

enum sys_guard_kind
sys_guard_in_use(void)
{
	return os.kind;
}

/* ---- None <-> Reserved, Ready ---- */

static uintptr_t
reserve_at(uintptr_t at, size_t bytes)
{
	long p = os_mmap(at, bytes, PROT_NONE, MAP_OURS | MAP_KEEP);

	if (is_error(p))
		return 0;
	if ((uintptr_t)p == at)
		return at;
	/* A kernel without MAP_FIXED_NOREPLACE takes the address for a hint. */
	os_munmap((uintptr_t)p, bytes);
	return 0;
}

static uintptr_t
reserve_anywhere(size_t bytes, size_t align)
{
	long p = os_mmap(0, bytes, PROT_NONE, MAP_OURS);
	uintptr_t at, aligned;
	size_t slack = align - os.page_bytes;

	if (is_error(p))
		return 0;
	if (((uintptr_t)p & (align - 1)) == 0)
		return (uintptr_t)p;
	os_munmap((uintptr_t)p, bytes);
	if (bytes > SIZE_MAX - slack)
		return 0;
	p = os_mmap(0, bytes + slack, PROT_NONE, MAP_OURS);
	if (is_error(p))
		return 0;
	at = (uintptr_t)p;
	aligned = align_up(at, align);
	if (aligned > at)
		os_munmap(at, aligned - at);
	if (at + slack > aligned)
		os_munmap(aligned + bytes, at + slack - aligned);
	return aligned;
}

void *
sys_reserve(uintptr_t hint, size_t bytes, size_t align, bool exact)
{
	uintptr_t p = 0;

	if (align < os.page_bytes)
		align = os.page_bytes;
	if (!exact)
		hint = hint > UINTPTR_MAX - align ? 0 : align_up(hint, align);
	if (hint != 0 && (hint & (align - 1)) == 0)
		p = reserve_at(hint, bytes);
	if (p == 0 && !exact)
		p = reserve_anywhere(bytes, align);
	if (p == 0)
		return NULL;
	account(SYS_NONE, SYS_RESERVED, bytes);
	return (void *)p;
}

void *
sys_alloc(size_t bytes)
{
	long p = os_mmap(0, bytes, PROT_RW, MAP_OURS);

	if (is_error(p))
		return NULL;
	account(SYS_NONE, SYS_READY, bytes);
	return (void *)p;
}

void
sys_free(void *p, size_t bytes, enum sys_state from)
{
	uintptr_t at = (uintptr_t)p;

	guard_clear(at, bytes);
	/* munmap out of the middle of a mapping can hit max_map_count: then the
	 * address space is lost, the memory is not. */
	if (!os_munmap(at, bytes))
		os_madvise(at, bytes, ADV_DROP);
	account(from, SYS_NONE, bytes);
}

/* ---- Reserved -> Prepared -> Ready -> Prepared ---- */

/* Takes guards off, of the kind in use or of either. */
static bool
remove_guard(uintptr_t p, size_t bytes)
{
	bool ok = true;

	if (os.kind == SYS_GUARD_MARKER || os.mixed)
		ok = os_madvise(p, bytes, ADV_GUARD_REMOVE);
	if (os.kind == SYS_GUARD_MPROTECT || os.mixed)
		ok = os_mprotect(p, bytes, PROT_RW) && ok;
	return ok;
}

bool
sys_map(void *p, size_t bytes)
{
	uintptr_t at = (uintptr_t)p;

	if (!os_mprotect(at, bytes, PROT_RW))
		return false;
	if (a64_load_relaxed(&os.guard_bytes) != 0 && guard_any(at, bytes)) {
		if (!remove_guard(at, bytes))
			return false;
		guard_clear(at, bytes);
	}
	account(SYS_RESERVED, SYS_PREPARED, bytes);
	return true;
}

bool
sys_used(void *p, size_t bytes)
{
	(void)p;
	account(SYS_PREPARED, SYS_READY, bytes);
	return true;
}

static bool
map_fresh(uintptr_t p, size_t bytes)
{
	if (is_error(os_mmap(p, bytes, PROT_RW, MAP_OURS | MAP_FIXED)))
		return false;
	return true;
}

/* The range reads as zero afterwards, whatever the kernel says: under mlockall
 * plain MADV_DONTNEED is refused. */
void
sys_unused(void *p, size_t bytes)
{
	uintptr_t at = (uintptr_t)p;

	if (!os_madvise(at, bytes, ADV_DROP) && !os_madvise(at, bytes, ADV_DROP_LOCKED)
	    && !map_fresh(at, bytes))
		memset(p, 0, bytes);
	account(SYS_READY, SYS_PREPARED, bytes);
}

/* ---- guards ---- */

static bool
install_marker(uintptr_t p, size_t bytes)
{
	if (os_madvise(p, bytes, ADV_GUARD_INSTALL))
		return true;
	/* Out of page tables half-way: the range must stay usable. */
	os_madvise(p, bytes, ADV_GUARD_REMOVE);
	return false;
}

static bool
adjoins_guard(uintptr_t p, size_t bytes)
{
	return guard_any(p - os.page_bytes, os.page_bytes) || guard_any(p + bytes, os.page_bytes);
}

static bool
install_mprotect(uintptr_t p, size_t bytes)
{
	struct guard_part part = guard_part(p, p + os.page_bytes);

	if (!adjoins_guard(p, bytes) && !guard_charge(p, false))
		return false;
	if (os_mprotect(p, bytes, PROT_NONE)) {
		os_madvise(p, bytes, ADV_DROP);
		return true;
	}
	os_mprotect(p, bytes, PROT_RW);
	if ((a64_fetch_and(&part.word->first, ~part.mask) & part.mask) != 0)
		a64_fetch_sub(&os.vma_used, VMAS_PER_GUARD);
	return false;
}

bool
sys_fault(void *p, size_t bytes)
{
	uintptr_t at = (uintptr_t)p;
	bool ok = guard_prepare(at, bytes);

	if (ok && os.kind == SYS_GUARD_MARKER)
		ok = install_marker(at, bytes);
	else if (ok)
		ok = install_mprotect(at, bytes);
	if (!ok) {
		a64_fetch_add(&os.guards_skipped, 1);
		return false;
	}
	guard_set(at, bytes);
	account(SYS_READY, SYS_RESERVED, bytes);
	return true;
}

bool
sys_unfault(void *p, size_t bytes)
{
	uintptr_t at = (uintptr_t)p;

	if (!remove_guard(at, bytes))
		return false;
	guard_clear(at, bytes);
	account(SYS_RESERVED, SYS_PREPARED, bytes);
	return true;
}

/* ---- Ready to Ready ---- */

static long
os_mremap(uintptr_t from, size_t bytes, long flags, uintptr_t to)
{
	return mem_call(SYS_mremap, from, bytes, (long)bytes, flags, (long)to);
}

/* In two steps, because a mremap onto `to` unmaps `to` before it looks whether
 * `from` can be moved at all (it must be one mapping): the first step goes to a
 * place of the kernel's choice and finds that out without harm. */
bool
sys_move(void *to, void *from, size_t bytes)
{
	long half = os_mremap((uintptr_t)from, bytes, MOVE_MAY | MOVE_KEEP_SOURCE, 0);

	if (is_error(half))
		return false;
	if (!is_error(os_mremap((uintptr_t)half, bytes, MOVE_MAY | MOVE_FIXED, (uintptr_t)to)))
		return true;
	memcpy(from, (void *)half, bytes);
	os_munmap((uintptr_t)half, bytes);
	os_mmap((uintptr_t)to, bytes, PROT_RW, MAP_OURS | MAP_KEEP);
	return false;
}

/* Moved pages keep the page offsets of where they came from, which is what
 * keeps their mapping from merging with its neighbours. */
bool
sys_renew(void *p, size_t bytes)
{
	return map_fresh((uintptr_t)p, bytes);
}

void
sys_populate(void *p, size_t bytes)
{
	os_madvise((uintptr_t)p, bytes, ADV_POPULATE_WRITE);
}

void
sys_huge(void *p, size_t bytes)
{
	os_madvise((uintptr_t)p, bytes, ADV_HUGEPAGE);
}

bool
sys_wipe_on_fork(void *p, size_t bytes)
{
	return os_madvise((uintptr_t)p, bytes, ADV_WIPEONFORK);
}

void
sys_seal(void *p, size_t bytes)
{
	if (os_mprotect((uintptr_t)p, bytes, PROT_READ))
		mem_call(SYSCALL_MSEAL, (uintptr_t)p, bytes, 0, 0, 0);
}

void
sys_keep(void *p, size_t bytes)
{
	mem_call(SYSCALL_MSEAL, (uintptr_t)p, bytes, 0, 0, 0);
}

void
sys_read_stats(struct sys_stats *out)
{
	for (size_t s = 0; s < SYS_STATES; s++)
		out->bytes[s] = a64_load_relaxed(&os.bytes[s]);
	out->guard_bytes = a64_load_relaxed(&os.guard_bytes);
	out->guards_installed = a64_load_relaxed(&os.guards_installed);
	out->guards_skipped = a64_load_relaxed(&os.guards_skipped);
	out->guard_vma_budget = os.vma_budget;
	out->calls = a64_load_relaxed(&os.calls);
}

/* ---- clock, random bytes, futex ---- */

uint64_t
sys_now_ns(void)
{
	struct timespec t = { 0, 0 };

	clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Finaliser of MurmurHash3: every bit of x on every bit of the result. */
static uint64_t
mix64(uint64_t x)
{
	x = (x ^ (x >> 33)) * 0xff51afd7ed558ccdu;
	x = (x ^ (x >> 33)) * 0xc4ceb9fe1a85ec53u;
	return x ^ (x >> 33);
}

/* Weak, but different in every process, thread and call. */
static void
random_without_kernel(unsigned char *p, size_t bytes)
{
	static atomic_u64 round;
	const unsigned char *seed = (const unsigned char *)getauxval(AT_RANDOM);
	uint64_t key[2] = { 0, 0 }, state;
	struct timespec t = { 0, 0 };

	if (seed != NULL)
		memcpy(key, seed, sizeof(key));
	clock_gettime(CLOCK_MONOTONIC, &t);
	state = mix64(key[0] ^ (uintptr_t)&t) ^ mix64((uint64_t)t.tv_nsec * 0x9e3779b97f4a7c15u);
	state ^= mix64((uint64_t)t.tv_sec + a64_fetch_add(&round, 1) * 0x9e3779b97f4a7c15u);
	for (size_t i = 0; i < bytes; i++) {
		if (i % 8 == 0)
			state = mix64(state + key[1] + 0x9e3779b97f4a7c15u);
		p[i] = (unsigned char)(state >> (i % 8 * 8));
	}
}

void
sys_random(void *p, size_t bytes)
{
	unsigned char *at = p;
	long flags = RANDOM_NONBLOCK;

	while (bytes > 0) {
		long n = sys_call6(SYS_getrandom, (long)at, (long)bytes, flags, 0, 0, 0);

		if (n > 0) {
			at += n;
			bytes -= (size_t)n;
		} else if (n == ERR_AGAIN && flags == RANDOM_NONBLOCK) {
			/* Early boot: do not wait for the pool to fill. */
			flags = RANDOM_INSECURE;
		} else if (n != ERR_INTR) {
			random_without_kernel(at, bytes);
			return;
		}
	}
}

bool
sys_futex_wait(const uint32_t *word, uint32_t value)
{
	static const struct timespec limit = { FUTEX_WAIT_S, 0 };
	return sys_call6(SYS_futex, (long)word, FUTEX_WAIT_OURS, (long)value, (long)&limit, 0, 0) ==
	    ERR_TIMEDOUT;
}

/* Each thread is a directory in that one. */
bool
sys_is_only_thread(void)
{
	struct stat st;
	if (os.pid != 0 && os.pid != sys_call6(SYS_getpid, 0, 0, 0, 0, 0, 0))
		return false;
	long r = sys_call6(SYS_newfstatat, AT_FDCWD, (long)"/proc/self/task", (long)&st, 0, 0, 0);
	return r == 0 && st.st_nlink == 3;
}

void
sys_after_fork_child(void)
{
	os.pid = sys_call6(SYS_getpid, 0, 0, 0, 0, 0, 0);
}

void
sys_futex_wake(const uint32_t *word, int count)
{
	sys_call6(SYS_futex, (long)word, FUTEX_WAKE_OURS, count, 0, 0, 0);
}

int
sys_gettid(void)
{
	return (int)sys_call6(SYS_gettid, 0, 0, 0, 0, 0, 0);
}

#define SIGNAL_BIT(sig) ((uint64_t)1 << ((sig) - 1))

static __thread uint64_t mask_before __attribute__((tls_model("initial-exec")));
static __thread uint8_t hold_depth __attribute__((tls_model("initial-exec")));

static atomic_u64 never_held = { SIGNAL_BIT(SIGSEGV) | SIGNAL_BIT(SIGBUS) | SIGNAL_BIT(SIGILL) |
	SIGNAL_BIT(SIGFPE) | SIGNAL_BIT(SIGTRAP) | SIGNAL_BIT(SIGABRT) };

void
sys_never_hold(int sig)
{
	a64_fetch_or(&never_held, SIGNAL_BIT(sig));
}

/* A handler between the test and the call leaves things as it found them. */
void
sys_hold_signals(void)
{
	uint64_t held = ~a64_load_relaxed(&never_held);

	if (hold_depth == 0)
		sys_call6(SYS_rt_sigprocmask, SIG_SETMASK, (long)&held,
		    (long)&mask_before, sizeof(held), 0, 0);
	hold_depth++;
}

void
sys_release_signals(void)
{
	if (--hold_depth == 0)
		sys_call6(SYS_rt_sigprocmask, SIG_SETMASK, (long)&mask_before, 0,
		    sizeof(mask_before), 0, 0);
}

bool
sys_holds_signals(void)
{
	return hold_depth != 0;
}
