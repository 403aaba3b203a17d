/* min.c - sgfuzz min: the same failure with fewer and plainer ops.
 *
 * Each candidate runs in a child of its own. Two failures are the same if their
 * message is, numbers and addresses left out. Order: halves, quarters, ... single
 * ops out (ddmin); then every field of what is left to zero; then numbers down. */
#include "sgfuzz.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MESSAGE_BYTES = 1 << 16, SIGNATURE_BYTES = 256, SECONDS = 20 };

static const struct sg_harness *harness;
static char wanted[SIGNATURE_BYTES];
static unsigned long tried;

/* The line that says what happened, with " op=.." to the next ':' left out and
 * every number made one '#'. */
static void
signature(char *text, char *out)
{
	static const char *const marks[] = { "FAIL oracle=", "ERROR: AddressSanitizer",
		"runtime error", "fake_sys:", "fake_die:" };
	char *line = NULL;
	size_t n = 0;

	for (size_t i = 0; line == NULL && i < sizeof(marks) / sizeof(marks[0]); i++)
		line = strstr(text, marks[i]);
	if (line == NULL)
		line = text;
	char *op = strstr(line, " op=");
	char *colon = op != NULL ? strchr(op, ':') : NULL;
	if (colon != NULL)
		memmove(op, colon, strlen(colon) + 1);
	for (; *line != '\0' && *line != '\n' && n < SIGNATURE_BYTES - 1; line++) {
		if (!isxdigit((unsigned char)*line) || (isalpha((unsigned char)*line) &&
		    (n == 0 || out[n - 1] != '#')))
			out[n++] = *line;
		else if (n == 0 || out[n - 1] != '#')
			out[n++] = '#';
	}
	out[n] = '\0';
}

static _Noreturn void
child(int fd, const uint8_t *data, size_t bytes)
{
	dup2(fd, 2);
	alarm(SECONDS);
	sg_at.input = NULL;
	sgfuzz_run_once(harness, data, bytes);
	_exit(0);
}

/* Runs it; false if it passed, else out says how it failed. */
static bool
fails(const uint8_t *data, size_t bytes, char *out)
{
	static char text[MESSAGE_BYTES];
	size_t n = 0;
	ssize_t got;
	int fd[2], status;

	fflush(NULL);
	if (pipe(fd) != 0)
		exit(2);
	pid_t pid = fork();
	if (pid == 0)
		child(fd[1], data, bytes);
	close(fd[1]);
	while (n < sizeof(text) - 1 && (got = read(fd[0], text + n, sizeof(text) - 1 - n)) > 0)
		n += (size_t)got;
	text[n] = '\0';
	close(fd[0]);
	waitpid(pid, &status, 0);
	tried++;
	if (status == 0)
		return false;
	signature(text, out);
	return true;
}

static bool
same(const uint8_t *data, size_t bytes)
{
	char s[SIGNATURE_BYTES];

	return fails(data, bytes, s) && strcmp(s, wanted) == 0;
}

static size_t
drop_ops(uint8_t *data, size_t bytes)
{
	uint8_t try[SGF_MAX_BYTES];

	for (size_t n = sgf_ops(bytes) / 2 + 1; n > 0; n /= 2)
		for (size_t at = SGF_HEADER_BYTES; at < bytes; ) {
			size_t cut = n * SGF_OP_BYTES < bytes - at ? n * SGF_OP_BYTES : bytes - at;
			memcpy(try, data, at);
			memcpy(try + at, data + at + cut, bytes - at - cut);
			if (same(try, bytes - cut)) {
				bytes -= cut;
				memcpy(data, try, bytes);
			} else {
				at += cut;
			}
		}
	return bytes;
}

static void
plain_bytes(uint8_t *data, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++) {
		uint8_t old = data[i];
		bool op = i >= SGF_HEADER_BYTES && i % SGF_OP_BYTES == 0;
		data[i] = op ? old & 63 : 0;    /* of an op, the thread only */
		if (data[i] != old && !same(data, bytes))
			data[i] = old;
	}
}

int
sgfuzz_min(const struct sg_harness *h, const char *path, const char *out)
{
	static uint8_t data[SGF_MAX_BYTES];
	size_t n = sgfuzz_read(path, data), before;
	FILE *f;

	harness = h;
	if (!fails(data, n, wanted)) {
		fprintf(stderr, "sgfuzz: %s does not fail\n", path);
		return 1;
	}
	do {
		before = n;
		n = drop_ops(data, n);
		plain_bytes(data, n);
	} while (n < before);
	f = fopen(out, "wb");
	if (f == NULL || fwrite(data, 1, n, f) != n || fclose(f) != 0) {
		perror(out);
		return 2;
	}
	printf("%zu ops after %lu runs: %s\n", sgf_ops(n), tried, wanted);
	sgf_print(data, n, h->language, stdout);
	return 0;
}
