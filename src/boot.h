/* boot.h - memory for the moments when there is no heap to ask: before the
 * loader has relocated this library, and for a signal handler that comes in
 * while its thread is inside the allocator.
 *
 * A bump through 1 MiB of zero pages, lock-free, never reused. Starts and live
 * bits stand outside, so frees are checked here as everywhere. No relocation,
 * no TLS, no libc function is needed by anything in boot.c.
 *
 * BOOT-1  a live bit stands only where a start bit does */
#ifndef SPANGUARD_BOOT_H
#define SPANGUARD_BOOT_H

#include "base.h"

enum boot_verdict { BOOT_FOREIGN, BOOT_OK, BOOT_FREED, BOOT_INTERIOR };

/* Zeroed, 16-byte aligned or as `align` (a power of two) says; NULL when used up. */
void *boot_alloc(size_t bytes, size_t align);

/* What p is; BOOT_OK for a live object, whose size is then in *bytes. */
enum boot_verdict boot_look(const void *p, size_t *bytes);

/* BOOT_OK: was live, is freed now. Everything else as boot_look. */
enum boot_verdict boot_free(void *p);

#endif
