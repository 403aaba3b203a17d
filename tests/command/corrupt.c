/* corrupt.c - wild writes into the allocator's own memory, then an error to report.
 *
 *   corrupt PLACE FIRST LAST     for each seed in turn, a child that is watched
 *
 * PLACE: meta (mappings of the allocator), bss (its static data). The child writes
 * random words there and then makes a mistake. It has to end by itself within
 * seconds, with at most 1 MiB of text, and a report that was begun has an end.
 * Prints how the children ended; exit status 1 names the first seed that did not. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <link.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { REGIONS = 256, OBJECTS = 2000, MOST_TEXT = 1 << 20, SECONDS = 10,
	MOST_SCANNED = 8 << 20 };

static struct region {
	uintptr_t start, end;
	int ours;                /* 1: static data of the library; 2: something there points here */
} region[REGIONS];
static size_t regions;
static void *object[OBJECTS];
static uint64_t chance;

static uint64_t
draw(void)
{
	chance ^= chance << 13;
	chance ^= chance >> 7;
	chance ^= chance << 17;
	return chance;
}

static struct region library;

static int
find_library(struct dl_phdr_info *info, size_t size, void *arg)
{
	if (strstr(info->dlpi_name, "libspanguard") == NULL)
		return 0;
	library.start = info->dlpi_addr;
	for (size_t i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_LOAD)
			library.end = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr +
			    info->dlpi_phdr[i].p_memsz;
	return 1;
}

/* A mapping of its static data may go on with the memory of somebody else. */
static void
add_region(uintptr_t start, uintptr_t end)
{
	int ours = start >= library.start && start < library.end;
	region[regions++] = (struct region){ start,
	    ours && end > library.end ? library.end & ~(uintptr_t)7 : end, ours };
}

static void
find_regions(void)
{
	char line[512], perms[8], name[256];
	unsigned long start, end;
	FILE *f = fopen("/proc/self/maps", "r");
	dl_iterate_phdr(find_library, NULL);
	while (fgets(line, sizeof(line), f) != NULL && regions < REGIONS) {
		name[0] = 0;
		sscanf(line, "%lx-%lx %7s %*s %*s %*s %255s", &start, &end, perms, name);
		if (strncmp(perms, "rw-p", 4) == 0 && name[0] == 0)
			add_region(start, end);
	}
	fclose(f);
}

/* By the kernel, which does not fault at a guard. */
static int
peek(uintptr_t at, uint64_t *w)
{
	struct iovec mine = { w, sizeof(*w) }, there = { (void *)at, sizeof(*w) };
	return process_vm_readv(getpid(), &mine, 1, &there, 1, 0) == (ssize_t)sizeof(*w);
}

static int
holds(const struct region *r, const void *p)
{
	return (uintptr_t)p >= r->start && (uintptr_t)p < r->end;
}

/* The thread's own memory, this program's, and the loader's list of modules. */
static int
somebody_elses(const struct region *r)
{
	int is = holds(r, &errno) || holds(r, region);
	for (struct link_map *m = _r_debug.r_map; m != NULL; m = m->l_next)
		is |= holds(r, m);
	return is;
}

static void
follow(uint64_t w)
{
	uintptr_t heap = (uintptr_t)object[0] >> 26;
	for (size_t i = 0; w >> 26 != heap && i < regions; i++)
		if (w >= region[i].start && w < region[i].end && region[i].ours == 0 &&
		    !somebody_elses(&region[i]))
			region[i].ours = 2;
}

/* The allocator's mappings are those that its static data leads to, but for the
 * heap; the loader and libc have anonymous memory, too. */
static void
find_metadata(const struct region *from)
{
	static uint64_t page[512];
	uintptr_t end = from->end - from->start < MOST_SCANNED ? from->end :
	    from->start + MOST_SCANNED;
	for (uintptr_t at = from->start; at < end; at += sizeof(page)) {
		struct iovec mine = { page, sizeof(page) }, there = { (void *)at, sizeof(page) };
		if (process_vm_readv(getpid(), &mine, 1, &there, 1, 0) != (ssize_t)sizeof(page))
			continue;
		for (size_t i = 0; i < 512; i++)
			follow(page[i]);
	}
}

static void
keep_regions(int which)
{
	size_t n = 0;
	for (int level = 1; level <= 2; level++)
		for (size_t i = 0; i < regions; i++)
			if (region[i].ours == level)
				find_metadata(&region[i]);
	for (size_t i = 0; i < regions; i++)
		if (region[i].ours == which)
			region[n++] = region[i];
	regions = n;
}

static uint64_t
changed(uint64_t w)
{
	switch (draw() % 4) {
	case 0: return draw();
	case 1: return w ^ (uint64_t)1 << draw() % 64;
	case 2: return w + draw() % 65536;
	default: return UINT64_MAX;
	}
}

/* Rather a word that is in use than one of the many that never were. */
static void
corrupt(void)
{
	size_t words = 1 + draw() % 100;
	for (size_t n = 0, tries = 0; n < words && tries < 20000; tries++) {
		size_t i = draw() % regions;
		uint64_t w;
		uintptr_t at = region[i].start + draw() % (region[i].end - region[i].start) / 8 * 8;
		if (!peek(at, &w) || (w == 0 && tries % 64 != 0))
			continue;
		*(volatile uint64_t *)at = changed(w);
		n++;
	}
}

static void
make_a_mistake(void)
{
	char *p = object[draw() % OBJECTS];
	char here;
	switch (draw() % 5) {
	case 0: free(p + 1); break;
	case 1: free(p); free(p); break;
	case 2: free(&here); break;
	case 3: malloc_usable_size(p + 8); break;
	default: p = realloc(p + 16, 100000); free(p); free(p);
	}
}

static void
child(uint64_t seed, int fd)
{
	const struct rlimit none = { 0, 0 };
	setrlimit(RLIMIT_CORE, &none);
	dup2(fd, 2);
	chance = seed * 0x9e3779b97f4a7c15u | 1;
	corrupt();
	make_a_mistake();
	_exit(0);
}

/* What the child said, up to the limit; whether it was done in time. */
static int
listen(int fd, char *text, size_t *n)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	for (;;) {
		if (poll(&p, 1, SECONDS * 1000) <= 0)
			return 0;
		ssize_t r = read(fd, text + *n, MOST_TEXT + 1 - *n);
		if (r <= 0)
			return 1;
		*n += (size_t)r;
		if (*n > MOST_TEXT)
			return 0;
	}
}

static int reported, silent, crashed, survived;

static const char *
judge(const char *text, int status)
{
	int begun = strstr(text, "==ERROR: spanguard: ") != NULL;
	int ended = strstr(text, "==ABORTING\n") != NULL ||
	    strstr(text, "spanguard: another error while this was written") != NULL;
	if (begun && !ended)
		return "a report without an end";
	if (begun && !(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT))
		return "a report, but no SIGABRT";
	reported += ended;
	survived += !ended && WIFEXITED(status);
	crashed += !ended && WIFSIGNALED(status) && WTERMSIG(status) != SIGABRT;
	silent += !ended && WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
	return NULL;
}

static void
one(uint64_t seed, char *text)
{
	int fd[2], status = 0;
	size_t n = 0;
	if (pipe(fd) != 0)
		exit(2);
	pid_t pid = fork();
	if (pid == 0) {
		close(fd[0]);
		child(seed, fd[1]);
	}
	close(fd[1]);
	int in_time = listen(fd[0], text, &n);
	text[n] = 0;
	close(fd[0]);
	if (!in_time)
		kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	const char *wrong = !in_time ? n > MOST_TEXT ? "more than 1 MiB of text" : "did not end" :
	    judge(text, status);
	if (wrong != NULL) {
		printf("seed %llu: %s, status %x\n%.2000s\n", (unsigned long long)seed, wrong,
		    status, text);
		exit(1);
	}
}

int
main(int argc, char **argv)
{
	static char text[MOST_TEXT + 2];
	for (size_t i = 0; i < OBJECTS; i++)
		object[i] = malloc(16 + i % 500);
	find_regions();
	keep_regions(strcmp(argv[1], "bss") == 0 ? 1 : 2);
	if (regions == 0)
		return 2;
	for (long seed = atol(argv[2]); argc > 3 && seed < atol(argv[3]); seed++)
		one((uint64_t)seed, text);
	printf("regions %zu reported %d silent %d crashed %d survived %d\n", regions,
	    reported, silent, crashed, survived);
	return 0;
}
