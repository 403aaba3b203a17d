/* export_bound.c - tells the spanguard command whether the program's malloc is ours.
 *
 * A preload can fail without a word: an executable that defines malloc itself, or
 * another library before ours in the list, keeps its own. The command waits for
 * this line and says so when it does not come, or when it says "elsewhere".
 *
 * The name is looked up as every other module does it, through the global offset
 * table. In a program that is not position independent the answer may be a stub in
 * the program itself; then an object tells where it leads. */
#include <malloc.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "log.h"
#include "mlookup.h"
#include "procmap.h"
#include "../hardening/hooks.h"

/* By the linker: our first and last byte. */
extern const char __ehdr_start[] __attribute__((visibility("hidden")));
extern const char _end[] __attribute__((visibility("hidden")));

static bool
is_our_object(const void *p)
{
	struct addr_info info;
	struct room_object object;
	heap_describe((uintptr_t)p, &info);
	return info.kind != ADDR_FOREIGN || hook_object((uintptr_t)p, &object);
}

static bool
leads_here(uintptr_t symbol)
{
	if (symbol - (uintptr_t)__ehdr_start < (uintptr_t)(_end - __ehdr_start))
		return true;
	void *p = malloc(1);
	bool ours = p == NULL || is_our_object(p);
	free(p);
	return ours;
}

__attribute__((constructor(102))) static void
tell_command(void)
{
	static struct module owner;
	char text[1024];
	struct print p;
	void *(*volatile symbol)(size_t) = malloc;
	bool ours = log_has_command() && leads_here((uintptr_t)symbol);
	if (!log_has_command())
		return;
	print_init(&p, text, sizeof(text));
	print_str(&p, ours ? "spanguard-hello bound " : "spanguard-hello elsewhere ");
	print_dec(&p, (uint64_t)syscall(SYS_getpid));
	if (!ours && procmap_module((uintptr_t)symbol, &owner)) {
		print_char(&p, ' ');
		print_quoted(&p, owner.path, PROCMAP_PATH_BYTES);
	}
	print_char(&p, '\n');
	log_tell_command(&p);
}
