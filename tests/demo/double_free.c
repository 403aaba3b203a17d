/* Two owners of one buffer: both give it back. */
#include <stdlib.h>
#include <string.h>

struct message {
	char *text;
};

static void
message_free(struct message *m)
{
	free(m->text);
}

int
main(void)
{
	struct message a = { strdup("one text, two messages") };
	struct message b = a;
	message_free(&a);
	message_free(&b);
	return 0;
}
