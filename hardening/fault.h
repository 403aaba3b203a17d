/* fault.h - a touch of a guard becomes a report; any other fault is the program's.
 *
 * Threat:    none by itself: the guard already stopped the access. But a bare
 *            SIGSEGV does not say that it was one, nor of which object.
 * Mechanism: a SIGSEGV handler asks each room whether the address is in a guard
 *            of its own. If so it dies with the room's code. A fault in our own code
 *            means that it followed metadata that was overwritten: metadata-corruption,
 *            check "fault". Else what would have
 *            happened without us happens: the earlier handler runs as the kernel
 *            would have run it, or the default action is taken.
 * Cost:      nothing before a fault.
 * Way round: a program that installs a handler of its own for SIGSEGV replaces
 *            ours: the guards still stop the access, but nothing is said. A
 *            system call that is handed a guarded address fails with EFAULT and
 *            raises no signal.
 * Test:      tests/fault.
 *
 * SIGBUS is left alone: guards are page-table markers or PROT_NONE, and for
 * neither does Linux raise it.
 *
 * Locks: none. The table of rooms is written before there is a second thread. */
#ifndef SPANGUARD_FAULT_H
#define SPANGUARD_FAULT_H

#include "../src/die.h"
#include "hooks.h"

struct fault_claim {
	enum die_code code;
	const char *site;
};

/* All are called in a signal handler, for any address whatever. */
struct fault_room {
	/* Is addr in a guard of this room, and which error is it to touch it? */
	bool (*claim)(uintptr_t addr, struct fault_claim *out);
	/* As hook_object. */
	bool (*object)(uintptr_t addr, struct room_object *out);
	/* As hook_object_beside; NULL: the heap tells it. */
	bool (*beside)(uintptr_t addr, bool behind, struct room_object *out);
	/* Is the program to go on after the report? NULL: never. *silent: and
	 * without another report. */
	bool (*go_on)(uintptr_t addr, bool *silent);
	/* Before it goes on: makes the access possible. */
	void (*let_through)(uintptr_t addr);
};

enum { FAULT_ROOMS = 8 };

/* Guards around spans, and spans in the quarantine. */
extern const struct fault_room fault_heap;

/* While one thread runs; a room that is there already is not added again. */
void fault_add_room(const struct fault_room *room);

/* Installs the handler if any room is there. Needs a living libc. */
void fault_start(void);
/* No room is added any more: a stray write cannot make the handler call elsewhere. */
void fault_seal(void);

#endif
