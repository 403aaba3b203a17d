/* h7_fault.c - H7: a program while the system refuses: by number of the call, from
 * a call on, or for want of mappings. Nothing may be lost, and when the failures
 * stop, the same program must do all it does elsewhere, on the same heap.
 *
 * fault_mask: which calls (enum fake_sys_call); fault_flags bit 0: from the nth
 * on, else the nth only; geometry bit 5: a limit on mappings. */
#include "prog.h"

#include "check.h"
#include "mcache.h"
#include "tls.h"

static struct sg_prog prog;

static void
run_ops(struct sg_prog *p)
{
	for (size_t i = 0; i < p->nops; i++)
		sg_prog_step(p, i);
}

/* 0: the header says which call fails; else the n-th of all. */
static uint64_t sweep_nth;
static uint64_t armed_at, armed_calls;      /* of those that can fail */

enum { CAN_FAIL = FAKE_SYS_CAN_FAIL & ~FAKE_SYS_USED };

static void
arm(const struct sgf_header *h)
{
	armed_at = fake_sys_calls(CAN_FAIL);
	if (sweep_nth != 0)
		fake_sys_fail(CAN_FAIL, sweep_nth, false);
	else
		fake_sys_fail(h->fault_mask & ~(uint32_t)FAKE_SYS_USED, h->fault_nth % 256u + 1,
		    (h->fault_flags & 1) != 0);
}

static void
body(void *arg)
{
	struct sg_prog *p = arg;

	arm(&p->header);
	p->faults = true;
	run_ops(p);
	armed_calls = fake_sys_calls(CAN_FAIL) - armed_at;
	sg_prog_heal(p);
	if (fake_sys_refusals() != 0) {         /* else the heap is as H1's */
		sg_heap_verify();
		sg_prog_check_objects(p);
		sg_prog_free_all(p);
		p->no_faults = true;
		run_ops(p);
	}
	sg_prog_end(p);
}

static int
run(const uint8_t *data, size_t bytes)
{
	sg_prog_start(&prog, data, bytes);
	sg_prog_must_live(&prog, body);
	return 0;
}

uint64_t
sg_fault_sweep(const uint8_t *data, size_t bytes, uint64_t most)
{
	const char *input = sg_at.input;
	char name[512];
	uint64_t n = 0;

	do {
		sweep_nth = ++n;
		snprintf(name, sizeof(name), "%s (call %llu fails)", input, (unsigned long long)n);
		sg_at.input = name;
		run(data, bytes);
	} while (n < armed_calls && n < most);
	sg_at.input = input;
	sweep_nth = 0;
	return n;
}

const struct sg_harness sg_h_fault = { "fault", &sg_prog_language, run };
