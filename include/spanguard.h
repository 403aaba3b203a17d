/* spanguard.h - what spanguard offers beside the malloc interface.
 *
 * A program works without this header: it comes by LD_PRELOAD or by linking
 * -lspanguard. Functions are thread-safe unless they say otherwise. Sizes are
 * bytes. */
#ifndef SPANGUARD_H
#define SPANGUARD_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SPANGUARD_VERSION "0.1.0"

#if defined(__GNUC__)
#define SPANGUARD_MALLOC_LIKE __attribute__((malloc, warn_unused_result))
#else
#define SPANGUARD_MALLOC_LIKE
#endif

/* Memory that will hold no pointers. It lies in spans of its own, which are
 * never scanned for pointers and never mixed with spans of pointers, so stale
 * data cannot be taken for a pointer or the other way round. Below 16 bytes
 * several objects share a block, aligned to 8 for a size of 8 and to 4
 * otherwise; from 16 bytes on as malloc. Freed with free(), resized with
 * realloc() (which keeps the promise). NULL with errno ENOMEM on failure. */
void *spanguard_malloc_noscan(size_t bytes) SPANGUARD_MALLOC_LIKE;
/* As calloc; ENOMEM also when n * bytes overflows. */
void *spanguard_calloc_noscan(size_t n, size_t bytes) SPANGUARD_MALLOC_LIKE;
/* As realloc; a NULL p makes a noscan object. */
void *spanguard_realloc_noscan(void *p, size_t bytes);

/* Bytes that may be used at p, 0 for NULL. Ends the program with a report if p
 * is not a live object, like malloc_usable_size. */
size_t spanguard_usable_size(const void *p);

/* Gives every idle page back to the kernel now. Returns bytes given back. */
size_t spanguard_scavenge(void);

/* Recounts every tier from its bits up and compares. Returns 0 if all agrees;
 * else writes a report of each broken invariant, by its tag, to the log and
 * returns their number. Other threads may run on; what they own is checked as
 * far as it holds still. */
int spanguard_verify(void);

/* [p, p + bytes) holds pointers that keep objects alive, although it is none of
 * the places that are looked at by themselves (stacks, registers, TLS, data and bss
 * of all modules, private mappings that can be written): shared memory, say. The
 * range may be unmapped later, but remove it before that. remove takes the very
 * range that was added. 0, or -1 with errno ENOMEM or ENOENT. */
int spanguard_root_add(const void *p, size_t bytes);
int spanguard_root_remove(const void *p, size_t bytes);

/* Stops all other threads (by a real-time signal), marks what can be reached,
 * does it again by other code, and compares. 0: both agree. -1: there was no pass,
 * because a thread did not stop in time or memory was short (a warning says so).
 * A difference is a bug of ours and ends the program with a report. System calls
 * of stopped threads that the kernel does not restart return EINTR. */
int spanguard_mark_check(void);

/* Stops all other threads and looks for objects that are allocated and that no
 * pointer leads to; writes a report of them to the log, in LeakSanitizer's form, with
 * the stacks that allocated them where these are known (records=1, mode=debug).
 * Returns how many it reported; -1: there was no pass (a warning says why). delta:
 * only those that the last check, of either kind, did not find, by their addresses. */
int spanguard_leak_check(void);
int spanguard_leak_check_delta(void);

/* The object that p points into, and what can be reached from it, is no leak until
 * it is freed. 0, or -1 with errno EINVAL if p is in no live object. */
int spanguard_leak_ignore(const void *p);

/* A picture of the heap at one moment. In-use counts are exact for threads at
 * rest and a few operations off for running ones. */
struct spanguard_stats {
	uint64_t live_bytes;          /* slots handed out, whole slots counted */
	uint64_t live_objects;
	uint64_t freed_bytes;         /* freed, waiting for their span's sweep */
	uint64_t free_slot_bytes;     /* may be handed out from existing spans */
	uint64_t span_bytes;          /* pages in spans */
	uint64_t spans;
	uint64_t parked_bytes;        /* of these, in the span quarantine */
	uint64_t large_bytes;         /* spans of one large object, part of live_bytes */
	uint64_t large_objects;
	uint64_t page_cache_bytes;    /* in threads' page caches */
	uint64_t free_page_bytes;     /* in the page heap, of these: */
	uint64_t returned_bytes;      /* given back to the kernel, or never touched */
	uint64_t reserved_bytes;      /* address space of the heap */
	uint64_t metadata_bytes;      /* ours, outside the heap */
	uint64_t guard_bytes;
	uint64_t guards_installed;
	uint64_t guards_skipped;      /* no budget left for mprotect guards */
	uint64_t small_allocs;        /* since start; exact for threads at rest */
	uint64_t large_allocs;
	uint64_t scavenged_bytes;     /* since start */
	uint64_t system_calls;        /* memory system calls since start */
	uint64_t threads;             /* thread caches in use */
};

void spanguard_stats(struct spanguard_stats *out);

/* The same as one line of JSON, NUL-terminated, into buf; returns the length it
 * has or would have had without the limit, like snprintf. */
size_t spanguard_stats_json(char *buf, size_t size);

#ifdef __cplusplus
}
#endif

#endif
