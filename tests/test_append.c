/* SPDX-License-Identifier: MIT
 * test_append.c - heed_append, heed_rotate and heed_merge on the CPU: every instruction set gives the bytes of the definition, the definition
 * is held against formulas of this file's own, and what must not be written keeps its poison.
 */
#include "counting.h"
#include "bound.h"
#include "internal.h"
#include "dtype.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SEQUENCES = 3, HEADS = 2, CAPACITY = 40, POSITIONS = 64 };
static const int32_t q_lens[SEQUENCES] = {5, 0, 17}, kv_lens[SEQUENCES] = {9, 3, 37};

static const char *const isas[] = {"scalar", "avx2", "avx512"};

static heed_context *context_capped(const char *isa)
{
    heed_context *context = NULL;
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 2, .flags = HEED_NO_OPENCL | HEED_NO_ENVIRONMENT,
                                          .cpu_features = isa};
    cr_assert(heed_context_create(&options, &context) == HEED_OK, "%s", heed_error_message());
    return context;
}

/* The best instruction set up to the cap: the row's name says what this machine has. */
static bool row_is(const heed_plan *plan, enum kind kind, const char *isa)
{
    char name[64];
    snprintf(name, sizeof name, "cpu.%s.append", isa);
    return plan->row[kind] && !strcmp(plan->row[kind]->name, name);
}

/* ---- data ------------------------------------------------------------------ */

static float number(struct random *random) { return (float)(random_normal(random) * exp2(random_below(random, 9) - 4)); }

static heed_tensor tensor_of(void *data, size_t bytes, int64_t batch, int64_t head, int64_t token)
{
    return (heed_tensor){.data = data, .bytes = bytes, .batch_stride = batch, .head_stride = head, .token_stride = token};
}

/* One step: new tokens, a cache of poison, tables. Strides have gaps, so that a write beyond a row shows. */
struct step {
    heed_desc desc;
    heed_lengths lengths;
    heed_tensors tensors;
    heed_tensor new_k, new_v;
    int32_t page_table[SEQUENCES * CAPACITY], q_start[SEQUENCES + 1], q_positions[64], kv_first[SEQUENCES];
    unsigned char *cache[2], *fresh[2]; /* k and v with gaps; new_k and new_v */
    float *scale[2], *cos, *sin;
    size_t cache_bytes[2], scale_bytes;
    int64_t unit[2], row[2];          /* bytes per stride unit; stride of a row in units, gap included */
    int32_t pages, page_rows;         /* 1 page per sequence of CAPACITY rows where not paged */
};

static void fill_new(struct step *s, int part, heed_type type, int32_t dim, struct random *random)
{
    const size_t size = (size_t)type_row_bytes(type, 1), rows = 64;
    float x[256];
    s->fresh[part] = malloc(rows * HEADS * (size_t)dim * size);
    for (size_t n = 0; n < rows * HEADS; n++) {
        for (int32_t d = 0; d < dim; d++) x[d] = number(random);
        row_from_f32(type, x, s->fresh[part] + n * (size_t)dim * size, NULL, dim);
    }
    /* [tokens of all sequences, heads, dim] when packed, else [sequence][17 tokens][heads][dim] */
    const heed_tensor t = tensor_of(s->fresh[part], rows * HEADS * (size_t)dim * size, 17LL * HEADS * dim, dim, (int64_t)HEADS * dim);
    *(part ? &s->new_v : &s->new_k) = t;
}

static void make_cache(struct step *s, int part, heed_type type, int32_t dim)
{
    s->unit[part] = type_stride_bytes(type);
    s->row[part] = type_row_bytes(type, dim) / s->unit[part] + (type_is_block(type) ? 6 : 3);
    const int64_t token = s->row[part] * HEADS, page = token * s->page_rows;
    s->cache_bytes[part] = (size_t)(page * s->pages * s->unit[part]);
    s->cache[part] = malloc(s->cache_bytes[part]);
    memset(s->cache[part], 0xa5, s->cache_bytes[part]);
    const heed_tensor t = tensor_of(s->cache[part], s->cache_bytes[part], page, s->row[part], token);
    *(part ? &s->tensors.v : &s->tensors.k) = t;
    if (type != HEED_I8 && type != HEED_F8_E4M3 && type != HEED_F8_E5M2) return;
    s->scale_bytes = sizeof(float) * (size_t)(HEADS * s->page_rows * s->pages);
    s->scale[part] = malloc(s->scale_bytes);
    memset(s->scale[part], 0xa5, s->scale_bytes);
    const heed_tensor scale = tensor_of(s->scale[part], s->scale_bytes, (int64_t)HEADS * s->page_rows, 1, HEADS);
    *(part ? &s->tensors.v_scale : &s->tensors.k_scale) = scale;
}

/* words: of heed_desc. ragged: q packed. positions: q_positions, else q_position by kv_len, with kv_first. */
static struct step *step_new(const char *words, heed_type new_type, bool ragged, bool positions)
{
    struct step *s = calloc(1, sizeof *s);
    struct random random = {strlen(words) + (uint64_t)new_type * 1000u};
    cr_assert(heed_desc_parse(words, &s->desc) == HEED_OK, "%s: %s", words, heed_error_message());
    s->tensors.struct_size = sizeof s->tensors;
    s->lengths = (heed_lengths){.struct_size = sizeof s->lengths, .batch = SEQUENCES, .q_len = 3, .kv_len = CAPACITY, .kv_lens = kv_lens};
    const int32_t page = s->desc.page_size;
    s->page_rows = page ? page : CAPACITY;
    s->pages = page ? SEQUENCES * ((CAPACITY + page - 1) / page) + 2 : SEQUENCES;
    if (page) {
        s->lengths.page_table = s->page_table;
        s->lengths.page_table_stride = (CAPACITY + page - 1) / page;
        for (int32_t n = 0; n < SEQUENCES * s->lengths.page_table_stride; n++) s->page_table[n] = s->pages - 1 - n; /* backwards, two to spare */
    }
    if (ragged) {
        for (int b = 0; b < SEQUENCES; b++) s->q_start[b + 1] = s->q_start[b] + q_lens[b];
        s->lengths.q_start = s->q_start;
    }
    for (int n = 0; n < 64; n++) s->q_positions[n] = (n * 29 + 3) % POSITIONS;
    for (int b = 0; b < SEQUENCES; b++) s->kv_first[b] = 4 * b;
    if (positions)
        s->lengths.q_positions = s->q_positions;
    else
        s->lengths.kv_first = s->kv_first;
    const int32_t dim = s->desc.head_dim, v_dim = s->desc.v_head_dim ? s->desc.v_head_dim : dim;
    fill_new(s, 0, new_type, dim, &random);
    fill_new(s, 1, new_type, v_dim, &random);
    make_cache(s, 0, s->desc.k_type ? s->desc.k_type : HEED_F32, dim);
    make_cache(s, 1, s->desc.v_type ? s->desc.v_type : HEED_F32, v_dim);
    const int32_t half = s->desc.rope_dim / 2 + 1;
    s->cos = malloc(sizeof(float) * (size_t)(POSITIONS * half));
    s->sin = malloc(sizeof(float) * (size_t)(POSITIONS * half));
    for (int n = 0; n < POSITIONS * half; n++) {
        s->cos[n] = (float)cos(n * 0.37);
        s->sin[n] = (float)sin(n * 0.37);
    }
    s->tensors.rope_cos = tensor_of(s->cos, sizeof(float) * (size_t)(POSITIONS * half), 0, 0, half);
    s->tensors.rope_sin = tensor_of(s->sin, sizeof(float) * (size_t)(POSITIONS * half), 0, 0, half);
    return s;
}

static void step_free(struct step *s)
{
    for (int part = 0; part < 2; part++) free(s->cache[part]), free(s->fresh[part]), free(s->scale[part]);
    free(s->cos);
    free(s->sin);
    free(s);
}

/* kernel "reference" or NULL: the best row. */
static heed_status step_run(struct step *s, heed_context *context, const char *kernel, heed_type new_type, const char *isa, bool *right_row)
{
    heed_plan *plan = NULL;
    heed_batch *batch = NULL;
    heed_status status = heed_plan_create(context, 0, &s->desc, kernel, &plan);
    if (status == HEED_OK) status = heed_batch_create(plan, &s->lengths, &batch);
    if (status == HEED_OK) status = heed_append(plan, batch, new_type, &s->new_k, &s->new_v, &s->tensors);
    if (right_row) *right_row = plan && row_is(plan, KIND_APPEND, isa);
    heed_batch_destroy(batch);
    heed_plan_destroy(plan);
    return status;
}

static bool same_bytes(const struct step *a, const struct step *b)
{
    for (int part = 0; part < 2; part++) {
        if (memcmp(a->cache[part], b->cache[part], a->cache_bytes[part])) return false;
        if (a->scale[part] && memcmp(a->scale[part], b->scale[part], a->scale_bytes)) return false;
    }
    return true;
}

/* ---- append ------------------------------------------------------------------ */

static const char *const layouts[] = {
    "hq4 hk2 d64 rope=64",          "hq2 hk2 d40 dv17 rope=24 ropeoff=6", "hq2 hk2 d64 rope=32 ropeil ropeoff=5", "hq2 d33 dv70 rope=2",
    "hq2 d64 page=16 rope=64",      "hq2 d96 dv32 page=7 rope=50",        "hq2 d32 page=1",                         "hq2 d128 page=64 rope=128 ropeil",
};
static const char *const block_layouts[] = {"hq2 d64 rope=64", "hq4 hk2 d96 dv32 page=7 rope=50", "hq2 d32 page=1", "hq2 d128 page=64 rope=128 ropeil"};
static const char *const storages[] = {"", "k=f16 v=bf16", "k=bf16 v=f16", "k=i8 v=i8", "k=f8_e4m3 v=f8_e5m2", "k=q8_0 v=q4_0"};

Test(append, equals_the_definition_on_every_instruction_set)
{
    struct counts counts = {0};
    heed_context *any = context_capped(NULL);
    for (size_t isa = 0; isa < sizeof isas / sizeof *isas; isa++) {
        heed_context *context = context_capped(isas[isa]);
        for (size_t type = 0; type < sizeof storages / sizeof *storages; type++) {
            const bool blocks = strstr(storages[type], "q8_0") != NULL;
            const size_t count = blocks ? sizeof block_layouts / sizeof *block_layouts : sizeof layouts / sizeof *layouts;
            for (size_t n = 0; n < count; n++)
                for (int variant = 0; variant < 4; variant++)
                    for (heed_type fresh = HEED_F32; fresh <= HEED_BF16; fresh++) {
                        char words[128], what[256];
                        snprintf(words, sizeof words, "%s %s", blocks ? block_layouts[n] : layouts[n], storages[type]);
                        struct step *got = step_new(words, fresh, variant & 1, variant & 2), *want = step_new(words, fresh, variant & 1, variant & 2);
                        bool right_row = false;
                        const heed_status status = step_run(got, context, NULL, fresh, isas[isa], &right_row);
                        const heed_status expected = step_run(want, any, "reference", fresh, NULL, NULL);
                        snprintf(what, sizeof what, "append %s: \"%s\" new %s variant %d: %s", isas[isa], words, type_name(fresh), variant,
                                 status ? heed_error_message() : "bytes or row");
                        if (status == HEED_OK && !right_row)
                            counts.skipped++; /* this machine lacks the instruction set */
                        else
                            count_check(&counts, status == HEED_OK && expected == HEED_OK && same_bytes(got, want), what);
                        step_free(got);
                        step_free(want);
                    }
        }
        heed_context_destroy(context);
    }
    heed_context_destroy(any);
    count_end(&counts);
}

/* Own formulas, f32, packed queries, pages: where a token goes, at which position it is rotated, and which bytes keep their poison. */
static void check_slots(const char *words, bool positions, struct counts *counts)
{
    heed_context *context = context_capped(NULL);
    struct step *s = step_new(words, HEED_F32, true, positions);
    const int32_t dim = s->desc.head_dim, half = s->desc.rope_dim / 2, offset = s->desc.rope_offset;
    const bool interleaved = s->desc.flags & HEED_ROPE_INTERLEAVED;
    unsigned char *written = calloc(1, s->cache_bytes[0]);
    bool good = step_run(s, context, NULL, HEED_F32, "", NULL) == HEED_OK;
    for (int b = 0; b < SEQUENCES; b++)
        for (int i = 0; i < q_lens[b]; i++)
            for (int g = 0; g < HEADS; g++) {
                const int j = kv_lens[b] - q_lens[b] + i, token = s->q_start[b] + i;
                const int page = s->desc.page_size ? s->page_table[b * s->lengths.page_table_stride + j / s->page_rows] : b;
                const int slot = s->desc.page_size ? j % s->page_rows : j;
                const int position = positions ? s->q_positions[token] : s->kv_first[b] + j;
                const float *from = (const float *)(void *)s->fresh[0] + ((size_t)token * HEADS + (size_t)g) * (size_t)dim;
                const size_t at = (size_t)(((int64_t)page * s->page_rows + slot) * HEADS + g) * (size_t)s->row[0];
                const float *got = (const float *)(void *)s->cache[0] + at;
                for (int d = 0; d < dim; d++) {
                    double want = from[d];
                    const int r = d - offset;
                    if (r >= 0 && r < 2 * half) {
                        const int n = interleaved ? r / 2 : r % half;
                        const bool second = interleaved ? r % 2 : r >= half;
                        const int other = d + (interleaved ? 1 : half) * (second ? -1 : 1);
                        const double c = s->cos[position * (half + 1) + n], z = s->sin[position * (half + 1) + n];
                        want = second ? from[d] * c + from[other] * z : from[d] * c - from[other] * z;
                        good &= fabs(got[d] - want) <= 3e-7 * (fabs(from[d]) + fabs(from[other]));
                    } else {
                        good &= got[d] == (float)want;
                    }
                }
                memset(written + at * sizeof(float), 1, (size_t)dim * sizeof(float));
            }
    for (size_t n = 0; n < s->cache_bytes[0]; n++) good &= written[n] || s->cache[0][n] == 0xa5;
    char what[160];
    snprintf(what, sizeof what, "slots and rotation of \"%s\"%s", words, positions ? ", own positions" : "");
    count_check(counts, good, what);
    free(written);
    step_free(s);
    heed_context_destroy(context);
}

Test(append, tokens_go_where_they_should)
{
    struct counts counts = {0};
    for (size_t n = 0; n < sizeof layouts / sizeof *layouts; n++) {
        check_slots(layouts[n], false, &counts);
        check_slots(layouts[n], true, &counts);
    }
    count_end(&counts);
}

Test(append, a_position_outside_the_tables_touches_nothing)
{
    struct counts counts = {0};
    heed_context *context = context_capped(NULL);
    const int32_t bad[] = {POSITIONS, -1, INT32_MAX, INT32_MIN};
    for (size_t n = 0; n < sizeof bad / sizeof *bad; n++) {
        struct step *s = step_new("hq2 d32 rope=32", HEED_F32, true, true);
        s->q_positions[7] = bad[n];
        count_check(&counts, step_run(s, context, NULL, HEED_F32, "", NULL) == HEED_OUT_OF_BOUNDS, "append beyond the rope tables");
        bool clean = true;
        for (size_t at = 0; at < s->cache_bytes[0]; at++) clean &= s->cache[0][at] == 0xa5;
        count_check(&counts, clean, "a refused append leaves the cache alone");
        s->q_positions[7] = POSITIONS - 1;
        count_check(&counts, step_run(s, context, NULL, HEED_F32, "", NULL) == HEED_OK, "the last row of the rope tables");
        step_free(s);
    }
    heed_context_destroy(context);
    count_end(&counts);
}

/* ---- rotate -------------------------------------------------------------------- */

static void rotate_with(heed_context *context, const char *kernel, struct step *s, heed_type type, unsigned char *x, size_t bytes, int32_t heads)
{
    heed_plan *plan = NULL;
    heed_batch *batch = NULL;
    s->desc.q_type = type;
    const int64_t dim = s->desc.head_dim;
    const heed_tensor view = tensor_of(x, bytes, 17 * heads * dim, dim, heads * dim);
    cr_assert(heed_plan_create(context, 0, &s->desc, kernel, &plan) == HEED_OK && heed_batch_create(plan, &s->lengths, &batch) == HEED_OK &&
                  heed_rotate(plan, batch, heads, &view, &s->tensors) == HEED_OK,
              "%s", heed_error_message());
    heed_batch_destroy(batch);
    heed_plan_destroy(plan);
}

Test(rotate, equals_the_definition)
{
    struct counts counts = {0};
    enum { ROTATE_HEADS = 3 };
    for (size_t isa = 0; isa < sizeof isas / sizeof *isas; isa++) {
        heed_context *context = context_capped(isas[isa]);
        for (size_t n = 0; n < sizeof layouts / sizeof *layouts; n++)
            for (heed_type type = HEED_F32; type <= HEED_BF16; type++) {
                struct step *s = step_new(layouts[n], type, true, n & 1);
                struct random random = {n};
                const size_t dim = (size_t)s->desc.head_dim, rows = 64 * ROTATE_HEADS, row = (size_t)type_row_bytes(type, (int64_t)dim);
                unsigned char *got = malloc(rows * row), *want = malloc(rows * row);
                float x[256];
                for (size_t r = 0; r < rows; r++) {
                    for (size_t d = 0; d < dim; d++) x[d] = number(&random);
                    row_from_f32(type, x, got + r * row, NULL, (int32_t)dim);
                }
                memcpy(want, got, rows * row);
                rotate_with(context, NULL, s, type, got, rows * row, ROTATE_HEADS);
                rotate_with(context, "reference", s, type, want, rows * row, ROTATE_HEADS);
                char what[160];
                snprintf(what, sizeof what, "rotate %s: \"%s\" %s", isas[isa], layouts[n], type_name(type));
                count_check(&counts, !memcmp(got, want, rows * row), what);
                free(got);
                free(want);
                step_free(s);
            }
        heed_context_destroy(context);
    }
    count_end(&counts);
}

/* ---- merge ----------------------------------------------------------------------- */

enum { MERGE_HEADS = 4, MERGE_Q = 6, MERGE_DIM = 37, MERGE_ROWS = MERGE_HEADS * MERGE_Q };

struct pair {
    heed_type type;
    unsigned char o[3][MERGE_ROWS * MERGE_DIM * 4];
    float lse[3][MERGE_ROWS];
};

static void merge_into(heed_context *context, const char *kernel, const char *words, struct pair *p, int a, int b, int to)
{
    heed_desc desc;
    heed_plan *plan = NULL;
    heed_batch *batch = NULL;
    heed_tensor o[3], lse[3];
    cr_assert(heed_desc_parse(words, &desc) == HEED_OK);
    desc.o_type = p->type;
    const heed_lengths lengths = {.struct_size = sizeof lengths, .batch = 1, .q_len = MERGE_Q, .kv_len = MERGE_Q};
    for (int n = 0; n < 3; n++) {
        o[n] = tensor_of(p->o[n], sizeof p->o[n], 0, MERGE_Q * MERGE_DIM, MERGE_DIM);
        lse[n] = tensor_of(p->lse[n], sizeof p->lse[n], 0, MERGE_Q, 1);
    }
    cr_assert(heed_plan_create(context, 0, &desc, kernel, &plan) == HEED_OK && heed_batch_create(plan, &lengths, &batch) == HEED_OK &&
                  heed_merge(plan, batch, &o[a], &lse[a], &o[b], &lse[b], &o[to], &lse[to]) == HEED_OK,
              "%s", heed_error_message());
    heed_batch_destroy(batch);
    heed_plan_destroy(plan);
}

static void pair_fill(struct pair *p, heed_type type, uint64_t seed)
{
    struct random random = {seed};
    float x[MERGE_DIM];
    p->type = type;
    for (int n = 0; n < 3; n++)
        for (int r = 0; r < MERGE_ROWS; r++) {
            for (int d = 0; d < MERGE_DIM; d++) x[d] = number(&random);
            row_from_f32(type, x, p->o[n] + (size_t)r * (size_t)type_row_bytes(type, MERGE_DIM), NULL, MERGE_DIM);
            p->lse[n][r] = 10 * number(&random);
        }
}

static size_t pair_bytes(const struct pair *p) { return (size_t)type_row_bytes(p->type, (int64_t)MERGE_ROWS * MERGE_DIM); }

Test(merge, an_empty_side_is_an_identity)
{
    struct counts counts = {0};
    static struct pair p, before;
    for (size_t isa = 0; isa < sizeof isas / sizeof *isas; isa++) {
        heed_context *context = context_capped(isas[isa]);
        for (heed_type type = HEED_F32; type <= HEED_BF16; type++)
            for (int side = 0; side < 2; side++)
                for (int to = 0; to < 3; to++) { /* in place too */
                    pair_fill(&p, type, 5);
                    for (int r = 0; r < MERGE_ROWS; r++) p.lse[side][r] = r % 3 ? -INFINITY : p.lse[1 - side][r] - 200;
                    memset(p.o[side], 0xff, sizeof p.o[side]); /* NaN in all three types: of weight 0, so never read */
                    before = p;
                    merge_into(context, NULL, "hq4 d37 lse", &p, 0, 1, to);
                    char what[128];
                    snprintf(what, sizeof what, "merge %s, %s, side %d empty, into %d", isas[isa], type_name(type), side, to);
                    count_check(&counts,
                                !memcmp(p.o[to], before.o[1 - side], pair_bytes(&p)) &&
                                    !memcmp(p.lse[to], before.lse[1 - side], sizeof p.lse[to]),
                                what);
                }
        pair_fill(&p, HEED_F32, 6);
        for (int r = 0; r < MERGE_ROWS; r++) p.lse[0][r] = p.lse[1][r] = -INFINITY;
        memset(p.o[0], 0xff, sizeof p.o[0]);
        merge_into(context, NULL, "hq4 d37 lse", &p, 0, 1, 2);
        bool zero = true;
        for (size_t n = 0; n < pair_bytes(&p); n++) zero &= p.o[2][n] == 0;
        for (int r = 0; r < MERGE_ROWS; r++) zero &= p.lse[2][r] == -INFINITY;
        count_check(&counts, zero, "two empty sides: +0 and -infinity");
        heed_context_destroy(context);
    }
    count_end(&counts);
}

Test(merge, equals_the_definition)
{
    struct counts counts = {0};
    static struct pair got, want;
    static const char *const words[] = {"hq4 d37 lse", "hq4 d37 lse lse2"};
    for (size_t isa = 0; isa < sizeof isas / sizeof *isas; isa++) {
        heed_context *context = context_capped(isas[isa]);
        for (heed_type type = HEED_F32; type <= HEED_BF16; type++)
            for (int n = 0; n < 2; n++) {
                const double unit = type == HEED_F32 ? 0x1p-24 : type == HEED_F16 ? 0x1p-11 : 0x1p-8;
                pair_fill(&got, type, 9);
                for (int r = 0; r < MERGE_ROWS; r++) got.lse[1][r] = got.lse[0][r] + (float)(r - MERGE_ROWS / 2) * 0.7f;
                got.lse[0][3] = NAN; /* seen, so it shows */
                want = got;
                merge_into(context, NULL, words[n], &got, 0, 1, 2);
                merge_into(context, "reference", words[n], &want, 0, 1, 2);
                bool good = true;
                for (int r = 0; r < MERGE_ROWS; r++) {
                    good &= bound_holds(got.lse[2][r], want.lse[2][r], 0x1p-23 * fabs(want.lse[2][r]) + 1e-9);
                    for (int d = 0; d < MERGE_DIM; d++) {
                        double x[4];
                        const size_t at = (size_t)(r * MERGE_DIM + d) * (size_t)type_row_bytes(type, 1);
                        for (int k = 0; k < 3; k++) row_to_f64(type, got.o[k] + at, 1, &x[k], 1);
                        row_to_f64(type, want.o[2] + at, 1, &x[3], 1);
                        good &= bound_holds(x[2], x[3], 0x1p-22 * (fabs(x[0]) + fabs(x[1])) + 2 * unit * fabs(x[3]));
                    }
                }
                char what[128];
                snprintf(what, sizeof what, "merge %s, %s, \"%s\"", isas[isa], type_name(type), words[n]);
                count_check(&counts, good, what);
            }
        heed_context_destroy(context);
    }
    count_end(&counts);
}
