/* root.h - where a tool that looks at this process from outside begins.
 *
 * The tool (tools/remote.c) finds the symbol spanguard_root in the module's symbol
 * table, in a live process or in a core file, and follows these pointers by the
 * structs of the same headers. `layout` says that they are the same: it is made of
 * their sizes. Nothing here is read by the library.
 *
 * Locks: none, and a process is not stopped for it: what a tool reads may change
 * under its eyes. Structs it comes to are never unmapped. */
#ifndef SPANGUARD_ROOT_H
#define SPANGUARD_ROOT_H

#include "depot.h"
#include "guardspace.h"
#include "sidetable.h"
#include "../src/marena.h"
#include "../src/mheap.h"
#include "../src/mspan.h"

#define ROOT_MAGIC "spgroot1"

struct spanguard_root {
	char magic[8];
	uint64_t layout;
	const struct arena_map *arenas;
	const struct mheap *heap;
	const struct guard_directory *guards;   /* NULL: no guarded objects */
	const atomic_ptr *stacks;               /* depot.h: the chunks */
};

extern struct spanguard_root spanguard_root __attribute__((visibility("default")));

static inline uint64_t
root_layout(void)
{
	const size_t sizes[] = { sizeof(struct mspan), sizeof(struct heap_arena),
		sizeof(struct page_alloc), sizeof(struct page_region), sizeof(struct mheap),
		sizeof(struct guard_record), sizeof(struct guard_directory),
		sizeof(struct side_record), sizeof(struct side_span),
		offsetof(struct mspan, side), offsetof(struct mspan, state),
		offsetof(struct mheap, pages), SIZE_CLASSES, SIDE_SLACK_BITS, DEPOT_HASH_BITS };
	uint64_t h = 0;
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		h = (h ^ sizes[i]) * 0x9e3779b97f4a7c15u;
	return h;
}

/* After the rooms are up, with one thread running. */
void root_publish(bool guards);

#endif
