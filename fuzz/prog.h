/* prog.h - programs over the whole malloc interface, and what is demanded of
 * every step. H1 runs them as they are; H6, H7, H9, H10, H12 and H14 around them.
 *
 *   struct sg_prog p;
 *   sg_prog_start(&p, data, bytes)      heap and model of the input's header
 *   sg_prog_step(&p, i) ...             op i: the call, and all oracles on it
 *   sg_prog_end(&p)                     free all, idle: nothing may be left
 *
 * The model is a table of 256 objects: address, sizes, the key of its content.
 * It shares nothing with the allocator. */
#ifndef SPANGUARD_FUZZ_PROG_H
#define SPANGUARD_FUZZ_PROG_H

#include "fheap.h"

/* The ops, by what they call; prog.c has the table of codes. */
enum sg_op {
	OP_MALLOC, OP_CALLOC, OP_REALLOC, OP_REALLOCARRAY, OP_POSIX_MEMALIGN,
	OP_ALIGNED_ALLOC, OP_MEMALIGN, OP_VALLOC, OP_PVALLOC, OP_NOSCAN, OP_CALLOC_NOSCAN,
	OP_REALLOC_NOSCAN, OP_FREE, OP_CFREE, OP_FREE_SIZED, OP_FREE_ALIGNED_SIZED,
	OP_USABLE, OP_BURST, OP_BURST_FREE, OP_BURST_ZERO, OP_TRIM, OP_SCAVENGE, OP_TICK,
	OP_ADVANCE, OP_EXIT, OP_VERIFY, OP_CHECK, OP_STATS, OP_ENTER_FAST, OP_ENTER_SLOW,
	OP_GONE, OP_FLUSH, OP_FAIL, OP_HEAL, OP_OVERFLOW, OP_BUG, OP_FORK, OP_MORE, OP_NEW, OP_DELETE,
	OP_DELETE_SIZED,
};

struct sg_object {
	uint8_t *p;
	size_t asked;          /* bytes */
	size_t usable;
	size_t align;          /* asked for, 0: none */
	uint64_t key;
	bool noscan;
	bool boot;             /* served by boot.c */
};

struct sg_prog {
	const uint8_t *data;
	size_t bytes;
	size_t nops;
	struct sgf_header header;
	struct sg_heap_config config;
	struct sg_object object[SGF_HANDLES];
	uint8_t live[SGF_HANDLES];     /* handles of live objects, in no order */
	uint8_t live_at[SGF_HANDLES];  /* where in live[] */
	size_t nlive;
	size_t live_bytes;
	uint64_t next_key;
	enum sg_op next_reenter;       /* how the next op enters: 0 as usual */
	bool faults;                   /* the system may refuse now */
	bool no_faults;                /* ops that make it refuse do nothing */
	/* H14: no verify between ops, and no call from a handler that interrupted the
	 * slow path: what serves it refuses more than the rooms of some modes do. */
	bool quiet;
	uint64_t observed;             /* hash of what the program could see (H14) */
};

extern const struct sgf_language sg_prog_language;

void sg_prog_start(struct sg_prog *p, const uint8_t *data, size_t bytes);
/* ... with a heap that is not the header's. */
void sg_prog_start_with(struct sg_prog *p, const uint8_t *data, size_t bytes,
    const struct sg_heap_config *config);
void sg_prog_step(struct sg_prog *p, size_t i);
void sg_prog_end(struct sg_prog *p);
/* After a death: forgets the objects, so that the next input finds nothing. */
void sg_prog_abandon(struct sg_prog *p);

/* Runs body, which is to return: a death is a failure. */
void sg_prog_must_live(struct sg_prog *p, void (*body)(void *));

/* All of it, so. */
void sg_prog_run(struct sg_prog *p, const uint8_t *data, size_t bytes);

enum sg_op sg_prog_op(const struct sgf_op *op);
size_t sg_prog_size(const struct sg_prog *p, const struct sgf_op *op);

/* Every live object: content, verify, statistics, the system's account. */
void sg_prog_check_objects(struct sg_prog *p);
void sg_prog_check_stats(struct sg_prog *p);

void sg_prog_free(struct sg_prog *p, uint8_t handle);
/* The object was freed, or is nobody's, by other means than sg_prog_free. */
void sg_prog_forget(struct sg_prog *p, uint8_t handle);
void sg_prog_free_all(struct sg_prog *p);
void sg_prog_heal(struct sg_prog *p);
void sg_prog_more(struct sg_prog *p, const struct sgf_op *op);
bool sg_prog_malloc(struct sg_prog *p, uint8_t handle, size_t bytes);

#endif
