/* simreport_api.h - what simreport.h makes of src/report.c's functions. */
#ifndef SPANGUARD_FUZZ_SIMREPORT_API_H
#define SPANGUARD_FUZZ_SIMREPORT_API_H

#include "die.h"
#include "print.h"

_Noreturn void sim_die(const struct die_info *info);
_Noreturn void sim_die_corruption(const char *tag, const void *where);
void sim_complain(const struct die_info *info);
void sim_report_and_go_on(const struct die_info *info);
void sim_report_once(const struct die_info *info);
void sim_report_cut_short(void);
void sim_report_warn(const char *first, ...) __attribute__((sentinel));
void sim_report_note(void (*compose)(struct print *p, void *arg), void *arg);
void sim_report_put_warning(struct print *p);
void sim_report_put_error(struct print *p);
void sim_report_put_address(struct print *p, uintptr_t addr);
void sim_report_put_frames(struct print *p, const uintptr_t *pcs, size_t n);
struct leak_facts;
void sim_report_leak_json(const struct leak_facts *leak);
void sim_report_forget(void);

extern char spanguard_report[];

#endif
