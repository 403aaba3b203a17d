/* test_stress.c - eight threads on one heap: random sizes, every kind of call,
 * objects freed by other threads than made them, threads that end and begin,
 * trims and whole-heap checks meanwhile. The end is by count, not by time. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "heap_support.h"
#include "proc.h"
#include "tls.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOW_BUILD 1
#elif defined(__has_feature)
#define SLOW_BUILD (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define SLOW_BUILD 0
#endif

enum {
	THREADS = 8,
	LIVES = 4,                      /* threads one after the other, each of the 8 */
	STEPS = SLOW_BUILD ? 4000 : 40000,
	OWN = 300,
	POSTED = 512,                   /* objects on their way to another thread */
	HEADER_BYTES = 16,
};

/* At the beginning of each object of 16 bytes and more; its end has the mark. */
struct header {
	uint64_t bytes;
	uint64_t mark;
};

static atomic_ptr post[POSTED];
static atomic_u32 running;

static void
bad(const char *what, const void *p)
{
	fprintf(stderr, "stress: %s at %p\n", what, p);
	abort();
}

static size_t
random_bytes(uint64_t *r)
{
	switch (heap_rand(r) % 32) {
	case 0:
		return heap_rand(r) % 300000;
	case 1: case 2: case 3: case 4:
		return heap_rand(r) % 9000;
	default:
		return heap_rand(r) % 500;
	}
}

static void
sign(void *p, size_t bytes)
{
	struct header h = { bytes, (uintptr_t)p ^ bytes ^ 0x5a5a };

	if (bytes < HEADER_BYTES)
		return;
	memcpy(p, &h, sizeof(h));
	if (bytes > HEADER_BYTES)
		((unsigned char *)p)[bytes - 1] = (unsigned char)h.mark;
}

/* The object is as sign left it: nobody else had it meanwhile. Posted ones have
 * a header, of what size it says. */
static void
check(void *p, size_t bytes)
{
	struct header h;

	if (bytes < HEADER_BYTES)
		return;
	memcpy(&h, p, sizeof(h));
	if (h.mark != ((uintptr_t)p ^ h.bytes ^ 0x5a5a))
		bad("header overwritten", p);
	if (h.bytes > HEADER_BYTES && ((unsigned char *)p)[h.bytes - 1] != (unsigned char)h.mark)
		bad("end overwritten", p);
}

struct own {
	void *p;
	size_t bytes;
	size_t align;           /* 0: as malloc */
};

static void
make(struct own *o, uint64_t *r)
{
	void *p;
	size_t *bytes = &o->bytes;

	o->align = 0;
	*bytes = random_bytes(r);
	switch (heap_rand(r) % 8) {
	case 0:
		p = mallocgc_zeroed(*bytes, API_CALLOC);
		for (size_t i = 0; p != NULL && i < *bytes; i += 61)
			if (((char *)p)[i] != 0)
				bad("calloc is not zero", p);
		break;
	case 1:
		o->align = (size_t)1 << heap_rand(r) % 13;
		p = mallocgc_aligned(o->align, *bytes, API_MEMALIGN);
		break;
	case 2:
		*bytes = heap_rand(r) % 40;
		p = mallocgc_noscan(*bytes, API_NOSCAN);
		break;
	default:
		p = mallocgc(*bytes, API_MALLOC);
	}
	if (p == NULL)
		bad("no memory", p);
	sign(p, *bytes);
	o->p = p;
}

static void
step(struct own *o, uint64_t *r)
{
	if (o->p == NULL) {
		make(o, r);
		return;
	}
	check(o->p, o->bytes);
	switch (heap_rand(r) % 8) {
	case 0: {
		size_t n = random_bytes(r) + HEADER_BYTES;
		o->p = reallocgc(o->p, n, API_REALLOC);
		o->bytes = n;
		o->align = 0;
		sign(o->p, n);
		break;
	}
	case 1: case 2: case 3: {
		/* to whoever finds it; what lay there is ours to free */
		if (o->bytes < HEADER_BYTES)
			break;
		void *other = aptr_exchange(&post[heap_rand(r) % POSTED], o->p);
		o->p = NULL;
		if (other != NULL) {
			check(other, HEADER_BYTES);
			freegc(other, API_FREE);
		}
		break;
	}
	case 4:
		free_sized_check(o->p, o->bytes, o->align, API_FREE_SIZED);
		o->p = NULL;
		break;
	default:
		freegc(o->p, API_FREE);
		o->p = NULL;
	}
}

static void *
life(void *arg)
{
	struct own own[OWN];
	uint64_t r = (uintptr_t)arg * 7919 + 1;

	memset(own, 0, sizeof(own));
	for (int i = 0; i < STEPS; i++) {
		step(&own[heap_rand(&r) % OWN], &r);
		if (heap_rand(&r) % 8192 == 0)
			malloc_trim_all();
	}
	for (size_t i = 0; i < OWN; i++)
		if (own[i].p != NULL) {
			check(own[i].p, own[i].bytes);
			freegc(own[i].p, API_FREE);
		}
	return NULL;
}

static void *
lives(void *arg)
{
	for (uintptr_t i = 0; i < LIVES; i++) {
		pthread_t t;
		if (pthread_create(&t, NULL, life, (void *)((uintptr_t)arg * LIVES + i)) != 0)
			bad("no thread", NULL);
		pthread_join(t, NULL);
	}
	a32_fetch_add(&running, (uint32_t)-1);
	return NULL;
}

/* What can be checked while the others run. */
static void
check_all_the_while(void)
{
	struct verify_failure f[VERIFY_MAX_FAILURES];

	while (a32_load_acquire(&running) != 0) {
		proc_world_lock();
		size_t n = verify_heap(&mheap_, mcache_self(), false, f);
		proc_world_unlock();
		if (n != 0)
			fail_msg("%zu failures under way, the first is %s at %#lx", n, f[0].tag,
			    (unsigned long)f[0].where);
		struct timespec pause = { .tv_nsec = 5000000 };
		nanosleep(&pause, NULL);
	}
}

static void
stress(bool randomize, bool scavenge)
{
	pthread_t t[THREADS];

	heap_stop();
	heap_start(&(struct heap_setup){ .randomize = randomize, .seed = 17,
	    .scavenge = scavenge, .scavenge_delay_ns = 20000000 });
	heap_cache();
	a32_store_release(&running, THREADS);
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, lives, (void *)i), 0);
	check_all_the_while();
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	for (size_t i = 0; i < POSTED; i++) {
		void *p = aptr_exchange(&post[i], NULL);
		if (p != NULL) {
			check(p, HEADER_BYTES);
			freegc(p, API_FREE);
		}
	}
	heap_assert_sound();
	malloc_trim_all();
	/* nothing is lost */
	assert_int_equal(a64_load_relaxed(&mheap_.spans_in_use), 0);
	assert_int_equal(mheap_.pages.free_pages, mheap_.pages.grown_pages);
	heap_assert_sound();
	heap_stop();
}

static void
test_stress_in_order(void **state)
{
	(void)state;
	stress(false, false);
}

static void
test_stress_randomised_and_scavenged(void **state)
{
	(void)state;
	stress(true, true);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stress_in_order),
		cmocka_unit_test(test_stress_randomised_and_scavenged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
