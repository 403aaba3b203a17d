/* man.c - spanguard man SECTION: manual pages from the tables that the code uses.
 *
 *   1   this command: commands.def, run_options.def, the exit codes of tools.h
 *   5   src/options.def
 *   7   src/errors.def
 *
 * spanguard(3) comes from the public header by tools/man3.awk. Troff, man(7). */
#define _GNU_SOURCE
#include "tools.h"

#include <string.h>

#include "explain.h"
#include "../include/spanguard.h"
#include "../src/options.h"

/* ---- troff ---------------------------------------------------------------- */

/* Text as it is: nothing in it is a request. */
static void
put_text(const char *s)
{
	bool start = true;
	for (; *s != 0; s++) {
		if (start && (*s == '.' || *s == '\''))
			fputs("\\&", stdout);
		if (*s == '\\')
			fputs("\\e", stdout);
		else if (*s == '-')
			fputs("\\-", stdout);
		else
			putchar(*s);
		start = *s == '\n';
	}
}

static void
put_line(const char *s)
{
	put_text(s);
	putchar('\n');
}

static void
put_paragraph(const char *s)
{
	puts(".PP");
	put_line(s);
}

/* A term in bold, a word behind it in italics, and what they mean. */
static void
put_item(const char *term, const char *argument, const char *text)
{
	fputs(".TP\n\\fB", stdout);
	put_text(term);
	fputs("\\fR", stdout);
	if (argument[0] != 0) {
		fputs(" \\fI", stdout);
		put_text(argument);
		fputs("\\fR", stdout);
	}
	putchar('\n');
	put_line(text);
}

static void
put_example(const char *s)
{
	puts(".PP\n.in +4n\n.nf");
	put_line(s);
	puts(".fi\n.in");
}

static void
put_head(const char *title, const char *section, const char *name, const char *what)
{
	printf(".TH %s %s 2026-11-27 \"spanguard " SPANGUARD_VERSION "\"\n.SH NAME\n", title,
	    section);
	put_text(name);
	fputs(" \\- ", stdout);
	put_line(what);
}

/* ---- spanguard(1) ----------------------------------------------------------- */

struct named {
	const char *name, *argument, *help;
};

static const struct named commands[] = {
#define COMMAND(verb, arguments, help) { #verb, arguments, help },
#include "commands.def"
};

static const struct named run_options[] = {
#define RUN_OPTION(name, argument, help) { "--" name, argument, help },
#include "run_options.def"
};

static const struct named exit_codes[] = {
#define EXIT_CODE(constant, value, help) { #value, "", help },
#include "exit_codes.def"
};

static const struct named examples[] = {
	{ "spanguard --mode=debug ./prog", "",
	    "Find bugs: redzones, fill patterns, delayed reuse, stacks of allocation and free." },
	{ "spanguard --mode=guard ./prog", "",
	    "Stop at the very access that is out of bounds or to freed memory." },
	{ "spanguard --mode=debug --halt-on-error=0 --json=heap.jsonl -- make check", "",
	    "Go on after errors, report each place once, and keep the reports." },
	{ "spanguard report heap.jsonl --to sarif > heap.sarif", "",
	    "The same for a CI server." },
};

static void
put_named(const struct named *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		put_item(list[i].name, list[i].argument, list[i].help);
}

static void
page_command(void)
{
	put_head("SPANGUARD", "1", "spanguard",
	    "run a program with its malloc replaced, and say what is wrong with its heap");
	puts(".SH SYNOPSIS");
	for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
		fputs(i != 0 ? ".br\n\\fBspanguard\\fR \\fB" : "\\fBspanguard\\fR [\\fB", stdout);
		put_text(commands[i].name);
		fputs(i != 0 ? "\\fR \\fI" : "\\fR] \\fI", stdout);
		put_text(commands[i].argument);
		puts("\\fR");
	}
	puts(".SH DESCRIPTION");
	put_line("spanguard puts libspanguard.so before the malloc of a program that need not be "
	    "compiled again, stays while it runs, and prints each error with function, file and "
	    "line. Child processes are followed.");
	put_paragraph("Before the start it looks for reasons why that cannot work; afterwards it "
	    "makes sure that the program's malloc really is the one of the library. If not, it "
	    "says why and ends with status 125: there is no silent run without protection.");
	puts(".SH COMMANDS");
	put_named(commands, ARRAY_LEN(commands));
	puts(".SH OPTIONS OF RUN");
	put_named(run_options, ARRAY_LEN(run_options));
	puts(".SH EXIT STATUS");
	put_line("That of the program, except:");
	put_named(exit_codes, ARRAY_LEN(exit_codes));
	put_paragraph("A program that a signal ended, as every one is that ends with a report "
	    "(SIGABRT), ends this command by the same signal.");
	puts(".SH ENVIRONMENT");
	put_item("SPANGUARD_OPTIONS", "", "Options of the allocator, name=value:name=value; see "
	    "spanguard-options(5). Those of the command line count more.");
	put_item("SPANGUARD_LIB", "", "The library to use.");
	put_item("GITHUB_STEP_SUMMARY", "", "A file that report --to github appends a table to.");
	puts(".SH EXAMPLES");
	put_named(examples, ARRAY_LEN(examples));
	puts(".SH SEE ALSO\n\\fBspanguard\\fR(3), \\fBspanguard\\-options\\fR(5), "
	    "\\fBspanguard\\-errors\\fR(7)");
}

/* ---- spanguard-options(5) --------------------------------------------------- */

static const char modes[][10] = { "plain", "hardened", "strict", "debug", "guard" };

static void
put_option(const struct option_row *row)
{
	char range[512];
	struct print p;
	print_init(&p, range, sizeof(range));
	options_print_range(row, &p);
	put_item(row->name, range, row->help);
	fputs(".br\nDefault: ", stdout);
	put_text(row->def[0] != 0 ? row->def : "empty");
	for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
		const char *v = options_preset(modes[i], row);
		if (v == NULL || strcmp(v, row->def) == 0)
			continue;
		printf("; %s: ", modes[i]);
		put_text(v);
	}
	puts(".");
}

static void
page_options(void)
{
	put_head("SPANGUARD-OPTIONS", "5", "spanguard-options", "options of the spanguard allocator");
	puts(".SH SYNOPSIS");
	puts("\\fBSPANGUARD_OPTIONS\\fR=\\fIname\\fR=\\fIvalue\\fR:\\fIname\\fR=\\fIvalue\\fR ...\n.br\n"
	    "\\fBspanguard \\-\\-\\fIname\\fR=\\fIvalue\\fR \\fIPROGRAM\\fR");
	puts(".SH DESCRIPTION");
	put_line("What is named counts more than what the mode sets, and that more than the "
	    "default. Separators are ':', ',' and white space; a value with a separator in it goes "
	    "in quotes. Sizes take k, m, g and t, numbers may be hexadecimal, yes/no options take "
	    "0/1, no/yes, off/on and false/true.");
	put_paragraph("A wrong name or value is reported with the nearest right one and changes "
	    "nothing; the spanguard command does not start the program then (status 2). A set-uid "
	    "program ignores its environment.");
	puts(".SH OPTIONS");
	for (size_t i = 0; i < OPTIONS_COUNT; i++)
		put_option(&options_table[i]);
	puts(".SH SEE ALSO\n\\fBspanguard\\fR(1), \\fBspanguard\\-errors\\fR(7)");
}

/* ---- spanguard-errors(7) ---------------------------------------------------- */

static void
put_error(const struct explanation *e)
{
	fputs(".SS ", stdout);
	put_text(e->id);
	fputs(" \\- ", stdout);
	put_line(e->word);
	put_line(e->when);
	if (strcmp(e->word, e->word_cxx) != 0) {
		fputs("For C++ operators: ", stdout);
		put_text(e->word_cxx);
		puts(".");
	}
	puts(".PP\n\\fICause.\\fR");
	put_line(e->cause);
	puts(".PP\n\\fIExample.\\fR");
	put_example(e->example);
	puts(".PP\n\\fIFix.\\fR");
	put_line(e->fix);
}

static void
page_errors(void)
{
	put_head("SPANGUARD-ERRORS", "7", "spanguard-errors", "what spanguard reports, and what to do");
	puts(".SH DESCRIPTION");
	put_line("Each report names its kind by a code. spanguard explain CODE shows the same text "
	    "as this page. With halt_on_error=0 the program goes on after an error that it can "
	    "live with, and each place is reported once.");
	puts(".SH ERRORS");
	for (size_t i = 0; i < explanations_n; i++)
		put_error(&explanations[i]);
	puts(".SH SEE ALSO\n\\fBspanguard\\fR(1), \\fBspanguard\\-options\\fR(5)");
}

int
command_man(int argc, char **argv)
{
	const char *section = argc == 2 ? argv[1] : "";
	if (strcmp(section, "1") == 0)
		page_command();
	else if (strcmp(section, "5") == 0)
		page_options();
	else if (strcmp(section, "7") == 0)
		page_errors();
	else
		usage_error("man takes a section: 1 (this command), 5 (options) or 7 (errors)", "");
	return fflush(stdout) != 0 ? EXIT_CANNOT : 0;
}
