/* ci_items.c - see ci_items.h. */
#define _GNU_SOURCE
#include "ci_items.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "report_json.h"
#include "tools.h"

static const char *
text_of(const json_t *object, const char *key)
{
	const char *s = json_string_value(json_object_get(object, key));
	return s != NULL ? s : "";
}

/* ---- places -------------------------------------------------------------- */

/* A compiler may have written the name relative to where it ran, which is the
 * root if the file is there. */
struct ci_place
ci_place_of(json_t *frame, const char *root)
{
	struct ci_place p = { .line = (int)json_integer_value(json_object_get(frame, "line")),
		.column = (int)json_integer_value(json_object_get(frame, "column")) };
	char path[2 * PATH_MAX];
	const char *file = text_of(frame, "file");
	size_t n = strlen(root);
	snprintf(p.function, sizeof(p.function), "%s", text_of(frame, "symbol"));
	snprintf(path, sizeof(path), "%s/%s", root, file);
	if (file[0] == '/' && strncmp(file, root, n) == 0 && file[n] == '/') {
		p.relative = true;
		file += n + 1;
	} else if (file[0] != '/' && file[0] != 0) {
		p.relative = access(path, R_OK) == 0;
	}
	snprintf(p.file, sizeof(p.file), "%s", file);
	return p;
}

/* The first frame from the summary on that lies inside of the root; else the
 * summary's own. */
static struct ci_place
primary_place(json_t *frames, size_t summary, const char *root)
{
	size_t n = json_array_size(frames);
	struct ci_place first = ci_place_of(json_array_get(frames, summary), root);
	for (size_t i = summary; i < n; i++) {
		struct ci_place p = ci_place_of(json_array_get(frames, i), root);
		if (p.relative)
			return p;
		if (first.file[0] == 0 && p.file[0] != 0)
			first = p;
	}
	return first;
}

/* ---- items ---------------------------------------------------------------- */

static const struct explanation *
explanation_of(const char *id)
{
	for (size_t i = 0; i < explanations_n; i++)
		if (strcmp(explanations[i].id, id) == 0)
			return &explanations[i];
	return &explanations[0];
}

static void
out_of_memory(void)
{
	fputs("spanguard: out of memory\n", stderr);
	exit(EXIT_CANNOT);
}

struct list {
	struct ci_item *first, **end;
	size_t n;
};

static void
add(struct list *l, struct ci_item *item)
{
	for (struct ci_item *i = l->first; i != NULL; i = i->next) {
		if (strcmp(i->fingerprint, item->fingerprint) == 0) {
			i->count++;
			json_decref(item->stacks);
			free(item->message);
			free(item);
			return;
		}
	}
	*l->end = item;
	l->end = &item->next;
	l->n++;
}

static struct ci_item *
new_item(json_t *report, json_t *stacks, const char *fingerprint)
{
	struct ci_item *item = calloc(1, sizeof(*item));
	if (item == NULL)
		out_of_memory();
	item->report = report;
	item->stacks = json_incref(stacks);
	item->error = explanation_of(text_of(report, "id"));
	item->count = 1;
	snprintf(item->fingerprint, sizeof(item->fingerprint), "%s", fingerprint);
	return item;
}

static void
add_report(struct list *l, json_t *report, const char *root)
{
	json_t *stacks = json_object_get(report, "stacks");
	struct ci_item *item = new_item(report, stacks, text_of(report, "fingerprint"));
	const char *hint = text_of(report, "hint");
	json_t *frames = json_object_get(json_object_get(stacks,
	    text_of(report, "summary_stack")), "frames");
	size_t summary = (size_t)json_integer_value(json_object_get(report, "summary_frame"));
	if (asprintf(&item->message, "%s%s%s", text_of(report, "title"), hint[0] != 0 ? ": " : "",
	    hint) < 0)
		out_of_memory();
	item->place = primary_place(frames, summary, root);
	add(l, item);
}

struct ci_item *
ci_items(FILE *in, const char *name, const char *root, size_t *n)
{
	struct list l = { .end = &l.first };
	char *line = NULL;
	size_t cap = 0;
	for (unsigned number = 1; getline(&line, &cap, in) > 0; number++) {
		json_error_t error;
		if (line[strspn(line, " \t\r\n")] == 0)
			continue;
		json_t *report = json_loads(line, 0, &error);
		if (report == NULL) {
			fprintf(stderr, "spanguard: %s:%u: not JSON: %s\n", name, number, error.text);
			exit(EXIT_CANNOT);
		}
		if (!is_report(report))
			continue;
		symbolize_report(report);
		add_report(&l, report, root);
	}
	free(line);
	*n = l.n;
	return l.first;
}
