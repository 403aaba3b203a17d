/* What libc itself allocates for the program can be freed by it, and the other
 * way round. */
#include "api.h"

#include <dirent.h>
#include <locale.h>
#include <regex.h>
#include <search.h>
#include <wchar.h>

int
main(void)
{
	char *line = NULL, *text = NULL, *buffer = malloc(1);
	size_t bytes = 0, room = 1;

	char *copy = strdup("a string that is copied");
	CHECK(copy != NULL && strcmp(copy, "a string that is copied") == 0);
	free(copy);
	copy = strndup("a string that is copied", 8);
	CHECK(copy != NULL && strcmp(copy, "a string") == 0);
	free(copy);
	wchar_t *wide = wcsdup(L"wide");
	CHECK(wide != NULL && wcscmp(wide, L"wide") == 0);
	free(wide);
	CHECK(asprintf(&line, "%s %d %2000d", "text", 42, 7) == 2008);
	free(line);

	FILE *f = open_memstream(&text, &bytes);
	CHECK(f != NULL);
	for (int i = 0; i < 20000; i++)
		CHECK(fprintf(f, "%d\n", i) > 0);
	CHECK(fclose(f) == 0);
	CHECK(bytes == 108890 && strncmp(text, "0\n1\n2\n", 6) == 0);

	/* getline reallocs a buffer of ours */
	CHECK(buffer != NULL);
	f = fmemopen(text, bytes, "r");
	CHECK(f != NULL);
	for (int i = 0; i < 20000; i++)
		CHECK(getline(&buffer, &room, f) > 0 && atoi(buffer) == i);
	fclose(f);
	free(buffer);
	free(text);

	char *path = realpath("/proc/self/../self", NULL);
	CHECK(path != NULL && strncmp(path, "/proc/", 6) == 0);
	free(path);
	path = getcwd(NULL, 0);
	CHECK(path != NULL && path[0] == '/');
	free(path);

	struct dirent **names;
	int n = scandir("/", &names, NULL, alphasort);
	CHECK(n > 2);
	for (int i = 0; i < n; i++)
		free(names[i]);
	free(names);

	regex_t regex;
	CHECK(regcomp(&regex, "^(a+|b*)[c-f]{2,5}$", REG_EXTENDED) == 0);
	CHECK(regexec(&regex, "aaacdef", 0, NULL, 0) == 0);
	regfree(&regex);
	CHECK(hcreate(1000) != 0);
	hdestroy();
	CHECK(setenv("API_TEST", "1", 1) == 0 && unsetenv("API_TEST") == 0);
	locale_t locale = newlocale(LC_ALL_MASK, "C", NULL);
	CHECK(locale != NULL);
	freelocale(locale);
	return 0;
}
