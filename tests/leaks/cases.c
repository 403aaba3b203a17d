/* cases.c - see cases.h. In C. */
#include "cases.h"

#include <dirent.h>

enum { KIB = 1 << 10, MIB = 1 << 20 };

static _Thread_local void *volatile in_tls;
static struct { int number; void *volatile pointer; } initialised = { 1, (void *)global };

/* ---- direct ---- */

static void none(void) { free(get(100)); }
static void one(void) { get(40); }
static void two_places(void) { get(40); get(40); }

static void
many(void)
{
	for (int i = 0; i < 100; i++)
		get(24);
}

static void
sizes(void)
{
	static const size_t bytes[] = { 1, 8, 17, 100, 1000, 5000, 33000, 100000, 3 * MIB };
	for (size_t i = 0; i < sizeof(bytes) / sizeof(bytes[0]); i++)
		get(bytes[i]);
}

static void by_calloc(void) { keep(calloc(7, 9)); }
static void by_realloc(void) { keep(realloc(get(10), 5000)); }

static void
by_memalign(void)
{
	void *p;
	if (posix_memalign(&p, 256, 100) == 0)
		keep(memset(p, 0, 100));
	p = keep(memset(aligned_alloc(4096, 8192), 0, 8192));
}

static void by_strdup(void) { keep(strdup("a string that nobody frees")); }

static void
by_asprintf(void)
{
	char *text;
	if (asprintf(&text, "%d bottles", 99) > 0)
		keep(text);
	text = NULL;
}

static void by_opendir(void) { keep(opendir("/")); }

static void
overwritten(void)
{
	global[0] = get(48);
	global[0] = get(64);
}

static void
partly_cleared(void)
{
	for (int i = 0; i < 10; i++)
		global[i] = get(32);
	for (int i = 0; i < 10; i += 3)
		global[i] = NULL;
}

static void
in_a_freed_block(void)
{
	void *holder = node(80, get(56));
	global[0] = holder;
	free(holder);
}

static void
in_a_freed_large_block(void)
{
	void *holder = node(MIB, get(56));
	global[0] = holder;
	free(holder);
}

static void
moved_holder(void)
{
	void **list = node(64, get(40));
	list = realloc(list, 4 * MIB);
	put(list, 1, get(48));
	global[0] = list;
	put(list, 0, NULL);
}

static void hidden(void) { global[0] = (void *)~(uintptr_t)get(72); }
static void high_tag(void) { global[0] = (void *)((uintptr_t)get(72) | (uintptr_t)0xab << 56); }

static void
misaligned(void)
{
	static char packed[32];
	void *p = get(72);
	memcpy(packed + 3, &p, sizeof(p));
}

/* ---- indirect ---- */

static void indirect_one(void) { node(40, get(7)); }

static void
chain(void)
{
	void *head = NULL;
	for (int i = 0; i < 10; i++)
		head = node(24, head);
}

static APART void *
tree_of(int depth)
{
	if (depth == 0)
		return NULL;
	void *p = get(48);
	put(p, 1, tree_of(depth - 1));
	put(p, 3, tree_of(depth - 1));
	return p;
}

static void tree(void) { tree_of(5); }

static void
large_chain(void)
{
	void *tail = get(100000);
	void *middle = get(MIB);
	put(middle, MIB / sizeof(void *) - 1, tail);
	node(3 * MIB, middle);
}

static void
shared(void)
{
	void *c = get(64);
	node(32, c);
	node(48, c);
}

static void
indirect_by_interior(void)
{
	char *p = get(1000);
	node(32, p + 999);
	node(32, (char *)get(MIB) + 500000);
}

static void
tail_is_kept(void)
{
	void *tail = get(32);
	global[0] = tail;
	node(32, node(32, tail));
}

static void
to_freed(void)
{
	void *p = get(64);
	node(40, p);
	free(p);
}

/* ---- cycles ---- */

static void
self(void)
{
	void *p = get(40);
	put(p, 2, p);
}

static void
cycle_of_two(void)
{
	void *a = get(40), *b = node(56, a);
	put(a, 0, b);
}

static void
cycle_of_many(void)
{
	void *first = get(32), *at = first;
	for (int i = 0; i < 20; i++)
		at = node(32, at);
	put(first, 0, at);
}

static void
cycle_with_handle(void)
{
	void *c = get(40), *b = node(56, c);
	put(c, 0, b);
	node(24, b);
}

static void
cycle_with_tail(void)
{
	void *a = get(40), *b = node(56, a);
	put(a, 0, b);
	put(a, 1, get(100));
}

static void
cycle_is_kept(void)
{
	void *a = get(40), *b = node(56, a);
	put(a, 0, b);
	global[3] = b;
}

/* ---- kept ---- */

static void by_global(void) { global[0] = get(40); }
static void by_data(void) { initialised.pointer = get(40); }
static void by_static(void) { static void *volatile here; here = get(40); }
static void by_interior(void) { global[0] = (char *)get(1000) + 999; }
static void by_large_interior(void) { global[0] = (char *)get(8 * MIB) + 5 * MIB + 1; }
static void by_low_tag(void) { global[0] = (void *)((uintptr_t)get(64) | 1); }
static void past_the_end(void) { global[0] = (char *)get(64) + 64; }
static void past_an_odd_end(void) { global[0] = (char *)get(99) + 99; global[1] = (char *)get(41) + 40; }
static void past_a_large_end(void) { global[0] = (char *)get(100000) + 100000; }
static void by_object(void) { global[0] = node(40, node(MIB, node(8, get(100)))); }
static void by_tls(void) { in_tls = get(40); }

static void
by_list_both_ways(void)
{
	void *before = NULL;
	for (int i = 0; i < 9; i++) {
		void *p = node(40, before);
		if (before != NULL)
			put(before, 1, p);
		before = p;
		if (i == 4)
			global[0] = p;
	}
}

static void
by_main_stack(void)
{
	void *volatile here = get(40);
	exit(here == NULL);
}

static void
by_specific(void)
{
	pthread_key_t k;
	pthread_key_create(&k, NULL);
	pthread_setspecific(k, get(40));
}

static void
by_libc(void)
{
	setenv("LEAK_CASE", "kept by the environment", 1);
	keep(fopen("/dev/null", "w"));
}

/* ---- threads ---- */

static int ready[2];

static void *
lives_on(void *arg)
{
	void *volatile here[2] = { NULL, NULL };
	if (arg == NULL)
		here[1] = get(40);
	else
		in_tls = get(48);
	if (write(ready[1], "r", 1) == 1)
		for (;;)
			pause();
	return here[1];
}

static void
start_and_wait(void *arg)
{
	pthread_t t;
	char c;
	if (pipe(ready) != 0 || pthread_create(&t, NULL, lives_on, arg) != 0 ||
	    read(ready[0], &c, 1) != 1)
		_exit(2);
}

static void by_thread_stack(void) { start_and_wait(NULL); }
static void by_thread_tls(void) { start_and_wait(&initialised); }

static void *
ends(void *arg)
{
	pthread_key_t k;
	void *volatile here[2] = { NULL, NULL };
	switch ((uintptr_t)arg) {
	case 1: here[1] = get(40); break;
	case 2: in_tls = get(40); break;
	case 3:
		pthread_key_create(&k, NULL);
		pthread_setspecific(k, get(40));
		break;
	case 4: return get(40);
	default: get(40); break;
	}
	return NULL;
}

static void
run_thread(uintptr_t what)
{
	pthread_t t;
	if (pthread_create(&t, NULL, ends, (void *)what) != 0)
		_exit(2);
	pthread_join(t, NULL);
}

static void in_thread(void) { run_thread(0); }
static void on_ended_stack(void) { run_thread(1); }
static void in_ended_tls(void) { run_thread(2); }
static void in_ended_specific(void) { run_thread(3); }
static void joined_result(void) { run_thread(4); }

static void *
takes_argument(void *arg)
{
	put(arg, 0, NULL);
	return NULL;
}

static void
thread_argument(void)
{
	pthread_t t;
	if (pthread_create(&t, NULL, takes_argument, get(40)) != 0)
		_exit(2);
	pthread_join(t, NULL);
}

static void
many_threads(void)
{
	for (uintptr_t i = 0; i < 20; i++)
		run_thread(i % 5);
}

#define CASE(f, direct, indirect) { #f, f, direct, indirect }

static const struct leak_case cases[] = {
	CASE(none, 0, 0), CASE(one, 1, 0), CASE(two_places, 2, 0), CASE(many, 100, 0),
	CASE(sizes, 9, 0), CASE(by_calloc, 1, 0), CASE(by_realloc, 1, 0), CASE(by_memalign, 2, 0),
	CASE(by_strdup, 1, 0), CASE(by_asprintf, 1, 0), CASE(by_opendir, 1, 0),
	CASE(overwritten, 1, 0), CASE(partly_cleared, 4, 0), CASE(in_a_freed_block, 1, 0),
	CASE(in_a_freed_large_block, 1, 0), CASE(moved_holder, 1, 0), CASE(hidden, 1, 0),
	CASE(high_tag, 1, 0), CASE(misaligned, 1, 0),
	CASE(indirect_one, 1, 1), CASE(chain, 1, 9), CASE(tree, 1, 30), CASE(large_chain, 1, 2),
	CASE(shared, 2, 1), CASE(indirect_by_interior, 2, 2), CASE(tail_is_kept, 1, 1),
	CASE(to_freed, 1, 0),
	CASE(self, 1, 0), CASE(cycle_of_two, 0, 2), CASE(cycle_of_many, 0, 21),
	CASE(cycle_with_handle, 1, 2), CASE(cycle_with_tail, 0, 3), CASE(cycle_is_kept, 0, 0),
	CASE(by_global, 0, 0), CASE(by_data, 0, 0), CASE(by_static, 0, 0), CASE(by_interior, 0, 0),
	CASE(by_large_interior, 0, 0), CASE(by_low_tag, 0, 0), CASE(past_the_end, 1, 0),
	CASE(past_an_odd_end, 1, 0), CASE(past_a_large_end, 1, 0), CASE(by_object, 0, 0),
	CASE(by_tls, 0, 0), CASE(by_list_both_ways, 0, 0), CASE(by_main_stack, 0, 0),
	CASE(by_specific, 0, 0), CASE(by_libc, 0, 0),
	CASE(by_thread_stack, 0, 0), CASE(by_thread_tls, 0, 0), CASE(in_thread, 1, 0),
	CASE(on_ended_stack, 1, 0), CASE(in_ended_tls, 1, 0), CASE(in_ended_specific, 1, 0),
	CASE(joined_result, 1, 0), CASE(thread_argument, 1, 0), CASE(many_threads, 20, 0),
};

int
main(int argc, char **argv)
{
	return leak_main(cases, sizeof(cases) / sizeof(cases[0]), argc, argv);
}
