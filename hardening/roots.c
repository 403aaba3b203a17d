/* roots.c - see roots.h.
 *
 *   maps, read whole -> a line -> [start, end) less the excluded ranges, cut at the
 *   stack pointer where that is sure -> pages that were written -> pieces
 *
 * The text of maps, the pieces and the excluded ranges lie in scratch memory,
 * which is cut out of every mapping; mappings that appear while the pass gets
 * more of it are therefore no concern. The parser is not procmap.c's: a stopped
 * thread may be in the middle of that one's buffer. */
#define _GNU_SOURCE
#include "roots.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "guardspace.h"
#include "sample.h"
#include "stoptheworld.h"
#include "../src/marena.h"
#include "../src/mheap.h"
#include "../src/peek.h"
#include "../src/persistentalloc.h"
#include "../src/sys.h"

enum {
	MAPS_FIRST_BYTES = 256 << 10,
	PIECES_FIRST = 8192,
	RANGES_SPARE = 64,
	RED_ZONE_BYTES = 128,
	USER_ROOTS_FIRST = 256,
	SCAN_REGIONS = 64,
	PAGEMAP_WORDS = 512,
};

/* Without PAGEMAP_SCAN a page costs 8 bytes of the page map, or without that a
 * system call: longer mappings are taken for reservations of address space (a
 * sanitizer's shadow), and passed over. */
#define PAGEMAP_MOST_BYTES ((uintptr_t)1 << 38)
#define PEEK_MOST_BYTES ((uintptr_t)1 << 34)

#define PAGEMAP_PRESENT ((uint64_t)1 << 63)
#define PAGEMAP_SWAPPED ((uint64_t)1 << 62)
#define PAGEMAP_FILE ((uint64_t)1 << 61)

/* PAGEMAP_SCAN of linux/fs.h, younger than the oldest headers. */
enum { SCAN_FILE = 4, SCAN_PRESENT = 8, SCAN_SWAPPED = 16, SCAN_ZERO_PAGE = 32 };
struct scan_region {
	uint64_t start, end, categories;
};
struct scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define SCAN_IOCTL _IOWR('f', 16, struct scan_arg)

struct range {
	uintptr_t start, end;
};

static struct range excluded[ROOTS_EXCLUDED_MAX];
static size_t n_excluded;
static struct range excluded_now;

enum roots_way roots_way = ROOTS_WAY_SCAN;

/* ---- ranges the user registers ---- */

static struct {
	struct range *range;         /* { 0, 0 }: free */
	size_t cap;
} user;

static struct range *
user_find(uintptr_t start, uintptr_t end)
{
	for (size_t i = 0; i < user.cap; i++)
		if (user.range[i].start == start && user.range[i].end == end)
			return &user.range[i];
	return NULL;
}

static bool
user_grow(void)
{
	size_t cap = user.cap != 0 ? 2 * user.cap : USER_ROOTS_FIRST;
	struct range *more = sys_alloc(align_up(cap * sizeof(*more), sys_page_bytes()));
	if (more == NULL)
		return false;
	if (user.cap != 0) {
		size_t have = user.cap * sizeof(*more);
		memcpy(more, user.range, have);
		sys_free(user.range, align_up(have, sys_page_bytes()), SYS_READY);
	}
	user.range = more;
	user.cap = cap;
	return true;
}

int
roots_add(const void *p, size_t bytes)
{
	struct range *r = user_find(0, 0);
	if (bytes == 0)
		return 0;
	if (r == NULL && user_grow())
		r = user_find(0, 0);
	if (r == NULL)
		return ENOMEM;
	*r = (struct range){ (uintptr_t)p, (uintptr_t)p + bytes };
	return 0;
}

int
roots_remove(const void *p, size_t bytes)
{
	struct range *r = bytes != 0 ? user_find((uintptr_t)p, (uintptr_t)p + bytes) : NULL;
	if (bytes == 0)
		return 0;
	if (r == NULL)
		return ENOENT;
	*r = (struct range){ 0, 0 };
	return 0;
}

AT_ENDS void
roots_exclude(const void *p, size_t bytes)
{
	uintptr_t start = (uintptr_t)p;
	for (size_t i = 0; i < n_excluded; i++)
		if (excluded[i].start == start)
			return;
	if (n_excluded < ROOTS_EXCLUDED_MAX)
		excluded[n_excluded++] = (struct range){ start, start + bytes };
}

void
roots_reset(void)
{
	memset(&user, 0, sizeof(user));
	n_excluded = 0;
}

void
roots_exclude_pass(const void *p, size_t bytes)
{
	excluded_now = (struct range){ (uintptr_t)p, (uintptr_t)p + bytes };
}

/* ---- pages that were written ---- */

typedef void resident_fn(uintptr_t from, uintptr_t to, void *arg);

struct resident {
	int fd;                      /* of pagemap */
	enum roots_way way;
	bool skip_file;              /* unwritten pages of a file hold nothing of ours */
	resident_fn *fn;
	void *arg;
};

/* Of the thread: a main thread that has ended has no maps any more. */
static int
proc_open(const char *of_thread, const char *of_process)
{
	long fd = syscall(SYS_openat, AT_FDCWD, of_thread, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		fd = syscall(SYS_openat, AT_FDCWD, of_process, O_RDONLY | O_CLOEXEC);
	return (int)fd;
}

/* Page by page what the kernel itself can read; runs together. */
static void
each_readable(struct resident *r, uintptr_t start, uintptr_t end)
{
	struct peek k = { 0 };
	size_t page = sys_page_bytes();
	uintptr_t from = start;
	for (uintptr_t at = start; at < end; at = align_down(at, page) + page) {
		if (peek_ok(&k, at, 1))
			continue;
		if (at > from)
			r->fn(from, at, r->arg);
		from = align_down(at, page) + page;
	}
	if (end > from)
		r->fn(from, end, r->arg);
}

static void
clip_call(struct resident *r, uintptr_t from, uintptr_t to, uintptr_t start, uintptr_t end,
    bool swapped)
{
	from = from > start ? from : start;
	to = to < end ? to : end;
	if (from >= to)
		return;
	if (swapped)                 /* or a guard marker: they look alike */
		each_readable(r, from, to);
	else
		r->fn(from, to, r->arg);
}

/* false: this kernel has no such call, and nothing has been done. */
static bool
each_scanned(struct resident *r, uintptr_t start, uintptr_t end)
{
	struct scan_region region[SCAN_REGIONS];
	struct scan_arg a = { .size = sizeof(a), .vec = (uintptr_t)region, .vec_len = SCAN_REGIONS,
		.category_anyof_mask = SCAN_PRESENT | SCAN_SWAPPED,
		.return_mask = SCAN_FILE | SCAN_PRESENT | SCAN_SWAPPED | SCAN_ZERO_PAGE };
	a.start = align_down(start, sys_page_bytes());
	a.end = align_up(end, sys_page_bytes());
	while (a.start < a.end) {
		long n = syscall(SYS_ioctl, r->fd, SCAN_IOCTL, &a);
		if (n < 0)
			return false;
		for (long i = 0; i < n; i++) {
			uint64_t c = region[i].categories;
			if ((c & SCAN_ZERO_PAGE) != 0 || (r->skip_file && (c & SCAN_FILE) != 0))
				continue;
			clip_call(r, (uintptr_t)region[i].start, (uintptr_t)region[i].end,
			    start, end, (c & SCAN_SWAPPED) != 0);
		}
		if (a.walk_end <= a.start)
			break;
		a.start = a.walk_end;
	}
	return true;
}

static bool
each_mapped(struct resident *r, uintptr_t start, uintptr_t end)
{
	uint64_t word[PAGEMAP_WORDS];
	size_t page = sys_page_bytes();
	if (end - start >= PAGEMAP_MOST_BYTES)
		return true;
	for (uintptr_t at = align_down(start, page); at < end;) {
		size_t want = (align_up(end, page) - at) / page;
		want = want < PAGEMAP_WORDS ? want : PAGEMAP_WORDS;
		long got = syscall(SYS_pread64, r->fd, word, want * sizeof(word[0]),
		    (long)(at / page * sizeof(word[0])));
		if (got < (long)sizeof(word[0]))
			return false;
		size_t n = (size_t)got / sizeof(word[0]);
		for (size_t i = 0; i < n; i++, at += page) {
			bool file = r->skip_file && (word[i] & PAGEMAP_FILE) != 0;
			if ((word[i] & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)) != 0 && !file)
				clip_call(r, at, at + page, start, end,
				    (word[i] & PAGEMAP_SWAPPED) != 0);
		}
	}
	return true;
}

static void
resident_open(struct resident *r)
{
	r->way = roots_way;
	r->fd = r->way != ROOTS_WAY_PEEK ?
	    proc_open("/proc/thread-self/pagemap", "/proc/self/pagemap") : -1;
	if (r->fd < 0)
		r->way = ROOTS_WAY_PEEK;
}

static void
resident_close(struct resident *r)
{
	if (r->fd >= 0)
		syscall(SYS_close, r->fd);
}

static void
each_resident(struct resident *r, uintptr_t start, uintptr_t end)
{
	start = align_up(start, sizeof(uintptr_t));
	end = align_down(end, sizeof(uintptr_t));
	if (start >= end)
		return;
	if (r->way == ROOTS_WAY_SCAN && !each_scanned(r, start, end))
		r->way = ROOTS_WAY_PAGEMAP;
	else if (r->way == ROOTS_WAY_SCAN)
		return;
	if (r->way == ROOTS_WAY_PAGEMAP && !each_mapped(r, start, end))
		r->way = ROOTS_WAY_PEEK;
	else if (r->way == ROOTS_WAY_PAGEMAP)
		return;
	if (end - start < PEEK_MOST_BYTES)
		each_readable(r, start, end);
}

void
roots_each_resident(uintptr_t start, uintptr_t end, resident_fn *fn, void *arg)
{
	struct resident r = { .fn = fn, .arg = arg };
	resident_open(&r);
	each_resident(&r, start, end);
	resident_close(&r);
}

/* ---- what is not a root ---- */

struct ranges {
	struct range *r;
	size_t n, cap;
};

static void
put(struct ranges *x, uintptr_t start, uintptr_t end)
{
	if (start < end && x->n < x->cap)
		x->r[x->n++] = (struct range){ start, end };
}

/* Shell's sort: some hundred ranges, no memory, no recursion. */
static void
sort_ranges(struct range *r, size_t n)
{
	for (size_t gap = n / 2; gap > 0; gap /= 2)
		for (size_t i = gap; i < n; i++) {
			struct range v = r[i];
			size_t j = i;
			for (; j >= gap && r[j - gap].start > v.start; j -= gap)
				r[j] = r[j - gap];
			r[j] = v;
		}
}

/* The chunks that the page allocator has; what else lies in an arena may be
 * somebody's (address space can be too short for whole arenas). */
static void
put_heap(struct ranges *x, const struct page_alloc *p)
{
	for (size_t i = 0; i < PAGE_REGIONS; i++) {
		const struct page_region *g = p->regions[i];
		uintptr_t base = (uintptr_t)i << PAGE_REGION_SHIFT;
		uintptr_t from = 0, to = 0;
		for (size_t c = 0; g != NULL && c < PAGE_REGION_CHUNKS; c++) {
			if (c % 64 == 0 && g->grown[c / 64] == 0) {
				c += 63;
				continue;
			}
			if ((g->grown[c / 64] >> (c % 64) & 1) == 0)
				continue;
			uintptr_t at = base + ((uintptr_t)c << CHUNK_SHIFT);
			if (at != to) {
				put(x, from, to);
				from = at;
			}
			to = at + CHUNK_SIZE;
		}
		put(x, from, to);
	}
}

static size_t
count_heap_and_metadata(const struct mheap *h)
{
	size_t n = h->pages.grown_pages / CHUNK_PAGES;
	const struct persistent_region *m = aptr_load_acquire(&h->meta.regions);
	for (; m != NULL; m = m->next)
		n++;
	return n;
}

static void
put_guard_range(uintptr_t start, uintptr_t end, void *arg)
{
	put(arg, start, end);
}

static bool
list_excluded(struct ranges *x)
{
	const struct mheap *h = &mheap_;
	const struct persistent_region *m = aptr_load_acquire(&h->meta.regions);
	x->cap = count_heap_and_metadata(h) + 2 * GUARDSPACE_REGIONS + STW_SCRATCH_MAX +
	    ROOTS_EXCLUDED_MAX + RANGES_SPARE;
	x->n = 0;
	x->r = stw_scratch_alloc(x->cap * sizeof(*x->r));
	if (x->r == NULL)
		return false;
	put_heap(x, &h->pages);
	for (; m != NULL; m = m->next)
		put(x, m->base, m->end);
	guardspace_each_range(put_guard_range, x);
	for (size_t i = 0; i < n_excluded; i++)
		put(x, excluded[i].start, excluded[i].end);
	put(x, excluded_now.start, excluded_now.end);
	uintptr_t pool, pool_end;
	sample_pool(&pool, &pool_end);
	put(x, pool, pool_end);
	put(x, (uintptr_t)user.range, (uintptr_t)user.range + user.cap * sizeof(*user.range));
	put(x, (uintptr_t)h, (uintptr_t)(h + 1));
	put(x, (uintptr_t)&arena_map, (uintptr_t)(&arena_map + 1));
	for (size_t i = 0; i < STW_SCRATCH_MAX; i++) {
		uintptr_t start, end;
		stw_scratch_piece(i, &start, &end);
		put(x, start, end);
	}
	sort_ranges(x->r, x->n);
	return true;
}

/* ---- pieces ---- */

struct collector {
	struct roots *out;
	struct resident res;
	struct ranges excl;
	struct range *sps;           /* { sp, tp } of every thread, by sp */
	size_t n_sps;
	uintptr_t self_sp;
	enum root_kind kind;         /* of the pieces at hand */
	int tid;
};

static bool
grow_pieces(struct roots *r)
{
	size_t cap = r->cap != 0 ? 2 * r->cap : PIECES_FIRST;
	struct root_piece *more = stw_scratch_alloc(cap * sizeof(*more));
	if (more == NULL) {
		r->no_memory = true;
		return false;
	}
	if (r->n != 0)
		memcpy(more, r->piece, r->n * sizeof(*more));
	stw_scratch_free(r->piece, r->cap * sizeof(*more));
	r->piece = more;
	r->cap = cap;
	return true;
}

/* Page by page is how some ways find them: together they are one piece. */
static void
add_piece(uintptr_t from, uintptr_t to, void *arg)
{
	struct collector *c = arg;
	struct roots *r = c->out;
	struct root_piece *last = r->n != 0 ? &r->piece[r->n - 1] : NULL;
	if (last != NULL && last->end == from && last->kind == c->kind && last->tid == c->tid) {
		last->end = to;
		r->bytes += to - from;
		return;
	}
	if (r->n == r->cap && !grow_pieces(r))
		return;
	r->piece[r->n++] = (struct root_piece){ from, to, c->kind, c->tid };
	r->bytes += to - from;
}

/* [start, end) without what is excluded. */
static void
add_mapping(struct collector *c, uintptr_t start, uintptr_t end)
{
	size_t lo = 0, hi = c->excl.n;
	/* ranges do not overlap, but for rooms' own: the ends are in order as well
	 * or the difference is cut off in a later round */
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (c->excl.r[mid].end <= start)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < c->excl.n && c->excl.r[lo].start < end && start < end; lo++) {
		const struct range *x = &c->excl.r[lo];
		if (x->end <= start)
			continue;
		if (x->start > start)
			each_resident(&c->res, start, x->start);
		start = x->end;
	}
	if (start < end)
		each_resident(&c->res, start, end);
}

/* ---- threads ---- */

/* Of /proc/self/maps. */
struct line {
	uintptr_t start, end;
	const char *perms;
	const char *path;            /* up to the newline */
	bool anonymous;
};

static bool
list_threads(struct collector *c)
{
	size_t n = stw_count() + 1;
	c->sps = stw_scratch_alloc(n * sizeof(*c->sps));
	c->n_sps = 0;
	if (c->sps == NULL)
		return false;
	c->sps[c->n_sps++] = (struct range){ c->self_sp,
		stw_thread_pointer() };
	for (size_t i = 0; i < stw_count(); i++) {
		const struct stw_thread *t = stw_thread(i);
		if (!t->gone)
			c->sps[c->n_sps++] = (struct range){ t->at.sp, t->at.tp };
	}
	sort_ranges(c->sps, c->n_sps);
	return true;
}

/* The first thread whose stack pointer is in [start, end), and how many are. */
static size_t
threads_in(const struct collector *c, uintptr_t start, uintptr_t end, size_t *first)
{
	size_t lo = 0, hi = c->n_sps, n = 0;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (c->sps[mid].start < start)
			lo = mid + 1;
		else
			hi = mid;
	}
	*first = lo;
	while (lo + n < c->n_sps && c->sps[lo + n].start < end)
		n++;
	return n;
}

/* A running thread's; its stack pointer may be elsewhere. */
static bool
thread_pointer_in(const struct collector *c, const struct line *l)
{
	for (size_t i = 0; i < c->n_sps; i++)
		if (c->sps[i].end - l->start < l->end - l->start)
			return true;
	return false;
}

static int
tid_of_sp(const struct collector *c, uintptr_t sp)
{
	if (sp == c->self_sp)
		return sys_gettid();
	for (size_t i = 0; i < stw_count(); i++)
		if (!stw_thread(i)->gone && stw_thread(i)->at.sp == sp)
			return stw_thread(i)->tid;
	return 0;
}

static void
add_registers(struct collector *c)
{
	c->kind = ROOT_STACK;
	for (size_t i = 0; i < stw_count(); i++) {
		const struct stw_thread *t = stw_thread(i);
		if (t->gone)
			continue;
		c->tid = t->tid;
		/* a stack or TLS inside a heap object keeps that object */
		add_piece((uintptr_t)&t->at, (uintptr_t)&t->at.regs, c);
		add_piece(t->at.regs, align_down(t->at.regs_end, sizeof(uintptr_t)), c);
		if (t->at.vregs_end != 0)
			add_piece(t->at.vregs, align_down(t->at.vregs_end, sizeof(uintptr_t)), c);
	}
}

static void
add_user(struct collector *c)
{
	c->kind = ROOT_USER;
	c->tid = 0;
	c->res.skip_file = false;
	for (size_t i = 0; i < user.cap; i++)
		if (user.range[i].start != 0)
			each_resident(&c->res, user.range[i].start, user.range[i].end);
}

/* ---- /proc/self/maps ---- */

static const char *
hex(const char *s, uintptr_t *v)
{
	*v = 0;
	for (;; s++) {
		unsigned d = *s >= '0' && *s <= '9' ? (unsigned)(*s - '0') :
		    *s >= 'a' && *s <= 'f' ? (unsigned)(*s - 'a') + 10 : 16;
		if (d == 16)
			return s;
		*v = *v << 4 | d;
	}
}

/* The next line of the NUL-terminated text, or NULL at its end. */
static const char *
parse_line(const char *s, struct line *l)
{
	const char *newline = strchr(s, '\n');
	if (newline == NULL)
		return NULL;
	s = hex(s, &l->start);
	s = hex(s + (*s == '-'), &l->end);
	l->perms = s + (*s == ' ');
	for (int fields = 0; s < newline && fields < 4; s++)
		fields += *s == ' ';     /* perms, offset, device, inode */
	while (s < newline && *s != ' ')
		s++;
	while (s < newline && *s == ' ')
		s++;
	l->path = s;
	l->anonymous = *s == '\n' || strncmp(s, "[anon", 5) == 0;
	return newline + 1;
}

static bool
path_is(const struct line *l, const char *prefix)
{
	return strncmp(l->path, prefix, strlen(prefix)) == 0;
}

static bool
is_root_mapping(const struct line *l)
{
	if (l->perms[0] != 'r' || l->perms[1] != 'w' || l->perms[3] != 'p')
		return false;
	/* reading a device may have effects; /dev/zero is the old way to map memory */
	return !path_is(l, "/dev/") || path_is(l, "/dev/zero");
}

#if defined(__x86_64__)

enum { TCB_MOST_BYTES = 8192, TCB_SELF = 2, TID_FROM = 256, TID_USUALLY = 720, TID_END = 1024 };

/* Where libc's record has the thread's number: seen in the caller's own, 0: not
 * clear. A joined thread's is -1 there, an ended one's 0. */
__attribute__((no_sanitize("address"))) static size_t
tid_offset(void)
{
	const char *record = (const char *)stw_thread_pointer();
	int tid = sys_gettid();
	size_t found = 0;
	if (*(const int *)(record + TID_USUALLY) == tid)
		return TID_USUALLY;
	for (size_t off = TID_FROM; off < TID_END; off += sizeof(int)) {
		if (*(const int *)(record + off) != tid)
			continue;
		if (found != 0)
			return 0;
		found = off;
	}
	return found;
}

/* Nobody can ask for its result any more. */
static bool
was_joined(uintptr_t record)
{
	struct peek k = { { 0 } };
	size_t off = tid_offset();
	int tid;
	return off != 0 && peek_read(&k, &tid, record + off, sizeof(tid)) && tid == -1;
}

/* What still counts of a stack that libc keeps for the next thread: the record of
 * the ended one, and when that was joined only its head, where the vector of its
 * TLS blocks stands. { 0, 0 }: it is no such stack. The record, at the thread
 * pointer, begins with its own address and has it again in the third word. */
static struct range
ended_thread(const struct line *l)
{
	uintptr_t word[TCB_SELF + 1];
	struct peek k = { { 0 } };
	uintptr_t at = align_down(l->end - sizeof(word), CACHE_LINE);
	uintptr_t least = l->end - l->start > TCB_MOST_BYTES ? l->end - TCB_MOST_BYTES : l->start;
	for (; at >= least; at -= CACHE_LINE)
		if (peek_read(&k, word, at, sizeof(word)) && word[0] == at && word[TCB_SELF] == at)
			return (struct range){ at, was_joined(at) ? at + sizeof(word) : l->end };
	return (struct range){ 0, 0 };
}

#else

static struct range
ended_thread(const struct line *l)
{
	(void)l;
	return (struct range){ 0, 0 };
}

#endif

static void
add_line(struct collector *c, const struct line *l, const struct line *below)
{
	size_t first;
	size_t n = threads_in(c, l->start, l->end, &first);
	uintptr_t start = l->start, end = l->end;
	c->kind = n != 0 ? ROOT_STACK : ROOT_DATA;
	c->tid = n == 1 ? tid_of_sp(c, c->sps[first].start) : 0;
	c->res.skip_file = !l->anonymous && !path_is(l, "[") && !path_is(l, "/dev/zero");
	bool guarded = l->anonymous && below->end == l->start &&
	    memcmp(below->perms, "---", 3) == 0;
	if (n == 1) {
		uintptr_t sp = c->sps[first].start, tp = c->sps[first].end;
		if (path_is(l, "[stack]") || (guarded && tp > sp && tp < l->end))
			start = sp - RED_ZONE_BYTES > start ? sp - RED_ZONE_BYTES : start;
	} else if (n == 0 && guarded && !thread_pointer_in(c, l)) {
		struct range rest = ended_thread(l);
		start = rest.start != 0 ? rest.start : start;
		end = rest.start != 0 ? rest.end : end;
	}
	add_mapping(c, start, end);
}

static void
add_lines(struct collector *c, const char *text)
{
	struct line l, below = { .perms = "----" };
	while ((text = parse_line(text, &l)) != NULL) {
		if (is_root_mapping(&l))
			add_line(c, &l, &below);
		below = l;
	}
}

/* All of it, NUL-terminated, in scratch memory of *cap bytes; NULL: refused. */
static char *
read_maps(size_t *cap)
{
	for (*cap = MAPS_FIRST_BYTES;; *cap *= 2) {
		char *buf = stw_scratch_alloc(*cap);
		int fd = buf != NULL ? proc_open("/proc/thread-self/maps", "/proc/self/maps") : -1;
		size_t len = 0;
		long got = -1;
		while (fd >= 0 && len < *cap - 1 &&
		    (got = syscall(SYS_read, fd, buf + len, *cap - 1 - len)) > 0)
			len += (size_t)got;
		if (fd >= 0)
			syscall(SYS_close, fd);
		if (got == 0 && len != 0)
			return buf;
		stw_scratch_free(buf, *cap);
		if (fd < 0 || got < 0)
			return NULL;
	}
}

bool
roots_collect(struct roots *r, uintptr_t self_sp)
{
	struct collector c = { .out = r, .self_sp = self_sp };
	size_t maps_bytes = 0;
	memset(r, 0, sizeof(*r));
	char *maps = read_maps(&maps_bytes);
	bool ok = maps != NULL && grow_pieces(r) && list_threads(&c) && list_excluded(&c.excl);
	if (ok) {
		c.res.fn = add_piece;
		c.res.arg = &c;
		resident_open(&c.res);
		add_lines(&c, maps);
		add_registers(&c);
		add_user(&c);
		resident_close(&c.res);
	}
	stw_scratch_free(c.excl.r, c.excl.cap * sizeof(*c.excl.r));
	stw_scratch_free(c.sps, (stw_count() + 1) * sizeof(*c.sps));
	stw_scratch_free(maps, maps_bytes);
	return ok && !r->no_memory;
}

void
roots_release(struct roots *r)
{
	stw_scratch_free(r->piece, r->cap * sizeof(*r->piece));
	memset(r, 0, sizeof(*r));
}
