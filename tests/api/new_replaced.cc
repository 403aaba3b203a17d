/* A program replaces operator new and delete, plain and aligned, and nothing else:
 * all the other forms end in its own. Its pointers are not malloc's: they lie
 * 64 bytes into a block, and a free of one by anybody else would be an error. */
#include "api.h"

#include <map>
#include <new>
#include <string>

/* That the sized forms are missing is what this is about. */
#pragma GCC diagnostic ignored "-Wsized-deallocation"

static long news, deletes;
static bool refuse;

static void *
take(std::size_t n, std::size_t align)
{
	void *p = nullptr;

	if (refuse)
		throw std::bad_alloc();
	if (align < 64)
		align = 64;
	CHECK(posix_memalign(&p, align, n + align) == 0);
	news++;
	static_cast<std::size_t *>(p)[0] = align;
	return static_cast<char *>(p) + align;
}

static void
give(void *p, std::size_t align)
{
	if (p == nullptr)
		return;
	if (align < 64)
		align = 64;
	char *block = static_cast<char *>(p) - align;
	CHECK(*reinterpret_cast<std::size_t *>(block) == align);
	*reinterpret_cast<std::size_t *>(block) = 0;
	deletes++;
	free(block);
}

void *
operator new(std::size_t n)
{
	return take(n, 64);
}

void *
operator new(std::size_t n, std::align_val_t align)
{
	return take(n, std::size_t(align));
}

void
operator delete(void *p) noexcept
{
	give(p, 64);
}

void
operator delete(void *p, std::align_val_t align) noexcept
{
	give(p, std::size_t(align));
}

/* The forms of new, each with the forms of delete that go with it. */
static void *
allocate(int form, std::size_t n, std::align_val_t a)
{
	switch (form) {
	case 0: return ::operator new(n);
	case 1: return ::operator new(n, std::nothrow);
	case 2: return ::operator new[](n);
	case 3: return ::operator new[](n, std::nothrow);
	case 4: return ::operator new(n, a);
	case 5: return ::operator new(n, a, std::nothrow);
	case 6: return ::operator new[](n, a);
	default: return ::operator new[](n, a, std::nothrow);
	}
}

static void
release(int form, int way, void *p, std::size_t n, std::align_val_t a)
{
	switch (form / 2 * 3 + way) {
	case 0: ::operator delete(p); break;
	case 1: ::operator delete(p, n); break;
	case 2: ::operator delete(p, std::nothrow); break;
	case 3: ::operator delete[](p); break;
	case 4: ::operator delete[](p, n); break;
	case 5: ::operator delete[](p, std::nothrow); break;
	case 6: ::operator delete(p, a); break;
	case 7: ::operator delete(p, n, a); break;
	case 8: ::operator delete(p, a, std::nothrow); break;
	case 9: ::operator delete[](p, a); break;
	case 10: ::operator delete[](p, n, a); break;
	case 11: ::operator delete[](p, a, std::nothrow); break;
	}
}

static void
check_form(int form, int way)
{
	const std::align_val_t a{256};
	long news_before = news, deletes_before = deletes;
	void *p = allocate(form, 100, a);

	CHECK(p != nullptr && news == news_before + 1);
	fill(p, 100, 1);
	release(form, way, p, 100, a);
	CHECK(deletes == deletes_before + 1);

	refuse = true;
	bool thrown = false;
	p = nullptr;
	try {
		p = allocate(form, 100, a);
	} catch (const std::bad_alloc &) {
		thrown = true;
	}
	refuse = false;
	CHECK(p == nullptr && thrown == (form % 2 == 0));
}

int
main()
{
	for (int form = 0; form < 8; form++)
		for (int way = 0; way < 3; way++)
			check_form(form, way);
	/* what libstdc++ does in the name of the program */
	long before = news;
	{
		std::map<std::string, int> m;
		for (int i = 0; i < 1000; i++)
			m["a key that is too long for the small buffer " + std::to_string(i)] = i;
		CHECK(m.size() == 1000);
	}
	CHECK(news >= before + 2000);
	return 0;
}
