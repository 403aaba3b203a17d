/* store.c - see store.h. The planted bug: `get` remembers the value it found so
 * that `show` can print it; `del` and `set` of the same key free that value, and
 * STORE_FIXED is what was forgotten. libcjson, which is not instrumented, then
 * reads the freed value. */
#include "store.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#ifdef STORE_FIXED
static const bool forgets = true;
#else
static const bool forgets = false;
#endif

struct store {
	cJSON *values;
	cJSON *last;            /* what `get` found, or NULL */
};

struct store *
store_new(void)
{
	struct store *s = malloc(sizeof(*s));
	if (s == NULL)
		return NULL;
	s->values = cJSON_CreateObject();
	s->last = NULL;
	return s;
}

void
store_free(struct store *s)
{
	cJSON_Delete(s->values);
	free(s);
}

static void
drop(struct store *s, const char *key)
{
	cJSON *gone = cJSON_DetachItemFromObjectCaseSensitive(s->values, key);
	if (forgets && s->last == gone)
		s->last = NULL;
	cJSON_Delete(gone);
}

static void
set(struct store *s, char *key)
{
	char *json = strchr(key, ' ');
	if (json == NULL)
		return;
	*json++ = '\0';
	cJSON *value = cJSON_Parse(json);
	if (value == NULL)
		return;
	drop(s, key);
	cJSON_AddItemToObject(s->values, key, value);
}

static void
show(const struct store *s)
{
	if (s->last != NULL)
		cJSON_free(cJSON_PrintUnformatted(s->last));
}

static bool
run_line(struct store *s, char *line)
{
	if (strncmp(line, "set ", 4) == 0)
		set(s, line + 4);
	else if (strncmp(line, "get ", 4) == 0)
		s->last = cJSON_GetObjectItemCaseSensitive(s->values, line + 4);
	else if (strncmp(line, "del ", 4) == 0)
		drop(s, line + 4);
	else if (strcmp(line, "show") == 0)
		show(s);
	else
		return false;
	return true;
}

size_t
store_run(struct store *s, const char *text, size_t bytes)
{
	size_t n = 0;
	char *copy = malloc(bytes + 1), *rest = copy, *line;
	if (copy == NULL)
		return 0;
	memcpy(copy, text, bytes);
	copy[bytes] = '\0';
	while ((line = strsep(&rest, "\n")) != NULL)
		n += run_line(s, line);
	free(copy);
	return n;
}
