/* seal.c - see seal.h. */
#include "seal.h"

#include "../src/log.h"
#include "../src/marena.h"
#include "../src/mheap.h"
#include "../src/options.h"
#include "../src/persistentalloc.h"
#include "../src/sys.h"
#include "fault.h"
#include "valgrind.h"

/* Metadata with its guards, as far as it was made by now, and the arena map. */
static void
keep_mappings(void)
{
	persistent_alloc(&mheap_.meta, CACHE_LINE, CACHE_LINE);      /* so that a chunk is there */
	const struct persistent_region *r = aptr_load_acquire(&mheap_.meta.regions);
	uintptr_t map = align_up((uintptr_t)&arena_map, sys_page_bytes());
	uintptr_t map_end = align_down((uintptr_t)(&arena_map + 1), sys_page_bytes());
	for (; r != NULL; r = r->next)
		sys_keep((void *)r->base, r->end - r->base);
	sys_keep((void *)map, map_end - map);
}

AT_ENDS void
seal_start(void)
{
	size_t bytes;
	void *log = log_fixed(&bytes);
	sys_seal(&options, sizeof(options));
	sys_seal(log, bytes);
	fault_seal();
	valgrind_seal();
	keep_mappings();
}
