/* map.c - spanguard map PID|CORE --html FILE: a page that draws the heap.
 *
 * The page is tools/map.html, part of this program, with the pieces of the heap
 * written into it as one literal: it needs nothing else and no server.
 *
 *   spans         of small objects with their counts, large objects, parked ones
 *   guards        pages beside spans; those of guarded objects go with the object
 *   free pages    still in memory, or returned to the kernel
 *   objects       guarded ones; many alike in a row are one piece */
#define _GNU_SOURCE
#include "remote.h"
#include "tools.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MERGE_FROM = 20000 };     /* guarded objects: from here on not each for itself */

/* The page, byte for byte. */
__asm__(".pushsection .rodata\n"
    "map_page:\n\t.incbin \"tools/map.html\"\n"
    "map_page_end:\n\t.byte 0\n"
    ".popsection");
extern const char map_page[] __attribute__((visibility("hidden")));
extern const char map_page_end[] __attribute__((visibility("hidden")));

struct piece {
	uintptr_t at;
	size_t bytes;
	const char *kind;
	size_t class_bytes, slots, live, freed, free;
};

struct map {
	const struct remote *r;
	size_t os_page;
	struct piece *piece;
	size_t n, cap;
	size_t guarded;              /* objects seen so far */
	bool merge;
	bool no_memory;
};

static void
add(struct map *m, const struct piece *p)
{
	if (m->n == m->cap) {
		size_t cap = m->cap != 0 ? 2 * m->cap : 1024;
		struct piece *more = realloc(m->piece, cap * sizeof(*more));
		m->no_memory |= more == NULL;
		if (more == NULL)
			return;
		m->piece = more;
		m->cap = cap;
	}
	m->piece[m->n++] = *p;
}

/* ---- spans -------------------------------------------------------------- */

static void
count_slots(const struct remote_span *sp, struct piece *p)
{
	p->slots = sp->s.nelems;
	for (size_t i = 0; i < sp->s.nelems; i++) {
		uint64_t bit = (uint64_t)1 << (i % 64);
		size_t w = i / 64;
		if ((sp->live[w] & ~sp->remote[w] & bit) != 0)
			p->live++;
		else if ((sp->avail[w] & bit) != 0)
			p->free++;
		else
			p->freed++;
	}
}

static void
add_guards(struct map *m, const struct mspan *s)
{
	struct piece p = { .bytes = m->os_page, .kind = "guard" };
	if ((s->guards & GUARD_BEFORE_PUT) != 0) {
		p.at = s->base - m->os_page;
		add(m, &p);
	}
	if ((s->guards & GUARD_AFTER_PUT) != 0) {
		p.at = s->base + mspan_bytes(s);
		add(m, &p);
	}
}

static void
add_span(const struct remote_span *sp, void *arg)
{
	struct map *m = arg;
	bool large = mspan_is_large(&sp->s);
	struct piece p = { .at = sp->s.base, .bytes = mspan_bytes(&sp->s),
		.class_bytes = sp->s.elem_bytes, .slots = 1, .live = 1,
		.kind = sp->s.state.v == SPAN_PARKED ? "parked" : large ? "large" : "small" };
	if (sp->s.state.v == SPAN_PARKED) {
		p.live = 0;
		p.slots = p.freed = large ? 1 : sp->s.nelems;
	} else if (!large) {
		p.live = 0;
		count_slots(sp, &p);
	}
	add(m, &p);
	add_guards(m, &sp->s);
}

/* ---- free pages --------------------------------------------------------- */

static void
add_free_pages(struct map *m, uintptr_t base, const struct page_chunk *c)
{
	for (unsigned i = 0; i < CHUNK_PAGES;) {
		bool taken = page_bits_get(&c->alloc, i), scav = page_bits_get(&c->scav, i);
		unsigned from = i++;
		while (i < CHUNK_PAGES && page_bits_get(&c->alloc, i) == taken &&
		    page_bits_get(&c->scav, i) == scav)
			i++;
		if (taken)
			continue;
		struct piece p = { .at = base + ((uintptr_t)from << PAGE_SHIFT),
			.bytes = (size_t)(i - from) << PAGE_SHIFT, .kind = scav ? "returned" : "free" };
		add(m, &p);
	}
}

static void
add_free_of_region(struct map *m, size_t i, uintptr_t at)
{
	struct page_region *g = remote_copy(m->r, at, sizeof(*g));
	for (size_t c = 0; g != NULL && c < PAGE_REGION_CHUNKS; c++)
		if ((g->grown[c / 64] >> (c % 64) & 1) != 0)
			add_free_pages(m, ((uintptr_t)i << PAGE_REGION_SHIFT) +
			    ((uintptr_t)c << CHUNK_SHIFT), &g->chunks[c]);
	free(g);
}

static void
add_free(struct map *m)
{
	struct page_alloc *pages = remote_copy(m->r, (uintptr_t)&m->r->root.heap->pages,
	    sizeof(*pages));
	for (size_t i = 0; pages != NULL && i < PAGE_REGIONS; i++)
		if (pages->regions[i] != NULL)
			add_free_of_region(m, i, (uintptr_t)pages->regions[i]);
	m->no_memory |= pages == NULL;
	free(pages);
}

/* ---- guarded objects ---------------------------------------------------- */

static void
count_guarded(const struct guard_record *g, size_t slot_bytes, void *arg)
{
	struct map *m = arg;
	(void)g;
	(void)slot_bytes;
	m->guarded++;
}

static void
add_guarded(const struct guard_record *g, size_t slot_bytes, void *arg)
{
	struct map *m = arg;
	bool freed = g->state.v == GUARD_FREED || g->state.v == GUARD_REPORTED_FREED;
	struct piece p = { .at = g->data, .bytes = slot_bytes + m->os_page,
		.kind = freed ? "freed" : "live", .class_bytes = g->bytes, .slots = 1,
		.live = !freed, .freed = freed };
	struct piece *last = m->n != 0 ? &m->piece[m->n - 1] : NULL;
	if (m->merge && last != NULL && last->kind == p.kind && last->at + last->bytes == p.at) {
		last->bytes += p.bytes;
		last->slots++;
		last->live += p.live;
		last->freed += p.freed;
	} else {
		add(m, &p);
	}
}

/* ---- the page ----------------------------------------------------------- */

static int
by_address(const void *a, const void *b)
{
	const struct piece *x = a, *y = b;
	return x->at < y->at ? -1 : x->at > y->at;
}

static void
put_json_string(const char *s, FILE *out)
{
	fputc('"', out);
	for (; *s != 0; s++)
		if (*s == '"' || *s == '\\' || *s == '<' || (unsigned char)*s < 0x20)
			fprintf(out, "\\u%04x", (unsigned char)*s);
		else
			fputc(*s, out);
	fputc('"', out);
}

static void
put_data(const struct map *m, const char *what, FILE *out)
{
	fputs(m->r->core != NULL ? "{\"what\":\"core file \"+" : "{\"what\":\"process \"+", out);
	put_json_string(what, out);
	fputs(",\"pieces\":[", out);
	for (size_t i = 0; i < m->n; i++) {
		const struct piece *p = &m->piece[i];
		fprintf(out, "%s[\"0x%lx\",%zu,\"%s\",%zu,%zu,%zu,%zu,%zu,\"\"]", i != 0 ? ",\n" : "",
		    p->at, p->bytes, p->kind, p->class_bytes, p->slots, p->live, p->freed, p->free);
	}
	fputs("]}", out);
}

static bool
write_page(const struct map *m, const char *what, const char *path)
{
	static const char mark[] = "/*DATA*/";
	size_t bytes = (size_t)(map_page_end - map_page);
	const char *at = memmem(map_page, bytes, mark, sizeof(mark) - 1);
	FILE *out = fopen(path, "we");
	if (out == NULL || at == NULL)
		return false;
	fwrite(map_page, 1, (size_t)(at - map_page), out);
	put_data(m, what, out);
	at += sizeof(mark) - 1;
	fwrite(at, 1, (size_t)(map_page_end - at), out);
	bool ok = ferror(out) == 0;
	return fclose(out) == 0 && ok;
}

static bool
collect(struct map *m)
{
	remote_each_span(m->r, add_span, m);
	add_free(m);
	remote_each_guarded(m->r, count_guarded, m);
	m->merge = m->guarded > MERGE_FROM;
	remote_each_guarded(m->r, add_guarded, m);
	if (m->n != 0)
		qsort(m->piece, m->n, sizeof(*m->piece), by_address);
	return !m->no_memory;
}

int
command_map(int argc, char **argv)
{
	static const struct option long_options[] = {
		{ "html", required_argument, NULL, 'h' }, { NULL, 0, NULL, 0 } };
	const char *path = NULL;
	struct remote r;
	for (int c; (c = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
		if (c != 'h')
			usage_error("map takes --html=FILE", "");
		path = optarg;
	}
	if (path == NULL || argc - optind != 1)
		usage_error("map wants a process id or core file, and --html=FILE", "");
	const char *what = argv[optind];
	if (!remote_open(&r, what))
		return EXIT_CANNOT;
	struct map m = { .r = &r, .os_page = (size_t)sysconf(_SC_PAGESIZE) };
	bool ok = collect(&m);
	if (!ok)
		fprintf(stderr, "spanguard: %s: its heap cannot be read\n", what);
	else if (!(ok = write_page(&m, what, path)))
		fprintf(stderr, "spanguard: %s: %s\n", path, strerror(errno));
	free(m.piece);
	remote_close(&r);
	return ok ? 0 : EXIT_CANNOT;
}
