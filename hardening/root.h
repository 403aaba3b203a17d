/* root.h - where a tool that looks at this process from outside begins.
 *
 * The tool (tools/remote.c) finds the symbol spanguard_root in the module's symbol
 * table, in a live process or in a core file, and follows these pointers by the
 * structs of the same headers. `layout` says that they are the same: it is a hash
 * of those headers (ci/layout). Nothing here is read by the library.
 *
 * Locks: none, and a process is not stopped for it: what a tool reads may change
 * under its eyes. Structs it comes to are never unmapped. */
#ifndef SPANGUARD_ROOT_H
#define SPANGUARD_ROOT_H

#include "depot.h"
#include "guardspace.h"
#include "sample.h"
#include "sidetable.h"
#include "../src/marena.h"
#include "../src/mheap.h"
#include "../src/mspan.h"
#include "../src/options.h"       /* `spanguard run` passes them on: part of the number */

/* The first three members are for a tool of any version: they stay as they are. */
#define ROOT_MAGIC "spgroot2"

/* Of this build (ci/layout); a test build has none. */
#ifndef SPANGUARD_LAYOUT
#define SPANGUARD_LAYOUT 0
#endif

struct spanguard_root {
	char magic[8];
	uint64_t layout;
	char version[16];
	const struct arena_map *arenas;
	const struct mheap *heap;
	const struct guard_directory *guards;   /* NULL: no guarded objects */
	const atomic_ptr *stacks;               /* depot.h: the chunks */
	const struct sample_slot *samples;      /* SAMPLE_SLOTS of them */
};

extern struct spanguard_root spanguard_root __attribute__((visibility("default")));

/* The same two facts in the file, as an ELF note: for a tool before the library runs.
 * Header and name are a multiple of 8, so that the description follows at once. */
#define NOTE_SECTION ".note.spanguard"
#define NOTE_NAME "spanguard\0\0"
enum { NOTE_BUILD = 1 };

struct spanguard_note_desc {
	uint64_t layout;
	char version[16];
};

/* After the rooms are up, with one thread running. */
void root_publish(bool guards);

#endif
