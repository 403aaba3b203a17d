/* log.h - where lines for the user go.
 *
 * To the file of the option log, else to the report channel when the spanguard
 * command has left one open, else to descriptor 2. The file is opened for each
 * text and closed again, so a program that closes all descriptors and a forked
 * child change nothing; when it cannot be opened the next one in the list is
 * taken. Async-signal-safe, no lock, errno kept. */
#ifndef SPANGUARD_LOG_H
#define SPANGUARD_LOG_H

#include "print.h"

/* `path` must stay where it is. NULL or "stderr" is descriptor 2. */
void log_set_path(const char *path);

/* "FD:DEVICE:INODE" of a socket; used only while FD is still that socket, so a
 * program that reused the number for a file of its own gets nothing in it. */
void log_set_channel(const char *spec);

/* Writes the text and empties the buffer. */
void log_write(struct print *p);

#endif
