/* snapshot.c - see snapshot.h. */
#define _GNU_SOURCE
#include "snapshot.h"

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { RANGES = 8, OS_PAGE = 4096, PAGES_MAX = 1 << 16 };

struct hot_page {
	char *to;          /* the part of the page that lies in the range */
	size_t bytes;
	size_t at;         /* offset in store */
};

static struct {
	struct { uintptr_t base, end; } range[RANGES];
	unsigned ranges;
	struct hot_page *hot;
	size_t n;
	char *store;       /* copies of hot pages */
	bool taken;
	struct sigaction before;
} snap;

void
snap_add(void *p, size_t bytes)
{
	if (snap.ranges == RANGES || snap.taken)
		abort();
	snap.range[snap.ranges].base = (uintptr_t)p;
	snap.range[snap.ranges++].end = (uintptr_t)p + bytes;
}

/* The page is in a range (two meet in some) and was not yet written to: keeps it. */
static bool
keep(uintptr_t at)
{
	uintptr_t page = at & ~(uintptr_t)(OS_PAGE - 1);
	bool any = false;

	for (unsigned i = 0; i < snap.ranges; i++) {
		uintptr_t from = snap.range[i].base > page ? snap.range[i].base : page;
		uintptr_t to = snap.range[i].end < page + OS_PAGE ? snap.range[i].end : page + OS_PAGE;
		if (from >= to || snap.n == PAGES_MAX)
			continue;
		struct hot_page *h = &snap.hot[snap.n];
		*h = (struct hot_page){ (char *)from, to - from, snap.n * OS_PAGE };
		memcpy(snap.store + h->at, h->to, h->bytes);
		snap.n++;
		any = true;
	}
	return any && mprotect((void *)page, OS_PAGE, PROT_READ | PROT_WRITE) == 0;
}

static bool
is_hot(uintptr_t at)
{
	uintptr_t page = at & ~(uintptr_t)(OS_PAGE - 1);

	for (size_t i = 0; i < snap.n; i++)
		if (((uintptr_t)snap.hot[i].to & ~(uintptr_t)(OS_PAGE - 1)) == page)
			return true;
	return false;
}

/* In place of libc's in tests/fake_sys.c, which clears by it what sys.h calls
 * forfeit: that must be seen. fuzz/sched/sched.mk renames it. */
int
tiers_madvise(void *p, size_t bytes, int advice)
{
	static const char zero[OS_PAGE];
	char *end = (char *)p + bytes;

	if (!snap.taken || advice != MADV_DONTNEED)
		return madvise(p, bytes, advice);
	for (char *at = p; at < end; at += OS_PAGE)
		if (memcmp(at, zero, OS_PAGE) != 0)
			memset(at, 0, OS_PAGE);
	return 0;
}

void (*snap_stray)(const void *at);

static void
on_fault(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	if (info->si_code == SEGV_ACCERR && snap.taken && !is_hot((uintptr_t)info->si_addr) &&
	    keep((uintptr_t)info->si_addr))
		return;
	if (snap_stray != NULL)
		snap_stray(info->si_addr);
	sigaction(SIGSEGV, &snap.before, NULL);    /* and the access is made again */
}

static void
protect_all(int prot)
{
	for (unsigned i = 0; i < snap.ranges; i++) {
		uintptr_t from = snap.range[i].base & ~(uintptr_t)(OS_PAGE - 1);
		uintptr_t to = (snap.range[i].end + OS_PAGE - 1) & ~(uintptr_t)(OS_PAGE - 1);
		if (mprotect((void *)from, to - from, prot) != 0) {
			perror("snapshot: mprotect");
			abort();
		}
	}
}

static void *
anonymous(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		abort();
	return p;
}

void
snap_take(void)
{
	struct sigaction sa = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER };

	if (snap.hot == NULL) {
		snap.hot = anonymous(PAGES_MAX * sizeof(*snap.hot));
		snap.store = anonymous((size_t)PAGES_MAX * OS_PAGE);
	}
	snap.n = 0;
	sigaction(SIGSEGV, &sa, &snap.before);
	protect_all(PROT_READ);
	snap.taken = true;
	/* pages at the ends hold what is not ours as well, for the kernel perhaps */
	for (unsigned i = 0; i < snap.ranges; i++) {
		snap_touch((void *)snap.range[i].base, 1);
		snap_touch((void *)(snap.range[i].end - 1), 1);
	}
}

void
snap_touch(void *p, size_t bytes)
{
	uintptr_t at = (uintptr_t)p & ~(uintptr_t)(OS_PAGE - 1);

	for (; at < (uintptr_t)p + bytes; at += OS_PAGE)
		if (snap.taken && !is_hot(at))
			keep(at);
}

void
snap_back(void)
{
	for (size_t i = 0; i < snap.n; i++)
		memcpy(snap.hot[i].to, snap.store + snap.hot[i].at, snap.hot[i].bytes);
}

void
snap_drop(void)
{
	if (!snap.taken)
		return;
	protect_all(PROT_READ | PROT_WRITE);
	sigaction(SIGSEGV, &snap.before, NULL);
	snap.taken = false;
}

size_t
snap_pages(void)
{
	return snap.n;
}

/* Eight sums, so that the multiplications overlap; the last step mixes them. */
uint64_t
snap_hash(void)
{
	uint64_t sum[8] = { 0 }, all = snap.n;

	for (size_t i = 0; i < snap.n; i++) {
		const char *p = snap.hot[i].to;
		size_t k = 0;
		for (; k + sizeof(sum) <= snap.hot[i].bytes; k += sizeof(sum))
			for (unsigned j = 0; j < 8; j++) {
				uint64_t v;
				memcpy(&v, p + k + 8 * j, 8);
				sum[j] = (sum[j] ^ v) * 0x9e3779b97f4a7c15u;
				sum[j] ^= sum[j] >> 29;
			}
		for (; k < snap.hot[i].bytes; k++)
			all = (all ^ (uint8_t)p[k]) * 0x100000001b3u;
	}
	for (unsigned j = 0; j < 8; j++)
		all = ((all ^ sum[j]) * 0xbf58476d1ce4e5b9u) ^ (all >> 31);
	return all;
}
