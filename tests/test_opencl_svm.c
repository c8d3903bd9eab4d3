/* SPDX-License-Identifier: MIT
 * test_opencl_svm.c - tensors and workspace in shared virtual memory (clSVMAlloc) of the caller's own cl_context.
 */
#include "opencl_rig.h"
#include "context.h"
#include "opencl/cl.h"

/* Blocks of the least kind of shared memory: the host may look at them only through the queue. */
struct shared {
    struct lent lent;
    void *block[6]; /* q k v o lse workspace */
};

static bool shared_make(struct shared *s, heed_context *context, int32_t device)
{
    struct device *inside;
    memset(s, 0, sizeof *s);
    cr_assert_eq(device_get(context, device, &inside), HEED_OK);
    if (!cl_device_of(inside)->shares) return false;
    s->lent = lent_make(context, device, 0);
    return true;
}

static void *shared_block(struct shared *s, int n, const void *from, size_t bytes)
{
    s->block[n] = clSVMAlloc(s->lent.context, CL_MEM_READ_WRITE, bytes, 0);
    cr_assert_not_null(s->block[n]);
    if (from) CL_GOOD(clEnqueueSVMMemcpy(s->lent.queue, CL_TRUE, s->block[n], from, bytes, 0, NULL, NULL));
    return s->block[n];
}

static heed_tensors shared_tensors(struct shared *s, const struct rig *r)
{
    heed_tensors tensors = r->tensors;
    heed_tensor *const all[] = {&tensors.q, &tensors.k, &tensors.v, &tensors.o, &tensors.lse};
    for (int n = 0; n < 5; n++) {
        all[n]->data = shared_block(s, n, all[n]->data, all[n]->bytes);
        all[n]->memory = HEED_MEMORY_CL_SVM;
    }
    return tensors;
}

static void shared_free(struct shared *s)
{
    for (int n = 0; n < 6; n++)
        if (s->block[n]) clSVMFree(s->lent.context, s->block[n]);
    lent_free(&s->lent);
}

static bool shared_right(struct shared *s, struct rig *r)
{
    rig_clear(r);
    CL_GOOD(clEnqueueSVMMemcpy(s->lent.queue, CL_TRUE, r->o, s->block[3], r->q_floats * sizeof(float), 0, NULL, NULL));
    CL_GOOD(clEnqueueSVMMemcpy(s->lent.queue, CL_TRUE, r->lse, s->block[4], r->lse_floats * sizeof(float), 0, NULL, NULL));
    return rig_right(r, r->o, r->lse);
}

/* copies: a device with memory of its own, which shares all the same. q_len 1, kv_len 1500: chunks, so that there is a workspace. */
static void run_shared(bool copies, bool own_queue, int32_t q_len, int32_t kv_len)
{
    CL_TEST_BEGIN(context, device);
    struct shared s;
    struct device *inside;
    heed_plan *plan = NULL;
    heed_batch *batch = NULL;
    if (!shared_make(&s, context, device)) {
        heed_context_destroy(context);
        cr_skip_test("the device shares no memory");
    }
    struct rig *r = rig_new(q_len, kv_len, 91);
    const heed_tensors tensors = shared_tensors(&s, r);
    cr_assert_eq(device_get(context, s.lent.device, &inside), HEED_OK);
    if (copies) cl_device_of(inside)->unified = false;
    cr_assert_eq(heed_plan_create(context, s.lent.device, &r->desc, NULL, &plan), HEED_OK, "%s", heed_error_message());
    cr_assert_eq(heed_batch_create(plan, &r->lengths, &batch), HEED_OK);
    const size_t bytes = heed_batch_workspace_size(batch);
    heed_tensor workspace = {.bytes = bytes, .memory = HEED_MEMORY_CL_SVM};
    if (bytes) workspace.data = shared_block(&s, 5, NULL, bytes);
    if (own_queue) {
        cl_event done = NULL;
        cr_assert_eq(heed_run_cl(plan, batch, &tensors, &workspace, s.lent.queue, 0, NULL, &done), HEED_OK, "%s", heed_error_message());
        CL_GOOD(clWaitForEvents(1, &done));
        clReleaseEvent(done);
    } else {
        cr_assert_eq(heed_run(plan, batch, &tensors, &workspace), HEED_OK, "%s", heed_error_message());
    }
    cr_assert(shared_right(&s, r));
    heed_batch_destroy(batch);
    heed_plan_destroy(plan);
    heed_context_destroy(context);
    shared_free(&s);
    rig_free(r);
}

Test(opencl_svm, run_in_shared_memory) { run_shared(false, false, 9, 40); }
Test(opencl_svm, run_in_shared_memory_of_a_device_that_copies) { run_shared(true, false, 9, 40); }
Test(opencl_svm, run_on_the_callers_queue) { run_shared(false, true, 9, 40); }
Test(opencl_svm, workspace_in_shared_memory) { run_shared(true, true, 1, 1500); }

/* validate_every reads the inputs back; with o = q also q before the run. */
Test(opencl_svm, runs_are_validated)
{
    heed_context *context = NULL;
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 1, .cache_dir = "", .validate_every = 1};
    cr_assert_eq(heed_context_create(&options, &context), HEED_OK);
    const int32_t device = cl_test_device(context);
    struct shared s;
    if (device < 0 || !shared_make(&s, context, device)) {
        heed_context_destroy(context);
        cr_skip_test("no device shares memory");
    }
    for (int in_place = 0; in_place < 2; in_place++) {
        struct rig *r = rig_new(5, 21, 92);
        heed_plan *plan = NULL;
        heed_batch *batch = NULL;
        heed_tensors tensors = shared_tensors(&s, r);
        if (in_place) tensors.o.data = tensors.q.data;
        cr_assert_eq(heed_plan_create(context, s.lent.device, &r->desc, NULL, &plan), HEED_OK, "%s", heed_error_message());
        cr_assert_eq(heed_batch_create(plan, &r->lengths, &batch), HEED_OK);
        cr_assert_eq(heed_run(plan, batch, &tensors, NULL), HEED_OK, "%s", heed_error_message());
        if (in_place) CL_GOOD(clEnqueueSVMMemcpy(s.lent.queue, CL_TRUE, s.block[3], s.block[0], r->q_floats * sizeof(float), 0, NULL, NULL));
        cr_assert(shared_right(&s, r));
        heed_batch_destroy(batch);
        heed_plan_destroy(plan);
        for (int n = 0; n < 6; n++)
            if (s.block[n]) clSVMFree(s.lent.context, s.block[n]), s.block[n] = NULL;
        rig_free(r);
    }
    heed_context_destroy(context);
    shared_free(&s);
}

Test(opencl_svm, refused_where_there_is_none)
{
    CL_TEST_BEGIN(context, device);
    struct device *inside;
    heed_plan *plan = NULL;
    heed_batch *batch = NULL;
    struct rig *r = rig_new(9, 40, 93);
    heed_tensors tensors = r->tensors;
    tensors.k.memory = HEED_MEMORY_CL_SVM;
    cr_assert_eq(device_get(context, device, &inside), HEED_OK);
    cl_device_of(inside)->shares = false;
    cr_assert_eq(heed_plan_create(context, device, &r->desc, NULL, &plan), HEED_OK, "%s", heed_error_message());
    cr_assert_eq(heed_batch_create(plan, &r->lengths, &batch), HEED_OK);
    cr_assert_eq(heed_run(plan, batch, &tensors, NULL), HEED_UNSUPPORTED);
    cr_assert(strstr(heed_error_message(), "k.memory is HEED_MEMORY_CL_SVM: device"), "%s", heed_error_message());
    cr_assert_eq(heed_forward(context, device, &r->desc, &r->lengths, &tensors), HEED_INVALID_ARGUMENT);
    cr_assert(strstr(heed_error_message(), "heed_forward takes host memory"), "%s", heed_error_message());
    cr_assert(isnan(r->o[0]), "outputs untouched");
    heed_batch_destroy(batch);
    heed_plan_destroy(plan);
    rig_free(r);
    heed_context_destroy(context);
}
