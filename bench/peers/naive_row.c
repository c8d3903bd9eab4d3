/* SPDX-License-Identifier: MIT
 * naive_row.c - the last OpenCL row of heed's own table as a peer of the row that was chosen: a row that is slower than the one that does everything has no
 * business to be chosen. It takes every problem.
 */
#include "peers.h"
#include "dtype.h"
#include "tool.h"
#include <stdlib.h>
#include <string.h>

static const char row_name[] = "opencl.naive";

static struct {
    struct prepared prepared;
    struct instance *instance;
    unsigned char *kept; /* o of the instance, which holds the chosen row's result */
} naive;

static const char *absent(const struct peer *self)
{
    (void)self;
    return kernel_of_device(row_name, 1) ? NULL : "built without OpenCL";
}

static const char *version(const struct peer *self)
{
    (void)self;
    return "kernels/naive.cl, the last row of the table";
}

static const char *refuses(const struct peer *self, const struct instance *instance)
{
    (void)self;
    if (peers_place.device <= 0) return "an OpenCL device is wanted";
    if (instance->q_start) return "packed queries are not compared";
    return strcmp(peers_place.kernel, row_name) ? NULL : "it is the chosen row";
}

static const char *begin(const struct peer *self, const struct services *services, const struct instance *instance)
{
    const struct block *o = &instance->block[ROLE_O];
    (void)self, (void)services;
    memset(&naive, 0, sizeof naive);
    naive.instance = (struct instance *)instance;
    naive.kept = malloc(o->bytes ? o->bytes : 1);
    if (!naive.kept) return "out of memory";
    memcpy(naive.kept, o->data, o->bytes);
    return prepared_make(peers_place.context, peers_place.device, row_name, instance, false, &naive.prepared) == HEED_OK ? NULL : heed_error_message();
}

static const char *run(const struct peer *self, float *o, int count, double *seconds)
{
    (void)self, (void)o;
    for (int n = 0; n < count; n++) {
        const double begin_ = seconds_now();
        if (prepared_run(&naive.prepared) != HEED_OK) return heed_error_message();
        seconds[n] = seconds_now() - begin_;
    }
    return NULL;
}

/* By way of the instance, whose own result comes back behind it. */
static const char *fetch(const struct peer *self, float *to)
{
    const struct instance *in = naive.instance;
    const struct problem *p = &in->problem;
    const heed_tensor *o = &in->tensors.o;
    const struct block *block = &in->block[ROLE_O];
    const size_t element = p->o_type == HEED_F32 ? 4 : 2;
    const heed_status status = prepared_fetch(&naive.prepared);
    (void)self;
    for (int32_t b = 0; status == HEED_OK && b < in->line.batch; b++)
        for (int32_t h = 0; h < p->q_heads; h++)
            for (int32_t i = 0; i < in->line.q_len; i++) {
                const int64_t at = o->offset + b * o->batch_stride + h * o->head_stride + i * o->token_stride;
                row_to_f32(p->o_type, (const unsigned char *)o->data + at * (int64_t)element, 1, to + at, p->v_head_dim);
            }
    memcpy(block->data, naive.kept, block->bytes);
    return status == HEED_OK ? NULL : heed_error_message();
}

static const char *setting(const struct peer *self)
{
    (void)self;
    return "as the table has it";
}

static bool on_heed_threads(const struct peer *self)
{
    (void)self;
    return true;
}

static void end(const struct peer *self)
{
    (void)self;
    prepared_release(&naive.prepared);
    free(naive.kept);
    memset(&naive, 0, sizeof naive);
}

const struct peer peer_naive_row = {"opencl.naive", absent, version, refuses, begin, run, fetch, setting, on_heed_threads, end, 0};
