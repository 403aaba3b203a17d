/* crime_rooms.h - H9's bugs that debug and guard mode see, and what they must say of
 * them: whose object, which byte, and the stacks. See crime_rooms.c. */
#ifndef SPANGUARD_FUZZ_CRIME_ROOMS_H
#define SPANGUARD_FUZZ_CRIME_ROOMS_H

#include "die.h"
#include "prog.h"

struct sg_room_bug {
	uint32_t codes;            /* 0: none was planted; else as of enum die_code, bits */
	bool at_call;              /* seen by that call; else by the end */
	uintptr_t object;          /* that it befell */
	uintptr_t changed;         /* the byte, 0: none */
	uintptr_t next;            /* a changed byte beside this one may be put down to it */
};

/* Does the header ask for one of these modes, or for a mixture of rooms? */
bool sg_room_mode(const struct sgf_header *h);

/* What of these modes the header's knobs choose: the side of the guard, alignment,
 * and, of a program that knows no operators, that functions are compared. */
void sg_room_config(const struct sgf_header *h, const uint8_t *data, size_t bytes,
    struct options *o);

/* Plants bug `kind` with the object of op. A bug that is seen by a call ends here. */
void sg_room_plant(struct sg_prog *p, const struct sgf_op *op, unsigned kind,
    struct sg_room_bug *bug);

/* What d says beside its code. */
void sg_room_judge(const struct sg_room_bug *bug, const struct die_info *d);

/* A touch of this heap was let through: its object reports nothing more. */
extern bool sg_room_let_through;

/* The frame that every stack of an object must hold: set by who runs the program. */
extern uintptr_t sg_room_frame;

#endif
