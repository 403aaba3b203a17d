/* leakpropose.c - see leakpropose.h. */
#define _GNU_SOURCE
#include "leakpropose.h"

#include <string.h>

#include "leaknames.h"
#include "../src/facts.h"
#include "../src/print.h"

enum { OTHERS_MAX = 16 };

struct frame_names {
	char function[LEAKNAME_BYTES];     /* "": has none */
	char module[PROCMAP_PATH_BYTES];
};

/* false: there is no such frame, or it is no module's. */
static bool
names_of(const struct lost *l, uint32_t i, struct frame_names *out)
{
	const char *function, *module;
	out->function[0] = out->module[0] = 0;
	if (i >= l->frames || !leaknames_look_up(l->pcs[i], &function, &module))
		return false;
	strncpy(out->module, module, sizeof(out->module) - 1);
	out->module[sizeof(out->module) - 1] = 0;
	if (function == NULL)
		return true;
	strncpy(out->function, function, sizeof(out->function) - 1);
	out->function[sizeof(out->function) - 1] = 0;
	return true;
}

/* The innermost frame that is not libc's (strdup, getline), nor ours; else the
 * allocator's caller. */
static uint32_t
program_frame(const struct lost *l)
{
	for (uint32_t i = 1; i < l->frames; i++)
		if (!facts_frame_is_libs(facts_frame(l->pcs[i])))
			return i;
	return l->frames > 1 ? 1 : 0;
}

static bool
is_named_like_one(const char *function)
{
	return strcasestr(function, "alloc") != NULL || strcasestr(function, "strdup") != NULL;
}

/* Whether the function is on the stack with another caller than this. */
static bool
has_other_caller(const struct lost *l, const char *function, const char *caller)
{
	static struct frame_names at, next;
	for (uint32_t i = program_frame(l); i < l->frames; i++)
		if (names_of(l, i, &at) && strcmp(at.function, function) == 0) {
			names_of(l, i + 1, &next);
			if (strcmp(next.function, caller) != 0)
				return true;
		}
	return false;
}

static bool
is_helper(const struct lost *lost, const struct lost_group *groups, size_t n_groups,
    size_t which, const char *function, uint32_t i)
{
	static struct frame_names caller;
	if (is_named_like_one(function))
		return true;
	names_of(&lost[groups[which].first], i + 1, &caller);
	for (size_t g = 0; g < n_groups && g < OTHERS_MAX; g++) {
		const struct lost *other = &lost[groups[g].first];
		if (g != which && other->pcs != NULL &&
		    has_other_caller(other, function, caller.function))
			return true;
	}
	return false;
}

void
leak_propose(struct print *p, const struct lost *lost, const struct lost_group *groups,
    size_t n_groups, size_t which)
{
	static struct frame_names at;
	static char module[PROCMAP_PATH_BYTES], chosen[LEAKNAME_BYTES];
	const struct lost *l = &lost[groups[which].first];
	char plain[LEAKNAME_BYTES];
	uint32_t i = program_frame(l);
	bool done = false;
	chosen[0] = 0;
	if (!names_of(l, i, &at))
		return;
	strcpy(module, at.module);
	for (; !done && names_of(l, i, &at) && strcmp(at.module, module) == 0; i++) {
		if (at.function[0] == 0)
			continue;
		done = !is_helper(lost, groups, n_groups, which, at.function, i);
		if (done || chosen[0] == 0)
			strcpy(chosen, at.function);
	}
	const char *slash = strrchr(module, '/');
	const char *best = chosen[0] != 0 ? chosen : slash != NULL ? slash + 1 : module;
	print_str(p, "leak:");
	print_quoted(p, leaknames_plain(best, plain, sizeof(plain)) ? plain : best, LEAKNAME_BYTES);
}
