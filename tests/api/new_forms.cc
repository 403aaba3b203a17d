/* Every operator new gives an aligned address of its own, also for no bytes; every
 * operator delete takes what its new gave; all take a null pointer. */
#include "api.h"

#include <new>

static const std::align_val_t A64{64};

static void
check(void *p, std::size_t bytes, std::size_t align)
{
	CHECK(p != nullptr && is_aligned(p, align) && is_aligned(p, MALLOC_ALIGNMENT));
	fill(p, bytes, 1);
}

static void
check_plain(std::size_t n)
{
	void *p[8];

	p[0] = ::operator new(n);
	p[1] = ::operator new(n, std::nothrow);
	p[2] = ::operator new(n);
	p[3] = ::operator new(n);
	p[4] = ::operator new[](n);
	p[5] = ::operator new[](n, std::nothrow);
	p[6] = ::operator new[](n);
	p[7] = ::operator new[](n);
	for (int i = 0; i < 8; i++) {
		check(p[i], n, 16);
		for (int j = 0; j < i; j++)
			CHECK(p[i] != p[j]);
	}
	::operator delete(p[0]);
	::operator delete(p[1]);
	::operator delete(p[2], n);
	::operator delete(p[3], std::nothrow);
	::operator delete[](p[4]);
	::operator delete[](p[5]);
	::operator delete[](p[6], n);
	::operator delete[](p[7], std::nothrow);
}

static void
check_aligned(std::size_t n, std::size_t align)
{
	const std::align_val_t a{align};
	void *p[8];

	p[0] = ::operator new(n, a);
	p[1] = ::operator new(n, a, std::nothrow);
	p[2] = ::operator new(n, a);
	p[3] = ::operator new(n, a);
	p[4] = ::operator new[](n, a);
	p[5] = ::operator new[](n, a, std::nothrow);
	p[6] = ::operator new[](n, a);
	p[7] = ::operator new[](n, a);
	for (int i = 0; i < 8; i++) {
		check(p[i], n, align);
		for (int j = 0; j < i; j++)
			CHECK(p[i] != p[j]);
	}
	::operator delete(p[0], a);
	::operator delete(p[1], a, std::nothrow);
	::operator delete(p[2], n, a);
	::operator delete(p[3], a);
	::operator delete[](p[4], a);
	::operator delete[](p[5], a, std::nothrow);
	::operator delete[](p[6], n, a);
	::operator delete[](p[7], a);
}

static void
check_null()
{
	::operator delete(nullptr);
	::operator delete(nullptr, std::size_t(8));
	::operator delete(nullptr, std::nothrow);
	::operator delete(nullptr, A64);
	::operator delete(nullptr, A64, std::nothrow);
	::operator delete(nullptr, std::size_t(8), A64);
	::operator delete[](nullptr);
	::operator delete[](nullptr, std::size_t(8));
	::operator delete[](nullptr, std::nothrow);
	::operator delete[](nullptr, A64);
	::operator delete[](nullptr, A64, std::nothrow);
	::operator delete[](nullptr, std::size_t(8), A64);
}

int
main()
{
	for (std::size_t n = 0; n <= 3000; n++)
		check_plain(n);
	for (std::size_t n = 3000; n <= std::size_t(8) << 20; n = n * 3 / 2)
		check_plain(n);
	for (std::size_t align = 1; align <= std::size_t(1) << 20; align *= 2)
		for (std::size_t n = 0; n <= 100000; n = n * 2 + 1)
			check_aligned(n, align);
	check_null();
	return 0;
}
