/* sealed.c - what of our memory can be unmapped, protected otherwise or replaced
 * from within the process.
 *
 *   sealed           tries it on every sealed mapping: prints how many there are,
 *                    readable and writable
 *   sealed refused   under a filter that refuses mseal: there is none, all goes on
 *   sealed killed    under a filter, put up by main, that kills whoever calls it
 *
 * Exit 0: every attempt on a sealed mapping was refused, and the heap works. */
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "check.h"

enum { MSEAL = 462 };

static void
filter_mseal(unsigned what)
{
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MSEAL, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, what),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { sizeof(f) / sizeof(f[0]), f };
	check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	check(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == 0);
}

struct range {
	char *start, *end;
};

/* Mappings whose VmFlags have "sl". */
static size_t
sealed_mappings(struct range *r, size_t most, unsigned *writable)
{
	static char line[4096];
	FILE *f = fopen("/proc/self/smaps", "r");
	unsigned long start = 0, end = 0, s, e;
	char perms[8] = "", p[8];
	size_t n = 0;
	check(f != NULL);
	while (fgets(line, sizeof line, f) != NULL) {
		if (sscanf(line, "%lx-%lx %7s", &s, &e, p) == 3) {
			start = s;
			end = e;
			strcpy(perms, p);
		}
		if (strncmp(line, "VmFlags:", 8) != 0 || strstr(line, " sl") == NULL ||
		    n == most || end - start > (unsigned long)1 << 30)
			continue;
		*writable += perms[1] == 'w';
		r[n++] = (struct range){ (char *)start, (char *)end };
	}
	fclose(f);
	return n;
}

static void
must_refuse(const struct range *r)
{
	size_t bytes = (size_t)(r->end - r->start);
	char *pages[] = { r->start, r->end - 4096 };
	for (int i = 0; i < 2; i++) {
		errno = 0;
		check(mprotect(pages[i], 4096, PROT_READ | PROT_WRITE | PROT_EXEC) == -1 && errno == EPERM);
		check(munmap(pages[i], 4096) == -1 && errno == EPERM);
		check(mmap(pages[i], 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
		      MAP_FAILED && errno == EPERM);
	}
	check(mremap(r->start, bytes, 2 * bytes, MREMAP_MAYMOVE) == MAP_FAILED && errno == EPERM);
}

static void
use_the_heap(void)
{
	enum { OBJECTS = 200000 };
	static void *p[OBJECTS];
	for (int i = 0; i < OBJECTS; i++)
		check((p[i] = malloc((size_t)(i % 1000))) != NULL);
	for (int i = 0; i < OBJECTS; i++)
		free(p[i]);
}

int
main(int argc, char **argv)
{
	static struct range r[64];
	unsigned writable = 0;
	if (argc > 1 && strcmp(argv[1], "refused") == 0 && getenv("FILTERED") == NULL) {
		setenv("FILTERED", "1", 1);
		filter_mseal(SECCOMP_RET_ERRNO | EPERM);
		execv("/proc/self/exe", argv);
		return 1;
	}
	if (argc > 1 && strcmp(argv[1], "killed") == 0)
		filter_mseal(SECCOMP_RET_KILL_PROCESS);
	size_t n = sealed_mappings(r, 64, &writable);
	for (size_t i = 0; i < n; i++)
		must_refuse(&r[i]);
	use_the_heap();
	printf("%zu sealed, %u of them writable\n", n, writable);
	return 0;
}
