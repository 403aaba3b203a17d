/* completion.c - spanguard completion: a script for bash, from the same tables. */
#define _GNU_SOURCE
#include "tools.h"

#include <string.h>

#include "explain.h"
#include "../src/options.h"

static const char *const verbs[] = {
#define COMMAND(verb, arguments, help) #verb,
#include "commands.def"
};

static const char *const flags[] = {
#define RUN_OPTION(name, argument, help) argument "", name,
#include "run_options.def"
};

/* Both spellings of a name with a '_' are taken; the one with '-' is shown. */
static void
put_option(const char *name, const char *equals)
{
	fputs(" --", stdout);
	for (; *name != 0; name++)
		putchar(*name == '_' ? '-' : *name);
	fputs(equals, stdout);
}

static void
put_options(void)
{
	for (size_t i = 0; i + 1 < ARRAY_LEN(flags); i += 2)
		if (strcmp(flags[i + 1], "NAME") != 0)
			put_option(flags[i + 1], flags[i][0] != 0 ? "=" : "");
	for (size_t i = 0; i < OPTIONS_COUNT; i++)
		put_option(options_table[i].name, "=");
}

int
command_completion(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	fputs("# bash completion of spanguard; written by spanguard completion\n"
	    "_spanguard()\n{\n"
	    "\tlocal word=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]} list=\n"
	    "\tif [[ $word == -* ]]; then\n\t\tlist='", stdout);
	put_options();
	fputs("'\n\telif [[ $COMP_CWORD == 1 ]]; then\n\t\tlist='", stdout);
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		printf(" %s", verbs[i]);
	fputs("'\n\telif [[ $verb == explain ]]; then\n\t\tlist='", stdout);
	for (size_t i = 0; i < explanations_n; i++)
		printf(" %s", explanations[i].id);
	fputs("'\n\tfi\n"
	    "\tCOMPREPLY=($(compgen -W \"$list\" -- \"$word\"))\n"
	    "\t[[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace\n"
	    "}\n"
	    "complete -o default -F _spanguard spanguard\n", stdout);
	return fflush(stdout) != 0 ? EXIT_CANNOT : 0;
}
