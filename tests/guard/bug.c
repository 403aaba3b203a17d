/* bug.c - bug.h with malloc and free. */
#define _GNU_SOURCE
#include <stddef.h>

/* C23; libc has it not. */
extern void free_sized(void *p, size_t bytes) __attribute__((weak));

#define ALLOC(bytes) malloc(bytes)
#define RELEASE(p, bytes) ((void)(bytes), free(p))
#define WRONG(p, bytes) ((void)(bytes), free(p))
#define SIZED(p, bytes) free_sized(p, bytes)
#include "bug.h"
