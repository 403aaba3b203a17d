/* simlibc.h - included before everything else by the sources that face the process
 * (fuzz.mk: SIM_SRC): their calls of libc and of the kernel go to sim.c, which passes
 * them on, but while H20 simulates a process. */
#ifndef SPANGUARD_FUZZ_SIMLIBC_H
#define SPANGUARD_FUZZ_SIMLIBC_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <valgrind/memcheck.h>

#include "sim.h"

/* always with six arguments */
#define syscall(...) sim_syscall(__VA_ARGS__, 0L, 0L, 0L, 0L, 0L, 0L)
#define fstat(fd, st) sim_fstat(fd, st)
#define sigaction(sig, act, old) sim_sigaction(sig, act, old)
#define pthread_sigmask(how, set, old) sim_sigmask(how, set, old)
#define pthread_create(t, attr, fn, arg) sim_thread_create(t, attr, fn, arg)
#define pthread_key_create(key, fn) sim_key_create(key, fn)
#define pthread_setspecific(key, value) sim_setspecific(key, value)
#define pthread_atfork(prepare, parent, child) sim_atfork(prepare, parent, child)
#define nanosleep(t, left) sim_nanosleep(t, left)
#define sched_yield() sim_yield()
#define getauxval(what) sim_auxval(what)
#define dl_iterate_phdr(fn, arg) sim_iterate_phdr(fn, arg)
#define on_exit sim_on_exit
#define exit(status) sim_exit(status)
#define _exit(status) sim_exit_at_once(status)
#define environ sim_environ
/* a pointer to it, which may be NULL as on older systems */
#define _dl_find_object (*sim_find_object)
#define sys_gettid sim_gettid
#define sys_futex_wait sim_futex_wait
#define sys_is_only_thread sim_is_only_thread
#define sys_wipe_on_fork sim_wipe_on_fork
#define hook_leak_check sim_leak_check
#define hook_leak_from_signal sim_leak_from_signal

#undef VALGRIND_DO_CLIENT_REQUEST_EXPR
#define VALGRIND_DO_CLIENT_REQUEST_EXPR(fallback, request, a, b, c, d, e)                  \
	sim_client_request((unsigned long)(fallback), (unsigned long)(request),             \
	    (unsigned long)(a), (unsigned long)(b), (unsigned long)(c), (unsigned long)(d), \
	    (unsigned long)(e))

#endif
