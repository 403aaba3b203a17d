/* broken.c - planted faults in libc's malloc, to prove that stress.c sees them.
 *
 * BROKEN=twice: now and then gives an object out a second time while it lives.
 * BROKEN=smear: now and then writes into an object that is not its own.
 * BROKEN=grow:  forgets every fourth free. BROKEN=zero: calloc forgets to clear. */
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void __libc_free(void *p);

static _Atomic(char *) victim;
static atomic_ulong calls;

static int
broken(const char *how)
{
	const char *is = getenv("BROKEN");
	return is != NULL && strcmp(is, how) == 0;
}

void *
malloc(size_t n)
{
	unsigned long call = atomic_fetch_add(&calls, 1);
	if (n != 100 || call < 20000)
		return __libc_malloc(n);
	char *old = atomic_load(&victim);
	if (old != NULL && broken("twice"))
		return old;
	if (old != NULL && broken("smear"))
		old[50] ^= 1;
	char *p = __libc_malloc(n);
	atomic_store(&victim, p);
	return p;
}

void *
calloc(size_t n, size_t size)
{
	char *p = __libc_calloc(n, size);
	if (p != NULL && n * size > 100 && broken("zero") && atomic_fetch_add(&calls, 1) > 20000)
		p[0] = 1;
	return p;
}

void
free(void *p)
{
	char *was = p;
	if (p != NULL && atomic_compare_exchange_strong(&victim, &was, NULL) && broken("smear")) {
		__libc_free(p);
		return;
	}
	if (broken("grow") && atomic_fetch_add(&calls, 1) % 4 == 0)
		return;
	__libc_free(p);
}
