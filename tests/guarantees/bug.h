/* bug.h - one memory bug per run, chosen on the command line; the part that is
 * the same in C and C++. bug.c and bug.cc say what get() and put() are.
 *
 *   bug ROW VARIANT SIZE [LIMIT] [ok]
 *
 *   double-free       same two dead gone    free it, free it again; lent strangers: freed by
 *                     lent strangers        another thread first
 *   double-free-late  held churn            ... after 300 more allocations
 *   bad-pointer       KIND/CALL             free, realloc or usable_size of a wrong pointer
 *   sized             size align            say a wrong size or alignment
 *   slot-overflow     BYTES/WHEN            write behind a slot; free it, verify, or (retire)
 *                                           do it after the free
 *   large-overflow    over|under/read|write touch what is next to a large object
 *   span-overflow     read write            run upwards, LIMIT bytes far
 *   write-after-free  reuse verify retire   write into a freed slot, then what should notice
 *   parked-access     read write            touch what was freed and parked
 *   stale-data        any                   read what an earlier object left
 *   zero-size         API/read|write        touch an object of no bytes
 *   sampled           over|under|after/read|write    touch next to or in a sampled object
 *
 * The wrong step is made by a function named offend..., and what is to notice it
 * later by one named notice...: a stack that names them is right. "ADDR .. USABLE .." on stdout names the object
 * first. With "ok" the same steps are taken without the wrong one.
 *
 * A program that nothing stopped checks what the design promises even then: the
 * metadata agrees with itself, no two live objects overlap, and what lived
 * before holds what it held. It says "undamaged" and exits 0. */
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <dlfcn.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HELD = 512, LATER = 300, CHURN = 200000, TRIALS = 240, BAD_BYTE = 0xa5 };

typedef volatile unsigned char *touch_ptr;

static int make_mistake = 1;
static const char *row, *variant;
static size_t bytes, limit;

static void
fail(const char *why)
{
	fprintf(stderr, "bug: %s (errno %d)\n", why, errno);
	_exit(99);
}

/* The compiler knows nothing of where it came from. */
static void *
opaque(void *p)
{
	__asm__ volatile("" : "+r"(p) : : "memory");
	return p;
}

static unsigned char *
need(size_t n)
{
	void *p = opaque(get(n));
	if (p == NULL)
		fail("no memory");
	return (unsigned char *)p;
}

static void
announce(const void *p, size_t usable)
{
	printf("ADDR %#llx USABLE %zu\n", (unsigned long long)(uintptr_t)p, usable);
	fflush(stdout);
}

static int
has(const char *word)
{
	return strstr(variant, word) != NULL;
}

/* ---- what must be true of a program that goes on ---- */

static int
heap_verify(void)
{
	typedef int (*verify_fn)(void);
	void *f = dlsym(RTLD_DEFAULT, "spanguard_verify");
	return f == NULL ? 0 : ((verify_fn)f)();
}

struct held {
	unsigned char *p;
	size_t n;
	unsigned char tag;
};

static struct held held[HELD];

static void
hold(size_t i, size_t n)
{
	held[i].p = need(n);
	held[i].n = n;
	held[i].tag = (unsigned char)(i * 37 + 11);
	memset(held[i].p, held[i].tag, n);
}

static void
check_held(size_t i)
{
	for (size_t k = 0; k < held[i].n; k++)
		if (held[i].p[k] != held[i].tag)
			fail("a live object has changed");
}

static void
drop_held(size_t i)
{
	if (held[i].p != NULL)
		put(held[i].p);
	held[i].p = NULL;
	held[i].n = 0;
}

static void
check_overlap(size_t n)
{
	static struct held more[HELD];
	for (size_t i = 0; i < HELD; i++) {
		more[i].n = i % 3 == 0 ? n : 1 + (i * 2654435761u) % 3000;
		more[i].p = need(more[i].n);
		more[i].tag = (unsigned char)(i ^ 0x55);
		memset(more[i].p, more[i].tag, more[i].n);
	}
	for (size_t i = 0; i < HELD; i++) {
		for (size_t k = 0; k < more[i].n; k++)
			if (more[i].p[k] != more[i].tag)
				fail("two live objects overlap");
		put(more[i].p);
	}
}

static int
undamaged(void)
{
	if (heap_verify() != 0)
		fail("spanguard_verify() found something");
	for (size_t i = 0; i < HELD; i++)
		if (held[i].p != NULL)
			check_held(i);
	check_overlap(bytes > 65536 ? 65536 : bytes);
	for (size_t i = 0; i < HELD; i++)
		drop_held(i);
	if (heap_verify() != 0)
		fail("spanguard_verify() found something at the end");
	puts("undamaged");
	return 0;
}

/* How many objects to hold so that there are several spans of the size. */
static size_t
some(void)
{
	return bytes >= 65536 ? 8 : HELD;
}

/* ---- double-free ---- */

__attribute__((noinline)) static void
offend_free(void *p)
{
	put(opaque(p));
	__asm__ volatile("");
}

static void *
thread_alloc(void *unused)
{
	(void)unused;
	return need(bytes);
}

static void *
thread_offend(void *p)
{
	offend_free(p);
	return NULL;
}

static void *
thread_free(void *p)
{
	put(p);
	return p;
}

static void *
thread_alloc_free(void *unused)
{
	unsigned char *p = need(bytes);
	(void)unused;
	announce(p, malloc_usable_size(p));
	put(p);
	return p;
}

static void *
in_thread(void *(*job)(void *), void *arg)
{
	pthread_t t;
	void *result;
	if (pthread_create(&t, NULL, job, arg) != 0 || pthread_join(t, &result) != 0)
		fail("thread");
	return result;
}

/* dead: the owner ended before both frees; gone: it freed, then ended; lent: another
 * thread frees, then the owner; strangers: two other threads. */
static int
run_double(void)
{
	unsigned char *p;
	for (size_t i = 0; i < some(); i++)
		hold(i, bytes);
	if (has("gone")) {
		p = (unsigned char *)in_thread(thread_alloc_free, NULL);
	} else {
		p = (unsigned char *)(has("dead") ? in_thread(thread_alloc, NULL) : need(bytes));
		announce(p, malloc_usable_size(p));
		if (has("lent") || has("strangers"))
			in_thread(thread_free, p);
		else
			put(p);
	}
	if (make_mistake && (has("two") || has("strangers")))
		in_thread(thread_offend, p);
	else if (make_mistake)
		offend_free(p);
	return undamaged();
}

/* ---- double-free-late ---- */

__attribute__((noinline)) static void
victim_free(void *p)
{
	put(opaque(p));
	__asm__ volatile("");
}

/* When the slot has a new owner, the stale free takes that one's object away:
 * it is the new owner's own free that is reported. */
static int
run_double_late(void)
{
	static unsigned char *later[LATER];
	size_t n = bytes >= 65536 ? 16 : HELD;
	unsigned char *p, *reused = NULL;
	uint32_t r = (uint32_t)(uintptr_t)&r ^ (uint32_t)getpid();
	for (size_t i = 0; i < n; i++)
		hold(i, bytes);
	p = need(bytes);
	announce(p, malloc_usable_size(p));
	put(p);
	for (size_t i = 0; i < LATER; i++) {
		if (has("churn")) {
			r = r * 1664525 + 1013904223;
			size_t k = (r >> 8) % n;
			drop_held(k);
			hold(k, bytes);
		} else {
			later[i] = need(bytes);
			reused = later[i] == p ? p : reused;
		}
	}
	for (size_t i = 0; i < n; i++)
		if (held[i].p == p) {
			reused = p;
			held[i].p = NULL;
		}
	printf("REUSED %d\n", reused != NULL);
	fflush(stdout);
	if (make_mistake) {
		offend_free(p);
		if (reused != NULL)
			victim_free(p);
		return 97;
	}
	if (reused != NULL)
		put(reused);
	for (size_t i = 0; i < LATER; i++)
		if (later[i] != NULL && later[i] != reused)
			put(later[i]);
	return undamaged();
}

/* ---- bad-pointer ---- */

static int some_global[64] = { 1, 2, 3 };

static void
call_by_name(void *p)
{
	if (has("/free")) {
		put(p);
	} else if (has("/realloc")) {
		opaque(realloc(p, 77));
	} else {
		volatile size_t n = malloc_usable_size(p);
		(void)n;
	}
}

__attribute__((noinline)) static void
offend(void *p)
{
	call_by_name(opaque(p));
	__asm__ volatile("");
}

static void *
foreign_mapping(void)
{
	void *p = mmap(NULL, bytes + 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		fail("mmap");
	return (char *)p + 4096;
}

static void *
wrong_pointer(unsigned char *mine, void *on_stack)
{
	if (has("wild/"))
		return (void *)(uintptr_t)0x7e0000000120u;
	if (has("stack/"))
		return on_stack;
	if (has("global/"))
		return some_global;
	if (has("foreign/"))
		return foreign_mapping();
	if (has("interior/"))
		return mine + (bytes < 16 ? 8 : align_16(bytes / 2));
	if (has("misaligned/"))
		return mine + 1;
	if (!has("freed/"))
		fail("unknown kind");
	put(mine);
	return mine;
}

static int
run_bad_pointer(void)
{
	char on_stack[64] __attribute__((aligned(16))) = { 1 };
	unsigned char *mine;
	void *p;
	for (size_t i = 0; i < some(); i++)
		hold(i, bytes);
	mine = need(bytes);
	p = wrong_pointer(mine, on_stack);
	announce(p, 0);
	if (make_mistake)
		offend(p);
	if (p != mine)
		put(mine);
	return undamaged();
}

/* ---- sized ---- */

__attribute__((noinline)) static void
offend_sized(void *p, size_t size, size_t align)
{
	put_sized(opaque(p), size, align);
	__asm__ volatile("");
}

/* align: twice what the address happens to have is always wrong, and never so
 * large that malloc would have needed a span of its own for it. */
static int
run_sized(void)
{
	for (size_t i = 0; i < some(); i++)
		hold(i, bytes);
	unsigned char *p = need(bytes);
	size_t align = (size_t)2 << __builtin_ctzll((unsigned long long)(uintptr_t)p);
	announce(p, malloc_usable_size(p));
	if (has("align"))
		offend_sized(p, bytes, make_mistake ? align : 16);
	else
		offend_sized(p, make_mistake ? 3 * bytes + 64 : bytes, 0);
	return undamaged();
}

/* ---- slot-overflow ---- */

static int
by_address(const void *a, const void *b)
{
	uintptr_t x = (uintptr_t)((const struct held *)a)->p;
	uintptr_t y = (uintptr_t)((const struct held *)b)->p;
	return x < y ? -1 : x > y;
}

/* The index of an object whose upper neighbour, at i + 1, is the next slot. */
static size_t
find_neighbours(size_t n)
{
	size_t best = 0;
	uintptr_t least = UINTPTR_MAX;
	qsort(held, n, sizeof(held[0]), by_address);
	for (size_t i = 0; i + 1 < n; i++)
		if ((uintptr_t)(held[i + 1].p - held[i].p) < least) {
			least = (uintptr_t)(held[i + 1].p - held[i].p);
			best = i;
		}
	if (least - malloc_usable_size(held[best].p) > 64)
		fail("no two objects side by side");
	return best;
}

__attribute__((noinline)) static void
offend_write(unsigned char *p, size_t n)
{
	memset(opaque(p), BAD_BYTE, n);
	__asm__ volatile("");
}

__attribute__((noinline)) static void
notice_free(void *p)
{
	put(opaque(p));
	__asm__ volatile("");
}

/* verify counts and tells; whether to end is the program's decision. */
__attribute__((noinline)) static void
notice_verify(void)
{
	int n = heap_verify();
	if (n == 0)
		return;
	printf("VERIFY %d\n", n);
	fflush(stdout);
	_exit(42);
}

/* What the neighbours hold is the program's: it is put right again, so that
 * undamaged() sees what else has changed. */
static void
restore(const unsigned char *from, size_t n)
{
	for (size_t i = 0; i < HELD; i++)
		if (held[i].p + held[i].n > from && held[i].p < from + n)
			memset(held[i].p, held[i].tag, held[i].n);
}

/* A stale pointer that writes behind the end of what it once was: nobody frees
 * that slot any more, so it is for the span's retirement to see. */
__attribute__((noinline)) static void notice_retire(void);

static int
overflow_a_freed_slot(size_t n)
{
	size_t at = find_neighbours(HELD);
	unsigned char *p = held[at].p;
	size_t usable = malloc_usable_size(p);
	announce(p, usable);
	drop_held(at);
	if (make_mistake)
		offend_write(p + usable, n);
	restore(p + usable, n);
	notice_retire();
	return undamaged();
}

static int
run_slot_overflow(void)
{
	size_t n = (size_t)atol(variant);
	for (size_t i = 0; i < HELD; i++)
		hold(i, bytes);
	if (has("/retire"))
		return overflow_a_freed_slot(n);
	size_t at = find_neighbours(HELD);
	unsigned char *p = held[at].p;
	size_t usable = malloc_usable_size(p);
	announce(p, usable);
	if (make_mistake)
		offend_write(p + usable, n);
	else
		offend_write(p + usable - (n < usable ? n : usable), n < usable ? n : usable);
	if (has("/verify"))
		notice_verify();
	restore(p + usable, n);
	held[at].p = NULL;
	notice_free(p);
	return undamaged();
}

/* ---- large-overflow, span-overflow: what an access outside meets ---- */

__attribute__((noinline)) static void
offend_touch(touch_ptr p)
{
	p = (touch_ptr)opaque((void *)p);
	if (has("write"))
		*p = BAD_BYTE;
	else
		(void)*p;
	__asm__ volatile("");
}

__attribute__((noinline)) static void
offend_run(touch_ptr p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (has("write"))
			p[i] = BAD_BYTE;
		else
			(void)p[i];
	__asm__ volatile("");
}

static void
touch_outside_large(void)
{
	unsigned char *before = need(bytes), *p = need(bytes), *after = need(bytes);
	size_t usable = malloc_usable_size(p);
	unsigned char *wrong = has("under") ? p - 1 : p + usable;
	announce(wrong, usable);
	if (make_mistake)
		offend_touch(wrong);
	offend_touch(p);
	offend_touch(p + usable - 1);
	put(before);
	put(p);
	put(after);
}

static void
run_out_of_span(void)
{
	for (size_t i = 0; i < HELD; i++)
		hold(i, bytes);
	unsigned char *p = held[HELD / 2].p;
	size_t usable = malloc_usable_size(p);
	announce(p, usable);
	offend_run(p, make_mistake ? limit : usable);
	for (size_t i = 0; i < HELD; i++)      /* what they hold is no more to be relied on */
		memset(held[i].p, held[i].tag, held[i].n);
}

static int
run_outside(void (*bug)(void))
{
	bug();
	return undamaged();
}

/* The same in many children: how many are stopped. Nobody else may be hurt: a
 * child that is not stopped must be able to verify its heap. */
static int
run_share(void (*bug)(void))
{
	int stopped = 0;
	for (int i = 0; i < TRIALS; i++) {
		int status;
		fflush(stdout);
		pid_t child = fork();
		if (child == 0) {
			if (freopen("/dev/null", "w", stdout) == NULL || freopen("/dev/null", "w", stderr) == NULL)
				_exit(98);
			bug();
			_exit(heap_verify() == 0 ? 0 : 96);
		}
		if (child < 0 || waitpid(child, &status, 0) != child)
			fail("fork");
		if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT)
			stopped++;
		else if (status != 0)
			fail("a child was neither stopped nor undamaged");
	}
	printf("STOPPED %d OF %d\n", stopped, TRIALS);
	return 0;
}

/* ---- write-after-free ---- */

/* Returns at which allocation the slot came back, -1 if it did not before its span went. */
__attribute__((noinline)) static int
notice_reuse(unsigned char *p)
{
	for (int i = 0; i < CHURN; i++) {
		size_t k = (size_t)i * 7919 % some();
		if (held[k].p == p)
			return i;
		drop_held(k);
		hold(k, bytes);
		if (held[k].p == p)
			return i + 1;
	}
	malloc_trim(0);         /* its span may lie idle all the time: that ends here */
	return -1;
}

__attribute__((noinline)) static void
notice_retire(void)
{
	for (size_t i = 0; i < HELD; i++)
		drop_held(i);
	malloc_trim(0);
	for (size_t i = 0; i < some(); i++)
		hold(i, bytes);
	for (size_t i = 0; i < some(); i++)
		drop_held(i);
	malloc_trim(0);
}

static int
run_write_after_free(void)
{
	for (size_t i = 0; i < some(); i++)
		hold(i, bytes);
	unsigned char *p = need(bytes);
	size_t at = bytes > 16 ? bytes / 2 : 3;
	memset(p, 1, bytes);
	announce(p, malloc_usable_size(p));
	put(p);
	if (make_mistake)
		offend_write(p + at, 2);
	if (has("verify"))
		notice_verify();
	else if (has("retire"))
		notice_retire();
	else
		printf("REUSE AT %d\n", notice_reuse(p));
	fflush(stdout);
	return undamaged();
}

/* ---- parked-access ---- */

/* Small: enough spans become empty that most of them are parked. */
static int
run_parked(void)
{
	size_t n = bytes >= 65536 ? 1 : ((size_t)4 << 20) / bytes;
	unsigned char **all = (unsigned char **)mmap(NULL, n * sizeof(*all), PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uintptr_t low = UINTPTR_MAX, high = 0;
	for (size_t i = 0; i < n; i++) {
		all[i] = need(bytes);
		memset(all[i], 1, bytes);
		low = (uintptr_t)all[i] < low ? (uintptr_t)all[i] : low;
		high = (uintptr_t)all[i] > high ? (uintptr_t)all[i] : high;
	}
	printf("RANGE %#llx %#llx\n", (unsigned long long)low, (unsigned long long)high + bytes);
	announce(all[n / 2], malloc_usable_size(all[n / 2]));
	for (size_t i = 0; i < n; i++)
		put(all[i]);
	for (size_t i = 0; i < n && make_mistake; i++)
		offend_touch(all[i] + bytes / 2);
	return undamaged();
}

/* ---- stale-data ---- */

static size_t
dirty_bytes(const unsigned char *p, size_t n)
{
	size_t dirty = 0;
	for (size_t i = 0; i < n; i++)
		dirty += p[i] != 0;
	return dirty;
}

/* Fills, frees and takes again; an address that comes back shows what it holds. */
static int
run_stale(void)
{
	static unsigned char *seen[64];
	size_t reused = 0, dirty = 0;
	int rounds = bytes >= 65536 ? 2000 : 60000;
	for (int i = 0; i < rounds; i++) {
		unsigned char *p = need(bytes);
		size_t usable = malloc_usable_size(p);
		for (size_t k = 0; k < 64; k++)
			reused += seen[k] == p;
		dirty += dirty_bytes(p, usable) != 0;
		if (make_mistake)
			memset(p, 0x5a, usable);
		seen[i % 64] = i % 128 < 64 ? p : seen[i % 64];
		put(p);
	}
	printf("REUSED %zu DIRTY %zu\n", reused, dirty);
	return undamaged();
}

/* ---- zero-size ---- */

static int
run_zero(void)
{
	static unsigned char *all[1000];
	for (int i = 0; i < 1000; i++) {
		all[i] = (unsigned char *)get_zero();
		if (all[i] == NULL)
			fail("NULL for no bytes");
		for (int k = 0; k < i; k++)
			if (all[k] == all[i])
				fail("two objects of no bytes have one address");
	}
	announce(all[500], malloc_usable_size(all[500]));
	if (make_mistake)
		offend_touch(all[500]);
	for (int i = 0; i < 1000; i++)
		put(all[i]);
	return undamaged();
}

/* ---- sampled ---- */

/* The first byte outside, or NULL if the object's guard on that side is not next
 * to it: each sampled object lies against one of its two guards. */
static unsigned char *
guard_next_to(unsigned char *p, size_t usable)
{
	if (has("under"))
		return ((uintptr_t)p & 4095) == 0 ? p - 1 : NULL;
	uintptr_t end = ((uintptr_t)p + usable + 15) & ~(uintptr_t)15;
	return (end & 4095) == 0 ? (unsigned char *)end : NULL;
}

/* With sample=1 each object is sampled as long as there is a place for it. */
static int
run_sampled(void)
{
	unsigned char *all[32], *p = NULL, *at = NULL;
	for (size_t i = 0; i < 32; i++) {
		all[i] = need(bytes);
		if (at != NULL)
			continue;
		p = all[i];
		at = has("after") ? p + bytes / 2 : guard_next_to(p, malloc_usable_size(p));
	}
	if (at == NULL)
		fail("no object lies against its guard");
	announce(p, malloc_usable_size(p));
	for (size_t i = 0; i < 32; i++)
		if (has("after") || all[i] != p)
			put(all[i]);
	if (make_mistake)
		offend_touch(at);
	if (!has("after"))
		put(p);
	return undamaged();
}

/* ---- ---- */

static int
run_row(void)
{
	if (strcmp(row, "double-free") == 0)
		return run_double();
	if (strcmp(row, "double-free-late") == 0)
		return run_double_late();
	if (strcmp(row, "bad-pointer") == 0)
		return run_bad_pointer();
	if (strcmp(row, "sized") == 0)
		return run_sized();
	if (strcmp(row, "slot-overflow") == 0)
		return run_slot_overflow();
	if (strcmp(row, "large-overflow") == 0)
		return has("share") ? run_share(touch_outside_large) : run_outside(touch_outside_large);
	if (strcmp(row, "span-overflow") == 0)
		return has("share") ? run_share(run_out_of_span) : run_outside(run_out_of_span);
	if (strcmp(row, "write-after-free") == 0)
		return run_write_after_free();
	if (strcmp(row, "parked-access") == 0)
		return run_parked();
	if (strcmp(row, "stale-data") == 0)
		return run_stale();
	if (strcmp(row, "zero-size") == 0)
		return run_zero();
	if (strcmp(row, "sampled") == 0)
		return run_sampled();
	fail("unknown row");
	return 98;
}

int
main(int argc, char **argv)
{
	/* output must not come and go in the heap that is looked at */
	static char buffer[4096];
	setvbuf(stdout, buffer, _IOFBF, sizeof(buffer));
	if (argc > 1 && strcmp(argv[argc - 1], "ok") == 0) {
		make_mistake = 0;
		argc--;
	}
	if (argc < 4)
		fail("usage: bug ROW VARIANT SIZE [LIMIT] [ok]");
	row = argv[1];
	variant = argv[2];
	bytes = strtoul(argv[3], NULL, 0);
	limit = argc > 4 ? strtoul(argv[4], NULL, 0) : 0;
	return run_row();
}
