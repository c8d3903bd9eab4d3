/* SPDX-License-Identifier: MIT
 * test_opencl_faults.c - every OpenCL call of ours made to fail, by the layer of fault_layer.c: a clean status, no crash, no object left
 * alive, heed_forward answered by the CPU, and the same context works afterwards. Also as a spy: what a run may not do.
 */
#include "fault_rig.h"
#include <time.h>
#include <unistd.h>

static const int codes[] = {CL_MEM_OBJECT_ALLOCATION_FAILURE, CL_OUT_OF_RESOURCES, CL_OUT_OF_HOST_MEMORY, CL_BUILD_PROGRAM_FAILURE,
                            CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST, CL_INVALID_COMMAND_QUEUE, CL_INVALID_KERNEL_NAME,
                            CL_INVALID_WORK_GROUP_SIZE, -9999};
enum { CODES = sizeof codes / sizeof *codes };

/* ---- from the first call on --------------------------------------------------------- */

/* A context's whole life with one call failing. Returns how often the entry point was called. */
static long life(struct fault_state *f, struct rig *r, const char *only, long at, int code, bool forever)
{
    heed_context *context = plain_context(0);
    arm(f, only, at, code, forever);
    const int32_t device = cl_test_device(context);
    if (device > 0) make_right(r, context, device, false); /* with the CPU's help, if need be */
    const long calls = atomic_load(&f->calls);
    cr_assert(at != 1 || atomic_load(&f->hits) > 0, "%s never failed", only);
    disarm(f);
    if (device > 0 && !forever) make_right(r, context, device, false);
    heed_context_destroy(context);
    nothing_alive(f, only, at);
    return calls;
}

Test(opencl_faults, every_entry_point_may_fail, .timeout = 600)
{
    static const char *const entries[] = {"clGetPlatformIDs",
                                          "clGetPlatformInfo",
                                          "clGetDeviceIDs",
                                          "clGetDeviceInfo",
                                          "clCreateContext",
                                          "clCreateCommandQueue",
                                          "clCreateBuffer",
                                          "clCreateProgramWithSource",
                                          "clBuildProgram",
                                          "clGetProgramBuildInfo",
                                          "clCreateKernel",
                                          "clGetKernelWorkGroupInfo",
                                          "clSetKernelArg",
                                          "clEnqueueNDRangeKernel",
                                          "clEnqueueMapBuffer",
                                          "clEnqueueUnmapMemObject",
                                          "clFlush",
                                          "clFinish",
                                          "clWaitForEvents",
                                          "clSetEventCallback",
                                          "clGetEventInfo"};
    struct fault_state *f = layer();
    struct rig *r = rig_new(5, 21, 30);
    long all = life(f, r, "", 0, 0, false);
    if (all == 0) cr_skip_test("the loader takes no layers, or there is no OpenCL");
    for (size_t n = 0; n < sizeof entries / sizeof *entries; n++) {
        const long calls = life(f, r, entries[n], 0, 0, false);
        const long at[] = {1, (calls + 1) / 2, calls};
        for (int i = 0; i < 3 && calls > 0; i++)
            if (i == 0 || at[i] != at[i - 1]) life(f, r, entries[n], at[i], codes[(n + (size_t)i) % CODES], i == 1);
    }
    rig_free(r);
}

/* ---- in a run --------------------------------------------------------------------------- */

/* Every call of heed_forward with a ready plan, every code, once and for ever. The calls are those of a run alone, so this is quick. */
static void run_faults(bool copies, uint32_t flags)
{
    struct fault_state *f = layer();
    struct rig *r = rig_new(2, 1100, 31);
    struct device *inside;
    heed_context *context = plain_context(flags);
    const int32_t device = cl_test_device(context);
    if (device < 0 || atomic_load(&f->calls) == 0) {
        heed_context_destroy(context);
        cr_skip_test("the loader takes no layers, or there is no OpenCL");
    }
    make_right(r, context, device, copies);
    cr_assert_eq(device_get(context, device, &inside), HEED_OK);
    arm(f, "", 0, 0, false);
    make_right(r, context, device, copies);
    const long calls = atomic_load(&f->calls);
    long missed = 0;
    cr_assert_gt(calls, 20);
    for (long at = 1; at <= calls; at++) {
        const int code = codes[at % CODES];
        for (int forever = 0; forever < 2; forever++) {
            /* one n in eight for ever, each of those gives the device a moment to settle */
            if (forever && at % 8) continue;
            rig_clear(r);
            arm(f, "", at, code, forever);
            const heed_status status = heed_forward(context, device, &r->desc, &r->lengths, &r->tensors);
            const long hits = atomic_load(&f->hits);
            disarm(f);
            missed += hits == 0; /* a run that waited less often has fewer calls */
            if (flags & HEED_NO_FALLBACK)
                cr_assert(status == HEED_OK || status == HEED_DEVICE_FAILED || status == HEED_OUT_OF_MEMORY, "call %ld: %s: %s", at,
                          heed_status_string(status), heed_error_message());
            else
                cr_assert_eq(status, HEED_OK, "call %ld: %s", at, heed_error_message());
            if (status == HEED_OK) cr_assert(rig_right(r, r->o, r->lse), "call %ld, code %d", at, code);
            atomic_store(&cl_device_of(inside)->lost, 0); /* as a new context would be */
            atomic_store(&cl_device_of(inside)->failed_waits, 0);
            make_right(r, context, device, copies);
        }
    }
    cr_assert(missed <= calls / 10, "%ld of %ld faults did not happen", missed, calls);
    heed_context_destroy(context);
    nothing_alive(f, "all of", calls);
    rig_free(r);
}

Test(opencl_faults, the_cpu_answers_for_a_failing_run, .timeout = 600) { run_faults(false, 0); }
Test(opencl_faults, the_cpu_answers_for_a_failing_run_by_copies, .timeout = 600) { run_faults(true, 0); }
Test(opencl_faults, without_fallback_the_status_says_it, .timeout = 600) { run_faults(false, HEED_NO_FALLBACK); }

/* Three failed waits in a row, and the device is not asked again. */
Test(opencl_faults, a_device_that_fails_for_ever_is_lost, .timeout = 300)
{
    struct fault_state *f = layer();
    struct rig *r = rig_new(5, 21, 32);
    struct device *inside;
    heed_context *context = plain_context(HEED_NO_FALLBACK);
    const int32_t device = cl_test_device(context);
    if (device < 0 || atomic_load(&f->calls) == 0) {
        heed_context_destroy(context);
        cr_skip_test("the loader takes no layers, or there is no OpenCL");
    }
    make_right(r, context, device, false);
    cr_assert_eq(device_get(context, device, &inside), HEED_OK);
    for (int n = 0; n < 3; n++) {
        cr_assert_eq(atomic_load(&cl_device_of(inside)->lost), 0, "after %d", n);
        arm(f, "clWaitForEvents", 1, CL_OUT_OF_RESOURCES, true);
        cr_assert_eq(heed_forward(context, device, &r->desc, &r->lengths, &r->tensors), HEED_DEVICE_FAILED);
        disarm(f);
    }
    cr_assert_eq(atomic_load(&cl_device_of(inside)->lost), CL_OUT_OF_RESOURCES);
    arm(f, "", 0, 0, false);
    cr_assert_eq(heed_forward(context, device, &r->desc, &r->lengths, &r->tensors), HEED_DEVICE_FAILED);
    cr_assert_eq(atomic_load(&f->calls), 0, "a lost device is not asked");
    heed_context_destroy(context);
    nothing_alive(f, "lost", 0);
    rig_free(r);
}

/* ---- in a probe ------------------------------------------------------------------------------ */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A tuning file that gives probes five seconds (on a busy machine up to three times as many). */
static void short_limit(char path[])
{
    static const char *const families[] = {"pocl-cpu", "intel-cpu", "generic-cpu", "generic-gpu", "nvidia", "amd", "intel", "adreno", "mali"};
    const int handle = mkstemp(path);
    FILE *file = handle >= 0 ? fdopen(handle, "w") : NULL;
    cr_assert(file != NULL);
    for (size_t n = 0; n < sizeof families / sizeof *families; n++) fprintf(file, "\"%s\" limit=5\n", families[n]);
    fclose(file);
    setenv("HEED_TUNING", path, 1);
}

/* The first probe of a context meets the fault: its row is refused for this reason, another one gives the right answer without the CPU's help,
 * and the process ends long before the hanging call does. */
static void probe_fault(const char *only, enum fault_how how, int code, const char *reason)
{
    struct fault_state *f = layer();
    char path[] = "/tmp/heed-tuning-XXXXXX";
    short_limit(path);
    struct rig *r = rig_new(5, 21, 34);
    heed_device_info info = {.struct_size = sizeof info};
    heed_context *context = plain_context(HEED_NO_FALLBACK);
    arm(f, "", 0, 0, false);
    const int32_t device = cl_test_device(context);
    unlink(path);
    if (device < 0 || atomic_load(&f->calls) == 0) {
        heed_context_destroy(context);
        cr_skip_test("the loader takes no layers, or there is no OpenCL");
    }
    atomic_store(&f->how, how);
    arm(f, only, 1, code, false);
    const double begin = now();
    make_right(r, context, device, false);
    cr_assert_eq(atomic_load(&f->hits), 1);
    disarm(f);
    cr_assert_eq(heed_device_get_info(context, device, &info), HEED_OK);
    cr_assert(strstr(info.reason, reason), "%s", info.reason);
    make_right(r, context, device, false);
    heed_context_destroy(context);
    cr_assert_lt(now() - begin, 150.0); /* the call sleeps ten minutes; the limit and two builds take long on a busy machine */
    rig_free(r);
}

Test(opencl_faults, a_build_that_hangs_refuses_its_row, .timeout = 200)
{
    probe_fault("clBuildProgram", FAULT_SLEEPS, 600000, "its probe did not end within");
}

Test(opencl_faults, a_kernel_that_hangs_refuses_its_row, .timeout = 200)
{
    probe_fault("clWaitForEvents", FAULT_SLEEPS, 600000, "its probe did not end within");
}

Test(opencl_faults, a_row_that_lies_in_one_run_of_two_is_refused, .timeout = 200)
{
    probe_fault("clEnqueueNDRangeKernel", FAULT_DROPS, 0, "two runs of its probe gave different bits");
}

/* The first launch is the unit's probe, whose numbers stay zeros: no kernel of a matrix unit is built, and the device is used without one. */
Test(opencl_faults, a_matrix_unit_that_lies_is_refused, .timeout = 200)
{
    struct fault_state *f = layer();
    char path[] = "/tmp/heed-tuning-XXXXXX";
    heed_device_info info = {.struct_size = sizeof info};
    const heed_desc desc = {.struct_size = sizeof desc, .q_heads = 1, .kv_heads = 1, .head_dim = 32, .q_type = HEED_BF16, .k_type = HEED_BF16,
                            .v_type = HEED_BF16, .o_type = HEED_BF16};
    heed_plan *plan = NULL;
    const int handle = mkstemp(path);
    FILE *file = handle >= 0 ? fdopen(handle, "w") : NULL;
    cr_assert(file != NULL);
    for (int n = 0; n < 3; n++) fprintf(file, "\"%s\" matrix=1 mlike=5 limit=60\n", (const char *const[]){"pocl-cpu", "intel-cpu", "generic-cpu"}[n]);
    fclose(file);
    setenv("HEED_TUNING", path, 1);
    heed_context *context = plain_context(0);
    arm(f, "", 0, 0, false);
    const int32_t device = cl_test_device(context);
    unlink(path);
    if (device < 0 || atomic_load(&f->calls) == 0) {
        heed_context_destroy(context);
        cr_skip_test("the loader takes no layers, or there is no OpenCL");
    }
    atomic_store(&f->how, FAULT_DROPS);
    arm(f, "clEnqueueNDRangeKernel", 1, 0, false);
    cr_assert_eq(heed_plan_create(context, device, &desc, "opencl.prefill_columns_bf16", &plan), HEED_UNSUPPORTED);
    disarm(f);
    cr_assert(strstr(heed_error_message(), "no matrix unit gave exact answers for bf16"), "%s", heed_error_message());
    cr_assert_eq(heed_device_get_info(context, device, &info), HEED_OK);
    cr_assert(strstr(info.reason, "opencl.unit.emulated: wrong result in its probe") != NULL, "%s", info.reason);
    cr_assert_str_eq(info.matrix_unit, "none");
    cr_assert(info.usable);
    heed_context_destroy(context);
}

/* ---- as a spy ------------------------------------------------------------------------------- */

/* heed_run builds nothing, allocates no device memory, and launches once per kind of step (and once for the merge). */
Test(opencl_faults, a_run_builds_and_allocates_nothing)
{
    struct fault_state *f = layer();
    struct rig *r = rig_new(1, 1500, 33);
    struct device *inside;
    heed_context *context = plain_context(0);
    heed_plan *plan = NULL;
    heed_batch *batch = NULL;
    heed_buffer *space = NULL;
    const int32_t device = cl_test_device(context);
    if (device < 0 || atomic_load(&f->calls) == 0) {
        heed_context_destroy(context);
        cr_skip_test("the loader takes no layers, or there is no OpenCL");
    }
    cr_assert_eq(device_get(context, device, &inside), HEED_OK);
    if (!cl_device_of(inside)->unified) {
        heed_context_destroy(context);
        cr_skip_test("no device that works on host memory");
    }
    cr_assert_eq(heed_plan_create(context, device, &r->desc, NULL, &plan), HEED_OK, "%s", heed_error_message());
    cr_assert_eq(heed_batch_create(plan, &r->lengths, &batch), HEED_OK);
    const size_t bytes = heed_batch_workspace_size(batch);
    if (bytes) cr_assert_eq(heed_buffer_create(context, device, bytes, &space), HEED_OK);
    const heed_tensor workspace = heed_buffer_tensor(space, (heed_tensor){0});
    atomic_store(&f->builds, 0), atomic_store(&f->buffers, 0), atomic_store(&f->launches, 0);
    cr_assert_eq(heed_run(plan, batch, &r->tensors, bytes ? &workspace : NULL), HEED_OK, "%s", heed_error_message());
    cr_assert(rig_right(r, r->o, r->lse));
    cr_assert_eq(atomic_load(&f->builds), 0);
    cr_assert_eq(atomic_load(&f->buffers), 0);
    cr_assert_eq(atomic_load(&f->launches), bytes ? 2 : 1);
    heed_buffer_destroy(space);
    heed_batch_destroy(batch);
    heed_plan_destroy(plan);
    heed_context_destroy(context);
    nothing_alive(f, "run", 0);
    rig_free(r);
}
