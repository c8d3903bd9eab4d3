/* SPDX-License-Identifier: MIT
 * report.h - a mismatch in words, and as a stored case that `heed check --cases` replays.
 */
#ifndef HEED_REPORT_H
#define HEED_REPORT_H

#include "internal.h"

/* HEED_MISMATCH, with a message that holds the problem, the place, both values and the bound. */
heed_status report_mismatch(const struct call *got, const struct call *other, const heed_check_report *report);

/* One-line problem of this call: the plan's words with the batch's own sizes. */
size_t report_problem(const struct call *call, char *text, size_t capacity);

/* Stores the call (host memory) below context->report_dir in the format of doc/cases.md; a line in the log says where, or why not. The
 * message of the mismatch stays the thread's last one. */
void report_case(struct heed_context *context, const struct call *call, const heed_check_report *report);

#endif
