/* bench.h - what the benchmark programs share: a PRNG, block stamps, arguments.
 *
 * Every program is fixed work for a given argument list: the seeds are
 * constants, the amount of work per thread is counted and not timed, and
 * nothing is printed on success. A block is stamped when it is allocated and
 * checked when it is freed, so an allocator that hands out the same memory
 * twice does not get a time, it gets an error.
 *
 * How much of a block is written is meant to be what programs do: all of a
 * small one, one byte per OS page of a big one. Compile with -fno-builtin-malloc
 * and friends: a compiler may otherwise drop a malloc/free pair. */
#ifndef SPANGUARD_BENCH_H
#define SPANGUARD_BENCH_H

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	BENCH_FILL_BYTES = 512,   /* blocks up to here are written completely */
	BENCH_TOUCH_BYTES = 4096, /* above, one write per this many bytes */
};

__attribute__((format(printf, 1, 2), noreturn)) static inline void
bench_fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

/* Argument i as a number, or `fallback` when there is none. */
static inline size_t
bench_arg(int argc, char **argv, int i, size_t fallback)
{
	char *end;
	unsigned long long v;

	if (i >= argc)
		return fallback;
	v = strtoull(argv[i], &end, 10);
	if (*end != '\0' || end == argv[i] || v == 0)
		bench_fail("%s: argument %d is not a positive number: %s", argv[0], i, argv[i]);
	return (size_t)v;
}

/* splitmix64: one multiply-rich step, any seed is a good seed. */
struct rng {
	uint64_t state;
};

static inline uint64_t
rng_next(struct rng *r)
{
	uint64_t z = (r->state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

/* In [0, n), n below 2^32. */
static inline size_t
rng_below(struct rng *r, size_t n)
{
	return (size_t)(((rng_next(r) >> 32) * (uint64_t)n) >> 32);
}

/* In [lo, hi]. */
static inline size_t
rng_range(struct rng *r, size_t lo, size_t hi)
{
	return lo + rng_below(r, hi - lo + 1);
}

/* Log-uniform in [lo, hi], both powers of two: every octave equally often. */
static inline size_t
rng_log_range(struct rng *r, size_t lo, size_t hi)
{
	unsigned octaves = (unsigned)(__builtin_ctzll(hi) - __builtin_ctzll(lo));
	size_t base = lo << rng_below(r, octaves);

	return base + rng_below(r, base + 1);
}

/* The stamp depends on the size only, so a block may travel between threads. */
static inline unsigned char
block_tag(size_t bytes)
{
	return (unsigned char)(bytes * 31 + 7);
}

static inline void
block_stamp(void *p, size_t bytes)
{
	unsigned char *b = p;
	unsigned char tag = block_tag(bytes);

	if (bytes <= BENCH_FILL_BYTES) {
		memset(b, tag, bytes);
		return;
	}
	for (size_t i = 0; i < bytes; i += BENCH_TOUCH_BYTES)
		b[i] = tag;
	b[bytes - 1] = tag;
}

static inline void
block_check(const void *p, size_t bytes)
{
	const unsigned char *b = p;
	unsigned char tag = block_tag(bytes);

	if (b[0] != tag || b[bytes - 1] != tag)
		bench_fail("block %p of %zu bytes has lost its contents", p, bytes);
}

/* A block that must exist, not yet written. */
static inline void *
block_raw(size_t bytes)
{
	void *p = malloc(bytes);

	if (p == NULL)
		bench_fail("malloc(%zu) returned NULL", bytes);
	return p;
}

static inline void *
block_new(size_t bytes)
{
	void *p = block_raw(bytes);

	block_stamp(p, bytes);
	return p;
}

static inline void
block_free(void *p, size_t bytes)
{
	block_check(p, bytes);
	free(p);
}

/* Grows or shrinks a stamped block; the common part must have survived. */
static inline void *
block_resize(void *p, size_t old_bytes, size_t new_bytes)
{
	unsigned char *q = realloc(p, new_bytes);
	size_t kept = old_bytes < new_bytes ? old_bytes : new_bytes;

	if (q == NULL)
		bench_fail("realloc(%zu) returned NULL", new_bytes);
	if (q[0] != block_tag(old_bytes))
		bench_fail("realloc %zu -> %zu lost the first byte", old_bytes, new_bytes);
	if (kept == old_bytes && q[old_bytes - 1] != block_tag(old_bytes))
		bench_fail("realloc %zu -> %zu lost the last byte", old_bytes, new_bytes);
	block_stamp(q, new_bytes);
	return q;
}

static inline pthread_t
bench_thread(void *(*run)(void *), void *arg)
{
	pthread_t t;
	int err = pthread_create(&t, NULL, run, arg);

	if (err != 0)
		bench_fail("pthread_create: %s", strerror(err));
	return t;
}

static inline void
bench_join(pthread_t t)
{
	int err = pthread_join(t, NULL);

	if (err != 0)
		bench_fail("pthread_join: %s", strerror(err));
}

#endif
