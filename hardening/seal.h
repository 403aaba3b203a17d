/* seal.h - what does not change after the start is made so.
 *
 * Threat:    a wild write, or an mprotect or munmap that an attacker can call, turns
 *            off checks, or guards, or puts memory of its own under our metadata.
 * Mechanism: the options, where reports go, and whom the handler of faults asks are
 *            on pages that become read-only, and are sealed (mseal) where the kernel
 *            can; so are the mappings of the metadata there is by then, with their
 *            guards, and of the arena map, which stay writable.
 * Cost:      a few system calls at the start.
 * Way round: metadata that is mapped later is guarded, not sealed; before Linux 6.10
 *            there is no mseal.
 * Test:      tests/test_sys.c, tests/life/sealed.c. */
#ifndef SPANGUARD_SEAL_H
#define SPANGUARD_SEAL_H

/* From the constructor, once; options do not change any more. */
void seal_start(void);

#endif
