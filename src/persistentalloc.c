/* persistentalloc.c - bump allocation of metadata out of guarded chunks; see
 * the header. The shape is that of the Go runtime's persistentalloc. */
#include "persistentalloc.h"
#include "sys.h"

enum {
	PERSISTENT_CHUNK = 256 << 10,     /* with its guards */
	PERSISTENT_OWN_MIN = 64 << 10,    /* from here on a region of its own */
	PERSISTENT_MIN_ALIGN = 8,
};

void
persistent_init(struct persistent *p)
{
	*p = (struct persistent)PERSISTENT_INIT;
}

/* `bytes` (OS pages) at a multiple of `align` between two guards; 0: refused. */
static uintptr_t
guarded_pages(size_t bytes, size_t align)
{
	size_t edge = sys_page_bytes();
	size_t slack = align > edge ? align - edge : 0;
	size_t whole = bytes + 2 * edge;
	uintptr_t base, data, end;

	if (whole < bytes || whole + slack < whole)
		return 0;
	base = (uintptr_t)sys_alloc(whole + slack);
	if (base == 0)
		return 0;
	data = align_up(base + edge, align);
	end = base + whole + slack;
	if (data - edge > base)
		sys_free((void *)base, data - edge - base, SYS_READY);
	if (end > data + bytes + edge)
		sys_free((void *)(data + bytes + edge), end - (data + bytes + edge), SYS_READY);
	/* A refused guard stays a zeroed page that nobody uses. */
	sys_fault((void *)(data - edge), edge);
	sys_fault((void *)(data + bytes), edge);
	return data;
}

static void
region_publish(struct persistent *p, struct persistent_region *r, uintptr_t data, size_t bytes)
{
	size_t edge = sys_page_bytes();

	r->base = data - edge;
	r->end = data + bytes + edge;
	r->next = aptr_load_relaxed(&p->regions);
	aptr_store_release(&p->regions, r);
	a64_store_relaxed(&p->bytes, a64_load_relaxed(&p->bytes) + bytes);
}

static bool
chunk_new_locked(struct persistent *p)
{
	size_t bytes = PERSISTENT_CHUNK - 2 * sys_page_bytes();
	uintptr_t data = guarded_pages(bytes, sys_page_bytes());

	if (data == 0)
		return false;
	region_publish(p, (struct persistent_region *)data, data, bytes);
	p->at = data + sizeof(struct persistent_region);
	p->end = data + bytes;
	return true;
}

/* bytes + align < PERSISTENT_OWN_MIN, which fits into any fresh chunk. */
static void *
bump_locked(struct persistent *p, size_t bytes, size_t align)
{
	uintptr_t v = align_up(p->at, align);

	if (p->end == 0 || v > p->end || bytes > p->end - v) {
		if (!chunk_new_locked(p))
			return NULL;
		v = align_up(p->at, align);
	}
	p->at = v + bytes;
	return (void *)v;
}

/* The record of the region is bumped, so that its pages stay untouched. */
static void *
own_region_locked(struct persistent *p, size_t bytes, size_t align)
{
	size_t edge = sys_page_bytes();
	struct persistent_region *r;
	uintptr_t data;

	if (bytes > SIZE_MAX - edge)
		return NULL;
	bytes = align_up(bytes, edge);
	r = bump_locked(p, sizeof(*r), PERSISTENT_MIN_ALIGN);
	if (r == NULL)
		return NULL;
	data = guarded_pages(bytes, align > edge ? align : edge);
	if (data == 0) {
		p->at -= sizeof(*r);    /* the record was the last thing bumped */
		return NULL;
	}
	region_publish(p, r, data, bytes);
	return (void *)data;
}

void *
persistent_alloc(struct persistent *p, size_t bytes, size_t align)
{
	void *v;

	if (align < PERSISTENT_MIN_ALIGN)
		align = PERSISTENT_MIN_ALIGN;
	mutex_lock(&p->lock);
	if (bytes < PERSISTENT_OWN_MIN && align < PERSISTENT_OWN_MIN - bytes)
		v = bump_locked(p, bytes, align);
	else
		v = own_region_locked(p, bytes, align);
	mutex_unlock(&p->lock);
	return v;
}

size_t
persistent_bytes(const struct persistent *p)
{
	return (size_t)a64_load_relaxed(&p->bytes);
}

bool
persistent_contains(const struct persistent *p, uintptr_t addr)
{
	const struct persistent_region *r = aptr_load_acquire(&p->regions);

	for (; r != NULL; r = r->next) {
		if (addr >= r->base && addr < r->end)
			return true;
	}
	return false;
}
