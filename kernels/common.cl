/* SPDX-License-Identifier: MIT
 * common.cl - first part of every OpenCL program: nouns, addresses, loads and stores of all storage types, visibility, logits, exp.
 *
 * The same arithmetic in the same order on every device: no contraction (each fma is written), no native_ functions, own exp, softcap and log.
 * OpenCL C 1.2, no extension. This file has no kernel. Sizes, types and features are constants (numbers of heed.h): by -D, so that the
 * compiler sees them, or at run time; lengths, strides and offsets (all in bytes) are arguments.
 */
#pragma OPENCL FP_CONTRACT OFF

/* ---- constants of the problem ---------------------------------------------- */

#define TYPE_F32 1
#define TYPE_F16 2
#define TYPE_BF16 3
#define TYPE_I8 4
#define TYPE_Q8_0 5
#define TYPE_Q4_0 6
#define TYPE_F8_E4M3 7
#define TYPE_F8_E5M2 8

/* The constants of a problem; the order is that of EACH_CONSTANT in src/opencl/program.c. The fast rows are compiled for them, one program per
 * problem. With -DRUN_TIME=1 they are fields of the kernel's argument `problem`, and one program serves all problems. Both kinds of row read the
 * same names, and what is written once for both chooses by `if`, not by #if. */
struct problem {
    int head_dim, v_head_dim, kv_heads, group, q_type, k_type, v_type, o_type, bias_type, page_size, window_left, window_right, causal, alibi, sinks,
        mask_bool, mask_bits, bias, bias_first, key_range, write_lse, lse_base2, lse_without_sink, scores, scores_stage, scale_bits,
        softcap_bits, rope_dim, rope_offset, rope_interleaved, key_sums, keep_sums;
};
#if RUN_TIME
#define HEAD_DIM problem.head_dim
#define V_HEAD_DIM problem.v_head_dim
#define KV_HEADS problem.kv_heads
#define GROUP problem.group
#define Q_TYPE problem.q_type
#define K_TYPE problem.k_type
#define V_TYPE problem.v_type
#define O_TYPE problem.o_type
#define BIAS_TYPE problem.bias_type
#define PAGE_SIZE problem.page_size
#define WINDOW_LEFT problem.window_left
#define WINDOW_RIGHT problem.window_right
#define CAUSAL problem.causal
#define ALIBI problem.alibi
#define SINKS problem.sinks
#define MASK_BOOL problem.mask_bool
#define MASK_BITS problem.mask_bits
#define BIAS problem.bias
#define BIAS_FIRST problem.bias_first
#define KEY_RANGE problem.key_range
#define WRITE_LSE problem.write_lse
#define LSE_BASE2 problem.lse_base2
#define LSE_WITHOUT_SINK problem.lse_without_sink
#define SCORES problem.scores
#define SCORES_STAGE problem.scores_stage
#define SCALE_BITS problem.scale_bits
#define SOFTCAP_BITS problem.softcap_bits
#define ROPE_DIM problem.rope_dim
#define ROPE_OFFSET problem.rope_offset
#define ROPE_INTERLEAVED problem.rope_interleaved
#define KEY_SUMS problem.key_sums
#define KEEP_SUMS problem.keep_sums
#endif

#ifdef MUTANT_cl_scale_twice
#define SCALE (as_float(SCALE_BITS) * as_float(SCALE_BITS))
#else
#define SCALE as_float(SCALE_BITS)
#endif
#define SOFTCAP as_float(SOFTCAP_BITS)
#define PAGED (PAGE_SIZE > 0)
#define MASKED (MASK_BOOL || MASK_BITS)
/* Does a logit differ from scale * q.k, beyond which keys are visible by position? */
#define ALTERED (SOFTCAP_BITS || ALIBI || BIAS)
#define HAS_SCALE(type) ((type) == TYPE_I8 || (type) == TYPE_F8_E4M3 || (type) == TYPE_F8_E5M2)
#define IS_BLOCK(type) ((type) == TYPE_Q8_0 || (type) == TYPE_Q4_0)

#define GLUE_(a, b) a##b
#define GLUE(a, b) GLUE_(a, b)
#define LOG2E 1.44269504088896f
#define LOG2E_REST 1.92596299e-8f /* log2 e - LOG2E */
#define LN2 0.693147180559945f
#define ALIGNED __attribute__((aligned(64)))

/* One work-group per work item, of LOCAL_X x LOCAL_Y work-items; the grid may be folded into two dimensions. */
#ifndef LOCAL_X
#define LOCAL_X 1
#endif
#ifndef LOCAL_Y
#define LOCAL_Y 1
#endif
#define LANES (LOCAL_X * LOCAL_Y)
#define LANE ((int)(get_local_id(0) + get_local_id(1) * LOCAL_X))
#define ATTENTION_KERNEL kernel __attribute__((reqd_work_group_size(LOCAL_X, LOCAL_Y, 1)))
#define ITEM_NUMBER ((int)(get_group_id(0) + get_group_id(1) * get_num_groups(0)))

/* `for (i = 0; i < n + LOOP_GUARD; i++)` runs n times. In a kernel with barriers PoCL would otherwise pull the loop over work-items inside
 * this loop and keep every accumulator in memory. -DGUARD=1 comes from the device's tuning row. */
#if GUARD
#define LOOP_GUARD ((int)(get_local_id(0) >> 20))
#else
#define LOOP_GUARD 0
#endif

/* `IN_ORDER for (...) sum += x[c];`: floats added one after the other. Intel's CPU driver 2026.22 makes eight partial sums of such a loop, unasked. Sums of vectors,
 * and of several floats per turn, it leaves as they are. */
#define IN_ORDER _Pragma("clang loop vectorize(disable) unroll(disable)")

/* PoCL inlines a kernel into two wrappers and compiles all three texts. What a kernel does stands in a function of its own that is not inlined there, and
 * is compiled once: prefill_cpu in 0.3 s for 0.7. Not for what has barriers. Functions of work-items (get_local_id) stay in the kernel. */
#if GUARD
#define ONCE static __attribute__((noinline))
#else
#define ONCE static inline
#endif

/* The kernels beside attention: a work-item per row of the call. */
#define ROW_NUMBER ((int)(get_global_id(0) + get_global_id(1) * get_global_size(0)))

/* ---- nouns: the layouts of src/internal.h ----------------------------------- */

struct view {
    long offset, batch, head, token;
};

struct strides {
    struct view q, k, v, o, lse, mask, bias, alibi, sinks, k_scale, v_scale, key_range, scores, key_sums;
    struct view kept; /* m and l of query rows, in the workspace; token t is query q_index + t, batch is score_rows of heed_lengths */
    struct view own;  /* the items' own bytes in the workspace, as many for each as the row wants, from the next multiple of 128 on */
};
#define SCORE_ROWS (st.kept.batch)

struct sequence {
    int q_len, kv_len;
    int first_page;
    int flags;      /* bit 0: positions come from q_positions */
    long q_token, kv_token, q_index, position, first;
};

struct work_item {
    int sequence, head, q_begin, q_end, kv_begin, kv_end, part, reserved;
};

struct merge_item {
    int sequence, head, q_begin, q_end, part, chunks, rows, reserved;
};

/* Every attention kernel has this list; src/opencl/launch.c sets it. Absent tensors are a dummy buffer of 64 bytes that holds 1.0f, with strides
 * of 0, so that an absent scale reads as 1. For merge_parts, `items` are merge items. */
#define ATTENTION_ARGUMENTS                                                                                                     \
    global const uchar *q, global const uchar *k, global const uchar *v, global uchar *o, global uchar *lse,                     \
        global const uchar *mask, global const uchar *bias, global const uchar *alibi, global const uchar *sinks,                \
        global const uchar *k_scale, global const uchar *v_scale, global const uchar *key_range, global uchar *scores,           \
        global uchar *key_sums, global float *work, global const struct sequence *sequences, global const int *q_positions,                              \
        global const int *page_table, global const int *score_slots, global const uchar *items, int item_first, int item_count, struct strides st, long part_rows,              \
        struct problem problem

#define ATTENTION_PASSED                                                                                                         \
    q, k, v, o, lse, mask, bias, alibi, sinks, k_scale, v_scale, key_range, scores, key_sums, work, sequences, q_positions, page_table, score_slots, items, \
        item_first, item_count, st, part_rows, problem

/* ---- where a row lies (src/view.h) ------------------------------------------ */

/* Query-like row (b, h, i), in bytes. */
static inline long query_offset(struct view view, struct sequence s, int b, int h, int i)
{
    return view.offset + b * view.batch + (s.q_token + i) * view.token + h * view.head;
}

/* Key-like row (b, g, j), in bytes. */
static inline long key_offset(struct view view, struct sequence s, global const int *page_table, int b, int g, int j,
                              struct problem problem)
{
    if (!PAGED) {
#ifdef MUTANT_cl_offset_32
        return view.offset + (int)(b * view.batch + (s.kv_token + j) * view.token + g * view.head);
#endif
        return view.offset + b * view.batch + (s.kv_token + j) * view.token + g * view.head;
    }
    int tokens = PAGED ? PAGE_SIZE : 1, page = page_table[s.first_page + j / tokens], slot = j % tokens;
#ifdef MUTANT_cl_page_slot
    slot = tokens - 1 - slot;
#endif
    return view.offset + page * view.batch + slot * view.token + g * view.head;
}

/* Sequence and token of query t, t counted over all sequences; sequences without queries are passed over. */
static inline int2 query_of(global const struct sequence *sequences, int sequence_count, long t)
{
    int low = 0, high = sequence_count - 1; /* the last sequence that begins at or before t: those without queries come before it */
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (sequences[middle].q_index <= t) low = middle;
        else high = middle - 1;
    }
    return (int2)(low, (int)(t - sequences[low].q_index));
}

/* ---- storage types: one, 4 or 16 elements of a row to f32 ----------------------
 * load1_T(row, d, scale), load4_T (d a multiple of 4), load16_T (d a multiple of 16): elements d ... of the row at byte address row. T is the
 * number of the type, so that GLUE(load4_, K_TYPE) is the loader of K. No byte beside the elements asked for is read, but the block's own. */

#define F8_DECODERS(I, F, N)                                                                                                     \
    /* sign, 4 bits of exponent (bias 7), 3 of mantissa; 0x7f is NaN */                                                          \
    static inline F from_e4m3_##N(I x)                                                                                           \
    {                                                                                                                            \
        I code = x & 0x7f, sign = (x & 0x80) << 24;                                                                              \
        F small = GLUE(convert_, F)(code) * 0x1p-9f;                                                                             \
        F value = code < 8 ? small : GLUE(as_, F)((code << 20) + (120 << 23));                                                   \
        value = code == 0x7f ? (F)NAN : value;                                                                                   \
        return GLUE(as_, F)(GLUE(as_, I)(value) | sign);                                                                         \
    }                                                                                                                            \
    /* the upper half of an f16: 5 bits of exponent (bias 15), 2 of mantissa */                                                  \
    static inline F from_e5m2_##N(I x)                                                                                           \
    {                                                                                                                            \
        I code = x & 0x7f, sign = (x & 0x80) << 24;                                                                              \
        F small = GLUE(convert_, F)(code) * 0x1p-16f;                                                                            \
        F value = code < 4 ? small : GLUE(as_, F)((code << 21) + (112 << 23));                                                   \
        value = code >= 0x7c ? GLUE(as_, F)(((code & 3) << 21) | 0x7f800000) : value;                                            \
        return GLUE(as_, F)(GLUE(as_, I)(value) | sign);                                                                         \
    }
F8_DECODERS(int, float, 1)
F8_DECODERS(int4, float4, 4)
F8_DECODERS(int16, float16, 16)

#define AT(type, row) ((global const type *)(row))

static inline float load1_1(global const uchar *row, int d, float scale) { return AT(float, row)[d]; }
static inline float load1_2(global const uchar *row, int d, float scale) { return vload_half(d, AT(half, row)); }
static inline float load1_3(global const uchar *row, int d, float scale) { return as_float((uint)AT(ushort, row)[d] << 16); }
static inline float load1_4(global const uchar *row, int d, float scale) { return scale * (float)AT(char, row)[d]; }
static inline float load1_7(global const uchar *row, int d, float scale) { return scale * from_e4m3_1(row[d]); }
static inline float load1_8(global const uchar *row, int d, float scale) { return scale * from_e5m2_1(row[d]); }
static inline float load1_5(global const uchar *row, int d, float scale)
{
    global const uchar *block = row + d / 32 * 34;
    return vload_half(0, AT(half, block)) * (float)AT(char, block)[2 + d % 32];
}
static inline float load1_6(global const uchar *row, int d, float scale)
{
    global const uchar *block = row + d / 32 * 18;
    int code = block[2 + d % 16] >> (d % 32 / 16 * 4) & 15; /* byte e holds element e low, element e + 16 high */
#ifdef MUTANT_cl_q4_zero
    return vload_half(0, AT(half, block)) * (float)(code - 7);
#endif
    return vload_half(0, AT(half, block)) * (float)(code - 8);
}

/* f16 goes through a copy: PoCL 3.1 takes the pointer of vload_half16 for one aligned to 16 bytes and dies of a row at 8 (head_dim 20). By
 * eights, because it reads the upper half of a vload_half16 in two pieces. */
static inline float4 halves4(global const ushort *from)
{
    ushort4 bits = vload4(0, from);
    return vload_half4(0, (private const half *)&bits);
}
static inline float8 halves8(global const ushort *from)
{
    ushort8 bits = vload8(0, from);
    return vload_half8(0, (private const half *)&bits);
}
static inline float16 halves16(global const ushort *from) { return (float16)(halves8(from), halves8(from + 8)); }
#define LOADERS(N)                                                                                                               \
    static inline float##N load##N##_1(global const uchar *row, int d, float scale) { return vload##N(0, AT(float, row) + d); }  \
    static inline float##N load##N##_2(global const uchar *row, int d, float scale)                                              \
    {                                                                                                                            \
        return halves##N(AT(ushort, row) + d);                                                                                   \
    }                                                                                                                            \
    static inline float##N load##N##_3(global const uchar *row, int d, float scale)                                              \
    {                                                                                                                            \
        return as_float##N(convert_uint##N(vload##N(0, AT(ushort, row) + d)) << 16);                                             \
    }                                                                                                                            \
    static inline float##N load##N##_4(global const uchar *row, int d, float scale)                                              \
    {                                                                                                                            \
        return scale * convert_float##N(vload##N(0, AT(char, row) + d));                                                         \
    }                                                                                                                            \
    static inline float##N load##N##_5(global const uchar *row, int d, float scale)                                              \
    {                                                                                                                            \
        global const uchar *block = row + d / 32 * 34;                                                                           \
        return vload_half(0, AT(half, block)) * convert_float##N(vload##N(0, AT(char, block) + 2 + d % 32));                     \
    }                                                                                                                            \
    static inline float##N load##N##_6(global const uchar *row, int d, float scale)                                              \
    {                                                                                                                            \
        global const uchar *block = row + d / 32 * 18;                                                                           \
        int##N codes = convert_int##N(vload##N(0, block + 2 + d % 16)) >> (d % 32 / 16 * 4) & 15;                                \
        return vload_half(0, AT(half, block)) * convert_float##N(codes - 8);                                                     \
    }                                                                                                                            \
    static inline float##N load##N##_7(global const uchar *row, int d, float scale)                                              \
    {                                                                                                                            \
        return scale * from_e4m3_##N(convert_int##N(vload##N(0, row + d)));                                                      \
    }                                                                                                                            \
    static inline float##N load##N##_8(global const uchar *row, int d, float scale)                                              \
    {                                                                                                                            \
        return scale * from_e5m2_##N(convert_int##N(vload##N(0, row + d)));                                                      \
    }
LOADERS(4)
LOADERS(16)

/* Outputs: f32, f16, bf16, rounded to nearest even. */
#define BF16_ROUNDER(U, S, N)                                                                                                    \
    static inline S to_bf16_##N(U bits)                                                                                          \
    {                                                                                                                            \
        U nan = (bits & 0x7fffffff) > 0x7f800000 ? (bits >> 16) | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;               \
        return GLUE(convert_, S)(nan & 0xffff);                                                                                  \
    }
BF16_ROUNDER(uint, ushort, 1)
BF16_ROUNDER(uint16, ushort16, 16)

static inline void store1_1(global uchar *row, int d, float x) { ((global float *)row)[d] = x; }
static inline void store1_2(global uchar *row, int d, float x) { vstore_half_rte(x, d, (global half *)row); }
static inline void store1_3(global uchar *row, int d, float x) { ((global ushort *)row)[d] = to_bf16_1(as_uint(x)); }
static inline void store16_1(global uchar *row, int d, float16 x) { vstore16(x, 0, (global float *)row + d); }
static inline void store16_2(global uchar *row, int d, float16 x) { vstore_half16_rte(x, 0, (global half *)row + d); }
static inline void store16_3(global uchar *row, int d, float16 x) { vstore16(to_bf16_16(as_uint16(x)), 0, (global ushort *)row + d); }

/* LOAD1(TYPE, row, d, scale), STORE1(TYPE, row, d, x): one element, whether the compiler knows the type or not. */
static inline float load1_any(int type, global const uchar *row, int d, float scale)
{
    switch (type) {
    case TYPE_F32: return load1_1(row, d, scale);
    case TYPE_F16: return load1_2(row, d, scale);
    case TYPE_BF16: return load1_3(row, d, scale);
    case TYPE_I8: return load1_4(row, d, scale);
    case TYPE_Q8_0: return load1_5(row, d, scale);
    case TYPE_Q4_0: return load1_6(row, d, scale);
    case TYPE_F8_E4M3: return load1_7(row, d, scale);
    default: return load1_8(row, d, scale);
    }
}

static inline void store1_any(int type, global uchar *row, int d, float x)
{
    if (type == TYPE_F32) store1_1(row, d, x);
    else if (type == TYPE_F16) store1_2(row, d, x);
    else store1_3(row, d, x);
}

#if RUN_TIME
#define LOAD1(type, row, d, scale) load1_any(type, row, d, scale)
#define STORE1(type, row, d, x) store1_any(type, row, d, x)
#else
#define LOAD1(type, row, d, scale) GLUE(load1_, type)(row, d, scale)
#define STORE1(type, row, d, x) GLUE(store1_, type)(row, d, x)
#endif

/* ---- functions: the constants and the order of src/cpu/simd_functions.h -----------
 * e^x for x <= 0: n = rint(x / ln 2) by adding 1.5 * 2^23 (the integer is left in the low bits), r = x - n ln 2 in two steps, the first exact, a
 * polynomial of degree 6 with constant term 1, n into the exponent. 1.03 ulp; exactly 1 at 0; exactly 0 below ln 2^-126; NaN stays NaN, whatever
 * its payload (a select: fmax would swallow it).
 * softcap, c tanh(x / c): below 0.625 c a polynomial, beyond it c (1 - e Q(e)), e = e^(-2 |x / c|), left out where no lane of a vector needs it (N = 1: both,
 * work-items would part). 1 / c in two steps: where denormals are flushed a large c has none. */
#define SOFTCAP_FAR 0.390625f
#define SOFTCAP_FIRST(cap) ((cap) > 0x1p125f ? 0.0625f : 1.0f)
#define SOFTCAP_THEN(cap) ((cap) > 0x1p125f ? 16.0f / (cap) : fmin(1.0f / (cap), 0x1p127f))
#define ROUNDER 12582912.0f
#define LOWEST -87.33654f
#define MATH(F, I, N, NEAR)                                                                                                     \
    static inline F exp_##N(F x)                                                                                                \
    {                                                                                                                           \
        F z = fma(x, (F)LOG2E, (F)ROUNDER), n = z - (F)ROUNDER;                                                                 \
        F r = fma(n, (F)-1.42860677e-6f, fma(n, (F)-0.693145752f, x));                                                          \
        F y = fma(fma((F)1.38436537e-3f, r, (F)8.3741555e-3f), r, (F)4.16680016e-2f);                                           \
        y = fma(fma(y, r, (F)1.66664317e-1f), r, (F)4.9999994e-1f);                                                             \
        y = fma(fma(y, r, (F)1.0f), r, (F)1.0f);                                                                                \
        I step = x >= (F)LOWEST ? GLUE(as_, I)(z) << 23 : (I)0;                                                                 \
        y = GLUE(as_, F)(GLUE(as_, I)(y) + step);                                                                               \
        return x < (F)LOWEST ? (F)0.0f : y;                                                                                     \
    }                                                                                                                           \
    static inline F softcap_##N(F x, float cap)                                                                                 \
    {                                                                                                                           \
        F s = x * (F)SOFTCAP_FIRST(cap) * (F)SOFTCAP_THEN(cap), z = s * s;                                                      \
        F y = fma(fma((F)-5.70498872745e-3f, z, (F)2.06390887954e-2f), z, (F)-5.37397155531e-2f);                               \
        y = fma(fma(y, z, (F)1.33314422036e-1f), z, (F)-3.33332819422e-1f);                                                     \
        y = fma(y * z, x, x);                                                                                                   \
        if (NEAR) return y;                                                                                                     \
        F e = exp_##N(fabs(s) * (F)-2.0f), q = fma((F)-7.0736539e-1f, e, (F)1.5185298f);                                        \
        q = fma(fma(q, e, (F)-1.8958491f), e, (F)1.9869802f);                                                                   \
        q = fma(fma(q, e, (F)-1.9991049f), e, (F)1.9999703f);                                                                   \
        q = fma(fma(q, e, (F)-1.9999996f), e, (F)1.0f);                                                                         \
        return z < (F)SOFTCAP_FAR ? y : copysign((F)cap * q, x);                                                                \
    }
MATH(float, int, 1, false)
MATH(float4, int4, 4, !any(z >= (float4)SOFTCAP_FAR))
MATH(float8, int8, 8, !any(z >= (float8)SOFTCAP_FAR))
MATH(float16, int16, 16, !any(z >= (float16)SOFTCAP_FAR))

/* ln x for x > 0, at most 2 ulp; 0 gives -infinity, NaN and infinity pass. x = 2^e * (1 + f), 1 + f in [sqrt(1/2), sqrt(2)). */
static inline float log_1(float x)
{
    int bits = as_int(x), up = (bits & 0x007fffff) > 0x3504f3; /* mantissa above sqrt(2) */
    float e = (float)((bits >> 23) - 127 + up), f = as_float((bits & 0x007fffff) | ((127 - up) << 23)) - 1.0f, z = f * f;
    float y = fma(7.0376836292e-2f, f, -1.1514610310e-1f);
    y = fma(fma(y, f, 1.1676998740e-1f), f, -1.2420140846e-1f);
    y = fma(y, f, 1.4249322787e-1f);
    y = fma(y, f, -1.6668057665e-1f);
    y = fma(y, f, 2.0000714765e-1f);
    y = fma(y, f, -2.4999993993e-1f);
    y = fma(y, f, 3.3333331174e-1f);
    y = y * f * z;
    y = fma(e, -2.12194440e-4f, y);
    y = fma(z, -0.5f, y);
    y = fma(e, 0.693359375f, f + y);
    y = x < INFINITY ? y : x;
    return x == 0 ? -INFINITY : y;
}

/* The larger of two, one instruction; a NaN in b is dropped: e^(NaN - m) brings it back. */
#define LARGER(a, b) ((b) > (a) ? (b) : (a))

/* The tree of src/cpu/lanes.inc.h: within each four lanes (0 + 2) + (1 + 3), then fours (0 + 1) + (2 + 3). */
static inline float total16(float16 x)
{
    float8 y = (float8)(x.s01, x.s45, x.s89, x.scd) + (float8)(x.s23, x.s67, x.sab, x.sef);
    float4 z = y.even + y.odd;
    return (z.s0 + z.s1) + (z.s2 + z.s3);
}

static inline float largest16(float16 x)
{
    float8 y = LARGER(x.lo, x.hi);
    float4 z = LARGER(y.lo, y.hi);
    return LARGER(LARGER(z.s0, z.s1), LARGER(z.s2, z.s3));
}

#define LANES16 ((int16)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15))

/* ---- what a query sees -------------------------------------------------------- */

/* All that decides a row's logits beside q and k. */
struct row {
    int begin, end;     /* keys visible by position, length and key range; 0, 0 for none */
    int kv_len;
    long own;           /* index of the key at the query's own position: distance to key j is own - j */
    long mask, bias;    /* byte offset of the row of mask and bias */
    float slope;
};

static inline struct row row_of(struct strides st, struct sequence s, int b, int h, int i, global const int *q_positions,
                                global const uchar *key_range, global const uchar *alibi, struct problem problem)
{
    struct row row;
    long position = s.flags & 1 ? (long)q_positions[s.q_index + i] : s.position + i;
    long own = position - s.first, from = 0, to = s.kv_len;
#ifdef MUTANT_cl_causal_off_by_one
    if (CAUSAL) to = min(to, own + 2);
#else
    if (CAUSAL) to = min(to, own + 1);
#endif
    if (WINDOW_RIGHT >= 0) to = min(to, own + WINDOW_RIGHT + 1);
#ifdef MUTANT_cl_window_off_by_one
    if (WINDOW_LEFT >= 0) from = max(from, own - WINDOW_LEFT + 1);
#else
    if (WINDOW_LEFT >= 0) from = max(from, own - WINDOW_LEFT);
#endif
    if (KEY_RANGE) {
        global const int *range = AT(int, key_range + query_offset(st.key_range, s, b, 0, i));
        from = max(from, (long)range[0]);
        to = min(to, (long)range[1]);
    }
#ifdef MUTANT_cl_last_key
    to = min(to, (long)s.kv_len - 1);
#endif
    row.begin = from < to ? (int)from : 0;
    row.end = from < to ? (int)to : 0;
    row.kv_len = s.kv_len;
    row.own = own;
    row.mask = query_offset(st.mask, s, b, h, i);
    row.bias = query_offset(st.bias, s, b, h, i);
    row.slope = ALIBI ? AT(float, alibi + st.alibi.offset)[h] : 0;
    return row;
}

/* Of an item with some of the keys a row sees those alone; others have all that it sees. */
static inline struct row row_in(struct row row, struct work_item item)
{
    row.begin = max(row.begin, item.kv_begin);
#ifndef MUTANT_cl_part_end
    row.end = min(row.end, item.kv_end);
#endif
    if (row.begin >= row.end) row.begin = row.end = 0;
    return row;
}

/* Is key j let through by the mask? */
static inline bool mask_shows(global const uchar *mask, struct row row, int j, struct problem problem)
{
#ifdef MUTANT_cl_mask_off_by_one
    j -= j > 0;
#endif
    if (MASK_BITS) return mask[row.mask + j / 8] >> (j % 8) & 1;
    return !MASK_BOOL || mask[row.mask + j] != 0;
}

/* Rules 2 to 5 of doc/semantics.md for key j: x = scale * q.k comes in, the natural logit goes out, -infinity where hidden. *capped is stage 1. */
static inline float logit1(float x, int j, struct row row, global const uchar *mask, global const uchar *bias, float *capped,
                           struct problem problem)
{
    bool visible = j >= row.begin && j < row.end && mask_shows(mask, row, j, problem);
    float added = BIAS ? LOAD1(BIAS_TYPE, bias + row.bias, j, 1.0f) : 0;
    visible = visible && added != -INFINITY;
    if (BIAS && BIAS_FIRST) x += added;
    if (SOFTCAP_BITS) x = softcap_1(x, SOFTCAP);
    *capped = x;
    if (ALIBI) x = fma(-row.slope, fabs((float)(row.own - j)), x);
    if (BIAS && !BIAS_FIRST) x += added;
#ifdef MUTANT_cl_softcap_after_mask
    if (SOFTCAP_BITS && !visible) return -SOFTCAP;
#endif
    return visible ? x : -INFINITY;
}

#if !RUN_TIME /* vectors are for rows that are compiled for their problem */
/* The same for keys j ... j + 15, j a multiple of 16. Rows of mask and bias end at kv_len: nothing behind is read. */
static inline float16 logits16(float16 x, int j, struct row row, global const uchar *mask, global const uchar *bias)
{
    int16 key = j + LANES16, visible = (key >= row.begin) & (key < row.end);
    bool whole = j + 16 <= row.kv_len;
#if MASK_BITS
    uint bits = mask[row.mask + j / 8];
    if (j + 8 < row.kv_len) bits |= (uint)mask[row.mask + j / 8 + 1] << 8;
    visible &= ((int16)(int)bits >> LANES16 & 1) != 0;
#elif MASK_BOOL
    uchar16 shows = 0;
    if (whole) shows = vload16(0, mask + row.mask + j);
    else {
        uchar one[16] ALIGNED;
        for (int c = 0; c < 16; c++) one[c] = j + c < row.kv_len ? mask[row.mask + j + c] : 0;
        shows = vload16(0, one);
    }
    visible &= convert_int16(shows) != 0;
#endif
#if BIAS
    float16 added;
    if (whole) added = GLUE(load16_, BIAS_TYPE)(bias + row.bias, j, 1.0f);
    else {
        float one[16] ALIGNED;
        for (int c = 0; c < 16; c++) one[c] = j + c < row.kv_len ? GLUE(load1_, BIAS_TYPE)(bias + row.bias, j + c, 1.0f) : 0;
        added = vload16(0, one);
    }
    visible &= added != (float16)-INFINITY;
#if BIAS_FIRST
    x += added;
#endif
#endif
#if SOFTCAP_BITS
    x = softcap_16(x, SOFTCAP);
#endif
#if ALIBI
    /* own - key fits into an int wherever the key is visible: both lie in the sequence, but for queries without a key of their own */
    float16 distance = fabs(convert_float16(key) - (float16)(float)row.own);
    if (row.own < 0x400000 && row.own > -0x400000) distance = convert_float16(abs((int16)(int)row.own - key));
    x = fma((float16)-row.slope, distance, x);
#endif
#if BIAS && !BIAS_FIRST
    x += added;
#endif
    return visible ? x : (float16)-INFINITY;
}
#endif

/* ---- the end of a row ---------------------------------------------------------- */

/* m and l of all keys of row (b, h, i): takes the sink in, writes lse, keeps m and l for the scores, and gives what its accumulators are to be multiplied with and then
 * divided by. l = 0: the row saw nothing, o is +0. writes: one of the work-items that share the row. */
static inline float2 end_row_in(global float *work, float m, float l, struct strides st, struct sequence s, int b, int h, int i, global uchar *lse,
                                global const uchar *sinks, bool writes, struct problem problem)
{
    float keep = 1.0f, all_m = m, all_l = l, sink = SINKS ? AT(float, sinks + st.sinks.offset)[h] : -INFINITY;
    if (SINKS && l != 0 && sink != -INFINITY) {
        all_m = LARGER(m, sink);
        keep = exp_1(m - all_m);
        all_l = l * keep + exp_1(sink - all_m);
#ifdef MUTANT_cl_sink_lost
        all_l = l * keep;
#endif
    }
    if (WRITE_LSE) {
        float written = LSE_WITHOUT_SINK ? (l != 0 ? m + log_1(l) : -INFINITY) : l != 0 ? all_m + log_1(all_l) : sink;
#ifdef MUTANT_cl_empty_lse
        if (l == 0) written = 0;
#endif
#ifdef MUTANT_cl_lse_base
        written *= LOG2E;
#endif
        if (LSE_BASE2 && fabs(written) < INFINITY) written = fma(written, LOG2E, written * LOG2E_REST);
        if (writes) ((global float *)(lse + query_offset(st.lse, s, b, h, i)))[0] = written;
    }
    if (KEEP_SUMS && writes) {
        global float *kept = (global float *)((global uchar *)work + st.kept.offset + (s.q_index + i) * st.kept.token + h * st.kept.head);
        kept[0] = all_m;
        kept[1] = all_l;
    }
    return (float2)(keep, all_l);
}
/* The workspace, where sums are kept for the scores, is the kernel's own argument `work` wherever a row ends. */
#define end_row(m, l, st, s, b, h, i, lse, sinks, writes, problem) end_row_in(work, m, l, st, s, b, h, i, lse, sinks, writes, problem)

/* A partial result's (m, l), behind all accumulators. */
static inline global float *part_sums(global float *work, long part_rows, long r, struct problem problem)
{
    return work + part_rows * V_HEAD_DIM + 2 * r;
}
