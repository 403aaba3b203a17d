/* exit_order.c - freeing and allocating on the way out: atexit handlers,
 * destructors of the program and of a module, and the very last destructor. */
#include "check.h"
#include <dlfcn.h>

static void *kept[6];

static void
use(int i)
{
	check(key_holds(kept[i], 5000, (unsigned)i));
	free(kept[i]);
	churn((unsigned)i, 200);
}

static void
handler_one(void)
{
	use(0);
	say("atexit 1\n");
}

static void
handler_two(void)
{
	use(1);
	say("atexit 2\n");
	check(atexit(handler_one) == 0);
}

static void
on_exit_handler(int status, void *arg)
{
	(void)status;
	check(arg == kept[2]);
	use(2);
	say("on_exit\n");
}

__attribute__((destructor)) static void
end(void)
{
	use(3);
	say("destructor\n");
}

/* The lowest number runs last of all the program's destructors. */
__attribute__((destructor(101))) static void
end_last(void)
{
	use(4);
	say("last destructor\n");
}

int
main(int argc, char **argv)
{
	for (unsigned i = 0; i < 6; i++) {
		kept[i] = malloc(5000);
		check(kept[i] != NULL);
		key_fill(kept[i], 5000, i);
	}
	check(argc == 2);
	void *module = dlopen(argv[1], RTLD_NOW);
	check(module != NULL);
	void (*keep)(void *) = (void (*)(void *))dlsym(module, "module_keep");
	check(keep != NULL);
	keep(kept[5]);
	check(on_exit(on_exit_handler, kept[2]) == 0);
	check(atexit(handler_two) == 0);
	exit(0);
}
