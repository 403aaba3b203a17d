/* h20_process.c - H20: the process around the allocator, over the simulated one of
 * sim.c. Each op is one thing that happens, and has a model of its own:
 *
 *   process_log.c      texts: log, JSON, channel, descriptor of another, writes that fail
 *   process_words.c    JSON, numbers, options of the environment, functions by name
 *   process_modules.c  what is mapped where, modules and their symbols
 *   process_locks.c    the order of locks, and who waits for ever; the depot of stacks
 *   process_insn.c     how much memory an instruction touches
 *   process_fault.c    SIGSEGV, and the handler that was there before
 *   process_report.c   reports, and errors in the middle of them
 *   process_life.c     start, threads that come and go, fork, the scavenger, the end
 *
 * An op's code says which by its upper bits; handle, a, b and imm are its own. */
#include "process.h"

#include <string.h>

#include "log.h"

enum { OPS_MOST = 24 };

const struct process_op process_ops[PROCESS_OPS] = {
	{ process_log_to, false }, { process_channel, false }, { process_answer, false },
	{ process_files, false }, { process_write, false }, { process_json, false },
	{ process_print, false }, { process_symbols, false }, { process_env, false },
	{ process_earlier, true }, { process_fault, true }, { process_report, true },
	{ process_boot, true }, { process_thread, true }, { process_fork, true }, { process_end, true },
	{ process_maps, false }, { process_stale, true }, { process_locks, false }, { process_depot, true },
	{ process_insn, false },
};

#define TWO(name) name, name
static const struct sgf_language language = {
	.op = { TWO("to"), TWO("channel"), TWO("answer"), TWO("files"), TWO("write"), TWO("json"),
		TWO("print"), TWO("symbols"), TWO("env"), TWO("earlier"), TWO("fault"), TWO("report"),
		TWO("boot"), TWO("thread"), TWO("fork"), TWO("end"), TWO("maps"), TWO("stale"), TWO("locks"), TWO("depot"), TWO("insn") },
};

static void
start_heap(const struct sgf_header *h)
{
	struct sg_heap_config config;

	sg_heap_config(h, &config);
	config.sys.fail_mask = 0;
	sg_heap_start(&config);
	process_fault_start();
	process_report_start();
	process_life_start(h);
}

static int
run(const uint8_t *data, size_t bytes)
{
	struct sgf_header h;
	struct sgf_op op;
	size_t n = sgf_ops(bytes);
	bool heap = false;

	sgf_read_header(data, bytes, &h);
	sim_start();
	process_log_start();
	for (size_t i = 0; i < n && i < OPS_MOST; i++) {
		sgf_read_op(data, bytes, i, &op);
		const struct process_op *what = &process_ops[op.code / 2];
		sg_at.op = (long)i;
		sg_at.op_name = language.op[op.code];
		if (what->run == NULL)
			continue;
		if (what->heap && !heap)
			start_heap(&h);
		heap |= what->heap;
		what->run(&op);
	}
	if (heap)
		process_life_stop();
	sg_goes_on = NULL;
	sim_stop();
	log_set_path("/dev/null");
	return 0;
}

const struct sg_harness sg_h_process = { "process", &language, run };
