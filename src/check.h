/* SPDX-License-Identifier: MIT
 * check.h - one problem, two computations, element by element against the bound.
 */
#ifndef HEED_CHECK_H
#define HEED_CHECK_H

#include "internal.h"

/* Compare the results that *got holds (host memory: o, lse, scores) with the reference over the same inputs, each element inside the
 * bound of its row in got->plan (by kind of step). Where `other` is given, its outputs are compared instead of the reference's, inside the
 * sum of both bounds. HEED_OK or HEED_MISMATCH with *report filled, or HEED_OUT_OF_MEMORY. */
heed_status check_call(const struct call *got, const struct call *other, heed_check_report *report);

/* validate_every: after a run, compute again by the other wing or the reference and compare. In *call the inputs are as they were before
 * the run (a host copy of q where o = q), the outputs as it left them. On HEED_MISMATCH a case is stored below context->report_dir. */
heed_status check_validate(struct heed_context *context, const struct call *call);

/* validate.c: the call's run, and with validate_every the comparison after it. */
heed_status run_validated(const struct call *call);

#endif
