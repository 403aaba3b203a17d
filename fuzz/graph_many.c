/* graph_many.c - H15's op "many": what its few hundred objects do not fill. See graph_many.h.
 *
 *   a & 3   0  as many lost objects as the first list of a leak check does not hold
 *           1  as many objects that are no leak, by their first byte or another
 *           2  registered ranges, added, refused and removed
 *           3  a leak check whose memory is refused: it says -1, and the next one does
 *              what it always did
 *
 * A word somewhere may keep an object or two, so numbers are held to a few. */
#include "graph_many.h"

#include <errno.h>

#include "fake_sys.h"
#include "malloc.h"

#include "../include/spanguard.h"
#include "../hardening/hooks.h"

enum { MOST = 5000, FEW = 24, RANGES = 300, RANGE_BYTES = 16 };

static uintptr_t hidden[MOST];     /* ~address */
static size_t n_hidden;

static NOINLINE void
make(const struct sgf_op *op, size_t n)
{
	for (n_hidden = 0; n_hidden < n; n_hidden++) {
		size_t bytes = op->b & 4 ? 1 + n_hidden % 15 : 16 + n_hidden % 3 * 16;
		hidden[n_hidden] = ~(uintptr_t)(op->b & 4 ? spanguard_malloc_noscan(bytes) :
		    mallocgc(bytes, API_MALLOC));
		if (~hidden[n_hidden] == 0)
			break;
	}
}

static NOINLINE void
unmake(void)
{
	while (n_hidden > 0)
		freegc((void *)~hidden[--n_hidden], API_FREE);
}

static NOINLINE int
lost(bool delta)
{
	int n = hook_leak_check(delta);
	NO_TAIL_CALL();
	return n;
}

static void
check_lost(int before, int now, size_t more)
{
	SG_CHECK(GRAPH, before >= 0 && now >= 0 && now - before <= (int)more + FEW,
	    "%d objects lost, then %zu more, now %d", before, more, now);
	SG_CHECK(GRAPH, sg_with_asan || now - before >= (int)more - FEW,
	    "%d objects lost, then %zu more, now %d", before, more, now);
}

static void
lose(const struct sgf_op *op)
{
	int before = lost(false);

	make(op, op->b & 1 ? 4097 + op->imm % 800 : op->imm % 300);
	check_lost(before, lost(false), n_hidden);
	unmake();
}

static NOINLINE void
ignore_all(const struct sgf_op *op)
{
	bool short_of = (op->b & 8) != 0;

	if (short_of)
		fake_sys_fail(FAKE_SYS_ALLOC, 1, false);
	for (size_t i = 0; i < n_hidden; i++) {
		bool ok = spanguard_leak_ignore((void *)(~hidden[i] + (op->b & 2 && (op->b & 4) == 0 ?
		    op->imm % 16 : 0))) == 0;
		SG_CHECK(GRAPH, ok || short_of, "object %zu cannot be ignored", i);
	}
	fake_sys_fail(0, 0, false);
}

static void
ignore(const struct sgf_op *op)
{
	int before = lost(false);

	make(op, op->imm % 700);
	ignore_all(op);
	int now = lost(false);
	check_lost(before, now, op->b & 8 && now > before ? (size_t)(now - before) : 0);
	unmake();
	SG_CHECK(GRAPH, spanguard_leak_ignore((void *)~hidden[0]) == -1 || op->imm % 700 == 0,
	    "a freed object is ignored");
}

static void
ranges(const struct sgf_op *op, char *at)
{
	static bool added[RANGES];
	size_t n = op->imm % RANGES;

	if (op->b & 1)
		fake_sys_fail(FAKE_SYS_ALLOC, 1 + op->b / 2 % 3u, true);
	for (size_t i = 0; i < n; i++) {
		added[i] = spanguard_root_add(at + i * RANGE_BYTES, RANGE_BYTES - 8) == 0;
		SG_CHECK(GRAPH, added[i] || ((op->b & 1) != 0 && errno == ENOMEM), "range %zu is refused", i);
	}
	fake_sys_fail(0, 0, false);
	SG_CHECK(GRAPH, spanguard_root_add(at, 0) == 0 && spanguard_root_remove(at, 0) == 0,
	    "a range of nothing is refused");
	for (size_t i = 0; i < n; i++)
		SG_CHECK(GRAPH, (spanguard_root_remove(at + i * RANGE_BYTES, RANGE_BYTES - 8) == 0) == added[i],
		    "range %zu, added: %d", i, added[i]);
}

static void
refused(const struct sgf_op *op)
{
	int before = lost(false), n;

	make(op, op->b & 2 ? 4097 : 10);
	fake_sys_fail(FAKE_SYS_ALLOC | FAKE_SYS_RESERVE | FAKE_SYS_MAP, 1 + op->imm % 12, (op->b & 1) != 0);
	n = lost((op->b & 4) != 0);
	fake_sys_fail(0, 0, false);
	SG_CHECK(GRAPH, n >= -1, "%d objects lost", n);
	check_lost(before, lost(false), n_hidden);
	unmake();
	SG_CHECK(GRAPH, spanguard_mark_check() == 0, "no mark was possible");
}

void
sg_graph_many(const struct sgf_op *op, char *shared)
{
	switch (op->a & 3) {
	case 0: lose(op); break;
	case 1: ignore(op); break;
	case 2: ranges(op, shared); break;
	default: refused(op); break;
	}
}
