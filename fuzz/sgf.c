/* sgf.c - see sgf.h. */
#include "sgf.h"

#include <stdlib.h>
#include <string.h>

static uint32_t
get32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void
put32(uint8_t *p, uint32_t v)
{
	for (unsigned i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

/* n bytes at `at`, zeroes behind the end of the data. */
static void
take(const uint8_t *data, size_t bytes, size_t at, uint8_t *out, size_t n)
{
	size_t have = at < bytes ? bytes - at : 0;

	memset(out, 0, n);
	if (have != 0)
		memcpy(out, data + at, have < n ? have : n);
}

size_t
sgf_ops(size_t bytes)
{
	size_t n = bytes > SGF_HEADER_BYTES ?
	    (bytes - SGF_HEADER_BYTES + SGF_OP_BYTES - 1) / SGF_OP_BYTES : 0;

	return n < SGF_MAX_OPS ? n : SGF_MAX_OPS;
}

void
sgf_read_header(const uint8_t *data, size_t bytes, struct sgf_header *out)
{
	uint8_t h[SGF_HEADER_BYTES];

	take(data, bytes, 0, h, sizeof(h));
	*out = (struct sgf_header){ .mode = h[0], .geometry = h[1], .verify = h[2],
		.scavenge = h[3], .seed = get32(h + 4), .fault_mask = h[12],
		.fault_flags = h[13], .fault_nth = (uint16_t)(h[14] | h[15] << 8) };
	memcpy(out->knob, h + 8, sizeof(out->knob));
}

bool
sgf_one_in_four(const struct sgf_header *h)
{
	uint32_t mix = h->seed ^ (uint32_t)h->mode << 8 ^ (uint32_t)h->geometry << 16;

	for (unsigned i = 0; i < 4; i++)
		mix = mix * 31 + h->knob[i];
	return mix * 0x9e3779b9u >> 30 == 0;
}

void
sgf_read_op(const uint8_t *data, size_t bytes, size_t i, struct sgf_op *out)
{
	uint8_t o[SGF_OP_BYTES];

	take(data, bytes, SGF_HEADER_BYTES + i * SGF_OP_BYTES, o, sizeof(o));
	*out = (struct sgf_op){ .code = o[0] & 63, .thread = (uint8_t)(o[0] >> 6),
		.handle = o[1], .a = o[2], .b = o[3], .imm = get32(o + 4) };
}

void
sgf_write_header(uint8_t *data, const struct sgf_header *h)
{
	const uint8_t head[] = { h->mode, h->geometry, h->verify, h->scavenge };

	memcpy(data, head, sizeof(head));
	put32(data + 4, h->seed);
	memcpy(data + 8, h->knob, sizeof(h->knob));
	data[12] = h->fault_mask;
	data[13] = h->fault_flags;
	data[14] = (uint8_t)h->fault_nth;
	data[15] = (uint8_t)(h->fault_nth >> 8);
}

void
sgf_write_op(uint8_t *data, const struct sgf_op *op)
{
	data[0] = (uint8_t)((op->code & 63) | op->thread << 6);
	data[1] = op->handle;
	data[2] = op->a;
	data[3] = op->b;
	put32(data + 4, op->imm);
}

/* ---- text ---- */

void
sgf_print(const uint8_t *data, size_t bytes, const struct sgf_language *l, FILE *out)
{
	struct sgf_header h;
	struct sgf_op op;

	sgf_read_header(data, bytes, &h);
	fprintf(out, "header mode=%u geometry=%u verify=%u scavenge=%u seed=%#x "
	    "knob=%u,%u,%u,%u fault=%u,%u,%u\n", h.mode, h.geometry, h.verify, h.scavenge,
	    h.seed, h.knob[0], h.knob[1], h.knob[2], h.knob[3], h.fault_mask, h.fault_flags,
	    h.fault_nth);
	for (size_t i = 0; i < sgf_ops(bytes); i++) {
		sgf_read_op(data, bytes, i, &op);
		fprintf(out, "%s t%u h%u a=%u b=%u imm=%#x\n",
		    l->op[op.code] != NULL ? l->op[op.code] : l->op[0], op.thread,
		    op.handle, op.a, op.b, op.imm);
	}
}

static bool
parse_header(const char *line, uint8_t *out)
{
	unsigned v[11], seed;
	struct sgf_header h;

	if (sscanf(line, "header mode=%u geometry=%u verify=%u scavenge=%u seed=%i "
	    "knob=%u,%u,%u,%u fault=%u,%u,%u", &v[0], &v[1], &v[2], &v[3], (int *)&seed,
	    &v[4], &v[5], &v[6], &v[7], &v[8], &v[9], &v[10]) != 12)
		return false;
	h = (struct sgf_header){ .mode = (uint8_t)v[0], .geometry = (uint8_t)v[1],
		.verify = (uint8_t)v[2], .scavenge = (uint8_t)v[3], .seed = seed,
		.knob = { (uint8_t)v[4], (uint8_t)v[5], (uint8_t)v[6], (uint8_t)v[7] },
		.fault_mask = (uint8_t)v[8], .fault_flags = (uint8_t)v[9],
		.fault_nth = (uint16_t)v[10] };
	sgf_write_header(out, &h);
	return true;
}

static int
code_of(const struct sgf_language *l, const char *name)
{
	for (int i = 0; i < SGF_CODES; i++)
		if (l->op[i] != NULL && strcmp(l->op[i], name) == 0)
			return i;
	return -1;
}

static bool
parse_op(const char *line, const struct sgf_language *l, uint8_t *out)
{
	char name[32];
	unsigned t, h, a, b, imm;
	int code;

	if (sscanf(line, "%31s t%u h%u a=%u b=%u imm=%i", name, &t, &h, &a, &b,
	    (int *)&imm) != 6)
		return false;
	code = code_of(l, name);
	if (code < 0 || t >= SGF_THREADS || h >= SGF_HANDLES || a > 255 || b > 255)
		return false;
	sgf_write_op(out, &(struct sgf_op){ .code = (uint8_t)code, .thread = (uint8_t)t,
	    .handle = (uint8_t)h, .a = (uint8_t)a, .b = (uint8_t)b, .imm = imm });
	return true;
}

size_t
sgf_parse(FILE *in, const char *name, const struct sgf_language *l, uint8_t *out)
{
	char line[256];
	size_t at = 0;

	for (unsigned n = 1; fgets(line, sizeof(line), in) != NULL; n++) {
		line[strcspn(line, "#\n")] = '\0';
		if (line[strspn(line, " \t")] == '\0')
			continue;
		if (at >= SGF_MAX_BYTES || !(at == 0 ? parse_header(line, out) :
		    parse_op(line, l, out + at))) {
			fprintf(stderr, "%s:%u: cannot read \"%s\"\n", name, n, line);
			return 0;
		}
		at += at == 0 ? SGF_HEADER_BYTES : SGF_OP_BYTES;
	}
	if (at == 0)
		fprintf(stderr, "%s: no header\n", name);
	return at;
}
