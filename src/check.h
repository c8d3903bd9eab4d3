/* SPDX-License-Identifier: MIT
 * check.h - one problem, two computations, element by element against the bound.
 */
#ifndef HEED_CHECK_H
#define HEED_CHECK_H

#include "internal.h"

/* Compare the results that *got holds (host memory: o, lse, scores) with the reference over the same inputs, each element inside the
 * bound of its row in got->plan (by kind of step). Where `other` is given, its outputs are compared instead of the reference's, inside the sum of both bounds.
 * HEED_OK or HEED_MISMATCH with *report filled, or HEED_OUT_OF_MEMORY. */
heed_status check_call(const struct call *got, const struct call *other, heed_check_report *report);

/* validate_every, before the run: host copies of every input that the run may overwrite (o = q) or that lies on a device. */
struct check_saved;
heed_status check_save(struct heed_context *context, const struct call *call, struct check_saved **saved);
/* After the run: compute again by the other wing or the reference and compare. On HEED_MISMATCH a case is stored below report_dir. */
heed_status check_validate(struct heed_context *context, const struct call *call, const struct check_saved *saved);
void check_saved_delete(struct heed_context *context, struct check_saved *saved); /* NULL is fine */

#endif
