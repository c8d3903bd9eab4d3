/* SPDX-License-Identifier: MIT
 * explore_model.h - what `heed explore` shows, as numbers: queries, keys and values that can be moved, and what the library makes of them.
 * No screen, no keyboard: what a key on the keyboard does to the numbers is an action here, so that tests can play it.
 */
#ifndef HEED_CLI_EXPLORE_MODEL_H
#define HEED_CLI_EXPLORE_MODEL_H

#include "heed.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { EXPLORE_MAX_TOKENS = 1024, EXPLORE_TEMPERATURES = 11, EXPLORE_PLAIN = 5 /* temperature 1 */ };

enum part { PART_Q, PART_K, PART_V };

/* Where the cursor is. query: who asks; key: whose k and v are looked at; d: the number below the cursor. */
struct cursor {
    enum part part;
    int32_t query, key, d;
};

struct explore {
    heed_context *context;
    const char *kernel;        /* the row that computes weights and o; NULL: the definition, in double. Scores are the definition's in any case */
    int32_t queries, keys, q_heads, kv_heads, dim, v_dim;
    float *q, *k, *v;          /* [queries][q_heads][dim], [keys][kv_heads][dim], [keys][kv_heads][v_dim] */
    char **q_labels, **k_labels; /* owned; NULL: numbers */
    int32_t head;              /* of q */
    bool causal, scaled, sorted;
    int32_t temperature;       /* a place in explore_temperatures[] */
    struct cursor cursor;
    /* of the chosen head: */
    float *scores, *weights;   /* [queries][keys]: logits as the softmax gets them (hidden: -infinity), and probabilities */
    float *o;                  /* [queries][v_dim] */
    int32_t *order;            /* [keys]: as shown, by number or by weight for the query */
};

/* One query beside one key, by heed_dot() and its kin; score and weight by a row of the table. */
struct relation {
    double dot, cosine, angle; /* degrees; NaN where a vector is zero */
    double plain_score;        /* heed_score(): dot / sqrt(dim) */
    float score, weight;
    bool hidden;
};

enum action {
    ACTION_NONE, ACTION_UP, ACTION_DOWN, ACTION_LEFT, ACTION_RIGHT, ACTION_MORE, ACTION_LESS, ACTION_MUCH_MORE, ACTION_MUCH_LESS, ACTION_ZERO,
    ACTION_NEGATE, ACTION_NEXT_QUERY, ACTION_LAST_QUERY, ACTION_CAUSAL, ACTION_SCALED, ACTION_WARMER, ACTION_COOLER, ACTION_NEXT_HEAD,
    ACTION_LAST_HEAD, ACTION_SORTED, ACTIONS
};

extern const float explore_temperatures[EXPLORE_TEMPERATURES];

/* All zero, to be filled; what was there before is freed, context and kernel (the caller's) stay. False: out of memory. */
bool explore_shape(struct explore *explore, int32_t queries, int32_t keys, int32_t q_heads, int32_t kv_heads, int32_t dim, int32_t v_dim);
void explore_free(struct explore *explore);
/* Everything anew from q, k, v and the settings. */
heed_status explore_compute(struct explore *explore);
/* Moves, changes and computes. HEED_OK also where there is nothing to do. */
heed_status explore_act(struct explore *explore, enum action action);

float *explore_row(const struct explore *explore, enum part part, int32_t token); /* of the chosen head */
int32_t explore_row_length(const struct explore *explore, enum part part);
struct relation explore_relation(const struct explore *explore, int32_t query, int32_t key);
int32_t explore_rank(const struct explore *explore, int32_t key); /* its place in order[] */
int32_t explore_strongest(const struct explore *explore, int32_t query); /* the key of the largest weight; -1: sees nothing */
const char *explore_label(char *const *labels, int32_t n, char text[16]);

#endif
