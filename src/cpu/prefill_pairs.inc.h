/* SPDX-License-Identifier: MIT
 * prefill_pairs.inc.h - template, part of prefill_block.inc.h: cells are two bf16. K is used as it lies, because pairs along d are neighbours;
 * V is zipped from two rows, once per block.
 */

/* Cells [i, i + n) of a query row of dim bf16; an odd last element is joined by 0. The scale waits for the scores. */
static vf load_query(heed_type type, const unsigned char *row, int32_t i, int n, int32_t dim, float scale)
{
    float last[VW] = {0};
    (void)type, (void)scale;
    if (2 * (i + n) <= dim) return n == VW ? vload((const float *)row + i) : vload_n((const float *)row + i, n);
    memcpy(last, row + 4 * i, 2 * (size_t)(dim - 2 * i));
    return vload(last);
}

/* May the tiles read K where it lies, from `row` on? Not across pages; and a row must be whole cells, at the address of one. */
static bool pairs_in_place(const struct key_source *from, const void *row, int32_t page_size, int32_t j0, int32_t j1)
{
    const int64_t step = from->rows->token;
    if (page_size > 0 && j0 / page_size != (j1 - 1) / page_size && !MUTANT(cpu_prefill_one_page)) return false;
    return from->dim % 2 == 0 && step % 4 == 0 && step >= 0 && (uintptr_t)row % 4 == 0;
}

/* K of keys [j0, j1) of (b, g) as cells of two elements: the rows as they are. */
static struct key_block load_keys(const struct call *call, const struct key_source *from, int32_t b, int32_t g, int32_t j0, int32_t j1)
{
    const struct sequence *s = &call->batch->sequences[b];
    const int32_t *pages = call->batch->page_table, page_size = call->plan->problem.page_size;
    const void *first = key_row(from->rows, s, pages, page_size, b, g, j0);
    if (pairs_in_place(from, first, page_size, j0, j1))
        return (struct key_block){first, from->rows->token / (int64_t)sizeof(float)};
    for (int32_t j = j0; j < j1; j++) {
        float *to = from->copy + (j - j0) * from->copy_step;
        if (from->dim % 2) to[from->dim / 2] = 0;
        memcpy(to, key_row(from->rows, s, pages, page_size, b, g, j), 2 * (size_t)from->dim);
    }
    return (struct key_block){from->copy, from->copy_step};
}

/* V of the same keys as cells of two keys: element d of keys j0 and j0 + 1 side by side. j0 is even. */
static struct key_block load_values(const struct call *call, const struct key_source *from, int32_t b, int32_t g, int32_t j0, int32_t j1)
{
    static const uint16_t none[2 * VW] = {0};
    const struct sequence *s = &call->batch->sequences[b];
    const int32_t *pages = call->batch->page_table, page_size = call->plan->problem.page_size;
    for (int32_t j = j0; j < j1; j += 2) {
        const uint16_t *one = key_row(from->rows, s, pages, page_size, b, g, j);
        const uint16_t *two = j + 1 < j1 ? key_row(from->rows, s, pages, page_size, b, g, j + 1) : NULL;
        float *to = from->copy + (j - j0) / 2 * from->copy_step;
        for (int32_t d = 0; d < from->dim; d += 2 * VW)
            vzip(one + d, two ? two + d : none, min_int(2 * VW, from->dim - d), to + d);
    }
    return (struct key_block){from->copy, from->copy_step};
}
