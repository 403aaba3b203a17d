/* fake_die.c - see fake_die.h. */
#include "fake_die.h"
#include "facts.h"
#include "print.h"
#include "report.h"

#include <stdio.h>
#include <stdlib.h>

struct die_info fake_die_info;
jmp_buf fake_die_jmp;
bool fake_die_armed;

/* What info points at stands on the stack of the dying call. */
static struct die_diff last_diff;
static struct die_access last_access;

static void
keep(const struct die_info *info)
{
	fake_die_info = *info;
	if (info->diff != NULL) {
		last_diff = *info->diff;
		fake_die_info.diff = &last_diff;
	}
	if (info->access != NULL) {
		last_access = *info->access;
		fake_die_info.access = &last_access;
	}
}

/* Weak: harnesses whose threads are fibers have their own. */
__attribute__((weak)) _Noreturn void
die(const struct die_info *info)
{
	keep(info);
	if (fake_die_armed) {
		fake_die_armed = false;
		longjmp(fake_die_jmp, 1);
	}
	fprintf(stderr, "fake_die: unexpected death: code %d, api %s, site %s, address %#lx, "
	    "given %zu, expected %zu\n", (int)info->code, info->api != NULL ? info->api : "-",
	    info->site != NULL ? info->site : "-", (unsigned long)info->addr,
	    info->given, info->expected);
	abort();
}

__attribute__((weak)) _Noreturn void
die_corruption(const char *tag, const void *where)
{
	struct die_info info = {
		.code = DIE_CORRUPTION,
		.site = tag,
		.addr = (uintptr_t)where,
	};

	die(&info);
}

/* Tests that watch reports of a program that goes on have their own. */
__attribute__((weak)) void
report_and_go_on(const struct die_info *info)
{
	die(info);
}

__attribute__((weak)) void
report_once(const struct die_info *info)
{
	die(info);
}

__attribute__((weak)) void
report_cut_short(void)
{
}

bool
fake_die_caught(void (*fn)(void *), void *arg)
{
	fake_die_info = (struct die_info){ 0 };
	fake_die_armed = true;
	if (setjmp(fake_die_jmp) != 0)
		return true;
	fn(arg);
	fake_die_armed = false;
	return false;
}

/* In place of report.c's, which comes with a die() of its own. */
__attribute__((weak)) void
report_warn(const char *first, ...)
{
	fprintf(stderr, "fake_die: warning: %s\n", first);
}

__attribute__((weak)) void
complain(const struct die_info *info)
{
	die(info);
}

/* ---- notes: kept for the test, without what report.c knows; weak: a harness may
 * put the reporter's own words in place ---- */

char fake_note[FAKE_NOTE_BYTES];
unsigned fake_notes;

__attribute__((weak)) void
report_note(void (*compose)(struct print *p, void *arg), void *arg)
{
	struct print p;

	print_init(&p, fake_note, sizeof(fake_note));
	compose(&p, arg);
	fake_notes++;
}

__attribute__((weak)) void
report_put_warning(struct print *p)
{
	print_str(p, "WARNING: ");
}

__attribute__((weak)) void
report_put_error(struct print *p)
{
	print_str(p, "ERROR: ");
}

/* Every pc is in /lib/module; those below 0x10000 are functions by their number. */
__attribute__((weak)) bool
facts_look_up(uintptr_t pc, const char **symbol, const char **module)
{
	static char name[16];

	snprintf(name, sizeof(name), "f%lu", (unsigned long)pc);
	*symbol = pc < 0x10000 ? name : NULL;
	*module = "/lib/module";
	return true;
}

__attribute__((weak)) void
report_leak_json(const struct leak_facts *l)
{
	(void)l;
}

__attribute__((weak)) void
report_put_address(struct print *p, uintptr_t addr)
{
	print_str(p, "address ");
	print_hex(p, addr);
	print_char(p, '\n');
}

__attribute__((weak)) void
report_put_frames(struct print *p, const uintptr_t *pcs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		print_str(p, "    #");
		print_dec(p, i);
		print_char(p, ' ');
		print_hex(p, pcs[i]);
		print_char(p, '\n');
	}
	print_char(p, '\n');
}
