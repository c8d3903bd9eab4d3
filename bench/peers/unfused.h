/* SPDX-License-Identifier: MIT
 * unfused.h - attention as two matrix products of another library and a softmax between them, with the whole score matrix of a head in
 * memory: the frame that OpenBLAS, BLIS and oneDNN share. They bring the products alone.
 */
#ifndef HEED_BENCH_UNFUSED_H
#define HEED_BENCH_UNFUSED_H

#include "peers.h"

/* Loops of peers are compiled for the machine that runs them: a peer is not held back by our choice of flags. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12 && !defined(__SANITIZE_ADDRESS__)
#define PEER_LOOPS __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define PEER_LOOPS
#endif

/* One problem in the shape of matrix products: per task q [rows, d] against k [kv, d] and v [kv, dv]. In decode the rows are the heads
 * of a group, else the tokens of a head. */
struct unfused_shape {
    int32_t rows, kv_len, head_dim, v_head_dim;
    int64_t q_row, k_row, v_row, o_row; /* distances in elements */
    float scale;
};

struct services;

/* A library's products, and the state of the problem that it is on (unfused.c's alone). */
struct unfused {
    /* Threads that a product may use by itself; called before products, from the thread that starts them. NULL: always one. */
    void (*threads)(int count);
    /* s [rows, kv] = scale q k^T, and o [rows, dv] = s v; with `worker`'s own objects. */
    void (*scores)(const struct unfused_shape *shape, const float *q, const float *k, float *s, int worker);
    void (*values)(const struct unfused_shape *shape, const float *s, const float *v, float *o, int worker);
    void (*softmax)(const struct unfused_shape *shape, float *s, int worker); /* of whole rows; NULL: ours */
    bool (*begin)(const struct unfused_shape *shape, int workers);            /* NULL: nothing to do */

    const struct services *services;
    const struct instance *instance;
    struct unfused_shape shape;
    float *matrices, *o; /* [workers][rows, kv]; where the run writes */
    size_t matrix;
    int32_t tasks, step;
    bool inside;         /* the library's threads inside a product, instead of a head per thread */
};

const char *unfused_refuses(const struct peer *self, const struct instance *instance);
const char *unfused_begin(struct unfused *u, const struct services *services, const struct instance *instance);
const char *unfused_run(struct unfused *u, float *o, int count, double *seconds);
const char *unfused_setting(const struct unfused *u);
void unfused_end(struct unfused *u);

#endif
