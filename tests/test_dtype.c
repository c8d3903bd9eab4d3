/* SPDX-License-Identifier: MIT
 * test_dtype.c - storage types against their definitions: every half, every 8-bit float, ties, blocks, and the text of numbers.
 */
#include "dtype.h"
#include "inner.h"
#include <criterion/criterion.h>
#include <math.h>

static float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* ---- small floats: one table of formats -------------------------------------------- */

struct format {
    const char *name;
    int man_bits, bias, bits;
    uint32_t largest; /* code of the largest finite value */
    bool saturates;   /* beyond it: that code; else infinity */
    bool has_infinity;
    float (*decode)(uint32_t);
    uint32_t (*encode)(float);
};

static float decode_f16(uint32_t x) { return f16_to_f32((uint16_t)x); }
static float decode_bf16(uint32_t x) { return bf16_to_f32((uint16_t)x); }
static float decode_e4m3(uint32_t x) { return f8_e4m3_to_f32((uint8_t)x); }
static float decode_e5m2(uint32_t x) { return f8_e5m2_to_f32((uint8_t)x); }
static uint32_t encode_f16(float x) { return f32_to_f16(x); }
static uint32_t encode_bf16(float x) { return f32_to_bf16(x); }
static uint32_t encode_e4m3(float x) { return f32_to_f8_e4m3(x); }
static uint32_t encode_e5m2(float x) { return f32_to_f8_e5m2(x); }

static const struct format formats[] = {
    {"f16", 10, 15, 16, 0x7bff, false, true, decode_f16, encode_f16},
    {"bf16", 7, 127, 16, 0x7f7f, false, true, decode_bf16, encode_bf16},
    {"f8_e4m3", 3, 7, 8, 0x7e, true, false, decode_e4m3, encode_e4m3},
    {"f8_e5m2", 2, 15, 8, 0x7b, true, true, decode_e5m2, encode_e5m2},
};
#define EACH_FORMAT(f)                              \
    const struct format *f = formats;               \
    f < formats + sizeof formats / sizeof *formats; \
    f++

/* The definition: (-1)^s 2^(e - bias) 1.m, or 2^(1 - bias) 0.m. */
static double value_of(const struct format *f, uint32_t code)
{
    uint32_t field = code >> f->man_bits, man = code & ((1u << f->man_bits) - 1);
    if (field == 0) return ldexp(man, 1 - f->bias - f->man_bits);
    return ldexp((double)((1u << f->man_bits) + man), (int)field - f->bias - f->man_bits);
}

Test(dtype, every_code_decodes_to_its_definition)
{
    for (EACH_FORMAT(f))
        for (uint32_t code = 0; code < 1u << (f->bits - 1); code++) {
            const uint32_t negative = code | 1u << (f->bits - 1);
            const float x = f->decode(code), y = f->decode(negative);
            if (code <= f->largest) {
                cr_assert(x == value_of(f, code) && !signbit(x), "%s 0x%x is %a", f->name, code, x);
                cr_assert(y == -x && signbit(y), "%s 0x%x is %a", f->name, negative, y);
                cr_assert_eq(f->encode(x), code, "%s 0x%x comes back as 0x%x", f->name, code, f->encode(x));
                cr_assert_eq(f->encode(y), negative, "%s 0x%x comes back as 0x%x", f->name, negative, f->encode(y));
            } else if (code == f->largest + 1 && f->has_infinity) {
                cr_assert(isinf(x) && x > 0 && isinf(y) && y < 0, "%s 0x%x is %a", f->name, code, x);
                cr_assert_eq(f->encode(x), code);
                cr_assert_eq(f->encode(y), negative);
            } else {
                cr_assert(isnan(x) && isnan(y), "%s 0x%x is %a", f->name, code, x);
                cr_assert(isnan(f->decode(f->encode(x))), "%s", f->name);
            }
        }
}

/* What x must become: nearest of the two neighbours, the even code at a tie. By search in double, nothing of the way it is computed. */
static uint32_t expected_code(const struct format *f, double magnitude)
{
    uint32_t low = 0, high = f->largest + 1;
    while (high - low > 1) {
        uint32_t middle = (low + high) / 2;
        if (value_of(f, middle) <= magnitude)
            low = middle;
        else
            high = middle;
    }
    const double below = magnitude - value_of(f, low), above = value_of(f, low + 1) - magnitude;
    uint32_t code = below < above || (below == above && low % 2 == 0) ? low : low + 1;
    if (code > f->largest) code = f->saturates ? f->largest : f->largest + 1;
    return code;
}

static void check_encode(const struct format *f, float x)
{
    const uint32_t got = f->encode(x), sign = signbit(x) ? 1u << (f->bits - 1) : 0;
    cr_assert_eq(got, sign | expected_code(f, fabs((double)x)), "%s of %a is 0x%x, not 0x%x", f->name, x, got,
                 sign | expected_code(f, fabs((double)x)));
}

/* Between every two neighbours: the middle, and the floats beside it. */
Test(dtype, ties_go_to_even)
{
    for (EACH_FORMAT(f))
        for (uint32_t code = 0; code <= f->largest; code++) {
            const float middle = (float)((value_of(f, code) + value_of(f, code + 1)) / 2);
            check_encode(f, middle);
            check_encode(f, -middle);
            check_encode(f, nextafterf(middle, 0));
            check_encode(f, nextafterf(middle, INFINITY));
        }
}

Test(dtype, random_floats_go_to_the_nearest)
{
    uint64_t state = 88172645463325252u;
    for (EACH_FORMAT(f))
        for (int n = 0; n < 200000; n++) {
            float x = float_of((uint32_t)inner_random(&state));
            if (n % 2) x = ldexpf(0.5f + (float)(state >> 40) * 0x1p-25f, (int)(state % 64) - 40); /* where the format has values */
            if (isfinite(x)) check_encode(f, x);
        }
}

Test(dtype, beyond_the_range)
{
    cr_assert_eq(f32_to_f16(65519.996f), 0x7bff);
    cr_assert_eq(f32_to_f16(65520), 0x7c00);
    cr_assert_eq(f32_to_f16(-1e30f), 0xfc00);
    cr_assert_eq(f32_to_bf16(3.4e38f), 0x7f80);
    cr_assert_eq(f32_to_f8_e4m3(448), 0x7e);
    cr_assert_eq(f32_to_f8_e4m3(1e9f), 0x7e);
    cr_assert_eq(f32_to_f8_e4m3(-1e9f), 0xfe);
    cr_assert_eq(f32_to_f8_e4m3(INFINITY), 0x7f);
    cr_assert_eq(f32_to_f8_e4m3(-INFINITY), 0xff);
    cr_assert(isnan(f8_e4m3_to_f32(f32_to_f8_e4m3(NAN))));
    cr_assert_eq(f32_to_f8_e5m2(1e9f), 0x7b);
    cr_assert_eq(f32_to_f8_e5m2(-1e9f), 0xfb);
    cr_assert_eq(f32_to_f8_e5m2(INFINITY), 0x7c);
    cr_assert_eq(f32_to_f8_e5m2(-INFINITY), 0xfc);
    cr_assert(isnan(f8_e5m2_to_f32(f32_to_f8_e5m2(NAN))));
    cr_assert(isnan(f16_to_f32(f32_to_f16(float_of(0x7f800001)))), "a NaN with low bits only must not become infinity");
    cr_assert(isnan(bf16_to_f32(f32_to_bf16(float_of(0x7f800001)))));
}

/* ---- rows ------------------------------------------------------------------------- */

Test(dtype, sizes)
{
    cr_assert_eq(type_row_bytes(HEED_F32, 3), 12);
    cr_assert_eq(type_row_bytes(HEED_BF16, 3), 6);
    cr_assert_eq(type_row_bytes(HEED_F8_E5M2, 3), 3);
    cr_assert_eq(type_row_bytes(HEED_Q8_0, 64), 68);
    cr_assert_eq(type_row_bytes(HEED_Q4_0, 64), 36);
    cr_assert_eq(type_stride_bytes(HEED_F16), 2);
    cr_assert_eq(type_stride_bytes(HEED_Q8_0), 1);
    for (int t = -1; t < 20; t++) {
        heed_type back;
        cr_assert_eq(type_known((heed_type)t), t >= 1 && t <= 8);
        if (t < 1 || t > 8) continue;
        cr_assert(type_from_name(type_name((heed_type)t), strlen(type_name((heed_type)t)), &back));
        cr_assert_eq((int)back, t);
        cr_assert_not(type_from_name(type_name((heed_type)t), 1, &back));
    }
}

Test(dtype, q8_block_by_hand)
{
    float x[32] = {127, -127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 63.2f}, y[32];
    unsigned char row[34];
    row_from_f32(HEED_Q8_0, x, row, NULL, 32);
    uint16_t d;
    memcpy(&d, row, 2);
    cr_assert_eq(d, 0x3c00, "d = 127 / 127");
    const int8_t expected[] = {127, -127, 0, 2, 2, 0, -2, 63};
    cr_assert_arr_eq(row + 2, expected, 8, "quotients round half to even");
    row_to_f32(HEED_Q8_0, row, NAN, y, 32);
    for (int i = 0; i < 32; i++) cr_assert_eq(y[i], (float)(int8_t)row[2 + i]);
}

Test(dtype, q4_block_by_hand)
{
    float x[32] = {0}, y[32];
    unsigned char row[18];
    x[0] = -16, x[1] = 16, x[2] = 5, x[3] = 3, x[16] = 14, x[17] = -2, x[31] = 6; /* -16 comes first: d = 2 */
    row_from_f32(HEED_Q4_0, x, row, NULL, 32);
    uint16_t d;
    memcpy(&d, row, 2);
    cr_assert_eq(d, 0x4000, "d = -16 / -8");
    cr_assert_eq(row[2], 0 | 15 << 4, "elements 0 and 16");
    cr_assert_eq(row[3], 15 | 7 << 4, "16 / 2 = 8 is cut to 7");
    cr_assert_eq(row[4] & 15, 8 + 2, "2.5 to 2");
    cr_assert_eq(row[5] & 15, 8 + 2, "1.5 to 2");
    row_to_f32(HEED_Q4_0, row, NAN, y, 32);
    cr_assert(y[0] == -16 && y[1] == 14 && y[2] == 4 && y[3] == 4 && y[16] == 14 && y[17] == -2 && y[31] == 6 && y[30] == 0);
    x[0] = 0; /* now the largest is positive: d is negative */
    row_from_f32(HEED_Q4_0, x, row, NULL, 32);
    memcpy(&d, row, 2);
    cr_assert_eq(d, 0xc000);
    row_to_f32(HEED_Q4_0, row, NAN, y, 32);
    cr_assert_eq(y[1], 16);
}

Test(dtype, i8_row_by_hand)
{
    const float x[] = {254, -254, 1, 3, 5, 0};
    unsigned char row[6];
    float d = -1, y[6];
    row_from_f32(HEED_I8, x, row, &d, 6);
    cr_assert_eq(d, 2);
    const int8_t expected[] = {127, -127, 0, 2, 2, 0};
    cr_assert_arr_eq(row, expected, 6);
    row_to_f32(HEED_I8, row, d, y, 6);
    cr_assert(y[0] == 254 && y[1] == -254 && y[3] == 4);
}

Test(dtype, f8_scales)
{
    const float x[] = {896, -2, 0, 1e-6f};
    unsigned char row[4];
    float d = -1, y[4];
    row_from_f32(HEED_F8_E4M3, x, row, &d, 4);
    cr_assert_eq(d, 2, "896 / 448");
    row_to_f32(HEED_F8_E4M3, row, d, y, 4);
    cr_assert(y[0] == 896 && y[1] == -2 && y[2] == 0);
    row_from_f32(HEED_F8_E4M3, x, row, NULL, 4);
    row_to_f32(HEED_F8_E4M3, row, 1, y, 4);
    cr_assert(y[0] == 448 && y[1] == -2, "without a scale d = 1, and it saturates");
    row_from_f32(HEED_F8_E5M2, x, row, &d, 4);
    cr_assert_eq(d, 896.0f / 57344);
}

/* Denormal maxima: d is coarse, quotients may pass 127. */
Test(dtype, tiny_rows_stay_in_range)
{
    float x[32] = {0}, d;
    unsigned char row[34];
    x[0] = float_of(190), x[1] = -float_of(190);
    row_from_f32(HEED_I8, x, row, &d, 32);
    cr_assert_eq((int8_t)row[0], 127);
    cr_assert_eq((int8_t)row[1], -127);
    x[0] = x[1] = float_of(1);
    row_from_f32(HEED_I8, x, row, &d, 32);
    cr_assert(d == 0 && row[0] == 0);
    row_from_f32(HEED_Q8_0, x, row, NULL, 32);
    cr_assert(row[0] == 0 && row[1] == 0);
}

Test(dtype, poisoned_rows_are_seen)
{
    static const heed_type each[] = {HEED_I8, HEED_F8_E4M3, HEED_F8_E5M2, HEED_Q8_0, HEED_Q4_0};
    const float poison[] = {NAN, INFINITY, -INFINITY};
    for (int t = 0; t < 5; t++)
        for (int p = 0; p < 3; p++) {
            float x[64] = {1, 2, 3}, d = 1, y[64];
            unsigned char row[68];
            x[40] = poison[p];
            row_from_f32(each[t], x, row, &d, 64);
            row_to_f32(each[t], row, d, y, 64);
            for (int i = 0; i < 64; i++) {
                const bool whole = !type_is_block(each[t]) || i >= 32; /* the block that holds it */
                cr_assert_eq(isnan(y[i]) != 0, whole, "%s with %f: element %d is %f", type_name(each[t]), poison[p], i, y[i]);
            }
        }
}

Test(dtype, scale_beyond_f16_is_nan)
{
    float x[32] = {0}, y[32];
    unsigned char row[34];
    x[3] = 127 * 65519.0f;
    row_from_f32(HEED_Q8_0, x, row, NULL, 32);
    row_to_f32(HEED_Q8_0, row, 1, y, 32);
    cr_assert(isfinite(y[3]) && y[0] == 0);
    x[3] = 127 * 65520.0f;
    row_from_f32(HEED_Q8_0, x, row, NULL, 32);
    row_to_f32(HEED_Q8_0, row, 1, y, 32);
    cr_assert(isnan(y[3]) && isnan(y[0]));
    x[3] = 8 * 65520.0f;
    row_from_f32(HEED_Q4_0, x, row, NULL, 32);
    row_to_f32(HEED_Q4_0, row, 1, y, 32);
    cr_assert(isnan(y[3]) && isnan(y[0]));
}

/* Random rows: half a step away at most, f32 = the exact double rounded once. */
Test(dtype, blocks_are_half_a_step_away)
{
    uint64_t state = 42;
    float x[64], y[64];
    double z[64];
    unsigned char row[68];
    for (int n = 0; n < 4000; n++) {
        const float size = ldexpf(1, (int)(inner_random(&state) % 24) - 12);
        for (int i = 0; i < 64; i++) x[i] = size * ((float)(inner_random(&state) >> 40) * 0x1p-23f - 1);
        row_from_f32(HEED_Q8_0, x, row, NULL, 64);
        row_to_f32(HEED_Q8_0, row, 1, y, 64);
        row_to_f64(HEED_Q8_0, row, 1, z, 64);
        for (int i = 0; i < 64; i++) {
            float largest = 0;
            for (int m = i / 32 * 32; m < i / 32 * 32 + 32; m++) largest = fmaxf(largest, fabsf(x[m]));
            /* half a step, and 127 steps times the rounding of d to f16 */
            cr_assert(fabs((double)x[i] - y[i]) <= largest / 127.0 * 0.5001 + largest * 0x1p-11 + 127 * 0x1p-25, "%a is %a", x[i], y[i]);
            cr_assert(y[i] == z[i]);
        }
        float d;
        row_from_f32(HEED_I8, x, row, &d, 64);
        row_to_f32(HEED_I8, row, d, y, 64);
        row_to_f64(HEED_I8, row, d, z, 64);
        for (int i = 0; i < 64; i++) {
            cr_assert(fabs((double)x[i] - z[i]) <= d * 0.50001, "%a is %a", x[i], z[i]);
            cr_assert_eq(z[i], (double)d * (int8_t)row[i]);
            cr_assert_eq(bits_of(y[i]), bits_of((float)z[i]));
        }
    }
}

/* ---- outputs ------------------------------------------------------------------------ */

/* Just above a tie: by way of f32 it would become the tie, and then even. */
Test(dtype, outputs_are_rounded_once)
{
    uint16_t row[2] = {0xffff, 0xffff};
    store_output(HEED_F16, row, 1, 1 + 0x1p-11 + 0x1p-40);
    cr_assert_eq(row[1], 0x3c01);
    cr_assert_eq(row[0], 0xffff);
    store_output(HEED_F16, row, 0, 1 + 0x1p-11);
    cr_assert_eq(row[0], 0x3c00);
    store_output(HEED_BF16, row, 0, -(1 + 0x1p-8 + 0x1p-40));
    cr_assert_eq(row[0], 0xbf81);
    store_output(HEED_F16, row, 0, 0x1p-25 + 0x1p-60);
    cr_assert_eq(row[0], 1);
    store_output(HEED_F16, row, 0, 0x1p-25);
    cr_assert_eq(row[0], 0);
    store_output(HEED_F16, row, 0, -0.0);
    cr_assert_eq(row[0], 0x8000);
    store_output(HEED_F16, row, 0, 65520);
    cr_assert_eq(row[0], 0x7c00);
    store_output(HEED_BF16, row, 0, -INFINITY);
    cr_assert_eq(row[0], 0xff80);
    store_output(HEED_BF16, row, 0, NAN);
    cr_assert(isnan(bf16_to_f32(row[0])));
    float x[2];
    store_output(HEED_F32, x, 1, 0.1);
    cr_assert_eq(x[1], 0.1f);
}

/* ---- text --------------------------------------------------------------------------- */

Test(dtype, text_is_the_shortest)
{
    static const struct {
        float x;
        const char *text;
    } each[] = {
        {0, "0"},
        {-0.0f, "-0"},
        {1, "1"},
        {-1.5f, "-1.5"},
        {0.1f, "0.1"},
        {30, "30"},
        {123456792, "123456790"},
        {1e10f, "1e10"},
        {1.25e-3f, "0.00125"},
        {1e-6f, "1e-6"},
        {3.4028235e38f, "3.4028235e38"},
        {1e-45f, "1e-45"},
        {16777216, "16777216"},
        {0.088388346f, "0.088388346"},
        {INFINITY, "inf"},
        {-INFINITY, "-inf"},
        {NAN, "nan"},
    };
    char text[64];
    for (size_t n = 0; n < sizeof each / sizeof *each; n++) {
        cr_assert_eq(text_of_float(each[n].x, text, sizeof text), strlen(each[n].text), "%s", text);
        cr_assert_str_eq(text, each[n].text);
    }
    text_of_double(0.1, text, sizeof text);
    cr_assert_str_eq(text, "0.1");
    text_of_double(1.0 / 3, text, sizeof text);
    cr_assert_str_eq(text, "0.3333333333333333");
    cr_assert_eq(text_of_float(1234.5f, text, 4), 6, "the length it would have had");
    cr_assert_str_eq(text, "123");
}

Test(dtype, text_reads_back)
{
    uint64_t state = 7;
    char text[64];
    double back;
    for (int n = 0; n < 100000; n++) {
        const float x = float_of((uint32_t)inner_random(&state));
        if (isnan(x)) continue;
        const size_t length = text_of_float(x, text, sizeof text);
        cr_assert(double_from_text(text, length, &back), "%s", text);
        cr_assert_eq(bits_of((float)back), bits_of(x), "%s is not %a", text, x);
    }
    for (int n = 0; n < 20000; n++) {
        const double x = ldexp((double)(inner_random(&state) >> 11), (int)(inner_random(&state) % 2100) - 1100);
        if (isinf(x)) continue;
        const size_t length = text_of_double(x, text, sizeof text);
        cr_assert(double_from_text(text, length, &back), "%s", text);
        cr_assert_eq(back, x, "%s is not %a", text, x);
    }
}

Test(dtype, text_that_is_no_number)
{
    static const char *const bad[] = {"",    "-",    "+",  ".",  "e5",  "1e",       "1e+", "1.2.3",
                                      "1,5", "0x10", " 1", "1 ", "--1", "infinity", "1f",  "1e5.5"};
    static const struct {
        const char *text;
        double x;
    } good[] = {
        {".5", 0.5},
        {"5.", 5},
        {"+2", 2},
        {"-0", 0},
        {"1e3", 1000},
        {"1E-3", 0.001},
        {"0012.50", 12.5},
        {"0.000", 0},
        {"1e999", INFINITY},
        {"1e-999", 0},
        {"0.1000000000000000055511151231257827", 0.1},
        {"9007199254740993", 9007199254740992.0},
    };
    double x;
    for (size_t n = 0; n < sizeof bad / sizeof *bad; n++) cr_assert_not(double_from_text(bad[n], strlen(bad[n]), &x), "\"%s\"", bad[n]);
    for (size_t n = 0; n < sizeof good / sizeof *good; n++) {
        cr_assert(double_from_text(good[n].text, strlen(good[n].text), &x), "\"%s\"", good[n].text);
        cr_assert_eq(x, good[n].x, "\"%s\" is %a", good[n].text, x);
    }
    cr_assert(double_from_text("12.5garbage", 4, &x) && x == 12.5, "only so many characters count");
}
