/* language.c - the names of the ops of prog.c, in the order of its codes[]; alone,
 * because h13_real.c, which has no tiers, reads them too. */
#include "sgf.h"

extern const struct sgf_language sg_prog_language;

const struct sgf_language sg_prog_language = {
	.op = {
		"malloc", "malloc", "malloc", "malloc", "calloc", "calloc", "realloc",
		"realloc", "realloc", "reallocarray", "posix_memalign", "aligned_alloc",
		"memalign", "valloc", "pvalloc", "noscan", "noscan", "calloc_noscan",
		"realloc_noscan", "free", "free", "free", "free", "free", "cfree",
		"free_sized", "free_sized", "free_aligned_sized", "usable", "burst", "burst",
		"burst", "burst_free", "burst_free", "burst_free", "burst_zero", "trim",
		"scavenge", "tick", "advance", "exit", "verify", "check", "stats",
		"enter_fast", "enter_slow", "gone", "flush", "fail", "heal", "overflow",
		"bug", "new", "new", "delete", "delete", "delete_sized", "malloc", "free",
		"burst", "burst_free", "fork", "more", "more",
	},
	.knob = { "sweep share and window", "quarantine", "guards", "sampling" },
};
