/* markoutside.c - see markoutside.h. */
#include "markoutside.h"

#include <string.h>

#include "roots.h"

enum { WORD_BYTES = sizeof(uintptr_t), LONG_BYTES = 1 << 16 };

typedef uintptr_t __attribute__((may_alias)) word_t;

static bool
is_live(const struct guard_record *r)
{
	uint32_t state = a32_load_acquire(&r->state);
	return state == GUARD_LIVE || state == GUARD_REPORTED;
}

static void
enter_sampled(uintptr_t base, size_t bytes, bool noscan, void *arg)
{
	struct outside *o = arg;
	uint8_t flags = (uint8_t)(GUARD_WHITE | (noscan ? GUARD_NOSCAN : 0));
	if (o->n_sampled < ARRAY_LEN(o->sampled))
		o->sampled[o->n_sampled++] = (struct sampled_object){ base, bytes, flags };
}

static void
enter_guarded(struct guard_record *r, void *arg)
{
	(void)arg;
	r->flags &= (uint8_t)~(GUARD_WHITE | GUARD_RESCAN | GUARD_INDIRECT);
	if (is_live(r))
		r->flags |= GUARD_WHITE;
}

void
outside_fill(struct outside *o)
{
	uintptr_t lo, hi, from, end;
	o->n_sampled = 0;
	sample_each_live(enter_sampled, o);
	guardspace_each(enter_guarded, NULL);
	guardspace_bounds(&lo, &hi);
	sample_pool(&from, &end);
	if (o->n_sampled != 0) {
		lo = from < lo ? from : lo;
		hi = end > hi ? end : hi;
	}
	o->lo = lo;
	o->bytes = hi > lo ? hi - lo : 0;
}

static struct outside_object
of_record(struct guard_record *r)
{
	return (struct outside_object){ r->base, r->bytes, &r->flags };
}

static struct outside_object
of_sampled(struct sampled_object *s)
{
	return (struct outside_object){ s->base, s->bytes, &s->flags };
}

bool
outside_at(struct outside *o, uintptr_t addr, struct outside_object *out)
{
	struct guard_around near;
	for (size_t i = 0; i < o->n_sampled; i++)
		if (addr - o->sampled[i].base < o->sampled[i].bytes) {
			*out = of_sampled(&o->sampled[i]);
			return true;
		}
	if (!guardspace_find(addr, &near))
		return false;
	/* one of no bytes may begin where the guard behind it does */
	struct guard_record *r = near.in != NULL ? near.in : near.before;
	if (r == NULL || !is_live(r) || addr - r->base >= (r->bytes != 0 ? r->bytes : 1))
		return false;
	*out = of_record(r);
	return true;
}

struct each {
	void (*fn)(const struct outside_object *x, void *arg);
	void *arg;
};

static void
call_guarded(struct guard_record *r, void *arg)
{
	struct each *e = arg;
	struct outside_object x = of_record(r);
	if (is_live(r))
		e->fn(&x, e->arg);
}

void
outside_each(struct outside *o, void (*fn)(const struct outside_object *x, void *arg),
    void *arg)
{
	struct each e = { fn, arg };
	for (size_t i = 0; i < o->n_sampled; i++) {
		struct outside_object x = of_sampled(&o->sampled[i]);
		fn(&x, arg);
	}
	guardspace_each(call_guarded, &e);
}

struct words {
	void (*fn)(uintptr_t value, uintptr_t at, void *arg);
	void *arg;
};

__attribute__((no_sanitize("address", "thread"))) static void
each_word(uintptr_t from, uintptr_t to, void *arg)
{
	const struct words *w = arg;
	for (const word_t *p = (const word_t *)from; p < (const word_t *)to; p++)
		w->fn(*p, (uintptr_t)p, w->arg);
}

void
outside_each_word(const struct outside_object *x,
    void (*fn)(uintptr_t value, uintptr_t at, void *arg), void *arg)
{
	struct words w = { fn, arg };
	uintptr_t end = x->base + align_down(x->bytes, WORD_BYTES);
	if (x->base % WORD_BYTES == 0 && x->bytes >= LONG_BYTES) {
		roots_each_resident(x->base, end, each_word, &w);
		return;
	}
	for (uintptr_t at = x->base; at < end; at += WORD_BYTES) {
		uintptr_t value;
		memcpy(&value, (const void *)at, WORD_BYTES);
		fn(value, at, arg);
	}
}
