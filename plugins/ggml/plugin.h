/* SPDX-License-Identifier: MIT
 * plugin.h - the rooms of libggml-heed.so: a ggml backend that does one operation, GGML_OP_FLASH_ATTN_EXT, by heed on the CPU, in ggml's own
 * host memory. node.c says what is taken, mask.c reads masks, attend.c computes, crew.c has the threads, backend.c is what ggml sees.
 *
 * ggml's letters: q [D, N, H, B], k [D, S, G, B], v [Dv, S, G, B], mask [S, N, 1 or H, 1 or B] -> o [Dv, H, N, B], the fastest axis first. The
 * strides nb[] are bytes, heed's are elements (bytes for block types).
 */
#ifndef HEED_GGML_PLUGIN_H
#define HEED_GGML_PLUGIN_H

#include "ggml-backend-impl.h"
#include "ggml-backend.h"
#include "ggml.h"
#include "heed.h"

#include <stdbool.h>

#if GGML_BACKEND_API_VERSION != 2
#error "libggml-heed.so is written for version 2 of ggml's backend interface (GGML_BACKEND_API_VERSION in ggml-backend-impl.h); this ggml has another one"
#endif

/* ---- node.c: one node of ggml's graph in heed's words ------------------------- */

struct attention {
    heed_desc desc;
    heed_lengths lengths;
    heed_tensors tensors;
    const struct ggml_tensor *mask; /* NULL = none */
    float max_bias;                 /* of ALiBi; 0 = off */
};

/* Why this FLASH_ATTN_EXT is not ours, or NULL: then node_take() and attend() can do it. Never looks at data. */
const char *node_refused(const struct ggml_tensor *node);
/* Everything but the mask. */
void node_take(const struct ggml_tensor *node, struct attention *a);
/* ggml's slope for head h of heads. */
float alibi_slope(float max_bias, int32_t heads, int32_t h);
/* A view of t whose head axis is ne[head] and whose token axis is ne[token]. */
heed_tensor tensor_of(const struct ggml_tensor *t, int head, int token);

/* ---- crew.c: threads ------------------------------------------------------------ */

/* A heed context with so many threads: ggml's own where it has them from OpenMP, else heed's pool. NULL on failure. */
struct crew;
struct crew *crew_create(int threads);
void crew_destroy(struct crew *crew);
heed_context *crew_context(struct crew *crew);
int crew_threads(const struct crew *crew);

/* ---- mask.c: what a mask hides --------------------------------------------------- */

/* Memory that is kept from call to call and grows. */
struct room {
    void *data;
    size_t bytes;
};

bool room_for(struct room *room, size_t bytes);

enum mask_sort {
    MASK_RANGES, /* each query sees a range of keys, and nothing is added there: no mask is needed any more */
    MASK_BIAS    /* the mask is a bias, read where ranges leave it to be read */
};

/* Sets kv_lens and, where they say something, key ranges; `ranges` holds both and must live until the run is over. */
bool mask_take(struct attention *a, struct room *ranges, enum mask_sort *sort);

/* ---- attend.c ---------------------------------------------------------------------- */

struct rooms {
    struct room ranges, bias;
};

/* Computes the node. Failures that the library names are in heed_error_message(). */
heed_status attend(heed_context *context, struct rooms *rooms, const struct ggml_tensor *node);

#endif
