/* SPDX-License-Identifier: MIT
 * onednn.c - oneDNN's matmul and softmax in the frame of unfused.c, one thread per primitive. Its library is looked for when the bench runs;
 * its C header (version 2, Debian's libdnnl-dev) must have been there at the build, since descriptors are structures of that version. Newer
 * versions are met inside PyTorch and OpenVINO.
 */
#include "unfused.h"
#include <dlfcn.h>
#include <stdio.h>

#if defined(__has_include)
#if __has_include(<oneapi/dnnl/dnnl.h>)
#include <oneapi/dnnl/dnnl.h>
#if DNNL_VERSION_MAJOR == 2
#define HAVE_ONEDNN
#endif
#endif
#endif

#ifdef HAVE_ONEDNN

enum { MOST_WORKERS = 256 };

/* The functions that are used, by name: X(name). */
#define FUNCTIONS(X)                                                                                                                      \
    X(matmul_desc_init) X(softmax_forward_desc_init) X(primitive_desc_create) X(primitive_desc_destroy) X(primitive_create)              \
    X(primitive_destroy) X(primitive_execute) X(primitive_attr_create) X(primitive_attr_destroy) X(primitive_attr_set_output_scales)     \
    X(memory_desc_init_by_strides) X(memory_create) X(memory_destroy) X(memory_set_data_handle) X(engine_create) X(stream_create)         \
    X(stream_wait) X(version)

static struct {
    void *handle;
#define X(name) __typeof__(dnnl_##name) *name;
    FUNCTIONS(X)
#undef X
    void (*omp_threads)(int);
    dnnl_engine_t engine;
} dnnl;

enum which { SCORES, VALUES, SOFTMAX, PRODUCTS };

/* Primitives are shared by all threads, memory objects and streams are one worker's own. */
static struct {
    dnnl_primitive_t primitive[PRODUCTS];
    dnnl_memory_t q[MOST_WORKERS], k[MOST_WORKERS], s[MOST_WORKERS], v[MOST_WORKERS], o[MOST_WORKERS];
    dnnl_stream_t stream[MOST_WORKERS];
    int workers;
} made;

static void find(const char *name, void *function)
{
    *(void **)function = dlsym(dnnl.handle, name);
}

static const char *absent(const struct peer *self)
{
    (void)self;
    static char file[32], text[80];
    if (dnnl.engine) return NULL;
    snprintf(file, sizeof file, "libdnnl.so.%d", DNNL_VERSION_MAJOR);
    dnnl.handle = dlopen(file, RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
    snprintf(text, sizeof text, "%s is not installed", file);
    if (!dnnl.handle) return text;
    bool all = true;
#define X(name)                           \
    find("dnnl_" #name, &dnnl.name);      \
    all = all && dnnl.name;
    FUNCTIONS(X)
#undef X
    find("omp_set_num_threads", &dnnl.omp_threads);
    if (!all || !dnnl.omp_threads) return "libdnnl lacks functions, or does not use OpenMP";
    return dnnl.engine_create(&dnnl.engine, dnnl_cpu, 0) == dnnl_success ? NULL : "libdnnl finds no CPU";
}

static const char *version(const struct peer *self)
{
    (void)self;
    static char text[64];
    const dnnl_version_t *v = dnnl.version();
    snprintf(text, sizeof text, "oneDNN %d.%d.%d, matmul and softmax", v->major, v->minor, v->patch);
    return text;
}

static dnnl_memory_desc_t matrix(int64_t rows, int64_t columns, int64_t row, int64_t column)
{
    dnnl_memory_desc_t md;
    const dnnl_dims_t dims = {rows, columns}, strides = {row, column};
    dnnl.memory_desc_init_by_strides(&md, 2, dims, dnnl_f32, strides);
    return md;
}

static bool make(enum which which, const_dnnl_op_desc_t op, const float *scale)
{
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    bool good = dnnl.primitive_attr_create(&attr) == dnnl_success;
    if (good && scale) good = dnnl.primitive_attr_set_output_scales(attr, 1, 0, scale) == dnnl_success;
    good = good && dnnl.primitive_desc_create(&pd, op, attr, dnnl.engine, NULL) == dnnl_success;
    good = good && dnnl.primitive_create(&made.primitive[which], pd) == dnnl_success;
    if (pd) dnnl.primitive_desc_destroy(pd);
    if (attr) dnnl.primitive_attr_destroy(attr);
    return good;
}

static bool memory(dnnl_memory_t *m, const dnnl_memory_desc_t *md)
{
    return dnnl.memory_create(m, md, dnnl.engine, DNNL_MEMORY_NONE) == dnnl_success;
}

static bool prepare(const struct unfused_shape *x, int workers)
{
    if (workers > MOST_WORKERS) return false;
    dnnl.omp_threads(1);
    const dnnl_memory_desc_t q = matrix(x->rows, x->head_dim, x->q_row, 1), k = matrix(x->head_dim, x->kv_len, 1, x->k_row),
                             s = matrix(x->rows, x->kv_len, x->kv_len, 1), v = matrix(x->kv_len, x->v_head_dim, x->v_row, 1),
                             o = matrix(x->rows, x->v_head_dim, x->o_row, 1);
    dnnl_matmul_desc_t scores, values;
    dnnl_softmax_desc_t softmax;
    bool good = dnnl.matmul_desc_init(&scores, &q, &k, NULL, &s) == dnnl_success && make(SCORES, &scores, &x->scale);
    good = good && dnnl.matmul_desc_init(&values, &s, &v, NULL, &o) == dnnl_success && make(VALUES, &values, NULL);
    good = good && dnnl.softmax_forward_desc_init(&softmax, dnnl_forward_inference, &s, 1) == dnnl_success && make(SOFTMAX, &softmax, NULL);
    for (made.workers = 0; good && made.workers < workers; made.workers++) {
        const int w = made.workers;
        good = memory(&made.q[w], &q) && memory(&made.k[w], &k) && memory(&made.s[w], &s) && memory(&made.v[w], &v) && memory(&made.o[w], &o);
        if (good && !made.stream[w]) good = dnnl.stream_create(&made.stream[w], dnnl.engine, dnnl_stream_default_flags) == dnnl_success;
    }
    return good;
}

static void execute(enum which which, dnnl_memory_t source, dnnl_memory_t weights, dnnl_memory_t to, int worker)
{
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, source}, {DNNL_ARG_DST, to}, {DNNL_ARG_WEIGHTS, weights}};
    dnnl.omp_threads(1);
    dnnl.primitive_execute(made.primitive[which], made.stream[worker], which == SOFTMAX ? 2 : 3, args);
    dnnl.stream_wait(made.stream[worker]);
}

static void scores(const struct unfused_shape *x, const float *q, const float *k, float *s, int worker)
{
    (void)x;
    dnnl.memory_set_data_handle(made.q[worker], (void *)q);
    dnnl.memory_set_data_handle(made.k[worker], (void *)k);
    dnnl.memory_set_data_handle(made.s[worker], s);
    execute(SCORES, made.q[worker], made.k[worker], made.s[worker], worker);
}

static void values(const struct unfused_shape *x, const float *s, const float *v, float *o, int worker)
{
    (void)x;
    dnnl.memory_set_data_handle(made.s[worker], (void *)s);
    dnnl.memory_set_data_handle(made.v[worker], (void *)v);
    dnnl.memory_set_data_handle(made.o[worker], o);
    execute(VALUES, made.s[worker], made.v[worker], made.o[worker], worker);
}

static void softmax(const struct unfused_shape *x, float *s, int worker)
{
    (void)x;
    dnnl.memory_set_data_handle(made.s[worker], s);
    execute(SOFTMAX, made.s[worker], NULL, made.s[worker], worker);
}

static struct unfused unfused = {.scores = scores, .values = values, .softmax = softmax, .begin = prepare};

static const char *begin(const struct peer *self, const struct services *services, const struct instance *instance)
{
    (void)self;
    return unfused_begin(&unfused, services, instance);
}

static void end(const struct peer *self)
{
    (void)self;
    for (int n = 0; n < PRODUCTS; n++) {
        if (made.primitive[n]) dnnl.primitive_destroy(made.primitive[n]);
        made.primitive[n] = NULL;
    }
    for (int w = 0; w < MOST_WORKERS; w++) {
        dnnl_memory_t *objects[] = {&made.q[w], &made.k[w], &made.s[w], &made.v[w], &made.o[w]};
        for (int n = 0; n < 5; n++) {
            if (*objects[n]) dnnl.memory_destroy(*objects[n]);
            *objects[n] = NULL;
        }
    }
    unfused_end(&unfused);
}

static const char *run(const struct peer *self, float *o, int count, double *seconds)
{
    (void)self;
    return unfused_run(&unfused, o, count, seconds);
}

static const char *setting(const struct peer *self)
{
    (void)self;
    return unfused_setting(&unfused);
}

#else

static const char *absent(const struct peer *self)
{
    (void)self;
    return "built without the header of oneDNN 2 (libdnnl-dev)";
}

static const char *version(const struct peer *self) { return absent(self); }

static const char *begin(const struct peer *self, const struct services *services, const struct instance *instance)
{
    (void)services;
    (void)instance;
    return absent(self);
}

static const char *run(const struct peer *self, float *o, int count, double *seconds)
{
    (void)o;
    (void)count;
    (void)seconds;
    return absent(self);
}

static const char *setting(const struct peer *self) { return absent(self); }
static void end(const struct peer *self) { (void)self; }

#endif

static bool on_heed_threads(const struct peer *self)
{
    (void)self;
    return true;
}

const struct peer peer_onednn = {"onednn", absent, version, unfused_refuses, begin, run, NULL, setting, on_heed_threads, end, 0};
