/* SPDX-License-Identifier: MIT
 * append.cl - new tokens into the (paged) cache: rotate k, convert both to the cache's types, write scales; and heed_rotate.
 *
 *     pair (x, y) of the rotated dimensions:  x' = x cos - y sin,  y' = y cos + x sin     every product and sum rounded on its own
 *
 * One work-item per row, no private arrays: an element is computed anew where it is needed twice. The rules of conversion are those of
 * src/dtype.c, to the bit.
 *
 * Two kernels, append and rotate_rows; their constants come at run time.
 */

/* A pair after rotation. */
static inline float2 rotated(float x, float y, float c, float s)
{
    float xc = x * c, ys = y * s, yc = y * c, xs = x * s;
#ifdef MUTANT_cl_rope_sign
    ys = -ys;
#endif
    return (float2)(xc - ys, yc + xs);
}

/* First and second dimension of pair n. */
#define PAIR_FIRST(n) (ROPE_OFFSET + (ROPE_INTERLEAVED ? 2 * (n) : (n)))
#define PAIR_SECOND(n) (ROPE_OFFSET + (ROPE_INTERLEAVED ? 2 * (n) + 1 : (n) + ROPE_DIM / 2))
#define PAIR_OF(d) (ROPE_INTERLEAVED ? ((d)-ROPE_OFFSET) / 2 : ((d)-ROPE_OFFSET) % (ROPE_DIM / 2)) /* ROPE_DIM > 0 */

static inline long position_of(struct sequence s, global const int *q_positions, int i)
{
    return s.flags & 1 ? (long)q_positions[s.q_index + i] : s.position + i;
}

/* ---- rotate ------------------------------------------------------------------- */

struct rotate_strides {
    struct view x, rope_cos, rope_sin;
};

ONCE void rotate_row(global uchar *row, global const float *c, global const float *z, struct problem problem)
{
    for (int n = 0; n < ROPE_DIM / 2; n++) {
        int first = PAIR_FIRST(n), second = PAIR_SECOND(n);
        float2 pair = rotated(LOAD1(Q_TYPE, row, first, 1.0f), LOAD1(Q_TYPE, row, second, 1.0f), c[n], z[n]);
        STORE1(Q_TYPE, row, first, pair.s0);
        STORE1(Q_TYPE, row, second, pair.s1);
    }
}

/* A work-item per row (t, h), t counted over all sequences. x is of Q_TYPE (f32, f16, bf16). */
kernel void rotate_rows(global uchar *x, global const uchar *rope_cos, global const uchar *rope_sin, global const struct sequence *sequences,
                   global const int *q_positions, int sequence_count, int heads, int row_first, int row_count, struct rotate_strides st,
                   struct problem problem)
{
    int number = ROW_NUMBER;
    if (number >= row_count) return;
    int2 query = query_of(sequences, sequence_count, (row_first + number) / heads);
    int b = query.s0, i = query.s1, h = (row_first + number) % heads;
    struct sequence s = sequences[b];
    if (!ROPE_DIM) return;
    long p = position_of(s, q_positions, i);
    global const float *c = AT(float, rope_cos + st.rope_cos.offset + p * st.rope_cos.token);
    global const float *z = AT(float, rope_sin + st.rope_sin.offset + p * st.rope_sin.token);
    rotate_row(x + query_offset(st.x, s, b, h, i), c, z, problem);
}

/* ---- append ------------------------------------------------------------------- */

/* A row of new tokens; c and z are its row of the rotation tables, turned: rotate it. */
struct fresh {
    int type, turned;
    global const uchar *row;
    global const float *c, *z;
};

static inline float fresh_element(struct fresh from, int d, struct problem problem)
{
    if (from.turned && d >= ROPE_OFFSET && d < ROPE_OFFSET + ROPE_DIM) {
        int n = PAIR_OF(d), first = PAIR_FIRST(n), second = PAIR_SECOND(n);
        float2 pair = rotated(load1_any(from.type, from.row, first, 1.0f), load1_any(from.type, from.row, second, 1.0f), from.c[n], from.z[n]);
        return d == first ? pair.s0 : pair.s1;
    }
    return load1_any(from.type, from.row, d, 1.0f);
}

/* a / b to nearest, also where the device's division is only 2.5 ulp: two corrections by the remainder. */
static inline float divided(float a, float b)
{
    float q = a / b, r = 1.0f / b;
    float better = fma(fma(-q, b, a), r, q);
    better = fma(fma(-better, b, a), r, better);
    return fabs(better) > 0x1p-100f && fabs(better) < 0x1p100f && fabs(b) > 0x1p-100f ? better : q;
}

/* rint(x / d) within [low, high]. */
static inline int quotient(float x, float d, int low, int high)
{
    if (d == 0) return 0;
    return (int)clamp(rint(divided(x, d)), (float)low, (float)high);
}

/* The value of largest magnitude among elements [from, to), the first of equals; NaN if one is not finite. */
static inline float largest_of(struct fresh row, int from, int to, struct problem problem)
{
    float value = 0;
    bool finite = true;
    for (int d = from; d < to; d++) {
        float x = fresh_element(row, d, problem);
        finite = finite && isfinite(x);
        if (fabs(x) > fabs(value)) value = x;
    }
    return finite ? value : NAN;
}

static inline uchar to_e4m3(float x)
{
    uint bits = as_uint(x), magnitude = bits & 0x7fffffff, sign = bits >> 24 & 0x80;
    if (magnitude >= 0x7f800000) return (uchar)(sign | 0x7f);
    uint v = magnitude - (120 << 23), code = (v + 0x7ffff + (v >> 20 & 1)) >> 20;
    if (fabs(x) < 0x1p-6f) code = (uint)rint(fabs(x) * 0x1p9f);
    return (uchar)(sign | min(code, 0x7eu));
}

static inline uchar to_e5m2(float x)
{
    uint bits = as_uint(x), magnitude = bits & 0x7fffffff, sign = bits >> 24 & 0x80;
    if (magnitude > 0x7f800000) return (uchar)(sign | 0x7e);
    if (magnitude == 0x7f800000) return (uchar)(sign | 0x7c);
    uint v = magnitude - (112 << 23), code = (v + 0xfffff + (v >> 21 & 1)) >> 21;
    if (fabs(x) < 0x1p-14f) code = (uint)rint(fabs(x) * 0x1p16f);
    return (uchar)(sign | min(code, 0x7bu));
}

/* A block's scale: f16, NaN where the block is not finite or the scale does not fit. */
static inline void store_scale(global uchar *block, float d)
{
    if (!(fabs(d) < 65520.0f)) ((global ushort *)block)[0] = 0x7e00;
    else vstore_half_rte(d, 0, (global half *)block);
}

/* n elements into a row of the cache; scale: where the row's scale goes, 0 for none (f8: 1). */
ONCE void store_row(int type, struct fresh from, global uchar *to, global float *scale, int n, struct problem problem)
{
    if (type == TYPE_F32) {
        for (int d = 0; d < n; d++) store1_1(to, d, fresh_element(from, d, problem));
    } else if (type == TYPE_F16) {
        for (int d = 0; d < n; d++) store1_2(to, d, fresh_element(from, d, problem));
    } else if (type == TYPE_BF16) {
        for (int d = 0; d < n; d++) store1_3(to, d, fresh_element(from, d, problem));
    } else if (type == TYPE_I8) {
        float factor = divided(fabs(largest_of(from, 0, n, problem)), 127.0f);
        for (int d = 0; d < n; d++)
            to[d] = isnan(factor) ? 0 : (uchar)(char)quotient(fresh_element(from, d, problem), factor, -127, 127);
        if (scale) *scale = factor;
    } else if (type == TYPE_F8_E4M3 || type == TYPE_F8_E5M2) {
        float factor = scale ? divided(fabs(largest_of(from, 0, n, problem)), type == TYPE_F8_E4M3 ? 448.0f : 57344.0f) : 1.0f;
        for (int d = 0; d < n; d++) {
            float x = factor == 0 ? 0 : divided(fresh_element(from, d, problem), factor);
            to[d] = type == TYPE_F8_E4M3 ? to_e4m3(x) : to_e5m2(x);
        }
        if (scale) *scale = factor;
    } else if (type == TYPE_Q8_0) {
        for (int d0 = 0; d0 < n; d0 += 32) {
            global uchar *block = to + d0 / 32 * 34;
            float factor = divided(fabs(largest_of(from, d0, d0 + 32, problem)), 127.0f);
            store_scale(block, factor);
            for (int e = 0; e < 32; e++)
                block[2 + e] = isnan(factor) ? 0 : (uchar)(char)quotient(fresh_element(from, d0 + e, problem), factor, -127, 127);
        }
    } else {
        for (int d0 = 0; d0 < n; d0 += 32) {
            global uchar *block = to + d0 / 32 * 18;
            float factor = largest_of(from, d0, d0 + 32, problem) / -8.0f;
            store_scale(block, factor);
            for (int e = 0; e < 16; e++) {
                int low = 0, high = 0;
                if (!isnan(factor)) {
                    low = quotient(fresh_element(from, d0 + e, problem), factor, -8, 7);
                    high = quotient(fresh_element(from, d0 + e + 16, problem), factor, -8, 7);
                }
                block[2 + e] = (uchar)((low + 8) | (high + 8) << 4);
            }
        }
    }
}

struct append_strides {
    struct view new_k, new_v, k, v, k_scale, v_scale, rope_cos, rope_sin;
};

/* Bits of `given`. */
#define GIVEN_K 1
#define GIVEN_V 2
#define GIVEN_K_SCALE 4
#define GIVEN_V_SCALE 8

/* New token i of sequence b, KV head g -> key kv_len - q_len + i. A work-item per row (t, g), t counted over all sequences. */
kernel void append(global const uchar *new_k, global const uchar *new_v, global uchar *k, global uchar *v, global uchar *k_scale,
                   global uchar *v_scale, global const uchar *rope_cos, global const uchar *rope_sin,
                   global const struct sequence *sequences, global const int *q_positions, global const int *page_table,
                   int sequence_count, int heads, int new_type, int given, int row_first, int row_count, struct append_strides st,
                   struct problem problem)
{
    int number = ROW_NUMBER;
    if (number >= row_count) return;
    int2 query = query_of(sequences, sequence_count, (row_first + number) / heads);
    int b = query.s0, i = query.s1, g = (row_first + number) % heads;
    struct sequence s = sequences[b];
    int j = s.kv_len - s.q_len + i;
#ifdef MUTANT_cl_append_slot
    j = i;
#endif
    if (given & GIVEN_K) {
        struct fresh row = {new_type, ROPE_DIM > 0, new_k + query_offset(st.new_k, s, b, g, i), 0, 0};
        if (ROPE_DIM) {
            long p = position_of(s, q_positions, i);
            row.c = AT(float, rope_cos + st.rope_cos.offset + p * st.rope_cos.token);
            row.z = AT(float, rope_sin + st.rope_sin.offset + p * st.rope_sin.token);
        }
        global float *scale = 0;
        if (given & GIVEN_K_SCALE) scale = (global float *)(k_scale + key_offset(st.k_scale, s, page_table, b, g, j, problem));
        store_row(K_TYPE, row, k + key_offset(st.k, s, page_table, b, g, j, problem), scale, HEAD_DIM, problem);
    }
    if (given & GIVEN_V) {
        struct fresh row = {new_type, 0, new_v + query_offset(st.new_v, s, b, g, i), 0, 0};
        global float *scale = 0;
        if (given & GIVEN_V_SCALE) scale = (global float *)(v_scale + key_offset(st.v_scale, s, page_table, b, g, j, problem));
        store_row(V_TYPE, row, v + key_offset(st.v, s, page_table, b, g, j, problem), scale, V_HEAD_DIM, problem);
    }
}
