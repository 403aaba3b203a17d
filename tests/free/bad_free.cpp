// bad_free.cpp - one wrong call to the allocator, chosen on the command line.
//
//   bad_free double  API PAIRING SIZE [ok]   free it, free it again
//   bad_free invalid API KIND         [ok]   free what malloc never returned
//   bad_free inside  API SIZE OFFSET  [ok]   free the middle of an object
//   bad_free sized   FORM SIZE GIVEN  [ok]   say a wrong size or alignment
//
// "ADDR 0x.. USABLE n" goes to stdout before the wrong call, which is always
// made by offend(), so a stack that names it is right. With "ok" the same steps
// are taken without the wrong one, and the program says "fine" and exits 0.
//
// PAIRING says who frees first and second: o the owner, x and y other threads;
// a d stands where the owner ends, + where a thousand objects of the same size
// are freed, t where malloc_trim(0) is called. All threads exist before the object does and
// take orders, so nothing is allocated between the two frees that we do not see.
#include <cerrno>
#include <climits>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <malloc.h>
#include <new>
#include <pthread.h>
#include <semaphore.h>
#include <sys/mman.h>
#include <unistd.h>

namespace {

enum { THREADS = 3, OTHERS = 1000 };

bool make_mistake = true;

[[noreturn]] void
fail(const char *why)
{
	fprintf(stderr, "bad_free: %s (errno %d)\n", why, errno);
	_exit(99);
}

void *
opaque(void *p)
{
	__asm__ volatile("" : "+r"(p) : : "memory");
	return p;
}

// ---------------------------------------------------------------- the calls

struct api {
	const char *name;
	void (*call)(void *p);
};

void call_free(void *p) { free(p); }
void call_realloc(void *p) { opaque(realloc(p, 77)); }
void call_realloc_zero(void *p) { opaque(realloc(p, 0)); }
void call_reallocarray(void *p) { opaque(reallocarray(p, 7, 11)); }
void call_delete(void *p) { ::operator delete(p); }
void call_delete_array(void *p) { ::operator delete[](p); }
void call_delete_nothrow(void *p) { ::operator delete(p, std::nothrow); }
void call_delete_aligned(void *p) { ::operator delete(p, std::align_val_t(16)); }

void
call_usable_size(void *p)
{
	volatile size_t n = malloc_usable_size(p);
	(void)n;
}

void
call_cfree(void *p)
{
	auto f = reinterpret_cast<void (*)(void *)>(dlsym(RTLD_DEFAULT, "cfree"));
	if (f == nullptr)
		fail("no cfree");
	f(p);
}

const api apis[] = {
	{ "free", call_free },
	{ "realloc", call_realloc },
	{ "realloc0", call_realloc_zero },
	{ "reallocarray", call_reallocarray },
	{ "malloc_usable_size", call_usable_size },
	{ "cfree", call_cfree },
	{ "delete", call_delete },
	{ "delete[]", call_delete_array },
	{ "delete-nothrow", call_delete_nothrow },
	{ "delete-aligned", call_delete_aligned },
};

const api *
find_api(const char *name)
{
	for (const api &a : apis)
		if (strcmp(a.name, name) == 0)
			return &a;
	fail("unknown api");
}

void
announce(void *p, size_t usable)
{
	printf("ADDR %p USABLE %zu\n", p, usable);
	fflush(stdout);
}

__attribute__((noinline)) void
offend(const api *a, void *p)
{
	a->call(p);
	__asm__ volatile("");
}

// ---------------------------------------------------------------- threads that take orders

struct worker {
	pthread_t thread;
	sem_t order, done;
	void (*job)(void *);
	void *arg;
	bool running;
};

worker workers[THREADS];     // o, x, y

void *
worker_main(void *arg)
{
	auto *w = static_cast<worker *>(arg);
	for (;;) {
		while (sem_wait(&w->order) != 0)
			continue;
		if (w->job == nullptr)
			return nullptr;
		w->job(w->arg);
		sem_post(&w->done);
	}
}

void
workers_start()
{
	for (worker &w : workers) {
		if (sem_init(&w.order, 0, 0) != 0 || sem_init(&w.done, 0, 0) != 0)
			fail("semaphore");
		if (pthread_create(&w.thread, nullptr, worker_main, &w) != 0)
			fail("thread");
		w.running = true;
	}
}

void
worker_do(worker *w, void (*job)(void *), void *arg)
{
	w->job = job;
	w->arg = arg;
	sem_post(&w->order);
	while (sem_wait(&w->done) != 0)
		continue;
}

void
worker_end(worker *w)
{
	if (!w->running)
		return;
	w->job = nullptr;
	sem_post(&w->order);
	pthread_join(w->thread, nullptr);
	w->running = false;
}

// ---------------------------------------------------------------- double

struct object {
	size_t bytes;
	void *p;
	void *before, *after;      // neighbours, so that the span is not p's alone
	const api *second;
};

void
job_allocate(void *arg)
{
	auto *o = static_cast<object *>(arg);
	o->before = malloc(o->bytes);
	o->p = malloc(o->bytes);
	o->after = malloc(o->bytes);
	if (o->before == nullptr || o->p == nullptr || o->after == nullptr)
		fail("no memory");
	memset(o->p, 1, o->bytes);
	announce(o->p, malloc_usable_size(o->p));
}

void job_free(void *arg) { free(static_cast<object *>(arg)->p); }

void
job_offend(void *arg)
{
	auto *o = static_cast<object *>(arg);
	offend(o->second, o->p);
}

// Frees all other objects of the same size: pushes the freed one through
// whatever buffers there are, and empties its span, with nothing handed out.
void
free_others(object *o, void **others)
{
	for (int i = 0; i < OTHERS; i++)
		free(others[i]);
	free(o->before);
	free(o->after);
}

int
scenario_double(const api *second, const char *pairing, size_t bytes)
{
	static const char names[] = "oxy";
	object o = { bytes, nullptr, nullptr, nullptr, second };
	void *others[OTHERS] = { nullptr };
	bool with_others = strchr(pairing, '+') != nullptr;
	if (with_others)
		for (void *&p : others)
			p = malloc(bytes);
	workers_start();
	worker_do(&workers[0], job_allocate, &o);
	bool freed = false;
	for (const char *c = pairing; *c != '\0'; c++) {
		const char *who = strchr(names, *c);
		if (*c == 'd')
			worker_end(&workers[0]);
		else if (*c == '+')
			free_others(&o, others);
		else if (*c == 't')
			malloc_trim(0);
		else if (who == nullptr)
			fail("unknown pairing");
		else if (!freed || make_mistake)
			worker_do(&workers[who - names], freed ? job_offend : job_free, &o);
		freed = freed || who != nullptr;
	}
	for (worker &w : workers)
		worker_end(&w);
	return 0;
}

// ---------------------------------------------------------------- invalid

int some_global[4] = { 1, 2, 3, 4 };
char some_bss[64];
thread_local char some_tls[64];

void *
wild_mapping(bool keep)
{
	void *p = mmap(nullptr, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		fail("mmap");
	if (!keep)
		munmap(p, 1 << 16);
	return p;
}

void *
file_mapping()
{
	FILE *f = fopen("/etc/passwd", "rb");
	void *p = f == nullptr ? MAP_FAILED : mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE, fileno(f), 0);
	if (p == MAP_FAILED)
		fail("mmap file");
	fclose(f);
	return p;
}

// In our heap's neighbourhood and never handed out: far behind a lone object.
void *
never_allocated()
{
	auto p = reinterpret_cast<uintptr_t>(malloc(100000));
	return reinterpret_cast<void *>((p + ((uintptr_t)24 << 20)) & ~(uintptr_t)15);
}

struct invalid {
	const char *name;
	void *(*make)();
};

const invalid invalids[] = {
	{ "small-number", [] { return reinterpret_cast<void *>(static_cast<uintptr_t>(0x1230)); } },
	{ "minus-one", [] { return reinterpret_cast<void *>(UINTPTR_MAX); } },
	{ "ascii", [] { return reinterpret_cast<void *>(static_cast<uintptr_t>(0x41414141)); } },
	{ "ascii-long", [] { return reinterpret_cast<void *>(static_cast<uintptr_t>(0x4141414141414140)); } },
	{ "non-canonical", [] { return reinterpret_cast<void *>(static_cast<uintptr_t>(0xdead000000000100)); } },
	{ "kernel", [] { return reinterpret_cast<void *>(static_cast<uintptr_t>(0xffff888000000000)); } },
	{ "bit-48", [] { return reinterpret_cast<void *>(reinterpret_cast<uintptr_t>(malloc(64)) | (uintptr_t)1 << 48); } },
	{ "wild-unaligned", [] { return reinterpret_cast<void *>(static_cast<uintptr_t>(0x7e0000000123)); } },
	{ "global", [] { return static_cast<void *>(some_global); } },
	{ "bss", [] { return static_cast<void *>(some_bss); } },
	{ "bss-unaligned", [] { return static_cast<void *>(some_bss + 3); } },
	{ "tls", [] { return static_cast<void *>(some_tls); } },
	{ "literal", [] { return static_cast<void *>(const_cast<char *>("a string literal")); } },
	{ "function", [] { return reinterpret_cast<void *>(offend); } },
	{ "libc", [] { return reinterpret_cast<void *>(&stdout); } },
	{ "mmap", [] { return wild_mapping(true); } },
	{ "unmapped", [] { return wild_mapping(false); } },
	{ "file", [] { return file_mapping(); } },
	{ "never-allocated", never_allocated },
};

__attribute__((noinline)) int
offend_with_stack(const api *a)
{
	char on_stack[64] __attribute__((aligned(16))) = { 1 };
	announce(on_stack, 0);
	if (make_mistake)
		offend(a, on_stack);
	return on_stack[0] == 1 ? 0 : 1;
}

int
scenario_invalid(const api *a, const char *kind)
{
	free(opaque(malloc(10)));
	if (strcmp(kind, "stack") == 0)
		return offend_with_stack(a);
	if (strcmp(kind, "environment") == 0) {
		announce(getenv("PATH"), 0);
		if (make_mistake)
			offend(a, getenv("PATH"));
		return 0;
	}
	for (const invalid &i : invalids)
		if (strcmp(i.name, kind) == 0) {
			void *p = i.make();
			announce(p, 0);
			if (make_mistake)
				offend(a, p);
			return 0;
		}
	fail("unknown kind");
}

// ---------------------------------------------------------------- inside

int
scenario_inside(const api *a, size_t bytes, const char *offset)
{
	auto *before = static_cast<char *>(malloc(bytes));
	auto *p = static_cast<char *>(malloc(bytes));
	auto *after = static_cast<char *>(malloc(bytes));
	if (before == nullptr || p == nullptr || after == nullptr)
		fail("no memory");
	size_t at = strcmp(offset, "half") == 0 ? bytes / 2
	          : strcmp(offset, "last") == 0 ? bytes - 1
	          : static_cast<size_t>(atol(offset));
	printf("BASE %p OFFSET %zu\n", static_cast<void *>(p), at);
	announce(p + at, malloc_usable_size(p));
	if (make_mistake)
		offend(a, p + at);
	free(before);
	free(p);
	free(after);
	return 0;
}

// ---------------------------------------------------------------- sized

using sized_fn = void (*)(void *, size_t);
using aligned_sized_fn = void (*)(void *, size_t, size_t);

struct sized_form {
	const char *name;
	void *(*make)(size_t size, size_t said);
	void (*give_back)(void *p, size_t size, size_t said);
};

// A block aligned to 64 that happens not to be aligned to `said`. The ones that
// are stay allocated, or the allocator might give the same one again.
void *
make_unaligned(size_t size, size_t said)
{
	for (int i = 0; i < 1000; i++) {
		void *p = ::operator new(size, std::align_val_t(64));
		if (reinterpret_cast<uintptr_t>(p) % said != 0)
			return p;
	}
	fail("every block is aligned");
}

// The C23 functions, where libc's malloc has none: free, in the run that proves
// this test.
void
back_c23(void *p, size_t, size_t said)
{
	auto f = reinterpret_cast<sized_fn>(dlsym(RTLD_DEFAULT, "free_sized"));
	if (f == nullptr)
		return free(p);
	f(p, said);
}

void
back_c23_aligned(void *p, size_t align, size_t bytes)
{
	auto f = reinterpret_cast<aligned_sized_fn>(dlsym(RTLD_DEFAULT, "free_aligned_sized"));
	if (f == nullptr)
		return free(p);
	f(p, align, bytes);
}

constexpr std::align_val_t A64 { 64 };

const sized_form sized_forms[] = {
	{ "delete", [](size_t n, size_t) { return ::operator new(n); },
	  [](void *p, size_t, size_t said) { ::operator delete(p, said); } },
	{ "delete[]", [](size_t n, size_t) { return ::operator new[](n); },
	  [](void *p, size_t, size_t said) { ::operator delete[](p, said); } },
	{ "delete-aligned", [](size_t n, size_t) { return ::operator new(n, A64); },
	  [](void *p, size_t, size_t said) { ::operator delete(p, said, A64); } },
	{ "delete[]-aligned", [](size_t n, size_t) { return ::operator new[](n, A64); },
	  [](void *p, size_t, size_t said) { ::operator delete[](p, said, A64); } },
	{ "free_sized", [](size_t n, size_t) { return malloc(n); }, back_c23 },
	{ "free_aligned_sized", [](size_t n, size_t) { return aligned_alloc(64, n); },
	  [](void *p, size_t, size_t said) { back_c23_aligned(p, 64, said); } },
	// In the others `said` is the alignment.
	{ "align", make_unaligned,
	  [](void *p, size_t, size_t said) { ::operator delete(p, std::align_val_t(said)); } },
	{ "align[]", make_unaligned,
	  [](void *p, size_t, size_t said) { ::operator delete[](p, std::align_val_t(said)); } },
	{ "align-sized", make_unaligned,
	  [](void *p, size_t n, size_t said) { ::operator delete(p, n, std::align_val_t(said)); } },
	{ "align-c23", make_unaligned,
	  [](void *p, size_t n, size_t said) { back_c23_aligned(p, said, n); } },
};

__attribute__((noinline)) void
offend_sized(const sized_form *f, void *p, size_t size, size_t said)
{
	f->give_back(p, size, said);
	__asm__ volatile("");
}

int
scenario_sized(const char *form, size_t size, size_t said)
{
	for (const sized_form &f : sized_forms)
		if (strcmp(f.name, form) == 0) {
			void *p = f.make(size, said);
			announce(p, malloc_usable_size(p));
			bool align = strncmp(form, "align", 5) == 0;
			offend_sized(&f, p, size, make_mistake ? said : align ? 64 : size);
			return 0;
		}
	fail("unknown form");
}

} // namespace

int
main(int argc, char **argv)
{
	if (argc > 2 && strcmp(argv[argc - 1], "ok") == 0) {
		make_mistake = false;
		argc--;
	}
	// Output must not come and go in the heap that is looked at.
	static char buffer[4096];
	setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
	int status = 98;
	if (argc == 5 && strcmp(argv[1], "double") == 0)
		status = scenario_double(find_api(argv[2]), argv[3], strtoul(argv[4], nullptr, 0));
	else if (argc == 4 && strcmp(argv[1], "invalid") == 0)
		status = scenario_invalid(find_api(argv[2]), argv[3]);
	else if (argc == 5 && strcmp(argv[1], "inside") == 0)
		status = scenario_inside(find_api(argv[2]), strtoul(argv[3], nullptr, 0), argv[4]);
	else if (argc == 5 && strcmp(argv[1], "sized") == 0)
		status = scenario_sized(argv[2], strtoul(argv[3], nullptr, 0), strtoul(argv[4], nullptr, 0));
	if (make_mistake)
		return 97;       // the mistake went unseen
	puts("fine");
	return status;
}
