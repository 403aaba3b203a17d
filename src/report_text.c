/* report_text.c - the facts of a report in words.
 *
 *   ==PID==ERROR: spanguard: attempting double-free on 0x.. in thread T0 (..):
 *     the call was free, the check that fired slot
 *     #0 0x.. in free (/usr/lib/libspanguard.so+0x..) (BuildId: ..)
 *     #1 0x.. in main (/usr/bin/prog+0x..) (BuildId: ..)
 *
 *   0x.. is located 0 bytes inside of 48-byte slot [0x..,0x..) (..)
 *   HINT: ..
 *   CODE: SG-DF (spanguard explain SG-DF)
 *   SUMMARY: spanguard: double-free (/usr/bin/prog+0x..) in main
 *   DEDUP_TOKEN: main
 *
 * The grammar is AddressSanitizer's, so tools that read its reports read these. */
#include "report_text.h"

#include <string.h>

/* ---- first lines -------------------------------------------------------- */

static void
put_thread(struct print *p, const struct facts *f)
{
	print_str(p, " thread T");
	print_dec(p, facts_thread_number(f, f->tid));
	print_str(p, " (");
	print_quoted(p, f->thread, sizeof(f->thread));
	print_str(p, ", tid ");
	print_dec(p, f->tid);
	print_str(p, ")");
}

static void
put_access(struct print *p, const struct die_info *info)
{
	const struct die_access *a = info->access;
	print_str(p, !a->known ? "\nACCESS" : a->write ? "\nWRITE" : "\nREAD");
	if (a->bytes != 0) {
		print_str(p, " of size ");
		print_dec(p, a->bytes);
	}
	print_str(p, " at ");
	print_hex(p, info->addr);
}

static void
put_call(struct print *p, const struct die_info *info)
{
	if (info->api[0] == 0)
		return;
	print_str(p, "  the call was ");
	print_str(p, info->api);
	if (info->site != NULL) {
		print_str(p, ", the check that fired ");
		print_str(p, info->site);
	}
	print_char(p, '\n');
}

static void
put_given(struct print *p, const struct die_info *info)
{
	if (info->code != DIE_SIZE_MISMATCH && info->code != DIE_ALIGN_MISMATCH)
		return;
	bool size = info->code == DIE_SIZE_MISMATCH;
	print_str(p, size ? "  size the program says:    " : "  alignment the program says:    ");
	print_bytes(p, info->given);
	print_str(p, size ? ";\n  size of what lies there:  " : ";\n  alignment of what lies there:  ");
	print_bytes(p, info->expected);
	print_str(p, ".\n");
}

static void
put_head(struct print *p, const struct facts *f)
{
	const struct die_info *info = &f->info;
	print_str(p, "=================================================================\n==");
	print_dec(p, f->pid);
	print_str(p, "==ERROR: spanguard: ");
	print_str(p, f->title);
	if (info->access != NULL)
		put_access(p, info);
	print_str(p, info->access != NULL ? "" : " in");
	put_thread(p, f);
	print_str(p, info->access != NULL ? "\n" : ":\n");
	put_call(p, info);
	put_given(p, info);
}

/* ---- stacks ------------------------------------------------------------- */

static void
put_in_module(struct print *p, const struct frame_facts *fr)
{
	print_char(p, '(');
	print_quoted(p, fr->module->path, PROCMAP_PATH_BYTES);
	print_char(p, '+');
	print_hex(p, fr->pc - fr->module->bias);
	print_char(p, ')');
}

static void
put_frame(struct print *p, size_t i, uintptr_t pc)
{
	const struct frame_facts *fr = facts_frame(pc);
	print_str(p, "    #");
	print_dec(p, i);
	print_char(p, ' ');
	print_hex(p, pc);
	if (fr->module == NULL) {
		print_str(p, " (<unknown module>)\n");
		return;
	}
	if (fr->symbol != NULL) {
		print_str(p, " in ");
		print_quoted(p, fr->symbol, FACTS_SYMBOL_BYTES);
	}
	print_char(p, ' ');
	put_in_module(p, fr);
	if (fr->module->build_id_bytes != 0) {
		print_str(p, " (BuildId: ");
		print_hex_bytes(p, fr->module->build_id, fr->module->build_id_bytes);
		print_char(p, ')');
	}
	print_char(p, '\n');
}

static void
put_frames(struct print *p, const uintptr_t *pcs, size_t n, size_t max)
{
	for (size_t i = 0; i < n; i++)
		put_frame(p, i, pcs[i]);
	if (n == max)
		print_str(p, "    ...\n");
	print_char(p, '\n');
}

static void
put_history(struct print *p, const struct facts *f, const char *what, const struct room_trace *s)
{
	uint32_t tid = (uint32_t)s->tid;
	print_str(p, what);
	print_dec(p, facts_thread_number(f, tid));
	print_str(p, " (tid ");
	print_dec(p, tid);
	print_str(p, ") here:\n");
	if (s->frames == 0)
		print_str(p, "    (the stack was not recorded)\n");
	put_frames(p, s->pcs, s->frames, ROOM_FRAMES);
}

static void
put_histories(struct print *p, const struct facts *f)
{
	const struct room_object *o = &f->object;
	bool freed = o->freed.tid != 0;
	if (freed)
		put_history(p, f, "freed by thread T", &o->freed);
	if (o->allocated.tid != 0)
		put_history(p, f, freed ? "previously allocated by thread T" :
		    "allocated by thread T", &o->allocated);
}

/* ---- what the address is ------------------------------------------------ */

static void
put_range(struct print *p, uintptr_t start, uintptr_t end)
{
	print_str(p, " [");
	print_hex(p, start);
	print_char(p, ',');
	print_hex(p, end);
	print_char(p, ')');
}

static void
put_span(struct print *p, const struct addr_info *a)
{
	print_str(p, "span ");
	print_hex(p, a->span_base);
	print_str(p, " of ");
	print_dec(p, a->span_bytes);
	print_str(p, " bytes");
	if (a->size_class != 0) {
		print_str(p, ", class ");
		print_dec(p, a->elem_bytes);
	}
	print_str(p, a->noscan ? ", noscan" : ", scan");
	if (a->parked)
		print_str(p, ", in the quarantine");
	if (a->owner_tid != 0) {
		print_str(p, ", owner thread ");
		print_dec(p, (uint64_t)a->owner_tid);
	}
	print_str(p, ")\n");
}

static void
put_relation(struct print *p, uintptr_t addr, uintptr_t base, size_t bytes, const char *kind)
{
	size_t distance;
	const char *relation = facts_relation(addr, base, bytes, &distance);
	print_str(p, " is located ");
	print_bytes(p, distance);
	print_char(p, ' ');
	print_str(p, relation);
	print_str(p, relation[0] == 'i' ? " of " : " ");
	print_dec(p, bytes);
	print_str(p, kind);
	put_range(p, base, base + bytes);
}

static void
put_slot_in_span(struct print *p, const struct addr_info *a)
{
	if (a->kind != ADDR_LARGE) {
		print_str(p, "slot ");
		print_dec(p, a->slot_idx);
		print_str(p, " of ");
		print_dec(p, a->nelems);
		print_str(p, ", ");
	}
	print_str(p, facts_state_name(a->state));
	if (a->freed_by_other)
		print_str(p, " by a thread that is not the owner");
	print_str(p, "; ");
	put_span(p, a);
}

static void
put_slot(struct print *p, uintptr_t addr, const struct addr_info *a)
{
	if (a->state == SLOT_TAIL) {
		print_str(p, " lies behind the last slot of its span (");
		put_span(p, a);
		return;
	}
	put_relation(p, addr, a->slot_base, a->elem_bytes,
	    a->kind == ADDR_LARGE ? "-byte object" : "-byte slot");
	print_str(p, " (");
	put_slot_in_span(p, a);
}

static void
put_released(struct print *p, const struct addr_info *a)
{
	print_str(p, " lies in the heap, in memory that is not in use now");
	if (a->elem_bytes != 0) {
		print_str(p, "; objects of ");
		print_bytes(p, a->elem_bytes);
		print_str(p, " lived here last");
	}
	print_char(p, '\n');
}

static const char *
kind_text(enum region_kind kind)
{
	switch (kind) {
	case REGION_NONE: return " is not mapped";
	case REGION_NONCANONICAL: return " is no address that a program can have (non-canonical)";
	case REGION_THIS_STACK: return " is on the stack of this thread";
	case REGION_MAIN_STACK: return " is on the stack of the main thread";
	case REGION_BRK: return " is in the brk segment [heap]";
	case REGION_CODE: return " is in the code of ";
	case REGION_RODATA: return " is in the read-only data of ";
	case REGION_DATA: return " is in the .data of ";
	case REGION_BSS: return " is in the .bss of ";
	case REGION_FILE: return " is in a mapping of the file ";
	case REGION_VDSO: return " is in the kernel's vdso";
	case REGION_ANON:
	case REGION_KINDS: break;
	}
	return " is in a foreign anonymous mapping";
}

static void
put_foreign(struct print *p, const struct place_facts *pl)
{
	enum region_kind kind = pl->region.kind;
	bool module = kind >= REGION_CODE && kind <= REGION_BSS;
	print_str(p, kind_text(kind));
	if (module || kind == REGION_FILE)
		print_quoted(p, pl->region.path, PROCMAP_PATH_BYTES);
	if (pl->in_module) {
		print_str(p, " (offset ");
		print_hex(p, pl->module_offset);
		print_char(p, ')');
	} else if (kind != REGION_NONE && kind != REGION_NONCANONICAL) {
		put_range(p, pl->region.start, pl->region.end);
	}
	if (pl->variable != NULL) {
		print_str(p, ", ");
		print_quoted(p, pl->variable, FACTS_SYMBOL_BYTES);
		print_char(p, '+');
		print_hex(p, pl->variable_offset);
	}
	if (kind == REGION_ANON && pl->region.path[0] != 0) {
		print_char(p, ' ');
		print_quoted(p, pl->region.path, PROCMAP_PATH_BYTES);
	}
	print_char(p, '\n');
}

static void
put_place(struct print *p, const struct place_facts *pl)
{
	print_hex(p, pl->addr);
	switch (pl->heap.kind) {
	case ADDR_SMALL:
	case ADDR_TINY:
	case ADDR_LARGE: put_slot(p, pl->addr, &pl->heap); break;
	case ADDR_HEAP_RELEASED: put_released(p, &pl->heap); break;
	case ADDR_HEAP_UNUSED:
		print_str(p, " lies in the heap, in memory that was never handed out\n");
		break;
	case ADDR_FOREIGN: put_foreign(p, pl); break;
	}
}

/* An object that a hardening room keeps the record of. */
static void
put_object(struct print *p, const struct facts *f)
{
	const struct room_object *o = &f->object;
	print_hex(p, f->info.addr);
	put_relation(p, f->info.addr, o->base, o->bytes, "-byte region");
	print_str(p, " (");
	print_str(p, o->what != NULL ? o->what : o->api);
	if (o->serial != 0) {
		print_str(p, ", allocation ");
		print_dec(p, o->serial);
	}
	print_str(p, o->live ? ", live" : ", freed");
	if (!o->live && o->free_api != NULL) {
		print_str(p, " by ");
		print_str(p, o->free_api);
	}
	if (!o->live && o->free_serial != 0) {
		print_str(p, " after allocation ");
		print_dec(p, o->free_serial);
	}
	if (o->kind == ROOM_RECORDED) {
		print_str(p, "; ");
		put_span(p, &f->place.heap);
	} else {
		print_str(p, ")\n");
	}
}

/* ---- its neighbours ----------------------------------------------------- */

static void
put_neighbour(struct print *p, const struct neighbour_facts *n, const char *side)
{
	print_str(p, "neighbour ");
	print_str(p, side);
	print_str(p, ": ");
	print_dec(p, n->bytes);
	print_str(p, n->api != NULL || n->what != NULL ? "-byte region" : "-byte slot");
	put_range(p, n->base, n->base + n->bytes);
	print_str(p, " (");
	if (n->api != NULL) {
		print_str(p, n->api);
		print_str(p, ", allocation ");
		print_dec(p, n->serial);
		print_str(p, ", ");
	}
	if (n->what != NULL) {
		print_str(p, n->what);
		print_str(p, ", ");
	}
	print_str(p, facts_state_name(n->state));
	if (n->free_api != NULL) {
		print_str(p, " by ");
		print_str(p, n->free_api);
	}
	print_str(p, n->frames != 0 ? "), allocated here:\n" : ")\n");
	for (size_t i = 0; i < n->frames; i++)
		put_frame(p, i, n->pcs[i]);
}

static void
put_neighbours(struct print *p, const struct facts *f)
{
	for (size_t i = 0; i < NEIGHBOURS; i++)
		if (f->neighbour[i].known)
			put_neighbour(p, &f->neighbour[i], facts_neighbour_name(i));
}

/* ---- no memory ----------------------------------------------------------- */

static void
put_of(struct print *p, const char *what, uint64_t n, uint64_t limit)
{
	print_str(p, what);
	print_dec(p, n);
	if (limit == 0)
		return;
	print_str(p, " of ");
	print_dec(p, limit);
}

static void
put_shortage(struct print *p, const struct shortage_facts *m)
{
	if (!m->known)
		return;
	put_of(p, "address space: ", m->address_bytes, m->address_limit);
	print_str(p, m->address_limit != 0 ? " bytes (RLIMIT_AS)" : " bytes, no limit");
	put_of(p, "; in memory: ", m->resident_bytes, 0);
	put_of(p, " bytes; mappings: ", m->mappings, m->mappings_limit);
	print_char(p, '\n');
}

static void
put_what(struct print *p, const struct facts *f)
{
	if (f->info.addr == 0 || f->place_unknown)
		return;
	if (f->has_object && facts_object_is_known(&f->object)) {
		put_object(p, f);
		put_histories(p, f);
	} else {
		put_place(p, &f->place);
	}
}

/* ---- changed bytes ------------------------------------------------------ */

static void
put_changed_byte(struct print *p, intptr_t offset, uint8_t found, uint8_t expected)
{
	static const char digit[] = "0123456789abcdef";
	char text[] = ": 0x.. (expected 0x..)\n";
	text[4] = digit[found >> 4];
	text[5] = digit[found & 15];
	text[19] = digit[expected >> 4];
	text[20] = digit[expected & 15];
	print_str(p, "    offset ");
	print_sdec(p, offset);
	print_str(p, text);
}

static void
put_word(struct print *p, const struct looks_facts *l)
{
	if (l->word_kind == WORD_NONE)
		return;
	print_str(p, "  the 8 bytes at offset ");
	print_sdec(p, l->word_offset);
	if (l->word_kind == WORD_POINTER) {
		print_str(p, " are a pointer: ");
		put_place(p, &l->target);
	} else if (l->word_kind == WORD_INTEGER) {
		print_str(p, " are a small integer: ");
		print_sdec(p, (int64_t)l->word);
		print_char(p, '\n');
	} else {
		print_str(p, " are ");
		print_hex(p, l->word);
		print_char(p, '\n');
	}
}

static void
put_looks(struct print *p, const struct looks_facts *l)
{
	if (l->text[0] != 0) {
		print_str(p, "  they look like text: \"");
		print_quoted(p, l->text, sizeof(l->text));
		print_str(p, "\"\n");
	}
	if (l->one_bit) {
		print_str(p, "  exactly one bit is flipped, bit ");
		print_dec(p, l->bit);
		print_str(p, ": a flag set through a stale pointer, or broken memory\n");
	}
	put_word(p, l);
}

static void
put_diff(struct print *p, const struct facts *f)
{
	const struct die_diff *d = f->info.diff;
	size_t shown = 0;
	if (d == NULL)
		return;
	print_bytes(p, d->changed);
	print_str(p, d->changed == 1 ? " changed, by offset from " : " changed, by offsets from ");
	print_hex(p, f->diff_origin);
	print_str(p, ":\n");
	for (size_t i = 0; i < d->n && i < DIE_DIFF_BYTES; i++)
		if (d->found[i] != d->expected[i]) {
			put_changed_byte(p, (intptr_t)(d->base + i - f->diff_origin), d->found[i],
			    d->expected[i]);
			shown++;
		}
	if (shown < d->changed)
		print_str(p, "    ...\n");
	put_looks(p, &f->looks);
}

/* ---- last lines ---------------------------------------------------------- */

static void
put_tail(struct print *p, const struct facts *f)
{
	const char *id = die_id(f->info.code);
	if (f->hint != NULL) {
		print_str(p, "HINT: ");
		print_str(p, f->hint);
		print_char(p, '\n');
	}
	print_str(p, "CODE: ");
	print_str(p, id);
	print_str(p, " (spanguard explain ");
	print_str(p, id);
	print_str(p, ")\n");
}

static void
put_summary(struct print *p, const struct facts *f)
{
	print_str(p, "SUMMARY: spanguard: ");
	print_str(p, die_word(f->info.code, f->info.api));
	const uintptr_t *pcs;
	const struct frame_facts *fr = facts_summary(f, &pcs) != 0 ? facts_frame(pcs[0]) : NULL;
	if (fr != NULL && fr->module != NULL) {
		print_char(p, ' ');
		put_in_module(p, fr);
	}
	if (fr != NULL && fr->module != NULL && fr->symbol != NULL) {
		print_str(p, " in ");
		print_quoted(p, fr->symbol, FACTS_SYMBOL_BYTES);
	}
	print_str(p, "\nDEDUP_TOKEN: ");
	facts_print_token(p, f);
	print_str(p, "\n==");
	print_dec(p, f->pid);
	print_str(p, f->goes_on ? "==GOING ON\n" : "==ABORTING\n");
}

void
report_text(struct print *p, const struct facts *f)
{
	put_head(p, f);
	put_frames(p, f->pcs, f->frames, FACTS_FRAMES);
	put_diff(p, f);
	put_what(p, f);
	put_neighbours(p, f);
	put_shortage(p, &f->shortage);
	put_tail(p, f);
	put_summary(p, f);
}

void
report_text_address(struct print *p, const struct facts *f)
{
	put_what(p, f);
}

void
report_text_frames(struct print *p, const uintptr_t *pcs, size_t n)
{
	put_frames(p, pcs, n, ROOM_FRAMES);
}
