/* addr.c - spanguard addr PID|CORE ADDRESS: what is this address?
 *
 * From outside: the program goes on, or has died. It says which object the address is
 * in or next to, how long that is, whether it is live, and, where records are kept
 * (mode=debug, guard), who allocated and freed it. */
#define _GNU_SOURCE
#include "remote.h"
#include "tools.h"

#include <unistd.h>
#include <stdlib.h>
#include <string.h>

#include "../src/api.h"

struct search {
	const struct remote *r;
	uintptr_t addr;
	FILE *out;
	bool found;
	uintptr_t nearest;          /* distance of `guarded` */
	struct guard_record guarded;
};

static const char *const api_names[API_COUNT] = {
	[API_MALLOC] = "malloc", [API_CALLOC] = "calloc", [API_REALLOC] = "realloc",
	[API_REALLOCARRAY] = "reallocarray", [API_POSIX_MEMALIGN] = "posix_memalign",
	[API_ALIGNED_ALLOC] = "aligned_alloc", [API_MEMALIGN] = "memalign",
	[API_VALLOC] = "valloc", [API_PVALLOC] = "pvalloc", [API_FREE] = "free",
	[API_CFREE] = "cfree", [API_FREE_SIZED] = "free_sized",
	[API_FREE_ALIGNED_SIZED] = "free_aligned_sized", [API_NEW] = "operator new",
	[API_NEW_ARRAY] = "operator new[]", [API_NEW_ALIGNED] = "operator new",
	[API_NEW_ARRAY_ALIGNED] = "operator new[]", [API_DELETE] = "operator delete",
	[API_DELETE_ARRAY] = "operator delete[]", [API_DELETE_SIZED] = "operator delete",
	[API_DELETE_ARRAY_SIZED] = "operator delete[]", [API_DELETE_ALIGNED] = "operator delete",
	[API_DELETE_ARRAY_ALIGNED] = "operator delete[]",
	[API_DELETE_SIZED_ALIGNED] = "operator delete",
	[API_DELETE_ARRAY_SIZED_ALIGNED] = "operator delete[]",
	[API_NOSCAN] = "spanguard_malloc_noscan",
	[API_NOSCAN_REALLOC] = "spanguard_realloc_noscan",
};

static const char *
api_name(unsigned api)
{
	return api < API_COUNT && api_names[api] != NULL ? api_names[api] : "?";
}

static void
put_relation(struct search *s, uintptr_t base, size_t bytes, const char *kind)
{
	uintptr_t addr = s->addr, end = base + bytes;
	bool inside = addr - base < bytes || addr == base;
	uintptr_t n = inside ? addr - base : addr < base ? base - addr : addr - end;
	fprintf(s->out, "0x%lx is located %lu byte%s %s %zu-byte %s [0x%lx,0x%lx)", addr, n,
	    n == 1 ? "" : "s", inside ? "inside of" : addr < base ? "before" : "after", bytes,
	    kind, base, end);
}

static void
put_history(struct search *s, const struct side_record *side, bool freed)
{
	if (freed) {
		fprintf(s->out, "freed by tid %u, by %s, here:\n", side->freed.tid,
		    api_name(side->freed.api));
		remote_put_stack(s->r, side->free_stack, s->out);
	}
	fprintf(s->out, "%sallocated by tid %u, by %s, here:\n", freed ? "previously " : "",
	    side->alloc.tid, api_name(side->alloc.api));
	remote_put_stack(s->r, side->alloc_stack, s->out);
}

/* ---- guarded objects ---------------------------------------------------- */

static uintptr_t
distance(const struct guard_record *g, uintptr_t addr)
{
	uintptr_t end = g->base + g->bytes;
	return addr < g->base ? g->base - addr : addr < end ? 0 : addr - end;
}

/* The slot it is in, or of two beside its guard the one whose object is nearer. */
static void
look_at_guarded(const struct guard_record *g, size_t slot_bytes, void *arg)
{
	struct search *s = arg;
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	if (s->addr - (g->data - page) >= slot_bytes + 2 * page)
		return;
	bool in = s->addr - g->data < slot_bytes;
	uintptr_t d = in ? 0 : distance(g, s->addr);
	if (s->found && d >= s->nearest)
		return;
	s->found = true;
	s->nearest = d;
	s->guarded = *g;
}

static const char *
guard_state_name(uint32_t state)
{
	switch (state) {
	case GUARD_BUSY: return "being allocated";
	case GUARD_LIVE: return "live";
	case GUARD_FREEING: return "being freed";
	case GUARD_FREED: return "freed";
	case GUARD_REPORTED: return "live, reported";
	case GUARD_REPORTED_FREED: return "freed, reported";
	default: return "unused";
	}
}

static void
put_guarded(struct search *s)
{
	const struct guard_record *g = &s->guarded;
	uint32_t state = g->state.v;
	put_relation(s, g->base, g->bytes, "region");
	fprintf(s->out, " (a guarded object, allocation %lu, %s)\n", side_serial(&g->side),
	    guard_state_name(state));
	put_history(s, &g->side, state == GUARD_FREED || state == GUARD_REPORTED_FREED);
}

/* ---- sampled objects ---------------------------------------------------- */

static void
put_sampled_stack(struct search *s, const char *what, const struct sample_stack *t)
{
	size_t n = t->frames < SAMPLE_FRAMES ? t->frames : SAMPLE_FRAMES;
	fprintf(s->out, "%s by tid %d, here:\n", what, t->tid);
	remote_put_frames(s->r, t->pcs, n, s->out);
}

/* In its pages, or in the guard beside them: whose that is, nobody knows better. */
static void
look_at_sampled(const struct sample_slot *o, void *arg)
{
	struct search *s = arg;
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	bool freed = o->state.v == SAMPLE_FREED;
	if (s->found || s->addr - (o->pages - page) >= o->pages_bytes + 2 * page)
		return;
	s->found = true;
	put_relation(s, o->base, o->bytes, "region");
	fprintf(s->out, " (a sampled object, %s)\n", freed ? "freed" :
	    o->state.v == SAMPLE_REPORTED ? "reported" : "live");
	if (freed)
		put_sampled_stack(s, "freed", &o->freed);
	put_sampled_stack(s, freed ? "previously allocated" : "allocated", &o->allocated);
}

/* ---- slots and large objects -------------------------------------------- */

static const char *
slot_state_name(const struct mspan *sp, size_t idx)
{
	uint64_t bit = (uint64_t)1 << (idx % 64);
	const struct slot_word *word = &sp->bits[idx / 64];
	if (sp->state.v == SPAN_PARKED)
		return "freed, its span is in the quarantine";
	if (mspan_slot_live(sp, idx))
		return "live";
	if ((word->live.v & word->remote.v & bit) != 0)
		return "freed by another thread";
	return (sp->avail[idx / 64] & bit) != 0 ? "free" : "freed, or about to be handed out";
}

static void
put_slot(struct search *s, const struct mspan *sp, size_t idx)
{
	struct side_record side;
	bool freed = false, large = mspan_is_large(sp);
	uintptr_t base = large ? sp->base : sp->base + idx * sp->elem_bytes;
	bool recorded = remote_side(s->r, sp, idx, &side, &freed);
	size_t bytes = recorded ? side_bytes(&side, sp->elem_bytes) : sp->elem_bytes;
	put_relation(s, base, bytes, recorded ? "region" : large ? "object" : "slot");
	fprintf(s->out, " (%s; slot %zu of %u of span 0x%lx, class %zu, %s)\n",
	    freed ? "freed" : slot_state_name(sp, idx), idx, sp->nelems, sp->base,
	    sp->elem_bytes, span_class_noscan(sp->span_class) ? "noscan" : "scan");
	if (recorded)
		put_history(s, &side, freed);
}

static void
look_at_span(const struct mspan *sp, void *arg)
{
	struct search *s = arg;
	size_t bytes = mspan_bytes(sp);
	if (s->found || s->addr - sp->base >= bytes)
		return;
	s->found = true;
	size_t idx = mspan_is_large(sp) ? 0 : (s->addr - sp->base) / sp->elem_bytes;
	if (idx < sp->nelems)
		put_slot(s, sp, idx);
	else
		fprintf(s->out, "0x%lx lies behind the last slot of span 0x%lx\n", s->addr,
		    sp->base);
}

/* ---- no object ------------------------------------------------------------ */

/* "kept+0x10 of /path/prog"; false: no module has it. */
static bool
put_module(struct search *s)
{
	GElf_Off offset;
	GElf_Sym sym;
	const char *file = NULL;
	Dwarf_Addr start, end;
	Dwfl_Module *m = dwfl_addrmodule(s->r->dwfl, s->addr);     /* or the last one before */
	if (m == NULL)
		return false;
	const char *name = dwfl_module_info(m, NULL, &start, &end, NULL, NULL, &file, NULL);
	if (s->addr < start || s->addr >= end)
		return false;
	const char *symbol = dwfl_module_addrinfo(m, s->addr, &offset, &sym, NULL, NULL, NULL);
	if (symbol != NULL && offset < sym.st_size)
		fprintf(s->out, ": %s+0x%lx of %s\n", symbol, (unsigned long)offset,
		    file != NULL ? file : name);
	else
		fprintf(s->out, ": it lies in %s\n", file != NULL ? file : name);
	return true;
}

/* Of a process: what the kernel calls it. */
static void
put_mapping(struct search *s)
{
	char path[64], line[512], perms[8], name[256];
	unsigned long start, end;
	bool found = false;
	snprintf(path, sizeof(path), "/proc/%d/maps", (int)s->r->pid);
	FILE *f = fopen(path, "re");
	while (f != NULL && !found && fgets(line, sizeof(line), f) != NULL) {
		name[0] = 0;
		found = sscanf(line, "%lx-%lx %7s %*s %*s %*s %255s", &start, &end, perms, name) >= 3 &&
		    s->addr >= start && s->addr < end;
	}
	if (found)
		fprintf(s->out, ": it lies in %s (%s)\n", name[0] != 0 ? name :
		    "a mapping without a name: a thread's stack, or somebody's mmap", perms);
	else
		fputs(f != NULL ? ": nothing is mapped there\n" : "\n", s->out);
	if (f != NULL)
		fclose(f);
}

/* ---- the command -------------------------------------------------------- */

static void
look_up(struct search *s)
{
	remote_each_guarded(s->r, look_at_guarded, s);
	if (s->found) {
		put_guarded(s);
		return;
	}
	remote_each_sampled(s->r, look_at_sampled, s);
	if (!s->found)
		remote_each_span(s->r, look_at_span, s);
	if (s->found)
		return;
	atomic_ptr arena = { NULL };
	if (s->addr >> ADDR_BITS == 0)
		remote_read(s->r, (uintptr_t)&s->r->root.arenas->slots[s->addr >> ARENA_SHIFT],
		    &arena, sizeof(arena));
	if (arena.v != NULL) {
		fprintf(s->out, "0x%lx lies in the heap, in no span\n", s->addr);
		return;
	}
	fprintf(s->out, "0x%lx is no address of the heap", s->addr);
	if (put_module(s))
		return;
	if (s->r->pid != 0)
		put_mapping(s);
	else
		fputc('\n', s->out);
}

int
command_addr(int argc, char **argv)
{
	struct remote r;
	struct search s = { .r = &r };
	char *text = NULL, *end;
	size_t bytes = 0;
	if (argc != 3)
		usage_error("addr wants a process id or core file, and an address", "");
	s.addr = strtoul(argv[2], &end, 16);
	if (*end != 0 || end == argv[2])
		usage_error("not an address: ", argv[2]);
	if (!remote_open(&r, argv[1]))
		return EXIT_CANNOT;
	s.out = open_memstream(&text, &bytes);
	if (s.out == NULL) {
		remote_close(&r);
		return EXIT_CANNOT;
	}
	look_up(&s);
	fclose(s.out);
	symbolize_text(text, stdout);
	free(text);
	remote_close(&r);
	return s.found ? 0 : 1;
}
