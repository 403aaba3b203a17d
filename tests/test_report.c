/* test_report.c - reports read back from children that die: each code, each
 * kind of address, two threads at once, an error in the reporter, descriptors
 * closed, a handler of the program, small stacks, forks. */
#define _GNU_SOURCE 1    /* REG_RIP */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "atomic.h"
#include "die.h"
#include "log.h"
#include "mlookup.h"
#include "options.h"
#include "report.h"
#include "hardening/fault.h"

/* ---- the heap that the reporter sees ------------------------------------ */

static struct addr_info heap;
static bool heap_is_broken;
static bool heap_cuts_short;    /* as if reading it had faulted */

void
heap_describe(uintptr_t addr, struct addr_info *out)
{
	(void)addr;
	if (heap_is_broken)
		die_corruption("MSPAN-9", &heap);
	if (heap_cuts_short)
		report_cut_short();
	*out = heap;
}

static const struct addr_info slot48 = {
	.kind = ADDR_SMALL, .span_base = 0x7f0000010000, .span_bytes = 16384,
	.size_class = 4, .elem_bytes = 48, .slot_base = 0x7f00000100f0, .slot_idx = 5,
	.nelems = 341, .state = SLOT_FREED, .owner_tid = 123,
};

/* ---- children that die -------------------------------------------------- */

static char got[1 << 17];
static int status;

static int
child_begin(int fd[2])
{
	struct rlimit none = { 0, 0 };
	assert_int_equal(pipe(fd), 0);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		/* cmocka's own handlers are not to see what this child does. */
		for (int sig = 1; sig < 32; sig++)
			signal(sig, SIG_DFL);
		setrlimit(RLIMIT_CORE, &none);
		alarm(30);
		dup2(fd[1], 2);
		close(fd[0]);
		close(fd[1]);
	}
	return pid;
}

static void
child_end(int fd[2], pid_t pid)
{
	size_t n = 0;
	ssize_t r;
	close(fd[1]);
	while (n < sizeof(got) - 1 && (r = read(fd[0], got + n, sizeof(got) - 1 - n)) > 0)
		n += (size_t)r;
	got[n] = 0;
	close(fd[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
}

static void
run_child(void (*f)(void *), void *arg)
{
	int fd[2];
	pid_t pid = child_begin(fd);
	if (pid == 0) {
		f(arg);
		_exit(99);
	}
	child_end(fd, pid);
}

static void
NOINLINE die_with(void *info)
{
	die(info);
}

static void
expect_abort(void)
{
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
}

static unsigned
occurrences(const char *what)
{
	unsigned n = 0;
	for (const char *s = got; (s = strstr(s, what)) != NULL; s += strlen(what))
		n++;
	return n;
}

static void
expect_text(const char *want)
{
	if (strstr(got, want) == NULL)
		fail_msg("no '%s' in:\n%s", want, got);
}

static NOINLINE void
report_of(enum die_code code, const char *api, uintptr_t addr, size_t given, size_t expected)
{
	struct die_info info = {
		.code = code, .api = api, .site = "MSPAN-3", .addr = addr, .given = given,
		.expected = expected,
	};
	run_child(die_with, &info);
	expect_abort();
	assert_int_equal(occurrences("ERROR: spanguard: "), 1);
	assert_int_equal(occurrences("SUMMARY: spanguard: "), 1);
	assert_int_equal(occurrences("==ABORTING\n"), 1);
}

/* A frame whose pc lies in f; children are forks, so addresses are ours. */
static void
expect_frame(uintptr_t f)
{
	for (char *s = strstr(got, "    #"); s != NULL; s = strstr(s + 1, "    #")) {
		unsigned long pc = strtoul(strstr(s, "0x"), NULL, 16);
		if (pc - f < 2048)
			return;
	}
	fail_msg("no frame in %p:\n%s", (void *)f, got);
}

static void
double_free(void **state)
{
	(void)state;
	heap = slot48;
	report_of(DIE_DOUBLE_FREE, "free", 0x7f00000100f0, 0, 0);
	expect_text("==ERROR: spanguard: attempting double-free on 0x7f00000100f0 in thread T0 (");
	expect_text("  the call was free, the check that fired MSPAN-3\n");
	expect_text("\n    #0 0x");
	expect_frame((uintptr_t)&die_with);
	expect_frame((uintptr_t)&report_of);
	expect_text("0x7f00000100f0 is located 0 bytes inside of 48-byte slot "
	    "[0x7f00000100f0,0x7f0000010120) (slot 5 of 341, freed; span 0x7f0000010000 of "
	    "16384 bytes, class 48, scan, owner thread 123)\n");
	expect_text("HINT: two places believe");
	expect_text("SUMMARY: spanguard: double-free (");
	heap.freed_by_other = true;
	report_of(DIE_DOUBLE_FREE, "free", 0x7f00000100f0, 0, 0);
	expect_text("freed by a thread that is not the owner");
	expect_text("HINT: the first free came from a thread");
}

static void
frames(void **state)
{
	unsigned n = 0;
	(void)state;
	heap = slot48;
	report_of(DIE_DOUBLE_FREE, "free", 0x7f00000100f0, 0, 0);
	for (char *s = strstr(got, "    #"); s != NULL; s = strstr(s + 1, "    #")) {
		unsigned no;
		unsigned long pc, off;
		char rest[600];
		assert_int_equal(sscanf(s, "    #%u 0x%lx %599[^\n]", &no, &pc, rest), 3);
		assert_int_equal(no, n++);
		char *plus = strrchr(rest, '+');
		assert_non_null(plus);
		assert_int_equal(sscanf(plus, "+0x%lx)", &off), 1);
		assert_int_equal(pc & 4095, off & 4095);
	}
	assert_true(n >= 4);
}

static void
interior(void **state)
{
	(void)state;
	heap = slot48;
	heap.state = SLOT_LIVE;
	heap.noscan = true;
	report_of(DIE_INTERIOR_FREE, "free", 0x7f00000100f8, 0, 0);
	expect_text("attempting free on address which was not malloc()-ed: 0x7f00000100f8, "
	    "8 bytes inside of an object, in thread T0");
	expect_text("is located 8 bytes inside of 48-byte slot");
	expect_text("live; span");
	expect_text("noscan");
	expect_text("use delete[]");
	report_of(DIE_INTERIOR_FREE, "realloc", 0x7f0000010100, 0, 0);
	expect_text("attempting realloc on address which was not malloc()-ed: 0x7f0000010100");
	expect_text("HINT: 16 bytes into the object");
	expect_text("SUMMARY: spanguard: bad-free (");
}

static void
mismatches(void **state)
{
	(void)state;
	heap = slot48;
	heap.state = SLOT_LIVE;
	report_of(DIE_SIZE_MISMATCH, "operator delete(void*, size_t)", 0x7f00000100f0, 24, 48);
	expect_text("spanguard: new-delete-type-mismatch on 0x7f00000100f0 in thread");
	expect_text("  size the program says:    24 bytes;\n  size of what lies there:  48 bytes.\n");
	expect_text("the call was operator delete(void*, size_t)");
	report_of(DIE_SIZE_MISMATCH, "free_sized", 0x7f00000100f0, 24, 48);
	expect_text("spanguard: free-size-mismatch on ");
	report_of(DIE_ALIGN_MISMATCH, "free_aligned_sized", 0x7f00000100f0, 64, 16);
	expect_text("spanguard: free-alignment-mismatch on ");
	expect_text("alignment the program says:    64 bytes");
}

static void
other_codes(void **state)
{
	(void)state;
	heap = slot48;
	report_of(DIE_STALE_POINTER, "realloc", 0x7f00000100f0, 0, 0);
	expect_text("attempting realloc on freed pointer 0x7f00000100f0 in thread");
	report_of(DIE_CORRUPTION, NULL, 0x7f00000100f0, 0, 0);
	expect_text("allocator metadata corrupted [MSPAN-3] at 0x7f00000100f0");
	assert_int_equal(occurrences("the call was"), 0);
	report_of(DIE_VERIFY, "spanguard_verify", 0x7f00000100f0, 0, 0);
	expect_text("heap verification failed [MSPAN-3] at");
	report_of(DIE_OUT_OF_MEMORY, "operator new(size_t)", 0, 1 << 30, 0);
	expect_text("out of memory: operator new(size_t) of 1,073,741,824 bytes in thread");
	assert_int_equal(occurrences("is located"), 0);
	report_of((enum die_code)77, "free", 0x10, 0, 0);
	expect_text("spanguard: error on 0x10");
}

static void
heap_kinds(void **state)
{
	(void)state;
	heap = slot48;
	heap.kind = ADDR_LARGE;
	heap.size_class = 0;
	heap.elem_bytes = 16384;
	heap.slot_base = heap.span_base;
	heap.parked = true;
	report_of(DIE_DOUBLE_FREE, "free", heap.span_base, 0, 0);
	expect_text("0 bytes inside of 16384-byte object [0x7f0000010000,0x7f0000014000) "
	    "(freed; span 0x7f0000010000 of 16384 bytes, scan, in the quarantine, owner thread 123)");
	heap.kind = ADDR_SMALL;
	heap.state = SLOT_TAIL;
	report_of(DIE_INVALID_FREE, "free", 0x7f0000013ff8, 0, 0);
	expect_text("0x7f0000013ff8 lies behind the last slot of its span (span 0x7f0000010000");
	heap.kind = ADDR_HEAP_UNUSED;
	report_of(DIE_INVALID_FREE, "free", 0x7f0000013ff8, 0, 0);
	expect_text(" was never handed out\n");
	heap.kind = ADDR_HEAP_RELEASED;
	heap.elem_bytes = 96;
	report_of(DIE_INVALID_FREE, "free", 0x7f0000013ff8, 0, 0);
	expect_text("objects of 96 bytes lived here last\n");
}

static int data_variable = 1;

static void
foreign(void **state)
{
	char line[64];
	int local = 0;
	(void)state;
	memset(&heap, 0, sizeof(heap));
	char *anon = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(anon != MAP_FAILED);
	report_of(DIE_INVALID_FREE, "free", (uintptr_t)&local, 0, 0);
	snprintf(line, sizeof(line), "\n%p is on the stack of this thread [0x", (void *)&local);
	expect_text(line);
	expect_text("HINT: a local variable");
	report_of(DIE_INVALID_FREE, "free", (uintptr_t)&data_variable, 0, 0);
	expect_text(" is in the .data of /");
	expect_text(" (offset 0x");
	report_of(DIE_INVALID_FREE, "free", (uintptr_t)&heap, 0, 0);
	expect_text(" is in the .bss of /");
	report_of(DIE_INVALID_FREE, "free", (uintptr_t)&foreign, 0, 0);
	expect_text(" is in the code of /");
	report_of(DIE_INVALID_FREE, "free", (uintptr_t)anon, 0, 0);
	expect_text(" is in a foreign anonymous mapping [0x");
	munmap(anon, 4096);
	report_of(DIE_INVALID_FREE, "free", 0x1230, 0, 0);
	expect_text("0x1230 is not mapped\n");
	report_of(DIE_INVALID_FREE, "free", 0x4141414141414140, 0, 0);
	expect_text("0x4141414141414140 is no address that a program can have (non-canonical)\n");
}

/* ---- faults: the room that the reporter sees ----------------------------- */

static struct room_object room;
static bool room_knows;

static bool
room_claim(uintptr_t addr, struct fault_claim *out)
{
	(void)addr;
	(void)out;
	return false;
}

static bool
room_object(uintptr_t addr, struct room_object *out)
{
	(void)addr;
	*out = room;
	return room_knows;
}

static const struct fault_room test_room = { .claim = room_claim, .object = room_object };

static uintptr_t fault_pc;

#if defined(__x86_64__)
static uintptr_t
pc_of(const ucontext_t *uc)
{
	return (uintptr_t)uc->uc_mcontext.gregs[REG_RIP];
}
#else
static uintptr_t
pc_of(const ucontext_t *uc)
{
	return (uintptr_t)uc->uc_mcontext.pc;
}
#endif

/* As fault.c does it, in a handler, of the place that was interrupted. */
static void
on_fault(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)info;
	fault_pc = pc_of(context);
	const struct die_access access = { .write = true, .known = true, .pc = fault_pc,
		.sp = 0x1230, .bp = 0x4560 };
	die(&(struct die_info){ .code = DIE_USE_AFTER_FREE, .site = "quarantine",
	    .addr = 0x7f00000100f0, .access = &access });
}

static NOINLINE void
touch(void *arg)
{
	struct sigaction sa = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
	sigaction(SIGSEGV, &sa, NULL);
	*(volatile char *)arg = 1;
	__asm__ volatile("" : : : "memory");
}

/* The first frame is where the fault was: neither the handler nor the reporter. */
static void
fault_stack(void **state)
{
	(void)state;
	heap = slot48;
	heap.parked = true;
	run_child(touch, (void *)0x5000);
	expect_abort();
	expect_text("==ERROR: spanguard: heap-use-after-free on address 0x7f00000100f0 at pc 0x");
	expect_text(" bp 0x4560 sp 0x1230\nWRITE at 0x7f00000100f0 thread T0 (");
	unsigned long said = strtoul(strstr(got, " at pc ") + 7, NULL, 16);
	unsigned long first = strtoul(strstr(got, "    #0 ") + 7, NULL, 16);
	assert_int_equal(first, said);
	assert_true(first - (uintptr_t)&touch < 512);
	expect_text("in the quarantine");
	expect_text("HINT: the object was freed before this access");
	expect_text("SUMMARY: spanguard: heap-use-after-free (");
}

static void
access_of(enum die_code code, bool known, bool writes)
{
	const struct die_access access = { .known = known, .write = writes,
		.pc = (uintptr_t)&access_of, .sp = 1, .bp = 2 };
	struct die_info info = { .code = code, .site = "guard", .addr = 0x7f0000014004,
		.access = &access };
	run_child(die_with, &info);
	expect_abort();
	assert_int_equal(occurrences("ERROR: spanguard: "), 1);
	assert_int_equal(occurrences("SUMMARY: spanguard: "), 1);
	assert_int_equal(occurrences("the call was"), 0);
}

static void
accesses(void **state)
{
	(void)state;
	heap = slot48;
	heap.state = SLOT_LIVE;
	access_of(DIE_OVERFLOW, true, true);
	expect_text("spanguard: heap-buffer-overflow on address 0x7f0000014004 at pc 0x");
	expect_text("\nWRITE at 0x7f0000014004 thread T0 (");
	expect_text("HINT: an access behind the end of the object, or of one before it");
	access_of(DIE_UNDERFLOW, true, false);
	expect_text("spanguard: heap-buffer-underflow on address 0x7f0000014004");
	expect_text("\nREAD at 0x7f0000014004 thread T0 (");
	expect_text("SUMMARY: spanguard: heap-buffer-underflow");
	access_of(DIE_ZERO_SIZE, false, false);
	expect_text("spanguard: access to a zero-size object on address 0x7f0000014004");
	expect_text("\nACCESS at 0x7f0000014004 thread T0 (");
	expect_text("SUMMARY: spanguard: zero-size-access");
	expect_text("HINT: malloc(0) returns");
}

static void
relations(void **state)
{
	(void)state;
	fault_add_room(&test_room);
	memset(&heap, 0, sizeof(heap));
	room = (struct room_object){ .what = "a test object", .base = 0x7f0000014000,
		.bytes = 100, .live = true };
	room_knows = true;
	access_of(DIE_OVERFLOW, true, true);
	expect_text("0x7f0000014004 is located 4 bytes inside of 100-byte region "
	    "[0x7f0000014000,0x7f0000014064) (a test object, live)\n");
	room.base += 5;
	access_of(DIE_UNDERFLOW, true, true);
	expect_text("0x7f0000014004 is located 1 byte before 100-byte region");
	room.base -= 105;
	access_of(DIE_OVERFLOW, true, true);
	expect_text("0x7f0000014004 is located 4 bytes after 100-byte region");
	room.what = NULL;           /* a guard beside a slot of the heap */
	heap = slot48;
	heap.slot_base = 0x7f0000013fd0;
	access_of(DIE_OVERFLOW, true, true);
	expect_text("0x7f0000014004 is located 4 bytes after 48-byte slot "
	    "[0x7f0000013fd0,0x7f0000014000) (slot 5 of 341, freed; span ");
	room_knows = false;
}

static void
histories(void **state)
{
	const uintptr_t pcs[] = { (uintptr_t)&histories + 4, (uintptr_t)&relations + 4 };
	struct room_trace allocated = { .tid = 77, .frames = 2, .pcs = pcs };
	(void)state;
	memset(&heap, 0, sizeof(heap));
	room = (struct room_object){ .what = "a test object", .base = 0x7f0000014000,
		.bytes = 100, .allocated = allocated, .freed = { .tid = 78 } };
	room_knows = true;
	access_of(DIE_USE_AFTER_FREE, true, true);
	expect_text("(a test object, freed)\nfreed by thread T78 (tid 78) here:\n"
	    "    (the stack was not recorded)\n\n"
	    "previously allocated by thread T77 (tid 77) here:\n    #0 0x");
	expect_frame((uintptr_t)&relations);
	expect_text("HINT: the object was freed, by the first of the two stacks above");
	room.freed.tid = 0;
	room.live = true;
	access_of(DIE_OVERFLOW, true, true);
	expect_text("(a test object, live)\nallocated by thread T77 (tid 77) here:\n");
	expect_text("HINT: an access behind the end of the object that the stack above allocated");
	assert_int_equal(occurrences("freed by"), 0);
	room_knows = false;
}

/* ---- changed bytes ------------------------------------------------------ */

static NOINLINE void
late_report(enum die_code code, const char *api, const struct die_diff *diff)
{
	struct die_info info = { .code = code, .api = api, .site = "zero",
		.addr = 0x7f00000100f0, .diff = diff };
	heap = slot48;
	run_child(die_with, &info);
	expect_abort();
}

static struct die_diff
diff_with(size_t at, const void *found, size_t n)
{
	struct die_diff d = { .base = 0x7f00000100f0, .n = 48, .changed = n };
	memcpy(d.found + at, found, n);
	return d;
}

static void
changed_bytes(void **state)
{
	(void)state;
	struct die_diff d = diff_with(12, "A", 1);
	late_report(DIE_WRITE_AFTER_FREE, "malloc", &d);
	expect_text("write-after-free detected on reuse on address 0x7f00000100f0 in thread T0");
	expect_text("  the call was malloc, the check that fired zero\n");
	expect_text("1 byte changed, by offset from 0x7f00000100f0:\n"
	    "    offset 12: 0x41 (expected 0x00)\n");
	assert_int_equal(occurrences("    offset "), 1);
	assert_int_equal(occurrences("look like text"), 0);
	assert_int_equal(occurrences("exactly one bit"), 0);
	late_report(DIE_WRITE_AFTER_FREE, "verify", &d);
	expect_text("write-after-free detected at verify on address 0x7f00000100f0");
	late_report(DIE_CANARY, "operator delete", &d);
	expect_text("heap-buffer-overflow detected at free on address 0x7f00000100f0");
	expect_text("SUMMARY: spanguard: heap-buffer-overflow (");
	d.base += 40;
	d.n = 8;
	memset(d.found, 0, sizeof(d.found));
	d.found[7] = 0xff;
	d.changed = 500;
	late_report(DIE_CANARY, "free", &d);
	expect_text("500 bytes changed, by offsets from 0x7f00000100f0:\n"
	    "    offset 47: 0xff (expected 0x00)\n    ...\n");
}

static void
all_64_bytes(void **state)
{
	struct die_diff d = { .base = 0x7f00000100f0, .n = 64, .changed = 64 };
	(void)state;
	memset(d.found, 0xee, sizeof(d.found));
	late_report(DIE_WRITE_AFTER_FREE, "calloc", &d);
	assert_int_equal(occurrences("    offset "), 64);
	expect_text("    offset 63: 0xee (expected 0x00)\n");
	assert_int_equal(occurrences("    ...\n"), 0);
	expect_text("the 8 bytes at offset 0 are 0xeeeeeeeeeeeeeeee\n");
}

static void
what_bytes_look_like(void **state)
{
	int64_t small = -3;
	uint64_t code = (uintptr_t)&what_bytes_look_like;
	(void)state;
	struct die_diff d = diff_with(3, "hello, \x01world", 13);
	late_report(DIE_WRITE_AFTER_FREE, "malloc", &d);
	expect_text("  they look like text: \"hello, \"\n");
	d = diff_with(16, &small, sizeof(small));
	late_report(DIE_WRITE_AFTER_FREE, "malloc", &d);
	expect_text("  the 8 bytes at offset 16 are a small integer: -3\n");
	d = diff_with(20, "\x10", 1);
	late_report(DIE_WRITE_AFTER_FREE, "malloc", &d);
	expect_text("  exactly one bit is flipped, bit 4: ");
	d.expected[20] = 0x30;
	late_report(DIE_WRITE_AFTER_FREE, "malloc", &d);
	expect_text("  exactly one bit is flipped, bit 5: ");
	d.found[21] = 1;
	d.changed = 2;
	late_report(DIE_WRITE_AFTER_FREE, "malloc", &d);
	assert_int_equal(occurrences("exactly one bit"), 0);
	d = diff_with(24, &code, sizeof(code));
	late_report(DIE_WRITE_AFTER_FREE, "malloc", &d);
	expect_text("  the 8 bytes at offset 24 are a pointer: 0x");
	expect_text(" is located ");
}

static void
pointer_outside_of_the_heap(void **state)
{
	uint64_t code = (uintptr_t)&pointer_outside_of_the_heap;
	struct die_diff d = diff_with(24, &code, sizeof(code));
	struct die_info info = { .code = DIE_WRITE_AFTER_FREE, .api = "malloc", .site = "zero",
		.addr = 0x7f00000100f0, .diff = &d };
	(void)state;
	memset(&heap, 0, sizeof(heap));
	run_child(die_with, &info);
	expect_abort();
	expect_text("  the 8 bytes at offset 24 are a pointer: 0x");
	expect_text(" is in the code of /");
}

/* ---- going on ----------------------------------------------------------- */

static void *
report_one(void *arg)
{
	for (int i = 0; i < 3; i++)
		report_and_go_on(arg);
	return NULL;
}

static void
many_reports(void *arg)
{
	pthread_t t[3];
	errno = EXDEV;
	for (int i = 0; i < 3; i++)
		pthread_create(&t[i], NULL, report_one, arg);
	report_one(arg);
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	_exit(errno == EXDEV ? 7 : 8);
}

static void
going_on(void **state)
{
	struct die_info info = { .code = DIE_DOUBLE_FREE, .api = "free", .site = "sample",
		.addr = 0x7f00000100f0 };
	(void)state;
	heap = slot48;
	run_child(many_reports, &info);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 7);
	assert_int_equal(occurrences("ERROR: spanguard: attempting double-free on"), 12);
	assert_int_equal(occurrences("==GOING ON\n"), 12);
	assert_int_equal(occurrences("==ABORTING"), 0);
	expect_frame((uintptr_t)&report_one);
}

/* Each place once, however often it comes by; other threads' stacks are other
 * places. */
static NOINLINE void
one_place(void *arg)
{
	for (volatile int i = 0; i < 5; i++)
		complain(arg);
}

static NOINLINE void
two_places(void *arg)
{
	options.halt_on_error = false;
	one_place(arg);
	one_place(arg);
	complain(arg);
	_exit(7);
}

static void
each_place_once(void **state)
{
	struct die_info info = { .code = DIE_DOUBLE_FREE, .api = "free", .site = "slot",
		.addr = 0x7f00000100f0 };
	(void)state;
	heap = slot48;
	run_child(two_places, &info);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 7);
	/* of the two calls of one_place each is a place of its own */
	assert_int_equal(occurrences("ERROR: spanguard: attempting double-free on"), 3);
	assert_int_equal(occurrences("==GOING ON\n"), 3);
	options.halt_on_error = true;
	run_child(one_place, &info);
	expect_abort();
	assert_int_equal(occurrences("==ABORTING\n"), 1);
}

static void turn_left(unsigned way, unsigned turns, void *arg);

/* Each value of `way` has a stack of its own. */
static NOINLINE void
turn_right(unsigned way, unsigned turns, void *arg)
{
	if (turns == 0)
		complain(arg);
	else if ((way & 1) != 0)
		turn_right(way >> 1, turns - 1, arg);
	else
		turn_left(way >> 1, turns - 1, arg);
	__asm__ volatile("# right" : : : "memory");
}

static NOINLINE void
turn_left(unsigned way, unsigned turns, void *arg)
{
	if (turns == 0)
		complain(arg);
	else if ((way & 1) != 0)
		turn_right(way >> 1, turns - 1, arg);
	else
		turn_left(way >> 1, turns - 1, arg);
	__asm__ volatile("# left" : : : "memory");
}

static void
endless_places(void *arg)
{
	int null = open("/dev/null", O_WRONLY);
	int old = dup(2);
	options.halt_on_error = false;
	dup2(null, 2);
	for (unsigned way = 0; way < 2048; way++)
		turn_left(way, 11, arg);
	dup2(old, 2);
	turn_left(0, 9, arg);
	_exit(7);
}

/* A table that is full ends the reports, not the program. */
static void
too_many_places(void **state)
{
	struct die_info info = { .code = DIE_DOUBLE_FREE, .api = "free", .site = "slot",
		.addr = 0x7f00000100f0 };
	(void)state;
	heap = slot48;
	run_child(endless_places, &info);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 7);
	assert_string_equal(got, "");
}

static void
cut_short(void *arg)
{
	(void)arg;
	report_cut_short();         /* no report: nothing happens */
	die(&(struct die_info){ .code = DIE_DOUBLE_FREE, .api = "free", .site = "slot",
	    .addr = 0x7f00000100f0 });
}

/* While the heap is asked: the report is made without its answer. */
static void
expect_report_without_heap(void)
{
	expect_abort();
	assert_int_equal(occurrences("ERROR: spanguard: attempting double-free on"), 1);
	assert_int_equal(occurrences("==ABORTING\n"), 1);
	assert_int_equal(occurrences("another error"), 0);
	assert_int_equal(occurrences("is located"), 0);
	expect_text("HINT: the heap is so corrupted that it does not tell what this address is\n");
}

static void
fault_in_reporter(void **state)
{
	(void)state;
	heap = slot48;
	heap_cuts_short = true;
	run_child(cut_short, NULL);
	heap_cuts_short = false;
	expect_report_without_heap();
}

static void
on_cut_short(int sig)
{
	(void)sig;
	report_cut_short();
}

/* A stack that is not there, with a handler like that of fault.c. */
static void
dies_of_its_stack(void *arg)
{
	struct sigaction sa = { .sa_handler = on_cut_short, .sa_flags = SA_NODEFER };
	sigaction(SIGSEGV, &sa, NULL);
	fault_add_room(&test_room);
	room_knows = true;
	room = (struct room_object){ .kind = ROOM_SAMPLED, .what = "a sampled object", .bytes = 48,
		.base = 0x7f00000100f0, .allocated = { .tid = 1, .frames = 3, .pcs = (void *)16 } };
	die(arg);
}

/* While it is put into words: what there is goes out, with a line that says why. */
static void
fault_in_words(void **state)
{
	struct die_info info = { .code = DIE_DOUBLE_FREE, .api = "free", .site = "slot",
		.addr = 0x7f00000100f0 };
	(void)state;
	heap = slot48;
	run_child(dies_of_its_stack, &info);
	expect_abort();
	assert_int_equal(occurrences("ERROR: spanguard: attempting double-free on"), 1);
	expect_text("0 bytes inside of 48-byte region");
	expect_text("\nspanguard: another error while this was written: a fault\n");
	assert_int_equal(occurrences("==ABORTING\n"), 0);
}

/* ---- what nobody should believe ------------------------------------------- */

static uint64_t chance;

static uint64_t
draw(void)
{
	chance ^= chance << 13;
	chance ^= chance >> 7;
	chance ^= chance << 17;
	return chance;
}

static void
draw_bytes(void *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		((unsigned char *)p)[i] = (unsigned char)(draw() >> 24);
}

static uintptr_t
draw_address(void)
{
	static const uintptr_t ends[] = { 0, 1, 4096, UINTPTR_MAX, UINTPTR_MAX - 7,
		(uintptr_t)1 << 47, (uintptr_t)1 << 63 };
	switch (draw() % 4) {
	case 0: return ends[draw() % ARRAY_LEN(ends)];
	case 1: return (uintptr_t)&draw_address + draw() % 4096;
	case 2: return (uintptr_t)&heap + draw() % 65536;
	default: return (uintptr_t)draw();
	}
}

static uintptr_t drawn_pcs[2][ROOM_FRAMES];

static void
draw_trace(struct room_trace *t, uintptr_t *pcs)
{
	for (size_t i = 0; i < ROOM_FRAMES; i++)
		pcs[i] = draw_address();
	*t = (struct room_trace){ .tid = (int)draw() % 3, .frames = (uint32_t)draw(), .pcs = pcs };
	if (draw() % 2 == 0)
		t->frames %= ROOM_FRAMES + 1;
}

/* What a room and the heap say, as if their memory had been overwritten: numbers
 * are arbitrary; strings are constants of the library. */
static void
draw_heap(void)
{
	static const char *const names[] = { NULL, "malloc", "operator new[]" };
	draw_bytes(&heap, sizeof(heap));
	heap.kind = (enum addr_kind)(draw() % (ADDR_LARGE + 2));
	heap.state = (enum slot_state)(draw() % (SLOT_TAIL + 2));
	heap.noscan = draw() % 2;
	heap.parked = draw() % 2;
	heap.freed_by_other = draw() % 2;
	room_knows = draw() % 2;
	room = (struct room_object){ .kind = (enum room_kind)(draw() % 6),
		.what = draw() % 4 != 0 ? "a sampled object" : NULL, .base = draw_address(),
		.bytes = (size_t)draw(), .live = draw() % 2, .api = names[draw() % 3],
		.free_api = names[draw() % 3], .serial = draw(), .free_serial = draw() };
	draw_trace(&room.allocated, drawn_pcs[0]);
	draw_trace(&room.freed, drawn_pcs[1]);
}

static void
die_of_chance(void *seed)
{
	char path[64] = "/nonexistent/file";
	chance = (uint64_t)(uintptr_t)seed * 0x9e3779b97f4a7c15u | 1;
	draw_heap();
	struct die_diff diff;
	draw_bytes(&diff, sizeof(diff));
	if (draw() % 2 == 0)
		memcpy(diff.expected, diff.found, sizeof(diff.found) / 2);
	const struct die_access access = { .known = draw() % 2, .write = draw() % 2,
		.pc = draw_address(), .sp = draw_address(), .bp = draw_address() };
	const struct die_info info = { .code = (enum die_code)(draw() % (DIE_CODES + 2)),
		.api = draw() % 2 != 0 ? "free" : NULL, .site = draw() % 2 != 0 ? "slot" : NULL,
		.addr = draw_address(), .given = (size_t)draw(), .expected = (size_t)draw(),
		.access = draw() % 2 != 0 ? &access : NULL, .diff = draw() % 2 != 0 ? &diff : NULL };
	log_set_json_path(path);
	die(&info);
}

/* Never a loop, a crash, half a report or a long one. */
static void
arbitrary_metadata(void **state)
{
	(void)state;
	fault_add_room(&test_room);
	for (uintptr_t seed = 1; seed <= 600; seed++) {
		run_child(die_of_chance, (void *)seed);
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT)
			fail_msg("seed %lu: status %d:\n%s", (unsigned long)seed, status, got);
		assert_int_equal(occurrences("ERROR: spanguard: "), 1);
		assert_int_equal(occurrences("==ABORTING\n") +
		    occurrences("...[truncated]\n"), 1);
		assert_int_equal(occurrences("another error"), 0);
		assert_true(strlen(got) < 65536);
	}
	room_knows = false;
}

/* ---- life in a process -------------------------------------------------- */

static struct die_info plain_info = {
	.code = DIE_DOUBLE_FREE, .api = "free", .site = "MSPAN-3", .addr = 0x7f00000100f0,
};

static pthread_barrier_t both;

static void *
die_together(void *arg)
{
	(void)arg;
	pthread_barrier_wait(&both);
	die(&plain_info);
}

static void
two_threads(void *arg)
{
	pthread_t t[4];
	pthread_barrier_init(&both, NULL, 4);
	for (int i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, die_together, NULL);
	pthread_join(t[0], arg);
}

static void
at_once(void **state)
{
	(void)state;
	heap = slot48;
	for (int round = 0; round < 20; round++) {
		run_child(two_threads, NULL);
		expect_abort();
		assert_int_equal(occurrences("ERROR: spanguard"), 1);
		assert_int_equal(occurrences("==ABORTING"), 1);
	}
	assert_int_equal(occurrences("in thread T0"), 0);
}

static void
broken_heap(void *arg)
{
	(void)arg;
	heap_is_broken = true;
	die(&plain_info);
}

static void
error_in_reporter(void **state)
{
	(void)state;
	run_child(broken_heap, NULL);
	expect_report_without_heap();
}

static void
closed_descriptors(void *path)
{
	for (int fd = 0; fd < 64; fd++)
		close(fd);
	log_set_path(path);
	die(&plain_info);
}

static void
log_file(void **state)
{
	char dir[] = "/tmp/test_report.XXXXXX";
	char pattern[64], path[64], want[64];
	(void)state;
	heap = slot48;
	assert_non_null(mkdtemp(dir));
	snprintf(pattern, sizeof(pattern), "%s/log.%%p", dir);
	int fd[2];
	pid_t pid = child_begin(fd);
	if (pid == 0)
		closed_descriptors(pattern);
	child_end(fd, pid);
	expect_abort();
	assert_string_equal(got, "");
	snprintf(path, sizeof(path), "%s/log.%d", dir, (int)pid);
	FILE *f = fopen(path, "r");
	assert_non_null(f);
	size_t n = fread(got, 1, sizeof(got) - 1, f);
	got[n] = 0;
	fclose(f);
	snprintf(want, sizeof(want), "==%d==ERROR: spanguard: attempting double-free", (int)pid);
	expect_text(want);
	unlink(path);
	rmdir(dir);
	/* A file that cannot be made: descriptor 2 gets the report. */
	pid = child_begin(fd);
	if (pid == 0) {
		log_set_path("/nonexistent/dir/file");
		die(&plain_info);
	}
	child_end(fd, pid);
	expect_text("SUMMARY: spanguard: double-free");
}

static void
all_closed(void *arg)
{
	(void)arg;
	for (int fd = 0; fd < 64; fd++)
		close(fd);
	die(&plain_info);
}

static void
no_descriptor(void **state)
{
	(void)state;
	heap = slot48;
	run_child(all_closed, NULL);
	expect_abort();
	assert_string_equal(got, "");
}

static int channel[2];

static void
die_on_channel(void *spec)
{
	log_set_channel(spec);
	die(&plain_info);
}

static void
report_channel(void **state)
{
	char spec[64];
	struct stat st;
	(void)state;
	heap = slot48;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, channel), 0);
	assert_int_equal(fstat(channel[1], &st), 0);
	snprintf(spec, sizeof(spec), "%d:%lu:%lu", channel[1], (unsigned long)st.st_dev,
	    (unsigned long)st.st_ino);
	run_child(die_on_channel, spec);
	expect_abort();
	assert_string_equal(got, "");
	ssize_t n = recv(channel[0], got, sizeof(got) - 1, MSG_DONTWAIT);
	assert_true(n > 0);
	got[n] = 0;
	expect_text("SUMMARY: spanguard: double-free");
	/* The number now belongs to something else: it gets nothing. */
	snprintf(spec, sizeof(spec), "%d:%lu:%lu", channel[1], (unsigned long)st.st_dev,
	    (unsigned long)st.st_ino + 1);
	run_child(die_on_channel, spec);
	expect_text("SUMMARY: spanguard: double-free");
	assert_int_equal(recv(channel[0], got, sizeof(got) - 1, MSG_DONTWAIT), -1);
	close(channel[0]);
	close(channel[1]);
}

static sigjmp_buf back;

static void
leave(int sig)
{
	(void)sig;
	siglongjmp(back, 1);
}

static void
handled(void *arg)
{
	volatile int *left = arg;
	struct sigaction sa;
	memset(&sa, 0, sizeof(sa));
	sa.sa_handler = leave;
	sigaction(SIGABRT, &sa, NULL);
	sigset_t all;
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	if (sigsetjmp(back, 1) == 0)
		die(&plain_info);
	if (++*left < 3 && sigsetjmp(back, 1) == 0)
		die(&plain_info);
	if (strstr(spanguard_report, "attempting double-free") == NULL)
		_exit(3);
	_exit(42);
}

static void
program_handler(void **state)
{
	int left = 0;
	(void)state;
	heap = slot48;
	run_child(handled, &left);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 42);
	assert_int_equal(occurrences("==ABORTING"), 2);
	assert_int_equal(occurrences("another error"), 0);
}

static void
returns(int sig)
{
	(void)sig;
}

static void
returning(void *arg)
{
	(void)arg;
	signal(SIGABRT, returns);
	die(&plain_info);
}

static void
handler_that_returns(void **state)
{
	(void)state;
	run_child(returning, NULL);
	expect_abort();
	assert_int_equal(occurrences("==ABORTING"), 1);
}

static void *
NOINLINE die_here(void *arg)
{
	die(arg);
}

static void
small(void *arg)
{
	pthread_t t;
	pthread_attr_t a;
	pthread_attr_init(&a);
	pthread_attr_setstacksize(&a, 65536);
	pthread_create(&t, &a, die_here, arg);
	pthread_join(t, NULL);
}

static void
small_stack(void **state)
{
	(void)state;
	heap = slot48;
	run_child(small, &plain_info);
	expect_abort();
	assert_int_equal(occurrences("==ABORTING"), 1);
	assert_int_equal(occurrences("in thread T0"), 0);
	expect_frame((uintptr_t)&die_here);
}

static void
NOINLINE die_in_handler(int sig)
{
	(void)sig;
	die(&plain_info);
}

static void
NOINLINE signalled(void *arg)
{
	(void)arg;
	signal(SIGUSR1, die_in_handler);
	raise(SIGUSR1);
	__asm__ volatile("" : : : "memory");   /* no tail call */
}

static void
in_signal_handler(void **state)
{
	(void)state;
	run_child(signalled, NULL);
	expect_abort();
	expect_frame((uintptr_t)&die_in_handler);
	expect_frame((uintptr_t)&signalled);
}

static void
warns(void *arg)
{
	(void)arg;
	errno = EXDEV;
	report_warn("guards: ", "budget", " spent", NULL);
	_exit(errno == EXDEV ? 7 : 8);
}

static void
warning(void **state)
{
	(void)state;
	run_child(warns, NULL);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 7);
	assert_string_equal(got, "spanguard: warning: guards: budget spent\n");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(double_free),
		cmocka_unit_test(frames),
		cmocka_unit_test(interior),
		cmocka_unit_test(mismatches),
		cmocka_unit_test(other_codes),
		cmocka_unit_test(heap_kinds),
		cmocka_unit_test(foreign),
		cmocka_unit_test(fault_stack),
		cmocka_unit_test(accesses),
		cmocka_unit_test(relations),
		cmocka_unit_test(histories),
		cmocka_unit_test(changed_bytes),
		cmocka_unit_test(all_64_bytes),
		cmocka_unit_test(what_bytes_look_like),
		cmocka_unit_test(pointer_outside_of_the_heap),
		cmocka_unit_test(going_on),
		cmocka_unit_test(each_place_once),
		cmocka_unit_test(too_many_places),
		cmocka_unit_test(arbitrary_metadata),
		cmocka_unit_test(fault_in_reporter),
		cmocka_unit_test(fault_in_words),
		cmocka_unit_test(at_once),
		cmocka_unit_test(error_in_reporter),
		cmocka_unit_test(log_file),
		cmocka_unit_test(no_descriptor),
		cmocka_unit_test(report_channel),
		cmocka_unit_test(program_handler),
		cmocka_unit_test(handler_that_returns),
		cmocka_unit_test(small_stack),
		cmocka_unit_test(in_signal_handler),
		cmocka_unit_test(warning),
	};
	options.halt_on_error = true;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
