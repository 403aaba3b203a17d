/* markreport.c - see markreport.h.
 *
 *   ==PID==WARNING: spanguard: stale-pointer to 0x.. stands at 0x..
 *   0x.. is located 16 bytes inside of 262144-byte object .. (freed; ..)
 *   the pointer: 0x.. is in the .bss of /usr/bin/prog (offset 0x4040), table+0x10
 *   SUMMARY: spanguard: stale-pointer */
#include "markreport.h"

#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../src/print.h"
#include "../src/report.h"

struct told {
	const struct mark_reference *r;
	size_t references;
};

/* " (name)" of a thread that is there still. */
static void
put_thread_name(struct print *p, int tid)
{
	char path[64], name[32];
	struct print text;
	print_init(&text, path, sizeof(path));
	print_str(&text, "/proc/self/task/");
	print_dec(&text, (uint64_t)tid);
	print_str(&text, "/comm");
	long fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
	long n = fd >= 0 ? syscall(SYS_read, fd, name, sizeof(name) - 1) : 0;
	if (fd >= 0)
		syscall(SYS_close, fd);
	if (n <= 1)
		return;
	name[n - 1] = 0;             /* the newline */
	print_str(p, " (");
	print_quoted(p, name, sizeof(name));
	print_char(p, ')');
}

static void
put_where(struct print *p, const struct mark_reference *r)
{
	print_str(p, "the pointer: ");
	switch (r->place) {
	case MARK_IN_STACK:
		print_hex(p, r->at);
		print_str(p, " is on the stack, in a register or in the thread-local storage of thread ");
		print_dec(p, (uint64_t)r->tid);
		put_thread_name(p, r->tid);
		print_char(p, '\n');
		break;
	case MARK_IN_USER_ROOT:
		print_hex(p, r->at);
		print_str(p, " is in a range that was given to spanguard_root_add\n");
		break;
	case MARK_IN_DATA:
	case MARK_IN_OBJECT:
		report_put_address(p, r->at);
		if (r->unreached)
			print_str(p, "nobody points to the object it is in: that one may be lost\n");
		break;
	}
}

static void
compose(struct print *p, void *arg)
{
	const struct told *t = arg;
	report_put_warning(p);
	print_str(p, "stale-pointer to ");
	print_hex(p, t->r->value);
	print_str(p, " stands at ");
	print_hex(p, t->r->at);
	print_char(p, '\n');
	report_put_address(p, t->r->value);
	put_where(p, t->r);
	print_str(p, "SUMMARY: spanguard: stale-pointer, ");
	print_dec(p, t->references);
	print_str(p, t->references == 1 ? " word points" : " words point");
	print_str(p, " into what was freed\n");
}

void
mark_report_reference(const struct mark_reference *r, size_t references)
{
	struct told t = { r, references };
	report_note(compose, &t);
}
