/* SPDX-License-Identifier: MIT
 * clblast.c - CLBlast on the OpenCL device that heed is timed on: scores and values as its matrix products, between them a softmax kernel of ours (it has
 * none), with the whole score matrix in the device's memory. Found at run time as the BLAS libraries are, so no header is needed. It may do all heads in
 * one batched product or one product after another, and the softmax a row per work-item or a row per group: the fastest of the four is kept.
 */
#include "unfused.h"
#ifdef HEED_OPENCL
#include "context.h"
#include "opencl/cl.h"
#include "tool.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROW_MAJOR = 101, NO_TRANSPOSE = 111, TRANSPOSE = 112, GROUP = 64 };

typedef int sgemm_fn(int layout, int trans_a, int trans_b, size_t m, size_t n, size_t k, float alpha, cl_mem a, size_t a_at, size_t lda, cl_mem b, size_t b_at,
                     size_t ldb, float beta, cl_mem c, size_t c_at, size_t ldc, cl_command_queue *queue, cl_event *event);
typedef int batched_fn(int layout, int trans_a, int trans_b, size_t m, size_t n, size_t k, const float *alphas, cl_mem a, const size_t *a_at, size_t lda, cl_mem b,
                       const size_t *b_at, size_t ldb, const float *betas, cl_mem c, const size_t *c_at, size_t ldc, size_t count, cl_command_queue *queue,
                       cl_event *event);

static struct {
    void *handle;
    sgemm_fn *sgemm;
    batched_fn *batched;
} clblast;

/* Row r sees keys [0, keys): s[j] = e^(s[j] - max) / sum, the hidden ones 0. rows: after so many the positions begin anew. */
static const char *const text =
    "int keys_of(size_t r, int rows, int kv, int causal, int first)\n"
    "{\n"
    "    return causal ? clamp(first + (int)(r % (size_t)rows) + 1, 0, kv) : kv;\n"
    "}\n"
    "kernel void softmax_item(global float *s, int rows, int kv, int causal, int first)\n"
    "{\n"
    "    const int keys = keys_of(get_global_id(0), rows, kv, causal, first);\n"
    "    s += get_global_id(0) * (size_t)kv;\n"
    "    float8 m8 = -FLT_MAX, l8 = 0;\n"
    "    int j = 0;\n"
    "    for (; j + 8 <= keys; j += 8) m8 = fmax(m8, vload8(0, s + j));\n"
    "    float4 m4 = fmax(m8.lo, m8.hi);\n"
    "    float m = fmax(fmax(m4.x, m4.y), fmax(m4.z, m4.w)), l = 0;\n"
    "    for (; j < keys; j++) m = fmax(m, s[j]);\n"
    "    for (j = 0; j + 8 <= keys; j += 8) {\n"
    "        const float8 p = exp(vload8(0, s + j) - m);\n"
    "        vstore8(p, 0, s + j);\n"
    "        l8 += p;\n"
    "    }\n"
    "    const float4 l4 = l8.lo + l8.hi;\n"
    "    l = l4.x + l4.y + l4.z + l4.w;\n"
    "    for (; j < keys; j++) l += s[j] = exp(s[j] - m);\n"
    "    const float inverse = keys ? 1 / l : 0;\n"
    "    for (j = 0; j + 8 <= keys; j += 8) vstore8(vload8(0, s + j) * inverse, 0, s + j);\n"
    "    for (; j < kv; j++) s[j] = j < keys ? s[j] * inverse : 0;\n"
    "}\n"
    "kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))\n"
    "void softmax_group(global float *s, int rows, int kv, int causal, int first)\n"
    "{\n"
    "    local float part[GROUP];\n"
    "    const int keys = keys_of(get_group_id(0), rows, kv, causal, first), n = (int)get_local_id(0);\n"
    "    s += get_group_id(0) * (size_t)kv;\n"
    "    float m = -FLT_MAX, l = 0;\n"
    "    for (int j = n; j < keys; j += GROUP) m = fmax(m, s[j]);\n"
    "    part[n] = m;\n"
    "    barrier(CLK_LOCAL_MEM_FENCE);\n"
    "    for (int x = 0; x < GROUP; x++) m = fmax(m, part[x]);\n"
    "    barrier(CLK_LOCAL_MEM_FENCE);\n"
    "    for (int j = n; j < keys; j += GROUP) l += s[j] = exp(s[j] - m);\n"
    "    part[n] = l;\n"
    "    barrier(CLK_LOCAL_MEM_FENCE);\n"
    "    l = 0;\n"
    "    for (int x = 0; x < GROUP; x++) l += part[x];\n"
    "    const float inverse = keys ? 1 / l : 0;\n"
    "    for (int j = n; j < kv; j += GROUP) s[j] = j < keys ? s[j] * inverse : 0;\n"
    "}\n";

enum form { BY_ITEM, BY_GROUP, FORMS };

/* One problem on one device. Task t: a head, or in decode the heads of a group as rows; *_at[t]: where its matrices begin, in elements. */
static struct {
    struct unfused_shape shape;
    cl_command_queue queue;
    cl_program program;
    cl_kernel softmax[FORMS];
    cl_mem q, k, v, o, s;
    size_t *at[5], tasks, matrix; /* at: q k v o s */
    float *scales, *ones, *zeros;
    size_t o_bytes;
    bool batched, room; /* room: the scores of all tasks fit one buffer */
    enum form form;
    char setting[100];
} made;
enum { Q, K, V, O, S };

static void find(const char *name, void *function) { *(void **)function = dlsym(clblast.handle, name); }

static const char *absent(const struct peer *self)
{
    (void)self;
    if (clblast.batched) return NULL;
    clblast.handle = dlopen("libclblast.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!clblast.handle) return "libclblast.so.1 is not installed";
    find("CLBlastSgemm", &clblast.sgemm);
    find("CLBlastSgemmBatched", &clblast.batched);
    return clblast.sgemm && clblast.batched ? NULL : "libclblast.so.1 has no C interface with batched products";
}

/* It has no function for it: the name of the file that the library's name leads to. */
static const char *version(const struct peer *self)
{
    static char text_[80] = "CLBlast";
    Dl_info info;
    void *address;
    (void)self;
    *(sgemm_fn **)&address = clblast.sgemm;
    char *path = dladdr(address, &info) ? realpath(info.dli_fname, NULL) : NULL;
    const char *file = path && strrchr(path, '/') ? strrchr(path, '/') + 1 : "?";
    snprintf(text_, sizeof text_, "CLBlast, %.60s", file);
    free(path);
    return text_;
}

static const char *refuses(const struct peer *self, const struct instance *instance)
{
    return peers_place.device <= 0 ? "an OpenCL device is wanted" : unfused_refuses(self, instance);
}

/* ---- a problem ------------------------------------------------------------------ */

static cl_mem upload(struct cl_device *device, const heed_tensor *t, cl_int *code)
{
    if (*code != CL_SUCCESS) return NULL;
    return clCreateBuffer(device->context, CL_MEM_READ_ONLY | CL_MEM_COPY_HOST_PTR, t->bytes ? t->bytes : 4, t->data, code);
}

static bool places(const struct instance *in)
{
    const struct problem *p = &in->problem;
    const heed_tensors *t = &in->tensors;
    const heed_tensor *const tensor[4] = {&t->q, &t->k, &t->v, &t->o};
    const bool one = in->line.q_len == 1;
    const int32_t step = one ? p->group : 1, per_batch = p->q_heads / step;
    made.tasks = (size_t)in->line.batch * (size_t)per_batch;
    made.scales = malloc(made.tasks * sizeof *made.scales);
    made.ones = malloc(made.tasks * sizeof *made.ones);
    made.zeros = calloc(made.tasks, sizeof *made.zeros);
    bool good = made.scales && made.ones && made.zeros;
    for (int n = 0; n < 5; n++) good = (made.at[n] = calloc(made.tasks, sizeof **made.at)) != NULL && good;
    for (size_t n = 0; good && n < made.tasks; n++) {
        const int32_t b = (int32_t)n / per_batch, h = (int32_t)n % per_batch * step;
        for (int x = 0; x < 4; x++) {
            const int32_t head = x == K || x == V ? h / p->group : h;
            made.at[x][n] = (size_t)(tensor[x]->offset + b * tensor[x]->batch_stride + head * tensor[x]->head_stride);
        }
        made.at[S][n] = made.room ? n * made.matrix : 0;
        made.scales[n] = p->scale;
        made.ones[n] = 1;
    }
    return good;
}

static cl_int build(struct cl_device *device, const struct instance *in)
{
    const struct problem *p = &in->problem;
    const struct unfused_shape *x = &made.shape;
    /* One query sees everything; its rows are heads. */
    const cl_int rows = x->rows, causal = (p->flags & HEED_CAUSAL) && in->line.q_len > 1, first = x->kv_len - in->line.q_len;
    static const char *const names[FORMS] = {"softmax_item", "softmax_group"};
    char options[64];
    cl_int code;
    made.program = clCreateProgramWithSource(device->context, 1, (const char **)&text, NULL, &code);
    if (code != CL_SUCCESS) return code;
    snprintf(options, sizeof options, "-cl-fast-relaxed-math -DGROUP=%d", GROUP); /* a peer is not held to our rules */
    code = clBuildProgram(made.program, 1, &device->id, options, NULL, NULL);
    for (int n = 0; code == CL_SUCCESS && n < FORMS; n++) {
        made.softmax[n] = clCreateKernel(made.program, names[n], &code);
        if (code == CL_SUCCESS) code = clSetKernelArg(made.softmax[n], 1, sizeof rows, &rows);
        if (code == CL_SUCCESS) code = clSetKernelArg(made.softmax[n], 2, sizeof x->kv_len, &x->kv_len);
        if (code == CL_SUCCESS) code = clSetKernelArg(made.softmax[n], 3, sizeof causal, &causal);
        if (code == CL_SUCCESS) code = clSetKernelArg(made.softmax[n], 4, sizeof first, &first);
        if (code == CL_SUCCESS) code = clSetKernelArg(made.softmax[n], 0, sizeof made.s, &made.s);
    }
    return code;
}

/* Softmax of `count` tasks' scores, which begin at the buffer's start. */
static cl_int softmax(size_t count)
{
    const size_t rows = count * (size_t)made.shape.rows, items = made.form == BY_GROUP ? rows * GROUP : rows, group = GROUP;
    return clEnqueueNDRangeKernel(made.queue, made.softmax[made.form], 1, NULL, &items, made.form == BY_GROUP ? &group : NULL, 0, NULL, NULL);
}

static int all_at_once(void)
{
    const struct unfused_shape *x = &made.shape;
    const size_t rows = (size_t)x->rows, kv = (size_t)x->kv_len, dim = (size_t)x->head_dim, dv = (size_t)x->v_head_dim;
    int code = clblast.batched(ROW_MAJOR, NO_TRANSPOSE, TRANSPOSE, rows, kv, dim, made.scales, made.q, made.at[Q], (size_t)x->q_row, made.k, made.at[K],
                               (size_t)x->k_row, made.zeros, made.s, made.at[S], kv, made.tasks, &made.queue, NULL);
    if (code == CL_SUCCESS) code = softmax(made.tasks);
    if (code == CL_SUCCESS)
        code = clblast.batched(ROW_MAJOR, NO_TRANSPOSE, NO_TRANSPOSE, rows, dv, kv, made.ones, made.s, made.at[S], kv, made.v, made.at[V], (size_t)x->v_row,
                               made.zeros, made.o, made.at[O], (size_t)x->o_row, made.tasks, &made.queue, NULL);
    return code;
}

/* The scores of every task at the buffer's start. */
static int one_by_one(void)
{
    const struct unfused_shape *x = &made.shape;
    const size_t rows = (size_t)x->rows, kv = (size_t)x->kv_len, dim = (size_t)x->head_dim, dv = (size_t)x->v_head_dim;
    int code = CL_SUCCESS;
    for (size_t n = 0; code == CL_SUCCESS && n < made.tasks; n++) {
        code = clblast.sgemm(ROW_MAJOR, NO_TRANSPOSE, TRANSPOSE, rows, kv, dim, x->scale, made.q, made.at[Q][n], (size_t)x->q_row, made.k, made.at[K][n],
                             (size_t)x->k_row, 0, made.s, 0, kv, &made.queue, NULL);
        if (code == CL_SUCCESS) code = softmax(1);
        if (code == CL_SUCCESS)
            code = clblast.sgemm(ROW_MAJOR, NO_TRANSPOSE, NO_TRANSPOSE, rows, dv, kv, 1, made.s, 0, kv, made.v, made.at[V][n], (size_t)x->v_row, 0, made.o,
                                 made.at[O][n], (size_t)x->o_row, &made.queue, NULL);
    }
    return code;
}

static const char *once(double *seconds)
{
    static char why[80];
    const double begin = seconds_now();
    int code = made.batched ? all_at_once() : one_by_one();
    if (code == CL_SUCCESS) code = clFinish(made.queue);
    *seconds = seconds_now() - begin;
    snprintf(why, sizeof why, "%s product: code %d", made.batched ? "batched" : "single", code);
    return code == CL_SUCCESS ? NULL : why;
}

static const char *choose(void)
{
    double best = 1e30;
    bool batched = false;
    enum form form = BY_ITEM;
    const char *why = NULL;
    for (int n = 0; n < 2 * FORMS; n++) {
        double seconds;
        made.batched = n >= FORMS;
        made.form = (enum form)(n % FORMS);
        if (made.batched && !made.room) break;
        const char *failed = once(&seconds); /* compiles */
        if (!failed) failed = once(&seconds);
        if (failed) why = failed;
        else if (seconds < best) best = seconds, batched = made.batched, form = made.form;
    }
    made.batched = batched;
    made.form = form;
    snprintf(made.setting, sizeof made.setting, "%s, softmax of a row per %s", batched ? "batched products" : "a product per head", form == BY_GROUP ? "group" : "work-item");
    return best < 1e30 ? NULL : why;
}

static const char *begin(const struct peer *self, const struct services *services, const struct instance *in)
{
    static char why[80];
    const struct problem *p = &in->problem;
    const heed_tensors *t = &in->tensors;
    const bool one = in->line.q_len == 1;
    struct device *place;
    cl_int code;
    (void)self, (void)services;
    memset(&made, 0, sizeof made);
    if (device_get(peers_place.context, peers_place.device, &place) != HEED_OK) return heed_error_message();
    struct cl_device *device = cl_device_of(place);
    made.shape = (struct unfused_shape){.rows = one ? p->group : in->line.q_len, .kv_len = in->line.kv_len, .head_dim = p->head_dim, .v_head_dim = p->v_head_dim,
                                        .q_row = one ? t->q.head_stride : t->q.token_stride, .k_row = t->k.token_stride, .v_row = t->v.token_stride,
                                        .o_row = one ? t->o.head_stride : t->o.token_stride, .scale = p->scale};
    made.matrix = (size_t)made.shape.rows * (size_t)made.shape.kv_len;
    made.o_bytes = t->o.bytes;
    const size_t tasks = (size_t)in->line.batch * (size_t)(p->q_heads / (one ? p->group : 1));
    if (made.matrix == 0 || tasks == 0) return "nothing to multiply";
    made.room = tasks * made.matrix * sizeof(float) <= device->max_alloc;
    if (!places(in)) return "out of memory";
    made.queue = clCreateCommandQueue(device->context, device->id, 0, &code);
    made.q = upload(device, &t->q, &code);
    made.k = upload(device, &t->k, &code);
    made.v = upload(device, &t->v, &code);
    if (code == CL_SUCCESS) made.o = clCreateBuffer(device->context, CL_MEM_READ_WRITE, made.o_bytes, NULL, &code);
    if (code == CL_SUCCESS) made.s = clCreateBuffer(device->context, CL_MEM_READ_WRITE, (made.room ? tasks : 1) * made.matrix * sizeof(float), NULL, &code);
    if (code == CL_SUCCESS) code = build(device, in);
    snprintf(why, sizeof why, "%s", cl_error_name(code));
    return code == CL_SUCCESS ? choose() : why;
}

static const char *run(const struct peer *self, float *o, int count, double *seconds)
{
    const char *why = NULL;
    (void)self, (void)o;
    for (int n = 0; !why && n < count; n++) why = once(&seconds[n]);
    return why;
}

static const char *fetch(const struct peer *self, float *o)
{
    (void)self;
    return clEnqueueReadBuffer(made.queue, made.o, CL_TRUE, 0, made.o_bytes, o, 0, NULL, NULL) == CL_SUCCESS ? NULL : "the result cannot be read";
}

static const char *setting(const struct peer *self)
{
    (void)self;
    return made.setting;
}

static void end(const struct peer *self)
{
    cl_mem *const buffers[] = {&made.q, &made.k, &made.v, &made.o, &made.s};
    (void)self;
    for (int n = 0; n < FORMS; n++)
        if (made.softmax[n]) clReleaseKernel(made.softmax[n]);
    if (made.program) clReleaseProgram(made.program);
    for (int n = 0; n < 5; n++) {
        if (*buffers[n]) clReleaseMemObject(*buffers[n]);
        free(made.at[n]);
    }
    if (made.queue) clReleaseCommandQueue(made.queue);
    free(made.scales);
    free(made.ones);
    free(made.zeros);
    memset(&made, 0, sizeof made);
}

#else

static const char *absent(const struct peer *self)
{
    (void)self;
    return "built without OpenCL";
}
static const char *version(const struct peer *self) { return absent(self); }
static const char *refuses(const struct peer *self, const struct instance *instance)
{
    (void)instance;
    return absent(self);
}
static const char *begin(const struct peer *self, const struct services *services, const struct instance *instance)
{
    (void)services, (void)instance;
    return absent(self);
}
static const char *run(const struct peer *self, float *o, int count, double *seconds)
{
    (void)o, (void)count, (void)seconds;
    return absent(self);
}
static const char *fetch(const struct peer *self, float *o)
{
    (void)o;
    return absent(self);
}
static const char *setting(const struct peer *self) { return absent(self); }
static void end(const struct peer *self) { (void)self; }

#endif

static bool on_heed_threads(const struct peer *self)
{
    (void)self;
    return false;
}

const struct peer peer_clblast = {"clblast", absent, version, refuses, begin, run, fetch, setting, on_heed_threads, end, 0};
