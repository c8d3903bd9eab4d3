/* SPDX-License-Identifier: MIT
 * retarget.c - PTX text that NVIDIA's OpenCL compiler made for sm_NN, rewritten for sm_NNa. Text in, text out.
 *
 *   1. `.target sm_NN` becomes `.target sm_NNa`    instructions of that chip alone, such as wgmma, exist only there
 *   2. every mark `//@ ` is removed                what the first compiler took for comments becomes instructions
 *
 * The step is libxstream's (hfp/libxstream), which rewrites marked instructions in the same way. Anything unfamiliar is a refusal, because a kernel that keeps a
 * mark runs and computes nothing useful.
 */
#include "retarget.h"
#include "../mutant.h"
#include <stdbool.h>
#include <string.h>

static bool begins(const char *at, const char *end, const char *text)
{
    const size_t length = strlen(text);
    return (size_t)(end - at) >= length && !memcmp(at, text, length);
}

size_t retarget(const char *in, size_t length, char *out, const char **why)
{
    static const char target[] = ".target sm_", mark[] = "//@ ";
    const char *const end = in + (memchr(in, 0, length) ? strlen(in) : length);
    size_t written = 0;
    int targets = 0, marks = 0, versions = 0;
    for (const char *at = in; at < end;) {
        if (begins(at, end, ".version ")) versions++;
        if (begins(at, end, target)) {
            const char *const digits = at + strlen(target);
            const char *after = digits;
            while (after < end && *after >= '0' && *after <= '9') after++;
            memcpy(out + written, at, (size_t)(after - at));
            written += (size_t)(after - at);
            if (++targets > 1 || after == digits || (after < end && *after != ',' && *after != '\n' && *after != ' ' && *after != '\r')) {
                *why = "its binary is not for one plain sm_NN";
                return 0;
            }
            out[written++] = 'a';
            at = after;
        } else if (begins(at, end, mark) && !MUTANT(cl_retarget_mark)) {
            marks++;
            at += strlen(mark);
        } else {
            out[written++] = *at++;
        }
    }
    *why = targets != 1 || versions != 1 ? "its binary is not PTX text" : !marks ? "its compiler dropped the marked instructions" : NULL;
    if (*why) return 0;
    out[written] = '\0';
    return written;
}
