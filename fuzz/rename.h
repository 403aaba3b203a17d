/* rename.h - src/export_libc.c and export_cxx.c under other names: the harness,
 * the fuzzing engine and the sanitizers keep libc's malloc. */
#ifndef SPANGUARD_FUZZ_RENAME_H
#define SPANGUARD_FUZZ_RENAME_H

/* says attribute((malloc)), which is not to be renamed */
#include "../include/spanguard.h"

#define malloc sg_malloc
#define free sg_free
#define calloc sg_calloc
#define realloc sg_realloc
#define reallocarray sg_reallocarray
#define posix_memalign sg_posix_memalign
#define aligned_alloc sg_aligned_alloc
#define memalign sg_memalign
#define valloc sg_valloc
#define pvalloc sg_pvalloc
#define malloc_usable_size sg_malloc_usable_size
#define cfree sg_cfree
#define free_sized sg_free_sized
#define free_aligned_sized sg_free_aligned_sized
#define malloc_trim sg_malloc_trim
#define mallopt sg_mallopt
#define mallinfo2 sg_mallinfo2
#define mallinfo sg_mallinfo
#define malloc_info sg_malloc_info
#define malloc_stats sg_malloc_stats

#endif
