/* die.h - the one way out when something is wrong.
 *
 * die() never returns to its caller. The library links report.c, which writes
 * the report and aborts; tests and harnesses link their own die() that records
 * the code, the site and the address and unwinds to the test. */
#ifndef SPANGUARD_DIE_H
#define SPANGUARD_DIE_H

#include "base.h"

/* DIE_DOUBLE_FREE and so on: the rows of errors.def. */
enum die_code {
	DIE_NONE,
#define ERROR(constant, id, word, word_cxx, when) DIE_##constant,
#include "errors.def"
	DIE_CODES
};

/* "SG-DF", and the word of the SUMMARY line for a call of `api`. For any value. */
const char *die_id(enum die_code code);
const char *die_word(enum die_code code, const char *api);


/* Errors seen at the access: the machine's state at the fault. */
struct die_access {
	bool write;
	bool known;            /* whether `write` is known on this machine */
	uint8_t bytes;         /* how many, where the instruction tells; else 0 */
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
	const char *made_by;   /* DIE_API_MISMATCH: the call that allocated it */
	const struct die_access *access;   /* or NULL */
	const struct die_diff *diff;       /* or NULL */
};

_Noreturn void die(const struct die_info *info);

/* As die(); with halt_on_error=0 the report is made once for each place in the
 * program, and the caller goes on. */
void complain(const struct die_info *info);

/* Internal consistency: always on, names the invariant. */
_Noreturn void die_corruption(const char *tag, const void *where);

#endif
