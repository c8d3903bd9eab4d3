/* SPDX-License-Identifier: MIT
 * prefill_tiles.inc.h - template, part of prefill_block.inc.h: rows of bf16 as panel_tiles.inc.h wants them. K is used as it lies where its rows are
 * whole steps, V is turned, once per block.
 */

/* IN_PLACE_MOST: bytes from row to row; far apart, the rows of a tile would meet in few sets of the nearest cache. */
enum { IN_PLACE_MOST = 512 };

/* Q^T of VW rows, with zeros behind dim, up to whole steps, and for rows that do not exist (NULL). The scale waits for the scores. */
static void transpose_queries(heed_type type, const unsigned char *const rows[VW], int32_t dim, float scale, float *q, int width)
{
    (void)type, (void)scale;
    for (int32_t i = 0; i < whole_cells(dim); i += VW) {
        vf t[VW];
        for (int r = 0; r < VW; r++) t[r] = rows[r] ? vload_cells_n((const uint16_t *)(const void *)rows[r] + 2 * i, dim - 2 * i) : vset1(0);
        vtranspose(t);
        for (int d = 0; d < VW; d++) vstore(q + (ptrdiff_t)(i + d) * width, t[d]);
    }
}

/* May the tiles read K where it lies, from `row` on? Not across pages, nor where the last tile would end behind the sequence, or where a row is no whole number
 * of steps. */
static bool tiles_in_place(const struct key_source *from, const struct sequence *s, int32_t page_size, int32_t j0, int32_t j1)
{
    const int64_t step = from->rows->token;
    const int32_t end = (j1 + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
    if (end > s->kv_len || (page_size > 0 && j0 / page_size != (end - 1) / page_size)) return false;
    return from->dim % TILE_SPAN == 0 && step % 4 == 0 && step >= 0 && step <= IN_PLACE_MOST;
}

/* K of keys [j0, j1) of (b, g) as cells of two elements, rows of whole steps. */
static struct key_block load_keys(const struct call *call, const struct key_source *from, int32_t b, int32_t g, int32_t j0, int32_t j1)
{
    const struct sequence *s = &call->batch->sequences[b];
    const int32_t *pages = call->batch->page_table, page_size = call->plan->problem.page_size;
    if (tiles_in_place(from, s, page_size, j0, j1))
        return (struct key_block){key_row(from->rows, s, pages, page_size, b, g, j0), from->rows->token / (int64_t)sizeof(float)};
    const ptrdiff_t step = copy_step(cells_of(from->dim));
    for (int32_t j = j0; j < j1; j++) {
        const uint16_t *row = key_row(from->rows, s, pages, page_size, b, g, j);
        float *to = from->copy + (j - j0) * step;
        for (int32_t d = 0; d < from->dim; d += TILE_SPAN) vstore(to + d / CELL, vload_cells_n(row + d, from->dim - d));
    }
    return (struct key_block){from->copy, step};
}

/* V^T of the same keys: [column][pair of keys], zeros behind the last key up to a whole step. */
static struct key_block load_values(const struct call *call, const struct key_source *from, int32_t b, int32_t g, int32_t j0, int32_t j1)
{
    static const uint16_t none[MAX_HEAD_DIM] = {0};
    const struct sequence *s = &call->batch->sequences[b];
    const int32_t *pages = call->batch->page_table, page_size = call->plan->problem.page_size;
    const ptrdiff_t step = copy_step(PANEL_KEYS / CELL);
    for (int32_t j = j0; j < j1; j += TILE_SPAN) {
        const uint16_t *rows[TILE_SPAN];
        for (int n = 0; n < TILE_SPAN; n++) rows[n] = j + n < j1 ? key_row(from->rows, s, pages, page_size, b, g, j + n) : none;
        float *to = from->copy + (j - j0) / CELL;
        for (int32_t d = 0; d < from->dim; d += 8) vturn(rows, d, min_int(8, from->dim - d), to + d * step, step);
    }
    return (struct key_block){from->copy, step};
}
