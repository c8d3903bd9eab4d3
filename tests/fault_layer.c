/* SPDX-License-Identifier: MIT
 * fault_layer.c - an OpenCL layer (OPENCL_LAYERS) that makes any call of any program fail or hang, loses launches, lies about devices, and counts the objects
 * that are alive. The program is not touched; a failed call is not passed on to the driver. Releases and retains are counted but never fail.
 */
#define CL_TARGET_OPENCL_VERSION 300
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#include "fault_layer.h"
#include <CL/cl.h>
#include <CL/cl_layer.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

__attribute__((visibility("default"))) struct fault_state fault_state;

static cl_icd_dispatch table;
static const cl_icd_dispatch *next;

/* Is this call hit? */
static int hits(const char *name)
{
    struct fault_state *f = &fault_state;
    if (f->only[0] && strcmp(f->only, name)) return 0;
    const long n = atomic_fetch_add(&f->calls, 1) + 1, at = atomic_load(&f->at);
    const int hit = at > 0 && (n == at || (atomic_load(&f->forever) && n > at));
    if (hit) atomic_fetch_add(&f->hits, 1);
    return hit;
}

static int fails(const char *name)
{
    const int hit = hits(name), ms = atomic_load(&fault_state.code);
    if (hit && atomic_load(&fault_state.how) == FAULT_SLEEPS) nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000L}, NULL);
    return hit && atomic_load(&fault_state.how) == FAULT_FAILS;
}

/* A call that returns a status; `event` is its event argument, or 0. */
#define STATUS(name, params, args, event)                                                                                        \
    static cl_int CL_API_CALL my_##name params                                                                                   \
    {                                                                                                                            \
        if (fails(#name)) return atomic_load(&fault_state.code);                                                                 \
        const cl_int status = next->name args;                                                                                   \
        if (status == CL_SUCCESS && (event)) atomic_fetch_add(&fault_state.alive[FAULT_EVENT], 1);                               \
        note(#name, status, 0);                                                                                                  \
        return status;                                                                                                           \
    }

/* Is this query lied to? Handles are told truly: no program can do anything with a wrong one. */
static int lied_to(const char *name, cl_uint what)
{
    const struct fault_state *f = &fault_state;
    if (atomic_load(&f->lie) == LIE_NONE || strcmp(f->lie_entry, name) || (f->lie_what && f->lie_what != what)) return 0;
    return what != CL_DEVICE_PLATFORM && what != CL_DEVICE_PARENT_DEVICE && what != CL_PLATFORM_ICD_SUFFIX_KHR;
}

static void tell(size_t size, void *value, size_t *size_ret)
{
    struct fault_state *f = &fault_state;
    const int lie = atomic_load(&f->lie);
    const size_t length = strlen(f->lie_text) + 1;
    atomic_fetch_add(&f->lies, 1);
    if (value && lie == LIE_ZERO) memset(value, 0, size);
    if (value && lie == LIE_ONES) memset(value, 0xff, size);
    if (value && lie == LIE_VALUE)
        for (size_t n = 0; n < size; n++) ((unsigned char *)value)[n] = (unsigned char)(f->lie_value >> n % sizeof f->lie_value * 8);
    if (value && lie == LIE_TEXT) memcpy(value, f->lie_text, length < size ? length : size);
    if (size_ret && lie == LIE_TEXT) *size_ret = length;
    if (size_ret && lie == LIE_SIZE_ZERO) *size_ret = 0;
    if (size_ret && lie == LIE_SIZE_HUGE) *size_ret = SIZE_MAX;
}

/* A query: parameter i, room s, value v, size r. LIE_NOTHING does not ask the driver. */
#define QUERY(name, params, args)                                                                                                \
    static cl_int CL_API_CALL my_##name params                                                                                   \
    {                                                                                                                            \
        if (fails(#name)) return atomic_load(&fault_state.code);                                                                 \
        const int lied = lied_to(#name, i), lie = atomic_load(&fault_state.lie);                                                 \
        const cl_int status = lied && (lie == LIE_NOTHING || lie == LIE_TEXT) ? CL_SUCCESS : next->name args;                    \
        if (lied && status == CL_SUCCESS) tell(s, v, r);                                                                         \
        return status;                                                                                                           \
    }

/* A call that returns an object and writes its status to *err. */
#define OBJECT(type, name, params, args, kind, flags)                                                                            \
    static type CL_API_CALL my_##name params                                                                                     \
    {                                                                                                                            \
        if (fails(#name)) {                                                                                                      \
            if (err) *err = atomic_load(&fault_state.code);                                                                      \
            return NULL;                                                                                                         \
        }                                                                                                                        \
        type object = next->name args;                                                                                           \
        if (object && (kind) != FAULT_KINDS) atomic_fetch_add(&fault_state.alive[(kind) % FAULT_KINDS], 1);                      \
        note(#name, object ? CL_SUCCESS : -1, flags);                                                                            \
        return object;                                                                                                           \
    }

static void note(const char *name, cl_int status, cl_mem_flags flags)
{
    if (status != CL_SUCCESS) return;
    if (!strcmp(name, "clCreateProgramWithSource")) atomic_fetch_add(&fault_state.sources, 1);
    if (!strcmp(name, "clBuildProgram")) atomic_fetch_add(&fault_state.builds, 1);
    if (!strcmp(name, "clEnqueueNDRangeKernel")) atomic_fetch_add(&fault_state.launches, 1);
    if (!strcmp(name, "clCreateBuffer") && !(flags & CL_MEM_USE_HOST_PTR)) atomic_fetch_add(&fault_state.buffers, 1);
}

typedef void(CL_CALLBACK *context_note)(const char *, const void *, size_t, void *);
typedef void(CL_CALLBACK *program_note)(cl_program, void *);
#define WAIT cl_uint nw, const cl_event *w

OBJECT(cl_context, clCreateContext,
       (const cl_context_properties *p, cl_uint n, const cl_device_id *d, context_note f, void *u, cl_int *err), (p, n, d, f, u, err),
       FAULT_CONTEXT, 0)
OBJECT(cl_command_queue, clCreateCommandQueue, (cl_context c, cl_device_id d, cl_command_queue_properties p, cl_int *err), (c, d, p, err),
       FAULT_QUEUE, 0)
OBJECT(cl_mem, clCreateBuffer, (cl_context c, cl_mem_flags f, size_t s, void *h, cl_int *err), (c, f, s, h, err), FAULT_MEMORY, f)
OBJECT(cl_program, clCreateProgramWithSource, (cl_context c, cl_uint n, const char **s, const size_t *l, cl_int *err), (c, n, s, l, err),
       FAULT_PROGRAM, 0)
OBJECT(cl_program, clCreateProgramWithBinary,
       (cl_context c, cl_uint n, const cl_device_id *d, const size_t *l, const unsigned char **b, cl_int *s, cl_int *err),
       (c, n, d, l, b, s, err), FAULT_PROGRAM, 0)
OBJECT(cl_kernel, clCreateKernel, (cl_program p, const char *k, cl_int *err), (p, k, err), FAULT_KERNEL, 0)

static void *CL_API_CALL my_clEnqueueMapBuffer(cl_command_queue q, cl_mem m, cl_bool b, cl_map_flags f, size_t o, size_t s, WAIT,
                                               cl_event *e, cl_int *err)
{
    if (fails("clEnqueueMapBuffer")) {
        if (err) *err = atomic_load(&fault_state.code);
        return NULL;
    }
    void *at = next->clEnqueueMapBuffer(q, m, b, f, o, s, nw, w, e, err);
    if (at && e) atomic_fetch_add(&fault_state.alive[FAULT_EVENT], 1);
    return at;
}

STATUS(clGetPlatformIDs, (cl_uint n, cl_platform_id *p, cl_uint *r), (n, p, r), 0)
QUERY(clGetPlatformInfo, (cl_platform_id p, cl_platform_info i, size_t s, void *v, size_t *r), (p, i, s, v, r))
STATUS(clGetDeviceIDs, (cl_platform_id p, cl_device_type t, cl_uint n, cl_device_id *d, cl_uint *r), (p, t, n, d, r), 0)
QUERY(clGetDeviceInfo, (cl_device_id d, cl_device_info i, size_t s, void *v, size_t *r), (d, i, s, v, r))
STATUS(clGetContextInfo, (cl_context c, cl_context_info i, size_t s, void *v, size_t *r), (c, i, s, v, r), 0)
STATUS(clGetCommandQueueInfo, (cl_command_queue q, cl_command_queue_info i, size_t s, void *v, size_t *r), (q, i, s, v, r), 0)
STATUS(clGetMemObjectInfo, (cl_mem m, cl_mem_info i, size_t s, void *v, size_t *r), (m, i, s, v, r), 0)
STATUS(clGetProgramInfo, (cl_program p, cl_program_info i, size_t s, void *v, size_t *r), (p, i, s, v, r), 0)
STATUS(clGetProgramBuildInfo, (cl_program p, cl_device_id d, cl_program_build_info i, size_t s, void *v, size_t *r), (p, d, i, s, v, r), 0)
QUERY(clGetKernelWorkGroupInfo, (cl_kernel k, cl_device_id d, cl_kernel_work_group_info i, size_t s, void *v, size_t *r), (k, d, i, s, v, r))
STATUS(clGetEventInfo, (cl_event e, cl_event_info i, size_t s, void *v, size_t *r), (e, i, s, v, r), 0)
STATUS(clBuildProgram, (cl_program p, cl_uint n, const cl_device_id *d, const char *o, program_note f, void *u), (p, n, d, o, f, u), 0)
STATUS(clSetKernelArg, (cl_kernel k, cl_uint i, size_t s, const void *v), (k, i, s, v), 0)
static cl_int CL_API_CALL my_clEnqueueNDRangeKernel(cl_command_queue q, cl_kernel k, cl_uint d, const size_t *o, const size_t *g,
                                                    const size_t *l, WAIT, cl_event *e)
{
    const long before = atomic_load(&fault_state.hits);
    if (fails("clEnqueueNDRangeKernel")) return atomic_load(&fault_state.code);
    const int lost = atomic_load(&fault_state.how) == FAULT_DROPS && atomic_load(&fault_state.hits) > before;
    const cl_int status = lost ? next->clEnqueueMarkerWithWaitList(q, nw, w, e) : next->clEnqueueNDRangeKernel(q, k, d, o, g, l, nw, w, e);
    if (status == CL_SUCCESS && e) atomic_fetch_add(&fault_state.alive[FAULT_EVENT], 1);
    note("clEnqueueNDRangeKernel", status, 0);
    return status;
}
STATUS(clEnqueueReadBuffer, (cl_command_queue q, cl_mem m, cl_bool b, size_t o, size_t s, void *p, WAIT, cl_event *e),
       (q, m, b, o, s, p, nw, w, e), e)
STATUS(clEnqueueWriteBuffer, (cl_command_queue q, cl_mem m, cl_bool b, size_t o, size_t s, const void *p, WAIT, cl_event *e),
       (q, m, b, o, s, p, nw, w, e), e)
STATUS(clEnqueueUnmapMemObject, (cl_command_queue q, cl_mem m, void *p, WAIT, cl_event *e), (q, m, p, nw, w, e), e)
STATUS(clEnqueueMarkerWithWaitList, (cl_command_queue q, WAIT, cl_event *e), (q, nw, w, e), e)
STATUS(clFlush, (cl_command_queue q), (q), 0)
STATUS(clFinish, (cl_command_queue q), (q), 0)
STATUS(clWaitForEvents, (cl_uint n, const cl_event *e), (n, e), 0)
STATUS(clSetEventCallback, (cl_event e, cl_int t, void(CL_CALLBACK *f)(cl_event, cl_int, void *), void *u), (e, t, f, u), 0)

#define COUNT(name, type, kind, step)                                                                                            \
    static cl_int CL_API_CALL my_##name(type object)                                                                             \
    {                                                                                                                            \
        const cl_int status = next->name(object);                                                                                \
        if (status == CL_SUCCESS) atomic_fetch_add(&fault_state.alive[kind], step);                                              \
        return status;                                                                                                           \
    }
#define EVERY_OBJECT(X)                                                                                                          \
    X(Context, cl_context, FAULT_CONTEXT)                                                                                        \
    X(CommandQueue, cl_command_queue, FAULT_QUEUE)                                                                               \
    X(MemObject, cl_mem, FAULT_MEMORY)                                                                                           \
    X(Program, cl_program, FAULT_PROGRAM)                                                                                        \
    X(Kernel, cl_kernel, FAULT_KERNEL)                                                                                           \
    X(Event, cl_event, FAULT_EVENT)
#define BOTH(name, type, kind) COUNT(clRetain##name, type, kind, 1) COUNT(clRelease##name, type, kind, -1)
EVERY_OBJECT(BOTH)

CL_API_ENTRY __attribute__((visibility("default"))) cl_int CL_API_CALL clGetLayerInfo(cl_layer_info info, size_t size, void *value,
                                                                                      size_t *size_ret)
{
    if (info != CL_LAYER_API_VERSION) return CL_INVALID_VALUE;
    if (value) {
        if (size < sizeof(cl_layer_api_version)) return CL_INVALID_VALUE;
        *(cl_layer_api_version *)value = CL_LAYER_API_VERSION_100;
    }
    if (size_ret) *size_ret = sizeof(cl_layer_api_version);
    return CL_SUCCESS;
}

CL_API_ENTRY __attribute__((visibility("default"))) cl_int CL_API_CALL clInitLayer(cl_uint entries, const cl_icd_dispatch *target,
                                                                                  cl_uint *entries_ret, const cl_icd_dispatch **layer)
{
    const size_t bytes = entries * sizeof(void *);
    next = target;
    memcpy(&table, target, bytes < sizeof table ? bytes : sizeof table);
#define PUT(name) table.name = my_##name
    PUT(clCreateContext), PUT(clCreateCommandQueue), PUT(clCreateBuffer), PUT(clCreateProgramWithSource), PUT(clCreateProgramWithBinary);
    PUT(clCreateKernel), PUT(clEnqueueMapBuffer), PUT(clGetPlatformIDs), PUT(clGetPlatformInfo), PUT(clGetDeviceIDs), PUT(clGetDeviceInfo);
    PUT(clGetContextInfo), PUT(clGetCommandQueueInfo), PUT(clGetMemObjectInfo), PUT(clGetProgramInfo), PUT(clGetProgramBuildInfo);
    PUT(clGetKernelWorkGroupInfo), PUT(clGetEventInfo), PUT(clBuildProgram), PUT(clSetKernelArg), PUT(clEnqueueNDRangeKernel);
    PUT(clEnqueueReadBuffer), PUT(clEnqueueWriteBuffer), PUT(clEnqueueUnmapMemObject), PUT(clEnqueueMarkerWithWaitList);
    PUT(clFlush), PUT(clFinish), PUT(clWaitForEvents), PUT(clSetEventCallback);
#define PUT_BOTH(name, type, kind) PUT(clRetain##name), PUT(clRelease##name);
    EVERY_OBJECT(PUT_BOTH)
    *entries_ret = entries < sizeof table / sizeof(void *) ? entries : (cl_uint)(sizeof table / sizeof(void *));
    *layer = &table;
    return CL_SUCCESS;
}
