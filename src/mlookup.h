/* mlookup.h - what is this address? The facts a report, a debugger or a test
 * asks for, found without a lock and without touching the address itself. */
#ifndef SPANGUARD_MLOOKUP_H
#define SPANGUARD_MLOOKUP_H

#include "base.h"

enum addr_kind {
	ADDR_FOREIGN,        /* not in any arena of ours */
	ADDR_HEAP_UNUSED,    /* in an arena, never part of a span */
	ADDR_HEAP_RELEASED,  /* in an arena, the span that lived here is gone */
	ADDR_SMALL,          /* in a span of small slots */
	ADDR_TINY,           /* in a span of the tiny allocator (noscan, < 16 B) */
	ADDR_LARGE,          /* in a span that is one object */
};

enum slot_state {
	SLOT_FREE,           /* may be handed out, or never was */
	SLOT_LIVE,
	SLOT_FREED,          /* freed, not reusable before the next sweep */
	SLOT_TAIL,           /* behind the last slot of the span */
};

struct addr_info {
	enum addr_kind kind;
	uintptr_t span_base;
	size_t span_bytes;
	unsigned size_class;      /* 0: large */
	bool noscan;
	bool parked;              /* the span is in the span quarantine */
	size_t elem_bytes;        /* slot size; HEAP_RELEASED: of what lived here, 0 unknown */
	uintptr_t slot_base;
	size_t slot_idx;
	size_t nelems;
	enum slot_state state;
	bool freed_by_other;      /* SLOT_FREED: by a thread that does not own the span */
	int owner_tid;            /* thread whose cache owns the span, 0: none */
};

/* Fills *out for any address whatever. Async-signal-safe. */
void heap_describe(uintptr_t addr, struct addr_info *out);

#endif
