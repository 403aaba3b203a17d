/* access.c - see access.h. Opcodes are those of the Intel SDM, volume 2, appendix A.
 *
 *   1 2 4 8  so many bytes            v  2, 4 or 8 by prefix and REX.W
 *   d        4, or 8 with W           q  8, or 16 with W
 *   x        a whole vector (of MMX without a prefix)
 *   s        packed: a whole vector; F3: 4, F2: 8
 *   S        cvtps2pd and its kin: half a vector, with 66 a whole one
 *   A B C    a half, a quarter, an eighth of a vector
 *   L        16, of however long a vector
 *   g f      by the reg field of ModRM: group 5, x87
 *   .        no memory, or not known */
#include "access.h"

#if defined(__x86_64__)

enum { MAX_BYTES = 15, MAPS = 4, LEGACY_VECTOR = 16 };

struct insn {
	const uint8_t *at, *end;
	bool vex, evex, wide, opsize, broadcast;
	bool cut;                  /* an instruction of more bytes than there are */
	uint8_t rep;                /* 0xf2, 0xf3, or 0 */
	uint8_t map;                /* 0: one byte; 1: 0f; 2: 0f 38; 3: 0f 3a */
	uint8_t opcode;
	size_t vector;              /* bytes */
};

/* A row is 16 opcodes. */
static const char map0[] =
	"1v1v....1v1v...."
	"1v1v....1v1v...."
	"1v1v....1v1v...."
	"1v1v....1v1v...."
	"................"
	"8888888888888888"
	"...4.....v.v1v1v"
	"................"
	"1v1v1v1v1v1v2.28"
	"............88.."
	"1v1v1v1v..1v1v1v"
	"................"
	"1v88..1v88......"
	"1v1v...1ffffffff"
	"........8......."
	"......1v......1g";

static const char map1[] =
	"................"
	"ss88xx88........"
	"........xxsxss.."
	"................"
	"vvvvvvvvvvvvvvvv"
	".sssssssssSxssss"
	"xxxxxxxxxxxxxxdx"
	"x...xxx.....xxdx"
	"................"
	"1111111111111111"
	"...vvv.....vvv.v"
	"1v.v..12v.vvvv12"
	"1vsd2.xq........"
	"xxxxxxx.xxxxxxxx"
	"xxxxxx.xxxxxxxxx"
	"xxxxxxx.xxxxxxx.";

static const char map2[] =
	"xxxxxxxxxxxxxxxx"
	"x...xxxx48L.xxx."
	"ABCABA..xxxxxxxx"
	"ABCABAxxxxxxxxxx"
	"xx...xxx........"
	"........48L....."
	"................"
	"........12......"
	"............x.x."
	"dddd..xxxdxdxdxd"
	"......xxxdxdxdxd"
	"......xxxdxdxdxd"
	"........xxxxxx.."
	"...........xxxxx"
	"................"
	"vvdd.ddd........";

static const char map3[] =
	"xxx.xxx.xx48xxxx"
	"....12d4LL....xx"
	"14d..x.........."
	"........LL....xx"
	"xxx.x.x...xxx..."
	"................"
	"xxxx............"
	"................";

static size_t
vector_bytes(const struct insn *i)
{
	if (i->broadcast)
		return i->wide ? 8 : 4;
	if (!i->vex && !i->opsize && i->rep == 0 && i->map == 1 &&
	    ((i->opcode >= 0x60 && i->opcode < 0x80) || i->opcode >= 0xd0))
		return 8;               /* MMX */
	return i->vector;
}

static size_t
x87_bytes(unsigned escape, unsigned reg)
{
	static const char table[8][9] = { "44444444", "4.44.2.2", "44444444", "4444.t.t",
		"88888888", "8888...2", "22222222", "2222t8t8" };
	char c = table[escape & 7][reg];
	return c == 't' ? 10 : c == '.' ? 0 : (size_t)(c - '0');
}

static size_t
operand_bytes(const struct insn *i)
{
	return i->wide ? 8 : i->opsize ? 2 : 4;
}

static size_t
scalar_or(const struct insn *i, size_t packed)
{
	return i->rep == 0xf3 ? 4 : i->rep == 0xf2 ? 8 : packed;
}

/* cvtps2pd reads half of what it writes. */
static size_t
half_vector(const struct insn *i)
{
	return i->opsize ? vector_bytes(i) : vector_bytes(i) / 2;
}

static size_t
bytes_of(const struct insn *i, char kind, unsigned reg)
{
	switch (kind) {
	case '1': case '2': case '4': case '8': return (size_t)(kind - '0');
	case 'v': return operand_bytes(i);
	case 'd': return i->wide ? 8 : 4;
	case 'q': return i->wide ? 16 : 8;
	case 'x': return vector_bytes(i);
	case 's': return scalar_or(i, vector_bytes(i));
	case 'S': return scalar_or(i, half_vector(i));
	case 'A': return i->vector / 2;
	case 'B': return i->vector / 4;
	case 'C': return i->vector / 8;
	case 'L': return LEGACY_VECTOR;
	case 'g': return reg < 2 ? operand_bytes(i) : 8;
	case 'f': return x87_bytes(i->opcode, reg);
	default: return 0;
	}
}

/* The cells whose meaning depends on more than their row says. */
static size_t
exception(const struct insn *i)
{
	uint8_t op = i->opcode;
	if (i->map == 2 && (op & 0xfe) == 0xf0 && !i->vex)      /* movbe, crc32 */
		return op == 0xf0 && i->rep == 0xf2 ? 1 : operand_bytes(i);
	if (i->map != 1)
		return 0;
	if (op == 0x2e || op == 0x2f)                           /* ucomiss, ucomisd */
		return i->opsize ? 8 : 4;
	if (op == 0x7e && i->rep == 0xf3)                       /* movq */
		return 8;
	if (op == 0xd6)
		return 8;
	if ((op == 0x12 || op == 0x16) && i->rep == 0xf3)       /* movsldup */
		return i->vector;
	if (op == 0x2a)                                         /* cvtsi2ss, cvtpi2ps */
		return i->rep != 0 ? (i->wide ? 8 : 4) : 8;
	if ((op == 0x2c || op == 0x2d) && i->rep == 0 && !i->opsize)
		return 8;
	return 0;
}

/* ---- prefixes ----------------------------------------------------------- */

static uint8_t
next(struct insn *i)
{
	i->cut |= i->at == i->end;
	return !i->cut ? *i->at++ : 0;
}

static bool
is_legacy_prefix(uint8_t b)
{
	return b == 0x66 || b == 0x67 || b == 0xf2 || b == 0xf3 || b == 0xf0 || b == 0x2e ||
	    b == 0x36 || b == 0x3e || b == 0x26 || b == 0x64 || b == 0x65;
}

static void
set_pp(struct insn *i, uint8_t pp)
{
	i->opsize = pp == 1;
	i->rep = pp == 2 ? 0xf3 : pp == 3 ? 0xf2 : 0;
}

static void
read_vex(struct insn *i, uint8_t b)
{
	i->vex = true;
	i->map = 1;
	if (b == 0xc4)
		i->map = next(i) & 0x1f;
	uint8_t last = next(i);
	i->wide = b == 0xc4 && (last & 0x80) != 0;
	i->vector = (last & 4) != 0 ? 32 : 16;
	set_pp(i, last & 3);
}

static void
read_evex(struct insn *i)
{
	i->vex = i->evex = true;
	i->map = next(i) & 7;
	uint8_t p1 = next(i), p2 = next(i);
	i->wide = (p1 & 0x80) != 0;
	i->vector = (size_t)16 << ((p2 >> 5 & 3) < 3 ? p2 >> 5 & 3 : 2);
	i->broadcast = (p2 & 0x10) != 0;
	set_pp(i, p1 & 3);
}

static void
read_opcode(struct insn *i)
{
	uint8_t b = next(i);
	while (is_legacy_prefix(b)) {
		i->opsize |= b == 0x66;
		if (b == 0xf2 || b == 0xf3)
			i->rep = b;
		b = next(i);
	}
	if ((b & 0xf0) == 0x40) {
		i->wide = (b & 8) != 0;
		b = next(i);
	}
	if (b == 0xc4 || b == 0xc5) {
		read_vex(i, b);
		b = next(i);
	} else if (b == 0x62) {
		read_evex(i);
		b = next(i);
	} else if (b == 0x0f) {
		b = next(i);
		i->map = b == 0x38 ? 2 : b == 0x3a ? 3 : 1;
		if (i->map != 1)
			b = next(i);
	}
	i->opcode = b;
}

size_t
access_bytes(const uint8_t *code, size_t n)
{
	static const char *const map[MAPS] = { map0, map1, map2, map3 };
	static const size_t length[MAPS] = { sizeof(map0) - 1, sizeof(map1) - 1,
		sizeof(map2) - 1, sizeof(map3) - 1 };
	struct insn i = { .at = code, .end = code + (n < MAX_BYTES ? n : MAX_BYTES),
		.vector = LEGACY_VECTOR };
	read_opcode(&i);
	if (i.map >= MAPS || i.opcode >= length[i.map])
		return 0;
	size_t bytes = exception(&i);
	if (i.cut || bytes != 0)
		return i.cut ? 0 : bytes;
	char kind = map[i.map][i.opcode];
	unsigned reg = next(&i) >> 3 & 7;
	return i.cut && (kind == 'g' || kind == 'f') ? 0 : bytes_of(&i, kind, reg);
}

#else

size_t
access_bytes(const uint8_t *code, size_t n)
{
	(void)code;
	(void)n;
	return 0;
}

#endif
