/* SPDX-License-Identifier: MIT
 * panel_half.inc.h - template, part of panel_few.inc.h: scores of rows that fill half of a vector, where the machine does two halves in the time of a
 * whole. Lanes are rows, as in panel.inc.h, and so is the order of operations; nothing is transposed.
 *
 *     S [key][row] = a scalar of K per key and d x Q^T [d][row]
 *
 * Sixteen keys at a time: f32 where they lie, in even steps; others from a copy in f32, [d / 16][key][16], to which the next sixteen go while these are
 * multiplied, a row's share at each d, so that it costs little. What comes from far is fetched as evenly.
 */
#ifndef HEED_PANEL_HALF_INC_H
#define HEED_PANEL_HALF_INC_H

enum { HALF_ROWS = VW / 2, HALF_KEYS = 16, HALF_COPY = HALF_KEYS * 16 };

/* Floats that the copies want. */
static inline ptrdiff_t half_floats(int head_dim) { return 2 * HALF_COPY * (ptrdiff_t)((head_dim + 15) / 16); }

/* Sixteen keys: f32, `step` floats from key to key, or their copy. next: sixteen more to copy, or NULL. ahead: sixteen rows to fetch, or NULL. */
struct half_keys {
    const float *at;
    ptrdiff_t step;
    const unsigned char *const *next, *const *ahead;
    float *copy;
};

/* Elements [d, d + 16) of sixteen rows. */
INLINE void half_copy(const heed_type type, const unsigned char *const *rows, int d, int dim, float *to)
{
    const int count = dim - d;
    for (int n = 0; n < HALF_KEYS; n++) vstore(to + 16 * n, count < VW ? vload_row_n(type, rows[n], d, count) : vload_row(type, rows[n], d));
}

static void half_copy_any(heed_type type, const unsigned char *const *rows, int d, int dim, float *to)
{
    if (type == HEED_F32) half_copy(HEED_F32, rows, d, dim, to);
    if (type == HEED_F16) half_copy(HEED_F16, rows, d, dim, to);
    if (type == HEED_BF16) half_copy(HEED_BF16, rows, d, dim, to);
}

/* acc += the products of `count` d from d on. Row e of k.next and of k.ahead has its turn with d + e. */
INLINE void half_step(const heed_type type, const bool copied, const bool copies, const bool fetches, const float *q, ptrdiff_t width,
                      const float *const *base, ptrdiff_t step, const struct half_keys *k, int d, int count, vh *acc)
{
    const unsigned char *const *next = k->next, *const *ahead = k->ahead;
    float *copy = copies ? k->copy + d * HALF_KEYS : NULL;
    for (int e = 0; e < count; e++, q += width) {
        vh x = vh_load(q);
        KEEP(x);
        if (copies) vstore(copy + 16 * e, vload_row(type, next[e], d));
        if (fetches) vprefetch(row_address(type, ahead[e], d));
        UNROLL for (int n = 0; n < HALF_KEYS; n++) acc[n] = vh_fma(vh_set1(copied ? base[0][16 * n + e] : base[n / 3][n % 3 * step + e]), x, acc[n]);
    }
}

INLINE void score_half_of(const heed_type type, const bool copied, const float *q, ptrdiff_t width, struct half_keys k, int dim, float *p, float *top)
{
    vh acc[HALF_KEYS], best = vh_load(top);
    const float *base[(HALF_KEYS + 2) / 3];
    UNROLL for (int t = 0; t < (HALF_KEYS + 2) / 3; t++) base[t] = k.at + 3 * t * k.step;
    UNROLL for (int n = 0; n < HALF_KEYS; n++) acc[n] = vh_zero();
    int d = 0;
    for (; d + 16 <= dim; d += 16) {
        const bool copies = copied && k.next, fetches = k.ahead && d % line_elements(type) == 0;
        KEEP_IN_MEMORY(k.next);
        if (copies && fetches) half_step(type, copied, true, true, q, width, base, k.step, &k, d, 16, acc);
        else if (copies) half_step(type, copied, true, false, q, width, base, k.step, &k, d, 16, acc);
        else if (fetches) half_step(type, copied, false, true, q, width, base, k.step, &k, d, 16, acc);
        else half_step(type, copied, false, false, q, width, base, k.step, &k, d, 16, acc);
        q += 16 * width;
        if (copied) base[0] += HALF_COPY;
        else UNROLL for (int t = 0; t < (HALF_KEYS + 2) / 3; t++) base[t] += 16;
    }
    if (d < dim) {
        if (copied && k.next) half_copy(type, k.next, d, dim, k.copy + d * HALF_KEYS);
        half_step(type, copied, false, false, q, width, base, k.step, &k, d, dim - d - (MUTANT(cpu_few_dims) ? 1 : 0), acc);
    }
    UNROLL for (int n = 0; n < HALF_KEYS; n++) {
        vstore(p + n * width, vh_wide(acc[n])); /* also of keys that are not there: there is room for whole blocks */
        best = vh_max(best, acc[n]);
    }
    vh_store(top, best);
}

typedef void (*score_half_fn)(const float *q, ptrdiff_t width, struct half_keys k, int dim, float *p, float *top);
#define HALF_FUNCTION(name, type, copied)                                                                                            \
    NOINLINE void score_half_##name(const float *q, ptrdiff_t width, struct half_keys k, int dim, float *p, float *top)               \
    {                                                                                                                                \
        score_half_of(type, copied, q, width, k, dim, p, top);                                                                       \
    }
HALF_FUNCTION(here, HEED_F32, false)
HALF_FUNCTION(f32, HEED_F32, true)
HALF_FUNCTION(f16, HEED_F16, true)
HALF_FUNCTION(bf16, HEED_BF16, true)
static const score_half_fn score_half[] = {[HEED_F32] = score_half_f32, [HEED_F16] = score_half_f16, [HEED_BF16] = score_half_bf16};

/* Are sixteen rows from row x on there, in even steps, by which a near cache of 64 sets of 8 lines holds a column of them? */
static bool half_in_place(heed_type type, const unsigned char *const *k, int x, int keys)
{
    if (type != HEED_F32 || x + HALF_KEYS > keys || (k[x + 1] - k[x]) % 2048 == 0) return false;
    bool even = true;
    for (int n = 2; n < HALF_KEYS; n++) even &= k[x + n] - k[x + n - 1] == k[x + 1] - k[x];
    return even;
}

/* rows[n] = row of key x + n; behind the last key itself, whose score is then the same. */
static void half_rows(const unsigned char *const *k, int x, int keys, const unsigned char **rows)
{
    for (int n = 0; n < HALF_KEYS; n++) rows[n] = k[x + n < keys || MUTANT(cpu_few_behind_keys) ? x + n : keys - 1];
}

/* As score_few_of; of the rows behind `keys` no byte is read. */
static void score_halves(heed_type type, const float *q, ptrdiff_t width, const unsigned char *const *k, int ahead, int keys, int dim, float *copy, float *p,
                         float *top)
{
    float *at = copy, *to = copy + half_floats(dim) / 2;
    bool ready = false, here = half_in_place(type, k, 0, keys);
    for (int x = 0; x < keys; x += HALF_KEYS, p += HALF_KEYS * width) {
        const unsigned char *const *wanted = ahead ? k + x + ahead : NULL;
        if (here) {
            const struct half_keys in_place = {(const float *)k[x], (k[x + 1] - k[x]) / (ptrdiff_t)sizeof(float), NULL, wanted, NULL};
            score_half_here(q, width, in_place, dim, p, top);
            here = half_in_place(type, k, x + HALF_KEYS, keys);
            ready = false;
            continue;
        }
        const unsigned char *rows[HALF_KEYS];
        if (!ready) {
            half_rows(k, x, keys, rows);
            for (int d = 0; d < dim; d += 16) half_copy_any(type, rows, d, dim, at + d * HALF_KEYS);
        }
        here = half_in_place(type, k, x + HALF_KEYS, keys);
        ready = !here && x + HALF_KEYS < keys;
        if (ready) half_rows(k, x + HALF_KEYS, keys, rows);
        score_half[type](q, width, (struct half_keys){at, 16, ready ? rows : NULL, wanted, to}, dim, p, top);
        float *swap = at;
        at = to, to = swap;
    }
}
#endif
