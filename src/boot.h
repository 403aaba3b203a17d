/* boot.h - memory for the moments when there is no heap to ask: before the
 * loader has relocated this library, and for a signal handler that comes in
 * while its thread is inside the allocator.
 *
 *   region   1 MiB of zero pages, in granules of 16 bytes
 *   used     a bit per granule, claimed by compare-and-swap, a word at a time
 *   starts   a bit at the first granule of each live object
 *
 * An object up to 1 KiB lies within one word of bits, a larger one takes whole
 * words. Lock-free; no relocation, no TLS and no libc function is needed by
 * anything in boot.c.
 *
 * BOOT-1  a start bit stands only where a used bit does
 * BOOT-2  unused granules are zero */
#ifndef SPANGUARD_BOOT_H
#define SPANGUARD_BOOT_H

#include "base.h"

enum boot_verdict { BOOT_FOREIGN, BOOT_OK, BOOT_FREED, BOOT_INTERIOR };

/* Zeroed, 16-byte aligned or as `align` (a power of two up to 4096) says; NULL
 * when there is no room. */
void *boot_alloc(size_t bytes, size_t align);

/* What p is; BOOT_OK for a live object, whose size is then in *bytes. */
enum boot_verdict boot_look(const void *p, size_t *bytes);

/* BOOT_OK: was live, is freed now. Everything else as boot_look. */
enum boot_verdict boot_free(void *p);

#endif
