/* prog.c - see prog.h.
 *
 *   step ->  which op  ->  the call (api.h)  ->  judge: NULL? errno? address?
 *                                            ->  admit: interval map, alignment,
 *                                                zeroes, usable size; fill; poison
 *
 * Content: every 8 bytes of an object are a function of its key and the offset.
 * Of what is larger than FILL_WHOLE_BYTES both ends and one word of each page
 * are filled, up to FILL_PAGES pages: enough to see any page go away, and no
 * more memory touched than that. */
#define _GNU_SOURCE
#include "prog.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "../include/spanguard.h"
#include "api.h"
#include "malloc.h"
#include "marena.h"
#include "mcache.h"
#include "mspan.h"
#include "msize.h"
#include "proc.h"
#include "verify.h"
#include "../hardening/hooks.h"

enum {
	FILL_WHOLE_BYTES = 2048,
	FILL_EDGE_BYTES = 256,
	FILL_STRIDE_BYTES = 4096,
	FILL_PAGES = 4,
	ERRNO_MARK = 77,
	ZERO_WHOLE_BYTES = 1 << 14,
	BURST_BYTES = (1 << 13) - 1,
	METADATA_PIECE_BYTES = 1 << 14,
};

#define EASY_BYTES ((size_t)1 << 30)     /* up to here, memory is there */
#define EASY_ALIGN ((size_t)1 << 26)
#define EASY_TOTAL ((size_t)4 << 30)

static const uint8_t codes[SGF_CODES] = {
	OP_MALLOC, OP_MALLOC, OP_MALLOC, OP_MALLOC, OP_CALLOC, OP_CALLOC, OP_REALLOC,
	OP_REALLOC, OP_REALLOC, OP_REALLOCARRAY, OP_POSIX_MEMALIGN, OP_ALIGNED_ALLOC,
	OP_MEMALIGN, OP_VALLOC, OP_PVALLOC, OP_NOSCAN, OP_NOSCAN, OP_CALLOC_NOSCAN,
	OP_REALLOC_NOSCAN, OP_FREE, OP_FREE, OP_FREE, OP_FREE, OP_FREE, OP_CFREE,
	OP_FREE_SIZED, OP_FREE_SIZED, OP_FREE_ALIGNED_SIZED, OP_USABLE, OP_BURST, OP_BURST,
	OP_BURST, OP_BURST_FREE, OP_BURST_FREE, OP_BURST_FREE, OP_BURST_ZERO, OP_TRIM,
	OP_SCAVENGE, OP_TICK, OP_ADVANCE, OP_EXIT, OP_VERIFY, OP_CHECK, OP_STATS,
	OP_ENTER_FAST, OP_ENTER_SLOW, OP_GONE, OP_FLUSH, OP_FAIL, OP_HEAL, OP_OVERFLOW,
	OP_BUG, OP_NEW, OP_NEW, OP_DELETE, OP_DELETE, OP_DELETE_SIZED, OP_MALLOC, OP_FREE,
	OP_BURST, OP_BURST_FREE, OP_FORK, OP_MORE, OP_MORE,
};

enum sg_op
sg_prog_op(const struct sgf_op *op)
{
	return codes[op->code];
}

/* ---- sizes ---- */

/* H14: usable sizes are the modes' own, what was asked is not. */
static size_t
huge_size(const struct sg_prog *p, const struct sgf_op *op)
{
	const struct sg_object *o = &p->object[op->imm & 255];

	switch (op->b & 7) {
	case 0:
		return SIZE_MAX - op->imm;
	case 1:
		return (size_t)PTRDIFF_MAX - op->imm;
	case 2:
		return (size_t)PTRDIFF_MAX + op->imm;
	case 3:
		return ((size_t)1 << (44 + op->imm % 19)) + op->b;
	default:
		return (p->quiet ? o->asked : o->usable) + (size_t)(op->b >> 3) - 8;
	}
}

size_t
sg_prog_size(const struct sg_prog *p, const struct sgf_op *op)
{
	size_t off = (size_t)(int8_t)op->b, n = op->imm;

	switch (op->a & 7) {
	case 0:
		return n & 255;
	case 1:
		return size_classes[1 + n % (SIZE_CLASSES - 1)].elem_bytes + off;
	case 2:
		return n & 4095;
	case 3:
		return n & 0xffff;
	case 4:
		return ((n & 15) + 1) * PAGE_SIZE + off;
	case 5:
		return n & (op->a >= 248 ? 0xffffff : 0x3ffff);
	case 6:
		return ((size_t)1 << (op->a >= 248 ? 20 + (n & 7) : n & 15)) + off;
	default:
		return huge_size(p, op);
	}
}

static size_t
align_of(const struct sgf_op *op)
{
	if (op->imm >> 28 == 15)
		return op->imm >> 20 & 255;       /* not always a power of two */
	return (size_t)1 << (op->imm >> 28 == 14 ? op->a >> 3 : op->a >> 4);
}

/* ---- content ---- */

SG_UNCHECKED static inline uint64_t
word_of(uint64_t key, size_t at)
{
	return (key + at) * 0x9e3779b97f4a7c15u ^ key >> 7;
}

typedef bool word_fn(uint8_t *at, uint64_t value, size_t bytes);

SG_UNCHECKED static bool
word_write(uint8_t *at, uint64_t value, size_t bytes)
{
	if (bytes == 8) {
		*(volatile uint64_t *)(void *)at = value;
		return true;
	}
	for (size_t i = 0; i < bytes; i++)
		((volatile uint8_t *)at)[i] = (uint8_t)(value >> (8 * i));
	return true;
}

SG_UNCHECKED static bool
word_equal(uint8_t *at, uint64_t value, size_t bytes)
{
	if (bytes == 8)
		return *(volatile uint64_t *)(void *)at == value;
	for (size_t i = 0; i < bytes; i++)
		if (((volatile uint8_t *)at)[i] != (uint8_t)(value >> (8 * i)))
			return false;
	return true;
}

/* fn on every word of [from, to) that is also below `end`. false: at the first
 * for which it is false; *where tells the offset. */
static inline bool
each_word(uint8_t *p, uint64_t key, size_t from, size_t to, size_t end, word_fn *fn,
    size_t *where)
{
	if (to > end)
		to = end;
	for (size_t at = from; at < to; at += 8) {
		*where = at;
		if (!fn(p + at, word_of(key, at), to - at < 8 ? to - at : 8))
			return false;
	}
	return true;
}

/* The words that an object of `bytes` has filled, those below end. Offsets are
 * multiples of 8, but for tiny objects, which start at a multiple of 4. */
static bool
each_filled(uint8_t *p, uint64_t key, size_t bytes, size_t end, word_fn *fn, size_t *where)
{
	size_t tail = (bytes - FILL_EDGE_BYTES) & ~(size_t)7;
	size_t stride = FILL_STRIDE_BYTES;

	*where = 0;
	if (bytes <= FILL_WHOLE_BYTES)
		return each_word(p, key, 0, bytes, end, fn, where);
	if (!each_word(p, key, 0, FILL_EDGE_BYTES, end, fn, where))
		return false;
	while (bytes / stride > FILL_PAGES)
		stride *= 2;
	for (size_t at = stride; at < tail; at += stride)
		if (!each_word(p, key, at, at + 8, end, fn, where))
			return false;
	return each_word(p, key, tail, bytes, end, fn, where);
}

/* Nothing of it is poisoned: the object is new. Equal to itself one byte on, and the
 * first is zero, is seen at full width. */
SG_UNCHECKED static size_t
first_nonzero(const uint8_t *p, size_t from, size_t to)
{
	if (from < to && p[from] == 0 && memcmp(p + from, p + from + 1, to - from - 1) == 0)
		return SIZE_MAX;
	while (from < to && ((uintptr_t)(p + from) & 7) != 0)
		if (((const volatile uint8_t *)p)[from++] != 0)
			return from - 1;
	for (; from + 8 <= to; from += 8)
		if (*(const volatile uint64_t *)(const void *)(p + from) != 0)
			return from;
	for (; from < to; from++)
		if (((const volatile uint8_t *)p)[from] != 0)
			return from;
	return SIZE_MAX;
}

/* The first byte of [from, to) that is not zero, of what is in memory at all: the rest
 * is zero (nothing is swapped here), and to read it would bring it in. */
static size_t
first_nonzero_page(const uint8_t *p, size_t from, size_t to)
{
	enum { PAGE = 4096, AT_ONCE = 1024 };
	static unsigned char there[AT_ONCE];
	size_t bad = SIZE_MAX;

	for (uintptr_t at = align_down((uintptr_t)p + from, PAGE), end = (uintptr_t)p + to;
	    at < end && bad == SIZE_MAX; at += PAGE * (size_t)AT_ONCE) {
		size_t n = (align_up(end, PAGE) - at) / PAGE;

		n = n < AT_ONCE ? n : AT_ONCE;
		if (mincore((void *)at, n * PAGE, there) != 0)
			memset(there, 1, sizeof(there));
		for (size_t i = 0; i < n && bad == SIZE_MAX; i++) {
			if ((there[i] & 1) == 0)
				continue;
			size_t a = at + i * PAGE < (uintptr_t)p + from ? from : at + i * PAGE - (uintptr_t)p;
			size_t b = at + (i + 1) * PAGE > end ? to : at + (i + 1) * PAGE - (uintptr_t)p;
			bad = first_nonzero(p, a, b);
		}
	}
	return bad;
}

static void
check_zero(const struct sg_object *o)
{
	size_t bad = o->asked <= ZERO_WHOLE_BYTES ? first_nonzero(o->p, 0, o->asked) :
	    first_nonzero_page(o->p, 0, o->asked);

	SG_CHECK(ZERO, bad == SIZE_MAX, "byte %zu of %zu", bad, o->asked);
}

static void
check_content(const struct sg_object *o)
{
	size_t where;

	SG_CHECK(CONTENT, each_filled(o->p, o->key, o->usable, o->usable, word_equal, &where),
	    "byte %zu of %zu at %p", where, o->usable, (void *)o->p);
}

/* ---- the table of objects ---- */

static void
note_pointer(const void *p)
{
	uintptr_t off = (uintptr_t)p - fake_sys_base();

	sg_note(off < fake_sys_window_bytes() ? off : 1);        /* boot.c's lie with the program */
}

static void
check_overlap(const struct sg_prog *p, const uint8_t *at, size_t bytes)
{
	for (size_t i = 0; i < p->nlive; i++) {
		const struct sg_object *o = &p->object[p->live[i]];
		size_t n = o->usable != 0 ? o->usable : 1;
		SG_CHECK(OVERLAP, at + bytes <= o->p || o->p + n <= at,
		    "[%p, +%zu) and [%p, +%zu)", (const void *)at, bytes, (void *)o->p, n);
	}
}

static void
check_pages(const uint8_t *at, size_t bytes)
{
	uintptr_t base = fake_sys_base();

	if (bytes == 0 || (uintptr_t)at - base >= fake_sys_window_bytes())
		return;
	SG_CHECK(PAGES, fake_sys_state(at) == SYS_READY && !fake_sys_guarded(at) &&
	    fake_sys_state(at + bytes - 1) == SYS_READY && !fake_sys_guarded(at + bytes - 1),
	    "[%p, +%zu) is not all Ready", (const void *)at, bytes);
}

static size_t
call_usable(void *q)
{
	size_t n;

	errno = ERRNO_MARK;
	n = sg_malloc_usable_size(q);
	SG_CHECK(ERRNO, errno == ERRNO_MARK, "malloc_usable_size set it to %d", errno);
	return n;
}

static size_t
natural_align(size_t asked, bool noscan)
{
	if (!noscan || asked >= TINY_BLOCK_BYTES || asked == 0)
		return MALLOC_ALIGN;
	return asked == 8 ? 8 : 4;
}

/* The system's account is exact for what no room keeps outside of the spans. */
static void
admit(struct sg_prog *p, uint8_t handle, void *q, size_t asked, size_t align, bool noscan)
{
	struct sg_object *o = &p->object[handle];
	size_t usable = call_usable(q);
	size_t want = align > 1 ? align : natural_align(asked, noscan);

	SG_CHECK(USABLE, usable >= asked, "%zu of %zu", usable, asked);
	SG_CHECK(ALIGN, ((uintptr_t)q & (want - 1)) == 0, "%p, promised %zu", q, want);
	check_overlap(p, q, usable != 0 ? usable : 1);
	check_pages(q, usable);
	*o = (struct sg_object){ .p = q, .asked = asked, .usable = usable, .align = align,
		.key = sg_random(&p->next_key), .noscan = noscan,
		.boot = (uintptr_t)q - fake_sys_base() >= fake_sys_window_bytes() };
	p->live[p->nlive] = handle;
	p->live_at[handle] = (uint8_t)p->nlive++;
	p->live_bytes += usable;
	note_pointer(q);
	sg_note(usable);
}

static void
own(struct sg_object *o)
{
	size_t where;

	each_filled(o->p, o->key, o->usable, o->usable, word_write, &where);
	sg_poison(o->p, o->usable);
}

void
sg_prog_forget(struct sg_prog *p, uint8_t handle)
{
	struct sg_object *o = &p->object[handle];
	uint8_t last = p->live[--p->nlive];

	sg_unpoison(o->p, o->usable);
	p->live[p->live_at[handle]] = last;
	p->live_at[last] = p->live_at[handle];
	p->live_bytes -= o->usable;
	*o = (struct sg_object){ 0 };
}

/* ---- what a call may answer ---- */

static bool
may_fail(const struct sg_prog *p, size_t bytes, size_t align)
{
	return p->faults || p->config.sys.max_map_count != 0 || bytes > EASY_BYTES ||
	    align > EASY_ALIGN || p->live_bytes + bytes > EASY_TOTAL ||
	    p->next_reenter != OP_MALLOC;
}

/* NULL or not, and errno: ENOMEM, EINVAL for an alignment, else untouched. */
static void
judge(const struct sg_prog *p, const void *q, size_t bytes, size_t align, bool bad_align)
{
	int e = errno;

	sg_note((uint64_t)e << 1 | (q != NULL));
	if (q == NULL) {
		SG_CHECK(NULLNESS, bad_align || may_fail(p, bytes, align),
		    "%zu bytes aligned to %zu were refused", bytes, align);
		SG_CHECK(ERRNO, e == ENOMEM || (bad_align && e == EINVAL), "it is %d", e);
		return;
	}
	SG_CHECK(NULLNESS, !bad_align && bytes <= PTRDIFF_MAX, "%zu bytes were granted", bytes);
	SG_CHECK(ERRNO, e == ERRNO_MARK, "a call that succeeded set it to %d", e);
}

static void
observe(struct sg_prog *p, uint64_t v)
{
	p->observed = (p->observed ^ v) * 0x9e3779b97f4a7c15u;
	p->observed ^= p->observed >> 31;
}

/* ---- the calls ---- */

struct request {
	enum sg_op op;
	size_t bytes;
	size_t n;              /* calloc, reallocarray: elements of bytes / n */
	size_t align;
};

/* n elements of a size whose product is at least bytes, or overflows with it. */
static size_t
elements(const struct sgf_op *op, size_t bytes, size_t *each)
{
	size_t n = op->b % 5 == 0 ? 1 : (size_t)op->b % 31 + 1;

	if (bytes > PTRDIFF_MAX) {      /* a product that does not fit 64 bits */
		*each = bytes;
		return n + 1;
	}
	if (op->b == 255) {             /* a product that does not fit 32 */
		*each = (size_t)1 << 32;
		return ((size_t)1 << 32) + (op->imm & 15);
	}
	*each = bytes / n;
	return n;
}

static bool
alignment_is_bad(const struct request *r)
{
	if (r->op == OP_POSIX_MEMALIGN)
		return !is_pow2(r->align) || r->align % sizeof(void *) != 0;
	return false;
}

static void *
posix(const struct request *r)
{
	void *q = (void *)1;
	int err = sg_posix_memalign(&q, r->align, r->bytes);

	SG_CHECK(ERRNO, errno == ERRNO_MARK, "posix_memalign set it to %d", errno);
	SG_CHECK(KEPT, err == 0 || q == (void *)1, "posix_memalign failed and wrote %p", q);
	if (err == 0)
		return q;
	errno = err;
	return NULL;
}

static void *
call(const struct request *r)
{
	switch (r->op) {
	case OP_CALLOC:
		return sg_calloc(r->n, r->bytes);
	case OP_POSIX_MEMALIGN:
		return posix(r);
	case OP_ALIGNED_ALLOC:
		return sg_aligned_alloc(r->align, r->bytes);
	case OP_MEMALIGN:
		return sg_memalign(r->align, r->bytes);
	case OP_VALLOC:
		return sg_valloc(r->bytes);
	case OP_PVALLOC:
		return sg_pvalloc(r->bytes);
	case OP_NOSCAN:
		return spanguard_malloc_noscan(r->bytes);
	case OP_CALLOC_NOSCAN:
		return spanguard_calloc_noscan(r->n, r->bytes);
	case OP_NEW:
		return mallocgc(r->bytes, API_NEW);
	default:
		return sg_malloc(r->bytes);
	}
}

/* The alignment that the answer must have. */
static size_t
promised(const struct request *r)
{
	size_t a = 1;

	switch (r->op) {
	case OP_POSIX_MEMALIGN:
	case OP_ALIGNED_ALLOC:
	case OP_MEMALIGN:
		while (a < r->align)
			a <<= 1;
		return a;
	case OP_VALLOC:
	case OP_PVALLOC:
		return sys_page_bytes();
	default:
		return 0;
	}
}

static bool
is_noscan(enum sg_op op)
{
	return op == OP_NOSCAN || op == OP_CALLOC_NOSCAN;
}

static bool
do_alloc(struct sg_prog *p, uint8_t handle, const struct request *r)
{
	bool zeroed = r->op == OP_CALLOC || r->op == OP_CALLOC_NOSCAN;
	size_t total = r->bytes;
	void *q;

	if (zeroed && __builtin_mul_overflow(r->n, r->bytes, &total))
		total = SIZE_MAX;
	if (r->op == OP_PVALLOC && total <= PTRDIFF_MAX)    /* whole pages, at least one */
		total = align_up(total != 0 ? total : 1, sys_page_bytes());
	if (p->object[handle].p != NULL)
		sg_prog_free(p, handle);
	errno = ERRNO_MARK;
	q = call(r);
	sg_operations++;
	judge(p, q, total, r->align, alignment_is_bad(r));
	observe(p, q != NULL);
	if (q == NULL)
		return false;
	admit(p, handle, q, total, promised(r), is_noscan(r->op));
	if (zeroed)
		check_zero(&p->object[handle]);
	own(&p->object[handle]);
	return true;
}

bool
sg_prog_malloc(struct sg_prog *p, uint8_t handle, size_t bytes)
{
	return do_alloc(p, handle, &(struct request){ .op = OP_MALLOC, .bytes = bytes });
}

static void
give_back(const struct sg_object *o, enum sg_op op)
{
	switch (op) {
	case OP_CFREE:
		sg_cfree(o->p);
		break;
	case OP_FREE_SIZED:
		sg_free_sized(o->p, o->asked);
		break;
	case OP_FREE_ALIGNED_SIZED:
		sg_free_aligned_sized(o->p, o->align, o->asked);
		break;
	case OP_DELETE:
		if (o->align != 0)
			free_aligned_check(o->p, o->align, API_DELETE_ALIGNED);
		else
			freegc(o->p, API_DELETE);
		break;
	case OP_DELETE_SIZED:
		free_sized_check(o->p, o->asked, 0, API_DELETE_SIZED);
		break;
	default:
		sg_free(o->p);
	}
}

/* A sized free says what the allocation said, or is no sized free. */
static enum sg_op
fitting_free(const struct sg_object *o, enum sg_op op)
{
	bool sized = op == OP_FREE_SIZED || op == OP_DELETE_SIZED;

	if (sized && o->align != 0)
		return OP_FREE_ALIGNED_SIZED;
	return op == OP_FREE_ALIGNED_SIZED && o->align == 0 ? OP_FREE_SIZED : op;
}

/* Bytes that the quarantine must hold after o is freed; 0: nothing is promised. */
static size_t
parked_then(const struct sg_prog *p, const struct sg_object *o)
{
	enum { SURE_BYTES = 1 << 20 };          /* quarantine.h's floor */
	const struct options *opt = &p->config.options;
	size_t sure = opt->span_quarantine_fault ? SIZE_MAX : SURE_BYTES;     /* else it is a share */
	size_t room = opt->span_quarantine_bytes < sure ? opt->span_quarantine_bytes : sure;
	const struct mspan *s = span_of((uintptr_t)o->p);

	if (s == NULL || !mspan_is_large(s) || opt->redzone ||
	    p->next_reenter != OP_MALLOC)
		return 0;
	size_t then = hook_quarantine_bytes() + mspan_bytes(s);
	return then <= room ? then : 0;
}

static void
do_free(struct sg_prog *p, uint8_t handle, enum sg_op op)
{
	struct sg_object o = p->object[handle];

	if (o.p == NULL)
		return;
	check_content(&o);
	sg_prog_forget(p, handle);
	size_t parked = parked_then(p, &o);
	errno = ERRNO_MARK;
	give_back(&o, fitting_free(&o, op));
	sg_operations++;
	SG_CHECK(ERRNO, errno == ERRNO_MARK, "free set it to %d", errno);
	SG_CHECK(PARKED, hook_quarantine_bytes() >= parked, "it holds %zu bytes, not %zu",
	    hook_quarantine_bytes(), parked);
}

void
sg_prog_free(struct sg_prog *p, uint8_t handle)
{
	do_free(p, handle, OP_FREE);
}

/* ---- realloc ---- */

static void *
call_realloc(const struct request *r, void *q)
{
	if (r->op == OP_REALLOCARRAY)
		return sg_reallocarray(q, r->n, r->bytes);
	if (r->op == OP_REALLOC_NOSCAN)
		return spanguard_realloc_noscan(q, r->bytes);
	return sg_realloc(q, r->bytes);
}

static void
realloc_failed(const struct sg_object *o)
{
	SG_CHECK(KEPT, call_usable(o->p) == o->usable, "the usable size changed");
	if (sg_oracle_on(ORACLE_KEPT))
		check_content(o);
	sg_poison(o->p, o->usable);
}

static void
do_realloc(struct sg_prog *p, uint8_t handle, const struct request *r)
{
	struct sg_object o = p->object[handle];
	size_t total = r->bytes, where, keep;
	bool noscan = o.p != NULL ? o.noscan : r->op == OP_REALLOC_NOSCAN;
	void *q;

	if (r->op == OP_REALLOCARRAY && __builtin_mul_overflow(r->n, r->bytes, &total))
		total = SIZE_MAX;
	if (o.p != NULL)
		check_content(&o);
	sg_unpoison(o.p, o.usable);
	errno = ERRNO_MARK;
	q = call_realloc(r, o.p);
	sg_operations++;
	if (o.p != NULL && total == 0) {        /* frees, as in glibc */
		SG_CHECK(NULLNESS, q == NULL, "realloc of no bytes gave %p", q);
		sg_prog_forget(p, handle);
		return;
	}
	judge(p, q, total, 0, false);
	observe(p, q != NULL);
	if (q == NULL && o.p != NULL)
		realloc_failed(&o);
	if (q == NULL)
		return;
	if (o.p != NULL)
		sg_prog_forget(p, handle);
	admit(p, handle, q, total, 0, noscan);
	keep = o.usable < total ? o.usable : total;
	SG_CHECK(PREFIX, each_filled(q, o.key, o.usable, keep, word_equal, &where),
	    "byte %zu of %zu to %zu", where, o.usable, total);
	own(&p->object[handle]);
}

/* ---- whole-heap ops ---- */

void
sg_prog_check_objects(struct sg_prog *p)
{
	for (size_t i = 0; i < p->nlive; i++) {
		const struct sg_object *o = &p->object[p->live[i]];
		check_content(o);
		check_pages(o->p, o->usable);
		SG_CHECK(USABLE, call_usable(o->p) == o->usable, "it changed at %p",
		    (void *)o->p);
	}
}

struct in_spans {
	uint64_t objects, bytes, large, large_bytes;
};

static struct in_spans
count_in_spans(const struct sg_prog *p)
{
	struct in_spans n = { 0 };

	for (size_t i = 0; i < p->nlive; i++) {
		const struct sg_object *o = &p->object[p->live[i]];
		const struct mspan *s = span_of((uintptr_t)o->p);
		if (s == NULL)
			continue;
		n.objects++;
		n.bytes += mspan_is_tiny(s) ? o->usable : s->elem_bytes;
		n.large += mspan_is_large(s);
		n.large_bytes += mspan_is_large(s) ? s->elem_bytes : 0;
	}
	return n;
}

/* Conservation: what lives, what waits and what is free are all there is. */
void
sg_prog_check_stats(struct sg_prog *p)
{
	struct spanguard_stats s;
	struct in_spans n = count_in_spans(p);
	struct mallinfo2 m;

	spanguard_stats(&s);
	SG_CHECK(STATS, s.live_objects == n.objects, "%llu live objects, not %llu",
	    (unsigned long long)s.live_objects, (unsigned long long)n.objects);
	SG_CHECK(STATS, s.live_bytes == n.bytes, "%llu live bytes, not %llu",
	    (unsigned long long)s.live_bytes, (unsigned long long)n.bytes);
	SG_CHECK(STATS, s.large_objects == n.large && s.large_bytes == n.large_bytes,
	    "%llu large objects of %llu bytes, not %llu", (unsigned long long)s.large_objects,
	    (unsigned long long)s.large_bytes, (unsigned long long)n.large);
	SG_CHECK(STATS, s.large_allocs >= s.large_objects, "large_allocs %llu",
	    (unsigned long long)s.large_allocs);
	SG_CHECK(STATS, s.live_bytes + s.freed_bytes + s.free_slot_bytes <= s.span_bytes,
	    "slots of more bytes than there are in spans");
	SG_CHECK(STATS, s.returned_bytes <= s.free_page_bytes && s.span_bytes +
	    s.page_cache_bytes + s.free_page_bytes <= s.reserved_bytes, "more than reserved");
	m = sg_mallinfo2();
	SG_CHECK(STATS, m.uordblks + m.hblkhd == s.live_bytes && m.hblks == s.large_objects,
	    "mallinfo2 counts otherwise");
}

/* The text has every field with its value, and is cut where the buffer ends. */
static void
check_stats_text(void)
{
	struct spanguard_stats s;
	char text[1536], cut[64];
	uint64_t sum = 0, fields = 0, want = 0;
	const uint64_t *value = (const uint64_t *)(const void *)&s;

	spanguard_stats(&s);
	size_t n = spanguard_stats_json(text, sizeof(text));
	SG_CHECK(STATS, n < sizeof(text) && strlen(text) == n && text[n - 1] == '}',
	    "a text of %zu bytes", n);
	for (const char *at = text; (at = strchr(at, ':')) != NULL; fields++)
		sum += strtoull(++at, NULL, 10);
	for (size_t i = 0; i < sizeof(s) / sizeof(*value); i++)
		want += value[i];
	SG_CHECK(STATS, fields == sizeof(s) / sizeof(*value) && sum == want,
	    "%llu fields in %s", (unsigned long long)fields, text);
	SG_CHECK(STATS, spanguard_stats_json(cut, sizeof(cut)) == n &&
	    strlen(cut) == sizeof(cut) - 1 && memcmp(cut, text, sizeof(cut) - 1) == 0,
	    "cut short it is another text");
}

static void
check_baseline(struct sg_prog *p)
{
	struct spanguard_stats s;

	spanguard_stats(&s);
	SG_CHECK(BASELINE, s.live_objects == 0 && s.live_bytes == 0, "%llu objects live",
	    (unsigned long long)s.live_objects);
	if (p->config.sys.max_map_count != 0)
		return;                 /* guards that cannot be taken off keep spans */
	SG_CHECK(BASELINE, s.spans == 0 && s.parked_bytes == 0, "%llu spans, %llu bytes parked",
	    (unsigned long long)s.spans, (unsigned long long)s.parked_bytes);
	SG_CHECK(BASELINE, s.page_cache_bytes == 0 && s.threads == 0, "caches hold %llu bytes",
	    (unsigned long long)s.page_cache_bytes);
	SG_CHECK(BASELINE, s.returned_bytes == s.free_page_bytes, "%llu of %llu bytes returned",
	    (unsigned long long)s.returned_bytes, (unsigned long long)s.free_page_bytes);
}

/* ---- ops on many objects ---- */

static void
burst(struct sg_prog *p, const struct sgf_op *op, enum sg_op kind)
{
	struct sgf_op size = *op;
	struct request r = { .op = kind == OP_BURST_ZERO ? OP_CALLOC : OP_MALLOC, .n = 1 };

	size.a = op->b;
	size.b = (uint8_t)(op->imm >> 24);
	r.bytes = sg_prog_size(p, &size);
	if (r.bytes > BURST_BYTES)
		r.bytes &= BURST_BYTES;
	for (unsigned i = 0; i <= (op->a & 63u); i++)
		do_alloc(p, (uint8_t)(op->handle + i), &r);
}

/* Every (a >> 6) + 1 th handle of a range, upwards or downwards. */
static void
burst_free(struct sg_prog *p, const struct sgf_op *op)
{
	unsigned n = (op->a & 63u) + 1, step = (op->a >> 6) + 1;

	for (unsigned i = 0; i < n; i++)
		sg_prog_free(p, (uint8_t)(op->handle + (op->b & 1 ? n - 1 - i : i) * step));
}

/* What is left of the chunk at hand is taken: the next structure that is needed makes
 * a call, which can fail. */
static void
use_up_metadata(void)
{
	struct persistent *m = &mheap_.meta;

	for (size_t left; (left = m->end - align_up(m->at, 8)) != 0;)
		persistent_alloc(m, left < METADATA_PIECE_BYTES ? left : METADATA_PIECE_BYTES, 8);
}

/* Not sys_used: it cannot fail on Linux, and of the tiers only the page allocator
 * is written for a system where it does (H2 makes it fail). */
static void
fail_calls(struct sg_prog *p, const struct sgf_op *op)
{
	if (p->no_faults)
		return;
	if ((op->imm & 64) != 0)
		use_up_metadata();
	fake_sys_fail(op->a & ~(uint32_t)FAKE_SYS_USED, (op->imm & 63) + 1, (op->b & 1) != 0);
	p->faults = true;
}

void
sg_prog_heal(struct sg_prog *p)
{
	fake_sys_fail(0, 0, false);
	p->faults = false;
}

static int
in_child(void)
{
	return 0;
}

static int
in_parent(void)
{
	return 1;
}

/* Goes on as the child does, where the other threads are no more and what was theirs
 * is left as it was, or as the parent. */
static void
do_fork(struct sg_prog *p, const struct sgf_op *op)
{
	bool child = (op->a & 3) != 0;

	SG_CHECK(KEPT, proc_fork(child ? in_child : in_parent) == !child, "fork said something else");
	sg_heap_forked();
	observe(p, child);
}

static void
whole_heap_op(struct sg_prog *p, const struct sgf_op *op, enum sg_op kind)
{
	switch (kind) {
	case OP_TRIM:
		sg_malloc_trim(op->imm);
		break;
	case OP_SCAVENGE:
		mheap_scavenge_all(&mheap_);
		break;
	case OP_TICK:
		sg_note(mheap_scavenge_tick(&mheap_));
		break;
	case OP_ADVANCE:
		fake_sys_advance((uint64_t)op->imm << (op->a & 15));
		break;
	case OP_EXIT:
		sg_heap_exit(op->thread);
		break;
	case OP_FLUSH:
		mheap_flush_quarantine(&mheap_);
		break;
	case OP_VERIFY:
		sg_heap_verify();
		/* sees no more, and costs as much */
		SG_CHECK(VERIFY, (op->a & 7) != 0 || sg_verify_dies || spanguard_verify() == 0,
		    "the program's own call");
		break;
	case OP_CHECK:
		sg_prog_check_objects(p);
		break;
	case OP_STATS:
		sg_prog_check_stats(p);
		check_stats_text();
		break;
	case OP_FORK:
		do_fork(p, op);
		break;
	case OP_MORE:
		sg_prog_more(p, op);
		break;
	case OP_FAIL:
		fail_calls(p, op);
		break;
	case OP_HEAL:
		sg_prog_heal(p);
		break;
	default:
		break;
	}
}

static void
object_op(struct sg_prog *p, const struct sgf_op *op, enum sg_op kind)
{
	struct request r = { .op = kind, .bytes = sg_prog_size(p, op), .align = align_of(op) };

	switch (kind) {
	case OP_CALLOC:
	case OP_CALLOC_NOSCAN:
		r.n = elements(op, r.bytes, &r.bytes);
		do_alloc(p, op->handle, &r);
		break;
	case OP_REALLOCARRAY:
		r.n = elements(op, r.bytes, &r.bytes);
		do_realloc(p, op->handle, &r);
		break;
	case OP_REALLOC:
	case OP_REALLOC_NOSCAN:
		do_realloc(p, op->handle, &r);
		break;
	case OP_MALLOC:
	case OP_NOSCAN:
	case OP_NEW:
	case OP_VALLOC:
	case OP_PVALLOC:
		r.align = 0;
		do_alloc(p, op->handle, &r);
		break;
	case OP_USABLE:
		if (p->object[op->handle].p != NULL)
			SG_CHECK(USABLE, call_usable(p->object[op->handle].p) ==
			    p->object[op->handle].usable, "it changed");
		break;
	default:
		do_alloc(p, op->handle, &r);
	}
}

/* ---- how an op enters ---- */

static bool
may_come_in_a_handler(enum sg_op k)
{
	return k <= OP_USABLE || k == OP_NEW || k == OP_DELETE || k == OP_DELETE_SIZED;
}

static void
one_op(struct sg_prog *p, const struct sgf_op *op, enum sg_op kind)
{
	if (kind >= OP_FREE && kind <= OP_FREE_ALIGNED_SIZED)
		do_free(p, op->handle, kind);
	else if (kind == OP_DELETE || kind == OP_DELETE_SIZED)
		do_free(p, op->handle, kind);
	else if (kind <= OP_USABLE || kind == OP_NEW)
		object_op(p, op, kind);
	else if (kind == OP_BURST || kind == OP_BURST_ZERO)
		burst(p, op, kind);
	else if (kind == OP_BURST_FREE)
		burst_free(p, op);
	else
		whole_heap_op(p, op, kind);
}

/* As from a signal handler that came while the thread was inside malloc: on the
 * fast path, or on the slow path with the cache locked. */
static void
in_a_handler(struct sg_prog *p, const struct sgf_op *op, enum sg_op kind, struct mcache *c)
{
	if (p->next_reenter == OP_ENTER_FAST) {
		c->busy = CACHE_FAST;
		one_op(p, op, kind);
		SG_CHECK(KEPT, c->busy == CACHE_FAST, "the interrupted call lost its mark");
		c->busy = CACHE_IDLE;
		return;
	}
	mcache_enter(c);
	mutex_lock(&c->lock);
	one_op(p, op, kind);
	mutex_unlock(&c->lock);
	mcache_leave(c);
}

static void
enter_and_run(struct sg_prog *p, const struct sgf_op *op, enum sg_op kind)
{
	struct mcache *c;

	if (p->next_reenter == OP_GONE)
		sg_heap_nobody();
	c = p->next_reenter == OP_GONE ? NULL : sg_heap_use(op->thread);
	SG_CHECK(NULLNESS, c != NULL || p->next_reenter == OP_GONE || p->faults ||
	    p->config.sys.max_map_count != 0, "no cache for a thread");
	if (c != NULL && p->next_reenter != OP_MALLOC && may_come_in_a_handler(kind))
		in_a_handler(p, op, kind, c);
	else
		one_op(p, op, kind);
}

static void
now_and_then(struct sg_prog *p, size_t i)
{
	if (p->quiet || p->header.verify == 0 || i % p->header.verify != p->header.verify - 1u)
		return;
	sg_heap_verify();
	sg_prog_check_stats(p);
	sg_prog_check_objects(p);
}

void
sg_prog_step(struct sg_prog *p, size_t i)
{
	struct sgf_op op;

	sgf_read_op(p->data, p->bytes, i, &op);
	enum sg_op kind = sg_prog_op(&op);
	sg_at.op = (long)i;
	sg_at.op_name = sg_prog_language.op[op.code];
	if (kind == OP_ENTER_FAST || kind == OP_ENTER_SLOW || kind == OP_GONE) {
		p->next_reenter = p->quiet && kind == OP_ENTER_SLOW ? OP_MALLOC : kind;
		return;
	}
	enter_and_run(p, &op, kind);
	p->next_reenter = OP_MALLOC;
	now_and_then(p, i);
}

/* ---- from start to end ---- */

void
sg_prog_start_with(struct sg_prog *p, const uint8_t *data, size_t bytes,
    const struct sg_heap_config *config)
{
	memset(p, 0, sizeof(*p));
	p->data = data;
	p->bytes = bytes;
	p->nops = sgf_ops(bytes);
	sgf_read_header(data, bytes, &p->header);
	p->config = *config;
	p->next_key = p->header.seed;
	sg_heap_start(&p->config);
}

void
sg_prog_start(struct sg_prog *p, const uint8_t *data, size_t bytes)
{
	struct sgf_header h;
	struct sg_heap_config config;

	sgf_read_header(data, bytes, &h);
	sg_heap_config(&h, &config);
	sg_prog_start_with(p, data, bytes, &config);
}

void
sg_prog_free_all(struct sg_prog *p)
{
	for (unsigned t = 0; p->nlive > 0; t++) {
		if (sg_heap_use(t % SGF_THREADS) == NULL)
			sg_heap_nobody();
		sg_prog_free(p, p->live[p->nlive - 1]);
	}
}

void
sg_prog_end(struct sg_prog *p)
{
	sg_at.op = -1;
	sg_prog_heal(p);
	p->next_reenter = OP_MALLOC;
	sg_heap_verify();
	sg_prog_check_stats(p);
	sg_prog_check_objects(p);
	sg_prog_free_all(p);
	sg_heap_idle();
	sg_heap_verify();
	check_baseline(p);
}

void
sg_prog_abandon(struct sg_prog *p)
{
	while (p->nlive > 0) {
		struct sg_object *o = &p->object[p->live[p->nlive - 1]];
		uint8_t *q = o->p;
		bool boot = o->boot;
		sg_prog_forget(p, p->live[p->nlive - 1]);
		if (boot)
			sg_free(q);
	}
}

static void
run_all(void *arg)
{
	struct sg_prog *p = arg;

	for (size_t i = 0; i < p->nops; i++)
		sg_prog_step(p, i);
	sg_prog_end(p);
}

void
sg_prog_run(struct sg_prog *p, const uint8_t *data, size_t bytes)
{
	sg_prog_start(p, data, bytes);
	sg_prog_must_live(p, run_all);
}

void
sg_prog_must_live(struct sg_prog *p, void (*body)(void *))
{
	const struct die_info *d = sg_heap_try(body, p);

	if (d == NULL)
		return;
	SG_CHECK(DEATH, false, "code %d, api %s, site %s, address %#lx", (int)d->code,
	    d->api != NULL ? d->api : "-", d->site != NULL ? d->site : "-",
	    (unsigned long)d->addr);
	sg_prog_abandon(p);
}
