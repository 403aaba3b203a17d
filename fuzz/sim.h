/* sim.h - a process without a kernel, for H20: files, descriptors, signals, threads
 * and the end, as the sources that face the process see them (simlibc.h).
 *
 *   src/log.c, proc.c, ...  --simlibc.h-->  sim.c  --on-->  struct sim
 *                                                  --off->  libc
 *
 * Files are named by paths; what is not there is the real system's if it is below
 * /proc, else made when it is opened to be written. Descriptors begin at SIM_FD.
 * `plan` says what becomes of the next writes. A process that ends goes back by
 * longjmp to sim.end, with the signal or the status in sim.ended. */
#ifndef SPANGUARD_FUZZ_SIM_H
#define SPANGUARD_FUZZ_SIM_H

#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

struct stat;
struct dl_phdr_info;

enum { SIM_FD = 1000, SIM_FDS = 32, SIM_FILES = 24, SIM_PATH_BYTES = 600, SIM_FILE_BYTES = 1 << 17,
	SIM_PLAN = 8, SIM_SIGNALS = 65, SIM_QUEUED = 8, SIM_STATUS = 1000 };

enum sim_outcome { SIM_WHOLE, SIM_EINTR, SIM_HALF, SIM_ENOSPC, SIM_NOTHING, SIM_OUTCOMES };

struct sim_file {
	char path[SIM_PATH_BYTES];
	char data[SIM_FILE_BYTES];
	size_t n;
	int open_errno;            /* not 0: cannot be opened */
};

struct sim_fd {
	bool open;
	unsigned file;
	size_t at;
};

struct sim_queued {
	int pid, tid, sig;
	siginfo_t info;
};

struct sim {
	bool on;
	int pid, tid;
	unsigned files;            /* in sim_files */
	struct sim_fd fd[SIM_FDS];
	uint8_t plan[SIM_PLAN];
	unsigned planned, planned_reads;
	struct {
		int fd;
		unsigned mode;     /* S_IFSOCK, or another kind */
		uint64_t device, inode;
	} channel;
	/* signals */
	uint64_t mask, pending;
	struct sigaction action[SIM_SIGNALS];
	bool no_get, no_set;       /* sigaction is refused */
	struct sim_queued queued[SIM_QUEUED];
	unsigned n_queued;
	/* threads, fork and the end */
	void (*key_destroyed)(void *value);
	void *specific;
	bool no_specific, no_key, no_thread, no_wipe;
	void (*prepare)(void), (*parent)(void), (*child)(void);
	void *(*thread)(void *arg);
	uint64_t thread_mask;      /* with which it began */
	void (*at_exit)(int status, void *arg);
	void *at_exit_arg;
	bool no_at_exit;
	uint64_t naps, nap_ns, yields;
	void (*on_nap)(void);
	jmp_buf *end;
	int ended;                 /* a signal, or SIM_STATUS + status */
	bool at_once;              /* ... by _exit */
	uint32_t *wiped;           /* the word that is 0 in a child */
	int lost;                  /* what a leak check says */
	unsigned leak_checks, leak_asked;
	int asked_pid, asked_fd;
	bool asked_delta;
	bool (*on_wait)(const uint32_t *word);
	bool only_thread;
	/* in the middle of a call: the n-th from now on */
	uint64_t inject_at;
	void (*inject)(void);
	/* the rest */
	unsigned long auxval_secure, auxval_phdr;
	const struct dl_phdr_info *modules;
	unsigned n_modules;
	unsigned long (*valgrind)(unsigned long fallback, const unsigned long request[6]);
};

extern struct sim sim;
/* The first two are what descriptor 2 and the channel lead to. */
extern struct sim_file sim_files[SIM_FILES];
extern char **sim_environ;
/* glibc's _dl_find_object; NULL: there is none. */
void sim_forget_objects(bool forget);

/* A process that has not done anything yet. */
void sim_start(void);
void sim_stop(void);
/* The file of that name, made if it is not there; NULL: too many. */
struct sim_file *sim_file(const char *path, bool make);
unsigned sim_open_fds(void);
/* A signal comes: blocked, it waits; else its action. */
void sim_signal(int sig, siginfo_t *info, void *context);
_Noreturn void sim_end(int how);
/* What Linux calls a set of signals. */
uint64_t sim_bits(const sigset_t *set);

/* ---- for simlibc.h ---- */

struct itimerspec;
long sim_syscall(long nr, ...);
int sim_fstat(int fd, struct stat *st);
int sim_sigaction(int sig, const struct sigaction *act, struct sigaction *old);
int sim_sigmask(int how, const sigset_t *set, sigset_t *old);
int sim_thread_create(unsigned long *t, const void *attr, void *(*fn)(void *), void *arg);
int sim_key_create(unsigned *key, void (*fn)(void *));
int sim_setspecific(unsigned key, const void *value);
int sim_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));
int sim_nanosleep(const struct timespec *t, struct timespec *left);
int sim_yield(void);
unsigned long sim_auxval(unsigned long what);
int sim_iterate_phdr(int (*fn)(struct dl_phdr_info *info, size_t bytes, void *arg), void *arg);
int sim_on_exit(void (*fn)(int status, void *arg), void *arg);
int sim_gettid(void);
bool sim_futex_wait(const uint32_t *word, uint32_t value);
bool sim_is_only_thread(void);
bool sim_wipe_on_fork(void *p, size_t bytes);
int sim_leak_check(bool delta);
void sim_leak_from_signal(bool delta, int pid, int fd);
_Noreturn void sim_exit(int status);
_Noreturn void sim_exit_at_once(int status);
unsigned long sim_client_request(unsigned long fallback, unsigned long request, unsigned long a,
    unsigned long b, unsigned long c, unsigned long d, unsigned long e);

#endif
