/* The plug-in of local_runtime.c: every failure has to arrive as an exception. */
#include "api.h"

#include <new>
#include <string>

static int calls;

static void
throw_it()
{
	calls++;
	throw std::bad_alloc();
}

template<typename F> static bool
throws_bad_alloc(F f)
{
	try {
		(void)f();
	} catch (const std::bad_alloc &) {
		return true;
	}
	return false;
}

extern "C" int
plugin_run()
{
	const std::size_t n = opaque(PTRDIFF_MAX);
	const std::align_val_t a{512};

	calls = 0;
	CHECK(throws_bad_alloc([=] { return ::operator new(n); }));
	CHECK(throws_bad_alloc([=] { return ::operator new[](n, a); }));
	CHECK(::operator new(n, std::nothrow) == nullptr);
	std::set_new_handler(throw_it);
	CHECK(throws_bad_alloc([=] { return ::operator new(n); }));
	CHECK(throws_bad_alloc([=] { return ::operator new[](n, a); }));
	CHECK(calls == 2);
	CHECK(::operator new(n, std::nothrow) == nullptr);
	CHECK(::operator new[](n, std::nothrow) == nullptr);
	CHECK(::operator new(n, a, std::nothrow) == nullptr);
	CHECK(::operator new[](n, a, std::nothrow) == nullptr);
	CHECK(calls == 6);
	std::set_new_handler(nullptr);
	std::string s(1000, 'x');
	CHECK(s.size() == 1000);
	return 0;
}
