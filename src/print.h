/* print.h - text into a buffer of the caller, and the buffer out by write(2).
 *
 * What a report, a warning or a table of options is composed with: no malloc,
 * no stdio, no locale, errno kept, safe in a signal handler. A full buffer
 * swallows what follows and ends in a mark that says so (PRINT-1: len < cap and
 * buf[len] is 0 at all times). Not for two threads at once. */
#ifndef SPANGUARD_PRINT_H
#define SPANGUARD_PRINT_H

#include "base.h"

struct print {
	char *buf;
	size_t cap;        /* at least PRINT_MIN_BYTES */
	size_t len;
	bool truncated;
};

enum { PRINT_MIN_BYTES = 32 };

void print_init(struct print *p, char *buf, size_t cap);
void print_mem(struct print *p, const char *s, size_t bytes);
void print_str(struct print *p, const char *s);
void print_char(struct print *p, char c);
void print_dec(struct print *p, uint64_t v);
void print_sdec(struct print *p, int64_t v);
void print_grouped(struct print *p, uint64_t v);        /* 12,031 */
void print_bytes(struct print *p, uint64_t bytes);      /* 1 byte, 16,384 bytes */
void print_hex(struct print *p, uint64_t v);            /* 0x2a */
void print_hex_bytes(struct print *p, const uint8_t *b, size_t n);   /* 00ff.. */
void print_size(struct print *p, uint64_t bytes);       /* 16m, 4k, 17: exact */
void print_pad(struct print *p, size_t column);         /* blanks up to column of this line */

/* A string of the program's: control characters come out as \xNN, at most
 * max_bytes of it are shown. */
void print_quoted(struct print *p, const char *s, size_t max_bytes);

/* Writes all of bytes; false if the descriptor took only a part. */
bool print_write(int fd, const char *s, size_t bytes);
bool print_flush(struct print *p, int fd);

#endif
