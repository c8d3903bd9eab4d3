/* SPDX-License-Identifier: MIT
 * number.c - numbers with a fraction as text and back, whatever the locale.
 * Not a formatting library: the shortest decimal that reads back the same value, one form, and its reverse.
 */
#include "dtype.h"
#include "status.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NUMBER_BYTES = 192 };

/* Digits of |x| to `precision` places after the first, and the decimal exponent of the first. The decimal point that printf takes from
 * the locale is simply not a digit. */
static int digits_of(double x, int precision, char *digits, int *exponent)
{
    char text[64];
    int count = 0;
    snprintf(text, sizeof text, "%.*e", precision, fabs(x));
    const char *e = strchr(text, 'e');
    for (const char *c = text; c < e; c++)
        if (*c >= '0' && *c <= '9') digits[count++] = *c;
    digits[count] = '\0';
    *exponent = (int)strtol(e + 1, NULL, 10);
    return count;
}

/* The value of `digits` with the first at 10^exponent. No decimal point is needed, so the locale has no say. */
static double value_of(const char *digits, int count, int exponent)
{
    char text[NUMBER_BYTES];
    snprintf(text, sizeof text, "%.*se%d", count, digits, exponent - (count - 1));
    return strtod(text, NULL);
}

static size_t layout(bool negative, const char *digits, int count, int exponent, char *text, size_t capacity)
{
    const char *sign = negative ? "-" : "";
    while (count > 1 && digits[count - 1] == '0') count--;
    if (exponent >= 0 && exponent < 10) {
        if (count <= exponent + 1)
            return text_append(text, capacity, 0, "%s%.*s%.*s", sign, count, digits, exponent + 1 - count, "000000000");
        return text_append(text, capacity, 0, "%s%.*s.%.*s", sign, exponent + 1, digits, count - exponent - 1, digits + exponent + 1);
    }
    if (exponent < 0 && exponent >= -5) return text_append(text, capacity, 0, "%s0.%.*s%.*s", sign, -exponent - 1, "00000", count, digits);
    return text_append(text, capacity, 0, "%s%.1s%s%.*se%d", sign, digits, count > 1 ? "." : "", count - 1, digits + 1, exponent);
}

static size_t text_of(double x, bool is_float, char *text, size_t capacity)
{
    char digits[40];
    int exponent, count;
    if (isnan(x)) return text_append(text, capacity, 0, "nan");
    if (isinf(x)) return text_append(text, capacity, 0, x < 0 ? "-inf" : "inf");
    for (int precision = 0;; precision++) {
        count = digits_of(x, precision, digits, &exponent);
        double back = value_of(digits, count, exponent);
        if (precision == 16 || (is_float ? (float)back == (float)fabs(x) : back == fabs(x))) break;
    }
    return layout(signbit(x), digits, count, exponent, text, capacity);
}

size_t text_of_float(float x, char *text, size_t capacity) { return text_of(x, true, text, capacity); }

size_t text_of_double(double x, char *text, size_t capacity) { return text_of(x, false, text, capacity); }

static bool is_word(const char *text, size_t length, const char *word) { return strlen(word) == length && memcmp(text, word, length) == 0; }

/* [+-] digits [. digits] [e [+-] digits], or inf, nan. Rewritten without a point ("12.5" is 125e-1) for strtod. */
bool double_from_text(const char *text, size_t length, double *x)
{
    const char *c = text, *end = text + length;
    char digits[NUMBER_BYTES];
    int count = 0, places = 0, given = 0;
    long exponent = 0;
    bool negative = c < end && *c == '-', point = false;
    if (c < end && (*c == '-' || *c == '+')) c++;
    if (is_word(c, (size_t)(end - c), "inf") || is_word(c, (size_t)(end - c), "nan")) {
        *x = *c == 'n' ? NAN : negative ? -INFINITY : INFINITY;
        return true;
    }
    for (; c < end && ((*c >= '0' && *c <= '9') || (*c == '.' && !point)); c++) {
        if (*c == '.') {
            point = true;
            continue;
        }
        given++;
        if (point) places++;
        if (count == 0 && *c == '0') continue; /* leading zeros */
        if (count >= NUMBER_BYTES - 32) return false;
        digits[count++] = *c;
    }
    if (given == 0) return false;
    if (c < end && (*c == 'e' || *c == 'E')) {
        bool below = ++c < end && *c == '-';
        if (c < end && (*c == '-' || *c == '+')) c++;
        if (c == end) return false;
        for (; c < end && *c >= '0' && *c <= '9'; c++)
            if (exponent < 100000) exponent = exponent * 10 + (*c - '0');
        if (below) exponent = -exponent;
    }
    if (c != end) return false;
    double value = count ? value_of(digits, count, (int)exponent - places + count - 1) : 0;
    *x = negative ? -value : value;
    return true;
}
