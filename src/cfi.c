/* cfi.c - see cfi.h.
 *
 *   .eh_frame_hdr --binary search--> FDE --> CIE
 *   CIE instructions, then FDE instructions up to the pc --> struct row
 *   row + registers of the frame --> CFA --> registers of the caller
 *
 * Only the table format that linkers write (sdata4, relative to the header) is
 * searched. Rows are kept small, since a thread may have little stack left. */
#include "cfi.h"

#include <string.h>

/* ---- reading ------------------------------------------------------------ */

struct cursor {
	struct peek *k;
	uintptr_t at, end;
	bool bad;            /* a read failed; everything read since is 0 */
};

static void
take(struct cursor *c, void *dst, size_t bytes)
{
	if (c->bad || bytes > c->end - c->at || !peek_read(c->k, dst, c->at, bytes)) {
		memset(dst, 0, bytes);
		c->bad = true;
		return;
	}
	c->at += bytes;
}

static uint8_t
u8(struct cursor *c)
{
	uint8_t v;
	take(c, &v, sizeof(v));
	return v;
}

static uint16_t
u16(struct cursor *c)
{
	uint16_t v;
	take(c, &v, sizeof(v));
	return v;
}

static uint32_t
u32(struct cursor *c)
{
	uint32_t v;
	take(c, &v, sizeof(v));
	return v;
}

static uint64_t
u64(struct cursor *c)
{
	uint64_t v;
	take(c, &v, sizeof(v));
	return v;
}

static uint64_t
uleb(struct cursor *c)
{
	uint64_t v = 0;
	for (unsigned shift = 0; shift < 64; shift += 7) {
		uint8_t b = u8(c);
		v |= (uint64_t)(b & 0x7f) << shift;
		if ((b & 0x80) == 0)
			return v;
	}
	c->bad = true;
	return 0;
}

static int64_t
sleb(struct cursor *c)
{
	uint64_t v = 0;
	for (unsigned shift = 0; shift < 64;) {
		uint8_t b = u8(c);
		v |= (uint64_t)(b & 0x7f) << shift;
		shift += 7;
		if ((b & 0x80) != 0)
			continue;
		if (shift < 64 && (b & 0x40) != 0)
			v |= ~(uint64_t)0 << shift;
		return (int64_t)v;
	}
	c->bad = true;
	return 0;
}

enum {
	PE_FORMAT = 0x0f, PE_ULEB = 1, PE_U2 = 2, PE_U4 = 3, PE_U8 = 4,
	PE_SLEB = 9, PE_S2 = 10, PE_S4 = 11, PE_S8 = 12,
	PE_RELATION = 0x70, PE_PCREL = 0x10, PE_DATAREL = 0x30, PE_OMIT = 0xff,
};

/* The number of an encoded pointer, without what it is relative to. */
static uint64_t
encoded(struct cursor *c, uint8_t encoding)
{
	switch (encoding & PE_FORMAT) {
	case 0:
	case PE_U8:
	case PE_S8: return u64(c);
	case PE_ULEB: return uleb(c);
	case PE_SLEB: return (uint64_t)sleb(c);
	case PE_U2: return u16(c);
	case PE_S2: return (uint64_t)(int64_t)(int16_t)u16(c);
	case PE_U4: return u32(c);
	case PE_S4: return (uint64_t)(int64_t)(int32_t)u32(c);
	}
	c->bad = true;
	return 0;
}

static uintptr_t
encoded_ptr(struct cursor *c, uint8_t encoding)
{
	uintptr_t here = c->at;
	uint64_t v = encoded(c, encoding);
	return (encoding & PE_RELATION) == PE_PCREL ? here + v : v;
}

/* ---- finding the FDE ---------------------------------------------------- */

struct fde {
	uintptr_t pc_begin, pc_bytes;
	uintptr_t code, code_end;         /* the FDE's instructions */
	uintptr_t cie_code, cie_code_end;
	uint64_t code_align;
	int64_t data_align;
	uint64_t ra_reg;
	uint8_t pc_encoding;
	bool signal_frame;
	bool augmented;
};

/* Enters the entry at `at`: a cursor over its bytes behind the length. */
static struct cursor
entry_at(struct peek *k, uintptr_t at)
{
	struct cursor c = { k, at, UINTPTR_MAX, false };
	uint64_t bytes = u32(&c);
	if (bytes == UINT32_MAX)
		bytes = u64(&c);
	if (bytes == 0 || bytes > UINT32_MAX)
		c.bad = true;
	c.end = c.at + bytes;
	return c;
}

static bool
cie_read(struct peek *k, uintptr_t at, struct fde *out)
{
	char aug[12];
	struct cursor c = entry_at(k, at);
	uint32_t id = u32(&c);
	uint8_t version = u8(&c);
	size_t n = 0;
	while ((aug[n] = (char)u8(&c)) != 0 && n < sizeof(aug) - 1)
		n++;
	if (c.bad || aug[n] != 0 || id != 0 || (version != 1 && version != 3))
		return false;
	out->code_align = uleb(&c);
	out->data_align = sleb(&c);
	out->ra_reg = version == 1 ? u8(&c) : uleb(&c);
	out->augmented = aug[0] == 'z';
	if (n != 0 && !out->augmented)
		return false;
	uint64_t aug_bytes = out->augmented ? uleb(&c) : 0;
	c.bad |= aug_bytes > c.end - c.at;
	out->cie_code = c.at + aug_bytes;
	out->cie_code_end = c.end;
	for (size_t i = 1; i < n; i++) {
		switch (aug[i]) {
		case 'R': out->pc_encoding = u8(&c); break;
		case 'P': encoded(&c, u8(&c)); break;
		case 'L': u8(&c); break;
		case 'S': out->signal_frame = true; break;
		case 'B':
		case 'G': break;        /* arm64: key, tagged frames */
		default: i = n; break;  /* whatever follows may be skipped */
		}
	}
	return !c.bad;
}

static bool
fde_read(struct peek *k, uintptr_t at, struct fde *out)
{
	struct cursor c = entry_at(k, at);
	*out = (struct fde){ 0 };
	uintptr_t here = c.at;
	uint32_t cie = u32(&c);
	if (c.bad || cie == 0 || !cie_read(k, here - cie, out))
		return false;
	out->pc_begin = encoded_ptr(&c, out->pc_encoding);
	out->pc_bytes = encoded(&c, out->pc_encoding & PE_FORMAT);
	if (out->augmented) {
		uint64_t aug_bytes = uleb(&c);
		c.bad |= aug_bytes > c.end - c.at;
		c.at += aug_bytes;
	}
	out->code = c.at;
	out->code_end = c.end;
	return !c.bad;
}

/* The table is sorted by pc: the last entry at or below it is the one. */
static bool
fde_find(struct peek *k, uintptr_t hdr, uintptr_t pc, struct fde *out)
{
	struct cursor c = { k, hdr, UINTPTR_MAX, false };
	uint8_t version = u8(&c);
	uint8_t frame_encoding = u8(&c);
	uint8_t count_encoding = u8(&c);
	uint8_t table_encoding = u8(&c);
	if (c.bad || version != 1 || count_encoding == PE_OMIT ||
	    table_encoding != (PE_DATAREL | PE_S4))
		return false;
	encoded(&c, frame_encoding);
	uint64_t count = encoded(&c, count_encoding);
	uintptr_t table = c.at;
	uint64_t lo = 0;
	uint64_t hi = count;
	int32_t entry[2] = { 0, 0 };
	if (c.bad || count > UINT32_MAX)
		return false;
	while (lo < hi) {
		uint64_t mid = lo + (hi - lo) / 2;
		if (!peek_read(k, entry, table + mid * sizeof(entry), sizeof(entry)))
			return false;
		if (hdr + (uintptr_t)(intptr_t)entry[0] <= pc)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo == 0 || !peek_read(k, entry, table + (lo - 1) * sizeof(entry), sizeof(entry)))
		return false;
	return fde_read(k, hdr + (uintptr_t)(intptr_t)entry[1], out) &&
	    pc - out->pc_begin < out->pc_bytes;
}

/* ---- the row for a pc --------------------------------------------------- */

enum rule_kind {
	RULE_SAME, RULE_UNDEFINED, RULE_AT_CFA, RULE_VAL_CFA, RULE_REG,
	RULE_EXPR, RULE_VAL_EXPR,
};

struct rule {
	uint8_t kind;
	int32_t v;           /* offset, register, or expression - fde->cie_code */
};

struct row {
	bool cfa_expr;
	uint8_t cfa_reg;
	int64_t cfa;         /* offset, or address of the expression */
	struct rule reg[CFI_REGS];
};

enum { REMEMBER_MAX = 3 };

struct machine {
	struct fde *fde;
	uintptr_t loc;       /* address that the row is for */
	struct row row;
	struct row initial;  /* after the CIE's instructions */
	struct row stack[REMEMBER_MAX];
	unsigned depth;
};

static void
set_rule(struct machine *m, uint64_t reg, enum rule_kind kind, int64_t v)
{
	if (reg < CFI_REGS)
		m->row.reg[reg] = (struct rule){ (uint8_t)kind, (int32_t)v };
}

static void
skip_block(struct cursor *c)
{
	uint64_t n = uleb(c);
	if (n > c->end - c->at)
		c->bad = true;
	else
		c->at += n;
}

static void
set_cfa(struct machine *m, struct cursor *c, uint64_t reg, int64_t offset)
{
	c->bad |= reg >= CFI_REGS;
	m->row.cfa_expr = false;
	m->row.cfa_reg = (uint8_t)reg;
	m->row.cfa = offset;
}

static void
restore_rule(struct machine *m, uint64_t reg)
{
	if (reg < CFI_REGS)
		m->row.reg[reg] = m->initial.reg[reg];
}

static void
set_expr(struct machine *m, struct cursor *c, enum rule_kind kind)
{
	uint64_t reg = uleb(c);
	set_rule(m, reg, kind, (int64_t)(c->at - m->fde->cie_code));
	skip_block(c);
}

static void
remember(struct machine *m, struct cursor *c)
{
	if (m->depth == REMEMBER_MAX)
		c->bad = true;
	else
		m->stack[m->depth++] = m->row;
}

static void
recall(struct machine *m, struct cursor *c)
{
	if (m->depth == 0)
		c->bad = true;
	else
		m->row = m->stack[--m->depth];
}

/* Modulo 2^64: tables that are no tables may say anything. */
static int64_t
scaled(uint64_t n, int64_t align)
{
	return (int64_t)(n * (uint64_t)align);
}

/* Instructions that say how to find a register. False: not one of them. */
static bool
run_register(struct machine *m, struct cursor *c, uint8_t op)
{
	int64_t align = m->fde->data_align;
	uint64_t reg;
	switch (op) {
	case 0x05: reg = uleb(c); set_rule(m, reg, RULE_AT_CFA, scaled(uleb(c), align)); break;
	case 0x06: restore_rule(m, uleb(c)); break;
	case 0x07: set_rule(m, uleb(c), RULE_UNDEFINED, 0); break;
	case 0x08: set_rule(m, uleb(c), RULE_SAME, 0); break;
	case 0x09: reg = uleb(c); set_rule(m, reg, RULE_REG, (int64_t)uleb(c)); break;
	case 0x10: set_expr(m, c, RULE_EXPR); break;
	case 0x11: reg = uleb(c); set_rule(m, reg, RULE_AT_CFA, scaled((uint64_t)sleb(c), align)); break;
	case 0x14: reg = uleb(c); set_rule(m, reg, RULE_VAL_CFA, scaled(uleb(c), align)); break;
	case 0x15: reg = uleb(c); set_rule(m, reg, RULE_VAL_CFA, scaled((uint64_t)sleb(c), align)); break;
	case 0x16: set_expr(m, c, RULE_VAL_EXPR); break;
	case 0x2f: reg = uleb(c); set_rule(m, reg, RULE_AT_CFA, scaled(0 - uleb(c), align)); break;
	default: return false;
	}
	return true;
}

/* One instruction with a whole byte as its code. */
static void
run_extended(struct machine *m, struct cursor *c, uint8_t op)
{
	int64_t align = m->fde->data_align;
	uint64_t reg;
	if (run_register(m, c, op))
		return;
	switch (op) {
	case 0x00: break;
	case 0x01: m->loc = encoded_ptr(c, m->fde->pc_encoding); break;
	case 0x02: m->loc += u8(c) * m->fde->code_align; break;
	case 0x03: m->loc += u16(c) * m->fde->code_align; break;
	case 0x04: m->loc += u32(c) * m->fde->code_align; break;
	case 0x0a: remember(m, c); break;
	case 0x0b: recall(m, c); break;
	case 0x0c: reg = uleb(c); set_cfa(m, c, reg, (int64_t)uleb(c)); break;
	case 0x0d: set_cfa(m, c, uleb(c), m->row.cfa); break;
	case 0x0e: m->row.cfa = (int64_t)uleb(c); break;
	case 0x0f:
		m->row.cfa_expr = true;
		m->row.cfa = (int64_t)c->at;
		skip_block(c);
		break;
	case 0x12: reg = uleb(c); set_cfa(m, c, reg, scaled((uint64_t)sleb(c), align)); break;
	case 0x13: m->row.cfa = scaled((uint64_t)sleb(c), align); break;
	case 0x2d: break;                /* arm64: return address signed, see strip() */
	case 0x2e: uleb(c); break;       /* size of pushed arguments */
	default: c->bad = true; break;
	}
}

/* Runs instructions until the row for pc is complete. */
static bool
run(struct machine *m, struct peek *k, uintptr_t code, uintptr_t end, uintptr_t pc)
{
	struct cursor c = { k, code, end, false };
	while (c.at < c.end && !c.bad) {
		struct row before = m->row;
		uint8_t op = u8(&c);
		uint8_t low = op & 0x3f;
		switch (op & 0xc0) {
		case 0x40: m->loc += low * m->fde->code_align; break;
		case 0x80:
			set_rule(m, low, RULE_AT_CFA, scaled(uleb(&c), m->fde->data_align));
			break;
		case 0xc0: restore_rule(m, low); break;
		default: run_extended(m, &c, op); break;
		}
		if (m->loc > pc) {
			m->row = before;
			break;
		}
	}
	return !c.bad;
}

/* ---- expressions -------------------------------------------------------- */

enum { EXPR_DEPTH = 12 };

struct expr {
	uintptr_t v[EXPR_DEPTH];
	unsigned n;
	bool bad;
};

static void
push(struct expr *e, uintptr_t v)
{
	if (e->n == EXPR_DEPTH)
		e->bad = true;
	else
		e->v[e->n++] = v;
}

static uintptr_t
pop(struct expr *e)
{
	if (e->n == 0) {
		e->bad = true;
		return 0;
	}
	return e->v[--e->n];
}

static uintptr_t
pick(struct expr *e, uint8_t from_top)
{
	if (from_top >= e->n) {
		e->bad = true;
		return 0;
	}
	return e->v[e->n - 1 - from_top];
}

static void
binary(struct expr *e, uint8_t op)
{
	uintptr_t b = pop(e);
	uintptr_t a = pop(e);
	intptr_t sa = (intptr_t)a;
	intptr_t sb = (intptr_t)b;
	switch (op) {
	case 0x1a: push(e, a & b); break;
	case 0x1c: push(e, a - b); break;
	case 0x1e: push(e, a * b); break;
	case 0x21: push(e, a | b); break;
	case 0x22: push(e, a + b); break;
	case 0x24: push(e, b < 64 ? a << b : 0); break;
	case 0x25: push(e, b < 64 ? a >> b : 0); break;
	case 0x27: push(e, a ^ b); break;
	case 0x29: push(e, a == b); break;
	case 0x2a: push(e, sa >= sb); break;
	case 0x2b: push(e, sa > sb); break;
	case 0x2c: push(e, sa <= sb); break;
	case 0x2d: push(e, sa < sb); break;
	case 0x2e: push(e, a != b); break;
	default: e->bad = true; break;
	}
}

static void
push_reg(struct expr *e, const struct cfi_frame *f, uint64_t reg, int64_t offset)
{
	if (reg >= CFI_REGS)
		e->bad = true;
	else
		push(e, f->reg[reg] + (uintptr_t)offset);
}

static void
eval_op(struct expr *e, struct cursor *c, const struct cfi_frame *f, uint8_t op)
{
	uintptr_t v = 0;
	uint64_t reg;
	if (op >= 0x30 && op <= 0x4f) {
		push(e, op - 0x30u);
		return;
	}
	if (op >= 0x70 && op <= 0x8f) {
		push_reg(e, f, op - 0x70u, sleb(c));
		return;
	}
	switch (op) {
	case 0x03: push(e, u64(c)); break;
	case 0x06:
		e->bad |= !peek_read(c->k, &v, pop(e), sizeof(v));
		push(e, v);
		break;
	case 0x08: push(e, u8(c)); break;
	case 0x09: push(e, (uintptr_t)(intptr_t)(int8_t)u8(c)); break;
	case 0x0a: push(e, u16(c)); break;
	case 0x0b: push(e, (uintptr_t)(intptr_t)(int16_t)u16(c)); break;
	case 0x0c: push(e, u32(c)); break;
	case 0x0d: push(e, (uintptr_t)(intptr_t)(int32_t)u32(c)); break;
	case 0x0e:
	case 0x0f: push(e, u64(c)); break;
	case 0x10: push(e, uleb(c)); break;
	case 0x11: push(e, (uintptr_t)sleb(c)); break;
	case 0x12: push(e, pick(e, 0)); break;
	case 0x13: pop(e); break;
	case 0x14: push(e, pick(e, 1)); break;
	case 0x1f: push(e, 0 - pop(e)); break;
	case 0x20: push(e, ~pop(e)); break;
	case 0x23: v = pop(e); push(e, v + uleb(c)); break;
	case 0x92: reg = uleb(c); push_reg(e, f, reg, sleb(c)); break;
	case 0x96: break;
	default: binary(e, op); break;
	}
}

/* The expression block at `at`; `first` lies on the stack already if has_first. */
static bool
eval(struct peek *k, uintptr_t at, const struct cfi_frame *f, const uintptr_t *first,
    uintptr_t *out)
{
	struct expr e = { .n = 0 };
	struct cursor c = { k, at, UINTPTR_MAX, false };
	uint64_t bytes = uleb(&c);
	if (c.bad || bytes > 4096)
		return false;
	c.end = c.at + bytes;
	if (first != NULL)
		push(&e, *first);
	while (c.at < c.end && !c.bad && !e.bad)
		eval_op(&e, &c, f, u8(&c));
	*out = pop(&e);
	return !c.bad && !e.bad;
}

/* ---- the step ----------------------------------------------------------- */

static bool
apply_rule(struct peek *k, const struct machine *m, const struct cfi_frame *f,
    unsigned reg, uintptr_t cfa, uintptr_t *out)
{
	struct rule r = m->row.reg[reg];
	uintptr_t expr = m->fde->cie_code + (uintptr_t)(intptr_t)r.v;
	uintptr_t at = cfa + (uintptr_t)(intptr_t)r.v;
	switch (r.kind) {
	case RULE_AT_CFA: return peek_read(k, out, at, sizeof(*out));
	case RULE_VAL_CFA: *out = at; return true;
	case RULE_REG:
		if ((uint32_t)r.v >= CFI_REGS)
			return false;
		*out = f->reg[r.v];
		return true;
	case RULE_EXPR: return eval(k, expr, f, &cfa, &at) && peek_read(k, out, at, sizeof(*out));
	case RULE_VAL_EXPR: return eval(k, expr, f, &cfa, out);
	}
	*out = f->reg[reg];
	return true;
}

/* arm64 may keep a signature in the upper bits of a return address. */
static uintptr_t
strip(uintptr_t pc)
{
	return pc >> 55 & 1 ? pc : pc & (((uintptr_t)1 << 55) - 1) & (ADDR_LIMIT - 1);
}

static bool
find_row(struct peek *k, uintptr_t pc, struct machine *m)
{
	m->loc = m->fde->pc_begin;
	if (!run(m, k, m->fde->cie_code, m->fde->cie_code_end, UINTPTR_MAX))
		return false;
	m->initial = m->row;
	return run(m, k, m->fde->code, m->fde->code_end, pc);
}

enum cfi_result
cfi_step(struct peek *k, uintptr_t hdr, struct cfi_frame *f)
{
	struct fde fde;
	struct machine m = { .fde = &fde };
	struct cfi_frame up = { .pc = 0 };
	uintptr_t pc = f->exact ? f->pc : f->pc - 1;
	uintptr_t cfa = 0;
	if (!fde_find(k, hdr, pc, &fde) || fde.ra_reg >= CFI_REGS || !find_row(k, pc, &m))
		return CFI_NO_INFO;
	if (m.row.reg[fde.ra_reg].kind == RULE_UNDEFINED)
		return CFI_OUTERMOST;
	if (!m.row.cfa_expr)
		cfa = f->reg[m.row.cfa_reg] + (uintptr_t)m.row.cfa;
	else if (!eval(k, (uintptr_t)m.row.cfa, f, NULL, &cfa))
		return CFI_NO_INFO;
	for (unsigned i = 0; i < CFI_REGS; i++) {
		if (!apply_rule(k, &m, f, i, cfa, &up.reg[i]))
			return CFI_NO_INFO;
	}
	if (m.row.reg[CFI_SP].kind == RULE_SAME)
		up.reg[CFI_SP] = cfa;
	up.pc = strip(up.reg[fde.ra_reg]);
	up.exact = fde.signal_frame;
	*f = up;
	return CFI_STEPPED;
}

static bool
is_simple(const struct machine *m)
{
	const struct row *r = &m->row;
	const struct rule *fp = &r->reg[CFI_FP], *ra = &r->reg[m->fde->ra_reg];
	bool fp_ok = fp->kind == RULE_SAME ||
	    (fp->kind == RULE_AT_CFA && fp->v != 0 && fp->v == (int16_t)fp->v);
	return !m->fde->signal_frame && !r->cfa_expr && fp_ok &&
	    (r->cfa_reg == CFI_SP || r->cfa_reg == CFI_FP) && r->cfa == (int32_t)r->cfa &&
	    r->reg[CFI_SP].kind == RULE_SAME && ra->kind == RULE_AT_CFA && ra->v == (int8_t)ra->v;
}

enum cfi_result
cfi_simple(struct peek *k, uintptr_t hdr, uintptr_t pc, struct cfi_simple *out)
{
	struct fde fde;
	struct machine m = { .fde = &fde };
	if (!fde_find(k, hdr, pc, &fde) || fde.ra_reg >= CFI_REGS || !find_row(k, pc, &m))
		return CFI_NO_INFO;
	if (m.row.reg[fde.ra_reg].kind == RULE_UNDEFINED)
		return CFI_OUTERMOST;
	if (!is_simple(&m))
		return CFI_COMPLEX;
	const struct rule *fp = &m.row.reg[CFI_FP];
	*out = (struct cfi_simple){ .by_fp = m.row.cfa_reg == CFI_FP, .cfa = (int32_t)m.row.cfa,
		.fp = (int16_t)(fp->kind == RULE_AT_CFA ? fp->v : 0),
		.ra = (int8_t)m.row.reg[fde.ra_reg].v };
	return CFI_STEPPED;
}
