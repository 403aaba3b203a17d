/* h7_fault.c - H7: a program while the system refuses: by number of the call, from
 * a call on, or for want of mappings. Nothing may be lost, and when the failures
 * stop, the same program must do all it does elsewhere, on the same heap.
 *
 * fault_mask: which calls (enum fake_sys_call); fault_flags bit 0: from the nth
 * on, else the nth only; geometry bit 5: a limit on mappings. */
#include "prog.h"

#include "mcache.h"
#include "tls.h"

static struct sg_prog prog;

static void
run_ops(struct sg_prog *p)
{
	for (size_t i = 0; i < p->nops; i++)
		sg_prog_step(p, i);
}

static void
body(void *arg)
{
	struct sg_prog *p = arg;
	const struct sgf_header *h = &p->header;

	fake_sys_fail(h->fault_mask & ~(uint32_t)FAKE_SYS_USED, h->fault_nth % 256u + 1,
	    (h->fault_flags & 1) != 0);
	p->faults = true;
	run_ops(p);
	sg_prog_heal(p);
	sg_heap_verify();
	sg_prog_check_objects(p);
	sg_prog_free_all(p);
	p->no_faults = true;
	run_ops(p);
	sg_prog_end(p);
}

static int
run(const uint8_t *data, size_t bytes)
{
	sg_prog_start(&prog, data, bytes);
	sg_prog_must_live(&prog, body);
	return 0;
}

const struct sg_harness sg_h_fault = { "fault", &sg_prog_language, run };
