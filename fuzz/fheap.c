/* fheap.c - see fheap.h. */
#include "fheap.h"

#include <string.h>

#include "fake_die.h"
#include "lock.h"
#include "malloc.h"
#include "marena.h"
#include "mcache.h"
#include "mspanset.h"
#include "proc.h"
#include "report.h"
#include "tls.h"
#include "verify.h"
#include "../hardening/hooks.h"
#include "../hardening/roots.h"
#include "../hardening/sample.h"

static struct mcache *threads[SGF_THREADS];

unsigned sg_warnings;

/* In place of fake_die.c's: that guards are short is no news here. */
void
report_warn(const char *first, ...)
{
	(void)first;
	sg_warnings++;
}
bool sg_verify_dies;
void (*sg_goes_on)(const struct die_info *info);

void
complain(const struct die_info *info)
{
	if (sg_goes_on == NULL)
		die(info);
	sg_goes_on(info);
}

void
report_once(const struct die_info *info)
{
	complain(info);
}

void
report_and_go_on(const struct die_info *info)
{
	complain(info);
}

static struct options preset[SG_MODES];

static void
parse_presets(void)
{
	static const char *const text[SG_MODES] = { "mode=plain:sample=0:log=/dev/null",
		"mode=hardened:sample=0:log=/dev/null", "mode=strict:sample=0:log=/dev/null",
		"mode=debug:sample=0:log=/dev/null", "mode=guard:sample=0:log=/dev/null" };
	char buf[256];
	struct print out;

	for (unsigned i = 0; i < SG_MODES; i++) {
		print_init(&out, buf, sizeof(buf));
		if (options_parse(&preset[i], NULL, "fuzz", text[i], &out) != 0)
			sg_fail(ORACLE_PARSE, "%s", buf);
	}
}

const struct options *
sg_mode_options(unsigned mode)
{
	return &preset[mode % SG_MODES];
}

static void
sys_config(const struct sgf_header *h, struct fake_sys_config *out)
{
	static const size_t page_bytes[8] = { 4096, 4096, 4096, 4096, 4096, 4096, 16384, 65536 };

	*out = (struct fake_sys_config){
		.page_bytes = page_bytes[h->geometry & 7],
		.no_markers = (h->geometry & 8) != 0,
		.place = (h->geometry & 16) != 0 ? FAKE_SYS_GAPS : FAKE_SYS_CONTIGUOUS,
		.max_map_count = (h->geometry & 32) != 0 ? 20 + h->fault_nth % 200 : 0,
		.seed = h->seed,
		.now_ns = 1000000000,
	};
}

unsigned
sg_mode_of(const struct sgf_header *h)
{
	static const uint8_t mode[8] = { OPT_MODE_PLAIN, OPT_MODE_HARDENED, OPT_MODE_STRICT,
		OPT_MODE_DEBUG, OPT_MODE_GUARD, OPT_MODE_PLAIN, OPT_MODE_HARDENED, OPT_MODE_STRICT };

	return mode[h->mode & 7];
}

/* One call of those that set the heap up is refused. */
enum { STARTS_SHORT = 14 };

/* Besides the mode: rooms that any mode may have. */
static void
set_extras(unsigned which, const struct sgf_header *h, struct options *o)
{
	if (which & 1)
		o->sample = 1 + h->knob[3] % 64;
	if (which & 2)
		o->verify_every = 16;
	if (which & 4)
		o->patrol = 1 + h->knob[3] % 8;
	if (which & 8)
		o->huge_pages = true;
	if (which == 15)
		o->ring = 64;
	if (which == STARTS_SHORT)
		o->sample = 1;
}

void
sg_heap_config(const struct sgf_header *h, struct sg_heap_config *out)
{
	static const uint32_t sweep[8] = { 0, 1, 6, 12, 25, 50, 75, 100 };
	static const size_t window[8] = { 0, 4096, 8192, 32768, 65536, 131072, 1 << 20, 1 << 30 };
	struct options *o = &out->options;

	*o = *sg_mode_options(h->mode < 128 ? sg_mode_of(h) : OPT_MODE_HARDENED);
	o->seed = h->seed != UINT32_MAX ? (uint64_t)h->seed + 1 : 0;    /* 0: the system's */
	o->report_requests = false;     /* the programs ask for too much on purpose, */
	o->report_oom = false;
	o->mismatch = false;            /* and free with any function */
	o->verify_at_exit = false;      /* the last heap of the process may be half a one */
	o->scavenge = h->scavenge & 1 ? OPT_SCAVENGE_SLOW : OPT_SCAVENGE_OFF;
	o->scavenge_delay_ms = (uint32_t)(h->scavenge >> 1) * 10;
	if (sweep[h->knob[0] & 7] != 0)
		o->sweep_share = sweep[h->knob[0] & 7];
	if (window[h->knob[0] >> 3 & 7] != 0)
		o->window_bytes = window[h->knob[0] >> 3 & 7];
	if (h->knob[1] & 1)
		o->span_quarantine_bytes = (size_t)(h->knob[1] >> 1) << 16;
	if (h->knob[2] & 1)
		o->span_guards = h->knob[2] >> 1 & 3;
	if (h->knob[2] & 8)
		o->large_guards = h->knob[2] >> 4 & 3;
	if (h->knob[2] == 0xc0)         /* guarded objects are used again soon */
		o->guard_quarantine_bytes = 1 << 16;
	/* to walk a stack costs more than all the rest of a call */
	o->stack_depth = h->knob[3] >= 240 ? 16 : 0;
	if (h->mode >= 128) {           /* not a mode but any mixture */
		o->randomize = h->mode & 1;
		o->canary = h->mode >> 1 & 1;
		o->zero_on_free = h->mode >> 2 & 1;
		o->span_quarantine_fault = h->mode >> 3 & 1;
		o->zero_size_faults = h->mode >> 4 & 1;
		o->large_guards_both = h->mode >> 5 & 1;
		o->sample = (h->mode & 0xe0) == 0xe0 ? 1 + h->knob[3] % 64 : 0;
	}
	if (h->mode < 128)
		set_extras(h->mode >> 3, h, o);
	sys_config(h, &out->sys);
	out->verify_all = sgf_one_in_four(h);
	if (h->mode < 128 && h->mode >> 3 == STARTS_SHORT) {
		out->sys.fail_mask = FAKE_SYS_CAN_FAIL & ~(uint32_t)FAKE_SYS_USED;
		out->sys.fail_nth = 1 + h->knob[3] % 32u;
	}
}

static bool heap_there;

/* Metadata of the last heap can still be read here. */
void
sg_heap_forget(void)
{
	if (!heap_there)
		return;
	heap_there = false;
	lock_forget_held();
	sample_countdown_ = (struct sample_countdown){ 0 };
	hooks_reset();
	proc_reset();
	verify_reset();
	arena_reset();
	mcache_reset();
	span_set_pool_reset();
	mheap_reset(&mheap_);
}

/* A mark is not to read all of it. */
static void
hide_shadow(void)
{
	uintptr_t start;
	size_t bytes;

	if (sg_shadow(&start, &bytes))
		roots_exclude((const void *)start, bytes);
}

void
sg_heap_boot(const struct fake_sys_config *sys, void (*start)(void))
{
	sg_heap_forget();
	heap_there = true;
	fake_sys_reset(sys);
	memset(threads, 0, sizeof(threads));
	start();
}

static const struct sg_heap_config *wanted;

static void
make_heap(void)
{
	struct mheap_config heap;

	options = wanted->options;
	proc_heap_config(&heap);
	heap.verify_grown_only = !wanted->verify_all;
	mheap_init(&mheap_, &heap);
	hooks_init(&mheap_);
	hide_shadow();
	hooks_start_sampling();
	fake_sys_fail(0, 0, false);
}

void
sg_heap_start(const struct sg_heap_config *config)
{
	wanted = config;
	sg_heap_boot(&config->sys, make_heap);
}

/* Before the first input, so that all inputs find the same: a heap with every room on
 * leaves the lists of rooms and of places without roots filled. */
__attribute__((constructor)) static void
warm_up(void)
{
	struct sg_heap_config config;

	parse_presets();
	for (unsigned mode = 0; mode < SG_MODES; mode++) {
		sg_heap_config(&(struct sgf_header){ .mode = (uint8_t)mode }, &config);
		config.options.sample = 1;
		sg_heap_start(&config);
	}
	sg_heap_forget();
}

struct mcache *
sg_heap_cache(unsigned t)
{
	return threads[t];
}

static void
become(struct mcache *c)
{
	thread_state.gone = false;
	thread_state.cache = c;
	thread_state.front = c != NULL && mheap_.config.armed ? &mcache_armed : c;
}

struct mcache *
sg_heap_use(unsigned t)
{
	if (threads[t] == NULL)
		threads[t] = mcache_acquire(&mheap_, (int)t + 1);
	become(threads[t]);
	if (threads[t] == NULL)
		thread_state.gone = true;    /* or a call would attach a real one */
	return threads[t];
}

void
sg_heap_nobody(void)
{
	become(NULL);
	thread_state.gone = true;
}

void
sg_heap_exit(unsigned t)
{
	sg_heap_nobody();
	if (threads[t] != NULL)
		mcache_release(threads[t]);
	threads[t] = NULL;
}

void
sg_heap_forked(void)
{
	for (unsigned t = 0; t < SGF_THREADS; t++)
		if (threads[t] != NULL && !threads[t]->in_use)
			threads[t] = NULL;
}

void
sg_heap_idle(void)
{
	for (unsigned t = 0; t < SGF_THREADS; t++)
		sg_heap_exit(t);
	/* the shared cache has current spans too, which a trim by another leaves */
	struct mcache *c = proc_shared_lock();
	if (c != NULL) {
		mcache_release(c);
		proc_shared_unlock(c);
	}
	proc_reset();
	sg_heap_nobody();
	malloc_trim_all();              /* spans go to the quarantine first */
	mheap_flush_quarantine(&mheap_);
	malloc_trim_all();
}

void
sg_heap_forget_calls(void)
{
	lock_forget_held();
	for (struct mcache *c = mcache_first(); c != NULL; c = c->next)
		c->busy = CACHE_IDLE;
}

const struct die_info *
sg_heap_try(void (*fn)(void *), void *arg)
{
	if (!fake_die_caught(fn, arg))
		return NULL;
	sg_heap_forget_calls();
	return &fake_die_info;
}

void
sg_heap_verify(void)
{
	struct verify_failure f[VERIFY_MAX_FAILURES];
	size_t n;

	proc_world_lock();
	n = verify_heap(&mheap_, mcache_self(), true, f);
	proc_world_unlock();
	if (n != 0 && sg_verify_dies)
		die(&(struct die_info){ .code = DIE_VERIFY, .api = "verify", .site = f[0].tag,
		    .addr = f[0].where });
	SG_CHECK(VERIFY, n == 0, "%zu failures, the first %s at %#lx", n, f[0].tag,
	    (unsigned long)f[0].where);
}
