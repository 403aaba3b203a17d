/* litmus_input.c - see litmus_input.h. */
#include "litmus_input.h"

#include <stdio.h>
#include <string.h>

#include "explore.h"

enum { OWN = 16, B = 2048, SMALL = 64, LARGE = 5 * PAGE_SIZE };

static const uint32_t sizes[] = { B, B, B, 1792, SMALL, 3072, LARGE, 16 * PAGE_SIZE };

static uint8_t program[INPUT_PROGRAM_BYTES];
static bool busy[LITMUS_NAMES] LITMUS_STATE = { false };

static const char *const op_names[16] = {
	"alloc", "alloc", "alloc", "alloc", "free", "free", "free", "free",
	"free", "free", "realloc", "noscan", "exit", "trim", "scavenge", "flush",
};

/* An object that is there and nobody's business; LITMUS_NAMES: not this one. */
static unsigned
claim(unsigned name)
{
	name %= LITMUS_NAMES;
	if (busy[name] || !litmus_there(name))
		return LITMUS_NAMES;
	busy[name] = true;
	return name;
}

/* A free name of the thread's own range, behind that of the setup. */
static unsigned
new_name(void)
{
	for (unsigned i = 0; i < INPUT_OPS; i++) {
		unsigned name = 32 + sched_self() * 8 + i;
		if (!busy[name] && !litmus_there(name))
			return name;
	}
	return 32 + sched_self() * 8 + 7;
}

static void
free_any(unsigned arg)
{
	unsigned name = claim(arg);

	if (name == LITMUS_NAMES)
		return;
	litmus_free(name);
	busy[name] = false;
}

static void
realloc_any(unsigned arg)
{
	unsigned name = claim(arg);

	if (name == LITMUS_NAMES)
		return;
	litmus_realloc(name, sizes[arg / 32 % ARRAY_LEN(sizes)]);
	busy[name] = false;
}

static void
step(uint8_t code, uint8_t arg)
{
	switch (code % 16) {
	case 0: case 1: case 2: case 3:
		litmus_alloc(new_name(), sizes[arg % ARRAY_LEN(sizes)]);
		break;
	case 10: realloc_any(arg); break;
	case 11: litmus_alloc_noscan(new_name(), 1 + arg % 24); break;
	case 12: litmus_exit(); break;
	case 13: litmus_trim(); break;
	case 14: mheap_scavenge_all(&mheap_); break;
	case 15: mheap_flush_quarantine(&mheap_); break;
	default: free_any(arg); break;
	}
}

static void
thread(void)
{
	const uint8_t *ops = &program[sched_self() * INPUT_OPS * 2];

	for (unsigned i = 0; i < INPUT_OPS; i++)
		if (ops[2 * i] != 0)
			step(ops[2 * i], ops[2 * i + 1]);
}

/* Each thread with a full span, the first with more; large objects side by side. */
static void
setup(void)
{
	for (unsigned t = 0; t < INPUT_THREADS; t++) {
		litmus_as(t);
		for (unsigned i = 0; i < 8; i++)
			litmus_alloc(t * 8 + i, B);
	}
	litmus_as(0);
	for (unsigned i = 24; i < 28; i++)
		litmus_alloc(i, LARGE);
	for (unsigned i = 28; i < 32; i++)
		litmus_alloc(i, SMALL);
}

static const struct litmus fuzzed = {
	.name = "input", .about = "threads and schedule from bytes", .threads = INPUT_THREADS,
	.setup = setup, .thread = { thread, thread, thread }, .quarantine_bytes = 2 * LARGE,
};

struct input {
	struct litmus_result *r;
};

static bool
run_one(void *arg, struct sched_chooser *c)
{
	struct input *in = arg;

	return litmus_run(&fuzzed, c, in->r);
}

/* What an input does must not hang on those before: each end is checked. */
bool
litmus_input_begin(void)
{
	litmus_checks_each_end = true;
	return litmus_begin(&fuzzed);
}

bool
litmus_input(const uint8_t *data, size_t bytes, struct litmus_result *r)
{
	struct input in = { r };
	size_t n = bytes < sizeof(program) ? bytes : sizeof(program);

	memset(program, 0, sizeof(program));
	memcpy(program, data, n);
	/* every access is a decision: what is shared is not known of one run */
	sched_every_point(true);
	bool ok = explore_bytes(run_one, &in, data + n, bytes - n);
	sched_every_point(false);
	return ok;
}

void
litmus_input_print(const uint8_t *data, size_t bytes)
{
	for (unsigned t = 0; t < INPUT_THREADS; t++) {
		printf("  thread %u:", t);
		for (unsigned i = 0; i < INPUT_OPS; i++) {
			size_t at = (t * INPUT_OPS + i) * 2;
			if (at < bytes && data[at] != 0)
				printf(" %s(%u)", op_names[data[at] % 16], at + 1 < bytes ? data[at + 1] : 0);
		}
		putchar('\n');
	}
}
