/* malloc_info writes well-formed XML whose root is <malloc>; options other than
 * 0 are EINVAL and write nothing. */
#include "api.h"

#include <malloc.h>

enum { DEPTH = 64, NAME = 64 };

static char text[1 << 20];

/* One tag, p behind its '<'. Returns the place behind its '>'. */
static const char *
read_tag(const char *p, char stack[DEPTH][NAME], int *depth)
{
	char name[NAME];
	int closing = *p == '/', n;

	p += closing;
	CHECK(sscanf(p, "%63[A-Za-z0-9_.:-]%n", name, &n) == 1);
	p += n;
	if (closing) {
		CHECK(*depth > 0 && strcmp(stack[*depth - 1], name) == 0);
		(*depth)--;
		CHECK(*p == '>');
		return p + 1;
	}
	while (*p == ' ' || *p == '\n') {
		p += strspn(p, " \n");
		if (*p == '/' || *p == '>')
			break;
		n = 0;
		CHECK(sscanf(p, "%*[A-Za-z0-9_.:-]=\"%n", &n) == 0 && n > 0);
		p += n;
		n = (int)strcspn(p, "\"<");
		CHECK(p[n] == '"');
		p += n + 1;
	}
	if (*p == '/') {
		CHECK(p[1] == '>');
		return p + 2;
	}
	CHECK(*p == '>' && *depth < DEPTH);
	strcpy(stack[(*depth)++], name);
	return p + 1;
}

static void
check_xml(const char *p)
{
	char stack[DEPTH][NAME];
	int depth = 0, roots = 0;

	for (; *p != '\0';) {
		if (*p != '<') {
			CHECK(*p != '&' && *p != '>');
			CHECK(depth > 0 || strchr(" \n\t", *p) != NULL);
			p++;
			continue;
		}
		if (depth == 0) {
			roots++;
			CHECK(strncmp(p, "<malloc ", 8) == 0);
		}
		p = read_tag(p + 1, stack, &depth);
	}
	CHECK(depth == 0 && roots == 1);
}

int
main(void)
{
	void *p = malloc(100000), *q = malloc(10);
	FILE *f = tmpfile();
	size_t n;

	CHECK(p != NULL && q != NULL && f != NULL);
	CHECK(malloc_info(1, f) == EINVAL);
	CHECK(malloc_info(-1, f) == EINVAL);
	CHECK(fflush(f) == 0 && ftell(f) == 0);
	CHECK(malloc_info(0, f) == 0);
	CHECK(fflush(f) == 0);
	rewind(f);
	n = fread(text, 1, sizeof(text) - 1, f);
	CHECK(n > 20 && n < sizeof(text) - 1);
	text[n] = '\0';
	check_xml(text);
	fclose(f);

	/* into a stream that itself allocates while it is written to */
	char *buffer = NULL;
	f = open_memstream(&buffer, &n);
	CHECK(f != NULL);
	CHECK(malloc_info(0, f) == 0);
	CHECK(fclose(f) == 0);
	check_xml(buffer);
	free(buffer);
	free(q);
	free(p);
	return 0;
}
