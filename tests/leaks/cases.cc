/* cases.cc - see cases.h. In C++. */
#include "cases.h"

#include <map>
#include <memory>
#include <string>
#include <vector>

static void by_new() { keep(new int(1)); }
static void by_new_array() { keep(new char[333]); }

struct with_destructor {
	long v = 1;
	~with_destructor() { v = 0; }
};

/* The pointer that is kept is behind the count in front of the array. */
static void cookie_is_kept() { global[0] = new with_destructor[10]; }

static void a_vector()
{
	auto *v = new std::vector<long>(1000, 5);
	keep(v);
}

static void a_long_string() { keep(new std::string(500, 'x')); }

static void a_map()
{
	auto *m = new std::map<int, int>;
	for (int i = 0; i < 20; i++)
		(*m)[i] = i;
	keep(m);
}

struct ring {
	std::shared_ptr<ring> next;
	char rest[40];
};

static void cycle_of_shared_pointers()
{
	auto a = std::make_shared<ring>(), b = std::make_shared<ring>();
	a->next = b;
	b->next = a;
}

static void released() { keep(std::make_unique<with_destructor>().release()); }

struct first { virtual ~first() {} long a = 1; };
struct second { virtual ~second() {} long b = 2; };
struct both : first, second { long c = 3; };

static void by_second_base() { global[0] = static_cast<second *>(new both); }
static void lost_both() { keep(static_cast<second *>(new both)); }

static std::vector<std::string> *volatile kept;
static void kept_containers() { kept = new std::vector<std::string>(10, std::string(100, 'y')); }

static void thrown()
{
	try {
		keep(new char[77]);
		throw std::string(100, 'z');
	} catch (const std::string &) {
	}
}

#define CASE(f, direct, indirect) { #f, f, direct, indirect }

static const leak_case cases[] = {
	CASE(by_new, 1, 0), CASE(by_new_array, 1, 0), CASE(cookie_is_kept, 0, 0),
	CASE(a_vector, 1, 1), CASE(a_long_string, 1, 1), CASE(a_map, 0, 21),
	CASE(cycle_of_shared_pointers, 0, 2), CASE(released, 1, 0), CASE(by_second_base, 0, 0),
	CASE(lost_both, 1, 0), CASE(kept_containers, 0, 0), CASE(thrown, 1, 0),
};

int
main(int argc, char **argv)
{
	return leak_main(cases, sizeof(cases) / sizeof(cases[0]), argc, argv);
}
