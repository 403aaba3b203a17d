/* sys_addr_only.c - see the header. */
#include "sys_addr_only.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct block {
	uintptr_t base;
	size_t bytes;
};

enum { BLOCKS_MAX = 1024 };

struct sys_addr_event sys_addr_log[SYS_ADDR_LOG_MAX];
size_t sys_addr_events;
size_t sys_addr_page_bytes = 4096;
unsigned sys_addr_refuse_used;
bool sys_addr_refuse_meta;
uint64_t sys_addr_clock_ns;
void (*sys_addr_on_unused)(uintptr_t addr, size_t bytes);

static struct block blocks[BLOCKS_MAX];
static size_t nblocks;

static void
fail(const char *what)
{
	fprintf(stderr, "sys_addr_only: %s\n", what);
	abort();
}

static bool
is_real(const void *p)
{
	for (size_t i = 0; i < nblocks; i++) {
		if ((uintptr_t)p - blocks[i].base < blocks[i].bytes)
			return true;
	}
	return false;
}

static void
record(enum sys_addr_op op, const void *p, size_t bytes)
{
	uintptr_t addr = (uintptr_t)p;
	if (bytes == 0 || addr % sys_addr_page_bytes != 0 || bytes % sys_addr_page_bytes != 0)
		fail("range is not whole OS pages");
	if (sys_addr_events == SYS_ADDR_LOG_MAX)
		fail("log is full");
	sys_addr_log[sys_addr_events++] = (struct sys_addr_event){ op, addr, bytes };
}

void
sys_addr_reset(void)
{
	for (size_t i = 0; i < nblocks; i++)
		munmap((void *)blocks[i].base, blocks[i].bytes);
	nblocks = 0;
	sys_addr_events = 0;
	sys_addr_page_bytes = 4096;
	sys_addr_refuse_used = 0;
	sys_addr_refuse_meta = false;
	sys_addr_clock_ns = 0;
	sys_addr_on_unused = NULL;
}

void
sys_init(enum sys_guard_kind guards, unsigned vma_share_percent)
{
	(void)guards;
	(void)vma_share_percent;
}

size_t
sys_page_bytes(void)
{
	return sys_addr_page_bytes;
}

enum sys_guard_kind
sys_guard_in_use(void)
{
	return SYS_GUARD_MARKER;
}

void *
sys_reserve(uintptr_t hint, size_t bytes, size_t align, bool exact)
{
	(void)hint;
	if (exact || sys_addr_refuse_meta)
		return NULL;
	if (nblocks == BLOCKS_MAX)
		fail("too many metadata blocks");
	void *m = mmap(NULL, bytes + align, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m == MAP_FAILED)
		fail("mmap");
	blocks[nblocks++] = (struct block){ (uintptr_t)m, bytes + align };
	return (void *)align_up((uintptr_t)m, align);
}

void *
sys_alloc(size_t bytes)
{
	return sys_reserve(0, bytes, 65536, false);
}

bool
sys_map(void *p, size_t bytes)
{
	(void)p;
	(void)bytes;
	return true;
}

bool
sys_used(void *p, size_t bytes)
{
	if (is_real(p))
		return true;
	if (sys_addr_refuse_used != 0 && --sys_addr_refuse_used == 0)
		return false;
	record(SYS_ADDR_USED, p, bytes);
	return true;
}

void
sys_unused(void *p, size_t bytes)
{
	if (is_real(p))
		return;
	record(SYS_ADDR_UNUSED, p, bytes);
	if (sys_addr_on_unused != NULL)
		sys_addr_on_unused((uintptr_t)p, bytes);
}

bool
sys_fault(void *p, size_t bytes)
{
	(void)p;
	(void)bytes;
	return true;
}

bool
sys_unfault(void *p, size_t bytes)
{
	(void)p;
	(void)bytes;
	return true;
}

void
sys_free(void *p, size_t bytes, enum sys_state from)
{
	(void)p;    /* real blocks go at the next reset */
	(void)bytes;
	(void)from;
}

bool
sys_move(void *to, void *from, size_t bytes)
{
	(void)to;
	(void)from;
	(void)bytes;
	return false;
}

void
sys_populate(void *p, size_t bytes)
{
	(void)p;
	(void)bytes;
}

void
sys_huge(void *p, size_t bytes)
{
	(void)p;
	(void)bytes;
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
	(void)p;
	(void)bytes;
}

void
sys_keep(void *p, size_t bytes)
{
	(void)p;
	(void)bytes;
}

void
sys_read_stats(struct sys_stats *out)
{
	memset(out, 0, sizeof *out);
}

uint64_t
sys_now_ns(void)
{
	return sys_addr_clock_ns;
}

void
sys_random(void *p, size_t bytes)
{
	memset(p, 0x5a, bytes);
}

bool
sys_futex_wait(const uint32_t *word, uint32_t value)
{
	(void)word;
	(void)value;
	fail("a single thread waits for itself");
	return false;
}

void
sys_after_fork_child(void)
{
}

bool
sys_is_only_thread(void)
{
	return true;
}

void
sys_futex_wake(const uint32_t *word, int count)
{
	(void)word;
	(void)count;
}

int
sys_gettid(void)
{
	return 1;
}

void
sys_never_hold(int sig)
{
	(void)sig;
}

void
sys_hold_signals(void)
{
}

void
sys_release_signals(void)
{
}

bool
sys_holds_signals(void)
{
	return true;
}
