/* A list whose first element was never on the heap is freed like the others. */
#include <stdlib.h>

struct node {
	struct node *next;
	int value;
};

static struct node first = { NULL, 1 };

static void
list_free(struct node *n)
{
	while (n != NULL) {
		struct node *next = n->next;
		free(n);
		n = next;
	}
}

int
main(void)
{
	struct node *second = calloc(1, sizeof *second);
	if (second == NULL)
		return 1;
	second->next = &first;
	list_free(second);
	return 0;
}
