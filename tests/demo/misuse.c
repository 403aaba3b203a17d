/* misuse.c - Debian's libz and libsqlite3, called as they must not be.
 *
 *   misuse overflow   compress() is told of more room than the buffer has
 *   misuse stale      the text of a statement is read after sqlite3_finalize()
 *   misuse leak       the error message of sqlite3_exec() is dropped
 *   misuse right      the same three steps, done right */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static unsigned char *
pack(const unsigned char *text, unsigned long bytes, unsigned long room, unsigned long said)
{
	unsigned char *packed = malloc(room);
	unsigned long n = said;
	if (packed != NULL && compress(packed, &n, text, bytes) != Z_OK)
		n = 0;
	printf("packed %lu bytes into %lu\n", bytes, n);
	return packed;
}

/* Bytes that do not compress: the output is as long as the input. */
static void
overflow(int right)
{
	unsigned char text[10000];
	unsigned long whole = compressBound(sizeof(text));
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (unsigned char)(rand() >> 7);
	free(pack(text, sizeof(text), right ? whole : sizeof(text) / 2, whole));
}

static sqlite3 *
open_database(void)
{
	sqlite3 *db = NULL;
	if (sqlite3_open(":memory:", &db) != SQLITE_OK)
		exit(1);
	return db;
}

static unsigned
sum_of(const unsigned char *text)
{
	unsigned sum = 0;
	for (; *text != 0; text++)
		sum += *text;
	return sum;
}

static void
stale(int right)
{
	sqlite3 *db = open_database();
	sqlite3_stmt *row = NULL;
	sqlite3_prepare_v2(db, "SELECT printf('%.8000c', 'x')", -1, &row, NULL);
	if (sqlite3_step(row) != SQLITE_ROW)
		exit(1);
	const unsigned char *text = sqlite3_column_text(row, 0);
	if (!right)
		sqlite3_finalize(row);
	printf("sum %u\n", sum_of(text));
	if (right)
		sqlite3_finalize(row);
	sqlite3_close(db);
}

static void
leak(int right)
{
	sqlite3 *db = open_database();
	char *message = NULL;
	if (sqlite3_exec(db, "SELEKT 1", NULL, NULL, &message) != SQLITE_OK)
		puts(message);
	if (right)
		sqlite3_free(message);
	message = NULL;
	sqlite3_close(db);
}

int
main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "right";
	int right = strcmp(what, "right") == 0;
	if (right || strcmp(what, "overflow") == 0)
		overflow(right);
	if (right || strcmp(what, "stale") == 0)
		stale(right);
	if (right || strcmp(what, "leak") == 0)
		leak(right);
	return 0;
}
