/* show_options.c - the option table of the library, for people. */
#define _GNU_SOURCE
#include "tools.h"

#include <string.h>

#include "../src/options.h"

static char table_text[65536];

static const char modes[][10] = { "plain", "hardened", "strict", "debug", "guard" };

static void
preset_cell(struct print *p, const char *mode, const struct option_row *row)
{
	const char *v = options_preset(mode, row);
	print_str(p, v != NULL ? v : "");
	print_str(p, " | ");
}

static void
markdown_row(struct print *p, const struct option_row *row)
{
	print_str(p, "| `");
	print_str(p, row->name);
	print_str(p, "` | ");
	size_t range = p->len;
	options_print_range(row, p);
	/* A bar would end the cell. */
	for (char *c = p->buf + range; *c != 0; c++) {
		if (*c == '|')
			*c = '/';
	}
	print_str(p, " | ");
	print_str(p, row->def);
	print_str(p, " | ");
	for (size_t i = 0; i < ARRAY_LEN(modes); i++)
		preset_cell(p, modes[i], row);
	print_str(p, row->help);
	print_str(p, " |\n");
}

/* Names, values and help texts hold neither quote nor backslash. */
static void
json_text(struct print *p, const char *key, const char *value)
{
	print_char(p, '"');
	print_str(p, key);
	print_str(p, "\": \"");
	print_str(p, value);
	print_char(p, '"');
}

static void
json_row(struct print *p, const struct option_row *row)
{
	char range[256];
	struct print r;
	print_init(&r, range, sizeof(range));
	options_print_range(row, &r);
	print_str(p, "{");
	json_text(p, "name", row->name);
	print_str(p, ", ");
	json_text(p, "takes", range);
	print_str(p, ", ");
	json_text(p, "default", row->def);
	print_str(p, ", \"modes\": {");
	for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
		const char *v = options_preset(modes[i], row);
		print_str(p, i != 0 ? ", " : "");
		json_text(p, modes[i], v != NULL ? v : row->def);
	}
	print_str(p, "}, ");
	json_text(p, "help", row->help);
	print_str(p, "}");
}

/* The table for scripts: ci/rooms, bench/rooms.py. */
static int
options_json(void)
{
	struct print p;
	print_init(&p, table_text, sizeof(table_text));
	print_str(&p, "[");
	for (size_t i = 0; i < OPTIONS_COUNT; i++) {
		print_str(&p, i != 0 ? ",\n " : "\n ");
		json_row(&p, &options_table[i]);
	}
	print_str(&p, "\n]\n");
	return print_flush(&p, 1) ? 0 : EXIT_CANNOT;
}

int
command_options(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "--json") == 0)
		return options_json();
	bool markdown = argc > 1 && strcmp(argv[1], "--markdown") == 0;
	static struct options o;
	static uint8_t origin[OPTIONS_COUNT];
	struct print p;
	print_init(&p, table_text, sizeof(table_text));
	if (!markdown) {
		options_parse(&o, origin, "spanguard", "", &p);
		options_print_help(&o, origin, &p);
		return print_flush(&p, 1) ? 0 : EXIT_CANNOT;
	}
	print_str(&p, "# Options\n\n"
	    "<!-- Written by `spanguard options --markdown` from src/options.def. -->\n\n"
	    "Set them with `SPANGUARD_OPTIONS=\"name=value:name=value\"` or, with the `spanguard` command, as\n"
	    "`--name=value`. What is named counts more than what the mode sets, and that more than the default.\n"
	    "Separators are `:`, `,` and white space; a value with a separator in it goes in quotes. Sizes take\n"
	    "`k`, `m`, `g` and `t`, numbers may be hexadecimal, yes/no options take `0/1`, `no/yes`, `off/on` and\n"
	    "`false/true`. A wrong name or value is reported with the nearest right one and changes nothing; the\n"
	    "`spanguard` command does not start the program then (exit code 2). A set-uid program ignores\n"
	    "its environment.\n\n"
	    "| option | takes | default |");
	for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
		print_str(&p, " `mode=");
		print_str(&p, modes[i]);
		print_str(&p, "` |");
	}
	print_str(&p, " what it does |\n|---|---|---|---|");
	for (size_t i = 0; i < ARRAY_LEN(modes); i++)
		print_str(&p, "---|");
	print_char(&p, '\n');
	for (size_t i = 0; i < OPTIONS_COUNT; i++)
		markdown_row(&p, &options_table[i]);
	return print_flush(&p, 1) ? 0 : EXIT_CANNOT;
}

