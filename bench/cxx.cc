// cxx.cc - the C++ library as a user of operator new: maps, strings, vectors.
//
//   cxx [rounds [words-per-round]]
//
// A round builds an index from words to the places where they occur (std::map
// of std::string to std::vector), a hash map of counts, and a deque of shared
// records; merges the index into the one of the last rounds; drops the words
// that occur once; and lets the oldest index go. Totals are checked.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace {

struct record {
	std::string key;
	std::vector<std::uint32_t> places;
	std::shared_ptr<record> previous;
};

using index_map = std::map<std::string, std::vector<std::uint32_t>>;

[[noreturn]] void
fail(const char *what)
{
	std::fprintf(stderr, "cxx: %s\n", what);
	std::exit(1);
}

// The state advances as in splitmix64; see bench.h.
std::uint64_t
rng_next(std::uint64_t &state)
{
	std::uint64_t z = (state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

// Short words fit into the string object, long ones need a block.
std::string
word_new(std::uint64_t &rng)
{
	std::uint64_t v = rng_next(rng) % 30011;
	std::string s = "w" + std::to_string(v * v % 30011);

	for (std::uint64_t i = 0; i < v % 5; i++)
		s += "_segment" + std::to_string(v % 97);
	return s;
}

index_map
index_new(std::uint64_t &rng, std::size_t words)
{
	index_map index;
	std::unordered_map<std::string, std::size_t> counts;
	std::deque<std::shared_ptr<record>> recent;
	std::size_t total = 0;

	for (std::size_t i = 0; i < words; i++) {
		std::string w = word_new(rng);
		auto r = std::make_shared<record>();

		index[w].push_back(static_cast<std::uint32_t>(i));
		counts[w]++;
		r->key = w;
		r->places = index[w];
		if (i % 4 != 0 && !recent.empty())
			r->previous = recent.back();
		recent.push_back(std::move(r));
		if (recent.size() > 500)
			recent.pop_front();
		if (recent.size() % 100 == 0)
			recent.back()->previous.reset();
	}
	for (const auto &c : counts) {
		if (index.at(c.first).size() != c.second)
			fail("the index and the counts differ");
		total += c.second;
	}
	if (total != words)
		fail("words were lost");
	return index;
}

void
index_merge(index_map &into, const index_map &from)
{
	for (const auto &e : from) {
		auto &places = into[e.first];

		places.insert(places.end(), e.second.begin(), e.second.end());
	}
	for (auto it = into.begin(); it != into.end();)
		it = it->second.size() == 1 ? into.erase(it) : std::next(it);
}

std::size_t
arg(int argc, char **argv, int i, std::size_t fallback)
{
	return i < argc ? std::strtoull(argv[i], nullptr, 10) : fallback;
}

}  // namespace

int
main(int argc, char **argv)
{
	std::size_t rounds = arg(argc, argv, 1, 24);
	std::size_t words = arg(argc, argv, 2, 60000);
	std::deque<index_map> generations;
	std::uint64_t rng = 5;

	for (std::size_t i = 0; i < rounds; i++) {
		index_map fresh = index_new(rng, words);

		if (!generations.empty())
			index_merge(generations.back(), fresh);
		generations.push_back(std::move(fresh));
		if (generations.size() > 4)
			generations.pop_front();
	}
	return 0;
}
