/* root.c - see root.h. */
#include "root.h"

#include <elf.h>
#include <string.h>

#include "../include/spanguard.h"

struct spanguard_root spanguard_root;

static const struct {
	Elf64_Nhdr header;
	char name[sizeof(NOTE_NAME)];
	struct spanguard_note_desc desc;
} build_note __attribute__((section(NOTE_SECTION), used, aligned(8))) = {
	{ sizeof(NOTE_NAME), sizeof(struct spanguard_note_desc), NOTE_BUILD }, NOTE_NAME,
	{ SPANGUARD_LAYOUT, SPANGUARD_VERSION } };

AT_ENDS void
root_publish(bool guards)
{
	spanguard_root = (struct spanguard_root){ .layout = SPANGUARD_LAYOUT, .version = SPANGUARD_VERSION,
		.arenas = &arena_map, .heap = &mheap_, .guards = guards ? guardspace_directory() : NULL,
		.stacks = depot_chunks(), .samples = sample_records() };
	memcpy(spanguard_root.magic, ROOT_MAGIC, sizeof(spanguard_root.magic));
}
