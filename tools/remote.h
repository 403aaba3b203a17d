/* remote.h - the memory of another process, or of one that has died.
 *
 * A process is read by process_vm_readv, a core file through libelf. Both say which
 * modules there are by libdwfl. The library's structs are found from its symbol
 * spanguard_root (hardening/root.h) and read by its own headers; a library of
 * another layout is refused. */
#ifndef SPANGUARD_REMOTE_H
#define SPANGUARD_REMOTE_H

#include "../hardening/root.h"

#include <elfutils/libdwfl.h>
#include <stdio.h>
#include <sys/types.h>

/* Of this command, ci/layout. */
extern const uint64_t remote_layout;

struct remote {
	pid_t pid;               /* 0: a core file */
	Elf *core;
	int core_fd;
	Dwfl *dwfl;
	struct spanguard_root root;
};

/* what: a process id, or the path of a core file. false: why not is on stderr. */
bool remote_open(struct remote *r, const char *what);
void remote_close(struct remote *r);

/* false: not all of it can be read. */
bool remote_read(const struct remote *r, uintptr_t addr, void *to, size_t bytes);
/* To be freed; NULL: as above, or no memory. */
void *remote_copy(const struct remote *r, uintptr_t addr, size_t bytes);

/* The heap's spans in address order of each arena. fn gets a copy of each once, with
 * its bits; avail points into the copy, every other pointer is one of the process. */
void remote_each_span(const struct remote *r,
    void (*fn)(const struct mspan *s, void *arg), void *arg);

/* Of a span with records: that of slot idx, and whether the program freed it. */
bool remote_side(const struct remote *r, const struct mspan *s, size_t idx,
    struct side_record *out, bool *freed);

/* The guarded objects; the record is a copy. */
void remote_each_guarded(const struct remote *r,
    void (*fn)(const struct guard_record *rec, size_t slot_bytes, void *arg), void *arg);

/* The sampled objects, live and freed ones. */
void remote_each_sampled(const struct remote *r,
    void (*fn)(const struct sample_slot *s, void *arg), void *arg);

/* The frames of a stack of the depot, as reports have them: to be symbolised. */
void remote_put_stack(const struct remote *r, uint32_t id, FILE *out);
/* The same of a stack at hand. */
void remote_put_frames(const struct remote *r, const uintptr_t *pcs, size_t n, FILE *out);

#endif
