/* litmus.h - small programs of two to four threads, and what must be true of
 * them in every schedule.
 *
 *   setup, once         objects and caches, the caller playing each thread
 *   threads             together, in the schedule that is tried
 *   end                 verify, live slots = objects, budgets, then everything is
 *                       freed, every thread ends, and no span must be left
 *
 * Objects carry a key at both ends. malloc must not return what is live; a free,
 * a realloc and the end look at the keys. */
#ifndef SPANGUARD_FUZZ_SCHED_LITMUS_H
#define SPANGUARD_FUZZ_SCHED_LITMUS_H

#include "mcache.h"
#include "mheap.h"
#include "schedule.h"

enum { LITMUS_OBJECTS = 128, LITMUS_NAMES = 64 };

struct litmus {
	const char *name;
	const char *about;
	unsigned threads;
	void (*thread[SCHED_THREADS])(void);
	uint8_t handler_of[SCHED_THREADS];
	void (*setup)(void);
	void (*check)(void);             /* at the end, before everything is freed; or NULL */
	size_t quarantine_bytes;         /* 0: none */
	bool forks;                      /* thread 0 calls litmus_fork(true) */
	bool armed;                      /* canaries and zeroes */
	bool recorded;                   /* records and redzones */
	uint32_t deaths;                 /* 1 << enum die_code: the program has a bug, and
	                                    must die of one of these, here or at the end */
	const char *gap;                 /* what may happen instead, as documented */
};

/* Variables of a litmus that each run is to find as the setup left them. */
#define LITMUS_STATE __attribute__((section("tierdata")))

/* Ended by one without a name. */
extern const struct litmus litmus_small[];
extern const struct litmus litmus_pages[];

/* The i-th of all, NULL behind the last. */
const struct litmus *litmus_at(unsigned i);
const struct litmus *litmus_find(const char *name);

/* ---- for setups and threads ---- */

/* The caller, in setup, is this thread from here on; it gets a cache. */
void litmus_as(unsigned thread);

/* Names of objects: numbers below LITMUS_NAMES. The object's name is kept
 * where another thread may take it once it is there. */
void litmus_alloc(unsigned name, size_t bytes);
void litmus_alloc_noscan(unsigned name, size_t bytes);
void litmus_aligned(unsigned name, size_t bytes, size_t align);
void litmus_realloc(unsigned name, size_t bytes);
void litmus_free(unsigned name);
void litmus_free_again(unsigned name);      /* by address, whatever it is by now */
/* The same, waiting until another thread has made it. */
void litmus_await(unsigned name);
void *litmus_address(unsigned name);
bool litmus_there(unsigned name);
void litmus_exit(void);                     /* the thread's exit hook, all rounds */
void litmus_reborn(void);                   /* ended: a new thread is in its place */
void litmus_trim(void);
void litmus_verify(void);                   /* while the others run */
void litmus_stats(void);
/* Fork with the handlers of proc.c: true in the child, where nobody else is. */
bool litmus_fork(bool child);
/* A point in a program's own code. */
void litmus_mark(unsigned mark);
bool litmus_marked(unsigned mark);

/* ---- for who runs them ---- */

struct litmus_result {
	enum sched_end end;
	bool gap;                /* ended as the litmus's gap says */
	char what[512];          /* why it failed */
};

/* Sets up the heap and the snapshot for l; false, with a message on stderr, if the
 * setup itself fails. */
bool litmus_begin(const struct litmus *l);
/* One schedule, from the snapshot. true: as it should be. */
bool litmus_run(const struct litmus *l, struct sched_chooser *c, struct litmus_result *r);
void litmus_end(void);

/* Also of a run that ends as another one did before. */
extern bool litmus_checks_each_end;

#endif
