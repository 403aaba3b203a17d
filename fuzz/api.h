/* api.h - the functions under test, by the names rename.h gives them. */
#ifndef SPANGUARD_FUZZ_API_H
#define SPANGUARD_FUZZ_API_H

#include <malloc.h>
#include <stddef.h>

void *sg_malloc(size_t bytes);
void sg_free(void *p);
void *sg_calloc(size_t n, size_t size);
void *sg_realloc(void *p, size_t bytes);
void *sg_reallocarray(void *p, size_t n, size_t size);
int sg_posix_memalign(void **out, size_t align, size_t bytes);
void *sg_aligned_alloc(size_t align, size_t bytes);
void *sg_memalign(size_t align, size_t bytes);
void *sg_valloc(size_t bytes);
void *sg_pvalloc(size_t bytes);
size_t sg_malloc_usable_size(void *p);
void sg_cfree(void *p);
void sg_free_sized(void *p, size_t bytes);
void sg_free_aligned_sized(void *p, size_t align, size_t bytes);
int sg_malloc_trim(size_t pad);
int sg_mallopt(int param, int value);
struct mallinfo2 sg_mallinfo2(void);
struct mallinfo sg_mallinfo(void);
int sg_malloc_info(int options, FILE *out);
void sg_malloc_stats(void);

#endif
