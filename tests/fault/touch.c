/* touch.c - one access that a guard stops, chosen on the command line.
 *
 *   touch KIND read|write [ok]
 *
 *   zero               an object of no bytes
 *   over, under        right behind and right before a sampled object
 *   after              a sampled object that was freed
 *   slack              behind a sampled object, in its own page
 *   frees              a second free, and one of an address inside (sampled objects)
 *   large-over         one byte behind a large object
 *   large-under        one byte before it
 *   large-after        a large object that was freed
 *
 * "ADDR 0x.. BASE 0x.. BYTES n" goes to stdout before the access, which offend()
 * makes; give() allocates and take() frees. With "ok" the same steps are taken
 * with an access to a live byte, and the program says "fine" and exits 0. */
#include "fault.h"

static bool mistake = true;
static bool writes;

__attribute__((noinline)) static void
offend(volatile char *p)
{
	if (writes)
		*p = 1;
	else
		keep_char(*p);
	barrier();
}

__attribute__((noinline)) static char *
give(size_t bytes)
{
	char *p = opaque(malloc(bytes));
	check(p != NULL);
	return p;
}

__attribute__((noinline)) static void
take(void *p)
{
	free(opaque(p));
	barrier();
}

static void
announce(const char *at, const char *base, size_t bytes)
{
	say("ADDR %p BASE %p BYTES %zu\n", (const void *)at, (const void *)base, bytes);
}

static int
zero(void)
{
	char *p = give(0);
	char *q = give(mistake ? 0 : 1);
	check(p != q);
	check(malloc_usable_size(p) == 0);
	announce(q, q, 0);
	offend(q);
	take(p);
	take(q);
	return 0;
}

/* A sampled object is as long as was asked for; one of the class has more. */
enum { ODD_BYTES = 272, HELD = 4096 };

static char *
sampled(bool at_end)
{
	static char *held[HELD];
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	for (size_t i = 0; i < HELD; i++) {
		held[i] = give(ODD_BYTES);
		uintptr_t edge = (uintptr_t)held[i] + (at_end ? ODD_BYTES : 0);
		if (edge % page == 0 && malloc_usable_size(held[i]) == ODD_BYTES)
			return held[i];
	}
	fail("no sampled object");
}

/* An object is given up when it is reported; so each has its own. */
static int
wrong_frees(void)
{
	char *p = sampled(false), *q = sampled(true);
	announce(p, p, ODD_BYTES);
	take(p);
	if (mistake)
		take(p);
	if (mistake)
		take(q + 16);
	take(q);
	check(opaque(realloc(sampled(true), 100000)) != NULL);
	return 0;
}

/* A write that stays inside of the object's pages. */
static int
slack(void)
{
	char *p = sampled(false);
	announce(p, p, ODD_BYTES);
	memset(p, 7, ODD_BYTES);
	if (mistake)
		memcpy(p + ODD_BYTES + 3, "spilt", 5);
	take(p);
	return 0;
}

static int
beside(bool behind)
{
	size_t bytes = ODD_BYTES;
	char *p = sampled(behind);
	char *at = behind ? p + bytes : p - 1;
	memset(p, 7, bytes);
	announce(at, p, bytes);
	offend(mistake ? at : p);
	take(p);
	return 0;
}

static int
after(void)
{
	char *p = sampled(false);
	memset(p, 7, ODD_BYTES);
	if (mistake)
		take(p);
	announce(p + 100, p, ODD_BYTES);
	offend(p + 100);
	if (!mistake)
		take(p);
	return 0;
}

static int
large(const char *how)
{
	size_t bytes = 256 << 10;
	char *p = give(bytes);
	char *at = strcmp(how, "over") == 0 ? p + bytes : strcmp(how, "under") == 0 ? p - 1 : p + 5000;
	bool freed = mistake && strcmp(how, "after") == 0;
	if (freed)
		take(p);
	announce(at, p, bytes);
	offend(mistake ? at : p);
	if (!freed)
		take(p);
	return 0;
}

int
main(int argc, char **argv)
{
	check(argc >= 3);
	mistake = argc < 4;
	writes = strcmp(argv[2], "write") == 0;
	int r = -1;
	if (strcmp(argv[1], "zero") == 0)
		r = zero();
	else if (strcmp(argv[1], "over") == 0)
		r = beside(true);
	else if (strcmp(argv[1], "under") == 0)
		r = beside(false);
	else if (strcmp(argv[1], "after") == 0)
		r = after();
	else if (strcmp(argv[1], "slack") == 0)
		r = slack();
	else if (strcmp(argv[1], "frees") == 0)
		r = wrong_frees();
	else if (strncmp(argv[1], "large-", 6) == 0)
		r = large(argv[1] + 6);
	check(r == 0);
	say("fine\n");
	return 0;
}
