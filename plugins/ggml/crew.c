/* SPDX-License-Identifier: MIT
 * crew.c - as many threads as the program gave ggml. Where ggml's CPU backend has its threads from OpenMP these are the same threads: OpenMP
 * keeps them warm (they spin) for the calling thread, so a second pool beside them would have to fight for the cores. Else heed's own pool.
 */
#include "plugin.h"

#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

enum { MOST_THREADS = 256 }; /* heed's */

struct crew {
    int threads;
    heed_context *context;
};

#ifdef _OPENMP
static void parallel_for(void *user, int32_t count, void (*task)(void *arg, int32_t i, int32_t worker), void *arg)
{
    const struct crew *crew = user;
#pragma omp parallel for num_threads(crew->threads) schedule(dynamic)
    for (int32_t i = 0; i < count; i++) task(arg, i, omp_get_thread_num());
}

static bool ggml_has_openmp(void)
{
    ggml_backend_reg_t cpu = ggml_backend_reg_by_name("CPU");
    ggml_backend_get_features_t features = NULL;
    void *found = cpu ? ggml_backend_reg_get_proc_address(cpu, "ggml_backend_get_features") : NULL;
    if (!found) return false;
    memcpy(&features, &found, sizeof features); /* ISO C has no cast from an object to a function */
    for (const struct ggml_backend_feature *f = features(cpu); f && f->name; f++)
        if (!strcmp(f->name, "OPENMP")) return f->value && !strcmp(f->value, "1");
    return false;
}
#endif

struct crew *crew_create(int threads)
{
    struct crew *crew = calloc(1, sizeof *crew);
    if (!crew) return NULL;
    crew->threads = threads < 1 ? 1 : threads > MOST_THREADS ? MOST_THREADS : threads;
    heed_context_options options = {.struct_size = sizeof options, .num_threads = crew->threads, .flags = HEED_NO_OPENCL};
#ifdef _OPENMP
    const heed_threads lent = {.user = crew, .workers = crew->threads, .parallel_for = parallel_for};
    if (crew->threads > 1 && ggml_has_openmp()) options.threads = &lent;
#endif
    if (heed_context_create(&options, &crew->context) == HEED_OK) return crew;
    free(crew);
    return NULL;
}

void crew_destroy(struct crew *crew)
{
    if (!crew) return;
    heed_context_destroy(crew->context);
    free(crew);
}

heed_context *crew_context(struct crew *crew) { return crew->context; }
int crew_threads(const struct crew *crew) { return crew->threads; }
