/* The containers of the standard library, from several threads, with memory made
 * on one and freed on another. */
#include "api.h"

#include <atomic>
#include <deque>
#include <list>
#include <map>
#include <memory_resource>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

using Row = std::map<int, std::string>;

static std::mutex lock;
static std::deque<std::unique_ptr<Row>> handed_over;

static void
work(int id)
{
	std::unordered_map<std::string, std::vector<int>> table;
	std::list<std::set<int>> sets;

	for (int i = 0; i < 300; i++) {
		auto row = std::make_unique<Row>();
		for (int j = 0; j < 20; j++)
			(*row)[j] = std::string(std::size_t(i + j), char('a' + id));
		table[std::to_string(i % 50) + " and a tail to make it long"].push_back(i);
		sets.emplace_back();
		for (int j = 0; j < i % 30; j++)
			sets.back().insert(j * 7 % 31);
		if (i % 3 == 0)
			sets.pop_front();
		std::unique_ptr<Row> other;
		{
			std::lock_guard<std::mutex> guard(lock);
			handed_over.push_back(std::move(row));
			if (handed_over.size() > 40) {
				other = std::move(handed_over.front());
				handed_over.pop_front();
			}
		}
		if (other != nullptr)
			for (auto &[key, value] : *other)
				CHECK(value.empty() || value.front() == value.back());
	}
	std::size_t total = 0;
	for (auto &[key, value] : table)
		total += value.size();
	CHECK(total == 300);
}

int
main()
{
	std::vector<std::thread> threads;

	for (int i = 0; i < 6; i++)
		threads.emplace_back(work, i);
	for (auto &t : threads)
		t.join();
	CHECK(handed_over.size() == 40);
	handed_over.clear();

	/* aligned operators by way of a memory resource */
	std::pmr::memory_resource *r = std::pmr::new_delete_resource();
	for (std::size_t align = 1; align <= 4096; align *= 2) {
		void *p = r->allocate(100, align);
		CHECK(p != nullptr && is_aligned(p, align));
		fill(p, 100, 1);
		r->deallocate(p, 100, align);
	}
	return 0;
}
