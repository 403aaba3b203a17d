/* malloc_stats writes something with figures to standard error, and nothing to
 * standard output. */
#include "api.h"

#include <malloc.h>

int
main(void)
{
	char text[8192];
	FILE *f = tmpfile();
	int out[2], real_stderr = dup(2);
	void *p = malloc(123456);

	CHECK(p != NULL && f != NULL && real_stderr >= 0);
	CHECK(pipe(out) == 0);
	CHECK(dup2(out[1], 1) == 1);
	fflush(stderr);
	CHECK(dup2(fileno(f), 2) == 2);
	malloc_stats();
	fflush(stderr);
	fflush(stdout);
	CHECK(dup2(real_stderr, 2) == 2);
	close(1);
	close(out[1]);
	CHECK(read(out[0], text, sizeof(text)) == 0);
	CHECK(lseek(fileno(f), 0, SEEK_SET) == 0);
	ssize_t n = read(fileno(f), text, sizeof(text) - 1);
	CHECK(n > 10);
	text[n] = '\0';
	CHECK(strpbrk(text, "123456789") != NULL);
	free(p);
	fclose(f);
	return 0;
}
