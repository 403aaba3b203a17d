/* A pointer that walked through the string is freed where it ended up. */
#include <stdlib.h>
#include <string.h>

static void
skip_blanks(char **at)
{
	while (**at == ' ')
		(*at)++;
}

int
main(void)
{
	char *line = strdup("     indented by five");
	if (line == NULL)
		return 1;
	skip_blanks(&line);
	free(line);
	return 0;
}
