/* No two of free, delete and delete[] are one function: tools that replace them
 * by address would see mismatches that are not there. */
#include "api.h"

int
main()
{
	static const char *const names[] = {
		"malloc", "_Znwm", "_Znam", "_ZnwmRKSt9nothrow_t", "_ZnamRKSt9nothrow_t",
		"_ZnwmSt11align_val_t", "_ZnamSt11align_val_t", "_ZnwmSt11align_val_tRKSt9nothrow_t",
		"_ZnamSt11align_val_tRKSt9nothrow_t", "free", "_ZdlPv", "_ZdaPv",
		"_ZdlPvRKSt9nothrow_t", "_ZdaPvRKSt9nothrow_t", "_ZdlPvm", "_ZdaPvm",
		"_ZdlPvSt11align_val_t", "_ZdaPvSt11align_val_t", "_ZdlPvSt11align_val_tRKSt9nothrow_t",
		"_ZdaPvSt11align_val_tRKSt9nothrow_t", "_ZdlPvmSt11align_val_t",
		"_ZdaPvmSt11align_val_t",
	};
	void *address[COUNT_OF(names)];

	/* so that the C++ runtime is there even where all is our own */
	delete new int;
	for (size_t i = 0; i < COUNT_OF(names); i++) {
		address[i] = dlsym(RTLD_DEFAULT, names[i]);
		if (address[i] == nullptr)
			dprintf(2, "%s is not there\n", names[i]);
		CHECK(address[i] != nullptr);
		for (size_t j = 0; j < i; j++) {
			if (address[i] == address[j])
				dprintf(2, "%s is %s\n", names[i], names[j]);
			CHECK(address[i] != address[j]);
		}
	}
	if (!is_preloaded())
		return 0;
	Dl_info ours, info;
	CHECK(dladdr(address[0], &ours) != 0);
	for (size_t i = 0; i < COUNT_OF(names); i++) {
		CHECK(dladdr(address[i], &info) != 0);
		if (strcmp(info.dli_fname, ours.dli_fname) != 0)
			dprintf(2, "%s is of %s\n", names[i], info.dli_fname);
		CHECK(strcmp(info.dli_fname, ours.dli_fname) == 0);
	}
	return 0;
}
