/* export_fork.c - _Fork, which glibc and musl run without atfork handlers.
 *
 * fork(3) is not here: libc calls its own _Fork from there, between the handlers
 * that proc.c registers. Only in the shared library: a static libc has one _Fork. */
#include <errno.h>
#include <unistd.h>

#include "atomic.h"
#include "dynsym.h"
#include "proc.h"

#define EXPORT __attribute__((visibility("default")))

pid_t _Fork(void);

typedef pid_t fork_function(void);

static atomic_ptr libc_fork;

/* Looked up before main, since a handler for a signal may not ask the loader. */
__attribute__((constructor)) static void
find_libc_fork(void)
{
	aptr_store_release(&libc_fork, dynsym_function("_Fork", "__libc_start_main", NULL));
}

/* Ownership of the heap's locks at the call is as with fork, see proc_fork.
 * Async-signal-safe. errno ENOSYS where libc has no _Fork. */
EXPORT pid_t
_Fork(void)
{
	if (aptr_load_acquire(&libc_fork) == NULL)
		find_libc_fork();
	fork_function *f = (fork_function *)aptr_load_acquire(&libc_fork);
	if (f == NULL) {
		errno = ENOSYS;
		return -1;
	}
	return proc_fork(f);
}
