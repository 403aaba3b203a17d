/* sim.c - see sim.h. */
#define _GNU_SOURCE
#include "sim.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fake_sys.h"
#include "harness.h"
#include "../hardening/hooks.h"

enum { STDERR_FILE, CHANNEL_FILE, FIRST_FILES };

struct sim sim;
struct sim_file sim_files[SIM_FILES];
char **sim_environ;
extern int (*sim_find_object)(void *pc, void *out);
int (*sim_find_object)(void *pc, void *out);

void
sim_forget_objects(bool forget)
{
	void *p = forget ? NULL : dlsym(RTLD_DEFAULT, "_dl_find_object");

	memcpy(&sim_find_object, &p, sizeof(p));
}

uint64_t
sim_bits(const sigset_t *set)
{
	uint64_t bits;

	memcpy(&bits, set, sizeof(bits));
	return bits;
}

static void
set_bits(sigset_t *set, uint64_t bits)
{
	memset(set, 0, sizeof(*set));
	memcpy(set, &bits, sizeof(bits));
}

static uint64_t
bit_of(int sig)
{
	return (uint64_t)1 << (sig - 1);
}

/* ---- files ---- */

struct sim_file *
sim_file(const char *path, bool make)
{
	for (unsigned i = 0; i < sim.files; i++)
		if (strcmp(sim_files[i].path, path) == 0)
			return &sim_files[i];
	if (!make || sim.files == SIM_FILES || strlen(path) >= SIM_PATH_BYTES)
		return NULL;
	struct sim_file *f = &sim_files[sim.files++];
	strcpy(f->path, path);
	f->n = 0;
	f->open_errno = 0;
	return f;
}

void
sim_start(void)
{
	sim = (struct sim){ .pid = 4711, .tid = 4711, .auxval_phdr = getauxval(AT_PHDR), .on = true };
	sim_file("stderr:", true);
	sim_file("channel:", true);
	sim_environ = environ;
}

void
sim_stop(void)
{
	sim.on = false;
	sim_environ = environ;
}

/* No later than proc.c reads the environment; before that it finds none, and asks /proc. */
__attribute__((constructor(101))) static void
begin_off(void)
{
	sim_environ = environ;
	sim_forget_objects(false);
}

unsigned
sim_open_fds(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < SIM_FDS; i++)
		n += sim.fd[i].open;
	return n;
}

static long
fail(int error)
{
	errno = error;
	return -1;
}

static long
open_file(const long *a)
{
	const char *path = (const char *)a[1];
	struct sim_file *f = sim_file(path, false);
	unsigned i = 0;

	if (f == NULL && strncmp(path, "/proc/", 6) == 0 && (a[2] & O_CREAT) == 0)
		return syscall(SYS_openat, a[0], path, a[2], a[3]);
	f = f == NULL && (a[2] & O_CREAT) != 0 ? sim_file(path, true) : f;
	if (f == NULL)
		return fail(ENOENT);
	if (f->open_errno != 0)
		return fail(f->open_errno);
	while (i < SIM_FDS && sim.fd[i].open)
		i++;
	if (i == SIM_FDS)
		return fail(EMFILE);
	sim.fd[i] = (struct sim_fd){ true, (unsigned)(f - sim_files), 0 };
	return SIM_FD + (long)i;
}

static struct sim_fd *
fd_of(long fd)
{
	return fd >= SIM_FD && fd < SIM_FD + SIM_FDS && sim.fd[fd - SIM_FD].open ? &sim.fd[fd - SIM_FD] :
	    NULL;
}

/* What the plan says of a call with that many bytes. */
static long
outcome(unsigned *planned, size_t bytes)
{
	switch (*planned < SIM_PLAN ? sim.plan[(*planned)++] : SIM_WHOLE) {
	case SIM_EINTR: return fail(EINTR);
	case SIM_HALF: return (long)(bytes / 2);
	case SIM_ENOSPC: return fail(ENOSPC);
	case SIM_NOTHING: return 0;
	default: return (long)bytes;
	}
}

static long
append(struct sim_file *f, const char *s, size_t bytes)
{
	long n = outcome(&sim.planned, bytes);

	if (n > 0 && f->n + (size_t)n > SIM_FILE_BYTES)
		return fail(ENOSPC);
	if (n > 0) {
		memcpy(f->data + f->n, s, (size_t)n);
		f->n += (size_t)n;
	}
	return n;
}

static long
read_file(struct sim_fd *d, char *to, size_t bytes)
{
	const struct sim_file *f = &sim_files[d->file];
	size_t left = f->n - d->at;
	long n = outcome(&sim.planned_reads, left < bytes ? left : bytes);

	if (left != 0 && (n == 0 || (n < 0 && errno != EINTR)))
		n = 1;                /* a file does not end early, nor does its disk fill */
	if (n > 0) {
		memcpy(to, f->data + d->at, (size_t)n);
		d->at += (size_t)n;
	}
	return n;
}

static long
send_to_channel(long fd, const char *s, size_t bytes)
{
	if (fd != sim.channel.fd)
		return fail(ENOTSOCK);
	return append(&sim_files[CHANNEL_FILE], s, bytes);
}

int
sim_fstat(int fd, struct stat *st)
{
	if (!sim.on)
		return fstat(fd, st);
	memset(st, 0, sizeof(*st));
	if (fd != sim.channel.fd || sim.channel.mode == 0)
		return (int)fail(EBADF);
	st->st_mode = sim.channel.mode;
	st->st_dev = sim.channel.device;
	st->st_ino = sim.channel.inode;
	return 0;
}

/* ---- signals ---- */

int
sim_sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
	if (!sim.on)
		return sigaction(sig, act, old);
	if (sig <= 0 || sig >= SIM_SIGNALS || (act == NULL ? sim.no_get : sim.no_set))
		return (int)fail(EINVAL);
	if (old != NULL)
		*old = sim.action[sig];
	if (act != NULL)
		sim.action[sig] = *act;
	return 0;
}

static void
change_mask(int how, uint64_t bits)
{
	sim.mask = how == SIG_SETMASK ? bits : how == SIG_BLOCK ? sim.mask | bits : sim.mask & ~bits;
}

int
sim_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	if (!sim.on)
		return pthread_sigmask(how, set, old);
	if (old != NULL)
		set_bits(old, sim.mask);
	if (set != NULL)
		change_mask(how, sim_bits(set));
	return 0;
}

static long
sigprocmask_bits(const long *a)
{
	uint64_t set;

	if (a[2] != 0)
		memcpy((void *)a[2], &sim.mask, sizeof(sim.mask));
	if (a[1] != 0) {
		memcpy(&set, (const void *)a[1], sizeof(set));
		change_mask((int)a[0], set);
	}
	return 0;
}

static long
sigtimedwait_bits(const long *a)
{
	uint64_t set;

	memcpy(&set, (const void *)a[0], sizeof(set));
	if ((sim.pending & set) == 0)
		return fail(EAGAIN);
	sim.pending &= ~set;
	return SIGPIPE;
}

void
sim_signal(int sig, siginfo_t *info, void *context)
{
	struct sigaction act = sim.action[sig];
	uint64_t mask = sim.mask;

	if ((mask & bit_of(sig)) != 0) {
		sim.pending |= bit_of(sig);
		return;
	}
	if ((act.sa_flags & SA_SIGINFO) == 0 && act.sa_handler == SIG_DFL)
		sim_end(sig);
	if ((act.sa_flags & SA_SIGINFO) == 0 && act.sa_handler == SIG_IGN)
		return;
	sim.mask |= sim_bits(&act.sa_mask) | (act.sa_flags & SA_NODEFER ? 0 : bit_of(sig));
	if ((act.sa_flags & SA_SIGINFO) != 0)
		act.sa_sigaction(sig, info, context);
	else
		act.sa_handler(sig);
	sim.mask = mask;
}

static long
queue_signal(const long *a)
{
	if (sim.n_queued < SIM_QUEUED)
		sim.queued[sim.n_queued++] = (struct sim_queued){ (int)a[0], (int)a[1], (int)a[2],
			*(const siginfo_t *)a[3] };
	return 0;
}

static long
kill_thread(const long *a)
{
	siginfo_t info = { .si_signo = (int)a[2], .si_code = SI_TKILL };

	if (a[0] != sim.pid || a[1] != sim.tid)
		return fail(ESRCH);
	sim_signal((int)a[2], &info, NULL);
	return 0;
}

/* ---- time and the end ---- */

_Noreturn void
sim_end(int how)
{
	sim.ended = how;
	if (sim.end == NULL)
		sg_fail(ORACLE_MODEL, "the process ends here, by %d", how);
	longjmp(*sim.end, 1);
}

int
sim_nanosleep(const struct timespec *t, struct timespec *left)
{
	if (!sim.on)
		return nanosleep(t, left);
	sim.naps++;
	sim.nap_ns = (uint64_t)t->tv_sec * 1000000000u + (uint64_t)t->tv_nsec;
	fake_sys_advance(sim.nap_ns);
	if (sim.on_nap != NULL)
		sim.on_nap();
	return 0;
}

int
sim_yield(void)
{
	if (!sim.on)
		return sched_yield();
	sim.yields++;
	fake_sys_advance(1000000);
	if (sim.on_nap != NULL)
		sim.on_nap();
	return 0;
}

void
sim_exit(int status)
{
	if (!sim.on)
		exit(status);
	sim_end(SIM_STATUS + status);
}

void
sim_exit_at_once(int status)
{
	if (!sim.on)
		_exit(status);
	sim.at_once = true;
	sim_end(SIM_STATUS + status);
}

static long
nap(const long *a)
{
	return sim_nanosleep((const struct timespec *)a[0], NULL);
}

/* ---- system calls ---- */

static long
on_descriptor(long nr, const long *a)
{
	struct sim_fd *d = fd_of(a[0]);

	if (a[0] == 2 && nr == SYS_write)
		return append(&sim_files[STDERR_FILE], (const char *)a[1], (size_t)a[2]);
	if (d == NULL)
		return syscall(nr, a[0], a[1], a[2]);
	if (nr == SYS_close) {
		d->open = false;
		return 0;
	}
	return nr == SYS_read ? read_file(d, (char *)a[1], (size_t)a[2]) :
	    append(&sim_files[d->file], (const char *)a[1], (size_t)a[2]);
}

static long
simulated(long nr, const long *a)
{
	switch (nr) {
	case SYS_getpid: return sim.pid;
	case SYS_gettid: return sim.tid;
	case SYS_openat: return open_file(a);
	case SYS_read:
	case SYS_write:
	case SYS_close: return on_descriptor(nr, a);
	case SYS_sendto: return send_to_channel(a[0], (const char *)a[1], (size_t)a[2]);
	case SYS_rt_sigprocmask: return sigprocmask_bits(a);
	case SYS_rt_sigtimedwait: return sigtimedwait_bits(a);
	case SYS_rt_tgsigqueueinfo: return queue_signal(a);
	case SYS_tgkill: return kill_thread(a);
	case SYS_nanosleep: return nap(a);
	case SYS_exit_group: sim_end(SIM_STATUS + (int)a[0]);
	default: return syscall(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
	}
}

long
sim_syscall(long nr, ...)
{
	long a[6];
	va_list ap;

	va_start(ap, nr);
	for (size_t i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	/* an int in a long's place: the kernel looks at no more than its 32 bits */
	if (nr == SYS_openat || nr == SYS_read || nr == SYS_write || nr == SYS_close || nr == SYS_sendto)
		a[0] = (int)a[0];
	if (!sim.on)
		return syscall(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
	if (sim.inject_at != 0 && --sim.inject_at == 0)
		sim.inject();
	return simulated(nr, a);
}

/* ---- threads, fork ---- */

int
sim_thread_create(unsigned long *t, const void *attr, void *(*fn)(void *), void *arg)
{
	if (!sim.on)
		return pthread_create(t, attr, fn, arg);
	sim.thread_mask = sim.mask;
	if (sim.no_thread)
		return EAGAIN;
	sim.thread = fn;
	return 0;
}

int
sim_key_create(unsigned *key, void (*fn)(void *))
{
	if (!sim.on)
		return pthread_key_create(key, fn);
	if (sim.no_key)
		return EAGAIN;
	sim.key_destroyed = fn;
	*key = 1;
	return 0;
}

int
sim_setspecific(unsigned key, const void *value)
{
	if (!sim.on)
		return pthread_setspecific(key, value);
	if (sim.no_specific)
		return ENOMEM;
	sim.specific = (void *)(uintptr_t)value;
	return 0;
}

int
sim_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
	if (!sim.on)
		return pthread_atfork(prepare, parent, child);
	sim.prepare = prepare;
	sim.parent = parent;
	sim.child = child;
	return 0;
}

int
sim_on_exit(void (*fn)(int status, void *arg), void *arg)
{
	if (!sim.on)
		return on_exit(fn, arg);
	if (sim.no_at_exit)
		return -1;
	sim.at_exit = fn;
	sim.at_exit_arg = arg;
	return 0;
}

int
sim_gettid(void)
{
	return sim.on ? sim.tid : sys_gettid();
}

bool
sim_futex_wait(const uint32_t *word, uint32_t value)
{
	return sim.on && sim.on_wait != NULL ? sim.on_wait(word) : sys_futex_wait(word, value);
}

bool
sim_is_only_thread(void)
{
	return sim.on && sim.on_wait != NULL ? sim.only_thread : sys_is_only_thread();
}

bool
sim_wipe_on_fork(void *p, size_t bytes)
{
	if (!sim.on)
		return sys_wipe_on_fork(p, bytes);
	sim.wiped = sim.no_wipe ? NULL : p;
	return !sim.no_wipe;
}

int
sim_leak_check(bool delta)
{
	if (!sim.on)
		return hook_leak_check(delta);
	sim.leak_checks++;
	return sim.lost;
}

void
sim_leak_from_signal(bool delta, int pid, int fd)
{
	if (!sim.on) {
		hook_leak_from_signal(delta, pid, fd);
		return;
	}
	sim.leak_asked++;
	sim.asked_delta = delta;
	sim.asked_pid = pid;
	sim.asked_fd = fd;
}

/* ---- what the loader and Valgrind say ---- */

unsigned long
sim_auxval(unsigned long what)
{
	if (sim.on && (what == AT_SECURE || what == AT_PHDR))
		return what == AT_SECURE ? sim.auxval_secure : sim.auxval_phdr;
	return getauxval(what);
}

int
sim_iterate_phdr(int (*fn)(struct dl_phdr_info *info, size_t bytes, void *arg), void *arg)
{
	int r = 0;

	if (!sim.on)
		return dl_iterate_phdr(fn, arg);
	for (unsigned i = 0; i < sim.n_modules && r == 0; i++) {
		struct dl_phdr_info info = sim.modules[i];
		r = fn(&info, sizeof(info), arg);
	}
	return r;
}

unsigned long
sim_client_request(unsigned long fallback, unsigned long request, unsigned long a, unsigned long b,
    unsigned long c, unsigned long d, unsigned long e)
{
	const unsigned long all[6] = { request, a, b, c, d, e };

	return sim.on && sim.valgrind != NULL ? sim.valgrind(fallback, all) : fallback;
}
