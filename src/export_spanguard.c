/* export_spanguard.c - the functions of include/spanguard.h. */
#include <errno.h>
#include <string.h>

#include "../include/spanguard.h"
#include "malloc_fast.h"
#include "mstats.h"
#include "proc.h"
#include "verify.h"
#include "../hardening/hooks.h"

#define EXPORT __attribute__((visibility("default")))

EXPORT void *
spanguard_malloc_noscan(size_t bytes)
{
	return mallocgc_noscan(bytes, API_NOSCAN);
}

EXPORT void *
spanguard_calloc_noscan(size_t n, size_t size)
{
	size_t bytes;
	if (__builtin_mul_overflow(n, size, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	return mallocgc_noscan_zeroed(bytes, API_NOSCAN);
}

EXPORT void *
spanguard_realloc_noscan(void *p, size_t bytes)
{
	if (p == NULL)
		return mallocgc_noscan(bytes, API_NOSCAN);
	void *q = reallocgc(p, bytes, API_NOSCAN_REALLOC);
	NO_TAIL_CALL();
	return q;
}

EXPORT size_t
spanguard_usable_size(const void *p)
{
	size_t n = usable_size(p, API_SPANGUARD_USABLE_SIZE);
	NO_TAIL_CALL();
	return n;
}

EXPORT size_t
spanguard_scavenge(void)
{
	mallocinit();
	return malloc_trim_all();
}

EXPORT int
spanguard_verify(void)
{
	return verify_report();
}

static int
errno_of(int err)
{
	if (err == 0)
		return 0;
	errno = err;
	return -1;
}

EXPORT int
spanguard_root_add(const void *p, size_t bytes)
{
	return errno_of(hook_root_add(p, bytes));
}

EXPORT int
spanguard_root_remove(const void *p, size_t bytes)
{
	return errno_of(hook_root_remove(p, bytes));
}

EXPORT int
spanguard_mark_check(void)
{
	return hook_mark_check();
}

EXPORT int
spanguard_leak_check(void)
{
	return hook_leak_check(false);
}

EXPORT int
spanguard_leak_check_delta(void)
{
	return hook_leak_check(true);
}

EXPORT int
spanguard_leak_ignore(const void *p)
{
	return errno_of(hook_leak_ignore(p));
}

EXPORT void
spanguard_stats(struct spanguard_stats *out)
{
	mallocinit();
	mstats_read_process(out);
}

EXPORT size_t
spanguard_stats_json(char *buf, size_t size)
{
	char text[1536];
	struct print out;
	struct spanguard_stats s;
	spanguard_stats(&s);
	print_init(&out, text, sizeof(text));
	mstats_print_json(&s, &out);
	if (size != 0) {
		size_t n = out.len < size - 1 ? out.len : size - 1;
		memcpy(buf, text, n);
		buf[n] = '\0';
	}
	return out.len;
}
