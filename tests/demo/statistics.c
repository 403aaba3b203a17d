/* Fills a heap with what a program has in it, and asks for its statistics: by
 * spanguard_stats_json where the library is there, by malloc_info everywhere. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t spanguard_stats_json(char *buf, size_t size) __attribute__((weak));

int
main(void)
{
	enum { OBJECTS = 20000 };
	static char *object[OBJECTS];
	static char json[4096];
	for (size_t i = 0; i < OBJECTS; i++) {
		size_t bytes = i % 100 == 0 ? 100000 : 16 + i * 37 % 2000;
		object[i] = malloc(bytes);
		if (object[i] == NULL)
			return 1;
		memset(object[i], 1, bytes);
	}
	for (size_t i = 0; i < OBJECTS; i += 3)
		free(object[i]);
	if (spanguard_stats_json != NULL && spanguard_stats_json(json, sizeof json) < sizeof json)
		puts(json);
	return malloc_info(0, stdout);
}
