/* A session is closed, but its timer still fires and notes that it did. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct session {
	char user[24];
	char state[40];
};

static struct session *
session_open(const char *user)
{
	struct session *s = calloc(1, sizeof *s);
	if (s == NULL)
		exit(1);
	strncpy(s->user, user, sizeof s->user - 1);
	return s;
}

static void
timer_fires(struct session *s)
{
	strcpy(s->state, "expired");
}

int
main(void)
{
	struct session *timed = session_open("alice");
	free(timed);
	timer_fires(timed);
	for (int i = 0; i < 10000; i++)
		free(session_open("somebody"));
	puts("nobody noticed");
	return 0;
}
