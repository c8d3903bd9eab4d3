/* SPDX-License-Identifier: MIT
 * stream.c - the commands of one run on one queue, ours or the caller's: a chain of events, and what to do when a link fails.
 */
#include "cl.h"
#include "../mutant.h"

/* ---- beginning -------------------------------------------------------------- */

/* The caller's queue must be one of this device's context: another one would be accepted and do anything. */
static heed_status check_queue(struct cl_device *device, cl_command_queue queue)
{
    cl_context context = NULL;
    cl_device_id id = NULL;
    cl_int code = clGetCommandQueueInfo(queue, CL_QUEUE_CONTEXT, sizeof context, &context, NULL);
    if (code == CL_SUCCESS) code = clGetCommandQueueInfo(queue, CL_QUEUE_DEVICE, sizeof id, &id, NULL);
    if (code == CL_INVALID_COMMAND_QUEUE) return fail(HEED_INVALID_ARGUMENT, "queue is no cl_command_queue");
    if (code != CL_SUCCESS) return cl_failed(device, "clGetCommandQueueInfo", code);
    if (context != device->context) return fail(HEED_INVALID_ARGUMENT, "queue belongs to another cl_context than device %s", device->name);
    if (id != device->id) return fail(HEED_INVALID_ARGUMENT, "queue belongs to another device than %s", device->name);
    return HEED_OK;
}

/* Not every driver looks at them. */
static heed_status check_waits(struct cl_device *device, const struct cl_stream *s)
{
    for (cl_uint n = 0; n < s->num_wait; n++) {
        cl_context context = NULL;
        const cl_int code = s->wait[n] ? clGetEventInfo(s->wait[n], CL_EVENT_CONTEXT, sizeof context, &context, NULL) : CL_INVALID_EVENT;
        if (code == CL_INVALID_EVENT) return fail(HEED_INVALID_ARGUMENT, "wait[%u] is no cl_event", n);
        if (code != CL_SUCCESS) return cl_failed(device, "clGetEventInfo", code);
        if (context != device->context)
            return fail(HEED_INVALID_ARGUMENT, "wait[%u] belongs to another cl_context than device %s", n, device->name);
    }
    return HEED_OK;
}

heed_status cl_stream_begin(struct cl_device *device, const struct queue_args *args, struct cl_stream *stream)
{
    *stream = (struct cl_stream){.device = device, .queue = device->queue, .blocking = !args};
    heed_status status = cl_device_open(device);
    stream->queue = device->queue;
    if (status != HEED_OK || !args) return status;
    if (!args->queue) return fail(HEED_INVALID_ARGUMENT, "queue is NULL");
    if ((args->num_wait > 0) != (args->wait != NULL))
        return fail(HEED_INVALID_ARGUMENT, "num_wait is %u and wait is %s", args->num_wait, args->wait ? "given" : "NULL");
    stream->queue = args->queue;
    stream->num_wait = args->num_wait;
    stream->wait = args->wait;
    stream->done = args->done;
    if (stream->done) *stream->done = NULL;
    status = check_queue(device, stream->queue);
    return status == HEED_OK ? check_waits(device, stream) : status;
}

/* ---- commands ---------------------------------------------------------------- */

static cl_uint waits(const struct cl_stream *s, const cl_event **list)
{
    *list = s->last ? &s->last : s->wait;
    if (MUTANT(cl_wait_dropped) && !s->last) *list = NULL;
    return s->last ? 1 : *list ? s->num_wait : 0;
}

/* The caller's events are looked at by the driver with the first command. */
static heed_status refused(struct cl_stream *s, const char *call, cl_int code)
{
    if (!s->last && s->num_wait && (code == CL_INVALID_EVENT_WAIT_LIST || code == CL_INVALID_CONTEXT || code == CL_INVALID_EVENT))
        return fail(HEED_INVALID_ARGUMENT, "wait holds an event that is none of the queue's context: %s: %s", call, cl_error_name(code));
    return cl_failed(s->device, call, code);
}

static void advance(struct cl_stream *s, cl_event event)
{
    if (s->last) clReleaseEvent(s->last);
    s->last = event;
}

heed_status cl_stream_kernel(struct cl_stream *s, cl_kernel kernel, const size_t global[2], const size_t local[2])
{
    const cl_event *list;
    const cl_uint count = waits(s, &list);
    cl_event event = NULL;
    const cl_int code = clEnqueueNDRangeKernel(s->queue, kernel, 2, NULL, global, local, count, list, &event);
    if (code != CL_SUCCESS) return refused(s, "clEnqueueNDRangeKernel", code);
    if (MUTANT(cl_chain_broken)) { /* each command waits for the caller's events alone */
        if (event) clReleaseEvent(event);
        return HEED_OK;
    }
    advance(s, event);
    return HEED_OK;
}

/* Host memory that kernels wrote through a view is the host's again only after a map. (rusticl refuses to unmap what is not mapped yet, so
 * whoever waits anyway waits for the map.) */
heed_status cl_stream_coherent(struct cl_stream *s, const struct cl_memory *memory)
{
    for (int i = 0; i < memory->owned_count; i++) {
        if (!memory->owned_written[i]) continue;
        const cl_event *list;
        cl_uint count = waits(s, &list);
        cl_event event = NULL;
        cl_int code = CL_SUCCESS;
        void *at =
            clEnqueueMapBuffer(s->queue, memory->owned[i], s->blocking, CL_MAP_READ, 0, memory->owned_bytes[i], count, list, &event, &code);
        if (!at) return s->blocking ? cl_wait_failed(s->device, "clEnqueueMapBuffer", code) : refused(s, "clEnqueueMapBuffer", code);
        advance(s, event);
        count = waits(s, &list);
        event = NULL;
        code = clEnqueueUnmapMemObject(s->queue, memory->owned[i], at, count, list, &event);
        if (code != CL_SUCCESS) return refused(s, "clEnqueueUnmapMemObject", code);
        advance(s, event);
    }
    return HEED_OK;
}

/* ---- ending -------------------------------------------------------------------- */

/* After a failed wait the device may still be at work on the caller's memory. Look until the command has ended; where even looking fails,
 * give it a moment: there is nothing else to hold on to. */
static void settle(struct cl_stream *s)
{
    clFinish(s->queue);
    const double limit = cl_seconds() + 0.05 + 4 * (s->estimate < 10 ? s->estimate : 10);
    while (cl_event_state(s->last) != CL_COMPLETE && cl_seconds() < limit) cl_rest(1e-3);
}

/* For a device that works on copies: 50 times the estimate, at least 30 s. */
static cl_int wait_limited(struct cl_stream *s) { return cl_wait_limited(s->device, s->last, 50 * s->estimate > 30 ? 50 * s->estimate : 30); }

static heed_status wait_end(struct cl_stream *s, bool limited)
{
    cl_int code = clFlush(s->queue);
    const char *call = "clFlush";
    if (code == CL_SUCCESS && limited) {
        call = "wait for event";
        code = wait_limited(s);
        if (code == CL_WAIT_OVERRUN) {
            atomic_store(&s->device->lost, CL_DEVICE_NOT_AVAILABLE);
            return fail(HEED_DEVICE_FAILED, "%s did not end its work within the limit (estimate %d ms); it is not used again",
                        s->device->name, (int)(s->estimate * 1e3));
        }
    } else if (code == CL_SUCCESS) {
        call = "clWaitForEvents";
        code = clWaitForEvents(1, &s->last);
        if (code == CL_SUCCESS && (code = cl_event_state(s->last)) > 0) code = CL_SUCCESS;
    }
    if (code == CL_SUCCESS) {
        atomic_store(&s->device->failed_waits, 0);
        return HEED_OK;
    }
    settle(s);
    return cl_wait_failed(s->device, call, code);
}

heed_status cl_stream_end(struct cl_stream *s, heed_status status, const struct cl_memory *memory)
{
    if (s->last && s->blocking) {
        if (status == HEED_OK) status = wait_end(s, !memory->on_host);
        else settle(s); /* a later command failed: what was enqueued runs out first */
    } else if (!s->blocking) {
        if (s->last) {
            const cl_int code = clFlush(s->queue);
            if (status == HEED_OK && code != CL_SUCCESS) status = cl_failed(s->device, "clFlush", code);
        } else if (status == HEED_OK && s->done) {
            /* Nothing to do, but the caller wants an event behind his own. */
            const cl_int code = clEnqueueMarkerWithWaitList(s->queue, s->num_wait, s->wait, &s->last);
            if (code != CL_SUCCESS) status = refused(s, "clEnqueueMarkerWithWaitList", code);
        }
        if (s->done && s->last) {
            *s->done = s->last;
            s->last = NULL;
        }
    }
    if (s->last) clReleaseEvent(s->last);
    s->last = NULL;
    return status;
}
