/* The whole family comes from one file: a function left to libc would hand out
 * or take pointers of another allocator. */
#include "api.h"

static const char *
file_of(const char *name)
{
	void *symbol = dlsym(RTLD_DEFAULT, name);
	Dl_info info;

	if (symbol == NULL)
		dprintf(2, "%s is not there\n", name);
	CHECK(symbol != NULL);
	CHECK(dladdr(symbol, &info) != 0);
	return info.dli_fname;
}

int
main(void)
{
	static const char *const names[] = {
		"calloc", "realloc", "free", "reallocarray", "posix_memalign", "aligned_alloc",
		"memalign", "valloc", "pvalloc", "malloc_usable_size", "malloc_trim", "mallopt",
		"mallinfo", "mallinfo2", "malloc_info", "malloc_stats",
	};
	const char *want = file_of("malloc");

	for (size_t i = 0; i < COUNT_OF(names); i++) {
		const char *is = file_of(names[i]);
		if (strcmp(is, want) != 0)
			dprintf(2, "%s is of %s, malloc of %s\n", names[i], is, want);
		CHECK(strcmp(is, want) == 0);
	}
	return 0;
}
