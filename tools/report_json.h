/* report_json.h - reports as JSON values (jansson). */
#ifndef SPANGUARD_TOOLS_REPORT_JSON_H
#define SPANGUARD_TOOLS_REPORT_JSON_H

#include <jansson.h>
#include <stdbool.h>

bool is_report(const json_t *j);

/* Names, files and lines for all its stacks; twice does no harm. */
void symbolize_report(json_t *report);

#endif
