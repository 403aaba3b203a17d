/* harness.h - what a harness is, and what all of them use.
 *
 *   int sg_run(data, size)      one input, one fresh heap, every oracle
 *       |
 *   target.c    LLVMFuzzerTestOneInput: libFuzzer, AFL++ (libAFLDriver), OSS-Fuzz
 *   sgfuzz.c    the tool: replays files and directories without an engine, dumps, ...
 *
 * A harness is one file h<N>_<name>.c that defines `const struct sg_harness
 * sg_h_<name>`, and one row of harnesses.def. target.c is compiled once for each
 * with SG_HARNESS=<name>; sgfuzz knows all of them.
 *
 * A violation is sg_fail(): one line on stderr that begins "sgfuzz: FAIL" and names
 * oracle, harness and op, then abort(). Nothing else may end the process, and
 * no input may leave anything behind for the next one. */
#ifndef SPANGUARD_FUZZ_HARNESS_H
#define SPANGUARD_FUZZ_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sgf.h"

/* Each can be switched off by SG_ORACLES_OFF=name,name to show that it is needed. */
enum sg_oracle {
#define ORACLE(id, name, what) ORACLE_##id,
#include "oracles.def"
	ORACLES
};

struct sg_harness {
	const char *name;
	const struct sgf_language *language;
	int (*run)(const uint8_t *data, size_t bytes);    /* 0 */
};

/* Each op in turn, with sg_at set; check after every header.verify-th (NULL: never). */
void sg_each_op(const uint8_t *data, size_t bytes, const struct sgf_language *l,
    void (*step)(const struct sgf_op *op), void (*check)(void));

#define HARNESS(name) extern const struct sg_harness sg_h_##name;
#include "harnesses.def"

bool sg_oracle_on(enum sg_oracle o);

/* What a failure and a trace name: set by the harness as it goes. */
struct sg_position {
	const char *harness;
	const char *input;     /* file name, or NULL under a fuzzing engine */
	long op;               /* -1 outside of the ops */
	const char *op_name;
};
extern struct sg_position sg_at;

_Noreturn void sg_fail(enum sg_oracle o, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Fails if the oracle is on and `ok` is not. */
#define SG_CHECK(o, ok, ...) \
	((ok) || !sg_oracle_on(ORACLE_##o) ? (void)0 : sg_fail(ORACLE_##o, __VA_ARGS__))

/* Hash over everything observed: the same input gives the same one, always. */
extern uint64_t sg_trace;
static inline void
sg_note(uint64_t v)
{
	sg_trace = (sg_trace ^ v) * 0x9e3779b97f4a7c15u;
	sg_trace ^= sg_trace >> 29;
}

/* Calls of the tier under test that harnesses made, where they count them (random.c). */
extern uint64_t sg_operations;

/* splitmix64, for harnesses that need more numbers than the input has. */
static inline uint64_t
sg_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* Zeroes where dead frames were: what a mark finds on the stack is then of those that
 * live. */
void sg_scrub_stack(void);

/* ---- inverted AddressSanitizer ----
 * A live object is poisoned from malloc's return until just before it goes back:
 * whoever of the allocator touches it is stopped at that instruction. The harness
 * itself comes and goes through functions marked SG_UNCHECKED. Nothing without
 * ASan, and nothing for bytes that share a granule of 8 with a neighbour. */
#define SG_UNCHECKED __attribute__((no_sanitize("address")))
extern const bool sg_with_asan;
void sg_poison(const void *p, size_t bytes);
void sg_unpoison(const void *p, size_t bytes);
/* ASan's own account of memory, which holds no pointers; false: there is none. */
bool sg_shadow(uintptr_t *start, size_t *bytes);

#endif
