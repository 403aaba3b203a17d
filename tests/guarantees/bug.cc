// bug.cc - the bugs of bug.h in C++: operator new and delete, the sized and the
// aligned delete.
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <new>

static const char *zero_api();
static void *get(size_t n);
static void put(void *p);
static void *get_zero();
static void put_sized(void *p, size_t size, size_t align);

static size_t
align_16(size_t n)
{
	return n & ~static_cast<size_t>(15);
}

#include "bug.h"

static void *
get(size_t n)
{
	return ::operator new(n);
}

static void
put(void *p)
{
	::operator delete(p);
}

static const char *
zero_api()
{
	return variant;
}

static void *
get_zero()
{
	if (strncmp(zero_api(), "new-array", 9) == 0)
		return ::operator new[](0);
	return ::operator new(0);
}

static void
put_sized(void *p, size_t size, size_t align)
{
	if (align != 0)
		::operator delete(p, size, std::align_val_t(align));
	else
		::operator delete(p, size);
}
