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
	DIE_CODES
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
};

_Noreturn void die(const struct die_info *info);

/* Internal consistency: always on, names the invariant. */
_Noreturn void die_corruption(const char *tag, const void *where);

#endif
