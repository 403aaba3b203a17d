/* hidden.c - see hidden.h. */
#include "hidden.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "malloc.h"

/* Frames that AddressSanitizer keeps on its own heap would be roots for ever. */
const char *__asan_default_options(void);
__attribute__((visibility("default"))) const char *
__asan_default_options(void)
{
	return "detect_stack_use_after_return=0";
}

__attribute__((no_sanitize("address", "undefined"))) NOINLINE void
scrub(void)
{
	volatile uintptr_t *top = __builtin_frame_address(0);

	for (size_t i = 1; i < 8192; i++)
		*(top - i) = 0;
}

NOINLINE uintptr_t
hidden_new(size_t bytes, bool noscan)
{
	void *p = noscan ? mallocgc_noscan(bytes, API_NOSCAN) : mallocgc(bytes, API_MALLOC);

	assert_non_null(p);
	memset(p, 0, bytes);
	return ~(uintptr_t)p;
}

NOINLINE void
hidden_link(uintptr_t in, size_t i, uintptr_t to, size_t off)
{
	((uintptr_t *)~in)[i] = to != 0 ? ~to + off : 0;
}

NOINLINE void
hidden_store(void *volatile *where, uintptr_t h, size_t off)
{
	*where = h != 0 ? (void *)(~h + off) : NULL;
}

NOINLINE void
hidden_free(uintptr_t h)
{
	freegc((void *)~h, API_FREE);
}

NOINLINE bool
is_hidden(uintptr_t v, uintptr_t h, size_t off)
{
	return v == ~h + off;
}
