/* The new-handler: called until the allocation succeeds, or there is no handler,
 * or it throws; by all forms; the nothrow ones turn what it throws into NULL. */
#include "api.h"

#include <new>
#include <sys/resource.h>
#include <sys/wait.h>

static int calls;
static const std::align_val_t A{256};

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

static void
give_up_after_three()
{
	if (++calls == 3)
		std::set_new_handler(nullptr);
}

static void
throw_at_third()
{
	if (++calls == 3)
		throw std::bad_alloc();
}

struct Custom : std::bad_alloc {
};

static void
throw_custom()
{
	calls++;
	throw Custom();
}

static void
lift_limit()
{
	struct rlimit limit;

	if (++calls < 3)
		return;
	CHECK(getrlimit(RLIMIT_AS, &limit) == 0);
	limit.rlim_cur = limit.rlim_max;
	CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
}

/* All eight forms on a size that cannot be had, with the handler set anew. */
static void
check_handler(std::new_handler handler, std::size_t n, int want_calls)
{
	for (int form = 0; form < 8; form++) {
		void *p = &calls;
		bool thrown = false, aligned = form % 4 >= 2;
		/* libstdc++ 12 rounds such a size up past zero and serves it */
		if (aligned && n > SIZE_MAX - 256 && !is_preloaded())
			continue;
		calls = 0;
		std::set_new_handler(handler);
		switch (form) {
		case 0: thrown = throws_bad_alloc([=] { return ::operator new(n); }); break;
		case 1: thrown = throws_bad_alloc([=] { return ::operator new[](n); }); break;
		case 2: thrown = throws_bad_alloc([=] { return ::operator new(n, A); }); break;
		case 3: thrown = throws_bad_alloc([=] { return ::operator new[](n, A); }); break;
		case 4: p = ::operator new(n, std::nothrow); break;
		case 5: p = ::operator new[](n, std::nothrow); break;
		case 6: p = ::operator new(n, A, std::nothrow); break;
		case 7: p = ::operator new[](n, A, std::nothrow); break;
		}
		if (form < 4)
			CHECK(thrown);
		else
			CHECK(p == nullptr);
		CHECK(calls == want_calls);
	}
	std::set_new_handler(nullptr);
}

/* A handler that makes room: here, by lifting a limit. */
static void
check_room(int form)
{
	const std::size_t n = std::size_t(2) << 30;
	struct rlimit limit;
	void *p = nullptr;

	CHECK(getrlimit(RLIMIT_AS, &limit) == 0);
	limit.rlim_cur = std::size_t(1) << 30;
	CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
	calls = 0;
	std::set_new_handler(lift_limit);
	switch (form) {
	case 0: p = ::operator new(n); break;
	case 1: p = ::operator new[](n); break;
	case 2: p = ::operator new(n, A); break;
	case 3: p = ::operator new[](n, A); break;
	case 4: p = ::operator new(n, std::nothrow); break;
	case 5: p = ::operator new[](n, std::nothrow); break;
	case 6: p = ::operator new(n, A, std::nothrow); break;
	case 7: p = ::operator new[](n, A, std::nothrow); break;
	}
	CHECK(p != nullptr);
	CHECK(calls >= 3);
	static_cast<char *>(p)[n - 1] = 1;
	switch (form) {
	case 0: case 4: ::operator delete(p); break;
	case 1: case 5: ::operator delete[](p); break;
	case 2: case 6: ::operator delete(p, A); break;
	case 3: case 7: ::operator delete[](p, A); break;
	}
	std::set_new_handler(nullptr);
}

/* The exception that arrives is the one that the handler threw. */
static void
check_custom()
{
	bool custom = false;

	calls = 0;
	std::set_new_handler(throw_custom);
	try {
		(void)::operator new(opaque(PTRDIFF_MAX));
	} catch (const Custom &) {
		custom = true;
	}
	std::set_new_handler(nullptr);
	CHECK(custom && calls == 1);
}

int
main()
{
	for (unsigned i = 0; impossible(i) != 0; i++) {
		check_handler(nullptr, impossible(i), 0);
		check_handler(throw_custom, impossible(i), 1);
		check_handler(throw_at_third, impossible(i), 3);
		check_handler(give_up_after_three, impossible(i), 3);
	}
	check_custom();
	/* each in a process of its own: address space once had may be kept */
	for (int form = 0; form < 8; form++) {
		int status;
		pid_t child = fork();
		if (child == 0) {
			check_room(form);
			_exit(0);
		}
		CHECK(waitpid(child, &status, 0) == child);
		CHECK(status == 0);
	}
	return 0;
}
