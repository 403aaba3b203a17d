/* random.c - sgfuzz random: very many operations without a bug in them, none of which
 * may be reported.
 *
 * Input i of seed s is a function of both, so a finding is named by harness, seed and
 * number; its bytes are also left in a file. Unlike a fuzzer's, inputs are long, and
 * each has a bias of its own: few kinds of ops or all, few handles or all. Counted is
 * what the harness calls of the tier under test (sg_operations), not the ops of the
 * input: one that finds no object counts nothing, a burst counts each of its calls. */
#define _GNU_SOURCE
#include "harness.h"
#include "sgfuzz.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { FEW_CODES = 8, FIRST_OPS = 64, NAME_BYTES = 96 };

static struct {
	uint8_t data[SGF_MAX_BYTES];
	size_t bytes;
	char name[NAME_BYTES];
} now;

static uint64_t
below(uint64_t *s, uint64_t n)
{
	return sg_random(s) % n;
}

static void
make_header(uint8_t *out, uint64_t *s)
{
	struct sgf_header h = { .mode = (uint8_t)below(s, 8), .seed = (uint32_t)sg_random(s),
		.scavenge = (uint8_t)sg_random(s), .geometry = (uint8_t)below(s, 8),
		.fault_nth = (uint16_t)sg_random(s) };

	if (below(s, 4) == 0)           /* a mixture of rooms */
		h.mode = (uint8_t)(128 + below(s, 128));
	if (below(s, 4) == 0)           /* few mappings, gaps, pages without markers */
		h.geometry = (uint8_t)sg_random(s);
	if (below(s, 8) == 0)
		h.verify = (uint8_t)(16 + below(s, 240));
	for (unsigned i = 0; i < 4; i++)
		h.knob[i] = (uint8_t)sg_random(s);
	sgf_write_header(out, &h);
}

/* Which bytes a are sizes, the harness says (fuzz/prog.c); above some pages they cost a
 * thousand times what others do, and come now and then. */
static uint8_t
make_a(uint64_t *s, uint8_t r)
{
	static const uint8_t kind[8] = { 0, 1, 2, 0, 1, 2, 1, 4 };

	if (below(s, 16) != 0)
		return (uint8_t)((r & 0xf8) % 248 | kind[r & 7]);
	return below(s, 64) != 0 ? r % 248 : r;
}

static void
make_input(uint64_t seed, uint64_t number)
{
	uint64_t s = seed ^ number * 0x9e3779b97f4a7c15u;
	size_t nops = (size_t)FIRST_OPS << below(&s, 6);
	uint8_t few[FEW_CODES], handles = (uint8_t)(255 >> below(&s, 4));
	bool all = below(&s, 2) == 0, one_thread = below(&s, 4) == 0;

	make_header(now.data, &s);
	for (size_t i = 0; i < FEW_CODES; i++)
		few[i] = (uint8_t)below(&s, SGF_CODES);
	for (size_t i = 0; i < nops; i++) {
		uint64_t r = sg_random(&s);
		struct sgf_op op = { .code = all ? r & 63 : few[r % FEW_CODES],
			.thread = one_thread ? 0 : r >> 6 & 3, .handle = (uint8_t)(r >> 8) & handles,
			.a = make_a(&s, (uint8_t)(r >> 16)), .b = (uint8_t)(r >> 24), .imm = (uint32_t)(r >> 32) };
		sgf_write_op(now.data + SGF_HEADER_BYTES + i * SGF_OP_BYTES, &op);
	}
	now.bytes = SGF_HEADER_BYTES + nops * SGF_OP_BYTES;
}

static void
keep_input(int sig)
{
	int fd = open(now.name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

	if (fd < 0 || write(fd, now.data, now.bytes) < 0 ||
	    write(2, "sgfuzz: the input is in ", 24) < 0 ||
	    write(2, now.name, strlen(now.name)) < 0 || write(2, "\n", 1) < 0)
		_exit(1);
	signal(sig, SIG_DFL);
	raise(sig);
}

int
sgfuzz_random(const struct sg_harness *h, uint64_t seed, uint64_t operations)
{
	struct timespec t;
	uint64_t n = 0;

	signal(SIGABRT, keep_input);
	signal(SIGALRM, keep_input);
	sg_operations = 0;
	sg_at.input = now.name;
	for (; sg_operations < operations; n++) {
		make_input(seed, n);
		snprintf(now.name, sizeof(now.name), "random-%s-%llu-%llu", h->name,
		    (unsigned long long)seed, (unsigned long long)n);
		alarm(600);
		sgfuzz_run_once(h, now.data, now.bytes);
	}
	alarm(0);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	printf("%s: seed %llu, %llu operations in %llu inputs, %.0f operations per second of CPU, "
	    "0 reports\n", h->name, (unsigned long long)seed, (unsigned long long)sg_operations,
	    (unsigned long long)n,
	    (double)sg_operations / ((double)t.tv_sec + (double)t.tv_nsec / 1e9));
	return 0;
}
