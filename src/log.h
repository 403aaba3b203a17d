/* log.h - where lines for the user go.
 *
 * Text: to the report channel when the spanguard command has left one open, else
 * to the file of the option log, else to descriptor 2. JSON: to the channel when
 * the command asked for it, else to the file of the option json, else nowhere.
 * The file is opened for each text and closed again, so a program that closes all
 * descriptors and a forked child change nothing; when it cannot be opened the next
 * one in the list is taken. Async-signal-safe, no lock, errno kept. */
#ifndef SPANGUARD_LOG_H
#define SPANGUARD_LOG_H

#include "print.h"

/* `path` must stay where it is. NULL, or for the log "stderr": no file. */
void log_set_path(const char *path);
void log_set_json_path(const char *path);

/* "FD:DEVICE:INODE" of a socket, and ":json" if the other end takes that, too;
 * used only while FD is still that socket, so a program that reused the number
 * for a file of its own gets nothing in it. */
void log_set_channel(const char *spec);

/* What does not change after those calls: seal.c makes it so. */
void *log_fixed(size_t *bytes);

/* What this thread writes goes to a descriptor of another process, which asked for
 * it, until pid is 0; if that process has gone, where it goes otherwise. */
void log_answer_to(int pid, int fd);

/* Writes the text and empties the buffer. */
void log_write(struct print *p);

bool log_wants_json(void);
/* One line or nothing: what did not fit into the buffer is not written. */
void log_write_json(struct print *p);

/* Did the spanguard command start this program? */
bool log_has_command(void);
/* To it, and to nobody else. */
void log_tell_command(struct print *p);

#endif
