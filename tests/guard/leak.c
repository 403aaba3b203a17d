/* leak.c - guarded objects as a mark pass sees them: a list of N kept by a global, one
 * of no bytes, one kept by an interior pointer, one whose only pointer lies in an
 * object that promises to hold none, and a pair that is lost. */
#include <spanguard.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct node {
	struct node *next;
	char pad[33];
};

static struct node *list;
static void *nothing;
static char *inside;
static void **noscan;

__attribute__((noinline)) static struct node *
make_node(struct node *next)
{
	struct node *n = malloc(sizeof *n);
	n->next = next;
	return n;
}

__attribute__((noinline)) static void
make_reachable(size_t n)
{
	while (n-- > 0)
		list = make_node(list);
	nothing = malloc(0);
	inside = (char *)malloc(300001) + 150000;
	noscan = spanguard_malloc_noscan(sizeof(*noscan));
}

__attribute__((noinline)) static void
lose_pair(void)
{
	struct node *n = make_node(make_node(NULL));
	__asm__ volatile("" : : "r"(n) : "memory");
}

__attribute__((noinline)) static void
lose_in_noscan(void)
{
	*noscan = malloc(77);
}

__attribute__((noinline)) static void
clear_stack(void)
{
	volatile char b[8192];
	memset((char *)b, 0, sizeof b);
}

int
main(int argc, char **argv)
{
	make_reachable(strtoul(argv[argc - 1], NULL, 0));
	lose_pair();
	lose_in_noscan();
	clear_stack();
	printf("marks agree: %d\n", spanguard_mark_check());
	fflush(stdout);
	return 0;
}
