/* elffacts.h - what an ELF file says about how it wants to be loaded. */
#ifndef SPANGUARD_ELFFACTS_H
#define SPANGUARD_ELFFACTS_H

#include <stdbool.h>
#include <stdint.h>

struct elf_facts {
	bool is_elf;
	int class;
	int machine;
	char interp[256];        /* "" if it has none */
	bool needs_musl;         /* by a DT_NEEDED */
	bool needs_glibc;
	char needs_allocator[64];   /* a malloc that it is linked to, "" */
	bool sanitized;          /* brings the allocator of a sanitizer */
	bool own_malloc;         /* defines malloc for everybody */
	char other_malloc[64];   /* a symbol of an allocator inside under names of its own */
	bool has_debug_info;     /* in itself */
	char build_id[80];       /* hex, "" */
	char debug_link[256];    /* .gnu_debuglink, "" */
	char version[24];        /* of the spanguard in it, "" */
	uint64_t layout;         /* the same, ci/layout */
};

struct elf_facts elf_facts(const char *path);

#endif
