/* die.h - the one way out when something is wrong.
 *
 * die() never returns to its caller. The library links report.c, which writes
 * the report and aborts; tests and harnesses link their own die() that records
 * the code, the site and the address and unwinds to the test. */
#ifndef SPANGUARD_DIE_H
#define SPANGUARD_DIE_H

#include "base.h"

enum die_code {
	DIE_DOUBLE_FREE = 1,  /* freed before and not handed out since */
	DIE_INVALID_FREE,     /* not the start of anything malloc returned */
	DIE_INTERIOR_FREE,    /* inside a slot of ours, not at its first byte */
	DIE_SIZE_MISMATCH,    /* sized delete, free_sized: wrong size */
	DIE_ALIGN_MISMATCH,   /* aligned delete, free_aligned_sized: wrong alignment */
	DIE_STALE_POINTER,    /* realloc, malloc_usable_size of a freed object */
	DIE_CORRUPTION,       /* our own metadata contradicts itself */
	DIE_VERIFY,           /* a verify check failed; site is its tag */
	DIE_OUT_OF_MEMORY,    /* operator new with no C++ runtime to throw */
	DIE_BAD_OPTION,       /* under the spanguard command only */
	DIE_USE_AFTER_FREE,   /* a touch of a parked span or a freed guarded object */
	DIE_OVERFLOW,         /* a touch of the guard behind an object or a span */
	DIE_UNDERFLOW,        /* a touch of the guard before an object */
	DIE_ZERO_SIZE,        /* a touch of an object of no bytes */
	DIE_CANARY,           /* bytes behind a live object changed; seen later */
	DIE_WRITE_AFTER_FREE, /* bytes of a freed slot changed; seen later */
	DIE_CODES
};

/* DIE_USE_AFTER_FREE to DIE_ZERO_SIZE: the machine's state at the fault. */
struct die_access {
	bool write;
	bool known;            /* whether `write` is known on this machine */
	uintptr_t pc;
	uintptr_t sp;
	uintptr_t bp;
};

enum { DIE_DIFF_BYTES = 64 };

/* DIE_CANARY, DIE_WRITE_AFTER_FREE: which bytes are not what they should be. */
struct die_diff {
	uintptr_t base;        /* where found[0] stood */
	size_t n;              /* bytes in the two arrays */
	size_t changed;        /* bytes that differ in the whole slot */
	uint8_t found[DIE_DIFF_BYTES];
	uint8_t expected[DIE_DIFF_BYTES];
};

/* Everything a report starts from. The reporter finds out the rest (span,
 * slot, mapping, stack) from the address itself. */
struct die_info {
	enum die_code code;
	const char *api;       /* the call the program made: "free", "operator delete" */
	const char *site;      /* the check that fired: an invariant tag or a short name */
	uintptr_t addr;        /* the pointer in question, 0 if there is none */
	size_t given;          /* DIE_SIZE/ALIGN_MISMATCH: what the program said */
	size_t expected;       /* ... and what the allocator knows */
	const struct die_access *access;   /* or NULL */
	const struct die_diff *diff;       /* or NULL */
};

_Noreturn void die(const struct die_info *info);

/* Internal consistency: always on, names the invariant. */
_Noreturn void die_corruption(const char *tag, const void *where);

#endif
