/* heap_support.c - see heap_support.h. */
#include "heap_support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fake_die.h"
#include "malloc_fast.h"
#include "marena.h"
#include "mspanset.h"
#include "proc.h"
#include "tls.h"
#include "../hardening/hooks.h"

void
heap_stop(void)
{
	hooks_reset();
	proc_reset();
	arena_reset();
	mcache_reset();
	span_set_pool_reset();
	mheap_reset(&mheap_);
}

void
heap_start(const struct heap_setup *setup)
{
	static const struct heap_setup zero;
	const struct heap_setup *s = setup != NULL ? setup : &zero;
	struct mheap_config config = {
		.span = {
			.sweep_share_percent = s->sweep_percent != 0 ? s->sweep_percent : 25,
			.window_bytes = s->window_bytes != 0 ? s->window_bytes : (size_t)1 << 30,
		},
		.randomize = s->randomize,
		.scavenge_delay_ns = s->scavenge ? s->scavenge_delay_ns : SCAVENGE_NEVER,
		.scavenge_on_slow_path = s->scavenge,
		.seed = s->seed != 0 ? s->seed : 1,
	};

	mallocinit();
	hooks_reset();
	mheap_init(&mheap_, &config);
}

struct mcache *
heap_cache(void)
{
	struct mcache *c = mcache_self();

	if (c == NULL)
		c = mcache_attach();
	assert_non_null(c);
	return c;
}

struct mcache *
heap_new_cache(void)
{
	struct mcache *c = mcache_acquire(&mheap_, 1);

	assert_non_null(c);
	return c;
}

void
heap_use(struct mcache *c)
{
	thread_state.cache = c;
	thread_state.front = c;
}

void
heap_exit(struct mcache *c)
{
	if (thread_state.cache == c)
		thread_state.cache = thread_state.front = NULL;
	mcache_release(c);
}

static size_t
verify_now(struct verify_failure *f)
{
	size_t n;

	proc_world_lock();
	n = verify_heap(&mheap_, mcache_self(), true, f);
	proc_world_unlock();
	return n;
}

void
heap_assert_sound(void)
{
	struct verify_failure f[VERIFY_MAX_FAILURES];
	size_t n = verify_now(f);

	for (size_t i = 0; i < n && i < VERIFY_MAX_FAILURES; i++)
		print_error("verify: %s at %#lx\n", f[i].tag, (unsigned long)f[i].where);
	assert_int_equal(n, 0);
}

bool
heap_verify_finds(const char *tag)
{
	struct verify_failure f[VERIFY_MAX_FAILURES];
	size_t n = verify_now(f);

	for (size_t i = 0; i < n && i < VERIFY_MAX_FAILURES; i++)
		if (strcmp(f[i].tag, tag) == 0)
			return true;
	for (size_t i = 0; i < n && i < VERIFY_MAX_FAILURES; i++)
		print_error("verify found %s, not %s\n", f[i].tag, tag);
	return false;
}

void
heap_unlock_all(void)
{
	for (struct mcache *c = mcache_first(); c != NULL; c = c->next) {
		mutex_reset(&c->lock);
		c->busy = CACHE_IDLE;
	}
	mutex_reset(&mheap_.lock);
}

struct mspan *
heap_span(const void *p)
{
	struct mspan *s = arena_span_containing((uintptr_t)p);

	assert_non_null(s);
	return s;
}

size_t
heap_slot(const void *p)
{
	size_t idx;

	assert_true(mspan_slot(heap_span(p), (uintptr_t)p, &idx));
	return idx;
}

/* ---- deaths ---- */

struct call {
	void *p;
	size_t bytes, align;
};

static void
call_free(void *arg)
{
	freegc(((struct call *)arg)->p, API_FREE);
}

static void
call_realloc(void *arg)
{
	struct call *a = arg;
	void *q = reallocgc(a->p, a->bytes, API_REALLOC);

	print_error("realloc gave %p\n", q);
}

static void
call_usable(void *arg)
{
	print_error("usable size %zu\n",
	    usable_size(((struct call *)arg)->p, API_USABLE_SIZE));
}

static void
call_free_sized(void *arg)
{
	struct call *a = arg;

	free_sized_check(a->p, a->bytes, a->align, API_FREE_SIZED);
}

/* Died of `code`, of this pointer, naming this call. */
static bool
dies(void (*fn)(void *), struct call *call, enum die_code code, enum malloc_api api)
{
	if (!fake_die_caught(fn, call)) {
		print_error("%s(%p): did not die\n", malloc_api_name(api), call->p);
		return false;
	}
	heap_unlock_all();
	if (fake_die_info.code == code && fake_die_info.addr == (uintptr_t)call->p &&
	    strcmp(fake_die_info.api, malloc_api_name(api)) == 0)
		return true;
	print_error("%s(%p): died of code %d, not %d; site %s, api %s, address %#lx\n",
	    malloc_api_name(api), call->p, (int)fake_die_info.code, (int)code,
	    fake_die_info.site, fake_die_info.api, (unsigned long)fake_die_info.addr);
	return false;
}

bool
heap_free_dies(void *p, enum die_code code)
{
	return dies(call_free, &(struct call){ .p = p }, code, API_FREE);
}

bool
heap_realloc_dies(void *p, size_t bytes, enum die_code code)
{
	return dies(call_realloc, &(struct call){ .p = p, .bytes = bytes }, code, API_REALLOC);
}

bool
heap_usable_dies(void *p, enum die_code code)
{
	return dies(call_usable, &(struct call){ .p = p }, code, API_USABLE_SIZE);
}

bool
heap_free_sized_dies(void *p, size_t bytes, size_t align, enum die_code code)
{
	return dies(call_free_sized,
	    &(struct call){ .p = p, .bytes = bytes, .align = align }, code, API_FREE_SIZED);
}

uint64_t
heap_rand(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1du;
}
