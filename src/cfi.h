/* cfi.h - one step up the stack by call frame information (.eh_frame).
 *
 * The registers of a frame and the row of the table that covers its pc give the
 * registers of its caller. Every read goes through peek.h, so neither a smashed
 * stack nor a damaged table can make it fault; every loop is bounded by the
 * length of the data it reads. No lock, no malloc, errno kept.
 * Written after DWARF 4 section 6.4 and the LSB's description of .eh_frame. */
#ifndef SPANGUARD_CFI_H
#define SPANGUARD_CFI_H

#include "peek.h"

#if defined(__x86_64__)
enum { CFI_REGS = 17, CFI_FP = 6, CFI_SP = 7, CFI_RA = 16 };
#elif defined(__aarch64__)
enum { CFI_REGS = 32, CFI_FP = 29, CFI_SP = 31, CFI_RA = 30 };
#else
#error "spanguard knows x86-64 and arm64"
#endif

/* Registers by their DWARF numbers. */
struct cfi_frame {
	uintptr_t pc;
	uintptr_t reg[CFI_REGS];
	bool exact;          /* pc is where the frame stands, not a return address */
};

enum cfi_result {
	CFI_STEPPED,         /* *f is the caller now */
	CFI_OUTERMOST,       /* the tables say that there is no caller */
	CFI_NO_INFO,         /* no table, or it makes no sense here; *f is unchanged */
	CFI_COMPLEX,         /* cfi_simple: there is more to it than three numbers */
};

/* `hdr` is the module's .eh_frame_hdr. */
enum cfi_result cfi_step(struct peek *k, uintptr_t hdr, struct cfi_frame *f);

/* A frame of the usual shape, by offsets in bytes. */
struct cfi_simple {
	bool by_fp;          /* CFA = fp + cfa, else sp + cfa */
	int32_t cfa;
	int16_t fp;          /* the caller's fp is at CFA + fp; 0: it is unchanged */
	int8_t ra;           /* the return address is at CFA + ra */
};

/* CFI_STEPPED: *out is the shape of the frame at pc, if it has that one. */
enum cfi_result cfi_simple(struct peek *k, uintptr_t hdr, uintptr_t pc,
    struct cfi_simple *out);

#endif
