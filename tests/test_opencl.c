/* SPDX-License-Identifier: MIT
 * test_opencl.c - the OpenCL wing from outside: devices, host memory, the caller's buffers, queues and events, lifetimes, fork.
 * Whether the numbers of each row are right is test_agree.c's business.
 */
#include "opencl_rig.h"
#include "context.h"
#include "opencl/cl.h"
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- devices ---------------------------------------------------------------------- */

Test(opencl, devices_are_listed_with_their_facts)
{
    CL_TEST_BEGIN(context, device);
    heed_device_info info = {.struct_size = sizeof info};
    int32_t found;
    cr_assert_eq(heed_device_get_info(context, device, &info), HEED_OK);
    cr_assert_eq(info.backend, HEED_BACKEND_OPENCL);
    cr_assert(info.name[0] && info.platform[0] && info.driver[0] && info.family[0]);
    cr_assert_str_eq(info.matrix_unit, "none");
    cr_assert_gt(info.compute_units, 0);
    cr_assert_gt(info.memory_bytes, 1u << 20);
    cr_assert(info.types >> HEED_F32 & 1 && info.types >> HEED_Q4_0 & 1);
    cr_assert_eq(heed_device_find(context, "opencl:0", &found), HEED_OK);
    cr_assert_eq(found, 1);
    cr_assert_eq(heed_device_find(context, info.name, &found), HEED_OK);
    cr_assert_eq(heed_device_find(context, "opencl:999", &found), HEED_DEVICE_NOT_FOUND);
    heed_context_destroy(context);
}

Test(opencl, no_opencl_when_told_so)
{
    heed_context *context = NULL;
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 1, .flags = HEED_NO_OPENCL};
    cr_assert_eq(heed_context_create(&options, &context), HEED_OK);
    cr_assert_eq(heed_device_count(context), 1);
    heed_context_destroy(context);
}

/* ---- host memory -------------------------------------------------------------------- */

/* A device of this family is known to be right with every row: what its probe refuses is our mistake. Elsewhere a refusal is admission at
 * work. */
static void nothing_refused(heed_context *context, int32_t device)
{
    heed_device_info info = {.struct_size = sizeof info};
    cr_assert_eq(heed_device_get_info(context, device, &info), HEED_OK);
    if (!strcmp(info.family, "pocl-cpu")) cr_assert_str_empty(info.reason, "%s", info.reason);
}

static void run_host(heed_context *context, int32_t device, struct rig *r, const char *kernel)
{
    heed_plan *plan = NULL;
    heed_batch *batch = NULL;
    heed_buffer *space = NULL;
    cr_assert_eq(heed_plan_create(context, device, &r->desc, kernel, &plan), HEED_OK, "%s", heed_error_message());
    cr_assert_eq(heed_batch_create(plan, &r->lengths, &batch), HEED_OK, "%s", heed_error_message());
    const size_t bytes = heed_batch_workspace_size(batch);
    if (bytes) cr_assert_eq(heed_buffer_create(context, device, bytes, &space), HEED_OK, "%s", heed_error_message());
    const heed_tensor workspace = heed_buffer_tensor(space, (heed_tensor){0});
    rig_clear(r);
    cr_assert_eq(heed_run(plan, batch, &r->tensors, bytes ? &workspace : NULL), HEED_OK, "%s", heed_error_message());
    cr_assert(rig_right(r, r->o, r->lse), "q %d kv %d", r->q_len, r->kv_len);
    heed_buffer_destroy(space);
    heed_batch_destroy(batch);
    heed_plan_destroy(plan);
}

/* A device that works on the caller's memory takes it as it is; another one refuses, and heed_forward copies. */
Test(opencl, runs_on_host_memory)
{
    CL_TEST_BEGIN(context, device);
    struct device *inside;
    cr_assert_eq(device_get(context, device, &inside), HEED_OK);
    struct rig *r = rig_new(9, 40, 1), *split = rig_new(1, 1500, 2);
    if (cl_device_of(inside)->unified) {
        run_host(context, device, r, NULL);
        run_host(context, device, r, "opencl.naive");
        run_host(context, device, split, NULL);
    }
    rig_clear(r);
    cr_assert_eq(heed_forward(context, device, &r->desc, &r->lengths, &r->tensors), HEED_OK, "%s", heed_error_message());
    cr_assert(rig_right(r, r->o, r->lse));
    rig_clear(split);
    cr_assert_eq(heed_forward(context, device, &split->desc, &split->lengths, &split->tensors), HEED_OK, "%s", heed_error_message());
    cr_assert(rig_right(split, split->o, split->lse));
    nothing_refused(context, device);
    rig_free(r), rig_free(split);
    heed_context_destroy(context);
}

/* A device that is made to copy, as one with memory of its own does. */
Test(opencl, a_device_with_its_own_memory_takes_no_host_tensors)
{
    CL_TEST_BEGIN(context, device);
    struct device *inside;
    heed_plan *plan = NULL;
    heed_batch *batch = NULL;
    struct rig *r = rig_new(9, 40, 3);
    cr_assert_eq(device_get(context, device, &inside), HEED_OK);
    cl_device_of(inside)->unified = false;
    cr_assert_eq(heed_plan_create(context, device, &r->desc, NULL, &plan), HEED_OK, "%s", heed_error_message());
    cr_assert_eq(heed_batch_create(plan, &r->lengths, &batch), HEED_OK);
    cr_assert_eq(heed_run(plan, batch, &r->tensors, NULL), HEED_INVALID_ARGUMENT);
    cr_assert(strstr(heed_error_message(), "heed_forward"), "%s", heed_error_message());
    cr_assert(isnan(r->o[0]), "outputs untouched");
    cr_assert_eq(heed_forward(context, device, &r->desc, &r->lengths, &r->tensors), HEED_OK, "%s", heed_error_message());
    cr_assert(rig_right(r, r->o, r->lse));
    heed_batch_destroy(batch);
    heed_plan_destroy(plan);
    rig_free(r);
    heed_context_destroy(context);
}

/* heed_forward writes rows and nothing between them; o may be q. */
static void forward_gaps(bool unified)
{
    CL_TEST_BEGIN(context, device);
    struct device *inside;
    struct rig *r = rig_new(5, 21, 4);
    enum { GAP = 3 };
    const size_t row = RIG_DIM + GAP, floats = r->q_floats / RIG_DIM * row;
    float *wide = malloc(floats * sizeof *wide);
    heed_tensors tensors = r->tensors;
    cr_assert_eq(device_get(context, device, &inside), HEED_OK);
    cl_device_of(inside)->unified = cl_device_of(inside)->unified && unified;
    for (size_t i = 0; i < floats; i++) wide[i] = i % row < RIG_DIM ? r->q[i / row * RIG_DIM + i % row] : 77.3f;
    tensors.q = tensors.o = (heed_tensor){.data = wide, .bytes = floats * sizeof *wide, .head_stride = (int64_t)row,
                                          .token_stride = (int64_t)row * RIG_HEADS, .batch_stride = (int64_t)row * RIG_HEADS * r->q_len};
    cr_assert_eq(heed_forward(context, device, &r->desc, &r->lengths, &tensors), HEED_OK, "%s", heed_error_message());
    for (size_t i = 0; i < floats; i++) {
        if (i % row < RIG_DIM) r->o[i / row * RIG_DIM + i % row] = wide[i];
        else cr_assert_eq(wide[i], 77.3f, "gap %zu", i);
    }
    cr_assert(rig_right(r, r->o, r->lse));
    free(wide);
    rig_free(r);
    heed_context_destroy(context);
}

Test(opencl, forward_in_place_leaves_gaps_alone) { forward_gaps(true); }
Test(opencl, forward_in_place_leaves_gaps_alone_by_copies) { forward_gaps(false); }

/* ---- the caller's buffers -------------------------------------------------------------- */

Test(opencl, tensors_from_cl_are_checked)
{
    CL_TEST_BEGIN(context, device);
    struct lent lent = lent_make(context, device, 0), other = lent_make(context, device, 0);
    heed_tensor tensor = {0}, layout = {.token_stride = 1};
    cl_mem mem = lent_buffer(&lent, NULL, 256);
    cr_assert_eq(heed_tensor_from_cl(context, lent.device, mem, layout, &tensor), HEED_OK);
    cr_assert_eq(tensor.bytes, 256);
    cr_assert_eq(tensor.data, (void *)mem);
    cr_assert_eq(tensor.memory, HEED_MEMORY_CL_BUFFER);
    cr_assert_eq(heed_tensor_from_cl(context, other.device, mem, layout, &tensor), HEED_INVALID_ARGUMENT);
    cr_assert(strstr(heed_error_message(), "another cl_context"), "%s", heed_error_message());
    cr_assert_eq(heed_tensor_from_cl(context, 0, mem, layout, &tensor), HEED_INVALID_ARGUMENT, "the CPU has none");
    cr_assert_eq(heed_tensor_from_cl(context, lent.device, NULL, layout, &tensor), HEED_INVALID_ARGUMENT);
    layout.bytes = 257;
    cr_assert_eq(heed_tensor_from_cl(context, lent.device, mem, layout, &tensor), HEED_OUT_OF_BOUNDS);
    clReleaseMemObject(mem);
    lent_free(&lent), lent_free(&other);
    heed_context_destroy(context);
}

Test(opencl, a_buffer_too_small_or_foreign_stops_the_run)
{
    CL_TEST_BEGIN(context, device);
    struct lent lent = lent_make(context, device, 0), other = lent_make(context, device, 0);
    struct rig *r = rig_new(5, 21, 5);
    heed_plan *plan = NULL;
    heed_batch *batch = NULL;
    cl_mem mems[5], foreign = lent_buffer(&other, r->k, r->kv_floats * sizeof(float)),
                    small = lent_buffer(&lent, r->k, r->kv_floats * sizeof(float) - 4);
    heed_tensors tensors = rig_buffers(r, context, &lent, mems);
    cr_assert_eq(heed_plan_create(context, lent.device, &r->desc, NULL, &plan), HEED_OK, "%s", heed_error_message());
    cr_assert_eq(heed_batch_create(plan, &r->lengths, &batch), HEED_OK);
    tensors.k.data = foreign; /* given as a tensor by hand: asked again in the run */
    cr_assert_eq(heed_run(plan, batch, &tensors, NULL), HEED_INVALID_ARGUMENT);
    tensors.k.data = small;
    cr_assert_eq(heed_run(plan, batch, &tensors, NULL), HEED_OUT_OF_BOUNDS);
    tensors.k.data = mems[1];
    cr_assert_eq(heed_run(plan, batch, &tensors, NULL), HEED_OK, "%s", heed_error_message());
    cr_assert(rig_buffers_right(r, lent.queue, mems));
    heed_batch_destroy(batch);
    heed_plan_destroy(plan);
    mems_free(mems);
    clReleaseMemObject(foreign), clReleaseMemObject(small);
    rig_free(r);
    lent_free(&lent), lent_free(&other);
    heed_context_destroy(context);
}

Test(opencl, buffers_hold_what_was_written)
{
    CL_TEST_BEGIN(context, device);
    heed_buffer *buffer = NULL;
    char text[] = "0123456789", back[11] = "";
    cr_assert_eq(heed_buffer_create(context, device, sizeof text, &buffer), HEED_OK, "%s", heed_error_message());
    cr_assert_eq(heed_buffer_write(buffer, 0, text, sizeof text), HEED_OK);
    cr_assert_eq(heed_buffer_write(buffer, 2, "ab", 2), HEED_OK);
    cr_assert_eq(heed_buffer_read(buffer, 0, back, sizeof back), HEED_OK);
    cr_assert_str_eq(back, "01ab456789");
    cr_assert_eq(heed_buffer_read(buffer, 4, back, sizeof back), HEED_OUT_OF_BOUNDS);
    heed_buffer_destroy(buffer);
    cr_assert_neq(heed_buffer_create(context, device, SIZE_MAX / 4, &buffer), HEED_OK);
    heed_context_destroy(context);
}

/* ---- queues and events --------------------------------------------------------------------- */

/* Waits for a user event, gives an event, and the caller's next command waits for that. */
static void run_on_queue(cl_command_queue_properties properties, int32_t q_len, int32_t kv_len)
{
    CL_TEST_BEGIN(context, device);
    CL_TEST_NOT_SIMULATED(context, device);
    struct lent lent = lent_make(context, device, properties);
    struct rig *r = rig_new(q_len, kv_len, 6);
    heed_plan *plan = NULL;
    heed_batch *batch = NULL;
    cl_mem mems[5], space;
    cl_int code, state = CL_COMPLETE;
    heed_tensors tensors = rig_buffers(r, context, &lent, mems);
    cr_assert_eq(heed_plan_create(context, lent.device, &r->desc, NULL, &plan), HEED_OK, "%s", heed_error_message());
    cr_assert_eq(heed_batch_create(plan, &r->lengths, &batch), HEED_OK);
    const heed_tensor workspace = lent_workspace(&lent, batch, &space);
    cl_event gate = clCreateUserEvent(lent.context, &code), done = NULL;
    cr_assert_eq(heed_run_cl(plan, batch, &tensors, &workspace, lent.queue, 1, &gate, &done), HEED_OK, "%s", heed_error_message());
    /* the run keeps what it needs */
    heed_batch_destroy(batch);
    heed_plan_destroy(plan);
    cr_assert(done != NULL);
    usleep(20000);
    CL_GOOD(clGetEventInfo(done, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof state, &state, NULL));
    cr_assert_gt(state, CL_COMPLETE, "nothing may run before the gate is open");
    CL_GOOD(clSetUserEventStatus(gate, CL_COMPLETE));
    rig_clear(r);
    CL_GOOD(clEnqueueReadBuffer(lent.queue, mems[3], CL_TRUE, 0, r->q_floats * sizeof(float), r->o, 1, &done, NULL));
    CL_GOOD(clEnqueueReadBuffer(lent.queue, mems[4], CL_TRUE, 0, r->lse_floats * sizeof(float), r->lse, 1, &done, NULL));
    cr_assert(rig_right(r, r->o, r->lse));
    clReleaseEvent(gate), clReleaseEvent(done);
    mems_free(mems);
    if (space) clReleaseMemObject(space);
    rig_free(r);
    lent_free(&lent);
    heed_context_destroy(context);
}

Test(opencl, run_on_an_in_order_queue) { run_on_queue(0, 9, 40); }
Test(opencl, run_on_an_out_of_order_queue) { run_on_queue(CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE, 9, 40); }
Test(opencl, split_run_on_an_out_of_order_queue) { run_on_queue(CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE, 1, 1500); }

Test(opencl, bad_queues_and_wait_lists_are_the_callers_mistake)
{
    CL_TEST_BEGIN(context, device);
    struct lent lent = lent_make(context, device, 0), other = lent_make(context, device, 0);
    struct rig *r = rig_new(3, 8, 7);
    heed_plan *plan = NULL, *cpu = NULL;
    heed_batch *batch = NULL, *cpu_batch = NULL;
    cl_mem mems[5];
    cl_int code;
    heed_tensors tensors = rig_buffers(r, context, &lent, mems);
    cl_event foreign = clCreateUserEvent(other.context, &code), done = (cl_event)1;
    cr_assert_eq(heed_plan_create(context, lent.device, &r->desc, NULL, &plan), HEED_OK, "%s", heed_error_message());
    cr_assert_eq(heed_batch_create(plan, &r->lengths, &batch), HEED_OK);
    cr_assert_eq(heed_run_cl(plan, batch, &tensors, NULL, NULL, 0, NULL, &done), HEED_INVALID_ARGUMENT);
    cr_assert_eq(heed_run_cl(plan, batch, &tensors, NULL, other.queue, 0, NULL, &done), HEED_INVALID_ARGUMENT);
    cr_assert_eq(heed_run_cl(plan, batch, &tensors, NULL, lent.queue, 1, NULL, &done), HEED_INVALID_ARGUMENT);
    cr_assert_eq(heed_run_cl(plan, batch, &tensors, NULL, lent.queue, 0, &foreign, &done), HEED_INVALID_ARGUMENT);
    cr_assert_eq(heed_run_cl(plan, batch, &tensors, NULL, lent.queue, 1, &foreign, &done), HEED_INVALID_ARGUMENT);
    cr_assert_eq(done, NULL, "nothing was enqueued, so there is no event");
    cr_assert_eq(heed_plan_create(context, 0, &r->desc, NULL, &cpu), HEED_OK);
    cr_assert_eq(heed_batch_create(cpu, &r->lengths, &cpu_batch), HEED_OK);
    cr_assert_eq(heed_run_cl(cpu, cpu_batch, &r->tensors, NULL, lent.queue, 0, NULL, NULL), HEED_INVALID_ARGUMENT, "the CPU has no queues");
    heed_batch_destroy(cpu_batch), heed_batch_destroy(batch);
    heed_plan_destroy(cpu), heed_plan_destroy(plan);
    clReleaseEvent(foreign);
    mems_free(mems);
    rig_free(r);
    lent_free(&lent), lent_free(&other);
    heed_context_destroy(context);
}

/* An update while a run is queued: the run keeps its lengths, the next one has the new ones. */
Test(opencl, update_leaves_queued_runs_alone)
{
    CL_TEST_BEGIN(context, device);
    CL_TEST_NOT_SIMULATED(context, device);
    struct lent lent = lent_make(context, device, 0);
    struct rig *r = rig_new(9, 40, 8);
    heed_plan *plan = NULL;
    heed_batch *batch = NULL;
    cl_mem mems[5];
    cl_int code;
    heed_tensors tensors = rig_buffers(r, context, &lent, mems);
    heed_lengths shorter = r->lengths;
    shorter.kv_len = 1;
    shorter.q_len = 1;
    cl_event gate = clCreateUserEvent(lent.context, &code), done = NULL;
    cr_assert_eq(heed_plan_create(context, lent.device, &r->desc, NULL, &plan), HEED_OK, "%s", heed_error_message());
    cr_assert_eq(heed_batch_create(plan, &r->lengths, &batch), HEED_OK);
    cr_assert_eq(heed_run_cl(plan, batch, &tensors, NULL, lent.queue, 1, &gate, &done), HEED_OK, "%s", heed_error_message());
    cr_assert_eq(heed_batch_update(batch, &shorter), HEED_OK);
    CL_GOOD(clSetUserEventStatus(gate, CL_COMPLETE));
    CL_GOOD(clWaitForEvents(1, &done));
    cr_assert(rig_buffers_right(r, lent.queue, mems));
    clReleaseEvent(gate), clReleaseEvent(done);
    heed_batch_destroy(batch);
    heed_plan_destroy(plan);
    mems_free(mems);
    rig_free(r);
    lent_free(&lent);
    heed_context_destroy(context);
}

/* Nothing to compute, but an event is promised. */
Test(opencl, an_empty_batch_still_gives_an_event)
{
    CL_TEST_BEGIN(context, device);
    struct lent lent = lent_make(context, device, 0);
    struct rig *r = rig_new(3, 8, 9);
    heed_plan *plan = NULL;
    heed_batch *batch = NULL;
    cl_event done = NULL;
    heed_lengths none = r->lengths;
    none.q_len = 0;
    cr_assert_eq(heed_plan_create(context, lent.device, &r->desc, NULL, &plan), HEED_OK, "%s", heed_error_message());
    cr_assert_eq(heed_batch_create(plan, &none, &batch), HEED_OK, "%s", heed_error_message());
    cr_assert_eq(heed_run_cl(plan, batch, &r->tensors, NULL, lent.queue, 0, NULL, &done), HEED_OK, "%s", heed_error_message());
    cr_assert(done != NULL);
    CL_GOOD(clWaitForEvents(1, &done));
    clReleaseEvent(done);
    heed_batch_destroy(batch);
    heed_plan_destroy(plan);
    rig_free(r);
    lent_free(&lent);
    heed_context_destroy(context);
}

/* ---- launches -------------------------------------------------------------------------------- */

/* A device so slow that every item is a launch of its own: the same bits. */
Test(opencl, launches_are_cut_without_a_trace)
{
    CL_TEST_BEGIN(context, device);
    struct lent lent = lent_make(context, device, 0);
    struct rig *r = rig_new(70, 80, 10);
    heed_plan *plan = NULL;
    heed_batch *batch = NULL;
    cl_mem mems[5];
    heed_tensors tensors = rig_buffers(r, context, &lent, mems);
    cr_assert_eq(heed_plan_create(context, lent.device, &r->desc, "opencl.naive", &plan), HEED_OK, "%s", heed_error_message());
    cr_assert_eq(heed_batch_create(plan, &r->lengths, &batch), HEED_OK);
    struct cl_plan *state = plan->state;
    float *first = malloc(r->q_floats * sizeof *first);
    atomic_store(&state->step[KIND_PREFILL].pair_seconds, 1e-12f);
    cr_assert_eq(heed_run(plan, batch, &tensors, NULL), HEED_OK, "%s", heed_error_message());
    cr_assert(rig_buffers_right(r, lent.queue, mems));
    memcpy(first, r->o, r->q_floats * sizeof *first);
    rig_clear(r);
    CL_GOOD(clEnqueueWriteBuffer(lent.queue, mems[3], CL_TRUE, 0, r->q_floats * sizeof(float), r->o, 0, NULL, NULL));
    CL_GOOD(clFinish(lent.queue));
    atomic_store(&state->step[KIND_PREFILL].pair_seconds, 1.0f);
    cr_assert_eq(heed_run(plan, batch, &tensors, NULL), HEED_OK, "%s", heed_error_message());
    cr_assert(rig_buffers_right(r, lent.queue, mems));
    cr_assert(!memcmp(first, r->o, r->q_floats * sizeof *first));
    free(first);
    heed_batch_destroy(batch);
    heed_plan_destroy(plan);
    mems_free(mems);
    rig_free(r);
    lent_free(&lent);
    heed_context_destroy(context);
}

/* ---- contexts, threads, fork ------------------------------------------------------------------- */

struct worker {
    heed_context *context;
    int32_t device;
    uint64_t seed;
    int wrong;
};

static void *worker_main(void *argument)
{
    struct worker *w = argument;
    struct rig *r = rig_new(6, 30, w->seed);
    for (int n = 0; n < 20; n++) {
        rig_clear(r);
        if (heed_forward(w->context, w->device, &r->desc, &r->lengths, &r->tensors) != HEED_OK || !rig_right(r, r->o, r->lse)) w->wrong++;
    }
    rig_free(r);
    return NULL;
}

Test(opencl, two_contexts_and_two_threads_each)
{
    CL_TEST_BEGIN(context, device);
    CL_TEST_NOT_SIMULATED(context, device);
    heed_context *other = cl_test_context(NULL);
    struct worker workers[4] = {
        {context, device, 11, 0}, {context, device, 12, 0}, {other, cl_test_device(other), 13, 0}, {other, device, 14, 0}};
    pthread_t threads[4];
    for (int n = 0; n < 4; n++) cr_assert_eq(pthread_create(&threads[n], NULL, worker_main, &workers[n]), 0);
    for (int n = 0; n < 4; n++) {
        pthread_join(threads[n], NULL);
        cr_assert_eq(workers[n].wrong, 0, "worker %d", n);
    }
    heed_context_destroy(other);
    heed_context_destroy(context);
}

/* In the child: a clean refusal of everything on the device, and a CPU that works. The exit code names the first thing that was wrong. */
static int child(heed_context *context, int32_t device, heed_plan *plan, heed_batch *batch, struct rig *r)
{
    heed_buffer *buffer;
    heed_plan *next;
    alarm(100);
    if (heed_run(plan, batch, &r->tensors, NULL) != HEED_FORKED) return 1;
    if (heed_forward(context, device, &r->desc, &r->lengths, &r->tensors) != HEED_FORKED) return 2;
    if (heed_plan_create(context, device, &r->desc, NULL, &next) != HEED_FORKED) return 3;
    if (heed_buffer_create(context, device, 64, &buffer) != HEED_FORKED) return 4;
    if (heed_batch_update(batch, &r->lengths) != HEED_FORKED) return 5;
    if (!isnan(r->o[0])) return 6;
    if (heed_forward(context, 0, &r->desc, &r->lengths, &r->tensors) != HEED_OK || !rig_right(r, r->o, r->lse)) return 7;
    heed_batch_destroy(batch);
    heed_plan_destroy(plan);
    heed_context_destroy(context);
    return 0;
}

Test(opencl, a_forked_child_is_refused)
{
    CL_TEST_BEGIN(context, device);
    struct rig *r = rig_new(5, 21, 15);
    heed_plan *plan = NULL;
    heed_batch *batch = NULL;
    int state = 0;
    cr_assert_eq(heed_plan_create(context, device, &r->desc, NULL, &plan), HEED_OK, "%s", heed_error_message());
    cr_assert_eq(heed_batch_create(plan, &r->lengths, &batch), HEED_OK);
    const pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) _exit(child(context, device, plan, batch, r));
    cr_assert_eq(waitpid(pid, &state, 0), pid);
    cr_assert(WIFEXITED(state), "the child hung or crashed (signal %d)", WTERMSIG(state));
    cr_assert_eq(WEXITSTATUS(state), 0, "check %d of the child", WEXITSTATUS(state));
    heed_batch_destroy(batch);
    heed_plan_destroy(plan);
    rig_free(r);
    heed_context_destroy(context);
}

/* A lost device is not asked again; heed_forward answers from the CPU. */
Test(opencl, a_lost_device_is_left_alone)
{
    CL_TEST_BEGIN(context, device);
    struct device *inside;
    struct rig *r = rig_new(5, 21, 16);
    heed_plan *plan = NULL;
    cr_assert_eq(device_get(context, device, &inside), HEED_OK);
    cr_assert_eq(heed_forward(context, device, &r->desc, &r->lengths, &r->tensors), HEED_OK, "%s", heed_error_message());
    cl_failed(cl_device_of(inside), "clFinish(queue)", CL_DEVICE_NOT_AVAILABLE);
    cr_assert_eq(heed_plan_create(context, device, &r->desc, NULL, &plan), HEED_DEVICE_FAILED);
    cr_assert(strstr(heed_error_message(), "CL_DEVICE_NOT_AVAILABLE"), "%s", heed_error_message());
    rig_clear(r);
    cr_assert_eq(heed_forward(context, device, &r->desc, &r->lengths, &r->tensors), HEED_OK, "%s", heed_error_message());
    cr_assert(rig_right(r, r->o, r->lse));
    rig_free(r);
    heed_context_destroy(context);
}
