/* process_insn.c - instructions of H20: rows of the Intel SDM, volume 2, put into bytes
 * with prefixes and registers that do not matter; access_bytes must say how much memory
 * each touches, and of an instruction that is cut short the same, or nothing. */
#include "process.h"

#include <string.h>

#include "../hardening/access.h"

#if defined(__x86_64__)

enum form { LEGACY, VEX, EVEX };

enum { P66 = 1, PF3 = 2, PF2 = 3, W = 4, B = 8, L1 = 16, L2 = 32, CODE_BYTES = 24 };

/* how: a prefix (as VEX has them), W, for vectors the length, a broadcast */
static const struct row {
	const char *name;
	uint8_t form, map, opcode, reg, how;
	uint8_t bytes;
} rows[] = {
	{ "mov r8", LEGACY, 0, 0x8a, 9, 0, 1 }, { "mov r32", LEGACY, 0, 0x8b, 9, 0, 4 },
	{ "mov r16", LEGACY, 0, 0x8b, 9, P66, 2 }, { "mov r64", LEGACY, 0, 0x8b, 9, W, 8 },
	{ "mov sreg", LEGACY, 0, 0x8c, 9, 0, 2 }, { "lea", LEGACY, 0, 0x8d, 9, 0, 0 },
	{ "pop m64", LEGACY, 0, 0x8f, 0, 0, 8 }, { "movsxd", LEGACY, 0, 0x63, 9, W, 4 },
	{ "imul", LEGACY, 0, 0x69, 9, 0, 4 }, { "push r64", LEGACY, 0, 0x53, 9, 0, 8 },
	{ "call", LEGACY, 0, 0xe8, 9, 0, 8 }, { "ret", LEGACY, 0, 0xc3, 9, 0, 8 },
	{ "stosb", LEGACY, 0, 0xaa, 9, 0, 1 }, { "rep stosq", LEGACY, 0, 0xab, 9, PF3 | W, 8 },
	{ "movsd", LEGACY, 0, 0xa5, 9, 0, 4 }, { "shl m8", LEGACY, 0, 0xc0, 4, 0, 1 }, { "shl m32", LEGACY, 0, 0xd3, 4, 0, 4 },
	{ "xor", LEGACY, 0, 0x31, 9, 0, 4 }, { "test m8", LEGACY, 0, 0xf6, 0, 0, 1 }, { "neg m64", LEGACY, 0, 0xf7, 3, W, 8 },
	{ "inc m32", LEGACY, 0, 0xff, 0, 0, 4 }, { "call m64", LEGACY, 0, 0xff, 2, 0, 8 }, { "push m64", LEGACY, 0, 0xff, 6, 0, 8 },
	{ "jcc", LEGACY, 0, 0x74, 9, 0, 0 }, { "hlt", LEGACY, 0, 0xf4, 9, 0, 0 },
	{ "fld m32", LEGACY, 0, 0xd9, 0, 0, 4 }, { "fldcw", LEGACY, 0, 0xd9, 5, 0, 2 }, { "fldenv", LEGACY, 0, 0xd9, 4, 0, 0 },
	{ "fld m80", LEGACY, 0, 0xdb, 5, 0, 10 }, { "fld m64", LEGACY, 0, 0xdd, 0, 0, 8 }, { "fild m16", LEGACY, 0, 0xdf, 0, 0, 2 },
	{ "fbld", LEGACY, 0, 0xdf, 4, 0, 10 }, { "fild m64", LEGACY, 0, 0xdf, 5, 0, 8 }, { "fadd m64", LEGACY, 0, 0xdc, 0, 0, 8 },
	{ "movzx m8", LEGACY, 1, 0xb6, 9, 0, 1 }, { "movzx m16", LEGACY, 1, 0xb7, 9, W, 2 }, { "sete", LEGACY, 1, 0x94, 0, 0, 1 },
	{ "cmov", LEGACY, 1, 0x44, 9, 0, 4 }, { "xadd m8", LEGACY, 1, 0xc0, 9, 0, 1 }, { "cmpxchg", LEGACY, 1, 0xb1, 9, W, 8 },
	{ "cmpxchg8b", LEGACY, 1, 0xc7, 1, 0, 8 }, { "cmpxchg16b", LEGACY, 1, 0xc7, 1, W, 16 },
	{ "movnti", LEGACY, 1, 0xc3, 9, 0, 4 }, { "movnti", LEGACY, 1, 0xc3, 9, W, 8 }, { "pinsrw", LEGACY, 1, 0xc4, 9, P66, 2 },
	{ "movups", LEGACY, 1, 0x10, 9, 0, 16 }, { "movss", LEGACY, 1, 0x10, 9, PF3, 4 }, { "movsd", LEGACY, 1, 0x11, 9, PF2, 8 },
	{ "movlps", LEGACY, 1, 0x12, 9, 0, 8 }, { "movsldup", LEGACY, 1, 0x12, 9, PF3, 16 }, { "movshdup", LEGACY, 1, 0x16, 9, PF3, 16 },
	{ "ucomiss", LEGACY, 1, 0x2e, 9, 0, 4 }, { "comisd", LEGACY, 1, 0x2f, 9, P66, 8 },
	{ "cvtpi2ps", LEGACY, 1, 0x2a, 9, 0, 8 }, { "cvtsi2ss", LEGACY, 1, 0x2a, 9, PF3, 4 }, { "cvtsi2sd", LEGACY, 1, 0x2a, 9, PF2 | W, 8 },
	{ "cvttps2pi", LEGACY, 1, 0x2c, 9, 0, 8 }, { "cvttss2si", LEGACY, 1, 0x2c, 9, PF3, 4 }, { "cvtsd2si", LEGACY, 1, 0x2d, 9, PF2, 8 },
	{ "cvttpd2pi", LEGACY, 1, 0x2c, 9, P66, 16 }, { "cvtps2pi", LEGACY, 1, 0x2d, 9, 0, 8 },
	{ "cvtps2pd", LEGACY, 1, 0x5a, 9, 0, 8 }, { "cvtpd2ps", LEGACY, 1, 0x5a, 9, P66, 16 }, { "cvtss2sd", LEGACY, 1, 0x5a, 9, PF3, 4 },
	{ "addps", LEGACY, 1, 0x58, 9, 0, 16 }, { "movd", LEGACY, 1, 0x6e, 9, P66, 4 }, { "movq", LEGACY, 1, 0x6e, 9, P66 | W, 8 },
	{ "movq", LEGACY, 1, 0x7e, 9, PF3, 8 }, { "movd", LEGACY, 1, 0x7e, 9, 0, 4 }, { "movq", LEGACY, 1, 0xd6, 9, P66, 8 },
	{ "paddb mm", LEGACY, 1, 0xfc, 9, 0, 8 }, { "paddb xmm", LEGACY, 1, 0xfc, 9, P66, 16 }, { "movq mm", LEGACY, 1, 0x6f, 9, 0, 8 },
	{ "movdqu", LEGACY, 1, 0x6f, 9, PF3, 16 }, { "syscall", LEGACY, 1, 0x05, 9, 0, 0 },
	{ "movbe", LEGACY, 2, 0xf0, 9, 0, 4 }, { "movbe", LEGACY, 2, 0xf1, 9, P66, 2 }, { "crc32 m8", LEGACY, 2, 0xf0, 9, PF2, 1 },
	{ "crc32 m32", LEGACY, 2, 0xf1, 9, PF2, 4 }, { "pshufb", LEGACY, 2, 0x00, 9, P66, 16 }, { "pmovzxbw", LEGACY, 2, 0x30, 9, P66, 8 },
	{ "pmovzxbd", LEGACY, 2, 0x31, 9, P66, 4 }, { "pmovzxbq", LEGACY, 2, 0x32, 9, P66, 2 }, { "pextrb", LEGACY, 3, 0x14, 9, P66, 1 },
	{ "pextrw", LEGACY, 3, 0x15, 9, P66, 2 }, { "pextrd", LEGACY, 3, 0x16, 9, P66, 4 }, { "pextrq", LEGACY, 3, 0x16, 9, P66 | W, 8 },
	{ "insertps", LEGACY, 3, 0x21, 9, P66, 4 }, { "palignr", LEGACY, 3, 0x0f, 9, P66, 16 }, { "none", LEGACY, 3, 0xfe, 9, P66, 0 },
	{ "vmovups xmm", VEX, 1, 0x10, 9, 0, 16 }, { "vmovups ymm", VEX, 1, 0x10, 9, L1, 32 }, { "vmovss", VEX, 1, 0x10, 9, PF3, 4 },
	{ "vcvtps2pd ymm", VEX, 1, 0x5a, 9, L1, 16 }, { "vpaddb ymm", VEX, 1, 0xfc, 9, P66 | L1, 32 }, { "vmovsldup", VEX, 1, 0x12, 9, PF3 | L1, 32 },
	{ "vpmovzxbw ymm", VEX, 2, 0x30, 9, P66 | L1, 16 }, { "vpmovzxbd ymm", VEX, 2, 0x31, 9, P66 | L1, 8 },
	{ "vpmovzxbq ymm", VEX, 2, 0x32, 9, P66 | L1, 4 }, { "vbroadcastss", VEX, 2, 0x18, 9, P66 | L1, 4 },
	{ "vbroadcastsd", VEX, 2, 0x19, 9, P66 | L1, 8 }, { "vbroadcastf128", VEX, 2, 0x1a, 9, P66 | L1, 16 },
	{ "vfmadd132ps", VEX, 2, 0x98, 9, P66 | L1, 32 }, { "vfmadd132ss", VEX, 2, 0x99, 9, P66, 4 },
	{ "vfmadd132sd", VEX, 2, 0x99, 9, P66 | W, 8 }, { "andn", VEX, 2, 0xf2, 9, 0, 4 }, { "andn", VEX, 2, 0xf2, 9, W, 8 },
	{ "vextractf128", VEX, 3, 0x19, 9, P66 | L1, 16 }, { "vinsertf128", VEX, 3, 0x18, 9, P66 | L1, 16 },
	{ "none", VEX, 9, 0x10, 9, 0, 0 },
	{ "vmovups zmm", EVEX, 1, 0x10, 9, L2, 64 }, { "vmovups ymm", EVEX, 1, 0x10, 9, L1, 32 }, { "vaddps zmm", EVEX, 1, 0x58, 9, L2, 64 },
	{ "vaddps m32bcst", EVEX, 1, 0x58, 9, L2 | B, 4 }, { "vaddpd m64bcst", EVEX, 1, 0x58, 9, L2 | B | W | P66, 8 },
	{ "vpmovzxbw zmm", EVEX, 2, 0x30, 9, P66 | L2, 32 }, { "vmovss", EVEX, 1, 0x10, 9, PF3, 4 },
	{ "none", EVEX, 5, 0x10, 9, L2, 0 },
};

static size_t
put_legacy(uint8_t *c, const struct row *r, uint64_t random)
{
	static const uint8_t idle[] = { 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65, 0x67, 0xf0 };
	static const uint8_t prefix[] = { 0, 0x66, 0xf3, 0xf2 };
	size_t n = 0;

	if (random & 1)
		c[n++] = idle[random >> 1 & 7];
	if (r->how & 3)
		c[n++] = prefix[r->how & 3];
	if (r->how & W || random & 16)
		c[n++] = (uint8_t)(0x40 | (r->how & W ? 8 : 0) | (random >> 5 & 7));
	if (r->map != 0)
		c[n++] = 0x0f;
	if (r->map > 1)
		c[n++] = r->map == 2 ? 0x38 : 0x3a;
	return n;
}

static size_t
put_vex(uint8_t *c, const struct row *r, uint64_t random)
{
	uint8_t last = (uint8_t)((r->how & 3) | (r->how & L1 ? 4 : 0) | (random & 0x78));
	size_t n = 0;

	if (r->map == 1 && (r->how & W) == 0 && random & 1) {
		c[n++] = 0xc5;
		c[n++] = last;
	} else {
		c[n++] = 0xc4;
		c[n++] = (uint8_t)(r->map | (random >> 8 & 0xe0));
		c[n++] = (uint8_t)(last | (r->how & W ? 0x80 : 0));
	}
	return n;
}

static size_t
put_evex(uint8_t *c, const struct row *r, uint64_t random)
{
	c[0] = 0x62;
	c[1] = (uint8_t)(r->map | (random & 0xf0));
	c[2] = (uint8_t)((r->how & 3) | 4 | (random >> 8 & 0x78) | (r->how & W ? 0x80 : 0));
	c[3] = (uint8_t)((r->how & L2 ? 0x40 : r->how & L1 ? 0x20 : 0) | (r->how & B ? 0x10 : 0) | (random >> 16 & 0x8f));
	return 4;
}

void
process_insn(const struct sgf_op *op)
{
	const struct row *r = &rows[(op->a + 256u * (op->b & 1)) % ARRAY_LEN(rows)];
	uint8_t code[CODE_BYTES];
	uint64_t random = op->imm | (uint64_t)op->handle << 32;
	size_t n = r->form == LEGACY ? put_legacy(code, r, random) : r->form == VEX ? put_vex(code, r, random) :
	    put_evex(code, r, random);

	code[n++] = r->opcode;
	unsigned reg = r->reg < 8 ? r->reg : (unsigned)(random >> 23 & 7);
	code[n++] = (uint8_t)(reg << 3 | (random >> 26 & 7));
	for (size_t i = n; i < CODE_BYTES; i++)
		code[i] = (uint8_t)(random >> i % 29);
	size_t got = access_bytes(code, CODE_BYTES);
	SG_CHECK(MODEL, got == r->bytes, "%s touches %u bytes, not %zu", r->name, r->bytes, got);
	for (size_t k = 0; k < n; k++) {
		size_t some = access_bytes(code, k);
		SG_CHECK(MODEL, some == 0 || some == r->bytes, "%s, %zu of its bytes: %zu", r->name, k, some);
	}
	sg_note(got);
}

#else

void
process_insn(const struct sgf_op *op)
{
	SG_CHECK(MODEL, access_bytes(&op->a, 1) == 0, "an instruction that nobody knows");
}

#endif
