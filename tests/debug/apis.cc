/* apis.cc - loses one object of each function that makes one; the size tells which. With
 * a number, frees an object by that function of those that do, and writes to it. */
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

/* Not declared by the C library's headers yet. */
extern "C" void free_sized(void *, std::size_t) __attribute__((weak));
extern "C" void free_aligned_sized(void *, std::size_t, std::size_t) __attribute__((weak));

static void __attribute__((noinline))
free_by(int which)
{
	const std::align_val_t at = std::align_val_t(64);
	const bool aligned = which >= 8, array = which % 2 != 0;
	char *volatile p = (char *)(which < 4 ? malloc(100) :
	    aligned ? array ? ::operator new[](100, at) : ::operator new(100, at) :
	    array ? ::operator new[](100) : ::operator new(100));
	if (which == 3)
		p = (char *)aligned_alloc(64, 100);
	switch (which) {
	case 0: free(p); break;
	case 1: p = (char *)(sink = p, realloc(p, 0)); break;
	case 2: free_sized(p, 100); break;
	case 3: free_aligned_sized(p, 64, 100); break;
	case 4: ::operator delete(p); break;
	case 5: ::operator delete[](p); break;
	case 6: ::operator delete(p, 100); break;
	case 7: ::operator delete[](p, 100); break;
	case 8: ::operator delete(p, at); break;
	case 9: ::operator delete[](p, at); break;
	case 10: ::operator delete(p, 100, at); break;
	case 11: ::operator delete[](p, 100, at); break;
	case 12: ::operator delete(p, at, std::nothrow); break;
	case 13: ::operator delete[](p, at, std::nothrow); break;
	}
	(p != nullptr ? p : (char *)sink)[50] = 1;
}

int
main(int argc, char **argv)
{
	if (argc > 1) {
		free_by(atoi(argv[1]));
		return 0;
	}
	from_c();
	from_cxx();
	sink = nullptr;
}
