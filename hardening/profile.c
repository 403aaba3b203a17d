/* profile.c - see profile.h.
 *
 *   heap profile:  n: bytes [ n: bytes] @ heap_v2/EVERY     in use [ever allocated]
 *   n: bytes [n: bytes] @ 0xpc 0xpc ..                      one line a stack
 *   MAPPED_LIBRARIES:                                       /proc/self/maps */
#include "profile.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../src/atomic.h"
#include "../src/print.h"
#include "../src/sys.h"
#include "depot.h"

enum { STACKS = 1 << 16, PROBES = 64, LINE_BYTES = 2048, PATH_BYTES = 512 };

struct counts {
	atomic_u32 stack;           /* 0: unused; never changes afterwards */
	atomic_u64 allocs, alloc_bytes;
	atomic_u64 frees, free_bytes;
};

static struct {
	struct profile_config config;
	struct counts *table;
	atomic_u64 left_out;
	atomic_u32 writing;
} profile;

/* Bytes until the next sample, and the state of a random sequence. */
static _Thread_local struct {
	int64_t left;
	uint64_t random;
} thread __attribute__((tls_model("initial-exec")));

AT_ENDS void
profile_init(const struct profile_config *config)
{
	profile.config = *config;
	profile.table = NULL;
	thread.left = 0;
	thread.random = 0;
	a64_store_relaxed(&profile.left_out, 0);
	a32_store_relaxed(&profile.writing, 0);
	if (config->every_bytes != 0)
		profile.table = sys_alloc(align_up(STACKS * sizeof(*profile.table),
		    sys_page_bytes()));
}

AT_ENDS bool
profile_is_on(void)
{
	return profile.table != NULL;
}

/* ---- sampling ----------------------------------------------------------- */

static const double ln2 = 0.6931471805599453;

/* The natural logarithm of q >= 1: by the exponent, and a polynomial for the mantissa
 * (error below 2e-4). */
static double
ln_of(uint64_t q)
{
	unsigned e = 63 - (unsigned)__builtin_clzll(q);
	double m = (double)q / (double)((uint64_t)1 << e);
	double p = ((-0.056570851 * m + 0.44717955) * m - 1.4699568) * m + 2.8212026;
	return (double)e * ln2 + p * m - 1.7417939;
}

/* Exponentially distributed, mean every_bytes: the gaps of a Poisson process. */
static int64_t
draw_gap(void)
{
	if (thread.random == 0)
		sys_random(&thread.random, sizeof(thread.random));
	thread.random = thread.random * 6364136223846793005u + 1442695040888963407u;
	double gap = (26 * ln2 - ln_of((thread.random >> 38) + 1)) *
	    (double)profile.config.every_bytes;
	return gap < 1 ? 1 : (int64_t)gap;
}

bool
profile_takes(size_t bytes)
{
	if (likely(profile.table == NULL) || profile.config.every_bytes == 1)
		return true;
	if (unlikely(thread.random == 0))
		thread.left = draw_gap();
	thread.left -= (int64_t)(bytes < (size_t)1 << 62 ? bytes : (size_t)1 << 62);
	if (likely(thread.left > 0))
		return false;
	thread.left = draw_gap();
	return true;
}

bool
profile_takes_frees(void)
{
	return profile.table == NULL || profile.config.every_bytes == 1;
}

/* ---- counting ----------------------------------------------------------- */

static struct counts *
counts_of(uint32_t stack, bool make)
{
	uint32_t at = (uint32_t)(stack * 2654435761u) % STACKS;
	for (uint32_t i = 0; i < PROBES; i++) {
		struct counts *c = &profile.table[(at + i) % STACKS];
		uint32_t have = a32_load_acquire(&c->stack);
		if (have == 0 && (!make || a32_cas(&c->stack, &have, stack)))
			return make ? c : NULL;
		if (have == stack)
			return c;
	}
	return NULL;
}

void
profile_alloc(uint32_t stack, size_t bytes)
{
	if (profile.table == NULL || stack == 0)
		return;
	struct counts *c = counts_of(stack, true);
	if (c == NULL) {
		a64_fetch_add(&profile.left_out, 1);
		return;
	}
	a64_fetch_add(&c->allocs, 1);
	a64_fetch_add(&c->alloc_bytes, bytes);
}

void
profile_free(uint32_t stack, size_t bytes)
{
	struct counts *c = profile.table != NULL && stack != 0 ? counts_of(stack, false) : NULL;
	if (c == NULL)
		return;
	a64_fetch_add(&c->frees, 1);
	a64_fetch_add(&c->free_bytes, bytes);
}

/* ---- writing ------------------------------------------------------------ */

struct sum {
	uint64_t n, bytes, all_n, all_bytes;
};

/* frees are read first: what is freed meanwhile is not in them, so none is more. */
static struct sum
read_counts(const struct counts *c)
{
	uint64_t frees = a64_load_acquire(&c->frees), bytes = a64_load_acquire(&c->free_bytes);
	struct sum s = { .all_n = a64_load_acquire(&c->allocs),
		.all_bytes = a64_load_acquire(&c->alloc_bytes) };
	s.n = s.all_n > frees ? s.all_n - frees : 0;
	s.bytes = s.n != 0 && s.all_bytes > bytes ? s.all_bytes - bytes : 0;
	return s;
}

static void
put_sum(struct print *p, const struct sum *s)
{
	print_dec(p, s->n);
	print_str(p, ": ");
	print_dec(p, s->bytes);
	print_str(p, " [");
	print_dec(p, s->all_n);
	print_str(p, ": ");
	print_dec(p, s->all_bytes);
	print_str(p, "] @");
}

static bool
put_head(int fd, struct print *p)
{
	struct sum all = { 0 };
	for (size_t i = 0; i < STACKS; i++) {
		struct sum s = read_counts(&profile.table[i]);
		all.n += s.n;
		all.bytes += s.bytes;
		all.all_n += s.all_n;
		all.all_bytes += s.all_bytes;
	}
	print_str(p, "heap profile: ");
	put_sum(p, &all);
	print_str(p, profile.config.every_bytes == 1 ? " heapprofile\n" : " heap_v2/");
	if (profile.config.every_bytes != 1) {
		print_dec(p, profile.config.every_bytes);
		print_char(p, '\n');
	}
	return print_flush(p, fd);
}

/* Readers take 1 off each pc but the first, to get into the call: ours are there. */
static bool
put_stack(int fd, struct print *p, const struct counts *c)
{
	uint32_t n;
	struct sum s = read_counts(c);
	const uintptr_t *pcs = depot_get(a32_load_acquire(&c->stack), &n);
	if (pcs == NULL || s.all_n == 0)
		return true;
	put_sum(p, &s);
	for (uint32_t i = 0; i < n; i++) {
		print_char(p, ' ');
		print_hex(p, pcs[i] + 1);
	}
	print_char(p, '\n');
	return print_flush(p, fd);
}

static void
put_maps(int to, char *buf)
{
	long from = syscall(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC), n;
	while (from >= 0 && (n = syscall(SYS_read, from, buf, LINE_BYTES)) > 0)
		if (!print_write(to, buf, (size_t)n))
			break;
	if (from >= 0)
		syscall(SYS_close, from);
}

static int
open_file(void)
{
	char path[PATH_BYTES];
	struct print p;
	print_init(&p, path, sizeof(path));
	for (const char *s = profile.config.file; *s != 0; s++)
		if (s[0] == '%' && s[1] == 'p') {
			print_dec(&p, (uint64_t)syscall(SYS_getpid));
			s++;
		} else {
			print_char(&p, *s);
		}
	return (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
	    0644);
}

AT_ENDS void
profile_write(void)
{
	static char line[LINE_BYTES];
	struct print p;
	int saved = errno;
	uint32_t nobody = 0;
	if (profile.table == NULL || !a32_cas(&profile.writing, &nobody, 1))
		return;
	int fd = open_file();
	print_init(&p, line, sizeof(line));
	bool ok = fd >= 0 && put_head(fd, &p);
	for (size_t i = 0; ok && i < STACKS; i++)
		ok = put_stack(fd, &p, &profile.table[i]);
	if (ok) {
		print_str(&p, "\nMAPPED_LIBRARIES:\n");
		print_flush(&p, fd);
		put_maps(fd, line);
	}
	if (fd >= 0)
		syscall(SYS_close, fd);
	a32_store_release(&profile.writing, 0);
	errno = saved;
}
