/* harness.c - see harness.h. */
#define _GNU_SOURCE
#include "harness.h"

#include "base.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define SG_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SG_ASAN 1
#endif
#endif
#ifndef SG_ASAN
#define SG_ASAN 0
#endif

#if SG_ASAN
#include <sanitizer/asan_interface.h>
void __asan_get_shadow_mapping(size_t *scale, size_t *offset);
#else
static void
__asan_get_shadow_mapping(size_t *scale, size_t *offset)
{
	*scale = *offset = 0;
}
static void
__asan_poison_memory_region(const void *p, size_t bytes)
{
	(void)p;
	(void)bytes;
}
static void
__asan_unpoison_memory_region(const void *p, size_t bytes)
{
	(void)p;
	(void)bytes;
}
#endif

enum { POISON_EDGE_BYTES = 1 << 14, SCRUBBED_WORDS = 8192 };

const bool sg_with_asan = SG_ASAN;
struct sg_position sg_at;
uint64_t sg_trace;
uint64_t sg_operations;

static const struct {
	const char *name, *what;
} oracles[] = {
#define ORACLE(id, name, what) { name, what },
#include "oracles.def"
};

static uint64_t
oracles_off(void)
{
	const char *text = getenv("SG_ORACLES_OFF");
	uint64_t off = 0;

	for (size_t i = 0; text != NULL && i < ORACLES; i++) {
		size_t n = strlen(oracles[i].name);
		for (const char *at = text; (at = strstr(at, oracles[i].name)) != NULL; at += n)
			if ((at == text || at[-1] == ',') && (at[n] == '\0' || at[n] == ','))
				off |= (uint64_t)1 << i;
	}
	return off;
}

bool
sg_oracle_on(enum sg_oracle o)
{
	static bool known;
	static uint64_t off;

	if (!known) {
		off = oracles_off();
		known = true;
	}
	return (off >> o & 1) == 0;
}

_Noreturn void
sg_fail(enum sg_oracle o, const char *format, ...)
{
	va_list ap;

	fprintf(stderr, "sgfuzz: FAIL oracle=%s harness=%s", oracles[o].name, sg_at.harness);
	if (sg_at.op >= 0)
		fprintf(stderr, " op=%ld(%s)", sg_at.op, sg_at.op_name);
	if (sg_at.input != NULL)
		fprintf(stderr, " input=%s", sg_at.input);
	fprintf(stderr, ": %s: ", oracles[o].what);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
	abort();
}

void
sg_each_op(const uint8_t *data, size_t bytes, const struct sgf_language *l,
    void (*step)(const struct sgf_op *op), void (*check)(void))
{
	struct sgf_header h;
	struct sgf_op op;

	sgf_read_header(data, bytes, &h);
	for (size_t i = 0; i < sgf_ops(bytes); i++) {
		sgf_read_op(data, bytes, i, &op);
		sg_at.op = (long)i;
		sg_at.op_name = l->op[op.code];
		step(&op);
		if (check != NULL && h.verify != 0 && i % h.verify == 0)
			check();
	}
	sg_at.op = -1;
}

/* Whole granules inside [p, p + bytes); of a large object, both ends. */
static void
each_edge(const void *p, size_t bytes, void (*fn)(const void *p, size_t bytes))
{
	uintptr_t at = ((uintptr_t)p + 7) & ~(uintptr_t)7;
	uintptr_t end = ((uintptr_t)p + bytes) & ~(uintptr_t)7;

	if (at >= end)
		return;
	if (end - at <= 2 * POISON_EDGE_BYTES) {
		fn((const void *)at, end - at);
		return;
	}
	fn((const void *)at, POISON_EDGE_BYTES);
	fn((const void *)(end - POISON_EDGE_BYTES), POISON_EDGE_BYTES);
}

static void
poison(const void *p, size_t bytes)
{
	__asan_poison_memory_region(p, bytes);
}

static void
unpoison(const void *p, size_t bytes)
{
	__asan_unpoison_memory_region(p, bytes);
}

void
sg_poison(const void *p, size_t bytes)
{
	if (SG_ASAN && sg_oracle_on(ORACLE_TOUCH))
		each_edge(p, bytes, poison);
}

void
sg_unpoison(const void *p, size_t bytes)
{
	if (SG_ASAN && sg_oracle_on(ORACLE_TOUCH))
		each_edge(p, bytes, unpoison);
}

__attribute__((no_sanitize("address", "undefined"))) NOINLINE void
sg_scrub_stack(void)
{
	volatile uintptr_t *top = __builtin_frame_address(0);

	for (size_t i = 1; i < SCRUBBED_WORDS; i++)
		*(top - i) = 0;
}

bool
sg_shadow(uintptr_t *start, size_t *bytes)
{
	size_t scale;

	__asan_get_shadow_mapping(&scale, start);
	*bytes = ADDR_LIMIT >> scale;
	return SG_ASAN;
}
