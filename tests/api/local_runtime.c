/* A C program loads a C++ plug-in that nobody else can see (RTLD_LOCAL): operator
 * new must still find the runtime when memory runs out. argv[1]: the plug-in. */
#include "api.h"

int
main(int argc, char **argv)
{
	CHECK(argc == 2);
	CHECK(dlsym(RTLD_DEFAULT, "_ZSt15get_new_handlerv") == NULL);
	for (int round = 0; round < 2; round++) {
		void *plugin = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
		if (plugin == NULL)
			dprintf(2, "%s\n", dlerror());
		CHECK(plugin != NULL);
		void *symbol = dlsym(plugin, "plugin_run");
		int (*run)(void);
		CHECK(symbol != NULL);
		memcpy(&run, &symbol, sizeof(symbol));
		CHECK(run() == 0);
		dlclose(plugin);
	}
	return 0;
}
