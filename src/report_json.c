/* report_json.c - see report_json.h.
 *
 * Every fact of the text has a member here, by the same source (FACTS-1). A line
 * that does not fit is made again with fewer frames: half a line would be of no
 * use to anybody. */
#include "report_json.h"

#include <string.h>

#include "json.h"

enum { TOKEN_BYTES = 1024 };

/* ---- stacks ------------------------------------------------------------- */

static void
put_build_id(struct print *p, const struct module *m)
{
	char hex[2 * BUILD_ID_BYTES + PRINT_MIN_BYTES];
	struct print h;
	if (m->build_id_bytes == 0)
		return;
	print_init(&h, hex, sizeof(hex));
	print_hex_bytes(&h, m->build_id, m->build_id_bytes);
	json_str(p, "build_id", hex, sizeof(hex));
}

static void
put_frame(struct print *p, uintptr_t pc)
{
	const struct frame_facts *fr = facts_frame(pc);
	json_open(p, NULL, '{');
	json_addr(p, "pc", pc);
	if (fr->module != NULL) {
		json_str(p, "module", fr->module->path, PROCMAP_PATH_BYTES);
		json_addr(p, "offset", pc - fr->module->bias);
		put_build_id(p, fr->module);
	}
	if (fr->symbol != NULL)
		json_str(p, "symbol", fr->symbol, FACTS_SYMBOL_BYTES);
	json_close(p, '}');
}

static void
put_stack(struct print *p, const char *key, uint32_t tid, const uintptr_t *pcs, size_t n,
    size_t max)
{
	json_open(p, key, '{');
	json_uint(p, "tid", tid);
	json_open(p, "frames", '[');
	for (size_t i = 0; i < n && i < max; i++)
		put_frame(p, pcs[i]);
	json_close(p, ']');
	if (n > max)
		json_bool(p, "cut", true);
	json_close(p, '}');
}

static void
put_stacks(struct print *p, const struct facts *f, size_t max)
{
	const struct room_object *o = &f->object;
	json_open(p, "stacks", '{');
	if (!f->is_leak)
		put_stack(p, "error", f->tid, f->pcs, f->frames, max);
	if (f->has_object && o->freed.tid != 0)
		put_stack(p, "free", (uint32_t)o->freed.tid, o->freed.pcs, o->freed.frames, max);
	if (f->has_object && (o->allocated.tid != 0 || f->is_leak))
		put_stack(p, "alloc", (uint32_t)o->allocated.tid, o->allocated.pcs,
		    o->allocated.frames, max);
	json_close(p, '}');
}

/* Those of the frames: what a symboliser elsewhere needs to find the same files. */
static void
put_modules(struct print *p)
{
	const struct module *m;
	size_t n = facts_modules(&m);
	json_open(p, "modules", '[');
	for (size_t i = 0; i < n; i++) {
		json_open(p, NULL, '{');
		json_str(p, "path", m[i].path, PROCMAP_PATH_BYTES);
		json_addr(p, "start", m[i].start);
		json_addr(p, "end", m[i].end);
		json_addr(p, "bias", m[i].bias);
		put_build_id(p, &m[i]);
		json_close(p, '}');
	}
	json_close(p, ']');
}

/* ---- what the address is ------------------------------------------------ */

static void
put_span(struct print *p, const struct addr_info *a)
{
	json_open(p, "span", '{');
	json_addr(p, "base", a->span_base);
	json_uint(p, "bytes", a->span_bytes);
	if (a->size_class != 0)
		json_uint(p, "class_bytes", a->elem_bytes);
	json_bool(p, "noscan", a->noscan);
	json_bool(p, "parked", a->parked);
	if (a->owner_tid != 0)
		json_uint(p, "owner_tid", (uint32_t)a->owner_tid);
	json_close(p, '}');
}

static void
put_where(struct print *p, uintptr_t addr, uintptr_t base, size_t bytes)
{
	size_t distance;
	const char *relation = facts_relation(addr, base, bytes, &distance);
	json_addr(p, "base", base);
	json_uint(p, "bytes", bytes);
	json_str(p, "relation", relation, 8);
	json_uint(p, "distance", distance);
}

static void
put_slot(struct print *p, const struct addr_info *a)
{
	if (a->state == SLOT_TAIL)
		return;
	json_open(p, "slot", '{');
	json_addr(p, "base", a->slot_base);
	json_uint(p, "bytes", a->elem_bytes);
	json_uint(p, "index", a->slot_idx);
	json_uint(p, "of", a->nelems);
	json_str(p, "state", facts_state_name(a->state), 16);
	json_bool(p, "freed_by_other", a->freed_by_other);
	json_close(p, '}');
}

static const char *const region_names[REGION_KINDS] = {
	[REGION_NONE] = "unmapped", [REGION_NONCANONICAL] = "noncanonical",
	[REGION_THIS_STACK] = "stack", [REGION_MAIN_STACK] = "main-stack",
	[REGION_BRK] = "brk", [REGION_CODE] = "code", [REGION_RODATA] = "rodata",
	[REGION_DATA] = "data", [REGION_BSS] = "bss", [REGION_FILE] = "file",
	[REGION_ANON] = "anonymous", [REGION_VDSO] = "vdso",
};

static void
put_region(struct print *p, const struct place_facts *pl)
{
	const struct mapping *m = &pl->region;
	json_open(p, "region", '{');
	json_str(p, "kind", m->kind < REGION_KINDS ? region_names[m->kind] : "?", 16);
	if (m->end != 0) {
		json_addr(p, "start", m->start);
		json_addr(p, "end", m->end);
	}
	if (m->path[0] != 0)
		json_str(p, "path", m->path, PROCMAP_PATH_BYTES);
	if (pl->in_module)
		json_addr(p, "offset", pl->module_offset);
	json_close(p, '}');
}

/* Of any address: the members of its block, span or region. */
static void
put_place(struct print *p, const struct place_facts *pl)
{
	switch (pl->heap.kind) {
	case ADDR_SMALL:
	case ADDR_TINY:
	case ADDR_LARGE:
		put_slot(p, &pl->heap);
		put_span(p, &pl->heap);
		break;
	case ADDR_HEAP_RELEASED:
	case ADDR_HEAP_UNUSED:
		json_open(p, "unused", '{');
		json_bool(p, "was_used", pl->heap.kind == ADDR_HEAP_RELEASED);
		if (pl->heap.elem_bytes != 0)
			json_uint(p, "class_bytes", pl->heap.elem_bytes);
		json_close(p, '}');
		break;
	case ADDR_FOREIGN: put_region(p, pl); break;
	}
}

static void
put_room_object(struct print *p, const struct facts *f)
{
	const struct room_object *o = &f->object;
	put_where(p, f->info.addr, o->base, o->bytes);
	if (o->what != NULL)
		json_str(p, "what", o->what, 64);
	json_str(p, "state", o->live ? "live" : "freed", 8);
	if (o->api != NULL)
		json_str(p, "api", o->api, 64);
	if (o->serial != 0)
		json_uint(p, "serial", o->serial);
	if (!o->live && o->free_api != NULL)
		json_str(p, "free_api", o->free_api, 64);
	if (!o->live && o->free_serial != 0)
		json_uint(p, "free_serial", o->free_serial);
}

/* The object, with as much as is known of it; sizes as asked for where a room
 * kept them, else those of the slot. */
static void
put_block(struct print *p, const struct facts *f)
{
	const struct addr_info *a = &f->place.heap;
	bool slot = (a->kind == ADDR_SMALL || a->kind == ADDR_TINY || a->kind == ADDR_LARGE) &&
	    a->state != SLOT_TAIL;
	if (f->info.addr == 0 || f->place_unknown)
		return;
	if (f->has_object && facts_object_is_known(&f->object)) {
		json_open(p, "block", '{');
		put_room_object(p, f);
		json_close(p, '}');
	} else if (slot) {
		json_open(p, "block", '{');
		put_where(p, f->info.addr, a->slot_base, a->elem_bytes);
		json_str(p, "state", facts_state_name(a->state), 16);
		json_close(p, '}');
	}
	if (!f->has_object || !facts_object_is_known(&f->object) || a->kind != ADDR_FOREIGN)
		put_place(p, &f->place);
}

static void
put_neighbour(struct print *p, const struct neighbour_facts *n, const char *side, size_t max)
{
	json_open(p, side, '{');
	json_addr(p, "base", n->base);
	json_uint(p, "bytes", n->bytes);
	json_str(p, "state", facts_state_name(n->state), 16);
	if (n->what != NULL)
		json_str(p, "what", n->what, 64);
	if (n->api != NULL) {
		json_str(p, "api", n->api, 64);
		json_uint(p, "serial", n->serial);
	}
	if (n->free_api != NULL)
		json_str(p, "free_api", n->free_api, 64);
	if (n->frames != 0)
		put_stack(p, "alloc", (uint32_t)n->tid, n->pcs, n->frames, max);
	json_close(p, '}');
}

static void
put_neighbours(struct print *p, const struct facts *f, size_t max)
{
	const struct neighbour_facts *n = f->neighbour;
	if (!n[NEIGHBOUR_BEFORE].known && !n[NEIGHBOUR_BEHIND].known)
		return;
	json_open(p, "neighbours", '{');
	for (size_t i = 0; i < NEIGHBOURS; i++)
		if (n[i].known)
			put_neighbour(p, &n[i], facts_neighbour_name(i), max);
	json_close(p, '}');
}

static void
put_shortage(struct print *p, const struct shortage_facts *m)
{
	if (!m->known)
		return;
	json_open(p, "memory", '{');
	json_uint(p, "address_bytes", m->address_bytes);
	if (m->address_limit != 0)
		json_uint(p, "address_limit", m->address_limit);
	json_uint(p, "resident_bytes", m->resident_bytes);
	json_uint(p, "mappings", m->mappings);
	if (m->mappings_limit != 0)
		json_uint(p, "mappings_limit", m->mappings_limit);
	json_close(p, '}');
}

/* ---- changed bytes ------------------------------------------------------ */

static void
put_word(struct print *p, const struct looks_facts *l)
{
	static const char *const kinds[] = {
		[WORD_POINTER] = "pointer", [WORD_INTEGER] = "integer", [WORD_OTHER] = "other",
	};
	if (l->word_kind == WORD_NONE)
		return;
	json_open(p, "word", '{');
	json_int(p, "offset", l->word_offset);
	json_addr(p, "value", l->word);
	json_str(p, "kind", kinds[l->word_kind], 16);
	if (l->word_kind == WORD_POINTER)
		put_place(p, &l->target);
	json_close(p, '}');
}

static void
put_changed(struct print *p, const struct facts *f)
{
	const struct die_diff *d = f->info.diff;
	if (d == NULL)
		return;
	json_open(p, "changed", '{');
	json_addr(p, "origin", f->diff_origin);
	json_uint(p, "count", d->changed);
	json_open(p, "bytes", '[');
	for (size_t i = 0; i < d->n && i < DIE_DIFF_BYTES; i++) {
		if (d->found[i] == d->expected[i])
			continue;
		json_open(p, NULL, '{');
		json_int(p, "offset", (int64_t)(d->base + i - f->diff_origin));
		json_uint(p, "found", d->found[i]);
		json_uint(p, "expected", d->expected[i]);
		json_close(p, '}');
	}
	json_close(p, ']');
	if (f->looks.text[0] != 0)
		json_str(p, "text", f->looks.text, sizeof(f->looks.text));
	if (f->looks.one_bit)
		json_uint(p, "flipped_bit", f->looks.bit);
	put_word(p, &f->looks);
	json_close(p, '}');
}

/* ---- the head ------------------------------------------------------------ */

static void
put_process(struct print *p, const struct facts *f)
{
	char hex[2 * sizeof(f->fingerprint) + PRINT_MIN_BYTES];
	uint8_t bytes[sizeof(f->fingerprint)];
	struct print h;
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(f->fingerprint >> (56 - 8 * i));
	print_init(&h, hex, sizeof(hex));
	print_hex_bytes(&h, bytes, sizeof(bytes));
	json_str(p, "fingerprint", hex, sizeof(hex));
	json_uint(p, "time", f->time_s);
	json_uint(p, "pid", f->pid);
	json_uint(p, "tid", f->tid);
	json_uint(p, "thread", facts_thread_number(f, f->tid));
	json_str(p, "thread_name", f->thread, sizeof(f->thread));
	json_str(p, "exe", f->exe, sizeof(f->exe));
}

static void
put_access(struct print *p, const struct die_info *info)
{
	const struct die_access *a = info->access;
	if (a == NULL)
		return;
	json_open(p, "access", '{');
	json_str(p, "kind", !a->known ? "unknown" : a->write ? "write" : "read", 8);
	json_addr(p, "addr", info->addr);
	if (a->bytes != 0)
		json_uint(p, "bytes", a->bytes);
	json_addr(p, "pc", a->pc);
	json_addr(p, "bp", a->bp);
	json_addr(p, "sp", a->sp);
	json_close(p, '}');
}

static void
put_leak(struct print *p, const struct leak_facts *l)
{
	json_open(p, "leak", '{');
	json_str(p, "kind", l->indirect ? "indirect" : "direct", 16);
	json_uint(p, "bytes", l->bytes);
	json_uint(p, "objects", l->objects);
	json_close(p, '}');
}

static void
put_error(struct print *p, const struct facts *f)
{
	const struct die_info *info = &f->info;
	json_str(p, "schema", REPORT_JSON_SCHEMA, 32);
	json_str(p, "kind", f->is_leak ? "leak" : "error", 8);
	json_str(p, "id", die_id(info->code), 8);
	json_str(p, "class", die_word(info->code, info->api), 32);
	json_str(p, "title", f->title, sizeof(f->title));
	put_process(p, f);
	if (info->api[0] != 0)
		json_str(p, "call", info->api, 64);
	if (info->site != NULL)
		json_str(p, "check", info->site, 64);
	if (info->addr != 0)
		json_addr(p, "addr", info->addr);
	if (info->made_by != NULL)
		json_str(p, "made_by", info->made_by, 64);
	if (info->given != 0 || info->expected != 0) {
		json_uint(p, "given", info->given);
		json_uint(p, "expected", info->expected);
	}
	put_access(p, info);
	if (f->is_leak)
		put_leak(p, &f->leak);
}

static const char *const stack_names[] = {
	[STACK_ERROR] = "error", [STACK_ALLOC] = "alloc", [STACK_FREE] = "free",
};

static void
put_end(struct print *p, const struct facts *f)
{
	char token[TOKEN_BYTES];
	struct print t;
	if (f->hint != NULL)
		json_str(p, "hint", f->hint, 512);
	print_init(&t, token, sizeof(token));
	facts_print_token(&t, f);
	json_str(p, "dedup_token", token, sizeof(token));
	json_str(p, "summary_stack", stack_names[f->summary_stack], 8);
	json_uint(p, "summary_frame", f->summary);
	json_bool(p, "continues", f->goes_on);
}

void
report_json(struct print *p, const struct facts *f)
{
	size_t max = FACTS_FRAMES;
	for (;;) {
		print_init(p, p->buf, p->cap);
		print_char(p, '{');
		put_error(p, f);
		put_block(p, f);
		put_neighbours(p, f, max);
		put_shortage(p, &f->shortage);
		put_changed(p, f);
		put_stacks(p, f, max);
		put_modules(p);
		put_end(p, f);
		print_str(p, "}\n");
		if (!p->truncated || max == 0)
			return;
		max /= 2;
	}
}
