/* explain.c - spanguard explain: the error table of the library, for people. */
#define _GNU_SOURCE
#include "tools.h"

#include <string.h>
#include <strings.h>

#include "explain.h"

const struct explanation explanations[] = {
#define ERROR(constant, id, word, word_cxx, when) { id, word, word_cxx, when,
#define EXPLAIN(constant, cause, example, fix) cause, example, fix },
#include "../src/errors.def"
};

const size_t explanations_n = ARRAY_LEN(explanations);

enum { COLUMNS = 79 };

/* Words of `text`, wrapped, each line behind an indent. */
static void
put_wrapped(FILE *out, const char *text, int indent)
{
	int column = 0;
	while (*text != 0) {
		int n = (int)strcspn(text, " ");
		if (column != 0 && column + 1 + n > COLUMNS) {
			fputc('\n', out);
			column = 0;
		}
		fprintf(out, "%*s%.*s", column == 0 ? indent : 1, "", n, text);
		column += (column == 0 ? indent : 1) + n;
		text += n;
		text += strspn(text, " ");
	}
	fputc('\n', out);
}

static void
put_example(FILE *out, const char *text)
{
	while (*text != 0) {
		int n = (int)strcspn(text, "\n");
		fprintf(out, "      %.*s\n", n, text);
		text += n + (text[n] != 0);
	}
}

static void
put_explanation(FILE *out, const struct explanation *e)
{
	fprintf(out, "%s  %s\n", e->id, e->word);
	if (strcmp(e->word, e->word_cxx) != 0)
		fprintf(out, "       %s for C++ operators\n", e->word_cxx);
	put_wrapped(out, e->when, 2);
	fputs("\nCause\n", out);
	put_wrapped(out, e->cause, 2);
	fputs("\nExample\n", out);
	put_example(out, e->example);
	fputs("\nFix\n", out);
	put_wrapped(out, e->fix, 2);
}

/* "SG-DF", "sg-df", "DF", "double-free": all that has this name. */
static bool
is_called(const struct explanation *e, const char *name)
{
	return strcasecmp(e->id, name) == 0 || strcasecmp(e->id + strlen("SG-"), name) == 0 ||
	    strcasecmp(e->word, name) == 0 || strcasecmp(e->word_cxx, name) == 0;
}

int
command_explain(int argc, char **argv)
{
	int shown = 0;
	if (argc > 2)
		usage_error("explain takes one code", "");
	for (size_t i = 0; i < explanations_n; i++) {
		const struct explanation *e = &explanations[i];
		if (argc < 2)
			printf("%-7s %-26s %s\n", e->id, e->word, e->when);
		else if (is_called(e, argv[1]) && shown++ == 0)
			put_explanation(stdout, e);
		else if (is_called(e, argv[1])) {
			fputs("\n", stdout);
			put_explanation(stdout, e);
		}
	}
	if (argc == 2 && shown == 0)
		usage_error("no error has this code; see 'spanguard explain': ", argv[1]);
	return ferror(stdout) ? EXIT_CANNOT : 0;
}
