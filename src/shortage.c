/* shortage.c - what stands in the way of more memory: for reports of SG-OOM.
 *
 * That a call found no memory is no mistake of the program's; that it does not look
 * at the result may be the next one, and then this is the report that tells why.
 * A size above all of the machine's memory is not told: programs ask for such on
 * purpose, to see whether it fails.
 *
 * Raw calls, a buffer on the stack, no lock, like all of facts.h; errno may change. */
#define _GNU_SOURCE
#include "facts.h"

#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

enum { NEARLY_PERCENT = 95 };

bool
shortage_is_told(size_t bytes)
{
	struct sysinfo s;
	return sysinfo(&s) != 0 || bytes / s.mem_unit <= s.totalram + s.totalswap;
}

/* The beginning of a file into buf, as a string; and how many lines there are in all. */
static uint64_t
read_lines(const char *path, char *buf, size_t cap)
{
	uint64_t lines = 0;
	char more[1024];
	int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
	long n = fd >= 0 ? syscall(SYS_read, fd, buf, cap - 1) : 0;
	buf[n > 0 ? n : 0] = 0;
	for (const char *s = buf; *s != 0; s++)
		lines += *s == '\n';
	while (n > 0 && (n = syscall(SYS_read, fd, more, sizeof(more))) > 0)
		for (long i = 0; i < n; i++)
			lines += more[i] == '\n';
	if (fd >= 0)
		syscall(SYS_close, fd);
	return lines;
}

static uint64_t
number(const char **s)
{
	uint64_t v = 0;
	while (**s == ' ')
		++*s;
	for (; **s >= '0' && **s <= '9'; ++*s)
		v = v * 10 + (uint64_t)(**s - '0');
	return v;
}

void
facts_take_shortage(struct facts *f)
{
	struct shortage_facts *m = &f->shortage;
	struct rlimit as = { RLIM_INFINITY, RLIM_INFINITY };
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	char buf[128];
	const char *s = buf;
	if (f->info.code != DIE_OUT_OF_MEMORY)
		return;
	syscall(SYS_prlimit64, 0, RLIMIT_AS, NULL, &as);
	read_lines("/proc/self/statm", buf, sizeof(buf));
	m->address_bytes = number(&s) * page;
	m->resident_bytes = number(&s) * page;
	m->address_limit = as.rlim_cur != RLIM_INFINITY ? as.rlim_cur : 0;
	m->mappings = read_lines("/proc/self/maps", buf, sizeof(buf));
	read_lines("/proc/sys/vm/max_map_count", buf, sizeof(buf));
	s = buf;
	m->mappings_limit = number(&s);
	m->known = true;
	m->by_limit = m->address_limit != 0 &&
	    (f->info.given > m->address_limit || m->address_bytes > m->address_limit - f->info.given);
	m->by_mappings = m->mappings >= m->mappings_limit / 100 * NEARLY_PERCENT;
}
