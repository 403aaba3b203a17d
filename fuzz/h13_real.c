/* h13_real.c - H13: the library itself, preloaded, with real threads, forks and
 * signals. Not in the tool with the others: a program of its own, which any malloc
 * can be preloaded into.
 *
 *   fuzz/real.sh [FILE...]      every input in every mode of the library
 *
 * With SG_ENGINE it is a target for libFuzzer and AFL++ (fuzz_real), linked with the
 * library, which then is the malloc of the engine, too; the mode is that of
 * SPANGUARD_OPTIONS. Which edges are taken depends on the kernel's schedule.
 *
 * The ops of each logical thread run in a thread of their own, at the same time as
 * the others'. Objects hang in 64 cells that all threads share; who puts one in
 * takes the old one out and frees it, so most frees are of others' objects. Each
 * object begins with its size and key, and its bytes are looked at when it leaves.
 * Which thread comes first is the kernel's choice: every order is right.
 *
 *   exit, gone      the thread ends and another goes on with its ops
 *   enter_fast/slow a signal to itself, whose handler allocates and frees
 *   fail, heal, fork: fork: the child allocates, frees, verifies, and exits with 0
 *   verify, trim    spanguard_verify (if it is there), malloc_trim
 *
 * Status: 0; 1 with a message; a signal if the library ends it; 14 if it hangs. */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sgf.h"

enum { CELLS = 64, HEAD_BYTES = 16, FILL_MAX = 4096, SECONDS = 60 };

/* as in prog.c, of whose language this is a part */
extern const struct sgf_language sg_prog_language;

int spanguard_verify(void) __attribute__((weak));

struct object {
	size_t bytes;
	uint64_t key;
	unsigned char rest[];
};

static _Atomic(struct object *) cell[CELLS];
static _Atomic(uint64_t) keys;
static const uint8_t *input;
static size_t input_bytes;

struct runner {
	pthread_t id;
	unsigned thread;
	size_t next;           /* op */
};

static _Noreturn void
fail(const char *what)
{
	fprintf(stderr, "sgfuzz: FAIL oracle=process harness=real: %s\n", what);
#ifdef SG_ENGINE
	abort();
#else
	_exit(1);
#endif
}

static unsigned char
byte_of(uint64_t key, size_t i)
{
	return (unsigned char)((key + i) * 0x9e3779b97f4a7c15u >> 56);
}

static size_t
filled(const struct object *o)
{
	size_t n = o->bytes - HEAD_BYTES;

	return n < FILL_MAX ? n : FILL_MAX;
}

static void
check_and_free(struct object *o)
{
	if (o == NULL)
		return;
	for (size_t i = 0; i < filled(o); i++)
		if (o->rest[i] != byte_of(o->key, i))
			fail("the bytes of an object changed");
	free(o);
}

static struct object *
fill(struct object *o, size_t bytes)
{
	if (o == NULL)
		return NULL;
	o->bytes = bytes;
	o->key = atomic_fetch_add(&keys, 1);
	for (size_t i = 0; i < filled(o); i++)
		o->rest[i] = byte_of(o->key, i);
	return o;
}

static void
put(unsigned at, struct object *o)
{
	check_and_free(atomic_exchange(&cell[at % CELLS], o));
}

static size_t
size_of(const struct sgf_op *op)
{
	static const size_t mask[] = { 63, 255, 1023, 4095, 32767, 65535, 262143, 1023 };

	return HEAD_BYTES + (op->imm & mask[op->a & 7]);
}

static void
resize(const struct sgf_op *op, size_t bytes)
{
	struct object *o = atomic_exchange(&cell[op->handle % CELLS], NULL), *q;
	uint64_t key;
	size_t keep;

	if (o == NULL)
		return;
	keep = filled(o);
	key = o->key;
	q = realloc(o, bytes);
	if (q == NULL)
		fail("realloc gave NULL");
	keep = keep < bytes - HEAD_BYTES ? keep : bytes - HEAD_BYTES;
	for (size_t i = 0; i < keep; i++)
		if (q->rest[i] != byte_of(key, i))
			fail("realloc lost bytes");
	put(op->handle, fill(q, bytes));
}

static void
zeroed(const struct sgf_op *op, size_t bytes)
{
	unsigned char *p = calloc(1, bytes);

	for (size_t i = 0; p != NULL && i < bytes; i++)
		if (p[i] != 0)
			fail("calloc gave bytes that are not zero");
	put(op->handle, fill((struct object *)(void *)p, bytes));
}

static void
aligned(const struct sgf_op *op, size_t bytes)
{
	void *p = NULL;
	size_t align = (size_t)16 << (op->b & 7);

	if (posix_memalign(&p, align, bytes) == 0 && ((uintptr_t)p & (align - 1)) != 0)
		fail("an address is not aligned");
	put(op->handle, fill(p, bytes));
}

static void
forked(void)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		return;
	if (pid == 0) {
		signal(SIGALRM, SIG_DFL);
		alarm(SECONDS / 2);
		for (unsigned i = 0; i < CELLS; i++)
			put(i, fill(malloc(HEAD_BYTES + i * 40), HEAD_BYTES + i * 40));
		for (unsigned i = 0; i < CELLS; i++)
			put(i, NULL);
		_exit(spanguard_verify != NULL && spanguard_verify() != 0);
	}
	if (waitpid(pid, &status, 0) == pid && status != 0)
		fail("a forked child failed or hangs");
}

static void
on_signal(int sig)
{
	int saved = errno;
	void *p = malloc(100);

	(void)sig;
	free(p);
	errno = saved;
}

static bool
starts(const char *name, const char *with)
{
	return strncmp(name, with, strlen(with)) == 0;
}

static void
whole_heap(const char *name)
{
	if (starts(name, "enter_"))
		pthread_kill(pthread_self(), SIGUSR1);
	else if (strcmp(name, "fail") == 0 || strcmp(name, "heal") == 0 || strcmp(name, "fork") == 0)
		forked();
	else if (strcmp(name, "trim") == 0 || strcmp(name, "scavenge") == 0)
		malloc_trim(0);
	else if (strcmp(name, "verify") == 0 && spanguard_verify != NULL)
		if (spanguard_verify() != 0)
			fail("spanguard_verify found something");
}

static void
one_op(const struct sgf_op *op, const char *name)
{
	size_t bytes = size_of(op);

	if (starts(name, "malloc") || starts(name, "new") || strcmp(name, "noscan") == 0)
		put(op->handle, fill(malloc(bytes), bytes));
	else if (starts(name, "calloc"))
		zeroed(op, bytes);
	else if (starts(name, "realloc"))
		resize(op, bytes);
	else if (starts(name, "posix") || strstr(name, "align") != NULL)
		aligned(op, bytes);
	else if (starts(name, "free") || starts(name, "delete") || starts(name, "cfree"))
		put(op->handle, NULL);
	else if (starts(name, "burst"))
		for (unsigned i = 0; i <= (op->a & 63u); i++)
			put(op->handle + i, starts(name, "burst_free") ? NULL :
			    fill(malloc((bytes & 4095) | HEAD_BYTES), (bytes & 4095) | HEAD_BYTES));
	else
		whole_heap(name);
}

/* Runs its thread's ops; from an "exit" on another thread does. */
static void *
run_ops(void *arg)
{
	struct runner *r = arg;
	struct sgf_op op;

	while (r->next < sgf_ops(input_bytes)) {
		sgf_read_op(input, input_bytes, r->next++, &op);
		const char *name = sg_prog_language.op[op.code];
		if (op.thread != r->thread)
			continue;
		if (strcmp(name, "exit") == 0 || strcmp(name, "gone") == 0)
			return r;       /* goes on in a new one */
		one_op(&op, name);
	}
	return NULL;
}

static void *
keep_running(void *arg)
{
	struct runner *r = arg;
	void *more = r;

	while (more != NULL) {
		pthread_t t;
		if (pthread_create(&t, NULL, run_ops, r) != 0)
			fail("no thread");
		pthread_join(t, &more);
	}
	return NULL;
}

static void
run_input(const uint8_t *data, size_t bytes)
{
	struct runner runner[SGF_THREADS];

	input = data;
	input_bytes = bytes;
	signal(SIGUSR1, on_signal);
	for (unsigned t = 0; t < SGF_THREADS; t++) {
		runner[t] = (struct runner){ .thread = t };
		if (pthread_create(&runner[t].id, NULL, keep_running, &runner[t]) != 0)
			fail("no thread");
	}
	for (unsigned t = 0; t < SGF_THREADS; t++)
		pthread_join(runner[t].id, NULL);
	for (unsigned i = 0; i < CELLS; i++)
		put(i, NULL);
	if (spanguard_verify != NULL && spanguard_verify() != 0)
		fail("spanguard_verify found something at the end");
}

#ifdef SG_ENGINE

#include "mutator.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t bytes, size_t max, unsigned seed);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	run_input(data, bytes < SGF_MAX_BYTES ? bytes : SGF_MAX_BYTES);
	return 0;
}

size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t bytes, size_t max, unsigned seed)
{
	uint64_t random = seed;

	return sg_mutate(data, bytes, max, &random);
}

#else

int
main(int argc, char **argv)
{
	static uint8_t data[SGF_MAX_BYTES];
	FILE *f = argc == 2 ? fopen(argv[1], "rb") : NULL;

	if (f == NULL)
		return 2;
	size_t bytes = fread(data, 1, sizeof(data), f);
	fclose(f);
	alarm(SECONDS);
	run_input(data, bytes);
	return 0;
}

#endif
