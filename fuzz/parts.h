/* parts.h - what h21_parts.c and h21_misuse.c share. */
#ifndef SPANGUARD_FUZZ_PARTS_H
#define SPANGUARD_FUZZ_PARTS_H

#include "fake_die.h"
#include "fheap.h"

/* Metadata of all parts. */
extern struct persistent sg_parts_meta;
extern bool sg_parts_refusing;     /* the system may say no */

/* fn(arg) must die of a corruption with that tag and address. */
void sg_must_stop(void (*fn)(void *), void *arg, const char *site, uintptr_t addr);

/* The page allocator, and one span: used rightly and wrongly. */
void sg_misuse_start(const struct sgf_header *h);
void sg_misuse_pages(const struct sgf_op *op);
void sg_misuse_span(const struct sgf_op *op);
void sg_misuse_end(void);

#endif
