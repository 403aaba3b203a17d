/* strings.c - text built by realloc: lines, documents, logs.
 *
 *   strings [documents [lines-per-document]]
 *
 * A line grows by appends of a word with a buffer that grows by half; the line
 * is trimmed to size by a shrinking realloc and kept. A document joins its lines
 * in one buffer that grows by exactly the line up to 16 KiB (the naive way: one
 * realloc per line) and by 4 KiB steps from there, is split into words again
 * (one block each), and these are counted and dropped. Of the documents, every
 * seventh stays alive until 200 more have been made. */
#include "bench.h"

struct text {
	char *p;
	size_t len, room;
};

static char *
text_room(char *p, size_t bytes)
{
	p = realloc(p, bytes);
	if (p == NULL)
		bench_fail("strings: realloc(%zu) returned NULL", bytes);
	return p;
}

static void
text_append(struct text *t, const char *s, size_t len)
{
	if (t->len + len + 1 > t->room) {
		t->room = t->room + t->room / 2 + len + 16;
		t->p = text_room(t->p, t->room);
	}
	memcpy(t->p + t->len, s, len);
	t->len += len;
	t->p[t->len] = '\0';
}

static struct text
line_new(struct rng *r, size_t *words)
{
	static const char letters[] = "the quick brown fox jumps over a lazy dog again and again";
	struct text line = {NULL, 0, 0};
	char word[24];
	size_t count = rng_range(r, 2, 24);

	for (size_t i = 0; i < count; i++) {
		size_t len = rng_range(r, 1, 20);

		for (size_t k = 0; k < len; k++) {
			char c = letters[rng_below(r, sizeof(letters) - 1)];

			word[k] = c == ' ' ? '_' : c;
		}
		word[len] = ' ';
		text_append(&line, word, len + 1);
	}
	*words += count;
	line.p = text_room(line.p, line.len + 1);
	return line;
}

enum { EXACT_BYTES = 16384, STEP_BYTES = 4096, KEPT = 200, KEEP_EVERY = 7 };

static char *
document_join(const struct text *lines, size_t n, size_t *len)
{
	char *doc = NULL;
	size_t room = 0;

	*len = 0;
	for (size_t i = 0; i < n; i++) {
		size_t want = *len + lines[i].len + 1;

		if (want > room) {
			room = want <= EXACT_BYTES ? want : want + STEP_BYTES;
			doc = text_room(doc, room);
		}
		memcpy(doc + *len, lines[i].p, lines[i].len + 1);
		*len += lines[i].len;
	}
	return doc;
}

static size_t
document_words(const char *doc, size_t len)
{
	size_t count = 0, room = 16;
	char **words = block_raw(room * sizeof(*words));

	for (size_t at = 0; at < len;) {
		const char *end = memchr(doc + at, ' ', len - at);
		size_t n = (size_t)(end - (doc + at));

		if (count == room) {
			room *= 2;
			words = realloc(words, room * sizeof(*words));
			if (words == NULL)
				bench_fail("strings: no memory for %zu words", room);
		}
		words[count] = block_raw(n + 1);
		memcpy(words[count], doc + at, n);
		words[count++][n] = '\0';
		at += n + 1;
	}
	for (size_t i = 0; i < count; i++)
		free(words[i]);
	free(words);
	return count;
}

int
main(int argc, char **argv)
{
	size_t documents = bench_arg(argc, argv, 1, 800);
	size_t nlines = bench_arg(argc, argv, 2, 1200);
	struct rng r = {2718};
	struct text *lines = block_raw(nlines * sizeof(*lines));
	char *kept[KEPT / KEEP_EVERY + 1] = {NULL};

	for (size_t d = 0; d < documents; d++) {
		char **keep = &kept[d / KEEP_EVERY % (KEPT / KEEP_EVERY + 1)];
		size_t words = 0, len;
		char *doc;

		for (size_t i = 0; i < nlines; i++)
			lines[i] = line_new(&r, &words);
		doc = document_join(lines, nlines, &len);
		if (document_words(doc, len) != words)
			bench_fail("strings: document %zu has lost words", d);
		for (size_t i = 0; i < nlines; i++)
			free(lines[i].p);
		if (d % KEEP_EVERY != 0) {
			free(doc);
			continue;
		}
		free(*keep);
		*keep = doc;
	}
	for (size_t i = 0; i < KEPT / KEEP_EVERY + 1; i++)
		free(kept[i]);
	free(lines);
	return 0;
}
