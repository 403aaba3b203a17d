/* export_libc.c - the malloc interface of glibc 2.36, and C23's two.
 *
 * Here only arguments are checked as each function's manual says; the rest is
 * malloc.c's. Not linked into test builds, which keep libc's malloc.
 *
 * malloc, free and the deletes are each a body of their own, never an alias:
 * tools that redirect them tell mismatched pairs by the address. pvalloc,
 * reallocarray and the sized frees are not redirected by those tools, so they
 * call the exported functions that are. */
#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "malloc_fast.h"
#include "mstats.h"
#include "proc.h"
#include "sys.h"

#define EXPORT __attribute__((visibility("default")))

EXPORT void *
malloc(size_t bytes)
{
	return malloc_fast(bytes, API_MALLOC);
}

EXPORT void
free(void *p)
{
	free_fast(p, API_FREE);
}

EXPORT void *
calloc(size_t n, size_t size)
{
	size_t bytes;
	if (__builtin_mul_overflow(n, size, &bytes)) {
		malloc_bad_request(API_CALLOC, "product", size, n);
		errno = ENOMEM;
		return NULL;
	}
	void *p = mallocgc_zeroed(bytes, API_CALLOC);
	NO_TAIL_CALL();
	return p;
}

EXPORT void *
realloc(void *p, size_t bytes)
{
	void *q = reallocgc(p, bytes, API_REALLOC);
	NO_TAIL_CALL();
	return q;
}

EXPORT void *
reallocarray(void *p, size_t n, size_t size)
{
	size_t bytes;
	if (__builtin_mul_overflow(n, size, &bytes)) {
		malloc_bad_request(API_REALLOCARRAY, "product", size, n);
		errno = ENOMEM;
		return NULL;
	}
	void *q = realloc(p, bytes);
	NO_TAIL_CALL();
	return q;
}

EXPORT int
posix_memalign(void **out, size_t align, size_t bytes)
{
	if (!is_pow2(align) || align % sizeof(void *) != 0) {
		malloc_bad_request(API_POSIX_MEMALIGN, "alignment", align, 0);
		return EINVAL;
	}
	int saved = errno;
	void *p = mallocgc_aligned(align, bytes, API_POSIX_MEMALIGN);
	errno = saved;
	if (p == NULL)
		return ENOMEM;
	*out = p;
	return 0;
}

/* glibc rounds an alignment that is no power of two up to one. */
INLINE void *
memalign_rounded(size_t align, size_t bytes, enum malloc_api api)
{
	if (align != 0 && !is_pow2(align))
		malloc_bad_request(api, "alignment", align, 0);
	if (align > (size_t)PTRDIFF_MAX / 2 + 1) {
		errno = EINVAL;
		return NULL;
	}
	size_t a = MALLOC_ALIGN;
	while (a < align)
		a <<= 1;
	void *p = mallocgc_aligned(a, bytes, api);
	NO_TAIL_CALL();
	return p;
}

EXPORT void *
aligned_alloc(size_t align, size_t bytes)
{
	return memalign_rounded(align, bytes, API_ALIGNED_ALLOC);
}

EXPORT void *
memalign(size_t align, size_t bytes)
{
	return memalign_rounded(align, bytes, API_MEMALIGN);
}

EXPORT void *
valloc(size_t bytes)
{
	mallocinit();
	void *p = mallocgc_aligned(sys_page_bytes(), bytes, API_VALLOC);
	NO_TAIL_CALL();
	return p;
}

EXPORT void *
pvalloc(size_t bytes)
{
	mallocinit();
	size_t page = sys_page_bytes();
	if (bytes > MALLOC_MAX_BYTES) {
		errno = ENOMEM;
		return NULL;
	}
	void *p = memalign(page, bytes == 0 ? page : align_up(bytes, page));
	NO_TAIL_CALL();
	return p;
}

EXPORT size_t
malloc_usable_size(void *p)
{
	return usable_size_fast(p, API_USABLE_SIZE);
}

EXPORT void cfree(void *p);
EXPORT void
cfree(void *p)
{
	free_fast(p, API_CFREE);
}

EXPORT void free_sized(void *p, size_t bytes);
EXPORT void
free_sized(void *p, size_t bytes)
{
	free_sized_check(p, bytes, 0, API_FREE_SIZED);
	NO_TAIL_CALL();
}

EXPORT void free_aligned_sized(void *p, size_t align, size_t bytes);
EXPORT void
free_aligned_sized(void *p, size_t align, size_t bytes)
{
	free_sized_check(p, bytes, align, API_FREE_ALIGNED_SIZED);
	NO_TAIL_CALL();
}

/* ---- statistics and tuning ---- */

EXPORT int
malloc_trim(size_t pad)
{
	(void)pad;
	mallocinit();
	return malloc_trim_all() != 0;
}

/* None of glibc's parameters means anything here; 1 is "understood". */
EXPORT int
mallopt(int param, int value)
{
	(void)param;
	(void)value;
	return 1;
}

static void
read_stats(struct spanguard_stats *s)
{
	mallocinit();
	mstats_read_process(s);
}

EXPORT struct mallinfo2
mallinfo2(void)
{
	struct spanguard_stats s;
	read_stats(&s);
	struct mallinfo2 m = {
		.arena = s.span_bytes - s.large_bytes + s.free_page_bytes - s.returned_bytes,
		.ordblks = s.spans,
		.hblks = s.large_objects,
		.hblkhd = s.large_bytes,
		.uordblks = s.live_bytes - s.large_bytes,
		.fordblks = s.freed_bytes + s.free_slot_bytes + s.free_page_bytes -
		    s.returned_bytes,
		.keepcost = s.free_page_bytes - s.returned_bytes,
	};
	return m;
}

static int
clamp_int(size_t v)
{
	return v > INT32_MAX ? INT32_MAX : (int)v;
}

EXPORT struct mallinfo
mallinfo(void)
{
	struct mallinfo2 m = mallinfo2();
	struct mallinfo r = {
		.arena = clamp_int(m.arena),
		.ordblks = clamp_int(m.ordblks),
		.hblks = clamp_int(m.hblks),
		.hblkhd = clamp_int(m.hblkhd),
		.uordblks = clamp_int(m.uordblks),
		.fordblks = clamp_int(m.fordblks),
		.keepcost = clamp_int(m.keepcost),
	};
	return r;
}

/* glibc's element names where they have a meaning here. */
EXPORT int
malloc_info(int options_arg, FILE *out)
{
	struct spanguard_stats s;
	if (options_arg != 0)
		return EINVAL;
	read_stats(&s);
	int n = fprintf(out, "<malloc version=\"1\">\n<heap nr=\"0\">\n"
	    "<total type=\"rest\" count=\"%llu\" size=\"%llu\"/>\n"
	    "<total type=\"mmap\" count=\"%llu\" size=\"%llu\"/>\n"
	    "<system type=\"current\" size=\"%llu\"/>\n"
	    "<aspace type=\"total\" size=\"%llu\"/>\n</heap>\n",
	    (unsigned long long)s.spans,
	    (unsigned long long)(s.freed_bytes + s.free_slot_bytes),
	    (unsigned long long)s.large_objects, (unsigned long long)s.large_bytes,
	    (unsigned long long)(s.span_bytes + s.free_page_bytes - s.returned_bytes),
	    (unsigned long long)s.reserved_bytes);
	char text[2048];
	struct print xml;
	print_init(&xml, text, sizeof(text));
	mstats_print_xml(&s, &xml);
	int m = fprintf(out, "%s\n</malloc>\n", text);
	return n < 0 || m < 0 ? -1 : 0;
}

EXPORT void
malloc_stats(void)
{
	struct spanguard_stats s;
	read_stats(&s);
	fprintf(stderr, "spanguard:\nsystem bytes     = %10llu\nin use bytes     = %10llu\n"
	    "live objects     = %10llu\nspans            = %10llu\n"
	    "returned bytes   = %10llu\n",
	    (unsigned long long)(s.span_bytes + s.free_page_bytes - s.returned_bytes),
	    (unsigned long long)s.live_bytes, (unsigned long long)s.live_objects,
	    (unsigned long long)s.spans, (unsigned long long)s.returned_bytes);
}
