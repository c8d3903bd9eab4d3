/* SPDX-License-Identifier: MIT
 * panel_weights.inc.h - template, part of prefill_pipeline.inc.h: scores of a panel -> weights, beside products of tiles. A product takes the unit for tiles
 * sixteen cycles for each pair of tiles, in which the vector units can do something else, if it stands near enough in the program.
 *
 *     p = e^(by s - m)      l += p, key by key      two keys' weights to a cell
 */
#ifndef HEED_PANEL_WEIGHTS_INC_H
#define HEED_PANEL_WEIGHTS_INC_H

#include "panel.inc.h"

/* Of a panel's vectors: scores [key][width] are still to be multiplied by `by`; weights go pair by pair. */
struct weighing {
    const float *s;
    float *p;
    vf by, m[PANEL_VECTORS], l[PANEL_VECTORS];
};

/* The largest score of each row. by > 0 and rounding keep the order, so it is multiplied afterwards. */
NOINLINE vf top_score(const float *s, ptrdiff_t width, int keys)
{
    vf top[4];
    UNROLL for (int n = 0; n < 4; n++) top[n] = vset1(-INFINITY);
    int j = 0;
    for (; j + 4 <= keys; j += 4, s += 4 * width) UNROLL for (int n = 0; n < 4; n++) top[n] = vmax(top[n], vload(s + n * width));
    for (; j < keys; j++, s += width) top[0] = vmax(top[0], vload(s));
    return vmax(vmax(top[0], top[1]), vmax(top[2], top[3]));
}

/* p = e^(s by - m), l += p, of two keys of two vectors or four keys of one. */
INLINE void weigh_four(const int vectors, struct weighing *w)
{
    vf x[4], m[4], e[4];
    UNROLL for (int n = 0; n < 4; n++) {
        x[n] = vmul(vload(w->s + n * VW), w->by);
        m[n] = w->m[n % vectors];
    }
    weights_of_each(x, m, false, e);
    UNROLL for (int n = 0; n < 4; n++) w->l[n % vectors] = vadd(w->l[n % vectors], e[n]);
    vstore(w->p, vectors == 1 ? vpack(e[0], e[1]) : vpack(e[0], e[2]));
    vstore(w->p + VW, vectors == 1 ? vpack(e[2], e[3]) : vpack(e[1], e[3]));
    w->s += 4 * VW;
    w->p += 2 * VW;
}

/* `fours` of them, spread over the halves of the steps of a product, so that a processor that looks a few hundred instructions ahead finds work for both units. */
INLINE void weigh_beside_of(const int high, const int vectors, struct weighing *weighing, int fours, const struct tile_product *product)
{
    struct weighing w = *weighing;
    struct tile_walk at = begin_tiles(high, vectors, product);
    const int halves = product->cells / TILE_CELLS * 2;
    int due = 0;
    for (int n = 0; n < halves; n++) {
        if (n % 2 == 0)
            multiply_upper(vectors, &at);
        else
            multiply_lower(high, vectors, &at);
        for (due += fours; due >= halves; due -= halves) weigh_four(vectors, &w);
    }
    end_tiles(high, vectors, product);
    *weighing = w;
}
NOINLINE void weigh_beside_1x1(struct weighing *w, int fours, const struct tile_product *product) { weigh_beside_of(1, 1, w, fours, product); }
NOINLINE void weigh_beside_1x2(struct weighing *w, int fours, const struct tile_product *product) { weigh_beside_of(1, 2, w, fours, product); }
NOINLINE void weigh_beside_2x1(struct weighing *w, int fours, const struct tile_product *product) { weigh_beside_of(2, 1, w, fours, product); }
NOINLINE void weigh_beside_2x2(struct weighing *w, int fours, const struct tile_product *product) { weigh_beside_of(2, 2, w, fours, product); }

INLINE void weigh_alone_of(const int vectors, struct weighing *weighing, int fours)
{
    struct weighing w = *weighing;
    for (; fours > 0; fours--) weigh_four(vectors, &w);
    *weighing = w;
}
NOINLINE void weigh_alone_1(struct weighing *w, int fours) { weigh_alone_of(1, w, fours); }
NOINLINE void weigh_alone_2(struct weighing *w, int fours) { weigh_alone_of(2, w, fours); }

/* A product and `fours` of weights. A product of another panel may be wider. */
static void weigh_beside(struct weighing *w, int vectors, int fours, const struct tile_product *product)
{
    static void (*const beside[2][2])(struct weighing *, int, const struct tile_product *) = {{weigh_beside_1x1, weigh_beside_1x2}, {weigh_beside_2x1, weigh_beside_2x2}};
    if (product->wide == vectors)
        beside[product->high - 1][vectors - 1](w, fours, product);
    else {
        multiply_tiles(product);
        (vectors == 1 ? weigh_alone_1 : weigh_alone_2)(w, fours);
    }
}

/* The same of any number of keys, with weights of nothing up to a whole step: hidden keys. */
NOINLINE void weigh_keys(struct weighing *w, int vectors, int keys, const bool mark)
{
    const vf none = vset1(mark ? -0.0f : 0.0f);
    const ptrdiff_t width = vectors * VW;
    const int whole = MUTANT(cpu_tiles_rest) && keys + 1 < TILE_SPAN ? keys + 1 : TILE_SPAN;
    for (int c = 0; c < vectors; c++)
        for (int j = 0; j < whole; j += 2) {
            const float *s = w->s + j * width + c * VW;
            const vf e = j < keys ? weight_of(vmul(vload(s), w->by), w->m[c], mark) : none;
            const vf f = j + 1 < keys && !(MUTANT(cpu_pairs_odd_key) && j + 3 > keys) ? weight_of(vmul(vload(s + width), w->by), w->m[c], mark) : none;
            w->l[c] = vadd(vadd(w->l[c], e), f);
            vstore(w->p + j / 2 * width + c * VW, vpack(e, f));
        }
}

#endif
