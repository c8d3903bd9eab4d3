/* SPDX-License-Identifier: MIT
 * dtype.c - storage types: sizes, names, and conversion to and from f32 and double.
 * Plain integer arithmetic, exact, independent of the rounding mode and of flushing: the definition, not the fast way. The vector
 * conversions of the wings are compared with it.
 */
#include "dtype.h"
#include "mutant.h"
#include <math.h>
#include <string.h>

enum { BLOCK = 32, Q8_0_BYTES = 2 + BLOCK, Q4_0_BYTES = 2 + BLOCK / 2 };

/* ---- the table of types ---------------------------------------------------- */

static const struct {
    const char *name;
    int32_t block, bytes, alignment; /* elements per block, bytes per block, alignment of the storage */
} types[] = {
    [HEED_F32] = {"f32", 1, 4, 4},
    [HEED_F16] = {"f16", 1, 2, 2},
    [HEED_BF16] = {"bf16", 1, 2, 2},
    [HEED_I8] = {"i8", 1, 1, 1},
    [HEED_Q8_0] = {"q8_0", BLOCK, Q8_0_BYTES, 2},
    [HEED_Q4_0] = {"q4_0", BLOCK, Q4_0_BYTES, 2},
    [HEED_F8_E4M3] = {"f8_e4m3", 1, 1, 1},
    [HEED_F8_E5M2] = {"f8_e5m2", 1, 1, 1},
};
enum { TYPE_COUNT = sizeof types / sizeof *types };

bool type_known(heed_type type) { return (int)type > 0 && (int)type < TYPE_COUNT; }

const char *type_name(heed_type type)
{
    if (type == HEED_TYPE_DEFAULT) return "default";
    return type_known(type) ? types[type].name : "unknown type";
}

bool type_from_name(const char *name, size_t length, heed_type *type)
{
    for (int t = 1; t < TYPE_COUNT; t++)
        if (strlen(types[t].name) == length && memcmp(types[t].name, name, length) == 0) {
            *type = (heed_type)t;
            return true;
        }
    return false;
}

int32_t type_block(heed_type type) { return types[type].block; }

int32_t type_block_bytes(heed_type type) { return types[type].bytes; }

bool type_is_block(heed_type type) { return types[type].block > 1; }

int64_t type_row_bytes(heed_type type, int64_t elements)
{
    return (elements + types[type].block - 1) / types[type].block * types[type].bytes;
}

int32_t type_alignment(heed_type type) { return types[type].alignment; }

int32_t type_stride_bytes(heed_type type) { return type_is_block(type) ? 1 : types[type].bytes; }

/* ---- small floats ------------------------------------------------------------ */

static uint32_t float_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Magnitude of a small float (man_bits of mantissa, a bias) whose value is mantissa * 2^exponent, mantissa < 2^53: nearest, ties to
 * even, denormals kept. The exponent field simply grows on overflow; the caller compares the code with its infinity. */
static uint64_t pack(uint64_t mantissa, int exponent, int man_bits, int bias)
{
    if (mantissa == 0) return 0;
    int top = exponent + 63 - __builtin_clzll(mantissa);     /* the value lies in [2^top, 2^(top + 1)) */
    int last = (top > 1 - bias ? top : 1 - bias) - man_bits; /* weight of the last kept bit */
    int shift = last - exponent;
    uint64_t kept;
    if (shift <= 0) {
        kept = mantissa << -shift;
    } else if (shift > 60) {
        kept = 0; /* less than half of the last bit */
    } else {
        uint64_t rest = mantissa & ((UINT64_C(1) << shift) - 1), half = UINT64_C(1) << (shift - 1);
        kept = mantissa >> shift;
        if (rest > half || (rest == half && ((kept & 1) || MUTANT(dtype_ties_away)))) kept++;
    }
    /* A normal number's hidden bit is in `kept`: it adds one to the field below, as does a carry of the rounding. */
    return kept + ((uint64_t)(last + man_bits + bias - 1) << man_bits);
}

/* pack() of a finite float's magnitude. */
static uint64_t pack_float(uint32_t magnitude, int man_bits, int bias)
{
    uint32_t field = magnitude >> 23, man = magnitude & 0x7fffffu;
    if (field) man |= 0x800000u;
    return pack(man, (int)(field ? field : 1) - 150, man_bits, bias);
}

/* Magnitude bits of a small float as float bits; all ones in the exponent are the caller's business. */
static uint32_t unpack(uint32_t code, int man_bits, int bias)
{
    uint32_t field = code >> man_bits, man = code & ((1u << man_bits) - 1);
    if (field) return (uint32_t)((int)field + 127 - bias) << 23 | man << (23 - man_bits);
    if (man == 0) return 0;
    int top = 31 - __builtin_clz(man); /* denormal here, normal as f32 */
    return (uint32_t)(top + 1 - bias - man_bits + 127) << 23 | (man << (23 - top) & 0x7fffffu);
}

/* Without branches, so that rows become vector loops; without denormal arithmetic, so that a caller's mode does not matter: a denormal with
 * a hidden bit put in front lies in [2^-14, 2^-13), and taking 2^-14 off again is exact. */
static inline float from_f16(uint16_t x)
{
    uint32_t sign = (uint32_t)(x & 0x8000u) << 16, code = x & 0x7fffu, wide = code << 13;
    uint32_t normal = wide + (112u << 23), denormal = float_bits(float_of(wide + (113u << 23)) - 0x1p-14f);
    uint32_t small = 0u - (uint32_t)(code < 0x400u), large = 0u - (uint32_t)(code >= 0x7c00u), nan = 0u - (uint32_t)(code > 0x7c00u);
    uint32_t finite = (normal & ~small) | (denormal & small), special = wide | 0x7f800000u | (nan & 0x400000u); /* NaN becomes quiet */
    return float_of(sign | (finite & ~large) | (special & large));
}

float f16_to_f32(uint16_t x) { return from_f16(x); }

uint16_t f32_to_f16(float x)
{
    uint32_t bits = float_bits(x), magnitude = bits & 0x7fffffffu;
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
    if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | (magnitude >> 13 & 0x3ffu));
    if (magnitude == 0x7f800000u) return sign | 0x7c00u;
    uint64_t code = pack_float(magnitude, 10, 15);
    return (uint16_t)(sign | (code < 0x7c00u ? code : 0x7c00u));
}

static inline float from_bf16(uint16_t x) { return float_of((uint32_t)x << 16); }

float bf16_to_f32(uint16_t x) { return from_bf16(x); }

uint16_t f32_to_bf16(float x)
{
    uint32_t bits = float_bits(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16); /* the carry runs into the exponent, up to infinity */
}

static inline float from_e4m3(uint8_t x)
{
    uint32_t sign = (uint32_t)(x & 0x80u) << 24, code = x & 0x7fu;
    if (code == 0x7fu) return float_of(sign | 0x7fc00000u); /* its only NaN; it has no infinity */
    return float_of(sign | unpack(code, 3, 7));
}

float f8_e4m3_to_f32(uint8_t x) { return from_e4m3(x); }

uint8_t f32_to_f8_e4m3(float x)
{
    uint32_t bits = float_bits(x), magnitude = bits & 0x7fffffffu;
    uint8_t sign = (uint8_t)(bits >> 24 & 0x80u);
    if (magnitude >= 0x7f800000u) return sign | 0x7fu;
    uint64_t code = pack_float(magnitude, 3, 7);
    if (MUTANT(dtype_f8_no_saturation) && code > 0x7eu) return sign | 0x7fu;
    return (uint8_t)(sign | (code < 0x7eu ? code : 0x7eu));
}

static inline float from_e5m2(uint8_t x) { return from_f16((uint16_t)(x << 8)); /* the upper half of an f16 */ }

float f8_e5m2_to_f32(uint8_t x) { return from_e5m2(x); }

uint8_t f32_to_f8_e5m2(float x)
{
    uint32_t bits = float_bits(x), magnitude = bits & 0x7fffffffu;
    uint8_t sign = (uint8_t)(bits >> 24 & 0x80u);
    if (magnitude > 0x7f800000u) return sign | 0x7eu;
    if (magnitude == 0x7f800000u) return sign | 0x7cu;
    uint64_t code = pack_float(magnitude, 2, 15);
    return (uint8_t)(sign | (code < 0x7bu ? code : 0x7bu));
}

/* ---- rows -------------------------------------------------------------------- */

static uint16_t half_at(const unsigned char *from)
{
    uint16_t x;
    memcpy(&x, from, sizeof x);
    return x;
}

/* Element i of a q4_0 block: byte i holds element i in its low and element i + 16 in its high half. */
static int q4_element(const unsigned char *codes, int i) { return (i < BLOCK / 2 ? codes[i] & 15 : codes[i - BLOCK / 2] >> 4) - 8; }

/* An element is code * factor, a product that is exact in double: the code of element i, and the factor of its block (of the row for i8
 * and f8, 1 for plain floats). Inlined into a loop per type. */
#define INLINE __attribute__((always_inline)) static inline

INLINE float code_at(heed_type type, const unsigned char *row, int32_t i)
{
    const unsigned char *block = row + (size_t)(i / BLOCK) * (type == HEED_Q8_0 ? Q8_0_BYTES : Q4_0_BYTES);
    float x;
    switch (type) {
    case HEED_F32:
        memcpy(&x, row + (size_t)i * 4, sizeof x);
        return x;
    case HEED_F16:
        return from_f16(half_at(row + (size_t)i * 2));
    case HEED_BF16:
        return from_bf16(half_at(row + (size_t)i * 2));
    case HEED_I8:
        return (int8_t)row[i];
    case HEED_F8_E4M3:
        return from_e4m3(row[i]);
    case HEED_F8_E5M2:
        return from_e5m2(row[i]);
    case HEED_Q8_0:
        return (int8_t)block[2 + i % BLOCK];
    case HEED_Q4_0:
        return (float)q4_element(block + 2, i % BLOCK);
    default:
        return NAN;
    }
}

INLINE float factor_at(heed_type type, const unsigned char *row, float scale, int32_t i)
{
    if (type == HEED_Q8_0) return from_f16(half_at(row + (size_t)(i / BLOCK) * Q8_0_BYTES));
    if (type == HEED_Q4_0) return from_f16(half_at(row + (size_t)(i / BLOCK) * Q4_0_BYTES));
    return type == HEED_I8 || type == HEED_F8_E4M3 || type == HEED_F8_E5M2 ? scale : 1;
}

/* f32: both are floats, so there is one rounding, of the product. */
INLINE void typed_to_f32(heed_type type, const unsigned char *row, float scale, float *to, int32_t n)
{
    for (int32_t first = 0; first < n; first += BLOCK) {
        const float factor = factor_at(type, row, scale, first);
        const int32_t end = n - first < BLOCK ? n : first + BLOCK;
        for (int32_t i = first; i < end; i++) to[i] = code_at(type, row, i) * factor;
    }
}

INLINE void typed_to_f64(heed_type type, const unsigned char *row, float scale, double *to, int32_t n)
{
    for (int32_t first = 0; first < n; first += BLOCK) {
        const double factor = factor_at(type, row, scale, first);
        const int32_t end = n - first < BLOCK ? n : first + BLOCK;
        for (int32_t i = first; i < end; i++) to[i] = code_at(type, row, i) * factor;
    }
}

/* The choice of type is made once per row: CALL with each type as a constant. */
#define FOR_TYPE(type, CALL) \
    switch (type) {          \
    case HEED_F32:           \
        CALL(HEED_F32);      \
        break;               \
    case HEED_F16:           \
        CALL(HEED_F16);      \
        break;               \
    case HEED_BF16:          \
        CALL(HEED_BF16);     \
        break;               \
    case HEED_I8:            \
        CALL(HEED_I8);       \
        break;               \
    case HEED_Q8_0:          \
        CALL(HEED_Q8_0);     \
        break;               \
    case HEED_Q4_0:          \
        CALL(HEED_Q4_0);     \
        break;               \
    case HEED_F8_E4M3:       \
        CALL(HEED_F8_E4M3);  \
        break;               \
    case HEED_F8_E5M2:       \
        CALL(HEED_F8_E5M2);  \
        break;               \
    default:                 \
        break;               \
    }

void row_to_f32(heed_type type, const void *from, float scale, float *to, int32_t n)
{
#define CALL(TYPE) typed_to_f32(TYPE, from, scale, to, n)
    FOR_TYPE(type, CALL)
#undef CALL
}

void row_to_f64(heed_type type, const void *from, float scale, double *to, int32_t n)
{
#define CALL(TYPE) typed_to_f64(TYPE, from, scale, to, n)
    FOR_TYPE(type, CALL)
#undef CALL
}

static bool all_finite(const float *x, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        if (!isfinite(x[i])) return false;
    return true;
}

static float largest(const float *x, int32_t n) /* the value of largest magnitude, the first of equals */
{
    float value = 0, most = 0; /* most: or clang 19 at -O3 loses the first fabs of value, and the largest where it is negative and comes first */
    for (int32_t i = 0; i < n; i++)
        if (fabsf(x[i]) > most) {
            value = x[i];
            most = fabsf(value);
        }
    return value;
}

/* rint(x / d), ties to even, within [low, high]: a denormal d is coarse, so that quotients may pass the range. */
static int quotient(float x, float d, int low, int high)
{
    if (d == 0) return 0;
    float q = rintf(x / d);
    return q < (float)low ? low : q > (float)high ? high : (int)q;
}

/* The scale of a block as f16; NaN where the block holds NaN or infinity or the scale does not fit. */
static uint16_t block_scale(const float *x, float d)
{
    uint16_t half = f32_to_f16(d);
    return !all_finite(x, BLOCK) || (half & 0x7fffu) >= 0x7c00u ? 0x7e00u : half;
}

static void q8_block(const float *x, unsigned char *block)
{
    const bool finite = all_finite(x, BLOCK);
    const float d = finite ? fabsf(largest(x, BLOCK)) / 127 : 0;
    const uint16_t half = block_scale(x, d);
    memcpy(block, &half, sizeof half);
    for (int i = 0; i < BLOCK; i++) block[2 + i] = (unsigned char)(int8_t)quotient(x[i], d, -127, 127);
}

static void q4_block(const float *x, unsigned char *block)
{
    const bool finite = all_finite(x, BLOCK);
    const float d = finite ? largest(x, BLOCK) / -8 : 0;
    const uint16_t half = block_scale(x, d);
    memcpy(block, &half, sizeof half);
    for (int i = 0; i < BLOCK / 2; i++) {
        int low = quotient(x[i], d, -8, 7) + 8, high = quotient(x[i + BLOCK / 2], d, -8, 7) + 8;
        block[2 + i] = (unsigned char)(low | high << 4);
    }
}

/* i8, f8: the row's scale d, NaN where the row holds NaN or infinity. */
static float row_scale(const float *x, int32_t n, float type_maximum)
{
    return all_finite(x, n) ? fabsf(largest(x, n)) / type_maximum : NAN;
}

static void i8_row(const float *from, unsigned char *to, float *scale, int32_t n)
{
    const float d = row_scale(from, n, 127);
    for (int32_t i = 0; i < n; i++) to[i] = (unsigned char)(int8_t)(isnan(d) ? 0 : quotient(from[i], d, -127, 127));
    if (scale) *scale = d;
}

static void f8_row(heed_type type, const float *from, unsigned char *to, float *scale, int32_t n)
{
    const bool e4m3 = type == HEED_F8_E4M3;
    const float d = scale ? row_scale(from, n, e4m3 ? 448.0f : 57344.0f) : 1;
    for (int32_t i = 0; i < n; i++) {
        float x = d == 0 ? 0 : from[i] / d;
        to[i] = e4m3 ? f32_to_f8_e4m3(x) : f32_to_f8_e5m2(x);
    }
    if (scale) *scale = d;
}

void row_from_f32(heed_type type, const float *from, void *to, float *scale, int32_t n)
{
    unsigned char *row = to;
    switch (type) {
    case HEED_F32:
        memcpy(to, from, (size_t)n * sizeof *from);
        break;
    case HEED_F16:
    case HEED_BF16:
        for (int32_t i = 0; i < n; i++) {
            uint16_t half = type == HEED_F16 ? f32_to_f16(from[i]) : f32_to_bf16(from[i]);
            memcpy(row + (size_t)i * 2, &half, sizeof half);
        }
        break;
    case HEED_I8:
        i8_row(from, row, scale, n);
        break;
    case HEED_F8_E4M3:
    case HEED_F8_E5M2:
        f8_row(type, from, row, scale, n);
        break;
    case HEED_Q8_0:
        for (int32_t i = 0; i + BLOCK <= n; i += BLOCK) q8_block(from + i, row + (size_t)(i / BLOCK) * Q8_0_BYTES);
        break;
    case HEED_Q4_0:
        for (int32_t i = 0; i + BLOCK <= n; i += BLOCK) q4_block(from + i, row + (size_t)(i / BLOCK) * Q4_0_BYTES);
        break;
    default:
        break;
    }
}

void store_output(heed_type type, void *row, int32_t index, double value)
{
    const bool f16 = type == HEED_F16;
    if (type == HEED_F32) {
        float x = (float)value;
        memcpy((unsigned char *)row + (size_t)index * 4, &x, sizeof x);
        return;
    }
    uint16_t code, sign = signbit(value) ? 0x8000u : 0;
    const uint16_t infinity = f16 ? 0x7c00u : 0x7f80u;
    if (isnan(value)) {
        code = f16 ? 0x7e00u : 0x7fc0u;
    } else if (isinf(value)) {
        code = infinity;
    } else {
        /* Straight from double: by way of f32 a value just beside a tie would be rounded twice. */
        int exponent;
        uint64_t mantissa = (uint64_t)ldexp(frexp(fabs(value), &exponent), 53);
        uint64_t packed = pack(mantissa, exponent - 53, f16 ? 10 : 7, f16 ? 15 : 127);
        code = packed < infinity ? (uint16_t)packed : infinity;
    }
    code |= sign;
    memcpy((unsigned char *)row + (size_t)index * 2, &code, sizeof code);
}
