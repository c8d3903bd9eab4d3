/* SPDX-License-Identifier: MIT
 * prefill_quads.inc.h - template, part of prefill_block.inc.h: rows of bf16 as panel_quads.inc.h wants them. Both K and V are copied, once per block.
 */

/* Q of VW rows: four elements of each in every quad; zeros behind dim, and for rows that do not exist (NULL). The scale waits for the scores. */
static void transpose_queries(heed_type type, const unsigned char *const rows[VW], int32_t dim, float scale, float *q, int width)
{
    (void)type, (void)scale;
    for (int32_t i = 0; i < dim; i += 4)
        for (int r = 0; r < VW; r++) {
            float four[2] = {0};
            const size_t bytes = 2 * (size_t)min_int(4, dim - i);
            if (rows[r]) memcpy(four, rows[r] + 2 * i, bytes);
            memcpy(q + (ptrdiff_t)(i / 2 + r / 2) * width + r % 2 * 2, four, sizeof four);
        }
}

/* Rows of keys j ... j + count - 1, as far as j1; zeros stand in for the others. */
static void rows_of(const struct call *call, const struct key_source *from, int32_t b, int32_t g, int32_t j, int32_t j1, int count,
                    const uint16_t **rows)
{
    static const uint16_t none[MAX_HEAD_DIM] = {0};
    const struct sequence *s = &call->batch->sequences[b];
    for (int n = 0; n < count; n++)
        rows[n] = j + n < j1 ? key_row(from->rows, s, call->batch->page_table, call->plan->problem.page_size, b, g, j + n) : none;
}

/* K of keys [j0, j1): pairs of keys, j0 even. */
static struct key_block load_keys(const struct call *call, const struct key_source *from, int32_t b, int32_t g, int32_t j0, int32_t j1)
{
    for (int32_t j = j0; j < j1; j += 2) {
        const uint16_t *rows[2];
        float *to = from->copy + (j - j0) * from->copy_step;
        rows_of(call, from, b, g, j, j1, 2, rows);
        for (int32_t d = 0; d < from->dim; d += 8) vpair_keys(rows[0] + d, rows[1] + d, min_int(8, from->dim - d), to + d);
    }
    return (struct key_block){from->copy, from->copy_step};
}

/* V of the same keys: quads of keys, j0 a multiple of 4. */
static struct key_block load_values(const struct call *call, const struct key_source *from, int32_t b, int32_t g, int32_t j0, int32_t j1)
{
    for (int32_t j = j0; j < j1; j += 4) {
        const uint16_t *rows[4];
        float *to = from->copy + (j - j0) / CELL * from->copy_step;
        rows_of(call, from, b, g, j, j1, 4, rows);
        for (int32_t d = 0; d < from->dim; d += 8) {
            for (int n = 0; n < 4; n++) rows[n] += d ? 8 : 0;
            vquad_values(rows, min_int(8, from->dim - d), to + 2 * d);
        }
    }
    return (struct key_block){from->copy, from->copy_step};
}
