/* sgf.h - sgf1, the one input format of all harnesses.
 *
 *   0        16        24        32
 *   | header | op      | op      | ...        SGF_MAX_OPS at most
 *
 *   header   mode, geometry, verify, scavenge | seed, 32 bits
 *            knob[4] | fault_mask, fault_flags, fault_nth, 16 bits
 *   op       code and thread | handle | a | b | imm, 32 bits, little-endian
 *
 * Every byte string is a program: what is missing is zero, a last op may be cut
 * short, what is too long is not read. No length, no magic, no checksum. An op
 * names its object by a handle, a number in a table of 256, so that taking an op
 * out leaves all others with their meaning: minimising, splicing and crossing
 * work on ops.
 *
 * code takes 6 bits; each harness says what the 64 codes are by a table of names.
 * Codes of one name are the same op: the first stands for all when text is made
 * into bytes. Random choices, clock, failures and schedule are all in the file:
 * a run depends on nothing else. */
#ifndef SPANGUARD_FUZZ_SGF_H
#define SPANGUARD_FUZZ_SGF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum {
	SGF_HEADER_BYTES = 16,
	SGF_OP_BYTES = 8,
	SGF_MAX_OPS = 2048,
	SGF_MAX_BYTES = SGF_HEADER_BYTES + SGF_MAX_OPS * SGF_OP_BYTES,
	SGF_HANDLES = 256,
	SGF_CODES = 64,
	SGF_THREADS = 4,
};

struct sgf_header {
	uint8_t mode;          /* & 7: a mode; from 128 on a mixture of rooms */
	uint8_t geometry;      /* OS page size, guard kind, placement */
	uint8_t verify;        /* 0: at the end; else every so many ops */
	uint8_t scavenge;
	uint32_t seed;
	uint8_t knob[4];       /* the harness's own */
	uint8_t fault_mask;
	uint8_t fault_flags;
	uint16_t fault_nth;
};

struct sgf_op {
	uint8_t code;          /* 0 .. 63 */
	uint8_t thread;        /* 0 .. 3 */
	uint8_t handle;
	uint8_t a;
	uint8_t b;
	uint32_t imm;
};

/* The names of a harness's 64 codes; NULL: as code 0. */
struct sgf_language {
	const char *op[SGF_CODES];
	const char *knob[4];   /* what the header's knobs are, for people; may be NULL */
};

/* A harness's ops once, as OPS(OP) of rows OP(enumerator, name, first code, last code):
 * enum op { OPS(SGF_ENUM) }, op_of[SGF_CODES] = { OPS(SGF_CODE) }, .op = { OPS(SGF_NAME) }. */
#define SGF_ENUM(id, name, from, to) id,
#define SGF_CODE(id, name, from, to) [from ... to] = id,
#define SGF_NAME(id, name, from, to) [from ... to] = name,

size_t sgf_ops(size_t bytes);      /* ops in a file of that many bytes */
void sgf_read_header(const uint8_t *data, size_t bytes, struct sgf_header *out);
/* Of a quarter of all headers: for what is too slow for each input. */
bool sgf_one_in_four(const struct sgf_header *h);
void sgf_read_op(const uint8_t *data, size_t bytes, size_t i, struct sgf_op *out);
void sgf_write_header(uint8_t *data, const struct sgf_header *h);    /* 16 bytes */
void sgf_write_op(uint8_t *data, const struct sgf_op *op);           /* 8 bytes */

/* Text: one line for the header, one for each op, '#' begins a comment.
 *   header mode=1 geometry=0 verify=8 scavenge=0 seed=0x1 knob=0,0,0,0 fault=0,0,0
 *   malloc t0 h12 a=0 b=16 imm=0x40
 * sgf_print and sgf_parse are inverse to each other, up to codes of one name. */
void sgf_print(const uint8_t *data, size_t bytes, const struct sgf_language *l, FILE *out);
/* Bytes written, at most SGF_MAX_BYTES; 0: a complaint is on stderr. */
size_t sgf_parse(FILE *in, const char *name, const struct sgf_language *l, uint8_t *out);

#endif
