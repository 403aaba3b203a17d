/* map.c - spanguard map PID|CORE|SNAPSHOT: the pieces of a heap, as a page that draws
 * them (--html), or as a file of JSON to draw later, elsewhere (--snapshot).
 *
 * The page is tools/map.html, part of this program, with the pieces written into it
 * as one literal: it needs nothing else and no server. A snapshot is that literal;
 * one that is read may come from anywhere, so only what is understood goes on.
 *
 *   spans         of small objects with their counts, large objects, parked ones
 *   guards        pages beside spans; those of guarded objects go with the object
 *   free pages    still in memory, or returned to the kernel
 *   objects       guarded ones; many alike in a row are one piece */
#define _GNU_SOURCE
#include "remote.h"
#include "tools.h"

#include <errno.h>
#include <ctype.h>
#include <getopt.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SNAPSHOT_SCHEMA "spanguard-map/1"

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
	char what[256];              /* "process 4711" */
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
count_slots(const struct mspan *s, struct piece *p)
{
	p->slots = s->nelems;
	for (size_t i = 0; i < s->nelems; i++) {
		if (mspan_slot_live(s, i))
			p->live++;
		else if ((s->avail[i / 64] >> (i % 64) & 1) != 0)
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
add_span(const struct mspan *s, void *arg)
{
	struct map *m = arg;
	bool large = mspan_is_large(s);
	struct piece p = { .at = s->base, .bytes = mspan_bytes(s),
		.class_bytes = s->elem_bytes, .slots = 1, .live = 1,
		.kind = s->state.v == SPAN_PARKED ? "parked" : large ? "large" : "small" };
	if (s->state.v == SPAN_PARKED) {
		p.live = 0;
		p.slots = p.freed = large ? 1 : s->nelems;
	} else if (!large) {
		p.live = 0;
		count_slots(s, &p);
	}
	add(m, &p);
	add_guards(m, s);
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
put_data(const struct map *m, FILE *out)
{
	fputs("{\"schema\":\"" SNAPSHOT_SCHEMA "\",\"what\":", out);
	put_json_string(m->what, out);
	fputs(",\"pieces\":[", out);
	for (size_t i = 0; i < m->n; i++) {
		const struct piece *p = &m->piece[i];
		fprintf(out, "%s[\"0x%lx\",%zu,\"%s\",%zu,%zu,%zu,%zu,%zu,\"\"]", i != 0 ? ",\n" : "",
		    p->at, p->bytes, p->kind, p->class_bytes, p->slots, p->live, p->freed, p->free);
	}
	fputs("]}", out);
}

static void
put_page(const struct map *m, FILE *out)
{
	static const char mark[] = "/*DATA*/";
	size_t bytes = (size_t)(map_page_end - map_page);
	const char *at = memmem(map_page, bytes, mark, sizeof(mark) - 1);
	fwrite(map_page, 1, (size_t)(at - map_page), out);
	put_data(m, out);
	at += sizeof(mark) - 1;
	fwrite(at, 1, (size_t)(map_page_end - at), out);
}

static void
put_snapshot(const struct map *m, FILE *out)
{
	put_data(m, out);
	fputc('\n', out);
}

/* path NULL: not wanted. */
static bool
write_file(const struct map *m, const char *path, void (*put)(const struct map *m, FILE *out))
{
	FILE *out = path != NULL ? fopen(path, "we") : NULL;
	bool ok = path == NULL || out != NULL;
	if (out != NULL) {
		put(m, out);
		ok = ferror(out) == 0;
		ok &= fclose(out) == 0;
	}
	if (!ok)
		fprintf(stderr, "spanguard: %s: %s\n", path, strerror(errno));
	return ok;
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

static bool
map_of_heap(struct map *m, const char *what)
{
	struct remote r;
	if (!remote_open(&r, what))
		return false;
	m->r = &r;
	snprintf(m->what, sizeof(m->what), "%s %s", r.core != NULL ? "core file" : "process", what);
	bool ok = collect(m);
	if (!ok)
		fprintf(stderr, "spanguard: %s: its heap cannot be read\n", what);
	remote_close(&r);
	return ok;
}

/* ---- a snapshot ----------------------------------------------------------- */

/* The word of our own that it is; NULL: it is none. */
static const char *
kind_of(const char *s)
{
	static const char *const kinds[] = { "small", "large", "parked", "guard", "free", "returned",
		"live", "freed" };
	for (size_t i = 0; s != NULL && i < ARRAY_LEN(kinds); i++)
		if (strcmp(s, kinds[i]) == 0)
			return kinds[i];
	return NULL;
}

static bool
read_piece(json_t *j, struct piece *p)
{
	size_t *const numbers[] = { &p->class_bytes, &p->slots, &p->live, &p->freed, &p->free };
	const char *at = json_string_value(json_array_get(j, 0));
	json_t *bytes = json_array_get(j, 1);
	*p = (struct piece){ .kind = kind_of(json_string_value(json_array_get(j, 2))) };
	if (at == NULL || p->kind == NULL || !json_is_integer(bytes))
		return false;
	p->at = strtoul(at, NULL, 16);
	p->bytes = (size_t)json_integer_value(bytes);
	for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
		json_t *n = json_array_get(j, 3 + i);
		if (!json_is_integer(n))
			return false;
		*numbers[i] = (size_t)json_integer_value(n);
	}
	return true;
}

static bool
map_of_snapshot(struct map *m, const char *file)
{
	json_t *all = json_load_file(file, 0, NULL), *one;
	const char *schema = json_string_value(json_object_get(all, "schema"));
	json_t *pieces = json_object_get(all, "pieces");
	bool ok = schema != NULL && strcmp(schema, SNAPSHOT_SCHEMA) == 0 && json_is_array(pieces);
	const char *what = ok ? json_string_value(json_object_get(all, "what")) : NULL;
	snprintf(m->what, sizeof(m->what), "%s", what != NULL ? what : "?");
	size_t i;
	json_array_foreach(pieces, i, one) {
		struct piece p;
		ok = ok && read_piece(one, &p);
		if (ok)
			add(m, &p);
	}
	json_decref(all);
	ok = ok && !m->no_memory;
	if (!ok)
		fprintf(stderr, "spanguard: %s: no snapshot that this command can read\n", file);
	return ok;
}

/* It begins as JSON does; a core file begins otherwise, and a process id is no file. */
static bool
is_snapshot(const char *what)
{
	FILE *f = fopen(what, "re");
	int c = f != NULL ? fgetc(f) : EOF;
	while (c != EOF && isspace(c))
		c = fgetc(f);
	if (f != NULL)
		fclose(f);
	return c == '{';
}

int
command_map(int argc, char **argv)
{
	static const struct option long_options[] = {
		{ "html", required_argument, NULL, 'h' }, { "snapshot", required_argument, NULL, 's' },
		{ NULL, 0, NULL, 0 } };
	const char *page = NULL, *snapshot = NULL;
	struct map m = { .os_page = (size_t)sysconf(_SC_PAGESIZE) };
	for (int c; (c = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
		if (c != 'h' && c != 's')
			usage_error("map takes --html=FILE and --snapshot=FILE", "");
		*(c == 'h' ? &page : &snapshot) = optarg;
	}
	if ((page == NULL && snapshot == NULL) || argc - optind != 1)
		usage_error("map wants a process id, core file or snapshot, and --html=FILE or "
		    "--snapshot=FILE", "");
	const char *what = argv[optind];
	bool ok = (is_snapshot(what) ? map_of_snapshot : map_of_heap)(&m, what) &&
	    write_file(&m, page, put_page) && write_file(&m, snapshot, put_snapshot);
	free(m.piece);
	return ok ? 0 : EXIT_CANNOT;
}
