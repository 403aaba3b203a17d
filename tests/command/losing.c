/* losing.c - loses a pair of objects for each line it reads; "keep" loses nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOINLINE __attribute__((noinline))

struct node {
	struct node *next;
	char bytes[40];
};

static NOINLINE struct node *
node(struct node *next)
{
	struct node *n = malloc(sizeof(*n));       /* lost here */
	n->next = next;
	return n;
}

static NOINLINE void
lose(void)
{
	struct node *n = node(node(NULL));         /* by lose */
	__asm__ volatile("" : : "r"(n) : "memory");
}

/* Stacks and registers keep what they saw last. */
static NOINLINE void
scrub(void)
{
	char room[16384];
	memset(room, 0, sizeof(room));
	__asm__ volatile("" : : "r"(room) : "memory");
}

int
main(int argc, char **argv)
{
	char line[64];
	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin) != NULL) {
		if (strcmp(line, "keep\n") != 0)
			lose();
		scrub();
		puts("done");
		fflush(stdout);
	}
	return argc > 1 ? atoi(argv[1]) : 0;
}
