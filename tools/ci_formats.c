/* ci_formats.c - findings as SARIF 2.1.0, as JUnit XML, as GitHub annotations. */
#define _GNU_SOURCE
#include "ci_items.h"

#include <stdlib.h>
#include <string.h>

#include "tools.h"
#include "../include/spanguard.h"

static const char *const stack_titles[][2] = {
	{ "error", "where it was found" },
	{ "free", "where it was freed" },
	{ "alloc", "where it was allocated" },
};

/* ---- SARIF ----------------------------------------------------------------- */

static json_t *
text(const char *s)
{
	return json_pack("{ss}", "text", s);
}

static json_t *
rules(void)
{
	json_t *list = json_array();
	for (size_t i = 0; i < explanations_n; i++) {
		const struct explanation *e = &explanations[i];
		json_array_append_new(list, json_pack("{ss ss so so so s{ss}}", "id", e->id,
		    "name", e->word, "shortDescription", text(e->when),
		    "fullDescription", text(e->cause), "help", text(e->fix),
		    "defaultConfiguration", "level", "error"));
	}
	return list;
}

/* Bytes of a path that a URI cannot hold, by RFC 3986. */
static char *
uri_of(const struct ci_place *p)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	    "0123456789-._~/+@=:";
	char *uri = NULL;
	size_t bytes = 0;
	FILE *out = open_memstream(&uri, &bytes);
	if (out == NULL)
		exit(EXIT_CANNOT);
	if (p->file[0] == '/')
		fputs("file://", out);
	for (const char *s = p->file; *s != 0; s++)
		fprintf(out, strchr(plain, *s) != NULL ? "%c" : "%%%02X", (unsigned char)*s);
	fclose(out);
	return uri;
}

/* NULL: no file is known. */
static json_t *
physical(const struct ci_place *p)
{
	if (p->file[0] == 0)
		return NULL;
	char *uri = uri_of(p);
	json_t *artifact = json_pack("{ss}", "uri", uri);
	free(uri);
	if (p->relative)
		json_object_set_new(artifact, "uriBaseId", json_string("SRCROOT"));
	json_t *at = json_pack("{so}", "artifactLocation", artifact);
	if (p->line > 0) {
		json_t *region = json_pack("{si}", "startLine", p->line);
		if (p->column > 0)
			json_object_set_new(region, "startColumn", json_integer(p->column));
		json_object_set_new(at, "region", region);
	}
	return at;
}

static json_t *
location(const struct ci_place *p, const char *message)
{
	json_t *l = json_object();
	json_t *at = physical(p);
	if (at != NULL)
		json_object_set_new(l, "physicalLocation", at);
	if (p->function[0] != 0)
		json_object_set_new(l, "logicalLocations", json_pack("[{ss ss}]", "name",
		    p->function, "kind", "function"));
	if (message != NULL)
		json_object_set_new(l, "message", text(message));
	return l;
}

static json_t *
stack(json_t *frames, const char *title, const char *root)
{
	json_t *list = json_array();
	json_t *frame;
	size_t i;
	json_array_foreach(frames, i, frame) {
		struct ci_place p = ci_place_of(frame, root);
		const char *module = json_string_value(json_object_get(frame, "module"));
		json_t *f = json_pack("{so}", "location", location(&p, NULL));
		if (module != NULL)
			json_object_set_new(f, "module", json_string(module));
		json_array_append_new(list, f);
	}
	return json_pack("{so so}", "message", text(title), "frames", list);
}

/* Where freed and allocated: the first frame of the program there. */
static json_t *
related(const struct ci_item *item, const char *which, const char *title, const char *root)
{
	json_t *frames = json_object_get(json_object_get(item->stacks, which), "frames");
	json_t *frame;
	size_t i;
	json_array_foreach(frames, i, frame) {
		struct ci_place p = ci_place_of(frame, root);
		if (p.relative)
			return location(&p, title);
	}
	return NULL;
}

static json_t *
result(const struct ci_item *item, const char *root)
{
	json_t *stacks = json_array(), *others = json_array();
	for (size_t i = 0; i < ARRAY_LEN(stack_titles); i++) {
		json_t *s = json_object_get(item->stacks, stack_titles[i][0]);
		if (s == NULL)
			continue;
		json_array_append_new(stacks, stack(json_object_get(s, "frames"),
		    stack_titles[i][1], root));
		json_t *r = i != 0 ? related(item, stack_titles[i][0], stack_titles[i][1], root) :
		    NULL;
		if (r != NULL)
			json_array_append_new(others, r);
	}
	return json_pack("{ss si ss so s[o] so so si s{ss}}", "ruleId", item->error->id,
	    "ruleIndex", (int)(item->error - explanations), "level", "error",
	    "message", text(item->message), "locations", location(&item->place, NULL),
	    "relatedLocations", others, "stacks", stacks, "occurrenceCount", (int)item->count,
	    "partialFingerprints", "spanguardFingerprint/v1", item->fingerprint);
}

void
ci_put_sarif(const struct ci_item *items, const char *root, FILE *out)
{
	json_t *results = json_array();
	char base[PATH_MAX + 16];
	for (const struct ci_item *i = items; i != NULL; i = i->next)
		json_array_append_new(results, result(i, root));
	snprintf(base, sizeof(base), "file://%s/", root);
	json_t *run = json_pack("{s{s{ss ss so}} s{s{ss}} so}", "tool", "driver",
	    "name", "spanguard", "semanticVersion", SPANGUARD_VERSION, "rules", rules(),
	    "originalUriBaseIds", "SRCROOT", "uri", base, "results", results);
	json_t *log = json_pack("{ss ss s[o]}", "$schema",
	    "https://json.schemastore.org/sarif-2.1.0.json", "version", "2.1.0", "runs", run);
	json_dumpf(log, out, JSON_INDENT(2));
	fputc('\n', out);
	json_decref(log);
}

/* ---- JUnit ------------------------------------------------------------------ */

/* XML 1.0 has no way to say most control characters. */
static void
put_xml(const char *s, FILE *out)
{
	for (; *s != 0; s++) {
		switch (*s) {
		case '&': fputs("&amp;", out); break;
		case '<': fputs("&lt;", out); break;
		case '>': fputs("&gt;", out); break;
		case '"': fputs("&quot;", out); break;
		default:
			fputc((unsigned char)*s < 0x20 && *s != '\n' && *s != '\t' ? '?' : *s, out);
		}
	}
}

static void
put_frames(json_t *frames, const char *title, FILE *out)
{
	json_t *frame;
	size_t i;
	put_xml(title, out);
	fputs(":\n", out);
	json_array_foreach(frames, i, frame) {
		struct ci_place p = ci_place_of(frame, "/");
		const char *module = json_string_value(json_object_get(frame, "module"));
		fprintf(out, "  #%zu ", i);
		put_xml(p.function[0] != 0 ? p.function : "??", out);
		fputc(' ', out);
		put_xml(p.file[0] != 0 ? p.file : module != NULL ? module : "", out);
		fprintf(out, p.line > 0 ? ":%d\n" : "\n", p.line);
	}
}

static void
put_testcase(const struct ci_item *item, FILE *out)
{
	fputs("    <testcase classname=\"", out);
	put_xml(item->error->word, out);
	fputs("\" name=\"", out);
	put_xml(item->place.function[0] != 0 ? item->place.function : "??", out);
	fprintf(out, " %s\">\n      <failure type=\"%s\" message=\"", item->fingerprint,
	    item->error->id);
	put_xml(item->message, out);
	fputs("\">", out);
	for (size_t i = 0; i < ARRAY_LEN(stack_titles); i++) {
		json_t *s = json_object_get(item->stacks, stack_titles[i][0]);
		if (s != NULL)
			put_frames(json_object_get(s, "frames"), stack_titles[i][1], out);
	}
	fputs("</failure>\n    </testcase>\n", out);
}

/* Servers take a file without a test case for a run that did not happen. */
void
ci_put_junit(const struct ci_item *items, size_t n, FILE *out)
{
	fprintf(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
	    "<testsuites>\n  <testsuite name=\"spanguard\" tests=\"%zu\" failures=\"%zu\" "
	    "errors=\"0\">\n", n != 0 ? n : 1, n);
	if (n == 0)
		fputs("    <testcase classname=\"spanguard\" name=\"no heap errors\"/>\n", out);
	for (const struct ci_item *i = items; i != NULL; i = i->next)
		put_testcase(i, out);
	fputs("  </testsuite>\n</testsuites>\n", out);
}

/* ---- GitHub ------------------------------------------------------------------ */

static void
put_escaped(const char *s, bool property, FILE *out)
{
	for (; *s != 0; s++) {
		bool special = *s == '%' || *s == '\r' || *s == '\n' ||
		    (property && (*s == ':' || *s == ','));
		fprintf(out, special ? "%%%02X" : "%c", (unsigned char)*s);
	}
}

static void
put_annotation(const struct ci_item *item, FILE *out)
{
	const struct ci_place *p = &item->place;
	fputs("::error ", out);
	if (p->file[0] != 0) {
		fputs("file=", out);
		put_escaped(p->file, true, out);
		if (p->line > 0)
			fprintf(out, ",line=%d", p->line);
		if (p->line > 0 && p->column > 0)
			fprintf(out, ",col=%d", p->column);
		fputc(',', out);
	}
	fputs("title=", out);
	put_escaped(item->error->word, true, out);
	fprintf(out, " (%s)::", item->error->id);
	put_escaped(item->message, false, out);
	fputc('\n', out);
}

/* A table for the page of the workflow run. */
static void
put_step_summary(const struct ci_item *items)
{
	const char *path = getenv("GITHUB_STEP_SUMMARY");
	FILE *out = path != NULL && path[0] != 0 ? fopen(path, "ae") : NULL;
	if (out == NULL)
		return;
	fputs("### spanguard\n\n", out);
	if (items == NULL)
		fputs("No heap errors.\n", out);
	else
		fputs("| error | place | function | times |\n|---|---|---|---:|\n", out);
	for (const struct ci_item *i = items; i != NULL; i = i->next)
		fprintf(out, "| %s (%s) | %s:%d | `%s` | %u |\n", i->error->word, i->error->id,
		    i->place.file[0] != 0 ? i->place.file : "?", i->place.line,
		    i->place.function, i->count);
	fclose(out);
}

void
ci_put_github(const struct ci_item *items, FILE *out)
{
	for (const struct ci_item *i = items; i != NULL; i = i->next)
		put_annotation(i, out);
	put_step_summary(items);
}
