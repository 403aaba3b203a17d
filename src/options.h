/* options.h - the knobs of options.def as a struct, and how text gets into it.
 *
 * Order of what counts: the default, the preset of the mode, SPANGUARD_OPTIONS.
 * Bad input keeps what was there and is named on the log; under
 * SPANGUARD_STRICT_OPTIONS=1 the process ends with status 2 before main.
 * A set-uid process does not look at its environment. */
#ifndef SPANGUARD_OPTIONS_H
#define SPANGUARD_OPTIONS_H

#include "print.h"

enum { OPTION_STRING_BYTES = 256 };

#define OPTION_TYPE_BOOL(name) bool name
#define OPTION_TYPE_UINT(name) uint32_t name
#define OPTION_TYPE_U64(name) uint64_t name
#define OPTION_TYPE_SIZE(name) size_t name
#define OPTION_TYPE_ENUM(name) uint32_t name
#define OPTION_TYPE_STRING(name) char name[OPTION_STRING_BYTES]

/* Alone on its pages, so that it can be made read-only once it is filled in. */
struct options {
#define OPTION(name, kind, def, min, max, help) OPTION_TYPE_##kind(name);
#include "options.def"
} ALIGNED(4096);

enum options_choice {
#define CHOICE(option, constant, value, text) constant = value,
#include "options.def"
};

enum option_id {
#define OPTION(name, kind, def, min, max, help) OPTION_##name,
#include "options.def"
	OPTIONS_COUNT
};

enum option_kind {
	OPTION_BOOL, OPTION_UINT, OPTION_U64, OPTION_SIZE, OPTION_ENUM, OPTION_STRING,
};

enum option_origin { ORIGIN_DEFAULT, ORIGIN_MODE, ORIGIN_USER };

/* Texts are arrays, not pointers: the table needs no relocation, so it can be
 * read by a malloc that comes before the library is relocated. */
struct option_row {
	char name[28];
	char def[12];
	char help[128];
	uint8_t kind;             /* enum option_kind */
	uint16_t offset;          /* in struct options */
	uint64_t min;
	uint64_t max;
};

extern const struct option_row options_table[OPTIONS_COUNT];
extern struct options options;

/* Fills in `options` from the environment. Idempotent; the first call is made
 * by one thread. errno is kept. */
void options_init(void);
/* Test builds: the next call reads the environment again. */
void options_forget(void);

/* One NAME=VALUE:NAME=VALUE text over *o, which gets defaults and the preset of
 * the mode first. Complaints, one line each and beginning with `source`, go to
 * `out`; returns their number. `origin` (OPTIONS_COUNT bytes) may be NULL. */
unsigned options_parse(struct options *o, uint8_t *origin, const char *source,
    const char *text, struct print *out);

/* One option. False: nothing changed, a complaint is in `out`. */
bool options_set(struct options *o, const char *source, const char *name,
    size_t name_bytes, const char *value, size_t value_bytes, struct print *out);

/* The row of a name, or NULL. */
const struct option_row *options_find(const char *name, size_t bytes);

/* The name closest to a wrong one by edit distance, or NULL if none is near. */
const struct option_row *options_nearest(const char *name, size_t bytes);

/* What options_parse turns into the same struct again. */
void options_print(const struct options *o, struct print *out);
void options_print_value(const struct options *o, const struct option_row *row,
    struct print *out);

/* "plain|hardened", "1..100", "0|1": what the row takes. */
void options_print_range(const struct option_row *row, struct print *out);

/* What the mode sets the option to, or NULL if it leaves the default. */
const char *options_preset(const char *mode, const struct option_row *row);

/* The table with default, value and origin. */
void options_print_help(const struct options *o, const uint8_t *origin, struct print *out);

#endif
