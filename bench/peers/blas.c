/* SPDX-License-Identifier: MIT
 * blas.c - OpenBLAS and BLIS, found at run time by the name of their libraries, each with its own names (RTLD_LOCAL, RTLD_DEEPBIND): both
 * export the same functions. cblas_sgemm has been the same since 1998, so no header is needed.
 */
#include "unfused.h"
#include <dlfcn.h>
#include <stdio.h>

enum { ROW_MAJOR = 101, NO_TRANSPOSE = 111, TRANSPOSE = 112 };
enum { OPENBLAS, BLIS, LIBRARIES };

typedef void sgemm_fn(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a, int lda, const float *b, int ldb,
                      float beta, float *c, int ldc);

static struct blas {
    const char *file;
    void *handle;
    sgemm_fn *sgemm;
    void (*openblas_threads)(int);
    void (*blis_threads)(long);
    char version[160];
} blas[LIBRARIES] = {{.file = "libopenblas.so.0"}, {.file = "libblis.so.4"}};

/* ISO C knows no conversion between the pointers of data and of functions; POSIX does. */
static void find(void *handle, const char *name, void *function)
{
    *(void **)function = dlsym(handle, name);
}

static const char *absent(const struct peer *self)
{
    static char text[LIBRARIES][200];
    struct blas *b = &blas[self->number];
    if (b->sgemm) return NULL;
    b->handle = dlopen(b->file, RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
    if (b->handle) {
        find(b->handle, "cblas_sgemm", &b->sgemm);
        find(b->handle, "openblas_set_num_threads", &b->openblas_threads);
        find(b->handle, "bli_thread_set_num_threads", &b->blis_threads);
    }
    if (b->sgemm && (self->number == OPENBLAS ? b->openblas_threads != NULL : b->blis_threads != NULL)) return NULL;
    b->sgemm = NULL;
    snprintf(text[self->number], sizeof text[0], b->handle ? "%s has no cblas_sgemm" : "%s is not installed", b->file);
    return text[self->number];
}

static const char *version(const struct peer *self)
{
    struct blas *b = &blas[self->number];
    const char *(*text)(void) = NULL;
    const char *(*arch_name)(int) = NULL;
    int (*arch)(void) = NULL;
    find(b->handle, self->number == OPENBLAS ? "openblas_get_config" : "bli_info_get_version_str", &text);
    find(b->handle, "bli_arch_string", &arch_name);
    find(b->handle, "bli_arch_query_id", &arch);
    snprintf(b->version, sizeof b->version, "%s%s%s%s", self->number == BLIS ? "BLIS " : "", text ? text() : "?", arch && arch_name ? " " : "",
             arch && arch_name ? arch_name(arch()) : "");
    return b->version;
}

static void scores(const struct blas *b, const struct unfused_shape *x, const float *q, const float *k, float *s)
{
    b->sgemm(ROW_MAJOR, NO_TRANSPOSE, TRANSPOSE, x->rows, x->kv_len, x->head_dim, x->scale, q, (int)x->q_row, k, (int)x->k_row, 0, s, x->kv_len);
}

static void values(const struct blas *b, const struct unfused_shape *x, const float *s, const float *v, float *o)
{
    b->sgemm(ROW_MAJOR, NO_TRANSPOSE, NO_TRANSPOSE, x->rows, x->v_head_dim, x->kv_len, 1, s, x->kv_len, v, (int)x->v_row, 0, o, (int)x->o_row);
}

static void openblas_threads(int count) { blas[OPENBLAS].openblas_threads(count); }
static void blis_threads(int count) { blas[BLIS].blis_threads(count); }
static void openblas_scores(const struct unfused_shape *x, const float *q, const float *k, float *s, int worker)
{
    (void)worker;
    scores(&blas[OPENBLAS], x, q, k, s);
}
static void blis_scores(const struct unfused_shape *x, const float *q, const float *k, float *s, int worker)
{
    (void)worker;
    scores(&blas[BLIS], x, q, k, s);
}
static void openblas_values(const struct unfused_shape *x, const float *s, const float *v, float *o, int worker)
{
    (void)worker;
    values(&blas[OPENBLAS], x, s, v, o);
}
static void blis_values(const struct unfused_shape *x, const float *s, const float *v, float *o, int worker)
{
    (void)worker;
    values(&blas[BLIS], x, s, v, o);
}

static struct unfused unfused[LIBRARIES] = {
    {.threads = openblas_threads, .scores = openblas_scores, .values = openblas_values},
    {.threads = blis_threads, .scores = blis_scores, .values = blis_values},
};

static const char *begin(const struct peer *self, const struct services *services, const struct instance *instance)
{
    return unfused_begin(&unfused[self->number], services, instance);
}

static const char *run(const struct peer *self, float *o, int count, double *seconds)
{
    return unfused_run(&unfused[self->number], o, count, seconds);
}

static const char *setting(const struct peer *self) { return unfused_setting(&unfused[self->number]); }
static bool on_heed_threads(const struct peer *self) { return !unfused[self->number].inside; }
static void end(const struct peer *self) { unfused_end(&unfused[self->number]); }

const struct peer peer_openblas = {"openblas", absent, version, unfused_refuses, begin, run, NULL, setting, on_heed_threads, end, OPENBLAS};
const struct peer peer_blis = {"blis", absent, version, unfused_refuses, begin, run, NULL, setting, on_heed_threads, end, BLIS};
