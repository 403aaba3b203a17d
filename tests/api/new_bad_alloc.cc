/* Without memory: std::bad_alloc from the throwing forms, NULL from the nothrow
 * ones, std::bad_array_new_length for a length that no array has. */
#include "api.h"

#include <new>
#include <string>
#include <vector>

template<typename F> static bool
throws_bad_alloc(F f)
{
	try {
		(void)f();
	} catch (const std::bad_array_new_length &) {
		return false;
	} catch (const std::bad_alloc &e) {
		CHECK(e.what() != nullptr);
		return true;
	}
	return false;
}

template<typename F> static bool
throws_bad_length(F f)
{
	try {
		(void)f();
	} catch (const std::bad_array_new_length &) {
		return true;
	}
	return false;
}

static void
check_size(std::size_t n)
{
	CHECK(throws_bad_alloc([=] { return ::operator new(n); }));
	CHECK(throws_bad_alloc([=] { return ::operator new[](n); }));
	CHECK(::operator new(n, std::nothrow) == nullptr);
	CHECK(::operator new[](n, std::nothrow) == nullptr);
	for (std::size_t align = 8; align <= 65536; align *= 8) {
		/* libstdc++ 12 rounds such a size up past zero and serves it */
		if (n > SIZE_MAX - align && !is_preloaded())
			continue;
		const std::align_val_t a{align};
		CHECK(throws_bad_alloc([=] { return ::operator new(n, a); }));
		CHECK(throws_bad_alloc([=] { return ::operator new[](n, a); }));
		CHECK(::operator new(n, a, std::nothrow) == nullptr);
		CHECK(::operator new[](n, a, std::nothrow) == nullptr);
	}
}

/* Local objects are destroyed on the way of the exception. */
struct Scope {
	int *count;
	explicit Scope(int *c) : count(c) {}
	~Scope() { ++*count; }
};

static void *
deep(int depth, int *unwound)
{
	Scope scope(unwound);

	if (depth == 0)
		return ::operator new(opaque(PTRDIFF_MAX));
	return deep(depth - 1, unwound);
}

int
main()
{
	int unwound = 0;

	for (unsigned i = 0; impossible(i) != 0; i++)
		check_size(impossible(i));
	CHECK(throws_bad_alloc([&] { return deep(20, &unwound); }));
	CHECK(unwound == 21);

	CHECK(throws_bad_length([] { return new int[opaque(SIZE_MAX / 2)]; }));
	/* gcc leaves the length of an array of char to operator new[] */
	auto chars = [] { return new char[opaque(SIZE_MAX)]; };
	CHECK(throws_bad_alloc(chars) || throws_bad_length(chars));
	CHECK(throws_bad_length([] {
		volatile long minus = -1;
		return new int[std::size_t(minus)];
	}));
	CHECK(throws_bad_alloc([] { return new int[opaque(PTRDIFF_MAX) / 4 - 16]; }));

	std::vector<long> v(10, 7);
	CHECK(throws_bad_alloc([&] { v.reserve(v.max_size()); return 0; }));
	CHECK(v.size() == 10 && v[9] == 7);
	std::string s("text");
	CHECK(throws_bad_alloc([&] { s.reserve(s.max_size() / 2); return 0; }));
	CHECK(s == "text");
	return 0;
}
