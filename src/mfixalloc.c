/* mfixalloc.c - free-list allocation of objects of one size; see the header. */
#include "mfixalloc.h"
#include "die.h"

#include <string.h>

enum {
	FIX_CHUNK_BYTES = 16 << 10,    /* at least; at least one object */
};

void
fixalloc_init(struct fixalloc *f, struct persistent *from, size_t bytes, size_t align)
{
	if (align < sizeof(struct fixalloc_link))
		align = sizeof(struct fixalloc_link);
	if (bytes == 0)
		bytes = 1;
	*f = (struct fixalloc){ .from = from, .bytes = align_up(bytes, align), .align = align };
}

static bool
refill(struct fixalloc *f)
{
	size_t objects = f->bytes < FIX_CHUNK_BYTES ? FIX_CHUNK_BYTES / f->bytes : 1;
	uintptr_t p = (uintptr_t)persistent_alloc(f->from, objects * f->bytes, f->align);

	if (p == 0)
		return false;
	f->at = p;
	f->end = p + objects * f->bytes;
	return true;
}

void
fixalloc_init_keep(struct fixalloc *f, struct persistent *from, size_t bytes, size_t align)
{
	fixalloc_init(f, from, bytes, align);
	f->keep = true;
}

static void
count(struct fixalloc *f, uint64_t add_inuse, uint64_t add_total)
{
	a64_store_relaxed(&f->inuse, a64_load_relaxed(&f->inuse) + add_inuse);
	a64_store_relaxed(&f->total, a64_load_relaxed(&f->total) + add_total);
}

void *
fixalloc_alloc(struct fixalloc *f)
{
	struct fixalloc_link *l = f->list;
	void *fresh;

	if (l != NULL) {
		if (((uintptr_t)l & (f->align - 1)) != 0)
			die_corruption("FIX-2", l);
		f->list = l->next;
		count(f, 1, 0);
		return f->keep ? l : memset(l, 0, f->bytes);
	}
	if (f->at == f->end && !refill(f))
		return NULL;
	fresh = (void *)f->at;
	f->at += f->bytes;
	count(f, 1, 1);
	return fresh;
}

void
fixalloc_free(struct fixalloc *f, void *object)
{
	struct fixalloc_link *l = object;

	if (a64_load_relaxed(&f->inuse) == 0)
		die_corruption("FIX-1", object);
	l->next = f->list;
	f->list = l;
	count(f, (uint64_t)-1, 0);
}

size_t
fixalloc_inuse(const struct fixalloc *f)
{
	return (size_t)a64_load_relaxed(&f->inuse);
}

size_t
fixalloc_inuse_bytes(const struct fixalloc *f)
{
	return fixalloc_inuse(f) * f->bytes;
}
