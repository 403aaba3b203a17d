/* apis.cc - loses one object of each function that makes one; the size tells which. */
#include <cstdlib>
#include <cstring>
#include <malloc.h>
#include <new>

struct alignas(64) wide { char c[64]; };
static void *volatile sink;

static void __attribute__((noinline))
from_c()
{
	void *volatile none = nullptr;
	void *p = none;
	sink = malloc(10);
	sink = calloc(1, 11);
	sink = calloc(1, 111111);
	sink = realloc(none, 12);
	sink = reallocarray(none, 1, 13);
	if (posix_memalign(&p, 64, 14) == 0)
		sink = p;
	sink = aligned_alloc(32, 15);
	sink = memalign(32, 16);
	sink = valloc(17);
	sink = pvalloc(18);
	sink = strdup("nineteen characters");
}

static void __attribute__((noinline))
from_cxx()
{
	sink = new char[30];
	sink = ::operator new(31);
	sink = new (std::nothrow) char[32];
	sink = ::operator new(33, std::nothrow);
	sink = ::operator new(34, std::align_val_t(64));
	sink = ::operator new[](35, std::align_val_t(64));
	sink = ::operator new(36, std::align_val_t(64), std::nothrow);
	sink = ::operator new[](37, std::align_val_t(64), std::nothrow);
}

int
main()
{
	from_c();
	from_cxx();
	sink = nullptr;
}
