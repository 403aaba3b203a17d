/* json.h - JSON into a print buffer: no malloc, no state of its own.
 *
 * A value that follows another gets its comma by looking at the last byte of the
 * buffer: none after '{', '[' and ':'. Strings that are not UTF-8 come out with
 * U+FFFD for each wrong byte, so the result is always valid. Addresses are
 * strings ("0x.."), because 64 bits do not fit into the numbers of many readers;
 * so are numbers above INT64_MAX.
 * A full buffer leaves JSON that is not whole: look at p->truncated. */
#ifndef SPANGUARD_JSON_H
#define SPANGUARD_JSON_H

#include "print.h"

void json_open(struct print *p, const char *key, char bracket);   /* '{' or '[' */
void json_close(struct print *p, char bracket);                   /* '}' or ']' */

/* key is NULL in an array. */
void json_str(struct print *p, const char *key, const char *value, size_t max_bytes);
void json_uint(struct print *p, const char *key, uint64_t value);
void json_int(struct print *p, const char *key, int64_t value);
void json_bool(struct print *p, const char *key, bool value);
void json_addr(struct print *p, const char *key, uint64_t value);

#endif
