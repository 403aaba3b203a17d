/* simreport.h - src/report.c under names of its own, beside the stand-ins for it
 * (tests/fake_die.c, fuzz/reporttext.c) that all other sources call. */
#ifndef SPANGUARD_FUZZ_SIMREPORT_H
#define SPANGUARD_FUZZ_SIMREPORT_H

#define die sim_die
#define die_corruption sim_die_corruption
#define complain sim_complain
#define report_and_go_on sim_report_and_go_on
#define report_once sim_report_once
#define report_cut_short sim_report_cut_short
#define report_warn sim_report_warn
#define report_note sim_report_note
#define report_put_warning sim_report_put_warning
#define report_put_error sim_report_put_error
#define report_put_address sim_report_put_address
#define report_put_frames sim_report_put_frames
#define report_leak_json sim_report_leak_json
#define report_forget sim_report_forget

#include "simlibc.h"

#endif
