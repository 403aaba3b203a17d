/* root.c - see root.h. */
#include "root.h"

#include <string.h>

#include "../include/spanguard.h"

struct spanguard_root spanguard_root;

void
root_publish(bool guards)
{
	spanguard_root = (struct spanguard_root){ .layout = SPANGUARD_LAYOUT, .version = SPANGUARD_VERSION,
		.arenas = &arena_map, .heap = &mheap_, .guards = guards ? guardspace_directory() : NULL,
		.stacks = depot_chunks() };
	memcpy(spanguard_root.magic, ROOT_MAGIC, sizeof(spanguard_root.magic));
}
