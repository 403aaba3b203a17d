/* procmap.h - what is mapped at an address, and which module's code or data.
 *
 * Everything comes from /proc/self/maps and from the ELF headers as they lie in
 * memory; the loader's lists and locks are not used. Works in a crashed process
 * and in a signal handler: raw calls, static buffers, reads through peek.h.
 * Because of the static buffers the caller sees to it that one thread is in
 * here at a time (the reporter does). errno is kept. */
#ifndef SPANGUARD_PROCMAP_H
#define SPANGUARD_PROCMAP_H

#include "base.h"

enum { PROCMAP_PATH_BYTES = 512, BUILD_ID_BYTES = 32 };

enum region_kind {
	REGION_NONE,            /* not mapped */
	REGION_NONCANONICAL,    /* no user address can look like this */
	REGION_THIS_STACK,      /* between the caller's stack pointer and its stack's end */
	REGION_MAIN_STACK,      /* the stack of the first thread */
	REGION_BRK,             /* [heap]: the brk segment */
	REGION_CODE,            /* of a module */
	REGION_RODATA,
	REGION_DATA,
	REGION_BSS,
	REGION_FILE,            /* a file that is not a loaded module */
	REGION_ANON,            /* an mmap that nobody named */
	REGION_VDSO,
	REGION_KINDS
};

/* A loaded ELF file. */
struct module {
	uintptr_t start, end;     /* of its mappings */
	uintptr_t bias;           /* address in memory - address in the file */
	uintptr_t phdr;           /* its program headers in memory */
	uint16_t phnum;
	uint8_t build_id[BUILD_ID_BYTES];
	size_t build_id_bytes;    /* 0: has none */
	char path[PROCMAP_PATH_BYTES];
};

struct mapping {
	enum region_kind kind;
	uintptr_t start, end;     /* 0, 0 if there is none */
	uint64_t file_offset;     /* of start */
	char perms[5];            /* "rwxp" */
	char path[PROCMAP_PATH_BYTES];   /* "" if it has no name */
};

/* The raw line of maps that addr is in; kind is not decided yet. False: there
 * is none (or no /proc). */
bool procmap_find(uintptr_t addr, struct mapping *out);

/* The same with its kind. `sp` is the stack pointer of the thread that asks,
 * 0 if its stack is of no interest. For module data, path is the module. */
void procmap_classify(uintptr_t addr, uintptr_t sp, struct mapping *out);

/* The module that addr lies in: code, data or .bss. */
bool procmap_module(uintptr_t addr, struct module *out);

/* The dynamic symbol, function or variable, that covers addr; false if none does. */
bool procmap_symbol(const struct module *m, uintptr_t addr, char *name, size_t cap,
    uintptr_t *offset);

/* .eh_frame_hdr of the module that pc lies in, for the unwinder, by reading
 * maps. 0: none. */
uintptr_t procmap_eh_frame_hdr(uintptr_t pc);

#endif
