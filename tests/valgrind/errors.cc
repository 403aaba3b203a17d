/* errors.cc - one error for Memcheck per run, in functions named offend.
 *
 *   errors KIND SIZE [ok]       "ok": the same steps without the error
 *
 * The leak kinds make blocks of SIZE bytes that end up as said: definite and its
 * indirect, possible (an inner pointer), reachable. */
#include <cstdio>
#include <cstdlib>
#include <cstring>

static bool make_mistake = true;
static size_t bytes;
static char *volatile kept;
static volatile int sink;

static bool
is(const char *kind, const char *name)
{
	return std::strcmp(kind, name) == 0;
}

__attribute__((noinline)) static char *
give()
{
	char *p = static_cast<char *>(std::malloc(bytes));
	std::memset(p, 7, bytes);
	return p;
}

__attribute__((noinline)) static void
offend_touch(char *volatile p, bool write)
{
	if (write)
		*p = 1;
	else
		sink = *p;
}

__attribute__((noinline)) static void
offend_branch(const char *p)
{
	if (*p != 0)
		sink = 1;
}

__attribute__((noinline)) static void
offend_free(void *volatile p)
{
	std::free(p);
}

/* The address is not left in a register or on the stack. */
__attribute__((noinline)) static void
forget()
{
	volatile char over[4096];
	std::memset(const_cast<char *>(over), 0, sizeof(over));
}

__attribute__((noinline)) static void
leak(const char *kind)
{
	char *p = give();
	if (is(kind, "definite")) {
		*reinterpret_cast<char **>(p) = give();        /* indirect */
		if (!make_mistake)
			kept = p;
	} else if (is(kind, "possible")) {
		kept = make_mistake ? p + 8 : p;
	} else {
		kept = p;
	}
}

static void
touch(const char *kind)
{
	char *p = give();
	bool write = std::strstr(kind, "write") != nullptr;
	if (std::strncmp(kind, "after", 5) == 0) {
		char *q = give();
		std::free(p);
		offend_touch(make_mistake ? p + bytes / 2 : q, write);
		std::free(q);
		return;
	}
	if (std::strncmp(kind, "over", 4) == 0)
		offend_touch(make_mistake ? p + bytes : p + bytes - 1, write);
	else
		offend_touch(make_mistake ? p - 1 : p, write);
	std::free(p);
}

__attribute__((noinline)) static void
offend_pair(const char *kind)
{
	char *p = is(kind, "pair-malloc-delete") ? give() : is(kind, "pair-array-delete") ? new char[bytes] :
	    static_cast<char *>(::operator new(bytes));
	asm volatile("" : "+r"(p));
	if (is(kind, "pair-new-free") && make_mistake)
		std::free(p);
	else if (is(kind, "pair-new-free") || (is(kind, "pair-malloc-delete") && make_mistake) ||
	    (is(kind, "pair-array-delete") && make_mistake))
		::operator delete(p);
	else if (is(kind, "pair-malloc-delete"))
		std::free(p);
	else
		delete[] p;
}

/* calloc is clear, realloc keeps what is defined and what is not. */
static void
undefined(const char *kind)
{
	char *p;
	if (is(kind, "undefined-malloc")) {
		p = static_cast<char *>(make_mistake ? std::malloc(bytes) : std::calloc(1, bytes));
		offend_branch(p + bytes / 2);
	} else {
		p = static_cast<char *>(std::realloc(give(), 2 * bytes));
		offend_branch(make_mistake ? p + bytes + bytes / 2 : p + bytes - 1);
	}
	std::free(p);
}

int
main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	const char *kind = argv[1];
	bytes = std::strtoul(argv[2], nullptr, 0);
	make_mistake = argc < 4;
	if (std::strncmp(kind, "pair", 4) == 0) {
		offend_pair(kind);
	} else if (std::strncmp(kind, "undefined", 9) == 0) {
		undefined(kind);
	} else if (is(kind, "definite") || is(kind, "possible") || is(kind, "reachable")) {
		leak(kind);
	} else if (std::strncmp(kind, "free", 4) == 0) {
		char *p = give();
		if (is(kind, "free-inner")) {
			if (make_mistake)
				offend_free(p + 16);
			std::free(p);
		} else {
			std::free(p);
			if (make_mistake)
				offend_free(p);
		}
	} else {
		touch(kind);
	}
	forget();
	std::puts("end");
	return 0;
}
