/* early.c - malloc before main, in the order in which a program comes alive:
 * IFUNC resolver of the program, preinit_array, constructors, main. What was
 * allocated early must be whole, and can be freed, late. */
#include "check.h"

enum { STEPS = 4, OBJECTS = 50 };

static unsigned char *kept[STEPS][OBJECTS];
static int reached[STEPS];

static void
allocate(unsigned step)
{
	for (unsigned i = 0; i < OBJECTS; i++) {
		size_t n = (size_t)1 << (i % 16);
		unsigned char *p = malloc(n);
		if (p == NULL)
			_exit(90);
		for (size_t k = 0; k < n; k++)
			p[k] = (unsigned char)(step + i);
		kept[step][i] = p;
		free(opaque(malloc(n)));
	}
	reached[step] = 1;
}

static int
answer_is_42(void)
{
	return 42;
}

__attribute__((used)) static int (*resolve_answer(void))(void)
{
	allocate(0);
	return answer_is_42;
}

#ifndef NO_IFUNC
/* static: resolved through IRELATIVE, after the program's other relocations
 * (-DNO_IFUNC for a linker that puts it before them, where nothing can work). */
static int answer(void) __attribute__((ifunc("resolve_answer")));
#else
static int
answer(void)
{
	return resolve_answer()();
}
#endif

static void
preinit(void)
{
	allocate(1);
}

__attribute__((section(".preinit_array"), used)) static void (*preinit_entry)(void) = preinit;

__attribute__((constructor(101))) static void
first_constructor(void)
{
	allocate(2);
}

__attribute__((constructor)) static void
last_constructor(void)
{
	allocate(3);
}

int
main(void)
{
	check(answer() == 42);
	for (unsigned step = 0; step < STEPS; step++) {
		check(reached[step]);
		for (unsigned i = 0; i < OBJECTS; i++) {
			for (size_t k = 0; k < (size_t)1 << (i % 16); k++)
				check(kept[step][i][k] == (unsigned char)(step + i));
			free(kept[step][i]);
		}
	}
	churn(2, 1000);
	say("early\n");
	return 0;
}
