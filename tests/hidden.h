/* hidden.h - objects of which a test keeps the address inverted, so that no mark
 * finds it but where the test puts it. */
#ifndef SPANGUARD_TESTS_HIDDEN_H
#define SPANGUARD_TESTS_HIDDEN_H

#include "base.h"

/* Whether instrumented frames may keep copies of what they once held. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FRAMES_KEEP_COPIES 1
#endif
#endif
#ifndef FRAMES_KEEP_COPIES
#define FRAMES_KEEP_COPIES 0
#endif

/* Zeroes where dead frames were, right from its own frame down: everything this
 * function has is in registers. */
void scrub(void);

/* A zeroed object. */
uintptr_t hidden_new(size_t bytes, bool noscan);
void hidden_free(uintptr_t h);

/* *(word i of the object `in`) = object `to` + off; 0: NULL. All hidden. */
void hidden_link(uintptr_t in, size_t i, uintptr_t to, size_t off);
void hidden_store(void *volatile *where, uintptr_t h, size_t off);

/* v is the object + off. */
bool is_hidden(uintptr_t v, uintptr_t h, size_t off);

#endif
