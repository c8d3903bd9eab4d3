/* SPDX-License-Identifier: MIT
 * emulated_rig.h - for the tests of rows whose hardware is not here: a context in which a tuning file asks for an emulation of it.
 */
#ifndef HEED_EMULATED_RIG_H
#define HEED_EMULATED_RIG_H

#include "counting.h"
#include <stdio.h>
#include <unistd.h>

/* A context whose OpenCL devices of type CPU have these settings of a tuning file; NULL without a device. HEED_TUNING stays set. */
static inline heed_context *emulated_context(const char *settings)
{
    char path[] = "/tmp/heed-tuning-XXXXXX";
    heed_context *context = NULL;
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 2};
    const int file = mkstemp(path);
    FILE *stream = file < 0 ? NULL : fdopen(file, "w");
    cr_assert(stream != NULL);
    fprintf(stream, "\"pocl-cpu\" %s limit=120\n\"intel-cpu\" %s limit=120\n\"generic-cpu\" %s limit=120\n", settings, settings, settings);
    cr_assert_eq(fclose(stream), 0);
    cr_assert_eq(setenv("HEED_TUNING", path, 1), 0);
    cr_assert_eq(heed_context_create(&options, &context), HEED_OK, "%s", heed_error_message());
    if (heed_device_count(context) == 1) { /* lists the devices, and reads the file */
        fprintf(stderr, "skipped: no OpenCL device\n");
        heed_context_destroy(context);
        context = NULL;
    }
    unlink(path);
    return context;
}

#endif
