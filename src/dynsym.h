/* dynsym.h - a function of another module, by its name: dlsym without its malloc.
 *
 * Takes the loader's lock for reading its list, as unwinders do; not for a signal
 * handler. Cost: one hash look-up in each loaded module. */
#ifndef SPANGUARD_DYNSYM_H
#define SPANGUARD_DYNSYM_H

#include "base.h"

/* The first module in load order that defines `name`, not at `ours`, and also
 * `beside`, where that is not NULL. NULL: there is none. */
void *dynsym_function(const char *name, const char *beside, const void *ours);

#endif
