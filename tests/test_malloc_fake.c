/* test_malloc_fake.c - the malloc interface on a system of the test's making:
 * exact frees by all pairings of threads, wrong pointers of every kind, large
 * objects, tiny objects, noscan, realloc, sized frees, and every refusal of the
 * system in turn. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_die.h"
#include "fake_sys.h"
#include "heap_support.h"
#include "marena.h"
#include "msize.h"
#include "options.h"
#include "report.h"
#include "tls.h"

#define MIB ((size_t)1 << 20)

static struct mcache *me, *other;

static void
start(const struct fake_sys_config *sys, const struct heap_setup *heap)
{
	heap_stop();
	fake_sys_reset(sys);
	heap_start(heap);
	me = heap_new_cache();
	other = heap_new_cache();
	heap_use(me);
}

static int
setup(void **state)
{
	(void)state;
	start(NULL, NULL);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	heap_stop();
	return 0;
}

static char *
get(size_t bytes)
{
	char *p = mallocgc(bytes, API_MALLOC);

	assert_non_null(p);
	return p;
}

static char *
get_noscan(size_t bytes)
{
	char *p = mallocgc_noscan(bytes, API_NOSCAN);

	assert_non_null(p);
	return p;
}

static void
drop(void *p)
{
	freegc(p, API_FREE);
}

static size_t
spans(void)
{
	return a64_load_relaxed(&mheap_.spans_in_use);
}

static void
fill(char *p, size_t n, unsigned seed)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (char)(i * 31 + seed);
}

static void
check_fill(const char *p, size_t n, unsigned seed)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] != (char)(i * 31 + seed))
			fail_msg("byte %zu of %zu changed", i, n);
}

/* ---- sizes ---- */

static void
test_sizes_and_alignment(void **state)
{
	(void)state;
	for (size_t n = 0; n <= 70000; n += n < 1100 ? 1 : 61) {
		char *p = get(n);
		size_t usable = usable_size(p, API_USABLE_SIZE);
		assert_int_equal((uintptr_t)p % MALLOC_ALIGN, 0);
		assert_true(usable >= n);
		assert_int_equal(usable, size_class_round(n));
		fill(p, usable, 1);
		drop(p);
	}
	assert_int_equal(usable_size(NULL, API_USABLE_SIZE), 0);
	drop(NULL);
	heap_assert_sound();
}

static struct die_info told;
static unsigned times_told;

void
report_once(const struct die_info *info)
{
	told = *info;
	times_told++;
}

/* A size that no object can have is a fault of the program's, and said to be one. */
static void
test_too_much_is_told(void **state)
{
	char *small = get(100), *large = get(3 * MIB);

	(void)state;
	options.report_requests = true;
	for (unsigned i = 0; i < 2; i++) {
		char *p = i == 0 ? small : large;
		times_told = 0;
		assert_null(reallocgc(p, MALLOC_MAX_BYTES + 1, API_REALLOC));
		assert_int_equal(times_told, 1);
		assert_int_equal(told.code, DIE_BAD_REQUEST);
		assert_int_equal(told.given, MALLOC_MAX_BYTES + 1);
		assert_string_equal(told.api, "realloc");
		assert_null(reallocgc(p, MALLOC_MAX_BYTES, API_REALLOC));
		assert_int_equal(times_told, 1);        /* merely too much for this machine */
	}
	options.report_requests = false;
	times_told = 0;
	options.report_oom = true;
	fake_sys_fail(FAKE_SYS_CAN_FAIL, 1, true);
	errno = 0;
	assert_null(mallocgc_zeroed(100 * MIB, API_CALLOC));
	assert_int_equal(errno, ENOMEM);
	fake_sys_fail(0, 0, false);
	assert_int_equal(times_told, 1);
	assert_int_equal(told.code, DIE_OUT_OF_MEMORY);
	assert_int_equal(told.given, 100 * MIB);
	assert_string_equal(told.api, "calloc");
	assert_null(reallocgc(small, (size_t)1 << 46, API_REALLOC));
	assert_int_equal(times_told, 1);        /* no machine has so much */
	options.report_oom = false;
	times_told = 1;
	assert_null(reallocgc(small, MALLOC_MAX_BYTES + 1, API_REALLOC));
	assert_int_equal(times_told, 1);
	drop(small);
	drop(large);
}

static void
test_too_much(void **state)
{
	static const size_t sizes[] = {
		SIZE_MAX, SIZE_MAX - 4096, (size_t)PTRDIFF_MAX + 1, (size_t)PTRDIFF_MAX,
		MALLOC_MAX_BYTES, MALLOC_MAX_BYTES + 1, ADDR_LIMIT, ADDR_LIMIT - 1, (size_t)1 << 62,
	};
	char *large = get(3 * MIB);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		errno = 0;
		assert_null(mallocgc(sizes[i], API_MALLOC));
		assert_int_equal(errno, ENOMEM);
		errno = 0;
		assert_null(mallocgc_noscan(sizes[i], API_NOSCAN));
		assert_int_equal(errno, ENOMEM);
		errno = 0;
		assert_null(mallocgc_zeroed(sizes[i], API_CALLOC));
		assert_int_equal(errno, ENOMEM);
		errno = 0;
		assert_null(reallocgc(large, sizes[i], API_REALLOC));
		assert_int_equal(errno, ENOMEM);
		errno = 0;
		assert_null(mallocgc_aligned(4096, sizes[i], API_MEMALIGN));
		assert_int_equal(errno, ENOMEM);
	}
	for (unsigned shift = 44; shift < 64; shift++) {
		errno = 0;
		assert_null(mallocgc_aligned((size_t)1 << shift, 16, API_MEMALIGN));
		assert_int_equal(errno, ENOMEM);
		assert_null(mallocgc_aligned((size_t)1 << shift, 100000, API_MEMALIGN));
	}
	assert_int_equal(usable_size(large, API_USABLE_SIZE), 3 * MIB);
	drop(large);
	heap_assert_sound();
}

static void
test_aligned(void **state)
{
	(void)state;
	for (unsigned shift = 0; shift <= 24; shift++)
		for (size_t bytes = 0; bytes < 300000; bytes = bytes * 3 + 1) {
			size_t align = (size_t)1 << shift;
			char *p = mallocgc_aligned(align, bytes, API_ALIGNED_ALLOC);
			assert_non_null(p);
			assert_int_equal((uintptr_t)p & (align - 1), 0);
			assert_true(usable_size(p, API_USABLE_SIZE) >= bytes);
			fill(p, bytes, 3);
			free_sized_check(p, bytes, align, API_FREE_ALIGNED_SIZED);
		}
	heap_assert_sound();
}

static void
test_zeroed(void **state)
{
	static const size_t sizes[] = { 1, 16, 100, 1000, 30000, 40000, 3 * MIB };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		for (int round = 0; round < 300; round++) {
			size_t n = sizes[i];
			char *p = mallocgc_zeroed(n, API_CALLOC);
			assert_non_null(p);
			assert_int_equal(p[0], 0);
			assert_true(memcmp(p, p + 1, n - 1) == 0);
			if (n > 100000 && round > 3)
				round = 300;
			memset(p, 0xff, n);
			drop(p);
		}
	heap_assert_sound();
}

static void
test_errno_is_kept(void **state)
{
	(void)state;
	errno = 4711;
	char *p = get(100), *q = get(5 * MIB);
	q = reallocgc(q, 9 * MIB, API_REALLOC);
	drop(p);
	drop(q);
	drop(NULL);
	malloc_trim_all();
	assert_int_equal(errno, 4711);
}

/* ---- exact frees ---- */

enum owner_fate { OWNER_LIVES, OWNER_DEAD, OWNER_DEAD_ADOPTED };

static void
check_pairing(enum owner_fate fate, struct mcache *first, struct mcache *second, size_t bytes)
{
	char *p = get(bytes), *neighbour = get(bytes);

	if (fate != OWNER_LIVES)
		heap_exit(me);
	heap_use(other);
	if (fate == OWNER_DEAD_ADOPTED)
		get(bytes);
	heap_use(first);
	drop(p);
	heap_use(second);
	assert_true(heap_free_dies(p, DIE_DOUBLE_FREE));
	assert_true(heap_realloc_dies(p, 2 * bytes, DIE_STALE_POINTER));
	assert_true(heap_usable_dies(p, DIE_STALE_POINTER));
	assert_true(heap_free_sized_dies(p, bytes, 0, DIE_DOUBLE_FREE));
	assert_int_equal(usable_size(neighbour, API_USABLE_SIZE), size_class_round(bytes));
	heap_assert_sound();
	/* still so after the owner has taken note of it */
	if (fate == OWNER_LIVES) {
		mspan_drain(heap_span(p));
		assert_true(heap_free_dies(p, DIE_DOUBLE_FREE));
	}
	drop(neighbour);
	assert_true(heap_free_dies(neighbour, DIE_DOUBLE_FREE));
	heap_assert_sound();
}

/* Owner, another thread, a thread without a cache; the owner alive, dead, dead
 * and its span adopted by the other. */
static void
test_double_free_by_all_pairings(void **state)
{
	static const size_t sizes[] = { 16, 48, 256, 8192 };

	(void)state;
	for (size_t z = 0; z < ARRAY_LEN(sizes); z++)
		for (int fate = OWNER_LIVES; fate <= OWNER_DEAD_ADOPTED; fate++)
			for (int i = 0; i < 9; i++) {
				start(NULL, NULL);
				struct mcache *who[3] = { me, other, NULL };
				struct mcache *first = who[i / 3], *second = who[i % 3];
				if (fate != OWNER_LIVES && (first == me || second == me))
					continue;
				check_pairing((enum owner_fate)fate, first, second, sizes[z]);
			}
}

/* Handed out again, the pointer is a live object's. */
static void
test_free_after_reuse_is_the_new_objects(void **state)
{
	void *p[32];

	(void)state;
	for (int i = 0; i < 32; i++)
		p[i] = get(512);
	for (int i = 0; i < 8; i++)
		drop(p[i]);
	assert_ptr_equal(get(512), p[0]);
	drop(p[0]);
	assert_true(heap_free_dies(p[0], DIE_DOUBLE_FREE));
	heap_assert_sound();
}

static int global_object;
static const char constant_object[64] = "constant";

static void
test_foreign_pointers(void **state)
{
	char on_stack[32];
	char *libc = malloc(100);
	uintptr_t odd[] = {
		1, 8, 16, 4096, (uintptr_t)on_stack, (uintptr_t)&global_object,
		(uintptr_t)constant_object, (uintptr_t)libc, (uintptr_t)&mheap_,
		(uintptr_t)me, ADDR_LIMIT - 16, ADDR_LIMIT, ADDR_LIMIT + 4096,
		(uintptr_t)1 << 63, UINTPTR_MAX, UINTPTR_MAX - 15,
		(uintptr_t)0xdeadbeefdeadbeefu, (uintptr_t)0x5a5a5a5a5a5a5a5au,
	};

	(void)state;
	get(100);
	for (size_t i = 0; i < ARRAY_LEN(odd); i++) {
		void *p = (void *)odd[i];
		assert_true(heap_free_dies(p, DIE_INVALID_FREE));
		assert_true(heap_realloc_dies(p, 10, DIE_INVALID_FREE));
		assert_true(heap_usable_dies(p, DIE_INVALID_FREE));
		assert_true(heap_free_sized_dies(p, 10, 0, DIE_INVALID_FREE));
	}
	free(libc);
	heap_assert_sound();
}

static void
test_pointers_beside_objects(void **state)
{
	static const size_t sizes[] = { 16, 48, 80, 256, 1152, 12288, 32768 };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		for (int who = 0; who < 2; who++) {
			start(NULL, NULL);
			char *p = get(sizes[i]);
			heap_use(who ? other : me);
			for (size_t off = 1; off < sizes[i]; off = off * 2 + off % 3)
				assert_true(heap_free_dies(p + off, DIE_INTERIOR_FREE));
			assert_true(heap_free_dies(p + sizes[i] - 1, DIE_INTERIOR_FREE));
			assert_true(heap_realloc_dies(p + 8, 10, DIE_INTERIOR_FREE));
			assert_true(heap_usable_dies(p + 8, DIE_INTERIOR_FREE));
			/* behind the last slot */
			const struct mspan *s = heap_span(p);
			char *tail = (char *)s->base + s->nelems * s->elem_bytes;
			for (; tail < (char *)s->base + mspan_bytes(s); tail += 8)
				assert_true(heap_free_dies(tail, DIE_INVALID_FREE));
			/* a page that was never in a span */
			assert_true(heap_free_dies((char *)s->base + 3 * MIB, DIE_INVALID_FREE));
			assert_int_equal(usable_size(p, API_USABLE_SIZE), sizes[i]);
			heap_assert_sound();
		}
}

/* malloc never returned it: not a double free. */
static void
test_slot_that_was_never_handed_out(void **state)
{
	char *p = get(16);

	(void)state;
	assert_true(heap_free_dies(p + 16 * 700, DIE_INVALID_FREE));
	assert_true(heap_usable_dies(p + 16 * 700, DIE_INVALID_FREE));
	assert_true(heap_free_dies(p + 16 * 700 + 4, DIE_INVALID_FREE));
	heap_assert_sound();
}

/* A whole span of them is free and given back: the page remembers its class. */
static void
test_small_object_of_a_released_span(void **state)
{
	void *p[256];

	(void)state;
	for (int i = 0; i < 256; i++)
		p[i] = get(256);
	for (int i = 0; i < 256; i++)
		drop(p[i]);
	malloc_trim_all();
	assert_null(span_of((uintptr_t)p[10]));
	assert_true(heap_free_dies(p[10], DIE_DOUBLE_FREE));
	assert_true(heap_realloc_dies(p[11], 1, DIE_STALE_POINTER));
	assert_true(heap_free_dies((char *)p[10] + 16, DIE_INVALID_FREE));
	assert_true(heap_free_dies((char *)p[10] + 1, DIE_INVALID_FREE));
}

/* ---- large objects ---- */

static void
test_large_is_exact(void **state)
{
	(void)state;
	for (int who = 0; who < 3; who++) {
		start(NULL, NULL);
		struct mcache *freeing[] = { me, other, NULL };
		char *p = get(5 * MIB), *q = get(40000);
		heap_use(freeing[who]);
		for (size_t off = 1; off < 5 * MIB; off = off * 3 + 1)
			assert_true(heap_free_dies(p + off, DIE_INTERIOR_FREE));
		assert_true(heap_free_dies(p + 5 * MIB - PAGE_SIZE, DIE_INTERIOR_FREE));
		assert_true(heap_usable_dies(p + 16, DIE_INTERIOR_FREE));
		assert_true(heap_realloc_dies(q + 16, 5, DIE_INTERIOR_FREE));
		drop(p);
		assert_true(heap_free_dies(p, DIE_DOUBLE_FREE));
		assert_true(heap_realloc_dies(p, 100, DIE_STALE_POINTER));
		assert_true(heap_usable_dies(p, DIE_STALE_POINTER));
		assert_true(heap_free_dies(p + 16, DIE_INVALID_FREE));
		assert_true(heap_free_dies(p + 3 * MIB, DIE_INVALID_FREE));
		drop(q);
		assert_true(heap_free_dies(q, DIE_DOUBLE_FREE));
		assert_int_equal(spans(), 0);
		assert_int_equal(a64_load_relaxed(&mheap_.large_allocs), 2);
		assert_int_equal(a64_load_relaxed(&mheap_.large_frees), 2);
		heap_assert_sound();
	}
}

static void
test_large_resizes_in_place(void **state)
{
	char *p = get(10 * MIB);

	(void)state;
	fill(p, 10 * MIB, 5);
	assert_ptr_equal(reallocgc(p, 2 * MIB, API_REALLOC), p);
	assert_int_equal(usable_size(p, API_USABLE_SIZE), 2 * MIB);
	assert_true(heap_free_dies(p + 5 * MIB, DIE_INVALID_FREE));
	assert_ptr_equal(reallocgc(p, 6 * MIB + 1, API_REALLOC), p);
	assert_int_equal(usable_size(p, API_USABLE_SIZE), 6 * MIB + PAGE_SIZE);
	check_fill(p, 2 * MIB, 5);
	assert_ptr_equal(reallocgc(p, SMALL_MAX_BYTES + 1, API_REALLOC), p);
	check_fill(p, SMALL_MAX_BYTES, 5);
	assert_int_equal(fake_sys_calls(FAKE_SYS_MOVE), 0);
	heap_assert_sound();
	/* down to a slot: another place */
	char *q = reallocgc(p, 1000, API_REALLOC);
	assert_ptr_not_equal(q, p);
	check_fill(q, 1000, 5);
	assert_true(heap_free_dies(p, DIE_DOUBLE_FREE));
	heap_assert_sound();
}

static void
test_large_is_moved(void **state)
{
	(void)state;
	for (int refuse = 0; refuse < 2; refuse++)
		for (size_t mib = 0; mib < 4; mib += 3) {
			start(NULL, NULL);
			size_t n = mib * MIB + 500000;
			char *p = get(n), *wall = get(40000);
			fill(p, n, 9);
			if (refuse)
				fake_sys_fail(FAKE_SYS_MOVE, 1, false);
			char *q = reallocgc(p, 2 * n, API_REALLOC);
			assert_non_null(q);
			assert_ptr_not_equal(q, p);
			check_fill(q, n, 9);
			/* below a MiB it is copied, and so is what may not be moved */
			assert_int_equal(fake_sys_calls(FAKE_SYS_MOVE), n >= MIB);
			assert_int_equal(heap_span(q)->moved, n >= MIB && !refuse);
			assert_true(heap_free_dies(p, DIE_DOUBLE_FREE));
			memset(q, 1, 2 * n);
			heap_assert_sound();
			uint64_t renewed = fake_sys_calls(FAKE_SYS_RENEW);
			drop(q);
			assert_int_equal(fake_sys_calls(FAKE_SYS_RENEW) - renewed, n >= MIB && !refuse);
			drop(wall);
			assert_int_equal(spans(), 0);
			heap_assert_sound();
		}
}

static void
test_many_gib(void **state)
{
	size_t n = (size_t)20 << 30;
	char *p = get(n), *q;

	(void)state;
	p[0] = 1;
	p[n - 1] = 2;
	assert_int_equal(usable_size(p, API_USABLE_SIZE), n);
	assert_true(heap_free_dies(p + n / 2, DIE_INTERIOR_FREE));
	q = mallocgc_aligned((size_t)1 << 30, 100, API_MEMALIGN);
	assert_non_null(q);
	assert_int_equal((uintptr_t)q & (((size_t)1 << 30) - 1), 0);
	drop(p);
	drop(q);
	assert_int_equal(spans(), 0);
}

/* ---- tiny ---- */

static void
test_tiny_sizes(void **state)
{
	(void)state;
	for (size_t n = 1; n < TINY_BLOCK_BYTES; n++) {
		start(NULL, NULL);
		for (int i = 0; i < 3000; i++) {
			char *p = get_noscan(n);
			assert_int_equal((uintptr_t)p % (n == 8 ? 8 : 4), 0);
			assert_true(mspan_is_tiny(heap_span(p)));
			assert_int_equal(usable_size(p, API_USABLE_SIZE), align_up(n, 4));
			/* not across a block */
			assert_int_equal((uintptr_t)p / 16, ((uintptr_t)p + n - 1) / 16);
			memset(p, 1, n);
		}
		heap_assert_sound();
	}
	assert_false(mspan_is_tiny(heap_span(get_noscan(16))));
	assert_false(mspan_is_tiny(heap_span(get_noscan(0))));
}

static void
test_tiny_objects_do_not_overlap(void **state)
{
	enum { N = 6000 };
	static struct { unsigned char *p; size_t n; } live[N];
	uint64_t r = 11;

	(void)state;
	memset(live, 0, sizeof(live));
	for (int i = 0; i < 60000; i++) {
		size_t k = heap_rand(&r) % N;
		if (live[k].p != NULL) {
			for (size_t b = 0; b < live[k].n; b++)
				assert_int_equal(live[k].p[b], k & 0xff);
			assert_int_equal(usable_size(live[k].p, API_USABLE_SIZE),
			    align_up(live[k].n, 4));
			drop(live[k].p);
			live[k].p = NULL;
			continue;
		}
		live[k].n = 1 + heap_rand(&r) % 15;
		live[k].p = (unsigned char *)get_noscan(live[k].n);
		memset(live[k].p, (int)(k & 0xff), live[k].n);
		if (i % 10000 == 0)
			heap_assert_sound();
	}
	for (size_t k = 0; k < N; k++)
		if (live[k].p != NULL)
			drop(live[k].p);
	malloc_trim_all();
	assert_int_equal(spans(), 0);
	heap_assert_sound();
}

/* Of the old and the new block the one with more room is filled next. */
static void
test_tiny_keeps_the_roomier_block(void **state)
{
	char *a = get_noscan(4), *b, *c;

	(void)state;
	assert_int_equal((uintptr_t)a % 16, 0);
	b = get_noscan(15);                      /* fits nowhere: a block of its own */
	assert_ptr_not_equal((void *)align_down((uintptr_t)b, 16), a);
	assert_ptr_equal(get_noscan(4), a + 4);  /* a's block has more room than b's */
	assert_ptr_equal(get_noscan(4), a + 8);
	c = get_noscan(8);                       /* 4 left of a's block; c's has 8 */
	assert_int_equal((uintptr_t)c % 16, 0);
	assert_ptr_equal(get_noscan(8), c + 8);
	assert_int_equal((uintptr_t)get_noscan(4) % 16, 0);
	heap_assert_sound();
}

static void
test_tiny_frees_are_exact(void **state)
{
	(void)state;
	for (int who = 0; who < 3; who++) {
		start(NULL, NULL);
		struct mcache *freeing[] = { me, other, NULL };
		char *a = get_noscan(4), *b = get_noscan(8), *c = get_noscan(3);
		assert_ptr_equal(a + 8, b);
		heap_use(freeing[who]);
		for (size_t off = 1; off < 8; off++) {
			assert_true(heap_free_dies(b + off, DIE_INTERIOR_FREE));
			if (off < 4) {
				assert_true(heap_free_dies(a + off, DIE_INTERIOR_FREE));
				assert_true(heap_free_dies(c + off, DIE_INTERIOR_FREE));
			}
		}
		/* a block that nobody has taken */
		assert_true(heap_free_dies(a + 4096, DIE_INVALID_FREE));
		assert_true(heap_free_dies(a + 4100, DIE_INVALID_FREE));
		drop(b);
		assert_true(heap_free_dies(b, DIE_DOUBLE_FREE));
		assert_true(heap_free_dies(b + 4, DIE_INTERIOR_FREE));
		assert_true(heap_usable_dies(b, DIE_STALE_POINTER));
		assert_int_equal(usable_size(a, API_USABLE_SIZE), 4);
		drop(a);
		assert_true(heap_free_dies(a, DIE_DOUBLE_FREE));
		drop(c);
		assert_true(heap_free_dies(c, DIE_DOUBLE_FREE));
		heap_assert_sound();
	}
}

/* One granule alive keeps the block from being handed out. */
static void
test_tiny_block_waits_for_all_its_granules(void **state)
{
	enum { BLOCKS = 512 };
	static char *p[BLOCKS][4];

	(void)state;
	for (size_t b = 0; b < BLOCKS; b++)
		for (int g = 0; g < 4; g++)
			p[b][g] = get_noscan(4);
	struct mspan *s = heap_span(p[0][0]);
	assert_ptr_equal(heap_span(p[BLOCKS - 1][3]), s);
	/* every block but each third one keeps a granule, another one each time */
	size_t empty = 0;
	for (size_t b = 0; b < BLOCKS; b++) {
		for (size_t g = 0; g < 4; g++)
			if (b % 3 == 0 || g != b % 4)
				drop(p[b][g]);
		empty += b % 3 == 0;
	}
	for (size_t i = 0; i < empty * 4; i++) {
		char *q = get_noscan(4);
		size_t b = (size_t)(q - p[0][0]) / 16;
		assert_ptr_equal(heap_span(q), s);
		assert_int_equal(b % 3, 0);
	}
	assert_ptr_not_equal(heap_span(get_noscan(4)), s);
	for (size_t b = 0; b < BLOCKS; b++)
		if (b % 3 != 0)
			assert_int_equal(usable_size(p[b][b % 4], API_USABLE_SIZE), 4);
	heap_assert_sound();
}

/* The block at hand is swept away under the allocator: it must take another. */
static void
test_tiny_block_at_hand_is_swept(void **state)
{
	enum { BLOCKS = 512 };
	static char *p[BLOCKS];

	(void)state;
	for (size_t b = 0; b < BLOCKS; b++)
		p[b] = get_noscan(12);
	assert_int_equal(me->tiny, (uintptr_t)p[0]);      /* as roomy as any later one */
	for (size_t b = 0; b < BLOCKS; b++)
		drop(p[b]);
	static uint8_t taken[BLOCKS * 4];
	for (size_t i = 0; i < BLOCKS; i++) {
		char *q = get_noscan(12);
		if (heap_span(q) != heap_span(p[0]))
			break;
		for (size_t g = 0; g < 3; g++)
			assert_int_equal(taken[(size_t)(q - p[0]) / 4 + g]++, 0);
	}
	heap_assert_sound();
}

static void
test_tiny_on_64k_pages(void **state)
{
	struct fake_sys_config sys = { .page_bytes = 65536 };
	char *p, *last = NULL;

	(void)state;
	start(&sys, NULL);
	p = get_noscan(4);
	struct mspan *s = heap_span(p);
	assert_int_equal(mspan_bytes(s), 65536);
	for (size_t off = 16; off < 65536; off += 4092)
		assert_true(heap_free_dies((char *)s->base + off, DIE_INVALID_FREE));
	for (size_t i = 1; i < 65536 / 4; i++) {
		last = get_noscan(4);
		assert_ptr_equal(heap_span(last), s);
	}
	assert_int_equal((uintptr_t)last, s->base + 65532);
	drop(last);
	assert_true(heap_free_dies(last, DIE_DOUBLE_FREE));
	heap_assert_sound();
}

/* ---- noscan ---- */

static void
test_noscan_is_apart(void **state)
{
	(void)state;
	for (size_t n = 16; n < 200000; n = n * 3 / 2) {
		char *a = get(n), *b = get_noscan(n);
		assert_ptr_not_equal(heap_span(a), heap_span(b));
		assert_false(span_class_noscan(heap_span(a)->span_class));
		assert_true(span_class_noscan(heap_span(b)->span_class));
		/* realloc keeps the promise */
		b = reallocgc(b, 3 * n, API_REALLOC);
		assert_true(span_class_noscan(heap_span(b)->span_class));
		a = reallocgc(a, 3 * n, API_REALLOC);
		assert_false(span_class_noscan(heap_span(a)->span_class));
		drop(a);
		drop(b);
	}
	char *t = get_noscan(5);
	memcpy(t, "tiny", 5);
	t = reallocgc(t, 100, API_REALLOC);
	assert_string_equal(t, "tiny");
	assert_true(span_class_noscan(heap_span(t)->span_class));
	t = reallocgc(t, 3, API_REALLOC);
	assert_memory_equal(t, "tin", 3);
	assert_true(span_class_noscan(heap_span(t)->span_class));
	heap_assert_sound();
}

/* ---- realloc ---- */

static void
test_realloc_grid(void **state)
{
	static const size_t sizes[] = {
		1, 15, 16, 17, 31, 32, 33, 100, 127, 128, 129, 255, 1000, 1024, 4095, 4096,
		8191, 8192, 8193, 32767, 32768, 32769, 40960, 65536, 1000000, 2 * 1048576 + 1,
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		for (size_t j = 0; j < ARRAY_LEN(sizes); j++)
			for (int noscan = 0; noscan < 2; noscan++) {
				size_t from = sizes[i], to = sizes[j];
				char *p = noscan ? get_noscan(from) : get(from);
				fill(p, from, 7);
				p = reallocgc(p, to, API_REALLOC);
				assert_non_null(p);
				check_fill(p, from < to ? from : to, 7);
				assert_true(usable_size(p, API_USABLE_SIZE) >= to);
				/* what the class of the new size is, sized frees can tell */
				free_sized_check(p, to, 0, API_FREE_SIZED);
			}
	assert_non_null(reallocgc(NULL, 10, API_REALLOC));
	char *p = get(100);
	assert_null(reallocgc(p, 0, API_REALLOC));
	assert_true(heap_free_dies(p, DIE_DOUBLE_FREE));
	heap_assert_sound();
}

static void
test_realloc_keeps_the_object_when_refused(void **state)
{
	char *small = get(500), *large = get(300000);

	(void)state;
	fill(small, 500, 1);
	fill(large, 300000, 2);
	fake_sys_fail(FAKE_SYS_CAN_FAIL, 1, true);
	errno = 0;
	assert_null(reallocgc(small, 20 * MIB, API_REALLOC));
	assert_int_equal(errno, ENOMEM);
	assert_null(reallocgc(large, 20 * MIB, API_REALLOC));
	check_fill(small, 500, 1);
	check_fill(large, 300000, 2);
	fake_sys_fail(0, 0, false);
	heap_assert_sound();
	drop(small);
	drop(large);
}

/* ---- sized frees ---- */

static void
test_sized_frees(void **state)
{
	(void)state;
	for (size_t n = 0; n < 100000; n = n * 5 / 4 + 1) {
		free_sized_check(get(n), n, 0, API_FREE_SIZED);
		char *p = get(n);
		size_t have = usable_size(p, API_USABLE_SIZE);
		free_sized_check(p, have, 0, API_FREE_SIZED);
		p = get(n);
		/* the first size that does not belong to it, on either side */
		assert_true(heap_free_sized_dies(p, have + 1, 0, DIE_SIZE_MISMATCH));
		assert_int_equal(fake_die_info.given, have + 1);
		assert_int_equal(fake_die_info.expected, have);
		size_t below = size_class_round(n);
		while (below > 0 && size_class_round(below) == have)
			below = below > 64 ? below - 16 : below - 1;
		if (below > 0)
			assert_true(heap_free_sized_dies(p, below, 0, DIE_SIZE_MISMATCH));
		assert_true(heap_free_sized_dies(p, SIZE_MAX, 0, DIE_SIZE_MISMATCH));
		assert_int_equal(usable_size(p, API_USABLE_SIZE), have);
		drop(p);
	}
	free_sized_check(NULL, 100, 0, API_FREE_SIZED);
	heap_assert_sound();
}

static void
test_sized_frees_check_alignment(void **state)
{
	char *p = mallocgc_aligned(64, 100, API_ALIGNED_ALLOC), *q = get(16);

	(void)state;
	free_sized_check(p, 100, 64, API_FREE_ALIGNED_SIZED);
	while ((uintptr_t)q % 32 == 0)
		q = get(16);
	assert_true(heap_free_sized_dies(q, 16, 4096, DIE_ALIGN_MISMATCH));
	assert_int_equal(fake_die_info.given, 4096);
	assert_int_equal(fake_die_info.expected, 16);
	assert_true(heap_free_sized_dies(q + 1, 16, 16, DIE_INTERIOR_FREE));
	drop(q);
	/* a class that a request so aligned cannot have */
	p = get(100);
	assert_true(heap_free_sized_dies(p, 16384, (uintptr_t)p % 64 == 0 ? 64 : 16,
	    DIE_SIZE_MISMATCH));
	drop(p);
	heap_assert_sound();
}

/* ---- from a signal handler ---- */

/* The handler came in on the fast path: no lock is held. */
static void
test_handler_on_the_fast_path(void **state)
{
	char *small = get(64), *large = get(100000), *p;

	(void)state;
	me->busy = CACHE_FAST;
	p = get(64);
	assert_ptr_not_equal(aptr_load_relaxed(&heap_span(p)->owner), me);
	memset(p, 1, 64);
	drop(p);
	assert_true(heap_free_dies(p, DIE_DOUBLE_FREE));
	me->busy = CACHE_FAST;
	drop(small);
	const struct mspan *s = heap_span(small);
	assert_false(mspan_slot_live(s, heap_slot(small)));
	assert_int_equal(popcount64(a64_load_relaxed(&s->bits[heap_slot(small) / 64].remote)), 1);
	drop(large);
	assert_null(span_of((uintptr_t)large));
	assert_int_equal(me->busy, CACHE_FAST);
	me->busy = CACHE_IDLE;
	assert_true(heap_free_dies(small, DIE_DOUBLE_FREE));
	heap_assert_sound();
}

/* ... on the slow path: locks may be held, so large spans are freed later. */
static void
test_handler_on_the_slow_path(void **state)
{
	char *small = get(64), *large[3] = { get(100000), get(200000), get(300000) };
	size_t before = spans();

	(void)state;
	mutex_lock(&me->lock);
	me->busy = CACHE_SLOW;
	drop(small);
	for (int i = 0; i < 3; i++)
		drop(large[i]);
	assert_int_equal(spans(), before);
	assert_int_equal(me->busy, CACHE_SLOW);
	char *p = get(5000);
	assert_null(span_of((uintptr_t)p));
	p = reallocgc(p, 6000, API_REALLOC);
	memset(p, 1, 6000);
	drop(p);
	mutex_unlock(&me->lock);
	assert_true(heap_free_dies(large[1], DIE_DOUBLE_FREE));
	assert_true(heap_realloc_dies(large[2], 100, DIE_STALE_POINTER));
	me->busy = CACHE_SLOW;
	mcache_leave(me);
	assert_int_equal(spans(), before - 3);
	assert_int_equal(me->busy, CACHE_IDLE);
	for (int i = 0; i < 3; i++)
		assert_true(heap_free_dies(large[i], DIE_DOUBLE_FREE));
	heap_assert_sound();
}

/* ---- every refusal in turn ---- */

struct work {
	void *p[128];
	size_t n;
	size_t refused;
};

static void *
keep(struct work *w, void *p, size_t bytes)
{
	if (p == NULL) {
		assert_int_equal(errno, ENOMEM);
		w->refused++;
		return NULL;
	}
	memset(p, 0x77, bytes);
	w->p[w->n++] = p;
	errno = 0;
	return p;
}

static void
workload(struct work *w)
{
	static const size_t sizes[] = { 1, 16, 48, 256, 1000, 5000, 32768, 40000, 3 << 20 };

	errno = 0;
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		keep(w, mallocgc(sizes[i], API_MALLOC), sizes[i]);
		keep(w, mallocgc_zeroed(sizes[i], API_CALLOC), sizes[i]);
		keep(w, mallocgc_noscan(sizes[i], API_NOSCAN), sizes[i]);
	}
	keep(w, mallocgc_aligned(1 << 20, 100, API_MEMALIGN), 100);
	keep(w, mallocgc_aligned(8192, 20000, API_MEMALIGN), 20000);
	for (int i = 0; i < 10; i++)
		keep(w, mallocgc((size_t)1000 << i, API_MALLOC), (size_t)1000 << i);
	for (size_t i = 0; i < w->n; i += 3) {
		void *q = reallocgc(w->p[i], (size_t)4000 * (i + 1), API_REALLOC);
		if (q != NULL)
			w->p[i] = q;
		else
			w->refused++;
	}
	for (size_t i = 1; i < w->n; i += 4) {
		drop(w->p[i]);
		w->p[i] = w->p[--w->n];
	}
	/* a thread ends and another begins */
	heap_exit(mcache_self());
	keep(w, mallocgc(100, API_MALLOC), 100);
	malloc_trim_all();
	keep(w, mallocgc(70 << 20, API_MALLOC), 1);
}

static void
undo(struct work *w)
{
	while (w->n > 0)
		drop(w->p[--w->n]);
	malloc_trim_all();
	assert_int_equal(spans(), 0);
	heap_assert_sound();
	*w = (struct work){ .n = 0 };
}

static void
sweep_failures(const struct fake_sys_config *sys, bool onwards)
{
	static struct work w;
	uint64_t calls, any = 0;

	memset(&w, 0, sizeof(w));
	start(sys, NULL);
	heap_use(NULL);
	calls = fake_sys_calls(FAKE_SYS_CAN_FAIL);
	workload(&w);
	assert_int_equal(w.refused, 0);
	calls = fake_sys_calls(FAKE_SYS_CAN_FAIL) - calls;
	undo(&w);
	for (uint64_t n = 1; n <= calls; n++) {
		heap_stop();
		fake_sys_reset(sys);
		heap_start(NULL);
		heap_cache();
		fake_sys_fail(FAKE_SYS_CAN_FAIL, n, onwards);
		workload(&w);
		any += w.refused;
		heap_assert_sound();
		fake_sys_fail(0, 0, false);
		undo(&w);
		workload(&w);
		assert_int_equal(w.refused, 0);
		heap_assert_sound();
		undo(&w);
	}
	assert_true(any > 0);
}

static void
test_each_call_refused_once(void **state)
{
	(void)state;
	sweep_failures(NULL, false);
}

static void
test_all_calls_refused_from_one_on(void **state)
{
	(void)state;
	sweep_failures(NULL, true);
}

static void
test_each_call_refused_16k_pages_old_kernel(void **state)
{
	struct fake_sys_config sys = { .page_bytes = 16384, .no_markers = true };

	(void)state;
	sweep_failures(&sys, false);
}

/* ---- random traffic of several threads, one at a time ---- */

static void
random_traffic(const struct fake_sys_config *sys, bool randomize, int steps)
{
	enum { N = 3000, THREADS = 4 };
	static struct { unsigned char *p; size_t n; unsigned char mark; } live[N];
	struct heap_setup heap = { .randomize = randomize, .seed = 5 };
	struct mcache *t[THREADS] = { NULL };
	uint64_t r = 123;

	memset(live, 0, sizeof(live));
	start(sys, &heap);
	for (int i = 0; i < steps; i++) {
		size_t who = heap_rand(&r) % THREADS, k = heap_rand(&r) % N;
		if (heap_rand(&r) % 2000 == 0 && t[who] != NULL) {
			heap_exit(t[who]);
			t[who] = NULL;
		}
		if (t[who] == NULL)
			t[who] = heap_new_cache();
		heap_use(t[who]);
		if (live[k].p != NULL) {
			assert_int_equal(live[k].p[0], live[k].mark);
			assert_int_equal(live[k].p[live[k].n - 1], live[k].mark);
		}
		size_t n = 1 + (heap_rand(&r) >> (24 + heap_rand(&r) % 38)) % (3 * MIB);
		unsigned what = (unsigned)(heap_rand(&r) % 8);
		if (live[k].p != NULL && what == 0) {
			live[k].p = reallocgc(live[k].p, n, API_REALLOC);
			assert_int_equal(live[k].p[0], live[k].mark);
		} else if (live[k].p != NULL) {
			drop(live[k].p);
			live[k].p = NULL;
			continue;
		} else if (what < 4) {
			live[k].p = mallocgc(n, API_MALLOC);
		} else if (what < 7) {
			live[k].p = mallocgc_noscan(n, API_NOSCAN);
		} else {
			size_t align = (size_t)1 << heap_rand(&r) % 16;
			live[k].p = mallocgc_aligned(align, n, API_MEMALIGN);
			assert_int_equal((uintptr_t)live[k].p & (align - 1), 0);
		}
		assert_non_null(live[k].p);
		live[k].n = n;
		live[k].mark = (unsigned char)i;
		live[k].p[0] = live[k].p[n - 1] = (unsigned char)i;
		if (i % (steps / 8) == 0)
			heap_assert_sound();
		if (i % (steps / 4) == 0)
			malloc_trim_all();
	}
	heap_assert_sound();
	for (size_t k = 0; k < N; k++)
		if (live[k].p != NULL)
			drop(live[k].p);
	for (size_t i = 0; i < THREADS; i++)
		if (t[i] != NULL)
			heap_exit(t[i]);
	malloc_trim_all();
	assert_int_equal(spans(), 0);
	assert_int_equal(mheap_.pages.free_pages, mheap_.pages.scavenged_pages);
	heap_assert_sound();
}

static void
test_random_traffic(void **state)
{
	struct fake_sys_config big = { .page_bytes = 65536 };
	struct fake_sys_config gaps = { .place = FAKE_SYS_GAPS, .no_markers = true, .seed = 9 };

	(void)state;
	random_traffic(NULL, false, 60000);
	random_traffic(NULL, true, 60000);
	random_traffic(&big, true, 30000);
	random_traffic(&gaps, true, 30000);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_sizes_and_alignment),
		TEST(test_too_much),
		TEST(test_too_much_is_told),
		TEST(test_aligned),
		TEST(test_zeroed),
		TEST(test_errno_is_kept),
		TEST(test_double_free_by_all_pairings),
		TEST(test_free_after_reuse_is_the_new_objects),
		TEST(test_foreign_pointers),
		TEST(test_pointers_beside_objects),
		TEST(test_slot_that_was_never_handed_out),
		TEST(test_small_object_of_a_released_span),
		TEST(test_large_is_exact),
		TEST(test_large_resizes_in_place),
		TEST(test_large_is_moved),
		TEST(test_many_gib),
		TEST(test_tiny_sizes),
		TEST(test_tiny_objects_do_not_overlap),
		TEST(test_tiny_keeps_the_roomier_block),
		TEST(test_tiny_frees_are_exact),
		TEST(test_tiny_block_waits_for_all_its_granules),
		TEST(test_tiny_block_at_hand_is_swept),
		TEST(test_tiny_on_64k_pages),
		TEST(test_noscan_is_apart),
		TEST(test_realloc_grid),
		TEST(test_realloc_keeps_the_object_when_refused),
		TEST(test_sized_frees),
		TEST(test_sized_frees_check_alignment),
		TEST(test_handler_on_the_fast_path),
		TEST(test_handler_on_the_slow_path),
		TEST(test_each_call_refused_once),
		TEST(test_all_calls_refused_from_one_on),
		TEST(test_each_call_refused_16k_pages_old_kernel),
		TEST(test_random_traffic),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
