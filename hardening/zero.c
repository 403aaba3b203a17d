/* zero.c - see zero.h. */
#include "zero.h"

#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "../src/die.h"
#include "../src/mspan.h"
#include "../src/sys.h"

struct zero_state zero_state_;

static bool wide_vectors(void);

/* Asked once: cpuid leaves a virtual machine for tens of microseconds. */
void
zero_init(bool enabled)
{
	static bool asked;

	if (!asked)
		zero_state_.wide = wide_vectors();
	asked = true;
	zero_state_.on = enabled;
}

/* From here on one system call is cheaper than the page faults. */
enum { POPULATE_MIN_BYTES = 16384 };

void
zero_bring_in(const struct mspan *s, void *p)
{
	size_t page = sys_page_bytes();
	uintptr_t at = (uintptr_t)p, end = at + s->elem_bytes;
	if (!zero_state_.on)
		return;
	if (s->elem_bytes >= POPULATE_MIN_BYTES) {
		at = align_down(at, page);
		sys_populate((void *)at, align_up(end, page) - at);
		return;
	}
	/* the slot is nobody's yet: an or with nothing writes and changes nothing */
	for (; at < end; at = align_down(at, page) + page)
		a64_fetch_or((atomic_u64 *)at, 0);
}

/* Vectors by the compiler: two SSE2 or NEON halves, or one AVX2 register. */
typedef uint64_t zero_lane __attribute__((vector_size(32), aligned(8), may_alias));

/* Everything is read, whatever is found: it is nearly always zero, and a loop
 * without an exit is as fast as the memory. */
INLINE bool
scan(const void *p, size_t bytes)
{
	const zero_lane *v = p;
	zero_lane sum0 = { 0 }, sum1 = { 0 };
	size_t n = bytes / sizeof(*v);
	for (; n >= 4; n -= 4, v += 4) {
		sum0 |= v[0] | v[2];
		sum1 |= v[1] | v[3];
	}
	for (; n > 0; n--)
		sum0 |= *v++;
	sum0 |= sum1;
	uint64_t rest = sum0[0] | sum0[1] | sum0[2] | sum0[3];
	const uint64_t *w = (const uint64_t *)v;
	for (bytes %= sizeof(*v); bytes >= sizeof(*w); bytes -= sizeof(*w))
		rest |= *w++;
	return rest == 0;
}

static bool
scan_baseline(const void *p, size_t bytes)
{
	return scan(p, bytes);
}

#if defined(__x86_64__)

__attribute__((target("avx2"))) static bool
scan_wide(const void *p, size_t bytes)
{
	return scan(p, bytes);
}

/* AVX2, and a system that saves its registers. */
static bool
wide_vectors(void)
{
	unsigned a, b, c, d, low, high;
	if (!__get_cpuid(1, &a, &b, &c, &d) || (c & bit_OSXSAVE) == 0)
		return false;
	__asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return (low & 6) == 6 && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX2) != 0;
}

#else

static bool
scan_wide(const void *p, size_t bytes)
{
	return scan(p, bytes);
}

static bool
wide_vectors(void)
{
	return false;
}

#endif

bool
zero_all(const void *p, size_t bytes)
{
	return zero_state_.wide && bytes > ZERO_SMALL_BYTES ? scan_wide(p, bytes) :
	    scan_baseline(p, bytes);
}

bool
zero_span_holds(const struct mspan *s)
{
	return zero_state_.on && zero_all((const void *)s->base, mspan_bytes(s));
}

static bool
holds(uintptr_t from, uintptr_t end)
{
	return zero_all((const void *)from, end - from);
}

/* [from, end) is not zero. addr: the slot, or 0 for the first changed byte. Where
 * the program goes on, it is zero afterwards. */
static NOINLINE void
report(uintptr_t from, uintptr_t end, uintptr_t addr, struct die_info info)
{
	const unsigned char *p = (const unsigned char *)from, *stop = (const unsigned char *)end;
	struct die_diff diff = { 0 };
	while (*p == 0)
		p++;
	diff.base = (uintptr_t)p;
	diff.n = stop - p < DIE_DIFF_BYTES ? (size_t)(stop - p) : DIE_DIFF_BYTES;
	memcpy(diff.found, p, diff.n);
	for (; p < stop; p++)
		diff.changed += *p != 0;
	info.addr = addr != 0 ? addr : diff.base;
	info.diff = &diff;
	complain(&info);
	memset((void *)from, 0, end - from);
}

bool
zero_check(const struct mspan *s, const void *p, const char *api)
{
	uintptr_t at = (uintptr_t)p;
	if (likely(zero_holds(s, p)))
		return false;
	report(at, at + s->elem_bytes, at, (struct die_info){
	    .code = DIE_WRITE_AFTER_FREE, .api = api, .site = "zero" });
	return true;
}

static uintptr_t
tail_of(const struct mspan *s)
{
	return s->base + s->nelems * s->elem_bytes;
}

uintptr_t
zero_tail_changed(const struct mspan *s)
{
	uintptr_t at = tail_of(s), end = s->base + mspan_bytes(s);
	if (!zero_state_.on || holds(at, end))
		return 0;
	while (*(const unsigned char *)at == 0)
		at++;
	return at;
}

bool
zero_tail_check(const struct mspan *s, const char *api)
{
	if (likely(zero_tail_changed(s) == 0))
		return false;
	report(tail_of(s), s->base + mspan_bytes(s), 0, (struct die_info){
	    .code = DIE_CANARY, .api = api, .site = "tail" });
	return true;
}
