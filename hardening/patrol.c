/* patrol.c - see patrol.h. */
#include "patrol.h"

#include "../src/die.h"
#include "../src/mspan.h"
#include "../src/verify.h"

static unsigned every;

void
patrol_init(unsigned n)
{
	every = n;
}

void
hook_patrol(const struct mspan *s, uint64_t refills)
{
	uintptr_t where = 0;
	if (likely(every == 0 || refills % every != 0) || s == NULL)
		return;
	const char *tag = verify_span(s);
	if (tag == NULL)
		tag = hook_slot_check(s, &where);
	if (tag != NULL && (where == 0 || !hook_slot_explain(where, "patrol")))
		die(&(struct die_info){ .code = DIE_VERIFY, .api = "patrol", .site = tag,
		    .addr = where != 0 ? where : (uintptr_t)s });
}
