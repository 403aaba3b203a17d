/* New and delete expressions: objects, arrays with a count in front of them, types
 * with more than the usual alignment, constructors that throw. */
#include "api.h"

#include <memory>
#include <new>

static int alive;

struct Counted {
	char bytes[24];
	Counted() { alive++; }
	~Counted() { alive--; }
};

struct alignas(128) Wide {
	char bytes[200];
	Wide() { alive++; CHECK(is_aligned(this, 128)); }
	~Wide() { alive--; }
};

struct Base {
	virtual ~Base() { alive--; }
	Base() { alive++; }
};

struct Derived : Base {
	char bytes[1000];
	Derived() { fill(bytes, sizeof(bytes), 1); }
};

struct ThrowsAt {
	static int countdown;
	long value;
	ThrowsAt() : value(0)
	{
		if (--countdown == 0)
			throw 42;
		alive++;
	}
	~ThrowsAt() { alive--; }
};

int ThrowsAt::countdown;

struct alignas(4096) WideThrows : ThrowsAt {
};

template<typename T> static void
check_constructor_throws(int at)
{
	int caught = 0;

	ThrowsAt::countdown = at;
	try {
		delete[] new T[100];
	} catch (int what) {
		caught = what;
	}
	CHECK(caught == (at <= 100 ? 42 : 0));
	CHECK(alive == 0);
}

int
main()
{
	for (int round = 0; round < 200; round++) {
		delete new Counted;
		delete[] new Counted[std::size_t(round)];
		delete new Wide;
		delete[] new Wide[std::size_t(round % 20)];
		Base *b = new Derived;
		delete b;
		delete[] new char[std::size_t(round) * 100];
		delete[] new (std::nothrow) Counted[7];
		delete new (std::nothrow) Wide;
		CHECK(alive == 0);
	}
	for (int at = 1; at <= 101; at += 10) {
		check_constructor_throws<ThrowsAt>(at);
		check_constructor_throws<WideThrows>(at);
	}
	{
		auto shared = std::make_shared<Wide>();
		auto unique = std::make_unique<Counted[]>(33);
		CHECK(alive == 34 && is_aligned(shared.get(), 128));
	}
	CHECK(alive == 0);
	return 0;
}
