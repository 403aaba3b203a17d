/* symbolize_json.c - the same for a report that is a line of JSON: each frame gets
 * "symbol", "file", "line" and "column", and inlined functions become frames of
 * their own with "inlined": true. A frame that names no module, or no build id, gets
 * them from "modules", by its pc. A line that is no report passes unchanged. */
#define _GNU_SOURCE
#include "tools.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "report_json.h"
#include "symbols.h"

struct frame_list {
	json_t *modules;         /* of the report, or NULL */
	json_t *frames;          /* what comes out */
	json_t *raw;             /* the frame that is being done */
	int depth;               /* functions of it so far */
};

/* The innermost function of a place is the one that is inlined into the next. */
static void
add_function(void *ctx, const char *name, struct place at)
{
	struct frame_list *l = ctx;
	json_t *f = json_copy(l->raw);
	char *plain = plain_name(name);
	json_object_set_new(f, "symbol", json_string_nocheck(plain));
	if (at.file != NULL)
		json_object_set_new(f, "file", json_string_nocheck(at.file));
	if (at.line > 0)
		json_object_set_new(f, "line", json_integer(at.line));
	if (at.line > 0 && at.column > 0)
		json_object_set_new(f, "column", json_integer(at.column));
	json_array_append_new(l->frames, f);
	l->depth++;
	free(plain);
}

/* All functions of one raw frame but the last were inlined. */
static void
mark_inlined(json_t *frames, size_t from)
{
	for (size_t i = from; i + 1 < json_array_size(frames); i++)
		json_object_set_new(json_array_get(frames, i), "inlined", json_true());
}

static uint64_t
address(const json_t *j, const char *key)
{
	const char *s = json_string_value(json_object_get(j, key));
	return s != NULL ? strtoull(s, NULL, 16) : 0;
}

static void
add_missing(json_t *frame, const char *key, json_t *value)
{
	if (value != NULL && json_object_get(frame, key) == NULL)
		json_object_set(frame, key, value);
}

static void
complete_frame(json_t *modules, json_t *frame)
{
	json_t *m;
	size_t i;
	char offset[24];
	uint64_t pc = address(frame, "pc");
	json_array_foreach(modules, i, m) {
		uint64_t start = address(m, "start");
		if (pc - start >= address(m, "end") - start)
			continue;
		snprintf(offset, sizeof(offset), "0x%" PRIx64, pc - address(m, "bias"));
		json_t *o = json_string(offset);
		add_missing(frame, "module", json_object_get(m, "path"));
		add_missing(frame, "offset", o);
		add_missing(frame, "build_id", json_object_get(m, "build_id"));
		json_decref(o);
	}
}

static void
add_frame(struct frame_list *l, json_t *raw)
{
	complete_frame(l->modules, raw);
	const char *path = json_string_value(json_object_get(raw, "module"));
	const char *offset = json_string_value(json_object_get(raw, "offset"));
	const char *build_id = json_string_value(json_object_get(raw, "build_id"));
	size_t before = json_array_size(l->frames);
	l->raw = raw;
	l->depth = 0;
	if (path != NULL && offset != NULL && json_object_get(raw, "line") == NULL) {
		struct object *o = object_of(path, build_id != NULL ? build_id : "");
		uint64_t at = strtoull(offset, NULL, 16);
		if (o->module != NULL)
			each_function(o, at, add_function, l);
		const char *name = l->depth == 0 ? object_symbol(o, at) : NULL;
		if (name != NULL)
			add_function(l, name, (struct place){ NULL, 0, 0 });
	}
	if (l->depth == 0)
		json_array_append(l->frames, raw);
	mark_inlined(l->frames, before);
}

/* Returns the new index of the frame that had index `marked`. */
static size_t
do_stack(json_t *report, json_t *stack, size_t marked)
{
	struct frame_list l = { json_object_get(report, "modules"), json_array(), NULL, 0 };
	json_t *raw;
	size_t i, now = 0;
	json_array_foreach(json_object_get(stack, "frames"), i, raw) {
		if (i == marked)
			now = json_array_size(l.frames);
		add_frame(&l, raw);
	}
	json_object_set_new(stack, "frames", l.frames);
	return now;
}

static void
do_token(json_t *report)
{
	const char *token = json_string_value(json_object_get(report, "dedup_token"));
	char *text = NULL;
	size_t bytes = 0;
	FILE *out = token != NULL ? open_memstream(&text, &bytes) : NULL;
	if (out == NULL)
		return;
	put_token(token, out);
	if (fclose(out) == 0)
		json_object_set_new(report, "dedup_token", json_string_nocheck(text));
	free(text);
}

static void
do_stacks(json_t *report, json_t *stacks)
{
	const char *which;
	json_t *stack;
	size_t summary = (size_t)json_integer_value(json_object_get(report, "summary_frame"));
	const char *its = json_string_value(json_object_get(report, "summary_stack"));
	json_object_foreach(stacks, which, stack) {
		bool found = its != NULL && strcmp(which, its) == 0;
		size_t now = do_stack(report, stack, found ? summary : 0);
		if (found)
			json_object_set_new(report, "summary_frame", json_integer((json_int_t)now));
	}
}

static void
do_neighbours(json_t *report)
{
	const char *side;
	json_t *n;
	json_object_foreach(json_object_get(report, "neighbours"), side, n) {
		json_t *alloc = json_object_get(n, "alloc");
		if (alloc != NULL)
			do_stack(report, alloc, 0);
	}
}

bool
is_report(const json_t *j)
{
	const char *schema = json_string_value(json_object_get(j, "schema"));
	return schema != NULL && strncmp(schema, "spanguard-report/", 17) == 0;
}

void
symbolize_report(json_t *report)
{
	do_stacks(report, json_object_get(report, "stacks"));
	do_neighbours(report);
	do_token(report);
}

void
symbolize_json(const char *line, FILE *out)
{
	json_error_t error;
	json_t *report = json_loads(line, 0, &error);
	if (!is_report(report)) {
		fprintf(out, "%s%s", line, strchr(line, '\n') != NULL ? "" : "\n");
		json_decref(report);
		return;
	}
	symbolize_report(report);
	json_dumpf(report, out, JSON_COMPACT);
	fputc('\n', out);
	json_decref(report);
}
