/* sandbox.c - the heap under a seccomp filter that knows a fixed list of calls.
 *
 * argv[1] = work: anything outside WORK_CALLS kills the process; the program
 * then uses every tier of the heap. argv[1] = report: anything outside
 * REPORT_CALLS fails with EPERM, the way container filters do; the program
 * then frees twice, and the report must come out and end in SIGABRT.
 * argv[1] = nnp: only PR_SET_NO_NEW_PRIVS, then it runs argv[2] (itself).
 *
 * The two lists are the documented needs of the library after its first call:
 * whoever makes the allocator need another call has to change them here. */
#include "check.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* Memory, waiting, time, randomness - and leaving. read, openat, close and
 * newfstatat are not here: once it is up, the heap reads no file. */
#define WORK_CALLS \
	SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_madvise, SYS_brk, \
	SYS_futex, SYS_clock_gettime, SYS_getrandom, \
	SYS_gettid, SYS_getpid, SYS_write, SYS_exit, SYS_exit_group, SYS_rt_sigreturn

/* To say something and die of SIGABRT. */
#define REPORT_CALLS \
	WORK_CALLS, SYS_rt_sigprocmask, SYS_rt_sigaction, SYS_tgkill, SYS_tkill, SYS_kill, SYS_writev

#if defined(__x86_64__)
#define THIS_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define THIS_ARCH AUDIT_ARCH_AARCH64
#else
#error "no seccomp architecture known"
#endif

static void
install_filter(const long *calls, size_t count, unsigned otherwise)
{
	static struct sock_filter code[256];
	size_t n = 0;
	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
	code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, THIS_ARCH, 1, 0);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < count; i++) {
		code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[i], 0, 1);
		code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	}
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, otherwise);
	struct sock_fprog program = { .len = (unsigned short)n, .filter = code };
	check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	check(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0);
}

static void
use_every_tier(void)
{
	churn(11, 20000);
	for (size_t n = 32 << 10; n <= (size_t)256 << 20; n *= 4) {
		unsigned char *p = malloc(n);
		check(p != NULL);
		p[0] = p[n - 1] = 1;
		p = realloc(p, n * 2);
		check(p != NULL && p[0] == 1 && p[n - 1] == 1);
		p = realloc(p, n / 2);
		check(p != NULL && p[0] == 1);
		free(p);
		p = memalign(n, n);
		check(p != NULL && (uintptr_t)p % n == 0);
		free(p);
	}
	malloc_trim(0);
	churn(12, 20000);
}

__attribute__((noinline)) static void
offend(void *p)
{
	void *again = opaque(p);
	free(p);
	free(again);
	check_at(false, "the second free ends the program", __FILE__, __LINE__);
}

int
main(int argc, char **argv)
{
	static const long work_calls[] = { WORK_CALLS };
	static const long report_calls[] = { REPORT_CALLS };
	check(argc >= 2);
	churn(10, 100);
	if (strcmp(argv[1], "work") == 0) {
		install_filter(work_calls, sizeof work_calls / sizeof *work_calls, SECCOMP_RET_KILL_PROCESS);
		use_every_tier();
	} else if (strcmp(argv[1], "report") == 0) {
		void *p = malloc(100);
		printf("ADDR %p\n", p);
		fflush(stdout);
		install_filter(report_calls, sizeof report_calls / sizeof *report_calls,
		               SECCOMP_RET_ERRNO | EPERM);
		offend(p);
	} else {
		check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
		use_every_tier();
		if (argc > 2)
			execl(argv[2], argv[2], "nnp", (char *)NULL);
	}
	say("sandboxed\n");
	_exit(0);
}
