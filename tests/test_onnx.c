/* SPDX-License-Identifier: MIT
 * test_onnx.c - the node tests of the ONNX operators Attention, RotaryEmbedding and TensorScatter. The data is not part of this repository:
 * HEED_ONNX_DIR names its folder, else ../shared/data/onnx beside the repository; skipped, and said so, where neither is there.
 */
#include "counting.h"

static void onnx_row(heed_context *context, int32_t device, const char *device_name, const char *kernel, char **folders, int32_t count,
                     struct counts *counts)
{
    int32_t left_out = 0;
    for (int32_t n = 0; n < count; n++) {
        if (device && !test_samples(kernel, "onnx", n)) {
            left_out++;
            continue;
        }
        struct outcome outcome = {.verdict = VERDICT_FAIL};
        char line[1100];
        struct stored_case *stored = case_load(folders[n], n % 2 ? INSTANCE_GUARD_BEFORE : INSTANCE_GUARD_AFTER, outcome.message, sizeof outcome.message);
        if (stored && kernel && !stored->instance) { /* rotation and scatter: once per device, without a row's name */
            case_free(stored);
            continue;
        }
        if (stored) case_check(context, device, kernel, stored, &outcome);
        snprintf(line, sizeof line, "--cases %s", folders[n]);
        count_outcome(counts, device_name, kernel, line, &outcome);
        case_free(stored);
    }
    count_left_out(counts, kernel, left_out);
}

Test(onnx, every_device)
{
    heed_context *context = NULL;
    struct counts counts = {0};
    char why[256];
    int32_t count;
    const char *row, *folder = getenv("HEED_ONNX_DIR");
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 2};
    char **folders = cases_list(folder ? folder : HEED_SOURCE_DIR "/../shared/data/onnx", &count, why, sizeof why);
    if (!folders) {
        counts.skipped = 1;
        fprintf(stderr, "skipped: onnx: %s (HEED_ONNX_DIR names the folder)\n", why);
        count_end(&counts);
        return;
    }
    cr_assert(heed_context_create(&options, &context) == HEED_OK, "%s", heed_error_message());
    for (int32_t device = 0; device < heed_device_count(context); device++) {
        char name[32] = "cpu";
        if (device) snprintf(name, sizeof name, "opencl:%d", (int)device - 1);
        if (!test_wants_device(device ? "opencl" : "cpu")) continue;
        onnx_row(context, device, name, NULL, folders, count, &counts);
        for (int32_t n = 0; (row = device_row(context, device, n)); n++) onnx_row(context, device, name, row, folders, count, &counts);
    }
    heed_context_destroy(context);
    for (int32_t n = 0; n < count; n++) free(folders[n]);
    free(folders);
    count_end(&counts);
}
