/* facts.h - everything one report says, before it is put into words.
 *
 *   struct die_info --facts_take--> struct facts --report_text--> text
 *                                                --report_json--> one line of JSON
 *
 * FACTS-1: what text and JSON say comes from here and from facts_frame; neither
 *   looks anything up by itself.
 *
 * FACTS-2: when a report is out its facts are cleared: they stand in our own data,
 *   which a mark scans, and an address in them would keep an object alive.
 *
 * Async-signal-safe, no lock, no malloc; static buffers (procmap.h): for the one
 * thread that owns the report. */
#ifndef SPANGUARD_FACTS_H
#define SPANGUARD_FACTS_H

#include "die.h"
#include "mlookup.h"
#include "print.h"
#include "procmap.h"
#include "../hardening/hooks.h"

enum {
	FACTS_FRAMES = 64,
	FACTS_SYMBOL_BYTES = 256,
	FACTS_TITLE_BYTES = 320,
	FACTS_TEXT_BYTES = DIE_DIFF_BYTES + 1,
	FACTS_TOKEN_FRAMES = 3,
	NEIGHBOUR_FRAMES = 3,
};

enum facts_stack { STACK_ERROR, STACK_ALLOC, STACK_FREE };

/* One frame with what the process itself can tell of it. */
struct frame_facts {
	uintptr_t pc;
	const struct module *module;     /* NULL: code of no module */
	const char *symbol;              /* NULL: no dynamic symbol covers it */
};

/* An address inside of what; what is mapped there when it is nobody's of ours. */
struct place_facts {
	uintptr_t addr;
	struct addr_info heap;
	struct mapping region;           /* kind is REGION_NONE unless heap.kind is ADDR_FOREIGN */
	bool in_module;
	uintptr_t module_offset;
	const char *variable;            /* facts_take_address: its name, or NULL */
	uintptr_t variable_offset;
};

/* What changed bytes look like. */
struct looks_facts {
	char text[FACTS_TEXT_BYTES];     /* "" unless some bytes in a row are printable */
	bool one_bit;
	unsigned bit;
	enum { WORD_NONE, WORD_POINTER, WORD_INTEGER, WORD_OTHER } word_kind;
	intptr_t word_offset;            /* from diff_origin */
	uint64_t word;
	struct place_facts target;       /* WORD_POINTER */
};

/* A place where leaked objects were allocated. */
struct leak_facts {
	bool indirect;
	size_t bytes, objects;
	uintptr_t sample;                /* one of them */
	struct room_trace allocated;     /* frames 0: not kept */
};

/* The object before or behind that of the report, in memory. */
struct neighbour_facts {
	bool known;
	uintptr_t base;
	size_t bytes;
	enum slot_state state;
	const char *what, *api;          /* as in struct room_object; none: it is a slot */
	uint64_t serial;
	const char *free_api;
	int tid;                         /* who allocated it, 0: not kept */
	size_t frames;                   /* of the program, from where it called api on */
	uintptr_t pcs[NEIGHBOUR_FRAMES];
};

enum { NEIGHBOUR_BEFORE, NEIGHBOUR_BEHIND, NEIGHBOURS };

/* SG-OOM: the process as the kernel sees it. A limit of 0: there is none, or it
 * cannot be read. */
struct shortage_facts {
	bool known;
	bool by_limit, by_mappings;      /* what the request ran into, as it seems */
	uint64_t address_bytes, address_limit, resident_bytes;
	uint64_t mappings, mappings_limit;
};

struct facts {
	struct die_info info;            /* api is never NULL */
	bool goes_on;                    /* the process does, after this report */
	uint32_t pid, tid;
	char thread[17];
	char exe[PROCMAP_PATH_BYTES];
	uint64_t time_s;                 /* since 1970 */
	char title[FACTS_TITLE_BYTES];   /* the sentence of the first line */
	uintptr_t pcs[FACTS_FRAMES];
	size_t frames;
	enum facts_stack summary_stack;  /* where the frame to group reports by is */
	size_t summary;                  /* and its index */
	uint64_t fingerprint;            /* of kind and innermost frames, without addresses */
	bool place_unknown;              /* the heap could not be asked */
	struct place_facts place;        /* of the object the address belongs to */
	bool has_object;                 /* a hardening room knows more of it */
	struct room_object object;
	bool is_leak;
	struct leak_facts leak;
	uintptr_t diff_origin;           /* changed bytes are counted from here */
	struct looks_facts looks;
	struct neighbour_facts neighbour[NEIGHBOURS];
	struct shortage_facts shortage;
	const char *hint;                /* or NULL */
};

/* Before anything of a report is asked for: forgets the modules of the last one. */
void facts_begin(void);

/* Fills *f with what can be told without the heap. `caller`: return address into the
 * function that called die(); the stack begins there, or where the access was. */
void facts_take(struct facts *f, const struct die_info *info, uintptr_t caller, bool goes_on);

/* And with the rest: what the address is, what changed bytes look like, the hint.
 * A heap that is corrupted may fault here. */
void facts_take_heap(struct facts *f);

/* Fills *f from it: a report of DIE_LEAK whose one stack is that of the allocation. */
void facts_take_leak(struct facts *f, const struct leak_facts *leak);

/* Of an address alone: f->info.addr, the place and the object; a variable's name
 * where its module exports it. */
void facts_take_address(struct facts *f, uintptr_t addr);

/* FACTS-2. */
void facts_forget(struct facts *f);

/* Valid until the next call. */
const struct frame_facts *facts_frame(uintptr_t pc);

/* The path of a frame's module, and its dynamic symbol or NULL; until the next question
 * about a frame. false: it is in no module. */
bool facts_look_up(uintptr_t pc, const char **symbol, const char **module);

/* The modules of all frames asked for since facts_begin, and how many. */
size_t facts_modules(const struct module **list);

/* Does this pc lie in libc, the loader or spanguard itself? */
bool facts_frame_is_libs(const struct frame_facts *f);

/* Does a room know more of it than the heap does? */
bool facts_object_is_known(const struct room_object *o);

/* Words for both outputs. */
const char *facts_state_name(enum slot_state s);
const char *facts_relation(uintptr_t addr, uintptr_t base, size_t bytes, size_t *distance);
uint32_t facts_thread_number(const struct facts *f, uint32_t tid);   /* 0: the first thread */

/* The frames of the stack that the summary is in, from there on. */
size_t facts_summary(const struct facts *f, const uintptr_t **pcs);

/* "a--b--c": the innermost frames of the program. */
void facts_print_token(struct print *p, const struct facts *f);

/* neighbours.c: fills f->neighbour where the error may be another object's: an overflow,
 * changed bytes, a free of an address inside of the heap. */
void facts_take_neighbours(struct facts *f);
const char *facts_neighbour_name(size_t side);

/* shortage.c: fills f->shortage where memory was asked for in vain; and is it to be
 * told that there are not so many bytes to be had? */
void facts_take_shortage(struct facts *f);
bool shortage_is_told(size_t bytes);

/* hints.c: what this picture usually means, or NULL. */
const char *facts_hint(const struct facts *f);

#endif
