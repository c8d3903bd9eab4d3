/* SPDX-License-Identifier: MIT
 * roof_opencl.c - ceilings of an OpenCL device: FMA peak, read bandwidth, launch round trip. Small kernels of its own on the wing's queue;
 * nothing of the library is measured here.
 */
#include "roof.h"
#include "status.h"
#ifdef HEED_OPENCL
#include "opencl/cl.h"
#include <stdio.h>
#include <stdlib.h>
#include "tool.h"

enum { PASSES = 8, LAUNCHES = 40 };

/* Eight chains a work-item, of vectors as wide as the device likes. The read takes `count` words from gid * first in steps. */
static const char *const text =
    "#define CAT(a, b) a##b\n"
    "#define TYPE(w) CAT(float, w)\n"
    "typedef TYPE(VW) vec;\n"
    "kernel GROUP void fma_roof(global float *out, float seed, int turns)\n"
    "{\n"
    "    vec a0 = seed, a1 = seed + 1, a2 = seed + 2, a3 = seed + 3, a4 = seed + 4, a5 = seed + 5, a6 = seed + 6, a7 = seed + 7;\n"
    "    const vec m = 0.999f, c = 0.001f * seed;\n"
    "    for (int t = 0; t < turns; t++) {\n"
    "        a0 = fma(a0, m, c); a1 = fma(a1, m, c); a2 = fma(a2, m, c); a3 = fma(a3, m, c);\n"
    "        a4 = fma(a4, m, c); a5 = fma(a5, m, c); a6 = fma(a6, m, c); a7 = fma(a7, m, c);\n"
    "    }\n"
    "    const vec s = a0 + a1 + a2 + a3 + a4 + a5 + a6 + a7;\n"
    "    out[get_global_id(0)] = s.s0 + s.s1 + s.s2 + s.s3;\n"
    "}\n"
    "kernel GROUP void read_roof(global float *out, global const uint4 *in, ulong first, ulong step, ulong count)\n"
    "{\n"
    "    uint4 a = 0;\n"
    "    ulong n = get_global_id(0) * first;\n"
    "    for (ulong t = 0; t < count; t++, n += step) a |= in[n];\n"
    "    out[get_global_id(0)] = (float)(a.x | a.y | a.z | a.w);\n"
    "}\n"
    "kernel void empty(global float *out) { if (get_global_id(0) == 0) out[0] = 1.0f; }\n";

struct probe {
    struct cl_device *device;
    cl_program program;
    cl_kernel fma, read, empty;
    cl_mem out, in;
    size_t items, bytes;
    int32_t width;
    bool cpu;
};

static heed_status launch(struct probe *p, cl_kernel kernel, size_t items, size_t group, double *seconds)
{
    const double begin = seconds_now();
    const size_t *local = group ? &group : NULL;
    heed_status status = CL(p->device, clEnqueueNDRangeKernel(p->device->queue, kernel, 1, NULL, &items, local, 0, NULL, NULL));
    if (status == HEED_OK) status = CL(p->device, clFinish(p->device->queue));
    *seconds = seconds_now() - begin;
    return status;
}

static heed_status kernel_make(struct probe *p, const char *name, cl_kernel *kernel)
{
    cl_int code;
    *kernel = clCreateKernel(p->program, name, &code);
    if (code != CL_SUCCESS) return cl_failed(p->device, "clCreateKernel", code);
    return CL(p->device, clSetKernelArg(*kernel, 0, sizeof p->out, &p->out));
}

static heed_status probe_build(struct probe *p)
{
    char options[128];
    cl_int code;
    p->program = clCreateProgramWithSource(p->device->context, 1, (const char **)&text, NULL, &code);
    if (code != CL_SUCCESS) return cl_failed(p->device, "clCreateProgramWithSource", code);
    snprintf(options, sizeof options, "-DVW=%d -DGROUP=%s", (int)p->width, p->cpu ? "__attribute__((reqd_work_group_size(1,1,1)))" : "");
    code = clBuildProgram(p->program, 1, &p->device->id, options, NULL, NULL);
    if (code != CL_SUCCESS) return fail(HEED_BUILD_FAILED, "clBuildProgram of the roof kernels: %s", cl_error_name(code));
    p->out = clCreateBuffer(p->device->context, CL_MEM_READ_WRITE, p->items * sizeof(float), NULL, &code);
    if (code != CL_SUCCESS) return cl_failed(p->device, "clCreateBuffer", code);
    p->in = clCreateBuffer(p->device->context, CL_MEM_READ_ONLY, p->bytes, NULL, &code);
    if (code != CL_SUCCESS) return cl_failed(p->device, "clCreateBuffer", code);
    const cl_uchar one = 1;
    heed_status status = CL(p->device, clEnqueueFillBuffer(p->device->queue, p->in, &one, 1, 0, p->bytes, 0, NULL, NULL));
    if (status == HEED_OK) status = CL(p->device, clFinish(p->device->queue));
    if (status == HEED_OK) status = kernel_make(p, "fma_roof", &p->fma);
    if (status == HEED_OK) status = kernel_make(p, "read_roof", &p->read);
    if (status == HEED_OK) status = kernel_make(p, "empty", &p->empty);
    return status;
}

static heed_status measure_fma(struct probe *p, double *gflops)
{
    const cl_float seed = 1.0f;
    cl_int turns = 256;
    double seconds = 0, least = 0;
    heed_status status = CL(p->device, clSetKernelArg(p->fma, 1, sizeof seed, &seed));
    for (int n = -1; status == HEED_OK && n < PASSES;) {
        status = CL(p->device, clSetKernelArg(p->fma, 2, sizeof turns, &turns));
        if (status == HEED_OK) status = launch(p, p->fma, p->items, p->cpu ? 1 : 0, &seconds);
        if (n < 0 && seconds < 0.02 && turns < 1 << 26) {
            turns *= 2; /* until a pass is long enough to be timed */
            continue;
        }
        if (n++ < 0 || least == 0 || seconds < least) least = seconds;
    }
    *gflops = 1e-9 * (double)p->items * (double)turns * 16.0 * p->width / least;
    return status;
}

static heed_status measure_read(struct probe *p, double *gbps)
{
    const cl_ulong words = p->bytes / 16, count = words / p->items;
    const cl_ulong first = p->cpu ? count : 1, step = p->cpu ? 1 : p->items;
    double seconds, least = 0;
    heed_status status = CL(p->device, clSetKernelArg(p->read, 1, sizeof p->in, &p->in));
    if (status == HEED_OK) status = CL(p->device, clSetKernelArg(p->read, 2, sizeof first, &first));
    if (status == HEED_OK) status = CL(p->device, clSetKernelArg(p->read, 3, sizeof step, &step));
    if (status == HEED_OK) status = CL(p->device, clSetKernelArg(p->read, 4, sizeof count, &count));
    for (int n = 0; status == HEED_OK && n < PASSES + 1; n++) {
        status = launch(p, p->read, p->items, p->cpu ? 1 : 0, &seconds);
        if (n == 1 || (n > 1 && seconds < least)) least = seconds; /* pass 0 warms up */
    }
    *gbps = 1e-9 * (double)(count * p->items) * 16.0 / least;
    return status;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static heed_status measure_launch(struct probe *p, double *us)
{
    double seconds[LAUNCHES];
    heed_status status = launch(p, p->empty, 1, 1, &seconds[0]);
    for (int n = 0; status == HEED_OK && n < LAUNCHES; n++) status = launch(p, p->empty, 1, 1, &seconds[n]);
    qsort(seconds, LAUNCHES, sizeof *seconds, by_size);
    *us = 1e6 * seconds[LAUNCHES / 2];
    return status;
}

heed_status roof_opencl_measure(struct device *device, size_t bytes, struct roof_opencl *roof)
{
    struct probe p = {.device = cl_device_of(device)};
    heed_status status = cl_device_open(p.device);
    if (status != HEED_OK) return status;
    p.cpu = p.device->type == CL_DEVICE_TYPE_CPU;
    p.width = p.cpu ? cl_vector_width(p.device) : 4;
    p.items = (size_t)p.device->compute_units * (p.cpu ? 4 : 2048);
    p.bytes = bytes < p.device->max_alloc / 2 ? bytes : p.device->max_alloc / 2;
    if (p.bytes < p.items * 16) p.bytes = p.items * 16;
    status = probe_build(&p);
    if (status == HEED_OK) status = measure_fma(&p, &roof->fma_gflops);
    if (status == HEED_OK) status = measure_read(&p, &roof->read_gbps);
    if (status == HEED_OK) status = measure_launch(&p, &roof->launch_us);
    if (p.fma) clReleaseKernel(p.fma);
    if (p.read) clReleaseKernel(p.read);
    if (p.empty) clReleaseKernel(p.empty);
    if (p.in) clReleaseMemObject(p.in);
    if (p.out) clReleaseMemObject(p.out);
    if (p.program) clReleaseProgram(p.program);
    return status;
}
#else
heed_status roof_opencl_measure(struct device *device, size_t bytes, struct roof_opencl *roof)
{
    (void)device, (void)bytes, (void)roof;
    return fail(HEED_UNSUPPORTED, "built without OpenCL");
}
#endif
