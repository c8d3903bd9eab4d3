/* SPDX-License-Identifier: MIT
 * panel_tiles.inc.h - template, part of panel.inc.h, in place of its tiles: the products of a panel where one instruction multiplies tiles of 16 rows.
 *
 *     S^T [16 keys][16 rows]    = K [16 keys][32 of d]        x Q^T [16 pairs of d][16 rows]        sum over d in steps of 32, from 0
 *     O^T [16 columns][16 rows] = V^T [16 columns][32 keys]   x P^T [16 pairs of keys][16 rows]     sum over keys in steps of 32, from O
 *
 * Two by two of them at a time: each tile that is loaded is used twice. Rows of K and V^T are filled up to whole steps with zeros, and weights too; what
 * stands in rows that are not there is never looked at. Steps are counted from the start of a block of keys: a step that nothing is seen of adds zeros.
 */
#ifndef HEED_PANEL_TILES_INC_H
#define HEED_PANEL_TILES_INC_H

enum { SCORE_FEW_MOST = 0, FEW_MOST = 0 }; /* panels of few rows are panels like others */
static inline ptrdiff_t few_step(int v_head_dim) { return v_head_dim; }
static inline ptrdiff_t half_floats(int head_dim) { return 0 * head_dim; }

/* n elements in whole steps, in cells. */
static inline int whole_cells(int n) { return (n + TILE_SPAN - 1) / TILE_SPAN * TILE_CELLS; }

/* A product of up to 2 x 2 tiles, `high` x `wide`: rows of `left` (`step` cells apart) by columns of `above`, [cell][width], over `cells` of them. */
struct tile_product {
    const float *left, *above;
    float *sums;            /* [row][width] */
    ptrdiff_t step, width;
    int cells, high, wide;
    bool more;              /* is added to what the sums are, else to 0 */
};

/* Products that wait, first come, first done. */
enum { TILES_WAITING = 64 };
struct tile_queue {
    struct tile_product waiting[TILES_WAITING];
    unsigned first, end;    /* modulo TILES_WAITING */
};

/* Where a product is: its rows, those of its lower tiles, and what stands above. */
struct tile_walk {
    const float *left, *lower, *above;
    ptrdiff_t step, width;
};

INLINE struct tile_walk begin_tiles(const int high, const int wide, const struct tile_product *w)
{
    const float *sums = w->sums, *below = sums + TILE_ROWS * w->width;
    if (w->more) {
        vtile_load(0, sums, w->width);
        if (wide > 1) vtile_load(1, sums + TILE_CELLS, w->width);
        if (high > 1) vtile_load(2, below, w->width);
        if (high > 1 && wide > 1) vtile_load(3, below + TILE_CELLS, w->width);
    } else {
        vtile_zero(0);
        if (wide > 1) vtile_zero(1);
        if (high > 1) vtile_zero(2);
        if (high > 1 && wide > 1) vtile_zero(3);
    }
    return (struct tile_walk){w->left, w->left + TILE_ROWS * w->step, w->above, w->step, w->width};
}

/* TILE_CELLS of them, in two halves: the upper tiles, then the lower ones. */
INLINE void multiply_upper(const int wide, const struct tile_walk *at)
{
    vtile_load(4, at->left, at->step);
    vtile_load(6, at->above, at->width);
    vtile_mac(0, 4, 6);
    if (wide > 1) {
        vtile_load(7, at->above + TILE_CELLS, at->width);
        vtile_mac(1, 4, 7);
    }
}
INLINE void multiply_lower(const int high, const int wide, struct tile_walk *at)
{
    if (high > 1) {
        vtile_load(5, at->lower, at->step);
        vtile_mac(2, 5, 6);
        if (wide > 1) vtile_mac(3, 5, 7);
    }
    at->left += TILE_CELLS;
    at->lower += TILE_CELLS;
    at->above += TILE_ROWS * at->width;
}

INLINE void end_tiles(const int high, const int wide, const struct tile_product *w)
{
    float *sums = w->sums, *below = sums + TILE_ROWS * w->width;
    vtile_store(0, sums, w->width);
    if (wide > 1) vtile_store(1, sums + TILE_CELLS, w->width);
    if (high > 1) vtile_store(2, below, w->width);
    if (high > 1 && wide > 1) vtile_store(3, below + TILE_CELLS, w->width);
}

INLINE void multiply_tiles_of(const int high, const int wide, const struct tile_product *w)
{
    struct tile_walk at = begin_tiles(high, wide, w);
    for (int n = w->cells; n > 0; n -= TILE_CELLS) {
        multiply_upper(wide, &at);
        multiply_lower(high, wide, &at);
    }
    end_tiles(high, wide, w);
}
NOINLINE void multiply_tiles_1x1(const struct tile_product *w) { multiply_tiles_of(1, 1, w); }
NOINLINE void multiply_tiles_1x2(const struct tile_product *w) { multiply_tiles_of(1, 2, w); }
NOINLINE void multiply_tiles_2x1(const struct tile_product *w) { multiply_tiles_of(2, 1, w); }
NOINLINE void multiply_tiles_2x2(const struct tile_product *w) { multiply_tiles_of(2, 2, w); }

static void multiply_tiles(const struct tile_product *w)
{
    static void (*const multiply[2][2])(const struct tile_product *) = {{multiply_tiles_1x1, multiply_tiles_1x2}, {multiply_tiles_2x1, multiply_tiles_2x2}};
    multiply[w->high - 1][w->wide - 1](w);
}

/* The next one; without one nothing. */
static void tiles_next(struct tile_queue *queue)
{
    if (queue->first != queue->end) multiply_tiles(&queue->waiting[queue->first++ % TILES_WAITING]);
}

static void tiles_finish(struct tile_queue *queue)
{
    while (queue->first != queue->end) tiles_next(queue);
}

/* Any number of rows and of vectors: all columns meet two tiles of rows, which stay in the nearest cache meanwhile. */
static void queue_tiles(struct tile_queue *queue, struct tile_product w, int rows, int vectors)
{
    for (int r = 0; r < rows; r += 2 * TILE_ROWS)
        for (int c = 0; c < vectors; c += 2) {
            if (queue->end - queue->first == TILES_WAITING) tiles_next(queue);
            struct tile_product *part = &queue->waiting[queue->end++ % TILES_WAITING];
            *part = w;
            part->left += r * w.step;
            part->above += c * VW;
            part->sums += r * w.width + c * VW;
            part->high = rows - r > TILE_ROWS ? 2 : 1;
            part->wide = vectors - c > 1 ? 2 : 1;
        }
}

/* s *= scale, and the running maximum. */
NOINLINE void scale_scores(float *p, ptrdiff_t width, int keys, int vectors, float scale, float *top)
{
    const vf by = vset1(scale);
    for (int c = 0; c < vectors; c++) {
        vf best = vload(top + c * VW);
        float *s = p + c * VW;
        for (int j = 0; j < keys; j++, s += width) {
            const vf x = vmul(vload(s), by);
            vstore(s, x);
            best = vmax(best, x);
        }
        vstore(top + c * VW, best);
    }
}

/* k: row of key x. Of keys behind the last one, up to a whole tile, K is read too, and w->p written. */
static void score_keys(const struct panel *a, const struct panel_work *w, struct lanes lanes, const float *k, ptrdiff_t step, int x, int keys,
                       int dim)
{
    const int lane = lanes.first * VW;
    queue_tiles(w->queue, (struct tile_product){.left = k, .step = step, .above = a->q + lane, .width = a->width,
                                                .sums = w->p + (ptrdiff_t)x * a->width + lane, .cells = whole_cells(dim)},
                keys, lanes.end - lanes.first);
}

/* v: V^T from key x on, a multiple of 32; output columns [d, d + dim). O has been rescaled. */
static void value_dims(const struct panel *a, const struct panel_work *w, struct lanes lanes, const float *v, ptrdiff_t step, int x, int keys,
                       int d, int dim)
{
    const int lane = lanes.first * VW;
    queue_tiles(w->queue, (struct tile_product){.left = v + d * step, .step = step, .above = w->p + (ptrdiff_t)(x / CELL) * a->width + lane, .width = a->width,
                                                .sums = a->o + (ptrdiff_t)d * a->width + lane, .cells = whole_cells(keys), .more = !w->fresh},
                dim, lanes.end - lanes.first);
}

/* o *= fade. A vector whose rows all keep their maximum stays as it is. */
NOINLINE void fade_outputs(const struct panel *a, const struct panel_work *w, int dim)
{
    for (int c = 0; c < a->width; c += VW) {
        const vf by = vload(w->fade + c);
        float *o = a->o + c;
        if (!vany(vne(by, vset1(1))) || MUTANT(cpu_tiles_fade)) continue;
        for (int d = 0; d < dim; d++, o += a->width) vstore(o, vmul(vload(o), by));
    }
}

/* The halves of a cell that are NaN or infinity, and the others; 0 in place of what is not there. */
static inline uint32_t odd_halves(uint32_t cell)
{
    uint32_t odd = 0;
    if ((cell & 0x7f80) == 0x7f80) odd |= cell & 0xffff;
    if ((cell & 0x7f800000) == 0x7f800000) odd |= cell & 0xffff0000;
    return odd;
}

/* The same where V holds NaN or infinity: these take no part in the product and are added behind it, where they are seen: a weight of -0 marks a hidden
 * key. So the finite ones are added as they always are. Rare, so plain. */
static void value_select(const struct panel *a, const struct panel_work *w, const float *v, ptrdiff_t step, int keys, int dim)
{
    float finite[TILE_ROWS][PANEL_KEYS / CELL] __attribute__((aligned(64))), odd[TILE_ROWS][PANEL_KEYS / CELL];
    const struct lanes all = {0, a->vectors};
    const int cells = whole_cells(keys);
    for (int d = 0; d < dim; d += TILE_ROWS) {
        const int rows = dim - d < TILE_ROWS ? dim - d : TILE_ROWS;
        memset(finite, 0, sizeof finite);
        for (int r = 0; r < rows; r++)
            for (int j = 0; j < cells; j++) {
                const uint32_t cell = bits_of(v[(d + r) * step + j]), out = odd_halves(cell);
                finite[r][j] = float_of(cell ^ out);
                odd[r][j] = float_of(out);
            }
        struct panel part = *a;
        part.o += (ptrdiff_t)d * a->width;
        value_dims(&part, w, all, finite[0], PANEL_KEYS / CELL, 0, keys, 0, rows);
        tiles_finish(w->queue);
        for (int r = 0; r < rows; r++)
            for (int j = 0; j < cells; j++) {
                if (bits_of(odd[r][j]) == 0) continue;
                float *o = part.o + (ptrdiff_t)r * a->width;
                for (int c = 0; c < a->width; c += VW)
                    vstore(o + c, vmac_seen(vload(o + c), vload(w->p + (ptrdiff_t)j * a->width + c), vset1(odd[r][j])));
            }
    }
}
#endif
