/* report.h - what the user sees when something is wrong. die.h's die() and
 * die_corruption() are implemented in report.c; here is the rest. */
#ifndef SPANGUARD_REPORT_H
#define SPANGUARD_REPORT_H

#include "base.h"

struct die_info;

enum { REPORT_KEPT_BYTES = 4096 };

/* The beginning of the last report, for those who look at a core file. */
extern char spanguard_report[REPORT_KEPT_BYTES] __attribute__((visibility("default")));

/* The same report as die() writes, and then the caller goes on. Any number of
 * times. Async-signal-safe, errno kept. */
void report_and_go_on(const struct die_info *info);

/* The same, once for each place in the program, whatever halt_on_error says. */
void report_once(const struct die_info *info);

/* Where the calling thread is in the middle of a report: sends off what there is
 * of it and ends the process. Else it does nothing. */
void report_cut_short(void);

/* A text that is no end, put together by compose while nobody else reports, then
 * written to the log. compose may send off what it has by log_write. Not in a
 * signal handler. errno kept. */
struct print;
void report_note(void (*compose)(struct print *p, void *arg), void *arg);
/* For compose: the line's head; what an address is, with the stacks that a room
 * keeps of its object; the frames of a stack, and an empty line. */
void report_put_warning(struct print *p);
void report_put_error(struct print *p);
void report_put_address(struct print *p, uintptr_t addr);
void report_put_frames(struct print *p, const uintptr_t *pcs, size_t n);
/* A line of JSON for leaked objects of one place, if anybody wants it. */
struct leak_facts;
void report_leak_json(const struct leak_facts *leak);

/* One line on the log, "spanguard: warning: " and the strings up to NULL. Does
 * not end the process. errno is kept. */
void report_warn(const char *first, ...) __attribute__((sentinel));

/* Test builds: nothing was reported yet. */
void report_forget(void);

#endif
