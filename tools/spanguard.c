/* spanguard.c - the command: finds the sub-command and does it.
 *
 *   run.c, attend.c    run a program on spanguard
 *   preflight.c        why that could not work
 *   symbolize.c        function, file and line for the frames of a report
 *   explain.c          the error table, for people
 *
 * A first argument that is no verb is the program of `spanguard run`. */
#define _GNU_SOURCE
#include "tools.h"

#include <stdlib.h>
#include <string.h>

#include "../include/spanguard.h"

struct command {
	const char *verb;
	const char *arguments;
	const char *help;
	int (*run)(int argc, char **argv);
};

static const struct command commands[] = {
#define COMMAND(verb, arguments, help) { #verb, arguments, help, command_##verb },
#include "commands.def"
};

static const struct run_option {
	const char *name, *argument, *help;
} run_options[] = {
#define RUN_OPTION(name, argument, help) { name, argument, help },
#include "run_options.def"
};

static const struct exit_code {
	int code;
	const char *help;
} exit_codes[] = {
#define EXIT_CODE(constant, value, help) { value, help },
#include "exit_codes.def"
};

_Noreturn void
usage_error(const char *what, const char *arg)
{
	fprintf(stderr, "spanguard: %s%s\nTry 'spanguard help'.\n", what, arg);
	exit(EXIT_USAGE);
}

static void
show_run_option(FILE *out, const struct run_option *o)
{
	char left[64];
	snprintf(left, sizeof(left), "--%s%s%s", o->name, o->argument[0] != 0 ? "=" : "",
	    o->argument);
	fprintf(out, "  %-15s %s\n", left, o->help);
}

void
show_help(FILE *out)
{
	fputs("usage: spanguard [run] [OPTION ..] [--] PROGRAM [ARG ..]\n", out);
	for (size_t i = 1; i < ARRAY_LEN(commands); i++)
		fprintf(out, "       spanguard %s%s%s\n", commands[i].verb,
		    commands[i].arguments[0] != 0 ? " " : "", commands[i].arguments);
	fputs("\n", out);
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		fprintf(out, "  %-10s %s\n", commands[i].verb, commands[i].help);
	fputs("\nOptions of run:\n", out);
	for (size_t i = 0; i < ARRAY_LEN(run_options); i++)
		show_run_option(out, &run_options[i]);
	fputs("\nExit code: that of PROGRAM, except\n", out);
	for (size_t i = 0; i < ARRAY_LEN(exit_codes); i++)
		fprintf(out, "  %-15d %s\n", exit_codes[i].code, exit_codes[i].help);
	fputs("A program that was killed by a signal, as every one is that ends with a report\n"
	    "(SIGABRT), ends this command by the same signal.\n", out);
}

int
command_help(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	show_help(stdout);
	return ferror(stdout) ? EXIT_CANNOT : 0;
}

static const struct command *
find_command(const char *verb)
{
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		if (strcmp(commands[i].verb, verb) == 0)
			return &commands[i];
	return NULL;
}

int
main(int argc, char **argv)
{
	if (argc < 2) {
		show_help(stderr);
		return EXIT_USAGE;
	}
	const struct command *c = find_command(argv[1]);
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
		return command_help(argc, argv);
	if (strcmp(argv[1], "--version") == 0)
		return puts("spanguard " SPANGUARD_VERSION) < 0;
	return c != NULL ? c->run(argc - 1, argv + 1) : command_run(argc, argv);
}
