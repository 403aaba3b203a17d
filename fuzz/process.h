/* process.h - the parts of H20: each op of the input is one function. */
#ifndef SPANGUARD_FUZZ_PROCESS_H
#define SPANGUARD_FUZZ_PROCESS_H

#include "fheap.h"
#include "sim.h"

enum { PROCESS_OPS = SGF_CODES / 2 };

/* Whether an op is of a heap's: one is started, with the header's options, before it. */
extern const struct process_op {
	void (*run)(const struct sgf_op *op);
	bool heap;
} process_ops[PROCESS_OPS];

/* process_log.c: texts and where they go */
void process_log_start(void);
void process_log_to(const struct sgf_op *op);
void process_channel(const struct sgf_op *op);
void process_answer(const struct sgf_op *op);
void process_files(const struct sgf_op *op);
void process_write(const struct sgf_op *op);
/* The model's word on a text: is it in the files now, and nothing else? Also what
 * other parts wrote by log_write. */
void process_wrote(const char *text, size_t n);
/* The log was set by others. */
void process_log_is(const char *log, const char *json, const char *channel);

/* process_words.c: what is put into words, looked up by name, read from outside */
void process_json(const struct sgf_op *op);
void process_print(const struct sgf_op *op);
void process_symbols(const struct sgf_op *op);
void process_env(const struct sgf_op *op);

/* process_modules.c: what is mapped where; words into freed memory */
void process_maps(const struct sgf_op *op);
void process_stale(const struct sgf_op *op);

/* process_locks.c: locks, and call stacks by number */
void process_locks(const struct sgf_op *op);
void process_depot(const struct sgf_op *op);

/* process_insn.c: how much memory an instruction touches */
void process_insn(const struct sgf_op *op);

/* process_fault.c: the handler of SIGSEGV and who was there before */
void process_fault_start(void);
bool process_fault_ours(void);
void process_earlier(const struct sgf_op *op);
void process_fault(const struct sgf_op *op);

/* process_life.c: start, threads, fork, the scavenger's thread, the end */
void process_life_start(const struct sgf_header *h);
void process_life_stop(void);
void process_boot(const struct sgf_op *op);
void process_thread(const struct sgf_op *op);
void process_fork(const struct sgf_op *op);
void process_end(const struct sgf_op *op);

/* process_report.c: die() and its kin, of src/report.c */
void process_report_start(void);
void process_report(const struct sgf_op *op);

#endif
