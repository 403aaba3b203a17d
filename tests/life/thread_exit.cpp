// thread_exit.cpp - what a thread does on its way out: C++ thread_local
// destructors, pthread_key destructors in every round that the system runs, and
// the freeing by others of what the thread left. Each step allocates, frees its
// own and frees what another thread gave it; nothing may be lost or refused.
#include "check.h"
#include <atomic>
#include <climits>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <pthread.h>
#include <string>
#include <thread>
#include <vector>

namespace {

std::mutex lock;
std::vector<std::string *> orphans;     // allocated by threads that are gone
std::atomic<int> key_rounds{0}, local_ends{0};
pthread_key_t keys[3];

std::string *
take_orphan()
{
	std::lock_guard<std::mutex> hold(lock);
	if (orphans.empty())
		return nullptr;
	std::string *s = orphans.back();
	orphans.pop_back();
	return s;
}

void
leave_orphan(const char *why)
{
	auto *s = new std::string(100, why[0]);
	std::lock_guard<std::mutex> hold(lock);
	orphans.push_back(s);
}

void
free_orphan()
{
	std::unique_ptr<std::string> s(take_orphan());
	if (s)
		check(s->size() == 100 && (*s)[99] == (*s)[0]);
}

// Sets its key again until the system gives up, so it runs in all rounds.
void
key_end(void *value)
{
	auto *round = static_cast<int *>(value);
	churn(static_cast<unsigned>(*round), 50);
	key_rounds++;
	free_orphan();
	leave_orphan("k");
	int next = *round / 10 + 1, which = *round % 10;
	delete round;
	if (next < PTHREAD_DESTRUCTOR_ITERATIONS)
		check(pthread_setspecific(keys[which], new int(next * 10 + which)) == 0);
}

struct Local {
	std::vector<std::string> texts;
	Local() { for (int i = 0; i < 50; i++) texts.emplace_back(static_cast<size_t>(i * 10), 'x'); }
	~Local()
	{
		churn(9, 50);
		free_orphan();
		leave_orphan("l");
		for (size_t i = 0; i < texts.size(); i++)
			check(texts[i] == std::string(i * 10, 'x'));
		local_ends++;
	}
};

thread_local Local one, two;

void
worker()
{
	for (int i = 0; i < 3; i++)
		check(pthread_setspecific(keys[i], new int(i)) == 0);
	check(one.texts.size() + two.texts.size() == 100);
	churn(8, 200);
	leave_orphan("w");
}

struct AtTheEnd {
	// A static destructor: after main, after the main thread's thread_locals.
	~AtTheEnd()
	{
		churn(10, 200);
		while (std::string *s = take_orphan())
			delete s;
		say("static\n");
	}
} at_the_end;

} // namespace

int
main()
{
	const int threads = 64;
	for (auto &key : keys)
		check(pthread_key_create(&key, key_end) == 0);
	for (int batch = 0; batch < threads / 8; batch++) {
		std::vector<std::thread> running;
		for (int i = 0; i < 8; i++)
			running.emplace_back(worker);
		for (auto &t : running)
			t.join();
	}
	check(local_ends == 2 * threads);
	check(key_rounds == 3 * PTHREAD_DESTRUCTOR_ITERATIONS * threads);
	check(one.texts.size() == 50);      // the main thread has one as well
	say("main\n");
	return 0;
}
