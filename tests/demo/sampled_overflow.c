/* Names of 32 letters fill their 32 bytes, and the zero behind them is one more.
 * It goes wrong each time, in somebody else's memory, and mostly shows nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct name {
	char *text;
};

static char *
text_new(void)
{
	return malloc(32);
}

static void
name_set(struct name *n, const char *letters, size_t count)
{
	n->text = text_new();
	if (n->text == NULL)
		exit(1);
	memcpy(n->text, letters, count);
	n->text[count] = 0;
}

int
main(void)
{
	for (int i = 0; i < 200000; i++) {
		struct name n;
		name_set(&n, "abcdefghijklmnopqrstuvwxyzabcdef", 32);
		free(n.text);
	}
	puts("nobody noticed");
	return 0;
}
